//! A bundle as one text, for hosts that cannot fetch any: it travels with their configuration.
//!
//! base64url of: (u32 length, manifest), then for each object (u32 length, object), in any order.

use alloc::vec::Vec;
use core::fmt;

use token::{Fingerprint, base64url};

use crate::Entry;

/// What such a text holds; nothing is verified yet.
#[derive(Clone, PartialEq, Eq)]
pub struct Carried {
    manifest: Vec<u8>,
    objects: Vec<(Fingerprint, Vec<u8>)>,
}

impl Carried {
    pub fn read(text: &str) -> Option<Self> {
        let bytes = base64url::decode(text.as_bytes())?;
        let (manifest, mut rest) = part(&bytes)?;
        let mut objects = Vec::new();
        while !rest.is_empty() {
            let (object, more) = part(rest)?;
            objects.push((Fingerprint::of(object), object.into()));
            rest = more;
        }
        Some(Self { manifest: manifest.into(), objects })
    }

    pub fn manifest(&self) -> &[u8] {
        &self.manifest
    }

    pub fn object(&self, entry: &Entry) -> Option<&[u8]> {
        let mut objects = self.objects.iter();
        objects.find(|(digest, _)| digest.as_bytes() == entry.sha256()).map(|(_, object)| object.as_slice())
    }
}

fn part(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

// By hand: symmetric keys may be among the objects.
impl fmt::Debug for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Carried({} objects)", self.objects.len())
    }
}

/// What [`Carried::read`] reads.
#[cfg(feature = "builder")]
pub fn carry<'a>(
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
