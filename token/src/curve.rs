//! Points of P-256 and P-384 (SEC 2 sections 2.4.2 and 2.5.1), for verifying: everything is public.
//!
//! Why not `p256` and `p384`: for verifying alone, at the filter's own opt-level, they are 38,800 bytes of WebAssembly, one
//! implementation of everything for each curve; this is 5,000. With them the filter is over its budget of 300,000 bytes.
//! They are what this is tested against, and a host that verifies for us (Envoy) leaves both out of use.
//!
//! Jacobian coordinates: (X, Y, Z) is the point (X / Z^2, Y / Z^3), and Z = 0 the one at infinity. The formulas are those
//! of D. Bernstein and T. Lange, "Explicit-Formulas Database", shortw/jacobian-3: dbl-2001-b and add-2007-bl.

use alloc::vec::Vec;

use crate::modular::{self, Modulus};

/// y^2 = x^3 - 3x + b.
#[derive(Clone)]
pub(crate) struct Curve {
    field: Modulus,
    order: Modulus,
    b: Number,
    generator: Point,
}

/// In Montgomery's form, except where it says so. The two limbs above the longest field are for products.
type Number = [u32; MOST_LIMBS + 2];

#[derive(Clone, Copy)]
pub(crate) struct Point {
    x: Number,
    y: Number,
    z: Number,
}

impl Curve {
    pub(crate) fn p256() -> Option<Self> {
        Self::new(&P256)
    }

    pub(crate) fn p384() -> Option<Self> {
        Self::new(&P384)
    }

    fn new([field, order, b, x, y]: &[&[u8]; 5]) -> Option<Self> {
        let field = Modulus::new(field)?;
        let order = Modulus::new(order)?;
        let mut curve = Self { b: ZERO, generator: INFINITY, field, order };
        curve.b = curve.enter(b)?;
        curve.generator = curve.point(x, y)?;
        Some(curve)
    }

    /// None if a coordinate is not below the modulus, or the point not on the curve.
    pub(crate) fn point(&self, x: &[u8], y: &[u8]) -> Option<Point> {
        let (x, y) = (self.enter(x)?, self.enter(y)?);
        let cube = self.times(&self.square(&x), &x);
        let right = self.plus(&self.minus(&cube, &self.triple(&x)), &self.b);
        (self.square(&y) == right).then(|| Point { x, y, z: self.one() })
    }

    /// Whether (r, s) is a signature of the digest under the key (FIPS 186-5 section 6.4.2). The digest is as long as the
    /// order, and so are r and s.
    pub(crate) fn accepts(&self, key: &Point, digest: &[u8], r: &[u8], s: &[u8]) -> bool {
        self.check(key, digest, r, s).is_some()
    }

    fn check(&self, key: &Point, digest: &[u8], r: &[u8], s: &[u8]) -> Option<()> {
        let order = &self.order;
        let (r, s) = (read(order, r)?, read(order, s)?);
        if r == ZERO || s == ZERO {
            return None;
        }
        let mut digest = number(&modular::limbs(digest));
        order.reduce(digest.get_mut(..order.length())?, false);
        // In Montgomery's form the inverse has the factor R that each product takes away.
        let inverse = self.inverse_in_order(&s);
        let (u, v) = (product(order, &digest, &inverse), product(order, &r, &inverse));
        let sum = self.combination(&u, &v, key);
        if sum.z == ZERO {
            return None;
        }
        // x modulo the order is r: x is r, or r and the order, as the field is less than twice as large.
        let z = self.square(&sum.z);
        let mut candidate = r;
        let one =
            |candidate: &Number| self.times(&product(&self.field, candidate, &self.r_squared()), &z) == sum.x;
        if one(&candidate) {
            return Some(());
        }
        let length = self.field.length();
        let over = modular::add(candidate.get_mut(..length)?, order.limbs());
        let below = !over && modular::is_below(candidate.get(..length)?, self.field.limbs());
        (below && one(&candidate)).then_some(())
    }

