//! Ed25519 (RFC 8032), to the letter of `verify_strict` of `ed25519-dalek`, in half its time for a key that is used again.
//!
//! A signature (R, s) by the key A holds where R = \[s\]B - \[k\]A, k being SHA-512 of R, A and the message. With multiples
//! of B made once, and of A once for each key, both sums go in eight parts of 32 bits side by side, so that 32 doublings
//! do for 256: 1.0 instead of 2.0 million instructions of WebAssembly (tests/tests/promises/costs.txt). The field and the
//! group are the library's.

use alloc::{boxed::Box, sync::Arc, vec::Vec};
use core::fmt;

use curve25519_dalek::{
    EdwardsPoint, Scalar, constants::ED25519_BASEPOINT_POINT, edwards::CompressedEdwardsY,
    traits::Identity as _,
};
use once_cell::race::OnceBox;
use sha2::{Digest, Sha512};

/// A point of no small order.
#[derive(Clone)]
pub struct PublicKey(Arc<Key>);

struct Key {
    bytes: [u8; 32],
    point: EdwardsPoint,
    /// Of -A, made when it is first asked, some 10 KB: many keys are never used.
    table: OnceBox<Table>,
}

/// The same for all keys.
static BASE: OnceBox<Table> = OnceBox::new();

/// The point times 1, 3, 5, .. 15; then the same times 2^32, and so on.
struct Table(Vec<[EdwardsPoint; MULTIPLES]>);

impl PublicKey {
    /// None if it is no point (RFC 8032 section 5.1.3), or one of small order: that verifies signatures nobody made.
    pub fn from_bytes(bytes: &[u8; 32]) -> Option<Self> {
        let point = CompressedEdwardsY(*bytes).decompress().filter(|point| !point.is_small_order())?;
        Some(Self(Arc::new(Key { bytes: *bytes, point, table: OnceBox::new() })))
    }

    #[cfg(feature = "mint")]
    pub fn of(key: &ed25519_dalek::SigningKey) -> Self {
        let key = key.verifying_key();
        Self(Arc::new(Key { bytes: key.to_bytes(), point: key.to_edwards(), table: OnceBox::new() }))
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0.bytes
    }

    /// A signature has one spelling: s is below the order, R is as it is computed, and not of small order.
    pub fn accepts(&self, message: &[&[u8]], signature: &[u8]) -> bool {
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
        let base = BASE.get_or_init(|| Box::new(Table::of(ED25519_BASEPOINT_POINT)));
        #[expect(clippy::arithmetic_side_effects, reason = "of a point")]
        let minus_key = table.get_or_init(|| Box::new(Table::of(-point)));
        let sum = sum([(&s, base), (&k, minus_key)]);
        !sum.is_small_order() && sum.compress().as_bytes() == r
    }
}

#[expect(clippy::arithmetic_side_effects, reason = "of points")]
impl Table {
    fn of(mut point: EdwardsPoint) -> Self {
        let mut parts = Vec::with_capacity(PARTS);
        for _ in 0..PARTS {
            let (mut odd, twice) = (point, point + point);
            parts.push([(); MULTIPLES].map(|()| {
                let multiple = odd;
                odd += twice;
                multiple
            }));
            // 2^32 = 8^10 * 4
            point = (0..10).fold(point, |point, _| point.mul_by_cofactor());
            point = (0..2).fold(point, |point, _| point + point);
        }
        Self(parts)
    }
}

/// Each scalar times its point, together. Nothing here is secret, so it may take as long as the numbers want.
#[expect(clippy::arithmetic_side_effects, reason = "of points")]
fn sum(products: [(&Scalar, &Table); 2]) -> EdwardsPoint {
    let products = products.map(|(scalar, table)| (digits(scalar.as_bytes()), table));
    let mut sum = EdwardsPoint::identity();
    for bit in (0..BITS).rev() {
        sum += sum;
        for (digits, table) in &products {
            for (digits, multiples) in digits.iter().zip(&table.0) {
                let digit = digits.get(bit).copied().unwrap_or_default();
                // 1, 3, 5 .. are the first, second, third ..
                let multiple = multiples.get(usize::from(digit.unsigned_abs() / 2));
                match multiple.filter(|_| digit != 0) {
                    Some(multiple) if digit > 0 => sum += multiple,
                    Some(multiple) => sum -= multiple,
                    None => {}
                }
            }
        }
    }
    sum
}

