//! ECDSA with P-256 and P-384 (RFC 7518 section 3.4) by the crates `p256` and `p384`: a signature is r and s, each as long
//! as the order of the curve.
//!
//! The crates refuse zero and what is not below the order ("psychic signatures", CVE-2022-21449), and points that are not
//! on the curve. They take s as large as it comes (RFC 7518 sets no bound), so each token has a twin.

use alloc::{boxed::Box, vec::Vec};

use p256::{
    ecdsa::signature::Verifier as _,
    pkcs8::{EncodePublicKey as _, spki},
};

/// A point other than infinity that is on its curve.
#[derive(Clone)]
pub(crate) enum PublicKey {
    P256(Box<p256::ecdsa::VerifyingKey>),
    P384(Box<p384::ecdsa::VerifyingKey>),
}

impl PublicKey {
    /// From x and y.
    pub(crate) fn p256(material: &[u8]) -> Option<Self> {
        let point = uncompressed(material, P256_BYTES)?;
        p256::ecdsa::VerifyingKey::from_sec1_bytes(&point).ok().map(Box::new).map(Self::P256)
    }

    /// From x and y.
    pub(crate) fn p384(material: &[u8]) -> Option<Self> {
        let point = uncompressed(material, P384_BYTES)?;
        p384::ecdsa::VerifyingKey::from_sec1_bytes(&point).ok().map(Box::new).map(Self::P384)
    }

    /// x and y.
    #[cfg(feature = "mint")]
    pub(crate) fn material(&self) -> Vec<u8> {
        let point = match self {
            Self::P256(key) => key.to_sec1_point(false).as_bytes().to_vec(),
            Self::P384(key) => key.to_sec1_point(false).as_bytes().to_vec(),
        };
        point.get(1..).unwrap_or_default().to_vec()
    }

    /// `SubjectPublicKeyInfo` in DER (RFC 5480 section 2).
    pub(crate) fn public_key_info(&self) -> Option<Vec<u8>> {
        let document: spki::Result<_> = match self {
            Self::P256(key) => key.to_public_key_der(),
            Self::P384(key) => key.to_public_key_der(),
        };
        document.ok().map(|document| document.into_vec())
    }

    /// r and s are as long as x and y.
    pub(crate) const fn signature_bytes(&self) -> usize {
        match self {
            Self::P256(_) => P256_BYTES,
            Self::P384(_) => P384_BYTES,
        }
    }

    /// With SHA-256 for P-256, and SHA-384 for P-384.
    pub(crate) fn accepts(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::P256(key) => p256::ecdsa::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify(message, &signature).is_ok()),
            Self::P384(key) => p384::ecdsa::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify(message, &signature).is_ok()),
        }
    }
}

/// In DER; None if that is no signature on P-256.
pub(crate) fn p256_der(signature: &[u8]) -> Option<Vec<u8>> {
    Some(p256::ecdsa::Signature::from_slice(signature).ok()?.to_der().as_bytes().to_vec())
}

/// In DER; None if that is no signature on P-384.
pub(crate) fn p384_der(signature: &[u8]) -> Option<Vec<u8>> {
    Some(p384::ecdsa::Signature::from_slice(signature).ok()?.to_der().as_bytes().to_vec())
}

/// (r, n - s) for (r, s); None if that is no signature on P-256.
pub(crate) fn p256_twin(signature: &[u8]) -> Option<Vec<u8>> {
    let (r, s) = p256::ecdsa::Signature::from_slice(signature).ok()?.split_scalars();
    #[expect(clippy::arithmetic_side_effects, reason = "of a scalar")]
    let twin = p256::ecdsa::Signature::from_scalars(r, -s).ok()?;
    Some(twin.to_bytes().to_vec())
}

/// The same on P-384.
pub(crate) fn p384_twin(signature: &[u8]) -> Option<Vec<u8>> {
    let (r, s) = p384::ecdsa::Signature::from_slice(signature).ok()?.split_scalars();
    #[expect(clippy::arithmetic_side_effects, reason = "of a scalar")]
    let twin = p384::ecdsa::Signature::from_scalars(r, -s).ok()?;
    Some(twin.to_bytes().to_vec())
}

