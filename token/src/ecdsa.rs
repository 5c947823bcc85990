//! ECDSA with P-256 and P-384 (RFC 7518 section 3.4) by the crates `p256` and `p384`. A signature is r and s, each as
//! long as the order of the curve. A signature on P-521 is verified by a host only, because the code of a third curve is
//! larger than the filter may be; this module checks the bounds of r and s, and encodes key and signature for the host.
//!
//! The crates refuse r and s that are zero or not below the order ("psychic signatures", CVE-2022-21449), and points
//! that are not on the curve. They accept both (r, s) and (r, n - s), since RFC 7518 sets no bound on s, so every token
//! has a second valid signature.

use alloc::{boxed::Box, vec::Vec};

use p256::{
    ecdsa::signature::Verifier as _,
    pkcs8::{EncodePublicKey as _, spki},
};

/// Lengths in bytes of x and y, and of r and s.
const P256_BYTES: usize = 64;
const P384_BYTES: usize = 96;
const P521_BYTES: usize = 132;

/// The order of P-521 (SEC 2 section 2.6.1).
const P521_ORDER: [u8; P521_BYTES / 2] = *b"\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\
    \xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfa\
    \x51\x86\x87\x83\xbf\x2f\x96\x6b\x7f\xcc\x01\x48\xf7\x09\xa5\xd0\
    \x3b\xb5\xc9\xb8\x89\x9c\x47\xae\xbb\x6f\xb7\x1e\x91\x38\x64\x09";

/// The `SubjectPublicKeyInfo` of a point on P-521 (RFC 5480 section 2), before x and y: `id-ecPublicKey`, `secp521r1`, and
/// the byte of the uncompressed form.
const P521_KEY_INFO: &[u8] =
    b"\x30\x81\x9b\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x23\
    \x03\x81\x86\x00\x04";

/// The length of two DER `INTEGER`s below the order of P-521.
const P521_DER_BYTES: usize = 136;

/// A point on the curve, other than infinity.
#[derive(Clone)]
pub(crate) enum PublicKey {
    P256(Box<p256::ecdsa::VerifyingKey>),
    P384(Box<p384::ecdsa::VerifyingKey>),
}

/// x and y of a point on P-521, each below 2^521. The host checks that they are a point on the curve, and so does the control
/// plane before it publishes them.
#[derive(Clone)]
pub(crate) struct P521PublicKey(Box<[u8; P521_BYTES]>);

impl P521PublicKey {
    /// The length of a signature in bytes, which equals that of x and y.
    pub(crate) const BYTES: usize = P521_BYTES;

    /// Takes x and y.
    pub(crate) fn new(material: &[u8]) -> Option<Self> {
        let point: Box<[u8; P521_BYTES]> = Box::new(material.try_into().ok()?);
        let is_valid = point.first() <= Some(&1) && point.get(P521_BYTES / 2) <= Some(&1);
        is_valid.then_some(Self(point))
    }

    /// Returns x and y.
    #[cfg(feature = "mint")]
    pub(crate) fn material(&self) -> Vec<u8> {
        self.0.to_vec()
    }

    /// Returns the `SubjectPublicKeyInfo` in DER (RFC 5480 section 2).
    pub(crate) fn public_key_info(&self) -> Vec<u8> {
        [P521_KEY_INFO, &self.0[..]].concat()
    }
}

impl PublicKey {
    /// Parses x and y of a point on P-256.
    pub(crate) fn p256(material: &[u8]) -> Option<Self> {
        let point = uncompressed(material, P256_BYTES)?;
        p256::ecdsa::VerifyingKey::from_sec1_bytes(&point).ok().map(Box::new).map(Self::P256)
    }

    /// Parses x and y of a point on P-384.
    pub(crate) fn p384(material: &[u8]) -> Option<Self> {
        let point = uncompressed(material, P384_BYTES)?;
        p384::ecdsa::VerifyingKey::from_sec1_bytes(&point).ok().map(Box::new).map(Self::P384)
    }

