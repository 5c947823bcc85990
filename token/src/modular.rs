//! Numbers modulo an odd one, for the public operations of RSA and ECDSA: all of them are public, so nothing hides its
//! timing.
//!
//! General libraries bring 60 KB into the filter for what is one multiplication (P. Montgomery, "Modular
//! multiplication without trial division", 1985). Limbs have 32 bits, lowest first: a wasm VM multiplies them at once.

use alloc::{vec, vec::Vec};
use core::cmp::Ordering;

#[derive(Clone)]
pub(crate) struct Modulus {
    limbs: Vec<u32>,
    /// -1 / modulus, modulo 2^32.
    negated_inverse: u32,
    /// R^2, where R is 2^32 to the number of limbs.
    r_squared: Vec<u32>,
}

impl Modulus {
    /// None if it is even or has no digits. Big-endian.
    pub(crate) fn new(bytes: &[u8]) -> Option<Self> {
        let limbs = limbs(bytes);
        let lowest = limbs.first().filter(|lowest| **lowest & 1 == 1)?;
        // Newton: each round doubles the right bits, and an odd number is its own inverse in the lowest three.
        let inverse = (0..4).fold(*lowest, |inverse, _| {
            inverse.wrapping_mul(2_u32.wrapping_sub(lowest.wrapping_mul(inverse)))
        });
        let mut modulus = Self { limbs, negated_inverse: inverse.wrapping_neg(), r_squared: Vec::new() };
        let mut power = modulus.short(1);
        for _ in 0..modulus.limbs.len().saturating_mul(64) {
            let carry = double(&mut power);
            modulus.reduce(&mut power, carry);
        }
        modulus.r_squared = power;
        Some(modulus)
    }

    /// The base to the power of the exponent, which is at least 1, in as many bytes as the base has. None if the base
    /// is not below the modulus.
    pub(crate) fn power(&self, base: &[u8], exponent: u32) -> Option<Vec<u8>> {
        let number = self.read(base)?;
        let base_r = self.of_vectors(&number, &self.r_squared);
        let mut power = base_r.clone();
        // The first bit is the base itself.
        for bit in (0..exponent.checked_ilog2()?).rev() {
            power = self.of_vectors(&power, &power);
            if exponent >> bit & 1 == 1 {
                power = self.of_vectors(&power, &base_r);
            }
        }
        Some(bytes(&self.of_vectors(&power, &self.short(1)), base.len()))
    }

    /// None if it is not as long as the modulus, or not below it. Big-endian.
    pub(crate) fn read(&self, number: &[u8]) -> Option<Vec<u32>> {
        let number = limbs(number);
        let below = number.len() == self.limbs.len() && compare(&number, &self.limbs) == Ordering::Less;
        below.then_some(number)
    }

    /// How many there are.
    pub(crate) const fn length(&self) -> usize {
        self.limbs.len()
    }

    pub(crate) fn limbs(&self) -> &[u32] {
        &self.limbs
    }

    /// R^2: with it, [`Self::product`] leads into Montgomery's form.
    pub(crate) fn r_squared(&self) -> &[u32] {
        &self.r_squared
    }

    pub(crate) fn bytes(&self, length: usize) -> Vec<u8> {
        bytes(&self.limbs, length)
    }

    fn of_vectors(&self, a: &[u32], b: &[u32]) -> Vec<u32> {
        let mut product = vec![0; self.limbs.len().saturating_add(2)];
        self.product(a, b, &mut product);
        product.truncate(self.limbs.len());
        product
    }

    /// a * b / R. Both are below the modulus and as long as it is, and so is the product, in a buffer of two more limbs
    /// that are zero.
    pub(crate) fn product(&self, a: &[u32], b: &[u32], product: &mut [u32]) {
        for digit in a {
            add_multiple(product, *digit, b);
            // A multiple of the modulus that makes the lowest limb zero, which then goes.
            let lowest = product.first().copied().unwrap_or_default();
            add_multiple(product, lowest.wrapping_mul(self.negated_inverse), &self.limbs);
            product.copy_within(1.., 0);
            product.last_mut().into_iter().for_each(|highest| *highest = 0);
        }
        // Below twice the modulus.
        let (product, above) = product.split_at_mut_checked(self.limbs.len()).unwrap_or_default();
        let carry = above.first_mut().is_some_and(|carry| core::mem::take(carry) == 1);
        self.reduce(product, carry);
    }

    /// Takes the modulus off once if the number, with the carry above it, is not below it.
    pub(crate) fn reduce(&self, number: &mut [u32], carry: bool) {
        if carry || compare(number, &self.limbs) != Ordering::Less {
            subtract(number, &self.limbs);
        }
    }

    /// A small number, as long as the modulus.
    fn short(&self, number: u32) -> Vec<u32> {
        let mut limbs = vec![0; self.limbs.len()];
        limbs.iter_mut().take(1).for_each(|lowest| *lowest = number);
        limbs
    }
}