    /// u * generator + v * key, two bits of both at a time (E. Straus, 1964).
    fn combination(&self, u: &Number, v: &Number, key: &Point) -> Point {
        let multiples = |point: &Point| {
            let double = self.double(point);
            [INFINITY, *point, double, self.add(&double, point)]
        };
        let (generators, keys) = (multiples(&self.generator), multiples(key));
        let table: Vec<Point> = generators.iter().flat_map(|a| keys.iter().map(|b| self.add(a, b))).collect();
        let bits = |number: &Number, at: usize| {
            let limb = number.get(at / 16).copied().unwrap_or_default();
            usize::try_from(limb >> (at % 16).saturating_mul(2) & 3).unwrap_or_default()
        };
        let mut sum = INFINITY;
        for at in (0..self.order.length().saturating_mul(16)).rev() {
            sum = self.double(&self.double(&sum));
            let both = bits(u, at).saturating_mul(4).saturating_add(bits(v, at));
            if let Some(point) = table.get(both).filter(|_| both != 0) {
                sum = self.add(&sum, point);
            }
        }
        sum
    }

    fn double(&self, point: &Point) -> Point {
        let Point { x, y, z } = point;
        let delta = self.square(z);
        let gamma = self.square(y);
        let beta = self.times(x, &gamma);
        let alpha = self.triple(&self.times(&self.minus(x, &delta), &self.plus(x, &delta)));
        let beta_4 = self.twice(&self.twice(&beta));
        let x3 = self.minus(&self.square(&alpha), &self.twice(&beta_4));
        let z3 = self.minus(&self.minus(&self.square(&self.plus(y, z)), &gamma), &delta);
        let gamma_8 = self.twice(&self.twice(&self.twice(&self.square(&gamma))));
        let y3 = self.minus(&self.times(&alpha, &self.minus(&beta_4, &x3)), &gamma_8);
        Point { x: x3, y: y3, z: z3 }
    }

    fn add(&self, a: &Point, b: &Point) -> Point {
        if a.z == ZERO {
            return *b;
        }
        if b.z == ZERO {
            return *a;
        }
        let (aa, bb) = (self.square(&a.z), self.square(&b.z));
        let (u1, u2) = (self.times(&a.x, &bb), self.times(&b.x, &aa));
        let s1 = self.times(&self.times(&a.y, &b.z), &bb);
        let s2 = self.times(&self.times(&b.y, &a.z), &aa);
        let (h, r) = (self.minus(&u2, &u1), self.twice(&self.minus(&s2, &s1)));
        if h == ZERO {
            return if r == ZERO { self.double(a) } else { INFINITY };
        }
        let i = self.square(&self.twice(&h));
        let j = self.times(&h, &i);
        let v = self.times(&u1, &i);
        let x = self.minus(&self.minus(&self.square(&r), &j), &self.twice(&v));
        let y = self.minus(&self.times(&r, &self.minus(&v, &x)), &self.twice(&self.times(&s1, &j)));
        let z = self.minus(&self.minus(&self.square(&self.plus(&a.z, &b.z)), &aa), &bb);
        Point { x, y, z: self.times(&z, &h) }
    }

    /// R / number, of a number that is not in Montgomery's form: by Fermat, to the power of the order less 2.
    fn inverse_in_order(&self, of: &Number) -> Number {
        let order = &self.order;
        let base = product(order, of, &number(order.r_squared()));
        let mut exponent = number(order.limbs());
        // Both orders end in more than 2.
        exponent.first_mut().into_iter().for_each(|lowest| *lowest = lowest.wrapping_sub(2));
        let mut power = None;
        for at in (0..order.length().saturating_mul(32)).rev() {
            power = power.map(|power| product(order, &power, &power));
            let limb = exponent.get(at / 32).copied().unwrap_or_default();
            if limb >> (at % 32) & 1 == 1 {
                power = Some(power.map_or(base, |power| product(order, &power, &base)));
            }
        }
        power.unwrap_or(base)
    }

    fn enter(&self, bytes: &[u8]) -> Option<Number> {
        Some(product(&self.field, &read(&self.field, bytes)?, &self.r_squared()))
    }

    fn r_squared(&self) -> Number {
        number(self.field.r_squared())
    }

    fn one(&self) -> Number {
        let mut one = ZERO;
        one.iter_mut().take(1).for_each(|lowest| *lowest = 1);
        product(&self.field, &one, &self.r_squared())
    }

