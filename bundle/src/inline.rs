//! A bundle as one string within the configuration, for hosts that cannot fetch one.
//!
//! Base64url (RFC 4648 section 5, unpadded) of: (u32 length, manifest), then for each object (u32 length, object), in any
//! order. Lengths are big-endian.

use alloc::vec::Vec;
use core::fmt;

use token::{Fingerprint, base64url};

use crate::Entry;

/// A decoded inline bundle. Nothing in it has been verified yet.
#[derive(Clone, PartialEq, Eq)]
pub struct InlineBundle {
    manifest: Vec<u8>,
    objects: Vec<(Fingerprint, Vec<u8>)>,
}

impl InlineBundle {
    /// Decodes the string. Returns `None` if it is not valid base64url or a length is wrong.
    pub fn decode(text: &str) -> Option<Self> {
        Self::from_bytes(&base64url::decode(text.as_bytes())?)
    }

    /// Reads what is encoded in the string: each part with its length in front. Returns `None` if a length is wrong.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (manifest, mut rest) = split_part(bytes)?;
        let mut objects = Vec::new();
        while !rest.is_empty() {
            let (object, more) = split_part(rest)?;
            objects.push((Fingerprint::digest(object), object.into()));
            rest = more;
        }
        Some(Self { manifest: manifest.into(), objects })
    }

    /// Returns the bytes of the manifest, for [`Manifest::open`](crate::Manifest::open).
    pub fn manifest(&self) -> &[u8] {
        &self.manifest
    }

    /// Returns the bytes of the object with the hash in `entry`, for [`Entry::open`].
    pub fn object(&self, entry: &Entry) -> Option<&[u8]> {
        let mut objects = self.objects.iter();
        objects.find(|(digest, _)| digest.as_bytes() == entry.sha256()).map(|(_, object)| object.as_slice())
    }

    /// Encodes a manifest and its objects as [`decode`](Self::decode) reads them.
    ///
    /// # Errors
    ///
    /// [`TooLarge`](crate::builder::TooLarge) if a part is longer than 4 GiB.
    #[cfg(feature = "builder")]
    pub fn encode<'a>(
        manifest: &'a [u8],
        objects: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<alloc::string::String, crate::builder::TooLarge> {
        let mut bytes = Vec::new();
        for part in core::iter::once(manifest).chain(objects) {
            let length = u32::try_from(part.len()).map_err(|_| crate::builder::TooLarge)?;
            bytes.extend(length.to_be_bytes());
            bytes.extend(part);
        }
        Ok(base64url::encode(&bytes))
    }
}

/// Splits off one part with its length in front.
fn split_part(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

// Not derived, because the objects may contain symmetric keys.
impl fmt::Debug for InlineBundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InlineBundle({} objects)", self.objects.len())
    }
}