    /// Returns x and y.
    #[cfg(feature = "mint")]
    pub(crate) fn material(&self) -> Vec<u8> {
        let point = match self {
            Self::P256(key) => key.to_sec1_point(false).as_bytes().to_vec(),
            Self::P384(key) => key.to_sec1_point(false).as_bytes().to_vec(),
        };
        point.get(1..).unwrap_or_default().to_vec()
    }

    /// Returns the `SubjectPublicKeyInfo` in DER (RFC 5480 section 2).
    pub(crate) fn public_key_info(&self) -> Option<Vec<u8>> {
        let document: spki::Result<_> = match self {
            Self::P256(key) => key.to_public_key_der(),
            Self::P384(key) => key.to_public_key_der(),
        };
        document.ok().map(|document| document.into_vec())
    }

    /// Returns the length of a signature in bytes, which equals that of x and y.
    pub(crate) const fn signature_bytes(&self) -> usize {
        match self {
            Self::P256(_) => P256_BYTES,
            Self::P384(_) => P384_BYTES,
        }
    }

    /// Verifies a signature, with SHA-256 for P-256 and SHA-384 for P-384.
    pub(crate) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::P256(key) => p256::ecdsa::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify(message, &signature).is_ok()),
            Self::P384(key) => p384::ecdsa::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify(message, &signature).is_ok()),
        }
    }
}

/// Converts a signature on P-256 to DER. Returns `None` if it is malformed.
pub(crate) fn p256_der(signature: &[u8]) -> Option<Vec<u8>> {
    Some(p256::ecdsa::Signature::from_slice(signature).ok()?.to_der().as_bytes().to_vec())
}

/// Converts a signature on P-384 to DER. Returns `None` if it is malformed.
pub(crate) fn p384_der(signature: &[u8]) -> Option<Vec<u8>> {
    Some(p384::ecdsa::Signature::from_slice(signature).ok()?.to_der().as_bytes().to_vec())
}

/// Returns r and s of a signature on P-521. Returns `None` if it is malformed, or if one of them is zero or not below the
/// order.
fn p521_numbers(signature: &[u8]) -> Option<(&[u8], &[u8])> {
    if signature.len() != P521_BYTES {
        return None;
    }
    let (r, s) = signature.split_at_checked(P521_BYTES / 2)?;
    // Numbers of one length are ordered like their bytes.
    let is_valid = |number: &[u8]| number.iter().any(|byte| *byte != 0) && *number < P521_ORDER[..];
    (is_valid(r) && is_valid(s)).then_some((r, s))
}

/// Converts a signature on P-521 to DER. Returns `None` if it is malformed.
pub(crate) fn p521_der(signature: &[u8]) -> Option<Vec<u8>> {
    let (r, s) = p521_numbers(signature)?;
    let mut integers = Vec::with_capacity(P521_DER_BYTES);
    for number in [r, s] {
        let number = number.get(number.iter().position(|byte| *byte != 0)?..)?;
        // A first bit of 1 would be the sign.
        let sign: &[u8] = if number.first() >= Some(&0x80) { &[0] } else { &[] };
        integers.extend([2, u8::try_from(number.len().checked_add(sign.len())?).ok()?]);
        integers.extend_from_slice(sign);
        integers.extend_from_slice(number);
    }
    let length = u8::try_from(integers.len()).ok()?;
    let header: &[u8] = if length < 0x80 { &[0x30, length] } else { &[0x30, 0x81, length] };
    Some([header, &integers].concat())
}

/// Returns (r, n - s) for the signature (r, s) on P-521. Returns `None` if it is malformed.
pub(crate) fn p521_malleated(signature: &[u8]) -> Option<Vec<u8>> {
    p521_numbers(signature)?;
    let mut malleated = signature.to_vec();
    let mut borrow = false;
    // s is below n, so that a subtraction of bytes is enough.
    for (byte, order) in malleated.iter_mut().rev().zip(P521_ORDER.iter().rev()) {
        let (difference, first) = order.overflowing_sub(*byte);
        let (difference, second) = difference.overflowing_sub(borrow.into());
        (*byte, borrow) = (difference, first || second);
    }
    Some(malleated)
}

