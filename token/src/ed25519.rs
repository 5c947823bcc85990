//! Ed25519 (RFC 8032) with the acceptance rules of `verify_strict` of `ed25519-dalek`, and half its cost for a key that
//! is used repeatedly.
//!
//! A signature (R, s) by the key A is valid if R = \[s\]B - \[k\]A, where k is SHA-512 of R, A and the message. Field,
//! group and scalars are those of `curve25519-dalek`; only the sum is computed by `tables`.

mod tables;

use alloc::{boxed::Box, sync::Arc};
use core::fmt;

use curve25519_dalek::{EdwardsPoint, Scalar, edwards::CompressedEdwardsY};
use once_cell::race::OnceBox;
use sha2::{Digest, Sha512};

use tables::PrecomputedTable;

/// A public key: a point that does not have small order.
#[derive(Clone)]
pub struct PublicKey(Arc<Key>);

struct Key {
    bytes: [u8; 32],
    point: EdwardsPoint,
    /// The table of -A, about 10 KB. It is computed on first use, since many keys are never used.
    table: OnceBox<PrecomputedTable>,
}

impl PublicKey {
    /// Parses a public key. Returns `None` if it is not a point (RFC 8032 section 5.1.3), or has small order: such a
    /// key verifies signatures without a secret.
    pub fn from_bytes(bytes: &[u8; 32]) -> Option<Self> {
        let point = CompressedEdwardsY(*bytes).decompress().filter(|point| !point.is_small_order())?;
        Some(Self(Arc::new(Key { bytes: *bytes, point, table: OnceBox::new() })))
    }

    /// Returns the public half of a signing key.
    #[cfg(feature = "mint")]
    pub fn from_signing_key(key: &ed25519_dalek::SigningKey) -> Self {
        let key = key.verifying_key();
        Self(Arc::new(Key { bytes: key.to_bytes(), point: key.to_edwards(), table: OnceBox::new() }))
    }

