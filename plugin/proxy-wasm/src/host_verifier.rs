//! Signatures that the host verifies. Its native code verifies RSA and ECDSA in a tenth of the time that WebAssembly
//! takes, and P-521, for which the filter has no code.
//!
//! Envoy's foreign function `verify_signature` takes and returns messages of Protocol Buffers. All fields but
//! `result` are bytes or strings:
//!
//! ```text
//! VerifySignatureArguments { 1: hash "sha256", 2: public key (DER), 3: signature (ECDSA: DER), 4: text }
//! VerifySignatureResult    { 1: result (bool), 2: error }
//! ```
//! Everything else about a token is verified here: its algorithm, its spelling and its claims.

use std::cell::Cell;

use verdict::{Algorithm, SignatureVerifier};

use crate::hostcalls::{self, HostError};

#[derive(Debug, Default)]
pub(crate) struct HostVerifier {
    /// True once the host has answered that it has no such function. It is not asked again.
    is_absent: Cell<bool>,
    verified: Cell<u64>,
}

impl HostVerifier {
    /// Returns how many signatures the host has verified since the last call.
    pub(crate) fn take_count(&self) -> u64 {
        self.verified.take()
    }
}

impl SignatureVerifier for HostVerifier {
    fn verify(&self, algorithm: Algorithm, key: &[u8], message: &[u8], signature: &[u8]) -> Option<bool> {
        if self.is_absent.get() {
            return None;
        }
        // The host is not called for a malformed ECDSA signature.
        let (hash, converted) = match algorithm {
            Algorithm::Rs256 => ("sha256", None),
            Algorithm::Rs384 => ("sha384", None),
            Algorithm::Rs512 => ("sha512", None),
            Algorithm::Es256 => ("sha256", Some(algorithm.ecdsa_der(signature)?)),
            Algorithm::Es384 => ("sha384", Some(algorithm.ecdsa_der(signature)?)),
            // No other code refuses a malformed one.
            Algorithm::Es512 => match algorithm.ecdsa_der(signature) {
                None => return Some(false),
                der => ("sha512", der),
            },
            // The function supports no RSA padding but PKCS #1 1.5, and the other algorithms are fast enough here.
            _ => return None,
        };
        let signature = converted.as_deref().unwrap_or(signature);
        let mut arguments = Vec::with_capacity(message.len().saturating_add(1024));
        for (number, value) in [(1, hash.as_bytes()), (2, key), (3, signature), (4, message)] {
            protobuf_bytes_field(&mut arguments, number, value);
        }
        match hostcalls::call_foreign_function("verify_signature", &arguments) {
            Ok(result) => {
                decode_result(&result).inspect(|_| self.verified.set(self.verified.get().saturating_add(1)))
            }
            // The host does not accept this key.
            Err(HostError::BAD_ARGUMENT) => None,
            Err(_) => {
                self.is_absent.set(true);
                None
            }
        }
    }
}

/// Returns `None`, so that the signature is verified here, if the result is neither true nor an error.
fn decode_result(result: &[u8]) -> Option<bool> {
    match result {
        // Field 1, a varint: true.
        [0x08, 0x01] => Some(true),
        // Field 1 is false and therefore absent. Field 2 is a string, the error.
        [0x12, ..] => Some(false),
        _ => None,
    }
}

fn protobuf_bytes_field(message: &mut Vec<u8>, number: u8, value: &[u8]) {
    const LENGTH_DELIMITED: u8 = 2;
    message.push(number << 3 | LENGTH_DELIMITED);
    let mut length = value.len();
    while length >= 0x80 {
        // A varint has seven bits in each byte. The eighth is set if more bytes follow.
        message.push(u8::try_from(length & 0x7f).unwrap_or_default() | 0x80);
        length >>= 7;
    }
    message.push(u8::try_from(length).unwrap_or_default());
    message.extend_from_slice(value);
}
