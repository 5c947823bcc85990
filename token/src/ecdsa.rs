//! ECDSA with P-256 and P-384 (RFC 7518 section 3.4): a signature is r and s, each as long as the order of the curve.
//!
//! Zero and what is not below the order is refused ("psychic signatures", CVE-2022-21449).

use alloc::{sync::Arc, vec::Vec};

use crate::{
    curve::{Curve, Point},
    hash::Hash,
};

/// A point other than infinity that is on its curve.
#[derive(Clone)]
pub(crate) struct PublicKey(Arc<Key>);

struct Key {
    curve: Curve,
    point: Point,
    /// x and y.
    material: Vec<u8>,
    hash: Hash,
}

impl PublicKey {
    /// From x and y.
    pub(crate) fn p256(material: &[u8]) -> Option<Self> {
        Self::new(Curve::p256()?, Hash::Sha256, material)
    }

    /// From x and y.
    pub(crate) fn p384(material: &[u8]) -> Option<Self> {
        Self::new(Curve::p384()?, Hash::Sha384, material)
    }

    /// The hash is as long as the order of the curve.
    fn new(curve: Curve, hash: Hash, material: &[u8]) -> Option<Self> {
        let (x, y) = material.split_at_checked(hash.bytes())?;
        let point = curve.point(x, y)?;
        Some(Self(Arc::new(Key { curve, point, material: material.into(), hash })))
    }

    /// x and y.
    #[cfg(feature = "mint")]
    pub(crate) fn material(&self) -> Vec<u8> {
        self.0.material.clone()
    }

    /// `SubjectPublicKeyInfo` in DER (RFC 5480 section 2).
    pub(crate) fn public_key_info(&self) -> Vec<u8> {
        let head = match self.0.hash {
            Hash::Sha256 => P256_INFO,
            Hash::Sha384 | Hash::Sha512 => P384_INFO,
        };
        [head, &[UNCOMPRESSED], &self.0.material].concat()
    }

    /// r and s are as long as x and y.
    pub(crate) fn signature_bytes(&self) -> usize {
        self.0.material.len()
    }

    pub(crate) fn accepts(&self, message: &[u8], signature: &[u8]) -> bool {
        let Key { curve, point, hash, .. } = &*self.0;
        let Some((r, s)) = signature.split_at_checked(hash.bytes()) else { return false };
        curve.accepts(point, &hash.digest(&[message]), r, s)
    }
}

/// (r, n - s) for (r, s); None if that is no signature for this order.
pub(crate) fn twin(order: &[u8], signature: &[u8]) -> Option<Vec<u8>> {
    let mut twin = Vec::from(signature);
    let (_, s) = twin.split_at_mut_checked(order.len())?;
    if s.len() != order.len() {
        return None;
    }
    let mut borrow = false;
    for (digit, n) in s.iter_mut().zip(order).rev() {
        let (difference, less) = n.overflowing_sub(*digit);
        let (difference, still_less) = difference.overflowing_sub(borrow.into());
        (*digit, borrow) = (difference, less || still_less);
    }
    (!borrow).then_some(twin)
}

/// SEC 1 section 2.3.3: x and y follow.
const UNCOMPRESSED: u8 = 4;

/// All of it but the point: `ecPublicKey`, the name of the curve, and how long the point is.
const P256_INFO: &[u8] =
    b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00";
const P384_INFO: &[u8] =
    b"\x30\x76\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22\x03\x62\x00";

/// The order n of P-256 (SEC 2 section 2.4.2).
pub(crate) const P256_ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc,
    0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

/// The order n of P-384 (SEC 2 section 2.5.1).
pub(crate) const P384_ORDER: [u8; 48] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xc7, 0x63, 0x4d, 0x81, 0xf4, 0x37, 0x2d, 0xdf, 0x58, 0x1a,
    0x0d, 0xb2, 0x48, 0xb0, 0xa7, 0x7a, 0xec, 0xec, 0x19, 0x6a, 0xcc, 0xc5, 0x29, 0x73,
];
