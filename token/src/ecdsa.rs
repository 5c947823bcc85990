//! ECDSA with P-256 and P-384 (RFC 7518 section 3.4) by the crates `p256` and `p384`. A signature is r and s, each as
//! long as the order of the curve.
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

/// A point on the curve, other than infinity.
#[derive(Clone)]
pub(crate) enum PublicKey {
    P256(Box<p256::ecdsa::VerifyingKey>),
    P384(Box<p384::ecdsa::VerifyingKey>),
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
}
