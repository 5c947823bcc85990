//! Assertions: short-lived tokens with which an edge proves to an upstream that a request passed through it (HS256, RFC
//! 7515).

use alloc::string::String;
use core::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::{InvalidKey, base64url};

/// The encoded header `{"alg":"HS256","typ":"JWT"}`.
const HEADER: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.";

/// The key that signs assertions: a secret that the edge shares with the upstream.
#[derive(Clone)]
pub struct AssertionSigner(Hmac<Sha256>);

impl AssertionSigner {
    /// Creates a key. RFC 7518 section 3.2 requires at least 256 bits.
    ///
    /// # Errors
    ///
    /// Returns [`InvalidKey::Weak`] for a secret of less than 32 bytes.
    pub fn new(secret: &[u8]) -> Result<Self, InvalidKey> {
        if secret.len() < 32 {
            return Err(InvalidKey::Weak);
        }
        Hmac::new_from_slice(secret).map(Self).map_err(|_| InvalidKey::Weak)
    }

    /// Signs claims, which must be a JSON object.
    pub fn sign(&self, claims: &str) -> String {
        let mut token = String::from(HEADER);
        token.push_str(&base64url::encode(claims.as_bytes()));
        let tag = self.0.clone().chain_update(&token).finalize().into_bytes();
        token.push('.');
        token.push_str(&base64url::encode(&tag));
        token
    }
}

impl fmt::Debug for AssertionSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AssertionSigner(..)")
    }
}
