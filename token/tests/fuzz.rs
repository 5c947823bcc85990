//! One fuzz target per decoder: a short run of each in `cargo test`, a long one by `cargo bolero test`.

use bolero::check;
use token::{Fingerprint, Unverified, mint::SigningKey, secret};

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
