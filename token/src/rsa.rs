//! RSA signatures (RFC 8017) by the crate `rsa`: PKCS #1 v1.5 and PSS.
//!
//! This module performs only the public operation on public numbers. It checks the requirements of RFC 7518 on keys.
//! The crate requires a salt as long as the hash by default, as RFC 7518 section 3.5 does.

use alloc::vec::Vec;
use core::ops::RangeInclusive;

use ::rsa::{BoxedUint, pkcs8::EncodePublicKey as _, traits::PublicKeyParts as _};
use sha2::{Sha256, Sha384, Sha512};

use crate::{InvalidKey, hash::Hash};

/// Permitted lengths of the modulus in bits. RFC 7518 section 3.3 requires 2048 bits. Verification with 8192 bits takes
/// sixteen times as long as with 2048: see tests/tests/promises/costs.txt.
const MODULUS_BITS: RangeInclusive<usize> = 2048..=8192;

/// Above this length of the modulus in bits, the exponent is at most [`MAX_EXPONENT_OF_LARGE_KEY`].
const LARGE_MODULUS_BITS: usize = 4096;

/// The usual exponent. The time of a verification grows with the length of the exponent, too.
const MAX_EXPONENT_OF_LARGE_KEY: u32 = 65537;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Padding {
    /// RSASSA-PKCS1-v1_5.
    Pkcs1,
    /// RSASSA-PSS with a salt as long as the hash (RFC 7518 section 3.5).
    Pss,
}

#[derive(Clone)]
pub(crate) struct PublicKey(::rsa::PublicKey);

impl PublicKey {
    /// Creates a key. The modulus must be odd, have 2048 to 8192 bits and no leading zero byte, and the exponent must be
    /// odd and at least 3, and at most 65537 with a modulus of more than 4096 bits.
    pub(crate) fn new(modulus: &[u8], exponent: u32) -> Result<Self, InvalidKey> {
        check_strength(modulus, exponent)?;
        // The crate checks only that the modulus is odd; its other limits are wider.
        let modulus = BoxedUint::from_be_slice_vartime(modulus);
        ::rsa::PublicKey::new(modulus, exponent.into()).map(Self).map_err(|_| InvalidKey::Weak)
    }

    /// Returns the `SubjectPublicKeyInfo` in DER (RFC 3279 section 2.3.1).
    pub(crate) fn public_key_info(&self) -> Option<Vec<u8>> {
        self.0.to_public_key_der().ok().map(|document| document.into_vec())
    }

    /// Returns the exponent in 4 bytes, followed by the modulus.
    #[cfg(feature = "mint")]
    pub(crate) fn material(&self) -> Vec<u8> {
        let mut exponent = [0; 4];
        exponent.iter_mut().rev().zip(self.0.e_bytes().iter().rev()).for_each(|(to, from)| *to = *from);
        [&exponent[..], &self.0.n_bytes()].concat()
    }

    /// Returns the length of a signature in bytes, which equals that of the modulus.
    pub(crate) fn signature_bytes(&self) -> usize {
        self.0.size()
    }

    /// Verifies a signature. Returns `false` also if its length differs from that of the modulus, or its value is not
    /// below the modulus.
    pub(crate) fn verify(&self, hash: Hash, padding: Padding, message: &[u8], signature: &[u8]) -> bool {
        let Self(key) = self;
        let verified = match (padding, hash) {
            (Padding::Pkcs1, Hash::Sha256) => key.pkcs1v15_verify::<Sha256>(message, signature),
            (Padding::Pkcs1, Hash::Sha384) => key.pkcs1v15_verify::<Sha384>(message, signature),
            (Padding::Pkcs1, Hash::Sha512) => key.pkcs1v15_verify::<Sha512>(message, signature),
            (Padding::Pss, Hash::Sha256) => key.pss_verify::<Sha256>(message, signature),
            (Padding::Pss, Hash::Sha384) => key.pss_verify::<Sha384>(message, signature),
            (Padding::Pss, Hash::Sha512) => key.pss_verify::<Sha512>(message, signature),
        };
        verified.is_ok()
    }
}

/// Fails if the key is weaker or larger than [`PublicKey::new`] allows.
fn check_strength(modulus: &[u8], exponent: u32) -> Result<(), InvalidKey> {
    let bits = bits(modulus);
    if bits > *MODULUS_BITS.end() || bits > LARGE_MODULUS_BITS && exponent > MAX_EXPONENT_OF_LARGE_KEY {
        return Err(InvalidKey::TooLarge);
    }
    let has_leading_zero = modulus.first() == Some(&0);
    if bits < *MODULUS_BITS.start() || has_leading_zero || exponent < 3 || exponent.is_multiple_of(2) {
        return Err(InvalidKey::Weak);
    }
    Ok(())
}

/// Returns the length of a number in bits, if its first byte is not zero.
fn bits(number: &[u8]) -> usize {
    let zeros = number.first().map_or(0, |first| first.leading_zeros());
    number.len().saturating_mul(8).saturating_sub(usize::try_from(zeros).unwrap_or_default())
}