/// A point as SEC 1 section 2.3.3 writes it, of x and y that together are so long.
fn uncompressed(material: &[u8], length: usize) -> Option<Vec<u8>> {
    (material.len() == length).then(|| [&[4], material].concat())
}

/// Of x and y, and of r and s.
const P256_BYTES: usize = 64;
const P384_BYTES: usize = 96;

#[cfg(test)]
mod tests {
    use p256::{
        ecdsa::signature::Signer as _,
        elliptic_curve::{PrimeField as _, ops::Reduce as _},
    };
    use proptest::prelude::*;
    use sha2::{Digest as _, Sha256};

    use super::*;

    fn of(key: &p256::ecdsa::VerifyingKey) -> PublicKey {
        PublicKey::p256(&key.to_sec1_point(false).as_bytes()[1..]).unwrap()
    }

    /// The field has some more elements than the group: where x of R is n or more, r is x - n. No random signature is
    /// such a one, so the key is made for it: with s = 1 and the digest z, it is (R - zG) / r.
    #[test]
    fn an_x_at_or_above_the_order_counts_less_the_order() {
        let z = p256::Scalar::reduce(&Sha256::digest(b"message"));
        let mut found = 0;
        for r in 1..=100_u8 {
            // n + r
            let mut compressed = [&[2][..], (-p256::Scalar::ONE).to_repr().as_slice()].concat();
            compressed[32] += 1 + r;
            let Ok(x_above) = p256::PublicKey::from_sec1_bytes(&compressed) else { continue };
            let inverse = p256::Scalar::from(u64::from(r)).invert().unwrap();
            let key = (x_above.to_projective() - p256::ProjectivePoint::GENERATOR * z) * inverse;
            let key = of(&p256::ecdsa::VerifyingKey::from_affine(key.to_affine()).unwrap());
            let number = |last: u8| {
                let mut number = [0; 32];
                number[31] = last;
                number
            };
            assert!(key.accepts(b"message", &[number(r), number(1)].concat()));
            assert!(!key.accepts(b"message", &[number(r + 1), number(1)].concat()));
            assert!(!key.accepts(b"another", &[number(r), number(1)].concat()));
            // x itself is no r.
            assert!(!key.accepts(b"message", &[&compressed[1..], &number(1)].concat()));
            found += 1;
        }
        assert!(found > 20, "half of all x are on the curve");
    }

    #[test]
    fn a_number_has_one_spelling() {
        let key = p256::ecdsa::SigningKey::from_slice(&[7; 32]).unwrap();
        let public = of(key.verifying_key());
        // A signature whose s is short: seek one, as every 256th is.
        let (message, signature) = (0_u32..)
            .find_map(|n| {
                let signature: p256::ecdsa::Signature = key.sign(&n.to_be_bytes());
                (signature.split_bytes().1[0] == 0).then_some((n.to_be_bytes(), signature))
            })
            .unwrap();
        let (r, s) = signature.split_bytes();
        assert!(public.accepts(&message, &[r, s].concat()));
        for other in [[&r[..], &s[1..]].concat(), [&r[..], &[0], &s].concat(), [&[0], &r[..], &s].concat()] {
            assert!(!public.accepts(&message, &other));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn a_twin_holds_wherever_its_token_does(secret in prop::array::uniform32(1_u8..255), message: [u8; 9]) {
            let key = p256::ecdsa::SigningKey::from_slice(&secret).unwrap();
            let signature: p256::ecdsa::Signature = key.sign(&message);
            let twin = p256_twin(&signature.to_bytes()).unwrap();
            prop_assert!(of(key.verifying_key()).accepts(&message, &twin));
            prop_assert_eq!(p256_twin(&twin), Some(signature.to_bytes().to_vec()));

            let secret = [&secret[..], &secret[..16]].concat();
            let key = p384::ecdsa::SigningKey::from_slice(&secret).unwrap();
            let signature: p384::ecdsa::Signature = key.sign(&message);
            let twin = p384_twin(&signature.to_bytes()).unwrap();
            let public = PublicKey::p384(&key.verifying_key().to_sec1_point(false).as_bytes()[1..]).unwrap();
            prop_assert!(public.accepts(&message, &twin));
            prop_assert_eq!(p384_twin(&twin), Some(signature.to_bytes().to_vec()));
        }
    }
}
