//! The signing keys, and the encoding of delegations, checkpoints and manifests.

use alloc::{sync::Arc, vec::Vec};
use core::fmt;

use ed25519_dalek::Signer as _;

use super::{TooLarge, sharded_set::encode_object};
use crate::{
    Entry, MAX_MANIFEST_BYTES, ObjectKind, PublicKey, checkpoint,
    delegation::{self, MAX_AUDIENCE_BYTES, MAX_KEYS_PER_ROLE},
    key::Context,
    manifest,
    object::encode_entries,
};

macro_rules! signer {
    ($(#[$doc:meta])* $name:ident, $context:expr) => {
        $(#[$doc])*
        pub struct $name(ed25519_dalek::SigningKey);

        impl $name {
            /// Derives the key from the 32-byte Ed25519 seed (RFC 8032). Its copy of the seed is zeroized on drop.
            pub fn new(seed: &[u8; 32]) -> Self {
                Self(ed25519_dalek::SigningKey::from_bytes(seed))
            }

            /// Returns the public key.
            pub fn public_key(&self) -> PublicKey {
                PublicKey::from_signing_key(&self.0)
            }

            /// Signs arbitrary bytes, even malformed ones. Tests use this to forge messages.
            pub fn sign_body(&self, body: Vec<u8>) -> Vec<u8> {
                sign(&self.0, $context, body)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.public_key())
            }
        }
    };
}

signer!(
    /// The root key, whose public half edges pin. It signs only delegations, so it can be kept offline.
    RootKey,
    delegation::CONTEXT
);

signer!(
    /// Signs checkpoints. Only this key can remove a revocation or lower a watermark.
    SnapshotKey,
    checkpoint::CONTEXT
);

signer!(
    /// Signs manifests. This key can only add revocations and watermarks.
    TailKey,
    manifest::CONTEXT
);

/// The fields of a [`Delegation`](crate::Delegation) to be signed.
#[derive(Debug, Clone)]
pub struct DelegationFields<'a> {
    /// 1 to 64 bytes.
    pub audience: &'a str,
    /// Greater than the epoch of every earlier delegation.
    pub epoch: u64,
    /// Milliseconds since the Unix epoch.
    pub issued_at: u64,
    /// Milliseconds since the Unix epoch.
    pub expires_at: u64,
    /// 1 to 4, in any order.
    pub snapshot_keys: &'a [PublicKey],
    /// 1 to 4, in any order.
    pub tail_keys: &'a [PublicKey],
}

impl RootKey {
    /// Signs a delegation.
    ///
    /// # Errors
    ///
    /// [`TooLarge`] if the audience is longer than 64 bytes, or there are more than 4 keys of one kind.
    pub fn delegate(&self, fields: &DelegationFields<'_>) -> Result<Vec<u8>, TooLarge> {
        let DelegationFields { audience, epoch, issued_at, expires_at, snapshot_keys, tail_keys } = fields;
        let mut body = Vec::from(*delegation::MAGIC);
        body.extend(self.public_key().id());
        for number in [epoch, issued_at, expires_at] {
            body.extend(number.to_be_bytes());
        }
        encode_audience(&mut body, audience)?;
        for keys in [snapshot_keys, tail_keys] {
            let mut keys: Vec<&[u8; 32]> = keys.iter().map(PublicKey::as_bytes).collect();
            keys.sort_unstable();
            keys.dedup();
            let count = u8::try_from(keys.len()).ok().filter(|count| *count <= MAX_KEYS_PER_ROLE);
            body.push(count.ok_or(TooLarge)?);
            keys.into_iter().for_each(|key| body.extend(key));
        }
        Ok(self.sign_body(body))
    }
}

/// The fields of a [`Checkpoint`](crate::Checkpoint) to be signed.
#[derive(Debug, Clone)]
pub struct CheckpointFields<'a> {
    /// 1 to 64 bytes.
    pub audience: &'a str,
    /// Increases with every change of the content; signing the same content again keeps it.
    pub version: u64,
    /// Milliseconds since the Unix epoch.
    pub issued_at: u64,
    /// Milliseconds since the Unix epoch.
    pub expires_at: u64,
    /// [`BuiltBundle::covered_until`](super::BuiltBundle::covered_until).
    pub covered_until: u64,
    /// [`BuiltBundle::checkpoint`](super::BuiltBundle::checkpoint).
    pub entries: &'a [Entry],
}

impl SnapshotKey {
    /// Signs a checkpoint. The entry belongs in [`ManifestFields`]; the bytes are published like every other object.
    ///
    /// # Errors
    ///
    /// [`TooLarge`] if the audience is longer than 64 bytes, or the checkpoint is larger than an object may be.
    pub fn sign(&self, fields: &CheckpointFields<'_>) -> Result<(Entry, Arc<[u8]>), TooLarge> {
        let CheckpointFields { audience, version, issued_at, expires_at, covered_until, entries } = fields;
        let mut body = Vec::from(*checkpoint::MAGIC);
        body.extend(self.public_key().id());
        for number in [version, issued_at, expires_at, covered_until] {
            body.extend(number.to_be_bytes());
        }
        encode_audience(&mut body, audience)?;
        encode_entries(&mut body, entries).ok_or(TooLarge)?;
        encode_object(ObjectKind::Checkpoint, 0, self.sign_body(body))
    }
}

/// The fields of a [`Manifest`](crate::Manifest) to be signed.
#[derive(Debug, Clone)]
pub struct ManifestFields<'a> {
    /// The bytes of an unexpired delegation, as [`RootKey::delegate`] returns them.
    pub delegation: &'a [u8],
    /// Increases with every change of the content; signing the same content again keeps it.
    pub version: u64,
    /// Milliseconds since the Unix epoch.
    pub issued_at: u64,
    /// Milliseconds since the Unix epoch.
    pub expires_at: u64,
    /// The entry that [`SnapshotKey::sign`] returns.
    pub checkpoint: Entry,
    /// [`BuiltBundle::tail`](super::BuiltBundle::tail).
    pub tail: &'a [Entry],
}

impl TailKey {
    /// Signs a manifest.
    ///
    /// # Errors
    ///
    /// [`TooLarge`] if it is longer than [`MAX_MANIFEST_BYTES`].
    pub fn sign(&self, fields: &ManifestFields<'_>) -> Result<Vec<u8>, TooLarge> {
        let ManifestFields { delegation, version, issued_at, expires_at, checkpoint, tail } = fields;
        let mut body = Vec::from(*manifest::MAGIC);
        body.extend(self.public_key().id());
        for number in [version, issued_at, expires_at] {
            body.extend(number.to_be_bytes());
        }
        body.extend(u16::try_from(delegation.len()).map_err(|_| TooLarge)?.to_be_bytes());
        body.extend(*delegation);
        encode_entries(&mut body, &[&[*checkpoint], *tail].concat()).ok_or(TooLarge)?;
        let signed = self.sign_body(body);
        if signed.len() > MAX_MANIFEST_BYTES { Err(TooLarge) } else { Ok(signed) }
    }
}

fn encode_audience(body: &mut Vec<u8>, audience: &str) -> Result<(), TooLarge> {
    if audience.len() > MAX_AUDIENCE_BYTES {
        return Err(TooLarge);
    }
    body.push(u8::try_from(audience.len()).map_err(|_| TooLarge)?);
    body.extend(audience.as_bytes());
    Ok(())
}

fn sign(key: &ed25519_dalek::SigningKey, context: Context, mut body: Vec<u8>) -> Vec<u8> {
    let signature = key.sign(&[context, &body].concat());
    body.extend(signature.to_bytes());
    body
}
