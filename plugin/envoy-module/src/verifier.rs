//! Signatures that native code verifies: RSA and ECDSA by `ring`, which takes a fifth to a sixteenth of the time of the
//! crates that the filter uses in WebAssembly, and P-521 by the crate `p521`, because `ring` does not have that curve.
//!
//! Everything else about a token is verified by `token`: its algorithm, its spelling, the length of the signature, and
//! its claims.

use std::cell::Cell;

use p521::{
    ecdsa::signature::Verifier as _,
    pkcs8::{DecodePublicKey as _, spki::SubjectPublicKeyInfoRef},
};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512,
    UnparsedPublicKey, VerificationAlgorithm,
};
use verdict::{Algorithm, SignatureVerifier};

/// Verifies signatures with native code, and counts them.
#[derive(Debug, Default)]
pub struct NativeVerifier(Cell<u64>);

impl NativeVerifier {
    /// Returns how many signatures it has verified.
    pub fn count(&self) -> u64 {
        self.0.get()
    }
}

impl SignatureVerifier for NativeVerifier {
    fn verify(&self, algorithm: Algorithm, key: &[u8], message: &[u8], signature: &[u8]) -> Option<bool> {
        let ring_algorithm: &dyn VerificationAlgorithm = match algorithm {
            Algorithm::Es256 => &ECDSA_P256_SHA256_FIXED,
            Algorithm::Es384 => &ECDSA_P384_SHA384_FIXED,
            Algorithm::Es512 => {
                self.0.set(self.0.get().saturating_add(1));
                return Some(is_valid_p521(key, message, signature));
            }
            Algorithm::Rs256 => &RSA_PKCS1_2048_8192_SHA256,
            Algorithm::Rs384 => &RSA_PKCS1_2048_8192_SHA384,
            Algorithm::Rs512 => &RSA_PKCS1_2048_8192_SHA512,
            Algorithm::Ps256 => &RSA_PSS_2048_8192_SHA256,
            Algorithm::Ps384 => &RSA_PSS_2048_8192_SHA384,
            Algorithm::Ps512 => &RSA_PSS_2048_8192_SHA512,
            // Ed25519 and HMAC are fast enough in Rust.
            _ => return None,
        };
        self.0.set(self.0.get().saturating_add(1));
        // `ring` takes what the bit string contains: a point, or the modulus and the exponent.
        let info = SubjectPublicKeyInfoRef::try_from(key).ok()?;
        let public = UnparsedPublicKey::new(ring_algorithm, info.subject_public_key.as_bytes()?);
        Some(public.verify(message, signature).is_ok())
    }
}

fn is_valid_p521(key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let Ok(signature) = p521::ecdsa::Signature::from_slice(signature) else { return false };
    let Ok(key) = p521::PublicKey::from_public_key_der(key) else { return false };
    p521::ecdsa::VerifyingKey::from(&key).verify(message, &signature).is_ok()
}