/// Returns (r, n - s) for the signature (r, s) on P-256. Returns `None` if it is malformed.
pub(crate) fn p256_malleated(signature: &[u8]) -> Option<Vec<u8>> {
    let (r, s) = p256::ecdsa::Signature::from_slice(signature).ok()?.split_scalars();
    #[expect(clippy::arithmetic_side_effects, reason = "of a scalar")]
    let malleated = p256::ecdsa::Signature::from_scalars(r, -s).ok()?;
    Some(malleated.to_bytes().to_vec())
}

/// Returns (r, n - s) for the signature (r, s) on P-384. Returns `None` if it is malformed.
pub(crate) fn p384_malleated(signature: &[u8]) -> Option<Vec<u8>> {
    let (r, s) = p384::ecdsa::Signature::from_slice(signature).ok()?.split_scalars();
    #[expect(clippy::arithmetic_side_effects, reason = "of a scalar")]
    let malleated = p384::ecdsa::Signature::from_scalars(r, -s).ok()?;
    Some(malleated.to_bytes().to_vec())
}

/// Returns the uncompressed encoding (SEC 1 section 2.3.3) of a point, if x and y together have the expected length.
fn uncompressed(material: &[u8], length: usize) -> Option<Vec<u8>> {
    (material.len() == length).then(|| [&[4], material].concat())
}

#[cfg(test)]
mod tests {
    use std::vec;

    use p256::{
        ecdsa::signature::Signer as _,
        elliptic_curve::{PrimeField as _, ops::Reduce as _},
    };
    use proptest::prelude::*;
    use sha2::{Digest as _, Sha256};

    use super::*;

    fn public_key(key: &p256::ecdsa::VerifyingKey) -> PublicKey {
        PublicKey::p256(&key.to_sec1_point(false).as_bytes()[1..]).unwrap()
    }

    /// The field is larger than the group: if x of R is n or more, r is x - n. No random signature has such an R, so
    /// the key is computed for it: with s = 1 and the digest z, the key is (R - zG) / r.
    #[test]
    fn verify_reduces_r_modulo_the_order() {
        let z = p256::Scalar::reduce(&Sha256::digest(b"message"));
        let mut found = 0;
        for r in 1..=100_u8 {
            // n + r
            let mut compressed = [&[2][..], (-p256::Scalar::ONE).to_repr().as_slice()].concat();
            compressed[32] += 1 + r;
            let Ok(x_above) = p256::PublicKey::from_sec1_bytes(&compressed) else { continue };
            let inverse = p256::Scalar::from(u64::from(r)).invert().unwrap();
            let key = (x_above.to_projective() - p256::ProjectivePoint::GENERATOR * z) * inverse;
            let key = public_key(&p256::ecdsa::VerifyingKey::from_affine(key.to_affine()).unwrap());
            let number = |last: u8| {
                let mut number = [0; 32];
                number[31] = last;
                number
            };
            assert!(key.verify(b"message", &[number(r), number(1)].concat()));
            assert!(!key.verify(b"message", &[number(r + 1), number(1)].concat()));
            assert!(!key.verify(b"another", &[number(r), number(1)].concat()));
            // x itself is not a valid r.
            assert!(!key.verify(b"message", &[&compressed[1..], &number(1)].concat()));
            found += 1;
        }
        assert!(found > 20, "half of all x are on the curve");
    }

