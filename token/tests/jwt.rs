//! A token has one accepted encoding, and only its own key verifies it.

use proptest::prelude::*;
use token::{
    Authentic, Claims, Error, Fingerprint, MAX_TOKEN_BYTES, Operator, Unverified, VerifyingKey,
    mint::SigningKey,
};

/// RFC 8032 section 7.1, test 1, as in RFC 8037 appendix A.
const SEED: [u8; 32] = [
    0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c, 0xc4, 0x44,
    0x49, 0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae, 0x7f, 0x60,
];

fn eddsa() -> SigningKey {
    SigningKey::ed25519("k1", &SEED).unwrap()
}

fn hs256() -> SigningKey {
    SigningKey::hs256("k1", &[7; 32]).unwrap()
}

fn claims() -> Claims {
    Claims {
        iss: "https://keystile.local".into(),
        sub: "OP0123456789/alice".into(),
        aud: vec!["api".into()],
        iat: 1_700_000_000,
        exp: Some(1_700_003_600),
        nbf: None,
        jti: "j".into(),
        operator: Operator { operator_id: "OP0123456789".into() },
        akid: Some("keyId-1".into()),
        sid: None,
    }
}

fn parse_and_verify(token: &[u8], key: &VerifyingKey) -> Result<Authentic, Error> {
    Unverified::parse(token)?.verify(key)
}

#[test]
fn minted_tokens_verify_with_their_key() {
    for key in [eddsa(), hs256()] {
        let token = key.mint(&claims());
        let opened = parse_and_verify(token.expose().as_bytes(), key.verifying_key()).unwrap();
        assert_eq!(opened.claims(), Some(&claims()));
        assert_eq!(opened.fingerprints().collect::<Vec<_>>(), [opened.fingerprint()]);
        assert_eq!(opened.fingerprint(), Fingerprint::digest(token.expose().as_bytes()));
    }
}

#[test]
fn signature_matches_rfc_8037() {
    // RFC 8037 appendix A.4: the JWS of "Example of Ed25519 signing" under this key.
    let header = r#"{"alg":"EdDSA"}"#;
    assert_eq!(
        eddsa().sign(header, b"Example of Ed25519 signing").expose(),
        "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
    );
}