    fn times(&self, a: &Number, b: &Number) -> Number {
        product(&self.field, a, b)
    }

    fn square(&self, a: &Number) -> Number {
        product(&self.field, a, a)
    }

    fn plus(&self, a: &Number, b: &Number) -> Number {
        let mut sum = *a;
        let limbs = sum.get_mut(..self.field.length()).unwrap_or_default();
        let carry = modular::add(limbs, b);
        self.field.reduce(limbs, carry);
        sum
    }

    fn minus(&self, a: &Number, b: &Number) -> Number {
        let mut difference = *a;
        let limbs = difference.get_mut(..self.field.length()).unwrap_or_default();
        if modular::subtract(limbs, b) {
            modular::add(limbs, self.field.limbs());
        }
        difference
    }

    fn twice(&self, a: &Number) -> Number {
        self.plus(a, a)
    }

    fn triple(&self, a: &Number) -> Number {
        self.plus(&self.twice(a), a)
    }
}

/// a * b / R.
fn product(modulus: &Modulus, a: &Number, b: &Number) -> Number {
    let length = modulus.length();
    let (a, b) = (a.get(..length).unwrap_or_default(), b.get(..length).unwrap_or_default());
    let mut product = ZERO;
    modulus.product(a, b, product.get_mut(..length.saturating_add(2)).unwrap_or_default());
    product
}

/// In as many bytes as the modulus has, or a number would have more than one spelling.
fn read(modulus: &Modulus, bytes: &[u8]) -> Option<Number> {
    let whole = bytes.len() == modulus.length().saturating_mul(4);
    whole.then(|| modulus.read(bytes)).flatten().map(|limbs| number(&limbs))
}

fn number(limbs: &[u32]) -> Number {
    let mut number = ZERO;
    number.iter_mut().zip(limbs).for_each(|(to, from)| *to = *from);
    number
}

const MOST_LIMBS: usize = 12;

const ZERO: Number = [0; MOST_LIMBS + 2];

const INFINITY: Point = Point { x: ZERO, y: ZERO, z: ZERO };

/// Field, order, b, and the generator.
const P256: [&[u8]; 5] = [
    b"\xff\xff\xff\xff\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff\
      \xff\xff\xff\xff\xff\xff\xff\xff",
    b"\xff\xff\xff\xff\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\xbc\xe6\xfa\xad\xa7\x17\x9e\x84\
      \xf3\xb9\xca\xc2\xfc\x63\x25\x51",
    b"\x5a\xc6\x35\xd8\xaa\x3a\x93\xe7\xb3\xeb\xbd\x55\x76\x98\x86\xbc\x65\x1d\x06\xb0\xcc\x53\xb0\xf6\
      \x3b\xce\x3c\x3e\x27\xd2\x60\x4b",
    b"\x6b\x17\xd1\xf2\xe1\x2c\x42\x47\xf8\xbc\xe6\xe5\x63\xa4\x40\xf2\x77\x03\x7d\x81\x2d\xeb\x33\xa0\
      \xf4\xa1\x39\x45\xd8\x98\xc2\x96",
    b"\x4f\xe3\x42\xe2\xfe\x1a\x7f\x9b\x8e\xe7\xeb\x4a\x7c\x0f\x9e\x16\x2b\xce\x33\x57\x6b\x31\x5e\xce\
      \xcb\xb6\x40\x68\x37\xbf\x51\xf5",
];

