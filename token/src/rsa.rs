//! RSA signatures (RFC 8017): PKCS #1 v1.5 by building the one right encoding and comparing, and PSS.
//!
//! Only the public operation, on public numbers: nothing here has to hide its timing.

use alloc::{vec, vec::Vec};

use crate::{hash::Hash, modular::Modulus};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Padding {
    /// RSASSA-PKCS1-v1_5.
    Pkcs1,
    /// RSASSA-PSS, the salt as long as the hash (RFC 7518 section 3.5).
    Pss,
}

#[derive(Clone)]
pub(crate) struct PublicKey {
    modulus: Modulus,
    /// Of the modulus, in bytes.
    length: usize,
    exponent: u32,
}

impl PublicKey {
    /// None unless the modulus is odd, has 2048 to 4096 bits and a multiple of eight, and the exponent is odd and at
    /// least 3.
    pub(crate) fn new(modulus: &[u8], exponent: u32) -> Option<Self> {
        let whole = modulus.first().is_some_and(|first| *first >= 0x80);
        if !whole || !MODULUS_BYTES.contains(&modulus.len()) || exponent < 3 || exponent.is_multiple_of(2) {
            return None;
        }
        Some(Self { modulus: Modulus::new(modulus)?, length: modulus.len(), exponent })
    }

    /// `SubjectPublicKeyInfo` in DER (RFC 3279 section 2.3.1). None for what no key has: it would be too long.
    pub(crate) fn public_key_info(&self) -> Option<Vec<u8>> {
        let exponent = self.exponent.to_be_bytes();
        let first = exponent.iter().position(|byte| *byte != 0)?;
        let number = |digits: &[u8]| {
            let sign: &[u8] = if digits.first()? < &0x80 { &[] } else { &[0] };
            der(INTEGER, &[sign, digits])
        };
        let modulus = number(&self.modulus.bytes(self.length))?;
        let key = der(SEQUENCE, &[&modulus, &number(exponent.get(first..)?)?])?;
        der(SEQUENCE, &[RSA_ENCRYPTION, &der(BIT_STRING, &[&[0], &key])?])
    }

    /// The exponent in 4 bytes, then the modulus.
    #[cfg(feature = "mint")]
    pub(crate) fn material(&self) -> Vec<u8> {
        [&self.exponent.to_be_bytes()[..], &self.modulus.bytes(self.length)].concat()
    }

    /// As long as the modulus.
    pub(crate) const fn signature_bytes(&self) -> usize {
        self.length
    }

    pub(crate) fn accepts(&self, hash: Hash, padding: Padding, message: &[u8], signature: &[u8]) -> bool {
        let Some(encoded) = self.open(signature) else { return false };
        let digest = hash.digest(&[message]);
        match padding {
            Padding::Pkcs1 => pkcs1(hash, &digest, self.length).is_some_and(|right| right == encoded),
            Padding::Pss => pss(hash, &digest, encoded).is_some(),
        }
    }

    /// RFC 8017 section 5.2.2: the signature to the power of the exponent, as long as the modulus. None if the
    /// signature has another length than the modulus or is not below it.
    fn open(&self, signature: &[u8]) -> Option<Vec<u8>> {
        (signature.len() == self.length).then(|| self.modulus.power(signature, self.exponent)).flatten()
    }
}

/// One value of DER (X.690 section 10.1) with the parts as its content.
fn der(tag: u8, parts: &[&[u8]]) -> Option<Vec<u8>> {
    let content = parts.concat();
    let [high, low] = u16::try_from(content.len()).ok()?.to_be_bytes();
    let length: &[u8] = match (high, low) {
        (0, 0..0x80) => &[low],
        (0, _) => &[0x81, low],
        _ => &[0x82, high, low],
    };
    Some([&[tag], length, &content].concat())
}

const INTEGER: u8 = 2;
const BIT_STRING: u8 = 3;
const SEQUENCE: u8 = 0x30;

/// `rsaEncryption`, and no parameters.
const RSA_ENCRYPTION: &[u8] = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";

/// EMSA-PKCS1-v1_5 (RFC 8017 section 9.2): `00 01 ff.. 00`, the name of the hash in DER, the hash.
fn pkcs1(hash: Hash, digest: &[u8], length: usize) -> Option<Vec<u8>> {
    let name: [u8; 19] = match hash {
        Hash::Sha256 => *b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20",
        Hash::Sha384 => *b"\x30\x41\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\x04\x30",
        Hash::Sha512 => *b"\x30\x51\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03\x05\x00\x04\x40",
    };
    let filling = length.checked_sub(name.len())?.checked_sub(digest.len())?.checked_sub(3)?;
    Some([&[0, 1], vec![0xff; filling].as_slice(), &[0], &name, digest].concat())
}

/// EMSA-PSS-VERIFY (RFC 8017 section 9.1.2); a modulus of whole bytes has one unused bit.
///
/// ```text
/// masked(00.. 01 salt)  hash(00 x 8, digest, salt)  bc
/// ```
fn pss(hash: Hash, digest: &[u8], mut encoded: Vec<u8>) -> Option<()> {
    if encoded.pop()? != 0xbc {
        return None;
    }
    let at_seal = encoded.len().checked_sub(hash.bytes())?;
    let (masked, seal) = encoded.split_at_mut_checked(at_seal)?;
    let unused = masked.first_mut()?;
    if *unused & 0x80 != 0 {
        return None;
    }
    for (block, counter) in masked.chunks_mut(hash.bytes()).zip(0_u32..) {
        let mask = hash.digest(&[seal, &counter.to_be_bytes()]);
        block.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
    }
    *masked.first_mut()? &= 0x7f;
    let (filling, salt) = masked.split_at_checked(masked.len().checked_sub(hash.bytes())?)?;
    let (one, zeros) = filling.split_last()?;
    let right = *one == 1 && zeros.iter().all(|zero| *zero == 0);
    (right && hash.digest(&[&[0; 8], digest, salt]) == *seal).then_some(())
}

/// 2048 bits are what RFC 7518 section 3.3 demands; more than 4096 would let a token cost too much.
const MODULUS_BYTES: core::ops::RangeInclusive<usize> = 256..=512;
