//! Signatures that the host verifies: RSA and ECDSA in native code take a tenth of the time.
//!
//! Envoy's foreign function `verify_signature` takes and gives messages of Protocol Buffers, of bytes and strings only:
//!
//! ```text
//! VerifySignatureArguments { 1: hash "sha256", 2: public key (DER), 3: signature (ECDSA: DER), 4: text }
//! VerifySignatureResult    { 1: result (bool), 2: error }
//! ```
//! The algorithm, the one spelling of a token and what it says are checked here as ever.

use alloc::vec::Vec;
use core::cell::Cell;

use verdict::{Algorithm, SignatureVerifier};

use crate::abi::{self, HostError};

#[derive(Debug, Default)]
pub(crate) struct HostVerifier {
    /// The host has no such function: it is asked once only.
    absent: Cell<bool>,
    verified: Cell<u64>,
}

impl HostVerifier {
    /// How many signatures the host has judged since this was asked last.
    pub(crate) fn count(&self) -> u64 {
        self.verified.take()
    }
}

impl SignatureVerifier for HostVerifier {
    fn verify(&self, algorithm: Algorithm, key: &[u8], message: &[u8], signature: &[u8]) -> Option<bool> {
        if self.absent.get() {
            return None;
        }
        // What is no ECDSA signature is not asked about.
        let (hash, converted) = match algorithm {
            Algorithm::Rs256 => ("sha256", None),
            Algorithm::Rs384 => ("sha384", None),
            Algorithm::Rs512 => ("sha512", None),
            Algorithm::Es256 => ("sha256", Some(algorithm.ecdsa_der(signature)?)),
            Algorithm::Es384 => ("sha384", Some(algorithm.ecdsa_der(signature)?)),
            // The function knows no padding but PKCS #1 1.5; the others are fast enough here.
            _ => return None,
        };
        let signature = converted.as_deref().unwrap_or(signature);
        let mut arguments = Vec::with_capacity(message.len().saturating_add(1024));
        for (number, value) in [(1, hash.as_bytes()), (2, key), (3, signature), (4, message)] {
            field(&mut arguments, number, value);
        }
        match abi::call_foreign_function("verify_signature", &arguments) {
            Ok(result) => {
                verified(&result).inspect(|_| self.verified.set(self.verified.get().saturating_add(1)))
            }
            // It does not take this key.
            Err(HostError::BAD_ARGUMENT) => None,
            Err(_) => {
                self.absent.set(true);
                None
            }
        }
    }
}

/// What is neither a plain yes nor a plain no is verified here.
fn verified(result: &[u8]) -> Option<bool> {
    match result {
        // Field 1, a number: true.
        [0x08, 0x01] => Some(true),
        // Field 1 is false and so left out; field 2, a string: why.
        [0x12, ..] => Some(false),
        _ => None,
    }
}

/// A length-delimited field.
fn field(message: &mut Vec<u8>, number: u8, value: &[u8]) {
    const LENGTH_DELIMITED: u8 = 2;
    message.push(number << 3 | LENGTH_DELIMITED);
    let mut length = value.len();
    while length >= 0x80 {
        // Seven bits; that more follow is in the eighth.
        message.push(u8::try_from(length & 0x7f).unwrap_or_default() | 0x80);
        length >>= 7;
    }
    message.push(u8::try_from(length).unwrap_or_default());
    message.extend_from_slice(value);
}