const P384: [&[u8]; 5] = [
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\
      \xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff\xff\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\
      \xc7\x63\x4d\x81\xf4\x37\x2d\xdf\x58\x1a\x0d\xb2\x48\xb0\xa7\x7a\xec\xec\x19\x6a\xcc\xc5\x29\x73",
    b"\xb3\x31\x2f\xa7\xe2\x3e\xe7\xe4\x98\x8e\x05\x6b\xe3\xf8\x2d\x19\x18\x1d\x9c\x6e\xfe\x81\x41\x12\
      \x03\x14\x08\x8f\x50\x13\x87\x5a\xc6\x56\x39\x8d\x8a\x2e\xd1\x9d\x2a\x85\xc8\xed\xd3\xec\x2a\xef",
    b"\xaa\x87\xca\x22\xbe\x8b\x05\x37\x8e\xb1\xc7\x1e\xf3\x20\xad\x74\x6e\x1d\x3b\x62\x8b\xa7\x9b\x98\
      \x59\xf7\x41\xe0\x82\x54\x2a\x38\x55\x02\xf2\x5d\xbf\x55\x29\x6c\x3a\x54\x5e\x38\x72\x76\x0a\xb7",
    b"\x36\x17\xde\x4a\x96\x26\x2c\x6f\x5d\x9e\x98\xbf\x92\x92\xdc\x29\xf8\xf4\x1d\xbd\x28\x9a\x14\x7c\
      \xe9\xda\x31\x13\xb5\xf0\xb8\xc0\x0a\x60\xb1\xce\x1d\x7e\x81\x9d\x7a\x43\x1d\x7c\x90\xea\x0e\x5f",
];

#[cfg(test)]
mod tests {
    use p256::ecdsa::signature::hazmat::{PrehashSigner, PrehashVerifier};
    use proptest::prelude::*;
    use std::vec::Vec;

    use super::*;

    fn of(key: &[u8]) -> (Curve, Point) {
        let curve = Curve::p256().unwrap();
        let point = curve.point(&key[1..33], &key[33..]).unwrap();
        (curve, point)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn agrees_with_a_general_library(
            secret in prop::array::uniform32(1_u8..255),
            digest: [u8; 32],
            damage in prop::option::of((0..64_usize, 1_u8..)),
        ) {
            let key = p256::ecdsa::SigningKey::from_slice(&secret).unwrap();
            let signature: p256::ecdsa::Signature = key.sign_prehash(&digest).unwrap();
            let mut bytes = signature.to_bytes();
            if let Some((at, by)) = damage {
                bytes[at] ^= by;
            }
            let expected = p256::ecdsa::Signature::from_slice(&bytes)
                .is_ok_and(|signature| key.verifying_key().verify_prehash(&digest, &signature).is_ok());
            let (curve, point) = of(key.verifying_key().to_sec1_point(false).as_bytes());
            prop_assert_eq!(curve.accepts(&point, &digest, &bytes[..32], &bytes[32..]), expected);
            prop_assert_eq!(expected, damage.is_none());
        }

        #[test]
        fn agrees_on_p384_too(secret in prop::array::uniform32(1_u8..255), digest: [u8; 32], damage: bool) {
            let secret: Vec<u8> = secret.iter().chain(&secret[..16]).copied().collect();
            let digest: Vec<u8> = digest.iter().chain(&digest[..16]).copied().collect();
            let key = p384::ecdsa::SigningKey::from_slice(&secret).unwrap();
            let signature: p384::ecdsa::Signature = key.sign_prehash(&digest).unwrap();
            let mut bytes = signature.to_bytes();
            bytes[95] ^= u8::from(damage);
            let point = key.verifying_key().to_sec1_point(false);
            let curve = Curve::p384().unwrap();
            let point = curve.point(&point.as_bytes()[1..49], &point.as_bytes()[49..]).unwrap();
            prop_assert_eq!(curve.accepts(&point, &digest, &bytes[..48], &bytes[48..]), !damage);
        }
    }

    /// The field has some more elements than the group: where x of R is n or more, r is x - n. No random signature is
    /// such a one, so the key is made for it: with s = 1 and digest 1, it is (R - G) / r.
    #[test]
    fn an_x_at_or_above_the_order_counts_less_the_order() {
        let mut found = 0;
        for r in 1..=100_u8 {
            let mut compressed = [&[2][..], &crate::ecdsa::P256_ORDER].concat();
            compressed[32] += r;
            let Ok(x_above) = p256::PublicKey::from_sec1_bytes(&compressed) else { continue };
            let inverse = p256::Scalar::from(u64::from(r)).invert().unwrap();
            let key = (x_above.to_projective() - p256::ProjectivePoint::GENERATOR) * inverse;
            let key = p256::ecdsa::VerifyingKey::from_affine(key.to_affine()).unwrap();
            let number = |last: u8| {
                let mut number = [0; 32];
                number[31] = last;
                number
            };
            let signature = p256::ecdsa::Signature::from_slice(&[number(r), number(1)].concat()).unwrap();
            assert!(key.verify_prehash(&number(1), &signature).is_ok());
            let (curve, point) = of(key.to_sec1_point(false).as_bytes());
            assert!(curve.accepts(&point, &number(1), &number(r), &number(1)));
            assert!(!curve.accepts(&point, &number(1), &number(r + 1), &number(1)));
            assert!(!curve.accepts(&point, &number(2), &number(r), &number(1)));
            // x itself is no r.
            assert!(!curve.accepts(&point, &number(1), &compressed[1..], &number(1)));
            found += 1;
        }
        assert!(found > 20, "half of all x are on the curve");
    }

