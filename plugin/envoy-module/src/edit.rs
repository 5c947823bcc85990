//! Changes of headers, copied: what Envoy lends ends with the first change.

use verdict::{Forward, ForwardedHeader, Headers};

/// The typical number of changes: one credential is removed, and five identity headers are added.
const TYPICAL_CHANGES: usize = 8;

/// The typical size of their names and values.
const TYPICAL_BYTES: usize = 512;

/// Changes of a header map, in the order in which they are made.
#[derive(Debug, Default)]
pub(crate) struct HeaderEdit {
    entries: Vec<Entry>,
    /// All names and values, one after the other.
    bytes: Vec<u8>,
}

/// A change. A host removes all headers of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change<'e> {
    Remove(&'e [u8]),
    Set(&'e [u8], &'e [u8]),
    Add(&'e [u8], &'e [u8]),
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Remove,
    Set,
    Add,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    kind: Kind,
    name_bytes: usize,
    value_bytes: usize,
}

impl HeaderEdit {
    /// Copies what a gate returned for `headers`. Returns `None` if nothing has to be changed.
    pub(crate) fn new(headers: &Headers<'_>, forward: &Forward<'_>) -> Option<Self> {
        match forward {
            Forward::Unchanged => None,
            Forward::Edited { removed, added } => {
                let mut edit = Self {
                    entries: Vec::with_capacity(TYPICAL_CHANGES),
                    bytes: Vec::with_capacity(TYPICAL_BYTES),
                };
                removed.iter().for_each(|name| edit.push(Kind::Remove, name, &[]));
                added.iter().for_each(|(name, value)| edit.push(Kind::Add, name, value));
                Some(edit)
            }
            Forward::ReplaceAll(kept) => Some(Self::replacing(headers, kept)),
        }
    }

    /// Replaces all headers. Pseudo-headers stay, with another value if it has changed.
    pub(crate) fn replacing(headers: &Headers<'_>, kept: &[ForwardedHeader<'_>]) -> Self {
        let mut edit = Self::default();
        let is_pseudo = |name: &str| name.starts_with(':');
        for (name, _) in headers.iter().filter(|(name, _)| !is_pseudo(name)) {
            edit.push(Kind::Remove, name, &[]);
        }
        for (name, value) in kept {
            if !is_pseudo(name) {
                edit.push(Kind::Add, name, value);
            } else if !headers.contains(&(*name, &**value)) {
                edit.push(Kind::Set, name, value);
            }
        }
        edit
    }

    pub(crate) fn changes(&self) -> impl Iterator<Item = Change<'_>> {
        let mut rest = &*self.bytes;
        let mut take = move |length: usize| {
            let (taken, more) = rest.split_at_checked(length).unwrap_or_default();
            rest = more;
            taken
        };
        self.entries.iter().map(move |Entry { kind, name_bytes, value_bytes }| {
            let (name, value) = (take(*name_bytes), take(*value_bytes));
            match kind {
                Kind::Remove => Change::Remove(name),
                Kind::Set => Change::Set(name, value),
                Kind::Add => Change::Add(name, value),
            }
        })
    }

    fn push(&mut self, kind: Kind, name: &str, value: &[u8]) {
        self.entries.push(Entry { kind, name_bytes: name.len(), value_bytes: value.len() });
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.extend_from_slice(value);
    }
}
