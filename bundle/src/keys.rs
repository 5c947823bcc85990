//! Keys that tokens are verified with.
//!
//! ```text
//!  2  number of keys
//!     each: 1  algorithm (1 EdDSA, 2 HS256)
//!           1  n, length of the kid
//!           n  kid
//!           1  m, length of the key
//!           m  key: the public half (EdDSA) or the secret (HS256)
//! ```

use alloc::vec::Vec;

use token::VerifyingKey;

use crate::codec::{Malformed, Reader};

pub(crate) fn read_public(bytes: &[u8]) -> Result<Vec<VerifyingKey>, Malformed> {
    read(bytes, EDDSA, |kid, key| VerifyingKey::ed25519(kid, key.try_into().ok()?).ok())
}

pub(crate) fn read_secret(bytes: &[u8]) -> Result<Vec<VerifyingKey>, Malformed> {
    read(bytes, HS256, |kid, key| VerifyingKey::hs256(kid, key).ok())
}

fn read(
    bytes: &[u8],
    algorithm: u8,
    open: impl Fn(&str, &[u8]) -> Option<VerifyingKey>,
) -> Result<Vec<VerifyingKey>, Malformed> {
    let mut rest = Reader(bytes);
    let mut keys: Vec<VerifyingKey> = Vec::new();
    for _ in 0..rest.u16("number of keys")? {
        if rest.u8("algorithm of a key")? != algorithm {
            return Err(Malformed("algorithm of a key"));
        }
        let kid = rest.text("kid")?;
        let length = rest.u8("length of a key")?;
        let key = open(kid, rest.bytes(length.into(), "key")?).ok_or(Malformed("key"))?;
        if keys.iter().any(|known| known.kid() == key.kid()) {
            return Err(Malformed("a kid that stands twice"));
        }
        keys.push(key);
    }
    rest.end()?;
    Ok(keys)
}

#[cfg(feature = "builder")]
pub(crate) fn write<'a>(
    algorithm: u8,
    keys: impl ExactSizeIterator<Item = (&'a str, &'a [u8])>,
) -> Option<Vec<u8>> {
    let mut out = Vec::from(u16::try_from(keys.len()).ok()?.to_be_bytes());
    for (kid, key) in keys {
        out.push(algorithm);
        for part in [kid.as_bytes(), key] {
            out.push(u8::try_from(part.len()).ok()?);
            out.extend(part);
        }
    }
    Some(out)
}

pub(crate) const EDDSA: u8 = 1;
pub(crate) const HS256: u8 = 2;