#[test]
fn non_canonical_encodings_are_refused() {
    let key = eddsa();
    let token = key.mint(&claims()).expose().to_owned();
    let [header, payload, signature] = token.split('.').collect::<Vec<_>>()[..] else {
        panic!("three segments")
    };
    // A signature of 64 bytes ends with a character whose low four bits must be zero.
    let (start, last) = signature.split_at(signature.len() - 1);
    let stray = char::from(match last.as_bytes()[0] {
        b'A' => b'B',
        b'Q' => b'R',
        b'g' => b'h',
        _ => b'x',
    });
    for (spelling, why) in [
        (format!("{header}.{payload}.{signature}="), Error::NotCanonical),
        (format!("{header}.{payload}.{signature}=="), Error::NotCanonical),
        (format!("{header}.{payload}.{start}{stray}"), Error::NotCanonical),
        (format!("{header}=.{payload}.{signature}"), Error::NotCanonical),
        (format!("{header}.{payload}\n.{signature}"), Error::NotCanonical),
        (format!(" {token}"), Error::NotCanonical),
        (format!("{token} "), Error::NotCanonical),
        (format!("{token}\0"), Error::NotCanonical),
        (format!("{token}."), Error::Malformed),
        (format!(".{token}"), Error::Malformed),
        (format!("{header}.{payload}"), Error::Malformed),
        (format!("{header}..{payload}.{signature}"), Error::Malformed),
        (format!("{header}.{payload}."), Error::SignatureInvalid),
        (format!("{header}.{payload}.{signature}AAAA"), Error::SignatureInvalid),
        (String::new(), Error::Malformed),
        ("a".repeat(MAX_TOKEN_BYTES + 1), Error::TooLong),
    ] {
        assert_eq!(parse_and_verify(spelling.as_bytes(), key.verifying_key()), Err(why), "{spelling:?}");
    }
    // The standard alphabet encodes the same bits with `+` and `/`.
    let forged = key.sign(r#"{"alg":"EdDSA","kid":"k1"}"#, b"\xfb\xff\xfe{}").expose().to_owned();
    assert!(forged.contains('-') && forged.contains('_'), "{forged}");
    let standard = forged.replace('-', "+").replace('_', "/");
    assert_eq!(Unverified::parse(standard.as_bytes()).unwrap_err(), Error::NotCanonical);
}

#[test]
fn tokens_have_at_most_the_maximum_length() {
    for (length, expected) in [(MAX_TOKEN_BYTES, Error::Malformed), (MAX_TOKEN_BYTES + 1, Error::TooLong)] {
        assert_eq!(Unverified::parse(&vec![b'a'; length]).unwrap_err(), expected, "{length}");
    }
    for (length, expected) in [(2000, Error::Malformed), (2001, Error::TooLong)] {
        let refused = Unverified::parse_prefixed(&vec![b'a'; length], &[], 2000).unwrap_err();
        assert_eq!(refused, expected, "{length}");
    }
}

#[test]
fn ed25519_s_must_be_below_the_order() {
    // Lenient verifiers treat S + L as S (RFC 8032 section 5.1.7).
    const L: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let engine = &base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let token = eddsa().mint(&claims()).expose().to_owned();
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let mut signature = base64::Engine::decode(engine, signature).unwrap();
    let mut carry = 0;
    for (byte, l) in signature[32..].iter_mut().zip(L) {
        let sum = u16::from(*byte) + u16::from(l) + carry;
        *byte = sum.to_le_bytes()[0];
        carry = sum >> 8;
    }
    assert_eq!(carry, 0);
    let twin = format!("{signed}.{}", base64::Engine::encode(engine, &signature));
    assert_eq!(parse_and_verify(twin.as_bytes(), eddsa().verifying_key()), Err(Error::SignatureInvalid));
}

#[test]
fn the_algorithm_belongs_to_the_key() {
    let public = *eddsa().verifying_key().public_bytes().unwrap();
    // Algorithm confusion: the public key as an HMAC secret.
    let confused = SigningKey::hs256("k1", &public).unwrap().mint(&claims());
    assert_eq!(
        parse_and_verify(confused.expose().as_bytes(), eddsa().verifying_key()),
        Err(Error::AlgorithmMismatch)
    );
    let payload = serde_json::to_vec(&claims()).unwrap();
    for alg in ["none", "None", "", "HS256", "eddsa", "EdDSA "] {
        let token = eddsa().sign(&format!(r#"{{"alg":"{alg}","kid":"k1"}}"#), &payload);
        assert_eq!(
            parse_and_verify(token.expose().as_bytes(), eddsa().verifying_key()),
            Err(Error::AlgorithmMismatch),
            "{alg}"
        );
        assert!(
            alg == "HS256"
                || parse_and_verify(token.expose().as_bytes(), hs256().verifying_key())
                    == Err(Error::AlgorithmMismatch)
        );
    }
}

#[test]
fn embedded_keys_are_refused() {
    let payload = serde_json::to_vec(&claims()).unwrap();
    for header in [
        r#"{"alg":"EdDSA","kid":"k1","jwk":{"kty":"OKP"}}"#,
        r#"{"alg":"EdDSA","kid":"k1","jku":"https://evil.example/"}"#,
        r#"{"alg":"EdDSA","kid":"k1","x5u":"https://evil.example/"}"#,
        r#"{"alg":"EdDSA","kid":"k1","crit":["exp"]}"#,
        r#"{"alg":"EdDSA","kid":"k1","b64":false}"#,
        r#"{"alg":"EdDSA","kid":"k1","kid":"k1"}"#,
        r#"{"alg":"none","alg":"EdDSA","kid":"k1"}"#,
        r#"{"alg":"EdDSA","kid":""}"#,
        r#"{"alg":"EdDSA","kid":null}"#,
        r#"{"alg":["EdDSA"],"kid":"k1"}"#,
        r#"{"alg":"EdDSA","kid":"k1","typ":"dpop+jwt"}"#,
        r#"{"alg":"EdDSA","kid":"k1"} "x""#,
        "[]",
        "",
    ] {
        let token = eddsa().sign(header, &payload);
        let refused = parse_and_verify(token.expose().as_bytes(), eddsa().verifying_key());
        assert_eq!(refused, Err(Error::Malformed), "{header}");
    }
}

#[test]
fn other_keys_do_not_verify() {
    let token = eddsa().mint(&claims());
    let other_key = SigningKey::ed25519("k1", &[1; 32]).unwrap();
    assert_eq!(
        parse_and_verify(token.expose().as_bytes(), other_key.verifying_key()),
        Err(Error::SignatureInvalid)
    );
    let renamed = SigningKey::ed25519("k2", &SEED).unwrap();
    assert_eq!(
        parse_and_verify(token.expose().as_bytes(), renamed.verifying_key()),
        Err(Error::SignatureInvalid)
    );
}

#[test]
fn weak_keys_are_refused() {
    let identity = {
        let mut point = [0; 32];
        point[0] = 1;
        point
    };
    for (bad, what) in [
        (VerifyingKey::ed25519("k", &identity).err(), "small order"),
        (VerifyingKey::ed25519("k", &[0; 32]).err(), "small order"),
        (VerifyingKey::hs256("k", &[1; 31]).err(), "short secret"),
        (VerifyingKey::hs256("", &[1; 32]).err(), "empty kid"),
        (VerifyingKey::hs256("a b", &[1; 32]).err(), "space in kid"),
        (VerifyingKey::hs256(&"k".repeat(65), &[1; 32]).err(), "long kid"),
    ] {
        assert!(bad.is_some(), "{what}");
    }
}

proptest! {
    #[test]
    fn changed_bytes_are_refused(at in any::<prop::sample::Index>(), byte: u8, hmac: bool) {
        let key = if hmac { hs256() } else { eddsa() };
        let mut token = key.mint(&claims()).expose().as_bytes().to_vec();
        let at = at.index(token.len());
        prop_assume!(token[at] != byte);
        token[at] = byte;
        prop_assert!(parse_and_verify(&token, key.verifying_key()).is_err());
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse_and_verify(&bytes, eddsa().verifying_key());
    }

    #[test]
    fn nearly_valid_tokens_do_not_panic(text in r#"[-A-Za-z0-9_=.]{0,200}"#, header in "\\PC{0,80}", payload in "\\PC{0,200}") {
        let _ = parse_and_verify(text.as_bytes(), eddsa().verifying_key());
        let _ = parse_and_verify(eddsa().sign(&header, payload.as_bytes()).expose().as_bytes(), eddsa().verifying_key());
        let _ = parse_and_verify(eddsa().sign(r#"{"alg":"EdDSA","kid":"k1"}"#, payload.as_bytes()).expose().as_bytes(), eddsa().verifying_key());
    }
}

#[test]
fn the_longest_matching_prefix_applies() {
    let key = SigningKey::ed25519("k", &[1; 32]).unwrap();
    let mut prefixes = ["", "k-", "k-auth-"].map(String::from);
    for _ in 0..2 {
        for prefix in ["k-", "k-auth-"] {
            let token = key.mint_prefixed(prefix, &claims());
            let parsed =
                Unverified::parse_prefixed(token.expose().as_bytes(), &prefixes, MAX_TOKEN_BYTES).unwrap();
            assert!(parsed.verify(key.verifying_key()).is_ok(), "{prefix}");
        }
        let bare = key.mint(&claims());
        assert!(Unverified::parse_prefixed(bare.expose().as_bytes(), &prefixes, MAX_TOKEN_BYTES).is_ok());
        prefixes.reverse();
    }
}

/// To another issuer, `prefix` is an unknown parameter. It gives the token no second spelling.
#[test]
fn tokens_of_other_issuers_have_no_prefix() {
    let key = VerifyingKey::foreign("i", "k1", token::Algorithm::Hs256, &[7; 32]).unwrap();
    let prefixes = ["kauth-".to_owned()];
    for parameter in [r#""kauth-""#, r#""other""#, "7", "null"] {
        let header = format!(r#"{{"alg":"HS256","kid":"k1","prefix":{parameter}}}"#);
        let token = hs256().sign(&header, br#"{"iss":"i"}"#).expose().to_owned();
        let verify = |text: &str| {
            Unverified::parse_prefixed(text.as_bytes(), &prefixes, MAX_TOKEN_BYTES)?.verify(&key)
        };
        assert!(verify(&token).is_ok(), "{header}");
        assert_eq!(verify(&format!("kauth-{token}")), Err(Error::NotCanonical), "{header}");
    }
}

#[test]
fn tokens_are_valid_with_their_own_prefix_only() {
    let prefixes = ["kapikey-".to_owned(), "kauth-".to_owned()];
    let key = eddsa();
    let parse_and_verify = |text: &str| {
        let token = Unverified::parse_prefixed(text.as_bytes(), &prefixes, MAX_TOKEN_BYTES)?;
        token.verify(key.verifying_key())
    };
    let bare = key.mint(&claims()).expose().to_owned();
    let prefixed = key.mint_prefixed("kauth-", &claims()).expose().to_owned();
    let token = prefixed.strip_prefix("kauth-").unwrap();
    let opened = parse_and_verify(&prefixed).unwrap();
    assert_eq!(opened.fingerprint(), Fingerprint::digest(prefixed.as_bytes()), "of the whole");
    assert_eq!(opened.claims(), Some(&claims()));
    assert!(parse_and_verify(&bare).is_ok());
    // A revoked token must not be accepted under another fingerprint.
    for other in [
        token.to_owned(),
        format!("kapikey-{token}"),
        format!("kauth-kauth-{token}"),
        format!("kauth-{bare}"),
        format!("KAUTH-{token}"),
        key.mint_prefixed("other-", &claims()).expose().to_owned(),
    ] {
        assert_eq!(parse_and_verify(&other), Err(Error::NotCanonical), "{other}");
    }
    assert_eq!(Unverified::parse(prefixed.as_bytes()).unwrap_err(), Error::NotCanonical);
}