    /// Where the formulas for different points would divide by zero.
    #[test]
    fn points_that_are_alike_add_up() {
        for curve in [Curve::p256().unwrap(), Curve::p384().unwrap()] {
            let one = curve.generator;
            let opposite = Point { y: curve.minus(&ZERO, &one.y), ..one };
            let same = |a: &Point, b: &Point| {
                let (aa, bb) = (curve.square(&a.z), curve.square(&b.z));
                curve.times(&a.x, &bb) == curve.times(&b.x, &aa)
                    && curve.times(&a.y, &curve.times(&b.z, &bb))
                        == curve.times(&b.y, &curve.times(&a.z, &aa))
            };
            let two = curve.double(&one);
            assert!(same(&curve.add(&one, &one), &two));
            assert!(same(&curve.add(&two, &one), &curve.add(&one, &two)));
            assert!(same(&curve.add(&curve.add(&two, &one), &opposite), &two));
            assert!(curve.add(&one, &opposite).z == ZERO);
            assert!(same(&curve.add(&INFINITY, &one), &one) && same(&curve.add(&one, &INFINITY), &one));
            assert!(curve.double(&INFINITY).z == ZERO);
            // A digest of zero, and a key that is the generator, its double or its opposite.
            for key in [one, two, opposite] {
                let three = curve.add(&one, &two);
                let small = |n: u32| number(&[n]);
                assert!(same(&curve.combination(&small(3), &ZERO, &key), &three));
                let times_three = curve.add(&curve.double(&key), &key);
                assert!(same(&curve.combination(&ZERO, &small(3), &key), &times_three));
                let both = curve.add(&three, &times_three);
                let sum = curve.combination(&small(3), &small(3), &key);
                assert!(same(&sum, &both) && (sum.z == ZERO) == (both.z == ZERO));
            }
            // The order of the group times a point is infinity.
            let order = number(curve.order.limbs());
            assert!(curve.combination(&order, &ZERO, &one).z == ZERO);
            assert!(curve.combination(&ZERO, &order, &two).z == ZERO);
        }
    }

    #[test]
    fn a_number_has_one_spelling() {
        let key = p256::ecdsa::SigningKey::from_slice(&[7; 32]).unwrap();
        let point = key.verifying_key().to_sec1_point(false);
        let (curve, found) = of(point.as_bytes());
        let (x, y) = (&point.as_bytes()[1..33], &point.as_bytes()[33..]);
        // A signature whose s is short: seek one, as every 256th is.
        let (digest, r, s) = (0_u32..)
            .find_map(|n| {
                let mut digest = [0; 32];
                digest[..4].copy_from_slice(&n.to_be_bytes());
                let signature: p256::ecdsa::Signature = key.sign_prehash(&digest).unwrap();
                let (r, s) = signature.split_bytes();
                (s[0] == 0).then_some((digest, r.to_vec(), s.to_vec()))
            })
            .unwrap();
        assert!(curve.accepts(&found, &digest, &r, &s));
        assert!(!curve.accepts(&found, &digest, &r, &s[1..]));
        assert!(!curve.accepts(&found, &digest, &r, &[&[0], &s[..]].concat()));
        assert!(curve.point(x, &y[1..]).is_none() && curve.point(x, x).is_none());
        assert!(curve.point(&[0xff; 32], y).is_none() && curve.point(&[0; 32], &[0; 32]).is_none());
    }
}