    /// Returns the encoding of the point (RFC 8032 section 5.1.2).
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0.bytes
    }

    /// Verifies a signature. Each signature has one encoding: s is below the order, and R equals the computed encoding
    /// and does not have small order.
    pub fn verify(&self, message: &[&[u8]], signature: &[u8]) -> bool {
        let Key { bytes, point, table } = &*self.0;
        let Ok(signature) = <&[u8; 64]>::try_from(signature) else { return false };
        let (Some(r), Some(s)) = (signature.first_chunk::<32>(), signature.last_chunk::<32>()) else {
            return false;
        };
        let s: Option<Scalar> = Scalar::from_canonical_bytes(*s).into();
        let Some(s) = s else { return false };
        let mut hash = Sha512::new().chain_update(r).chain_update(bytes);
        message.iter().for_each(|part| hash.update(part));
        let k = Scalar::from_bytes_mod_order_wide(&hash.finalize().into());
        #[expect(clippy::arithmetic_side_effects, reason = "of a point")]
        let minus_key = table.get_or_init(|| Box::new(PrecomputedTable::new(-point)));
        let expected_r = tables::double_scalar_mul_base(&s, &k, minus_key);
        !expected_r.is_small_order() && expected_r.compress().as_bytes() == r
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for PublicKey {}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ed25519::PublicKey({})", crate::base64url::encode(self.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use curve25519_dalek::constants::EIGHT_TORSION;
    use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
    use proptest::prelude::*;
    use std::{vec, vec::Vec};

    use super::*;

    /// L (RFC 8032 section 5.1).
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];

    fn verify_with_both(key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
        let ours = PublicKey::from_bytes(key);
        let theirs = VerifyingKey::from_bytes(key).ok().filter(|key| !key.is_weak());
        assert_eq!(ours.is_some(), theirs.is_some());
        let ours = ours.is_some_and(|key| key.verify(&[message], signature));
        let signature = Signature::from_bytes(signature);
        let theirs = theirs.is_some_and(|key| key.verify_strict(message, &signature).is_ok());
        assert_eq!(ours, theirs, "{key:?} {message:?} {signature:?}");
        ours
    }

    proptest! {
        #[test]
        fn agrees_with_verify_strict(seed: [u8; 32], message: Vec<u8>, at in 0..64_usize, flip in 1..=255_u8) {
            let key = SigningKey::from_bytes(&seed);
            let mut signature = key.sign(&message).to_bytes();
            let public = key.verifying_key().to_bytes();
            prop_assert!(verify_with_both(&public, &message, &signature));
            signature[at] ^= flip;
            prop_assert!(!verify_with_both(&public, &message, &signature));
        }

        #[test]
        fn agrees_with_verify_strict_on_arbitrary_bytes(key: [u8; 32], message: Vec<u8>, r: [u8; 32], s: [u8; 32]) {
            let mut signature = [0; 64];
            signature[..32].copy_from_slice(&r);
            signature[32..].copy_from_slice(&s);
            verify_with_both(&key, &message, &signature);
        }
    }

    /// Encodings with which an attacker could replace the key or R, and the honest one.
    #[derive(Debug, Clone)]
    enum Encoded {
        Honest,
        /// One of the eight points whose order divides the cofactor.
        SmallOrder(usize),
        /// The honest point plus one of those points.
        Mixed(usize),
        /// y below 19, encoded as y + p with either sign: a second encoding of a point (RFC 8032 section 5.1.3).
        NotCanonical(u8, bool),
        /// The honest encoding with one bit flipped.
        Flipped(usize),
        Any([u8; 32]),
    }

    impl Encoded {
        fn bytes(&self, honest: [u8; 32]) -> [u8; 32] {
            match *self {
                Self::Honest => honest,
                Self::SmallOrder(which) => EIGHT_TORSION[which].compress().to_bytes(),
                Self::Mixed(which) => {
                    let point = CompressedEdwardsY(honest).decompress().unwrap();
                    (point + EIGHT_TORSION[which]).compress().to_bytes()
                }
                Self::NotCanonical(y, sign) => {
                    let mut bytes = [0xff; 32];
                    bytes[0] = 0xed + y;
                    bytes[31] = if sign { 0xff } else { 0x7f };
                    bytes
                }
                Self::Flipped(bit) => {
                    let mut bytes = honest;
                    bytes[bit / 8] ^= 1 << (bit % 8);
                    bytes
                }
                Self::Any(bytes) => bytes,
            }
        }
    }

    fn encoded() -> impl Strategy<Value = Encoded> {
        prop_oneof![
            3 => Just(Encoded::Honest),
            2 => (0..8_usize).prop_map(Encoded::SmallOrder),
            2 => (0..8_usize).prop_map(Encoded::Mixed),
            2 => (0..19_u8, any::<bool>()).prop_map(|(y, sign)| Encoded::NotCanonical(y, sign)),
            1 => (0..256_usize).prop_map(Encoded::Flipped),
            1 => any::<[u8; 32]>().prop_map(Encoded::Any),
        ]
    }

    #[derive(Debug, Clone)]
    enum S {
        Honest,
        /// The honest s plus a multiple of the order: a second encoding of the same number.
        Plus(u8),
        Zero,
        /// Values around the order.
        AboutTheOrder(u8),
        Flipped(usize),
        Any([u8; 32]),
    }

    impl S {
        fn bytes(&self, honest: [u8; 32]) -> [u8; 32] {
            match *self {
                Self::Honest => honest,
                Self::Plus(times) => (0..times).fold(honest, |s, _| add(s, ORDER)),
                Self::Zero => [0; 32],
                Self::AboutTheOrder(by) => {
                    let mut s = ORDER;
                    s[0] = s[0] - 1 + by;
                    s
                }
                Self::Flipped(bit) => Encoded::Flipped(bit).bytes(honest),
                Self::Any(bytes) => bytes,
            }
        }
    }

    fn s() -> impl Strategy<Value = S> {
        prop_oneof![
            4 => Just(S::Honest),
            1 => (1..=14_u8).prop_map(S::Plus),
            1 => Just(S::Zero),
            1 => (0..3_u8).prop_map(S::AboutTheOrder),
            1 => (0..256_usize).prop_map(S::Flipped),
            1 => any::<[u8; 32]>().prop_map(S::Any),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn agrees_with_verify_strict_on_forgeries(
            seed: [u8; 32],
            message in prop::collection::vec(any::<u8>(), 0..200),
            (key, r, s) in (encoded(), encoded(), s()),
            signed_for_the_key: bool,
        ) {
            let signing = SigningKey::from_bytes(&seed);
            let honest = signing.verifying_key().to_bytes();
            let key_bytes = key.bytes(honest);
            let mut good = signing.sign(&message).to_bytes();
            if signed_for_the_key {
                // A signature by the owner of the secret, who publishes a different key.
                let (scalar, nonce) = (signing.to_scalar(), Scalar::from_bytes_mod_order(seed));
                let r = r.bytes(EdwardsPoint::mul_base(&nonce).compress().to_bytes());
                let hash = Sha512::new().chain_update(r).chain_update(key_bytes).chain_update(&message);
                let k = Scalar::from_bytes_mod_order_wide(&hash.finalize().into());
                good[..32].copy_from_slice(&r);
                good[32..].copy_from_slice((nonce + k * scalar).as_bytes());
            } else {
                let r = r.bytes(*good.first_chunk().unwrap());
                good[..32].copy_from_slice(&r);
            }
            let s = s.bytes(*good.last_chunk().unwrap());
            good[32..].copy_from_slice(&s);
            verify_with_both(&key_bytes, &message, &good);
        }
    }

    /// Points of small order as the key, as R, and added to a valid R. Libraries differ for these ("Taming the many
    /// EdDSAs", 2020).
    #[test]
    fn agrees_with_verify_strict_on_points_of_small_order() {
        let signing = SigningKey::from_bytes(&[7; 32]);
        let public = signing.verifying_key().to_bytes();
        let mut keys = vec![public];
        for torsion in EIGHT_TORSION {
            keys.push(torsion.compress().to_bytes());
            keys.push((torsion + signing.verifying_key().to_edwards()).compress().to_bytes());
        }
        let mut accepted = 0;
        for key in keys {
            for message in 0..32_u8 {
                let good = signing.sign(&[message]).to_bytes();
                let r = CompressedEdwardsY(*good.first_chunk().unwrap()).decompress().unwrap();
                for torsion in EIGHT_TORSION {
                    for r in [torsion, r + torsion] {
                        let mut signature = good;
                        signature[..32].copy_from_slice(r.compress().as_bytes());
                        accepted += usize::from(verify_with_both(&key, &[message], &signature));
                        // s = 0: R = -[k]A.
                        signature[32..].fill(0);
                        accepted += usize::from(verify_with_both(&key, &[message], &signature));
                    }
                }
            }
        }
        assert!(accepted >= 32, "{accepted}");
    }

    #[test]
    fn s_must_be_below_the_order() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let mut signature = key.sign(b"m").to_bytes();
        let s = add(*signature.last_chunk().unwrap(), ORDER);
        signature[32..].copy_from_slice(&s);
        assert!(!verify_with_both(&key.verifying_key().to_bytes(), b"m", &signature));
        assert!(!PublicKey::from_signing_key(&key).verify(&[b"m"], &signature[..63]));
    }

    /// Adds two little-endian numbers.
    fn add(mut number: [u8; 32], other: [u8; 32]) -> [u8; 32] {
        let mut carry = 0;
        for (digit, more) in number.iter_mut().zip(other) {
            let sum = u16::from(*digit) + u16::from(more) + carry;
            *digit = sum.to_le_bytes()[0];
            carry = sum >> 8;
        }
        number
    }
}
