//! Sums of multiples of two points from precomputed tables: the one exception to the rule that curve arithmetic is a
//! library's.
//!
//! Most tokens are signed by few keys. With multiples of B made once, and of A once for each key, both sums go in eight
//! parts of 32 bits side by side, so that 32 doublings do for 256. A verification then takes 1.05 million instructions of
//! WebAssembly, by `VartimeEdwardsPrecomputation` of `curve25519-dalek` 1.7 million, and by `verify_strict` of
//! `ed25519-dalek` 2.3 million (the difference of the row "EdDSA, cold" in tests/tests/promises/costs.txt). This stays only
//! while it is at least 1.5 times as fast as `verify_strict`, and every test run compares the two on random and on
//! adversarial signatures (the tests of [`super`]).
//!
//! What is here adds, doubles and negates points by the library's operators. It chooses which, by public numbers alone.

use alloc::{boxed::Box, vec::Vec};

use curve25519_dalek::{EdwardsPoint, Scalar, constants::ED25519_BASEPOINT_POINT, traits::Identity as _};
use once_cell::race::OnceBox;

/// Of B, the same for all keys.
static BASE: OnceBox<Table> = OnceBox::new();

/// The point times 1, 3, 5, .. 15; then the same times 2^32, and so on.
pub(super) struct Table(Vec<[EdwardsPoint; MULTIPLES]>);

#[expect(clippy::arithmetic_side_effects, reason = "of points")]
impl Table {
    pub(super) fn of(mut point: EdwardsPoint) -> Self {
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

/// \[s\]B + \[k\]P, where the table is of P.
pub(super) fn with_base(s: &Scalar, k: &Scalar, table: &Table) -> EdwardsPoint {
    let base = BASE.get_or_init(|| Box::new(Table::of(ED25519_BASEPOINT_POINT)));
    sum([(s, base), (k, table)])
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

const PARTS: usize = 8;
const BITS: usize = 32;
const MULTIPLES: usize = 8;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
            let expected = EdwardsPoint::vartime_double_scalar_mul_basepoint(&k, &point, &s);
            prop_assert_eq!(with_base(&s, &k, &Table::of(point)), expected);
        }
    }
}
