//! One fuzz target per decoder. `cargo test` runs each briefly, and `cargo bolero test` runs one for long.

use bolero::check;
use token::{
    Algorithm, Fingerprint, Unverified, VerifyingKey,
    api_key::{self, ApiKeyFields, Kind, MintingKey, Prefix},
    json,
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
            assert!(token.verify(key().verifying_key()).is_err(), "it has no valid signature");
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
fn secret() {
    check!().for_each(|bytes| {
        let Ok(text) = str::from_utf8(bytes) else { return };
        let _ = secret::check_format("secret-", &format!("secret-{text}"));
    });
}

#[test]
fn api_key() {
    let prefixes = [Prefix::default()];
    let keys = Kind::ALL.map(|kind| MintingKey::new(1, kind, &[7; 32]).unwrap());
    let minted = keys.each_ref().map(|key| {
        let contents = ApiKeyFields {
            prefix: &prefixes[0],
            operator: "OP0123456789",
            number: 1,
            issued_at: 2,
            expires_at: Some(3),
            random: [4; 4],
            username: "alice",
        };
        key.mint(&contents).unwrap().expose().to_owned()
    });
    check!().with_type::<(Vec<u8>, Vec<(u8, u8)>, String)>().for_each(|(bytes, edits, username)| {
        let edited = minted.iter().map(|minted| {
            let mut text = minted.clone().into_bytes();
            for (at, byte) in edits {
                let at = usize::from(*at) % text.len();
                text[at] = *byte;
            }
            text
        });
        for text in edited.chain([[b"ks_live_", &bytes[..]].concat()]) {
            let Ok(presented) = api_key::Unverified::parse(&text, &prefixes) else { continue };
            for key in &keys {
                for username in [username, "alice", ""] {
                    let opened = presented.verify(key.generation_key(), username);
                    let honest = minted.iter().any(|minted| minted.as_bytes() == text) && username == "alice";
                    assert!(opened.is_err() || honest, "it was not minted here: {opened:?}");
                }
            }
        }
    });
}

#[test]
fn json_text() {
    check!().for_each(|bytes| {
        let ours = json::parse(bytes);
        let theirs = serde_json::from_slice::<serde_json::Value>(bytes);
        assert!(ours.is_err() || theirs.is_ok(), "stricter, never laxer");
    });
}

#[test]
fn verifying_key() {
    check!().for_each(|bytes| {
        for algorithm in Algorithm::ALL {
            if let Ok(key) = VerifyingKey::foreign("i", "k", algorithm, bytes) {
                assert!(key.public_material().is_none_or(|material| material == bytes), "one spelling");
            }
        }
    });
}
