//! The entries of the journal, and the state that all of them together describe.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
};

use serde::{Deserialize, Serialize};
use token::Fingerprint;

use crate::{
    db::NEVER_EXPIRES,
    domain::{Tombstone, TombstoneKind, UnixSeconds, Version, Watermark},
    revocation::watermarks,
};

/// One line of the journal, as JSON with the members `version` and `kind`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The version of the store that the entry belongs to.
    pub version: Version,
    /// The content.
    #[serde(flatten)]
    pub kind: EntryKind,
}

/// The content of an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum EntryKind {
    /// A credential was revoked.
    Revoked {
        /// Hexadecimal.
        fingerprint: String,
        /// Seconds; absent if the credential never expires.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires_at: Option<UnixSeconds>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// Seconds.
        revoked_at: UnixSeconds,
    },
    /// A revocation was undone.
    Unrevoked { fingerprint: String },
    /// Everything of a scope that was issued at or before an instant was revoked.
    Watermark {
        scope: String,
        id: String,
        instant: UnixSeconds,
        /// Seconds; absent if the watermark is kept forever.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ends_at: Option<UnixSeconds>,
    },
    /// Something was deleted, or its end was set: see [`Tombstone`].
    Gone { what: String, id: String, at: UnixSeconds },
    /// The permissions of a subject have changed.
    Granted { subject: String },
    /// The state of the store when the entries before were written: see [`JournalMark`].
    Mark { seq: u64, at: u64 },
}

impl EntryKind {
    const KINDS: [&'static str; 6] = ["revoked", "unrevoked", "watermark", "gone", "granted", "mark"];

    pub(super) fn from_watermark(watermark: &Watermark) -> Self {
        let (scope, id) = watermarks::columns(&watermark.scope);
        let ends_at = Some(watermark.ends_at).filter(|at| *at != NEVER_EXPIRES);
        Self::Watermark { scope: scope.to_owned(), id, instant: watermark.instant, ends_at }
    }

    pub(super) fn from_tombstone(tombstone: Tombstone) -> Self {
        let Tombstone { kind: gone, id, at } = tombstone;
        Self::Gone { what: gone.name().to_owned(), id, at }
    }
}

/// Why a line cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LineError {
    /// A later version of Keystile has written an entry of this kind.
    UnknownKind(String),
    /// The line is not a valid entry.
    Malformed,
}

impl Entry {
    /// Parses a line without its line feed.
    pub(super) fn parse(line: &[u8]) -> Result<Self, LineError> {
        #[derive(Deserialize)]
        struct Kind {
            kind: String,
        }
        serde_json::from_slice(line).map_err(|_| match serde_json::from_slice::<Kind>(line) {
            Ok(Kind { kind }) if !EntryKind::KINDS.contains(&kind.as_str()) => LineError::UnknownKind(kind),
            _ => LineError::Malformed,
        })
    }

    /// Returns the mark in a line; `None` if the line is anything else.
    pub(super) fn parse_mark(line: &[u8]) -> Option<JournalMark> {
        match Self::parse(line) {
            Ok(Self { version, kind: EntryKind::Mark { seq, at } }) => Some(JournalMark { version, seq, at }),
            _ => None,
        }
    }

    /// Appends the line to `out`.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        // Serializing strings and numbers cannot fail.
        out.extend(serde_json::to_vec(self).unwrap_or_default());
        out.push(b'\n');
    }
}

/// The state that all entries together describe: the last entry for each item, with its version.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct JournalContent {
    /// Version and revocation of each fingerprint; `None` if the revocation was taken back.
    pub revocations: HashMap<Fingerprint, (Version, Option<JournalRevocation>)>,
    /// Watermarks with their versions.
    pub watermarks: Vec<(Version, Watermark)>,
    /// Version and instant of each tombstone.
    pub gone: HashMap<(TombstoneKind, String), (Version, UnixSeconds)>,
    /// The version in which the permissions of each subject last changed.
    pub granted: BTreeMap<String, Version>,
    /// All marks in the order of the file.
    pub marks: Vec<JournalMark>,
    /// The highest version of any entry.
    pub newest: Version,
    /// The part of the file that this was read from.
    pub(super) extent: FileExtent,
    /// The index in `watermarks` of each scope.
    scopes: HashMap<(String, String), usize>,
}

