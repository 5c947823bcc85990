use crate::Algorithm;

/// Who verifies signatures of RSA and ECDSA: a host that has native code for it, or nobody, and then it is done here.
///
/// Only these, because they are slow where this runs: P-256 takes 12 million instructions of WebAssembly, RSA of 2048
/// bits 7 million (tests/tests/promises/costs.txt), and native code a tenth of the time. Whatever a host answers, the algorithm is that of the key, and the length of a signature is right.
pub trait SignatureVerifier {
    /// Whether the signature holds; None if the host cannot tell.
    ///
    /// * `key` is the `SubjectPublicKeyInfo` in DER;
    /// * `signature` is as JOSE has it (RFC 7518 section 3.4): of ECDSA r and s, each as long as the order;
    ///   [`Algorithm::ecdsa_der`] makes DER of it.
    fn verify(&self, algorithm: Algorithm, key: &[u8], message: &[u8], signature: &[u8]) -> Option<bool>;
}

/// No host helps.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unaided;

impl SignatureVerifier for Unaided {
    fn verify(&self, _: Algorithm, _: &[u8], _: &[u8], _: &[u8]) -> Option<bool> {
        None
    }
}
