//! What a line of the journal says.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
};

use serde::{Deserialize, Serialize};
use token::Fingerprint;

use crate::{
    model::{Gone, Tombstone, Watermark},
    store::{NEVER, watermarks},
};

/// One line: JSON with `version`, the version of the store that it belongs to, and `kind`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub version: u64,
    #[serde(flatten)]
    pub what: What,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum What {
    /// A credential, by its fingerprint in hex; `expires_at` in seconds, absent for never.
    Revoked {
        fingerprint: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires_at: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// In seconds.
        revoked_at: u64,
    },
    /// A revocation was taken back.
    Unrevoked { fingerprint: String },
    /// Everything of the scope that was issued at or before the instant.
    /// `ends_at`: as of a revocation.
    Watermark {
        scope: String,
        id: String,
        instant: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ends_at: Option<u64>,
    },
    /// Something was deleted for ever, or has got an end: see [`Tombstone`].
    Gone { what: String, id: String, at: u64 },
    /// What a user may do has changed.
    Granted { subject: String },
    /// How far the store was: number and time (milliseconds) of its newest audit line.
    Mark { seq: u64, at: u64 },
}

impl What {
    const KINDS: [&'static str; 6] = ["revoked", "unrevoked", "watermark", "gone", "granted", "mark"];

    pub(super) fn of_watermark(watermark: &Watermark) -> Self {
        let (scope, id) = watermarks::columns(&watermark.scope);
        let ends_at = Some(watermark.ends_at).filter(|at| *at != NEVER);
        Self::Watermark { scope: scope.to_owned(), id, instant: watermark.instant, ends_at }
    }

    pub(super) fn of_tombstone(tombstone: Tombstone) -> Self {
        let Tombstone { gone, id, at } = tombstone;
        Self::Gone { what: gone.name().to_owned(), id, at }
    }
}

/// Why a line can't be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum BadLine {
    /// Written by a later version of Keystile.
    Kind(String),
    Malformed,
}

impl Entry {
    pub(super) fn read(line: &[u8]) -> Result<Self, BadLine> {
        #[derive(Deserialize)]
        struct Kind {
            kind: String,
        }
        serde_json::from_slice(line).map_err(|_| match serde_json::from_slice::<Kind>(line) {
            Ok(Kind { kind }) if !What::KINDS.contains(&kind.as_str()) => BadLine::Kind(kind),
            _ => BadLine::Malformed,
        })
    }

    /// The mark that a line is, if it is one.
    pub(super) fn mark_of(line: &[u8]) -> Option<Mark> {
        match Self::read(line) {
            Ok(Self { version, what: What::Mark { seq, at } }) => Some(Mark { version, seq, at }),
            _ => None,
        }
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        // Of strings and numbers: it can't fail.
        out.extend(serde_json::to_vec(self).unwrap_or_default());
        out.push(b'\n');
    }
}

/// What all the lines say together: the last word on each thing, with its version.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    pub revocations: HashMap<Fingerprint, (u64, Option<Refused>)>,
    pub watermarks: Vec<(u64, Watermark)>,
    pub gone: HashMap<(Gone, String), (u64, u64)>,
    pub granted: BTreeMap<String, u64>,
    pub marks: Vec<Mark>,
    /// Version of the last line.
    pub newest: u64,
    /// The part of the file that this was read from.
    pub(super) extent: Extent,
    scopes: HashMap<(String, String), usize>,
}

/// The whole lines of a journal file at the moment when it was read.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    /// Device and inode of the file.
    pub(super) file: (u64, u64),
    /// Bytes.
    pub(super) length: u64,
}

/// A revocation that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub expires_at: u64,
    pub reason: Option<String>,
    pub revoked_at: u64,
}

/// How far the store was when the lines before this one were written: they are all that it took back up to `version`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    pub version: u64,
    /// Number of the newest audit line.
    pub seq: u64,
    /// Its time in milliseconds.
    pub at: u64,
}

impl Mark {
    pub(super) const fn entry(self) -> Entry {
        let Self { version, seq, at } = self;
        Entry { version, what: What::Mark { seq, at } }
    }
}

impl Recorded {
    pub(super) fn take(&mut self, entry: Entry) -> Result<(), BadLine> {
        let Entry { version, what } = entry;
        self.newest = self.newest.max(version);
        let parsed = |fingerprint: String| fingerprint.parse::<Fingerprint>().map_err(|_| BadLine::Malformed);
        match what {
            What::Revoked { fingerprint, expires_at, reason, revoked_at } => {
                let refused = Refused { expires_at: expires_at.unwrap_or(NEVER), reason, revoked_at };
                latest(&mut self.revocations, parsed(fingerprint)?, (version, Some(refused)));
            }
            What::Unrevoked { fingerprint } => {
                latest(&mut self.revocations, parsed(fingerprint)?, (version, None));
            }
            What::Watermark { scope, id, instant, ends_at } => {
                let of = watermarks::scope(&scope, &id).map_err(|_| BadLine::Malformed)?;
                let raised = (version, Watermark { scope: of, instant, ends_at: ends_at.unwrap_or(NEVER) });
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
            What::Gone { what, id, at } => {
                let gone = Gone::of(&what).ok_or(BadLine::Kind(format!("gone {what}")))?;
                latest(&mut self.gone, (gone, id), (version, at));
            }
            What::Granted { subject } => {
                let known = self.granted.entry(subject).or_default();
                *known = version.max(*known);
            }
            What::Mark { seq, at } => self.marks.push(Mark { version, seq, at }),
        }
        Ok(())
    }
}

/// Keeps the value of the highest version: lines may stand in the file twice, and in any order.
fn latest<K: Eq + Hash, V>(held: &mut HashMap<K, (u64, V)>, key: K, value: (u64, V)) {
    match held.get_mut(&key) {
        Some(known) if known.0 > value.0 => {}
        Some(known) => *known = value,
        None => {
            held.insert(key, value);
        }
    }
}
