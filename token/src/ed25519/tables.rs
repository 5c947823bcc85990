//! Sums of multiples of two points from precomputed tables: the only curve arithmetic in Keystile that is not a
//! library's.
//!
//! Most tokens are signed with few keys. With multiples of B precomputed once, and of A once per key, both products are
//! computed in eight parallel parts of 32 bits, so that 32 doublings suffice for 256 bits. A verification then takes
//! 1.05 million WebAssembly instructions, compared with 1.7 million by `VartimeEdwardsPrecomputation` of
//! `curve25519-dalek` and 2.3 million by `verify_strict` of `ed25519-dalek` (the difference in the row "EdDSA, cold" of
//! tests/tests/promises/costs.txt). This code is kept only while it is at least 1.5 times as fast as `verify_strict`,
//! and every test run compares the two on random and on adversarial signatures (the tests of [`super`]).
//!
//! This module adds, doubles and negates points with the operators of the library. Which operations it performs depends
//! only on public numbers.

use alloc::{boxed::Box, vec::Vec};

use curve25519_dalek::{EdwardsPoint, Scalar, constants::ED25519_BASEPOINT_POINT, traits::Identity as _};
use once_cell::race::OnceBox;

const PARTS: usize = 8;
const BITS: usize = 32;
const MULTIPLES: usize = 8;

/// The table of B, shared by all keys.
static BASE: OnceBox<PrecomputedTable> = OnceBox::new();

/// The point times 1, 3, 5, .. 15, then the same times 2^32, and so on.
pub(super) struct PrecomputedTable(Vec<[EdwardsPoint; MULTIPLES]>);

#[expect(clippy::arithmetic_side_effects, reason = "of points")]
impl PrecomputedTable {
    pub(super) fn new(mut point: EdwardsPoint) -> Self {
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

/// Returns \[s\]B + \[k\]P for the table of P.
pub(super) fn double_scalar_mul_base(s: &Scalar, k: &Scalar, table: &PrecomputedTable) -> EdwardsPoint {
    let base = BASE.get_or_init(|| Box::new(PrecomputedTable::new(ED25519_BASEPOINT_POINT)));
    multi_scalar_mul([(s, base), (k, table)])
}

/// Returns the sum of each scalar times its point. It runs in variable time, since no input is secret.
#[expect(clippy::arithmetic_side_effects, reason = "of points")]
fn multi_scalar_mul(products: [(&Scalar, &PrecomputedTable); 2]) -> EdwardsPoint {
    let products = products.map(|(scalar, table)| (signed_digits(scalar.as_bytes()), table));
    let mut sum = EdwardsPoint::identity();
    for bit in (0..BITS).rev() {
        sum += sum;
        for (signed_digits, table) in &products {
            for (signed_digits, multiples) in signed_digits.iter().zip(&table.0) {
                let digit = signed_digits.get(bit).copied().unwrap_or_default();
                // The multiples are 1, 3, 5 and so on.
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

/// Returns a number below 2^253 as a sum of powers of two times odd digits from -15 to 15, with at most one non-zero
/// digit in five consecutive places (width-5 NAF, Handbook of Elliptic and Hyperelliptic Curve Cryptography, algorithm
/// 9.35), in parts of 32 places.
fn signed_digits(number: &[u8; 32]) -> [[i8; BITS]; PARTS] {
    let mut signed_digits = [[0; BITS]; PARTS];
    let mut places = signed_digits.as_flattened_mut().iter_mut().enumerate();
    let mut carry = 0;
    while let Some((at, place)) = places.next() {
        let byte = |at: usize| number.get(at).copied().unwrap_or_default();
        let two_bytes = u16::from_le_bytes([byte(at / 8), byte((at / 8).saturating_add(1))]);
        // Five bits and a carry: at most 32.
        let window = (two_bytes >> (at % 8) & 31).saturating_add(carry);
        if window & 1 == 1 {
            carry = window >> 4;
            let digit = i8::try_from(window).unwrap_or_default();
            *place = digit.saturating_sub(if carry == 1 { 32 } else { 0 });
            // The digit covers all five places.
            places.nth(3);
        }
    }
    signed_digits
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Any scalar, including those at the boundaries of bytes, parts and windows.
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
        fn double_scalar_mul_agrees_with_the_library(s in scalar(), k in scalar(), of in scalar()) {
            let point = EdwardsPoint::mul_base(&of);
            let expected = EdwardsPoint::vartime_double_scalar_mul_basepoint(&k, &point, &s);
            prop_assert_eq!(double_scalar_mul_base(&s, &k, &PrecomputedTable::new(point)), expected);
        }
    }
}
