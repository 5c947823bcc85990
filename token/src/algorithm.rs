use alloc::vec::Vec;

#[cfg(doc)]
use crate::SignatureVerifier;
use crate::ecdsa;

/// A signature algorithm, as RFC 7518 section 3.1 and RFC 8037 name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// Ed25519 (RFC 8037 section 3.1).
    EdDsa,
    /// HMAC with SHA-256 (RFC 7518 section 3.2).
    Hs256,
    /// HMAC with SHA-384 (RFC 7518 section 3.2).
    Hs384,
    /// HMAC with SHA-512 (RFC 7518 section 3.2).
    Hs512,
    /// ECDSA with P-256 and SHA-256 (RFC 7518 section 3.4).
    Es256,
    /// ECDSA with P-384 and SHA-384 (RFC 7518 section 3.4).
    Es384,
    /// ECDSA with P-521 and SHA-512 (RFC 7518 section 3.4). Only a host verifies it: see [`SignatureVerifier`].
    Es512,
    /// RSASSA-PKCS1-v1_5 with SHA-256 (RFC 7518 section 3.3).
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384 (RFC 7518 section 3.3).
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512 (RFC 7518 section 3.3).
    Rs512,
    /// RSASSA-PSS with SHA-256 and a salt of 32 bytes (RFC 7518 section 3.5).
    Ps256,
    /// RSASSA-PSS with SHA-384 and a salt of 48 bytes (RFC 7518 section 3.5).
    Ps384,
    /// RSASSA-PSS with SHA-512 and a salt of 64 bytes (RFC 7518 section 3.5).
    Ps512,
}

impl Algorithm {
    /// All algorithms.
    pub const ALL: [Self; 13] = [
        Self::EdDsa,
        Self::Hs256,
        Self::Hs384,
        Self::Hs512,
        Self::Es256,
        Self::Es384,
        Self::Es512,
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
    ];

    /// Returns the value of the header parameter `alg` (RFC 7515 section 4.1.1).
    pub const fn name(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Hs256 => "HS256",
            Self::Hs384 => "HS384",
            Self::Hs512 => "HS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Es512 => "ES512",
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
        }
    }

    /// Returns the algorithm with this name. Names are case-sensitive, and `none` is not an algorithm.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    /// Returns whether the verification key can also sign, and is therefore a secret.
    pub const fn is_symmetric(self) -> bool {
        matches!(self, Self::Hs256 | Self::Hs384 | Self::Hs512)
    }

    /// Converts an ECDSA signature from r and s (RFC 7518 section 3.4) to the DER form `SEQUENCE { INTEGER, INTEGER }`
    /// (RFC 3279 section 2.2.3). Returns `None` for other algorithms, and if r or s does not have the length of the
    /// order, is zero, or is not below the order.
    pub fn ecdsa_der(self, signature: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Es256 => ecdsa::p256_der(signature),
            Self::Es384 => ecdsa::p384_der(signature),
            Self::Es512 => ecdsa::p521_der(signature),
            _ => None,
        }
    }

    /// Returns the other valid signature (r, n - s) of the same message, which exists for ECDSA only.
    pub(crate) fn malleated_signature(self, signature: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Es256 => ecdsa::p256_malleated(signature),
            Self::Es384 => ecdsa::p384_malleated(signature),
            Self::Es512 => ecdsa::p521_malleated(signature),
            _ => None,
        }
    }
}
