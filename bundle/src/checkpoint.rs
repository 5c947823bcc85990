//! The checkpoint: the signed state of everything that can be undone.

use alloc::{string::String, vec::Vec};

use crate::{
    Delegation, Entry, ObjectError, ObjectKind, PublicKey,
    codec::{Malformed, Reader},
    delegation::decode_audience,
    key::{Context, split_signature, verify},
    object::decode_entries,
};

/// The first bytes of a checkpoint.
pub(crate) const MAGIC: &[u8; 4] = b"KSC1";

/// The domain separation prefix of its signature.
pub(crate) const CONTEXT: Context = b"keystile-checkpoint-v1\0";

/// The complete state up to one operation, signed by a snapshot key: keys, grants, watermarks, revocations and
/// un-revocations. Later operations are in the tail.
///
/// ```text
///  0   4  "KSC1"
///  4   8  snapshot key id: the first 8 bytes of the SHA-256 of the public key
/// 12   8  version
/// 20   8  issued at, milliseconds since the Unix epoch
/// 28   8  expires at, likewise
/// 36   8  covered until: number of the last operation that it includes
/// 44   1  n, length of the audience (1 to 64)
/// 45   n  audience
///      2  number of entries
///     40  each entry, strictly ascending
///     64  Ed25519 (RFC 8032) over "keystile-checkpoint-v1\0" and all preceding bytes
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The key that signed it, because a later delegation may exclude that key.
    signer: PublicKey,
    version: u64,
    issued_at: u64,
    expires_at: u64,
    covered_until: u64,
    audience: String,
    entries: Vec<Entry>,
}

impl Checkpoint {
    /// Verifies and decodes a checkpoint. There is no other constructor.
    pub(crate) fn open(bytes: &[u8], delegation: &Delegation) -> Result<Self, ObjectError> {
        let (body, signature) = split_signature(bytes)?;
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
            covered_until: rest.u64("covered until")?,
            audience: decode_audience(&mut rest)?,
            entries: decode_entries(&mut rest, is_allowed_kind)?,
        };
        rest.finish()?;
        if checkpoint.expires_at <= checkpoint.issued_at {
            return Err(Malformed("expires at").into());
        }
        if checkpoint.audience != delegation.audience() {
            return Err(ObjectError::AudienceMismatch);
        }
        Ok(checkpoint)
    }

    /// Returns whether the checkpoint would also open under this delegation.
    pub(crate) fn is_signed_under(&self, delegation: &Delegation) -> bool {
        delegation.snapshot_keys().contains(&self.signer) && self.audience == delegation.audience()
    }

    /// Returns the version, which increases with every change of the content. Signing the same content again keeps it.
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// Returns the time of signing, in milliseconds since the Unix epoch.
    pub const fn issued_at(&self) -> u64 {
        self.issued_at
    }

    /// Returns the expiry, in milliseconds since the Unix epoch.
    pub const fn expires_at(&self) -> u64 {
        self.expires_at
    }

    /// Returns the number of the last operation that the checkpoint includes.
    pub const fn covered_until(&self) -> u64 {
        self.covered_until
    }

    /// Returns the entries, in ascending order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }
}

/// Returns whether a checkpoint may name an object of this kind.
const fn is_allowed_kind(kind: ObjectKind) -> bool {
    match kind {
        ObjectKind::Checkpoint | ObjectKind::Tail | ObjectKind::Base => false,
        ObjectKind::Keys
        | ObjectKind::SecretKeys
        | ObjectKind::Revocations
        | ObjectKind::Watermarks
        | ObjectKind::Index
        | ObjectKind::Grants
        | ObjectKind::Unrevocations
        | ObjectKind::Block
        | ObjectKind::Gaps
        | ObjectKind::Known
        | ObjectKind::Requirements => true,
    }
}