/// The complete lines of a journal file when it was read.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileExtent {
    /// Device and inode of the file.
    pub(super) file: (u64, u64),
    /// The length of the lines in bytes.
    pub(super) length: u64,
}

/// A revocation in the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalRevocation {
    /// Seconds; [`NEVER_EXPIRES`] if the credential never expires.
    pub expires_at: UnixSeconds,
    /// The reason that was given.
    pub reason: Option<String>,
    /// Seconds.
    pub revoked_at: UnixSeconds,
}

/// The state of the store when the entries before this one were written. They are all entries of the store up to
/// `version`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalMark {
    /// The version of the store.
    pub version: Version,
    /// The number of the newest audit entry.
    pub seq: u64,
    /// The time of that audit entry in milliseconds.
    pub at: u64,
}

impl JournalMark {
    pub(super) const fn entry(self) -> Entry {
        let Self { version, seq, at } = self;
        Entry { version, kind: EntryKind::Mark { seq, at } }
    }
}

impl JournalContent {
    /// Applies an entry.
    pub(super) fn apply(&mut self, entry: Entry) -> Result<(), LineError> {
        let Entry { version, kind } = entry;
        self.newest = self.newest.max(version);
        let parsed =
            |fingerprint: String| fingerprint.parse::<Fingerprint>().map_err(|_| LineError::Malformed);
        match kind {
            EntryKind::Revoked { fingerprint, expires_at, reason, revoked_at } => {
                let expires_at = expires_at.unwrap_or(NEVER_EXPIRES);
                let revocation = JournalRevocation { expires_at, reason, revoked_at };
                insert_latest(&mut self.revocations, parsed(fingerprint)?, (version, Some(revocation)));
            }
            EntryKind::Unrevoked { fingerprint } => {
                insert_latest(&mut self.revocations, parsed(fingerprint)?, (version, None));
            }
            EntryKind::Watermark { scope, id, instant, ends_at } => {
                let of = watermarks::parse_scope(&scope, &id).map_err(|_| LineError::Malformed)?;
                let raised =
                    (version, Watermark { scope: of, instant, ends_at: ends_at.unwrap_or(NEVER_EXPIRES) });
                match self
                    .scopes
                    .get(&(scope.clone(), id.clone()))
                    .and_then(|at| self.watermarks.get_mut(*at))
                {
                    Some(held) if held.0 > version => {}
                    Some(held) => *held = raised,
                    None => {
                        self.scopes.insert((scope, id), self.watermarks.len());
                        self.watermarks.push(raised);
                    }
                }
            }
            EntryKind::Gone { what, id, at } => {
                let gone =
                    TombstoneKind::from_name(&what).ok_or(LineError::UnknownKind(format!("gone {what}")))?;
                insert_latest(&mut self.gone, (gone, id), (version, at));
            }
            EntryKind::Granted { subject } => {
                let known = self.granted.entry(subject).or_default();
                *known = version.max(*known);
            }
            EntryKind::Mark { seq, at } => self.marks.push(JournalMark { version, seq, at }),
        }
        Ok(())
    }
}

/// Keeps the value of the highest version. The file may contain an entry twice, and entries in any order.
fn insert_latest<K: Eq + Hash, V>(held: &mut HashMap<K, (Version, V)>, key: K, value: (Version, V)) {
    match held.get_mut(&key) {
        Some(known) if known.0 > value.0 => {}
        Some(known) => *known = value,
        None => {
            held.insert(key, value);
        }
    }
}
