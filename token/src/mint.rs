//! Making tokens: the control plane's and the tests' alone.

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

use crate::{Algorithm, BadKey, Claims, VerifyingKey, base64url, jwt::PREFIX, secret::Secret};

/// A key that tokens are signed with.
pub struct SigningKey {
    material: Material,
    verifying: VerifyingKey,
}

enum Material {
    Ed25519(ed25519_dalek::SigningKey),
    Hmac(Zeroizing<Vec<u8>>),
}

impl SigningKey {
    /// Returns a key for EdDSA; `seed` is the secret of RFC 8032 section 5.1.5.
    ///
    /// # Errors
    ///
    /// Returns [`BadKey::Kid`] as [`VerifyingKey::own`] does.
    pub fn ed25519(kid: &str, seed: &[u8; 32]) -> Result<Self, BadKey> {
        let key = ed25519_dalek::SigningKey::from_bytes(seed);
        let verifying = VerifyingKey::ed25519(kid, key.verifying_key().as_bytes())?;
        Ok(Self { material: Material::Ed25519(key), verifying })
    }

    /// Returns a key for HS256.
    ///
    /// # Errors
    ///
    /// Returns [`BadKey::Weak`] for a secret below 32 bytes, and [`BadKey::Kid`] as [`VerifyingKey::own`] does.
    pub fn hs256(kid: &str, secret: &[u8]) -> Result<Self, BadKey> {
        let verifying = VerifyingKey::hs256(kid, secret)?;
        Ok(Self { material: Material::Hmac(Zeroizing::new(secret.into())), verifying })
    }

    /// Returns the `kid` that the headers of its tokens name.
    pub fn kid(&self) -> &str {
        self.verifying.kid()
    }

    /// Returns EdDSA or HS256.
    pub const fn algorithm(&self) -> Algorithm {
        self.verifying.algorithm()
    }

    /// Returns the key that opens what this one signs.
    pub const fn verifying_key(&self) -> &VerifyingKey {
        &self.verifying
    }

    /// The token, to be shown once.
    pub fn mint(&self, claims: &Claims) -> Secret {
        let payload = serde_json::to_vec(claims).unwrap_or_default();
        self.sign(
            &format!(r#"{{"alg":"{}","kid":"{}","typ":"JWT"}}"#, self.algorithm().name(), self.kid()),
            &payload,
        )
    }

    /// As [`Self::mint`], with a prefix in front, such as `kauth-`, that the token is good with and not without.
    pub fn mint_prefixed(&self, prefix: &str, claims: &Claims) -> Secret {
        let (algorithm, kid) = (self.algorithm().name(), self.kid());
        let header = json!({ "alg": algorithm, "kid": kid, "typ": "JWT", PREFIX: prefix }).to_string();
        let payload = serde_json::to_vec(claims).unwrap_or_default();
        let token = self.sign(&header, &payload);
        Secret::from([prefix, token.expose()].concat())
    }

    /// Signs any header and payload, a wrong one too: how the tests forge.
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
