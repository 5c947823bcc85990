use anyhow::{Result, anyhow, ensure};
use harness::fake_control_plane::{ISSUER, claims, now_ms};
use hmac::{KeyInit, Mac};
use p256::ecdsa::signature::{SignatureEncoding, Signer};
use rsa::traits::PublicKeyParts;
use serde_json::{Value, json};
use token::base64url::encode;
use token::{Algorithm, Claims, VerifyingKey};

/// A key that signs tokens, and its public part in the forms of an edge and of a peer.
pub(super) struct Issuer {
    pub(super) algorithm: &'static str,
    pub(super) verifying: VerifyingKey,
    /// RFC 7517.
    pub(super) jwk: Value,
    /// The secret, if the key is symmetric.
    pub(super) secret: Option<[u8; 32]>,
    sign: Sign,
}

type Sign = Box<dyn Fn(&[u8]) -> Vec<u8>>;

impl Issuer {
    /// Creates one issuer for each algorithm.
    pub(super) fn all_issuers() -> Result<[Self; 4]> {
        Ok([hs256()?, eddsa()?, es256()?, rs256()?])
    }

    fn new(verifying: VerifyingKey, mut jwk: Value, sign: impl Fn(&[u8]) -> Vec<u8> + 'static) -> Self {
        let algorithm = verifying.algorithm().name();
        jwk["kid"] = json!(algorithm);
        jwk["alg"] = json!(algorithm);
        Self { algorithm, verifying, jwk, secret: None, sign: Box::new(sign) }
    }

    /// Returns `authorization` headers with a number of distinct tokens.
    pub(super) fn headers(&self, count: usize) -> Result<Vec<String>> {
        let iss = self.verifying.issuer().unwrap_or(ISSUER);
        let header = json!({ "alg": self.algorithm, "kid": self.algorithm, "typ": "JWT" });
        let header = encode(header.to_string().as_bytes());
        let one = |_| {
            let signed = format!(
                "{header}.{}",
                encode(&serde_json::to_vec(&Claims { iss: iss.into(), ..claims(now_ms()) })?)
            );
            let signature = encode(&(self.sign)(signed.as_bytes()));
            Ok(format!("authorization: Bearer {signed}.{signature}"))
        };
        (0..count).map(one).collect()
    }
}

fn hs256() -> Result<Issuer> {
    let secret = [3; 32];
    let jwk = json!({ "kty": "oct", "k": encode(&secret) });
    let mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(&secret)?;
    let sign = move |text: &[u8]| mac.clone().chain_update(text).finalize().into_bytes().to_vec();
    let issuer = Issuer::new(own_issuer(Algorithm::Hs256, &secret)?, jwk, sign);
    Ok(Issuer { secret: Some(secret), ..issuer })
}

fn eddsa() -> Result<Issuer> {
    let key = ed25519_dalek::SigningKey::from_bytes(&[2; 32]);
    let public = key.verifying_key().to_bytes();
    let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(&public) });
    Ok(Issuer::new(own_issuer(Algorithm::EdDsa, &public)?, jwk, move |text| key.sign(text).to_vec()))
}

fn es256() -> Result<Issuer> {
    let key = p256::ecdsa::SigningKey::from_slice(&[4; 32])?;
    let point = key.verifying_key().to_sec1_point(false);
    let coordinates = &point.as_bytes()[1..];
    let (x, y) = coordinates.split_at(32);
    let jwk = json!({ "kty": "EC", "crv": "P-256", "x": encode(x), "y": encode(y) });
    let verifying = foreign_issuer(Algorithm::Es256, coordinates)?;
    let sign = move |text: &[u8]| Signer::<p256::ecdsa::Signature>::sign(&key, text).to_vec();
    Ok(Issuer::new(verifying, jwk, sign))
}

fn rs256() -> Result<Issuer> {
    let key = rsa::PrivateKey::new(&mut rand::rng(), 2048)?;
    let (n, e) = (key.n_bytes(), key.e_bytes());
    ensure!(e.len() <= 4, "an exponent of {} bytes", e.len());
    let jwk = json!({ "kty": "RSA", "n": encode(&n), "e": encode(&e) });
    let exponent = [&[0; 4][e.len()..], &e].concat();
    let verifying = foreign_issuer(Algorithm::Rs256, &[&exponent[..], &n].concat())?;
    let key = rsa::pkcs1v15::SigningKey::<sha2::Sha256>::new(key);
    Ok(Issuer::new(verifying, jwk, move |text| key.sign(text).to_vec()))
}

fn own_issuer(algorithm: Algorithm, key: &[u8]) -> Result<VerifyingKey> {
    VerifyingKey::local(algorithm.name(), algorithm, key).map_err(|error| anyhow!("{error}"))
}

fn foreign_issuer(algorithm: Algorithm, key: &[u8]) -> Result<VerifyingKey> {
    VerifyingKey::foreign(OTHER_ISSUER, algorithm.name(), algorithm, key).map_err(|error| anyhow!("{error}"))
}

/// The issuer of the tokens with ES256 and RS256. Keystile's own tokens use EdDSA or HS256.
pub(super) const OTHER_ISSUER: &str = "https://idp.test";