    #[test]
    fn verify_rejects_numbers_of_other_lengths() {
        let key = p256::ecdsa::SigningKey::from_slice(&[7; 32]).unwrap();
        let public = public_key(key.verifying_key());
        // Searches for a signature with a short s; one in 256 is short.
        let (message, signature) = (0_u32..)
            .find_map(|n| {
                let signature: p256::ecdsa::Signature = key.sign(&n.to_be_bytes());
                (signature.split_bytes().1[0] == 0).then_some((n.to_be_bytes(), signature))
            })
            .unwrap();
        let (r, s) = signature.split_bytes();
        assert!(public.verify(&message, &[r, s].concat()));
        for other in [[&r[..], &s[1..]].concat(), [&r[..], &[0], &s].concat(), [&[0], &r[..], &s].concat()] {
            assert!(!public.verify(&message, &other));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn malleated_signatures_verify(secret in prop::array::uniform32(1_u8..255), message: [u8; 9]) {
            let key = p256::ecdsa::SigningKey::from_slice(&secret).unwrap();
            let signature: p256::ecdsa::Signature = key.sign(&message);
            let malleated = p256_malleated(&signature.to_bytes()).unwrap();
            prop_assert!(public_key(key.verifying_key()).verify(&message, &malleated));
            prop_assert_eq!(p256_malleated(&malleated), Some(signature.to_bytes().to_vec()));

            let secret = [&secret[..], &secret[..16]].concat();
            let key = p384::ecdsa::SigningKey::from_slice(&secret).unwrap();
            let signature: p384::ecdsa::Signature = key.sign(&message);
            let malleated = p384_malleated(&signature.to_bytes()).unwrap();
            let public = PublicKey::p384(&key.verifying_key().to_sec1_point(false).as_bytes()[1..]).unwrap();
            prop_assert!(public.verify(&message, &malleated));
            prop_assert_eq!(p384_malleated(&malleated), Some(signature.to_bytes().to_vec()));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20))]

        /// The crate `p521`, which the filter lacks, agrees with the encodings for a host.
        #[test]
        fn p521_signatures_are_encoded_like_by_the_crate(secret in prop::array::uniform32(1_u8..255), message: [u8; 9]) {
            let secret = [&[0, 0], &secret[..], &secret[..]].concat();
            let key = p521::ecdsa::SigningKey::from_slice(&secret).unwrap();
            let signature: p521::ecdsa::Signature = key.sign(&message);
            let bytes = signature.to_bytes();
            prop_assert_eq!(p521_der(&bytes), Some(signature.to_der().as_bytes().to_vec()));
            let malleated = p521_malleated(&bytes).unwrap();
            let other = p521::ecdsa::Signature::from_slice(&malleated).unwrap();
            prop_assert!(key.verifying_key().verify(&message, &other).is_ok());
            prop_assert_eq!(p521_malleated(&malleated), Some(bytes.to_vec()));

            let point = key.verifying_key().to_sec1_point(false);
            let public = P521PublicKey::new(&point.as_bytes()[1..]).unwrap();
            let info = p521::PublicKey::from(key.verifying_key()).to_public_key_der().unwrap();
            prop_assert_eq!(public.public_key_info(), info.into_vec());
        }
    }

    #[test]
    fn p521_numbers_are_above_zero_and_below_the_order() {
        let zero = [0; 66];
        let mut one = zero;
        one[65] = 1;
        let mut last = P521_ORDER;
        last[65] -= 1;
        let mut above = P521_ORDER;
        above[65] += 1;
        let both = |r: [u8; 66], s: [u8; 66]| [r, s].concat();
        for (signature, valid) in [
            (both(one, one), true),
            (both(last, last), true),
            (both(zero, one), false),
            (both(one, zero), false),
            (both(P521_ORDER, one), false),
            (both(one, P521_ORDER), false),
            (both(above, one), false),
            (both(one, [255; 66]), false),
            (both(one, one)[1..].to_vec(), false),
            ([&both(one, one)[..], &[0]].concat(), false),
            (vec![], false),
        ] {
            assert_eq!(p521_der(&signature).is_some(), valid, "{signature:?}");
            assert_eq!(p521_malleated(&signature).is_some(), valid, "{signature:?}");
        }
        assert_eq!(p521_malleated(&both(one, one)), Some(both(one, last)));
        assert_eq!(p521_der(&both(one, one)).unwrap(), [0x30, 6, 2, 1, 1, 2, 1, 1]);
    }
}
