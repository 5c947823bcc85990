use alloc::{sync::Arc, vec::Vec};
use core::fmt;

use ed25519_dalek::Signer as _;

use super::{TooLarge, cut::encoded};
use crate::{
    Entry, Kind, MAX_MANIFEST_BYTES, PublicKey, checkpoint,
    delegation::{self, MAX_AUDIENCE, MAX_KEYS},
    key::Context,
    manifest,
    object::write_entries,
};

macro_rules! signer {
    ($(#[$doc:meta])* $name:ident, $context:expr) => {
        $(#[$doc])*
        pub struct $name(ed25519_dalek::SigningKey);

        impl $name {
            /// The seed's copy within is wiped when this is dropped.
            pub fn new(seed: &[u8; 32]) -> Self {
                Self(ed25519_dalek::SigningKey::from_bytes(seed))
            }

            pub fn public_key(&self) -> PublicKey {
                PublicKey::own(&self.0)
            }

            /// Signs any bytes, wrong ones too: how the tests forge.
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
    /// What edges pin. It is needed only to delegate, so it may be kept where no network reaches.
    Root,
    delegation::CONTEXT
);

signer!(
    /// Signs checkpoints: it alone can take back a revocation or a watermark.
    SnapshotKey,
    checkpoint::CONTEXT
);

signer!(
    /// Signs manifests: it can add revocations and watermarks.
    TailKey,
    manifest::CONTEXT
);

/// What a delegation is to say.
#[derive(Debug, Clone)]
pub struct Delegates<'a> {
    /// 1 to 64 bytes.
    pub audience: &'a str,
    /// Higher than that of every delegation before.
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

impl Root {
    pub fn delegate(&self, delegates: &Delegates<'_>) -> Result<Vec<u8>, TooLarge> {
        let Delegates { audience, epoch, issued_at, expires_at, snapshot_keys, tail_keys } = delegates;
        let mut body = Vec::from(*delegation::MAGIC);
        body.extend(self.public_key().id());
        for number in [epoch, issued_at, expires_at] {
            body.extend(number.to_be_bytes());
        }
        write_audience(&mut body, audience)?;
        for keys in [snapshot_keys, tail_keys] {
            let mut keys: Vec<&[u8; 32]> = keys.iter().map(PublicKey::as_bytes).collect();
            keys.sort_unstable();
            keys.dedup();
            let count = u8::try_from(keys.len()).ok().filter(|count| *count <= MAX_KEYS);
            body.push(count.ok_or(TooLarge)?);
            keys.into_iter().for_each(|key| body.extend(key));
        }
        Ok(self.sign_body(body))
    }
}

/// What a checkpoint is to say.
#[derive(Debug, Clone)]
pub struct CheckpointDraft<'a> {
    /// 1 to 64 bytes.
    pub audience: &'a str,
    /// The same for the same content only; higher than that of every other content before.
    pub version: u64,
    /// Milliseconds since the Unix epoch.
    pub issued_at: u64,
    /// Milliseconds since the Unix epoch.
    pub expires_at: u64,
    /// [`Built::cut`](super::Built::cut).
    pub cut: u64,
    /// [`Built::checkpoint`](super::Built::checkpoint).
    pub entries: &'a [Entry],
}

impl SnapshotKey {
    /// The checkpoint, for a [`Draft`] and to be published as the other objects are.
    pub fn sign(&self, draft: &CheckpointDraft<'_>) -> Result<(Entry, Arc<[u8]>), TooLarge> {
        let CheckpointDraft { audience, version, issued_at, expires_at, cut, entries } = draft;
        let mut body = Vec::from(*checkpoint::MAGIC);
        body.extend(self.public_key().id());
        for number in [version, issued_at, expires_at, cut] {
            body.extend(number.to_be_bytes());
        }
        write_audience(&mut body, audience)?;
        write_entries(&mut body, entries).ok_or(TooLarge)?;
        encoded(Kind::Checkpoint, 0, self.sign_body(body))
    }
}

/// What a manifest is to say.
#[derive(Debug, Clone)]
pub struct Draft<'a> {
    /// As a root signed it, and not expired.
    pub delegation: &'a [u8],
    pub version: u64,
    /// Milliseconds since the Unix epoch.
    pub issued_at: u64,
    /// Milliseconds since the Unix epoch.
    pub expires_at: u64,
    pub checkpoint: Entry,
    /// [`Built::tail`](super::Built::tail).
    pub tail: &'a [Entry],
}

impl TailKey {
    pub fn sign(&self, draft: &Draft<'_>) -> Result<Vec<u8>, TooLarge> {
        let Draft { delegation, version, issued_at, expires_at, checkpoint, tail } = draft;
        let mut body = Vec::from(*manifest::MAGIC);
        body.extend(self.public_key().id());
        for number in [version, issued_at, expires_at] {
            body.extend(number.to_be_bytes());
        }
        body.extend(u16::try_from(delegation.len()).map_err(|_| TooLarge)?.to_be_bytes());
        body.extend(*delegation);
        write_entries(&mut body, &[&[*checkpoint], *tail].concat()).ok_or(TooLarge)?;
        let signed = self.sign_body(body);
        if signed.len() > MAX_MANIFEST_BYTES { Err(TooLarge) } else { Ok(signed) }
    }
}

fn write_audience(body: &mut Vec<u8>, audience: &str) -> Result<(), TooLarge> {
    if audience.len() > MAX_AUDIENCE {
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
