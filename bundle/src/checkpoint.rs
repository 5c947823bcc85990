use alloc::{string::String, vec::Vec};

use crate::{
    Delegation, Entry, Kind, ObjectError, PublicKey,
    codec::{Malformed, Reader},
    delegation::read_audience,
    key::{Context, split, verify},
    object::read_entries,
};

/// Everything but the last operations, signed by a snapshot key: keys, grants, watermarks, what is revoked and what is
/// not, up to and with one operation of the tail.
///
/// ```text
///  0   4  "KSC1"
///  4   8  snapshot key: the first bytes of the SHA-256 of its public half
/// 12   8  version
/// 20   8  issued at, milliseconds since the Unix epoch
/// 28   8  expires at, likewise
/// 36   8  cut: number of the last operation that it has taken in
/// 44   1  n, length of the audience (1 to 64)
/// 45   n  audience
///      2  number of entries
///     40  each entry, strictly ascending
///     64  Ed25519 (RFC 8032) over "keystile-checkpoint-v1\0" and all before
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// A later delegation may not name it any more.
    signer: PublicKey,
    version: u64,
    issued_at: u64,
    expires_at: u64,
    cut: u64,
    audience: String,
    entries: Vec<Entry>,
}

impl Checkpoint {
    /// The only way to a checkpoint.
    pub(crate) fn open(bytes: &[u8], delegation: &Delegation) -> Result<Self, ObjectError> {
        let (body, signature) = split(bytes)?;
        let mut rest = Reader(body);
        if &rest.array::<4>("magic")? != MAGIC {
            return Err(Malformed("magic").into());
        }
        let key_id = rest.array("snapshot key")?;
        let signer = verify(delegation.snapshot_keys(), key_id, CONTEXT, (body, signature))?.clone();
        let checkpoint = Self {
            signer,
            version: rest.u64("version")?,
            issued_at: rest.u64("issued at")?,
            expires_at: rest.u64("expires at")?,
            cut: rest.u64("cut")?,
            audience: read_audience(&mut rest)?,
            entries: read_entries(&mut rest, may_name)?,
        };
        rest.end()?;
        if checkpoint.expires_at <= checkpoint.issued_at {
            return Err(Malformed("expires at").into());
        }
        if checkpoint.audience != delegation.audience() {
            return Err(ObjectError::AudienceMismatch);
        }
        Ok(checkpoint)
    }

    /// Whether this delegation would have let it be opened.
    pub(crate) fn is_by(&self, delegation: &Delegation) -> bool {
        delegation.snapshot_keys().contains(&self.signer) && self.audience == delegation.audience()
    }

    /// Counts the changes of the content; the same content signed again keeps it.
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// Milliseconds since the Unix epoch.
    pub const fn issued_at(&self) -> u64 {
        self.issued_at
    }

    /// Milliseconds since the Unix epoch.
    pub const fn expires_at(&self) -> u64 {
        self.expires_at
    }

    /// The number of the last operation that it has taken in.
    pub const fn cut(&self) -> u64 {
        self.cut
    }

    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }
}

const fn may_name(kind: Kind) -> bool {
    match kind {
        Kind::Checkpoint | Kind::Tail | Kind::Base => false,
        Kind::Keys
        | Kind::SecretKeys
        | Kind::Revocations
        | Kind::Watermarks
        | Kind::Index
        | Kind::Grants
        | Kind::Restorations
        | Kind::Block
        | Kind::Gaps
        | Kind::Known => true,
    }
}

pub(crate) const MAGIC: &[u8; 4] = b"KSC1";

pub(crate) const CONTEXT: Context = b"keystile-checkpoint-v1\0";
