//! One fuzz target per decoder: a short run of each in `cargo test`, a long one by `cargo bolero test`.

use bolero::check;
use token::{
    Algorithm, Fingerprint, Unverified, VerifyingKey,
    api_key::{self, Prefix, TagKey},
    json::Json,
    mint::SigningKey,
    secret,
};

fn key() -> SigningKey {
    SigningKey::ed25519("k1", &[2; 32]).unwrap()
}

#[test]
fn token() {
    check!().for_each(|bytes| {
        if let Ok(token) = Unverified::parse(bytes) {
            assert!(token.verify(key().verifying_key()).is_err(), "nobody signed it");
        }
    });
}

#[test]
fn header() {
    check!().for_each(|bytes| {
        let header = String::from_utf8_lossy(bytes);
        let _ = Unverified::parse(key().sign(&header, b"{}").expose().as_bytes());
    });
}

#[test]
fn claims() {
    check!().for_each(|bytes| {
        let token = key().sign(r#"{"alg":"EdDSA","kid":"k1"}"#, bytes);
        let Ok(token) = Unverified::parse(token.expose().as_bytes()) else { return };
        let _ = token.verify(key().verifying_key());
    });
}

#[test]
fn fingerprint() {
    check!().for_each(|bytes| {
        let Ok(text) = str::from_utf8(bytes) else { return };
        if let Ok(fingerprint) = text.parse::<Fingerprint>() {
            assert_eq!(fingerprint.to_string(), text, "one spelling");
        }
    });
}

#[test]
fn base64url() {
    check!().for_each(|bytes| {
        if let Some(decoded) = token::base64url::decode(bytes) {
            assert_eq!(token::base64url::encode(&decoded).as_bytes(), bytes, "one spelling");
        }
    });
}

#[test]
fn shown_once_secret() {
    check!().for_each(|bytes| {
        let Ok(text) = str::from_utf8(bytes) else { return };
        let _ = secret::check("secret-", &format!("secret-{text}"));
    });
}

#[test]
fn api_key() {
    let (prefixes, key) = ([Prefix::default()], TagKey::new(1, &[7; 32]).unwrap());
    check!().for_each(|bytes| {
        let text = [b"ks_live_", bytes].concat();
        if let Ok(presented) = api_key::Unverified::parse(&text, &prefixes) {
            assert_eq!(presented.verify(&key, ""), Err(api_key::Error::Tag), "nobody minted it");
        }
    });
}

#[test]
fn json() {
    check!().for_each(|bytes| {
        let ours = Json::parse(bytes);
        let theirs = serde_json::from_slice::<serde_json::Value>(bytes);
        assert!(ours.is_none() || theirs.is_ok(), "stricter, never laxer");
    });
}

#[test]
fn verifying_key() {
    check!().for_each(|bytes| {
        for algorithm in Algorithm::ALL {
            if let Ok(key) = VerifyingKey::of_issuer("i", "k", algorithm, bytes) {
                assert!(key.public_material().is_none_or(|material| material == bytes), "one spelling");
            }
        }
    });
}
