use crate::Algorithm;

/// Verifies RSA and ECDSA signatures with native code of the host, if it has any.
///
/// Only these algorithms are offloaded, because they are slow in WebAssembly: P-256 takes 12 million instructions and
/// RSA with 2048 bits 7 million (tests/tests/promises/costs.txt), and native code takes a tenth of the time. P-521 is
/// verified in no other way. The algorithm is always that of the key, and the length of the signature has been checked before the host is called.
pub trait SignatureVerifier {
    /// Returns whether the signature is valid, or `None` if the host cannot verify it.
    ///
    /// * `key` is the `SubjectPublicKeyInfo` in DER;
    /// * `signature` is in the format of JOSE (RFC 7518 section 3.4): r and s for ECDSA, each as long as the order.
    ///   [`Algorithm::ecdsa_der`] converts it to DER. If it is malformed, the result for P-521 is `Some(false)`.
    fn verify(&self, algorithm: Algorithm, key: &[u8], message: &[u8], signature: &[u8]) -> Option<bool>;
}

/// A verifier without help of a host: all signatures are verified in software.
#[derive(Debug, Clone, Copy, Default)]
pub struct SoftwareVerifier;

impl SignatureVerifier for SoftwareVerifier {
    fn verify(&self, _: Algorithm, _: &[u8], _: &[u8], _: &[u8]) -> Option<bool> {
        None
    }
}
