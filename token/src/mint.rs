//! Issuance of tokens, for the control plane and for tests.

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::fmt;

use ed25519_dalek::Signer;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::json;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::{Algorithm, Claims, InvalidKey, VerifyingKey, base64url, jwt::PREFIX_PARAMETER, secret::Secret};

/// A key that signs tokens.
pub struct SigningKey {
    material: Material,
    verifying: VerifyingKey,
}

enum Material {
    Ed25519(ed25519_dalek::SigningKey),
    Hmac(Zeroizing<Vec<u8>>),
}

impl SigningKey {
    /// Creates a key for EdDSA. `seed` is the secret of RFC 8032 section 5.1.5.
    ///
    /// # Errors
    ///
    /// Returns [`InvalidKey::InvalidKid`] like [`VerifyingKey::local`].
    pub fn ed25519(kid: &str, seed: &[u8; 32]) -> Result<Self, InvalidKey> {
        let key = ed25519_dalek::SigningKey::from_bytes(seed);
        let verifying = VerifyingKey::ed25519(kid, key.verifying_key().as_bytes())?;
        Ok(Self { material: Material::Ed25519(key), verifying })
    }

    /// Creates a key for HS256.
    ///
    /// # Errors
    ///
    /// Returns [`InvalidKey::Weak`] for a secret of less than 32 bytes, and [`InvalidKey::InvalidKid`] like
    /// [`VerifyingKey::local`].
    pub fn hs256(kid: &str, secret: &[u8]) -> Result<Self, InvalidKey> {
        let verifying = VerifyingKey::hs256(kid, secret)?;
        Ok(Self { material: Material::Hmac(Zeroizing::new(secret.into())), verifying })
    }

    /// Returns the `kid` in the header of its tokens.
    pub fn kid(&self) -> &str {
        self.verifying.kid()
    }

    /// Returns the algorithm: EdDSA or HS256.
    pub const fn algorithm(&self) -> Algorithm {
        self.verifying.algorithm()
    }

    /// Returns the key that verifies its tokens.
    pub const fn verifying_key(&self) -> &VerifyingKey {
        &self.verifying
    }

    /// Signs a token, which must be shown only once.
    pub fn mint(&self, claims: &Claims) -> Secret {
        let payload = serde_json::to_vec(claims).unwrap_or_default();
        self.sign(
            &format!(r#"{{"alg":"{}","kid":"{}","typ":"JWT"}}"#, self.algorithm().name(), self.kid()),
            &payload,
        )
    }

    /// Signs a token with a prefix, such as `kauth-`. The token is valid only with this prefix.
    pub fn mint_prefixed(&self, prefix: &str, claims: &Claims) -> Secret {
        let (algorithm, kid) = (self.algorithm().name(), self.kid());
        let header =
            json!({ "alg": algorithm, "kid": kid, "typ": "JWT", PREFIX_PARAMETER: prefix }).to_string();
        let payload = serde_json::to_vec(claims).unwrap_or_default();
        let token = self.sign(&header, &payload);
        Secret::from([prefix, token.expose()].concat())
    }

    /// Signs any header and payload. Tests use it for invalid tokens.
    pub fn sign(&self, header: &str, payload: &[u8]) -> Secret {
        let mut token: String = base64url::encode(header.as_bytes());
        token.push('.');
        token.push_str(&base64url::encode(payload));
        let signature: Vec<u8> = match &self.material {
            Material::Ed25519(key) => key.sign(token.as_bytes()).to_bytes().to_vec(),
            Material::Hmac(secret) => Hmac::<Sha256>::new_from_slice(secret)
                .map(|mac| mac.chain_update(token.as_bytes()).finalize().into_bytes().to_vec())
                .unwrap_or_default(),
        };
        token.push('.');
        token.push_str(&base64url::encode(&signature));
        Secret::from(token)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({} `{}`)", self.algorithm().name(), self.kid())
    }
}
