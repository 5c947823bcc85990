//! Short tokens of an edge's own, by which an upstream can tell that a request came through it (HS256, RFC 7515).

use alloc::string::String;
use core::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::{BadKey, base64url};

/// What assertions are signed with: a secret that edge and upstream share.
#[derive(Clone)]
pub struct Signer(Hmac<Sha256>);

impl Signer {
    /// RFC 7518 section 3.2: at least 256 bits.
    ///
    /// # Errors
    ///
    /// Returns [`BadKey::Weak`] for a shorter secret.
    pub fn new(secret: &[u8]) -> Result<Self, BadKey> {
        if secret.len() < 32 {
            return Err(BadKey::Weak);
        }
        Hmac::new_from_slice(secret).map(Self).map_err(|_| BadKey::Weak)
    }

    /// `claims` are a JSON object.
    pub fn sign(&self, claims: &str) -> String {
        let mut token = String::from(HEADER);
        token.push_str(&base64url::encode(claims.as_bytes()));
        let tag = self.0.clone().chain_update(&token).finalize().into_bytes();
        token.push('.');
        token.push_str(&base64url::encode(&tag));
        token
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer(..)")
    }
}

/// `{"alg":"HS256","typ":"JWT"}`
const HEADER: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.";