/// Whether a bit went over the top.
pub(crate) fn add(number: &mut [u32], of: &[u32]) -> bool {
    number.iter_mut().zip(of).fold(false, |carry, (digit, of)| {
        let (sum, more) = digit.overflowing_add(*of);
        let (sum, still_more) = sum.overflowing_add(carry.into());
        *digit = sum;
        more || still_more
    })
}

/// Whether it would be less than zero.
pub(crate) fn subtract(number: &mut [u32], of: &[u32]) -> bool {
    number.iter_mut().zip(of).fold(false, |borrow, (digit, of)| {
        let (difference, less) = digit.overflowing_sub(*of);
        let (difference, still_less) = difference.overflowing_sub(borrow.into());
        *digit = difference;
        less || still_less
    })
}

pub(crate) fn limbs(bytes: &[u8]) -> Vec<u32> {
    let limb = |chunk: &[u8]| chunk.iter().fold(0, |limb, byte| limb << 8 | u32::from(*byte));
    bytes.rchunks(4).map(limb).collect()
}

/// The lowest ones, big-endian.
fn bytes(limbs: &[u32], length: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = limbs.iter().flat_map(|limb| limb.to_le_bytes()).take(length).collect();
    bytes.reverse();
    bytes
}

/// Of two numbers of one length.
pub(crate) fn is_below(a: &[u32], b: &[u32]) -> bool {
    compare(a, b) == Ordering::Less
}

fn compare(a: &[u32], b: &[u32]) -> Ordering {
    a.iter().rev().cmp(b.iter().rev())
}

/// Whether a bit went over the top.
fn double(number: &mut [u32]) -> bool {
    number.iter_mut().fold(false, |carry, limb| {
        let over = *limb >> 31 == 1;
        *limb = *limb << 1 | u32::from(carry);
        over
    })
}

/// sum += digit * of, the carry going as far as it must.
fn add_multiple(sum: &mut [u32], digit: u32, of: &[u32]) {
    let mut carry = 0_u64;
    let (lower, upper) = sum.split_at_mut_checked(of.len()).unwrap_or_default();
    for (limb, of) in lower.iter_mut().zip(of) {
        // At most (2^32 - 1)^2 + 2 * (2^32 - 1) = 2^64 - 1.
        let product = u64::from(digit).wrapping_mul(u64::from(*of));
        let total = product.wrapping_add(u64::from(*limb)).wrapping_add(carry);
        (*limb, carry) = (low(total), total >> 32);
    }
    for limb in upper {
        if carry == 0 {
            return;
        }
        let total = u64::from(*limb).wrapping_add(carry);
        (*limb, carry) = (low(total), total >> 32);
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the upper half is what is to go")]
const fn low(word: u64) -> u32 {
    word as u32
}

#[cfg(test)]
mod tests {
    use p256::elliptic_curve::bigint::U2048;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn small_numbers() {
        for (base, exponent, modulus) in
            [(5_u64, 3, 7_u64), (6, 65537, 7), (0, 3, 9), (1, 17, 9), (123_456_789, 3, 4_294_967_297)]
        {
            let power =
                (0..exponent).fold(1, |power: u128, _| power * u128::from(base) % u128::from(modulus));
            let modulus = Modulus::new(&modulus.to_be_bytes()).unwrap();
            let found = modulus.power(&base.to_be_bytes(), exponent).unwrap();
            assert_eq!(u128::from(u64::from_be_bytes(found.try_into().unwrap())), power);
        }
    }

    #[test]
    fn what_is_no_base_or_no_modulus_is_refused() {
        let modulus = Modulus::new(&[0xff; 8]).unwrap();
        assert_eq!(modulus.power(&[0xff; 8], 3), None);
        assert_eq!(modulus.power(&[0x01; 12], 3), None);
        assert!(Modulus::new(&[0xfe; 8]).is_none());
        assert!(Modulus::new(&[]).is_none());
    }

    /// Limbs of all ones and all zeros are where carries go wrong.
    fn number() -> impl Strategy<Value = Vec<u8>> {
        let limb = prop_oneof![Just([0; 4]), Just([0xff; 4]), Just([0, 0, 0, 1]), any::<[u8; 4]>()];
        prop::collection::vec(limb, 64).prop_map(|limbs| limbs.concat())
    }

    proptest! {
        #[test]
        fn agrees_with_a_general_library(base in number(), mut modulus in number()) {
            modulus[0] |= 0x80;
            modulus[255] |= 1;
            let (b, n) = (U2048::from_be_slice(&base), U2048::from_be_slice(&modulus));
            let b = b.rem_vartime(&n.to_nz().unwrap());
            let times = |a: &U2048, b: &U2048| a.mul_mod_vartime(b, &n.to_nz().unwrap());
            let cube = times(&times(&b, &b), &b);
            let base = b.to_be_bytes();
            prop_assert_eq!(Modulus::new(&modulus).unwrap().power(&base, 3).unwrap(), cube.to_be_bytes().to_vec());
        }
    }
}