/// A number below 2^253 as a sum of odd digits from -15 to 15 times powers of two, at most one in five places in a row
/// (width-5 NAF, Handbook of Elliptic and Hyperelliptic Curve Cryptography, algorithm 9.35), in parts of 32 places.
fn digits(number: &[u8; 32]) -> [[i8; BITS]; PARTS] {
    let mut digits = [[0; BITS]; PARTS];
    let mut places = digits.as_flattened_mut().iter_mut().enumerate();
    let mut carry = 0;
    while let Some((at, place)) = places.next() {
        let byte = |at: usize| number.get(at).copied().unwrap_or_default();
        let two = u16::from_le_bytes([byte(at / 8), byte((at / 8).saturating_add(1))]);
        // 5 bits and a carry: at most 32.
        let window = (two >> (at % 8) & 31).saturating_add(carry);
        if window & 1 == 1 {
            carry = window >> 4;
            let digit = i8::try_from(window).unwrap_or_default();
            *place = digit.saturating_sub(if carry == 1 { 32 } else { 0 });
            // The digit stands for all five.
            places.nth(3);
        }
    }
    digits
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

const PARTS: usize = 8;
const BITS: usize = 32;
const MULTIPLES: usize = 8;

#[cfg(test)]
mod tests {
    use curve25519_dalek::constants::EIGHT_TORSION;
    use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
    use proptest::prelude::*;
    use std::vec;

    use super::*;

    fn both(key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
        let ours = PublicKey::from_bytes(key);
        let theirs = VerifyingKey::from_bytes(key).ok().filter(|key| !key.is_weak());
        assert_eq!(ours.is_some(), theirs.is_some());
        let ours = ours.is_some_and(|key| key.accepts(&[message], signature));
        let signature = Signature::from_bytes(signature);
        let theirs = theirs.is_some_and(|key| key.verify_strict(message, &signature).is_ok());
        assert_eq!(ours, theirs, "{key:?} {message:?} {signature:?}");
        ours
    }

    /// Any scalar, and those at the edges of bytes, parts and windows.
    fn scalar() -> impl Strategy<Value = Scalar> {
        let edge = (0..32_usize, any::<u8>(), any::<bool>()).prop_map(|(at, byte, fill)| {
            let mut bytes = [if fill { 0xff } else { 0 }; 32];
            bytes[at] = byte;
            Scalar::from_bytes_mod_order(bytes)
        });
        prop_oneof![any::<[u8; 32]>().prop_map(Scalar::from_bytes_mod_order), edge]
    }

    proptest! {
        #[test]
        fn sums_are_those_of_the_library(s in scalar(), k in scalar(), of in scalar()) {
            let point = EdwardsPoint::mul_base(&of);
            let tables = [Table::of(ED25519_BASEPOINT_POINT), Table::of(point)];
            let expected = EdwardsPoint::vartime_double_scalar_mul_basepoint(&k, &point, &s);
            prop_assert_eq!(sum([(&s, &tables[0]), (&k, &tables[1])]), expected);
        }

        #[test]
        fn verdicts_are_those_of_verify_strict(seed: [u8; 32], message: Vec<u8>, at in 0..64_usize, flip in 1..=255_u8) {
            let key = SigningKey::from_bytes(&seed);
            let mut signature = key.sign(&message).to_bytes();
            let public = key.verifying_key().to_bytes();
            prop_assert!(both(&public, &message, &signature));
            signature[at] ^= flip;
            prop_assert!(!both(&public, &message, &signature));
        }

        #[test]
        fn so_are_those_on_any_bytes(key: [u8; 32], message: Vec<u8>, r: [u8; 32], s: [u8; 32]) {
            let mut signature = [0; 64];
            signature[..32].copy_from_slice(&r);
            signature[32..].copy_from_slice(&s);
            both(&key, &message, &signature);
        }
    }

    /// Points of small order as the key, as R, and added to a good R: for these, libraries differ ("Taming the many
    /// EdDSAs", 2020).
    #[test]
    fn so_are_those_on_points_of_small_order() {
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
                        accepted += usize::from(both(&key, &[message], &signature));
                        // s = 0: R = -[k]A.
                        signature[32..].fill(0);
                        accepted += usize::from(both(&key, &[message], &signature));
                    }
                }
            }
        }
        assert!(accepted >= 32, "{accepted}");
    }

    #[test]
    fn s_has_one_spelling() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let mut signature = key.sign(b"m").to_bytes();
        // s + L (RFC 8032 section 5.1): the same number modulo the order.
        let order: [u8; 32] = [
            0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
        ];
        let mut carry = 0;
        for (digit, more) in signature[32..].iter_mut().zip(order) {
            let sum = u16::from(*digit) + u16::from(more) + carry;
            *digit = sum.to_le_bytes()[0];
            carry = sum >> 8;
        }
        assert!(!both(&key.verifying_key().to_bytes(), b"m", &signature));
        assert!(!PublicKey::of(&key).accepts(&[b"m"], &signature[..63]));
    }
}
