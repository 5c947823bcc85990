//! Known attacks on JWT verifiers: each is refused with the expected error.

use p256::ecdsa::signature::Signer;
use token::{
    Algorithm, Authentic, Error, Fingerprint, MAX_TOKEN_BYTES, SignatureVerifier, Unverified, VerifyingKey,
    api_key::Kind, base64url, mint::SigningKey,
};

const ISSUER: &str = "https://issuer.example";
const CLAIMS: &str = r#"{"iss":"https://issuer.example","sub":"alice","exp":1700003600}"#;

const HEADER: &str = r#"{"alg":"ES256","kid":"k"}"#;

/// The orders n of P-256, P-384 and P-521.
const ORDERS: [&str; 3] = [
    "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551",
    "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973",
    "01fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffa51868783bf2f966b7fcc0148f709a5d03bb5c9b8899c47aebb6fb71e91386409",
];

const KEY_INFO_SHA256: &str = "ce97ec20d43661a19b215cb2e376a698d0b4aa2aa5b4c7854e916bd05082fcee";

/// Headers that other issuers may use: references to keys, and parameters that are unknown here.
const TOLERATED_HEADERS: [&str; 12] = [
    HEADER,
    r#"{"alg":"ES256","kid":"k","typ":"JWT"}"#,
    r#"{"alg":"ES256","kid":"k","typ":"application/at+jwt"}"#,
    r#"{"alg":"ES256","kid":"k","x5t":"c29tZXRoaW5n"}"#,
    r#"{"alg":"ES256","kid":"k","x5t":7,"x5t#S256":null}"#,
    r#"{"alg":"ES256","kid":"k","jku":"https://evil.example/jwks.json"}"#,
    r#"{"alg":"ES256","kid":"k","jku":["http://169.254.169.254/"]}"#,
    r#"{"alg":"ES256","kid":"k","x5u":"https://evil.example/chain.pem"}"#,
    r#"{"alg":"ES256","kid":"k","x5c":["MIIB"]}"#,
    r#"{"alg":"ES256","kid":"k","cty":"JWT","iss":"https://other.example"}"#,
    r#"{"alg":"ES256","kid":"k","org.example.unknown":{"deep":[1,{"a":null}]}}"#,
    r#"{"alg":"ES256","kid":"k","prefix":"kauth-"}"#,
];

/// The keys of another issuer. Tokens of other issuers have fewer restrictions, so they expose more attacks.
struct Issuer {
    p256: p256::ecdsa::SigningKey,
    p384: p384::ecdsa::SigningKey,
    p521: p521::ecdsa::SigningKey,
}

impl Issuer {
    fn new() -> Self {
        Self {
            p256: p256::ecdsa::SigningKey::from_slice(&[7; 32]).unwrap(),
            p384: p384::ecdsa::SigningKey::from_slice(&[7; 48]).unwrap(),
            p521: p521::ecdsa::SigningKey::from_slice(&[&[0, 7][..], &[7; 64]].concat()).unwrap(),
        }
    }

    fn es256(&self) -> VerifyingKey {
        let point = self.p256.verifying_key().to_sec1_point(false);
        VerifyingKey::foreign(ISSUER, "k", Algorithm::Es256, &point.as_bytes()[1..]).unwrap()
    }

    fn es384(&self) -> VerifyingKey {
        let point = self.p384.verifying_key().to_sec1_point(false);
        VerifyingKey::foreign(ISSUER, "k", Algorithm::Es384, &point.as_bytes()[1..]).unwrap()
    }

    fn es512(&self) -> VerifyingKey {
        let point = self.p521.verifying_key().to_sec1_point(false);
        VerifyingKey::foreign(ISSUER, "k", Algorithm::Es512, &point.as_bytes()[1..]).unwrap()
    }

    fn sign_es512(&self, header: &str, payload: &[u8]) -> String {
        let signed = signing_input(header, payload);
        let signature: p521::ecdsa::Signature = self.p521.sign(signed.as_bytes());
        append_signature(&signed, &signature.to_bytes())
    }

    /// Returns a token with a valid signature and any contents.
    fn sign(&self, header: &str, payload: &[u8]) -> String {
        let signed = signing_input(header, payload);
        let signature: p256::ecdsa::Signature = self.p256.sign(signed.as_bytes());
        append_signature(&signed, &signature.to_bytes())
    }

    fn sign_es384(&self, header: &str, payload: &[u8]) -> String {
        let signed = signing_input(header, payload);
        let signature: p384::ecdsa::Signature = self.p384.sign(signed.as_bytes());
        append_signature(&signed, &signature.to_bytes())
    }
}

fn signing_input(header: &str, payload: &[u8]) -> String {
    format!("{}.{}", base64url::encode(header.as_bytes()), base64url::encode(payload))
}

fn append_signature(signed: &str, signature: &[u8]) -> String {
    format!("{signed}.{}", base64url::encode(signature))
}

fn parse_and_verify(token: &str, key: &VerifyingKey) -> Result<Authentic, Error> {
    Unverified::parse(token.as_bytes())?.verify(key)
}

/// A host that verifies signatures on P-521.
struct P521Host;

impl SignatureVerifier for P521Host {
    fn verify(&self, algorithm: Algorithm, key: &[u8], message: &[u8], signature: &[u8]) -> Option<bool> {
        use p521::{ecdsa::signature::Verifier as _, pkcs8::DecodePublicKey as _};
        if algorithm != Algorithm::Es512 {
            return None;
        }
        let Some(der) = algorithm.ecdsa_der(signature) else { return Some(false) };
        let signature = p521::ecdsa::Signature::from_der(&der).unwrap();
        let key = p521::PublicKey::from_public_key_der(key).unwrap();
        Some(p521::ecdsa::VerifyingKey::from(&key).verify(message, &signature).is_ok())
    }
}

#[test]
fn valid_tokens_verify() {
    let issuer = Issuer::new();
    for header in TOLERATED_HEADERS {
        let authentic = parse_and_verify(&issuer.sign(header, CLAIMS.as_bytes()), &issuer.es256()).unwrap();
        assert_eq!((authentic.subject(), authentic.expires_at()), (Some("alice"), Some(1_700_003_600)));
    }
    let token = issuer.sign_es384(r#"{"alg":"ES384","kid":"k"}"#, CLAIMS.as_bytes());
    assert!(parse_and_verify(&token, &issuer.es384()).is_ok());
}

#[test]
fn verify_rejects_malicious_headers() {
    let issuer = Issuer::new();
    let key = issuer.es256();
    for (header, why) in [
        // `none` in every spelling that was exploited (CVE-2015-9235, CVE-2022-23540).
        (r#"{"alg":"none","kid":"k"}"#, Error::AlgorithmMismatch),
        (r#"{"alg":"None","kid":"k"}"#, Error::AlgorithmMismatch),
        (r#"{"alg":"nOnE","kid":"k"}"#, Error::AlgorithmMismatch),
        (r#"{"alg":"","kid":"k"}"#, Error::AlgorithmMismatch),
        (r#"{"alg":null,"kid":"k"}"#, Error::Malformed),
        (r#"{"alg":["ES256"],"kid":"k"}"#, Error::Malformed),
        (r#"{"kid":"k"}"#, Error::Malformed),
        // An algorithm other than that of the key (CVE-2016-10555), or another spelling of it.
        (r#"{"alg":"HS256","kid":"k"}"#, Error::AlgorithmMismatch),
        (r#"{"alg":"ES384","kid":"k"}"#, Error::AlgorithmMismatch),
        (r#"{"alg":"es256","kid":"k"}"#, Error::AlgorithmMismatch),
        (r#"{"alg":"ES256 ","kid":"k"}"#, Error::AlgorithmMismatch),
        (r#"{"alg":"ES256\u0000","kid":"k"}"#, Error::AlgorithmMismatch),
        // Embedded keys (CVE-2018-0114).
        (r#"{"alg":"ES256","kid":"k","jwk":{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}}"#, Error::Malformed),
        // A reference does not select another key, and does not make up for an unknown `kid`.
        (r#"{"alg":"ES256","kid":"other","jku":"https://evil.example/jwks.json"}"#, Error::SignatureInvalid),
        (r#"{"alg":"none","kid":"k","x5c":["MIIB"]}"#, Error::AlgorithmMismatch),
        (r#"{"alg":"ES256","kid":"k","jwk":null}"#, Error::Malformed),
        // A `kid` that is a path, a query or a command.
        (r#"{"alg":"ES256","kid":"../../../../dev/null"}"#, Error::SignatureInvalid),
        (r#"{"alg":"ES256","kid":"k' UNION SELECT 'secret'--"}"#, Error::SignatureInvalid),
        (r#"{"alg":"ES256","kid":"k\u0000"}"#, Error::SignatureInvalid),
        (r#"{"alg":"ES256","kid":"K"}"#, Error::SignatureInvalid),
        (r#"{"alg":"ES256","kid":""}"#, Error::Malformed),
        (r#"{"alg":"ES256","kid":["k"]}"#, Error::Malformed),
        (r#"{"alg":"ES256","kid":{"$ne":""}}"#, Error::Malformed),
        // Critical extensions (CVE-2025-59420), unencoded and compressed payloads.
        (r#"{"alg":"ES256","kid":"k","crit":["exp"]}"#, Error::Malformed),
        (r#"{"alg":"ES256","kid":"k","crit":[]}"#, Error::Malformed),
        (r#"{"alg":"ES256","kid":"k","b64":false,"crit":["b64"]}"#, Error::Malformed),
        (r#"{"alg":"ES256","kid":"k","b64":true}"#, Error::Malformed),
        (r#"{"alg":"ES256","kid":"k","zip":"DEF"}"#, Error::Malformed),
        (r#"{"alg":"ES256","kid":"k","enc":"A128GCM"}"#, Error::Malformed),
        (r#"{"alg":"ES256","kid":"k","typ":1}"#, Error::Malformed),
        (r#"{"alg":"ES256","kid":"k","typ":null}"#, Error::Malformed),
        // Duplicate members (RFC 8725 section 2.4).
        (r#"{"alg":"none","alg":"ES256","kid":"k"}"#, Error::Malformed),
        (r#"{"alg":"ES256","kid":"k","kid":"k"}"#, Error::Malformed),
        (r#"{"alg":"ES256","kid":"k","\u0061lg":"none"}"#, Error::Malformed),
        (r#"{"alg":"ES256","kid":"k","x":{"y":1,"y":2}}"#, Error::Malformed),
        (r#"{"alg":"ES256","kid":"k","jku":"a","jku":"b"}"#, Error::Malformed),
        (r#"{"alg":"ES256","kid":"k","x5c":[],"x5\u0063":[]}"#, Error::Malformed),
        (r#"{"alg":"ES256","kid":"k","typ":"JWT","typ":"JWT"}"#, Error::Malformed),
        // Not a JSON object, or more than one.
        (r#"["alg","ES256"]"#, Error::Malformed),
        (r#"{"alg":"ES256","kid":"k"}{}"#, Error::Malformed),
        (r#"{"alg":"ES256","kid":"k"},"#, Error::Malformed),
        (r#"{"alg":"ES256","kid":"\ud800"}"#, Error::Malformed),
        ("\u{feff}{\"alg\":\"ES256\",\"kid\":\"k\"}", Error::Malformed),
        ("", Error::Malformed),
    ] {
        let token = issuer.sign(header, CLAIMS.as_bytes());
        assert_eq!(parse_and_verify(&token, &key).err(), Some(why), "{header}");
    }
}

#[test]
fn verify_rejects_malicious_payloads() {
    let issuer = Issuer::new();
    let nested = |depth: usize| {
        format!(r#"{{"iss":"{ISSUER}","x":{}{}}}"#, "[".repeat(depth), "]".repeat(depth)).into_bytes()
    };
    let wide: Vec<_> = (0..1000).map(|at| format!("\"{at}\":0")).collect();
    let long = format!(r#"{{"iss":"{ISSUER}","x":"{}"}}"#, "x".repeat(MAX_TOKEN_BYTES * 3 / 4));
    let with = |member: &str| format!(r#"{{"iss":"{ISSUER}",{member}}}"#).into_bytes();
    let payloads: [(Vec<u8>, Error); 21] = [
        (with(r#""exp":1,"exp":9999999999"#), Error::Malformed),
        (with(r#""a":{"role":"user","role":"admin"}"#), Error::Malformed),
        (with(r#""exp":1e400"#), Error::Malformed),
        (with(r#""exp":1e300"#), Error::Malformed),
        (with(r#""exp":99999999999999999999999999"#), Error::Malformed),
        (with(r#""exp":18446744073709551615"#), Error::Malformed),
        (with(r#""exp":-1"#), Error::Malformed),
        (with(r#""exp":"9999999999""#), Error::Malformed),
        (with(r#""exp":[9999999999]"#), Error::Malformed),
        (with(r#""exp":null"#), Error::Malformed),
        (with(r#""nbf":true"#), Error::Malformed),
        (with(r#""exp":NaN"#), Error::Malformed),
        (with(r#""aud":["api",{"x":1}]"#), Error::Malformed),
        (with(r#""sub":{"toString":"alice"}"#), Error::Malformed),
        (nested(30), Error::Malformed),
        (nested(2500), Error::Malformed),
        (format!("{{{}}}", wide[..700].join(",")).into_bytes(), Error::Malformed),
        (long.into_bytes(), Error::TooLong),
        (b"{\"iss\":\"https://issuer.example\xff\"}".to_vec(), Error::Malformed),
        // The name of another issuer with the key of this one.
        (br#"{"iss":"https://issuer.example/"}"#.to_vec(), Error::SignatureInvalid),
        (br#"{"sub":"alice"}"#.to_vec(), Error::SignatureInvalid),
    ];
    for (payload, why) in payloads {
        let token = issuer.sign(HEADER, &payload);
        assert_eq!(
            parse_and_verify(&token, &issuer.es256()).err(),
            Some(why),
            "{}",
            String::from_utf8_lossy(&payload)
        );
    }
    assert!(parse_and_verify(&issuer.sign(HEADER, &nested(10)), &issuer.es256()).is_ok());
}

#[test]
fn verify_rejects_the_public_key_as_hmac_secret() {
    let issuer = Issuer::new();
    let public = issuer.es256().public_material().unwrap();
    let pem =
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", base64url::encode(&public));
    for secret in [&public[..], pem.as_bytes()] {
        let forger = SigningKey::hs256("k", secret).unwrap();
        for alg in ["HS256", "ES256"] {
            let forged = forger.sign(&format!(r#"{{"alg":"{alg}","kid":"k"}}"#), CLAIMS.as_bytes());
            let why = if alg == "HS256" { Error::AlgorithmMismatch } else { Error::SignatureInvalid };
            assert_eq!(parse_and_verify(forged.expose(), &issuer.es256()).err(), Some(why), "{alg}");
        }
    }
}

#[test]
fn verify_rejects_signatures_with_zero_numbers() {
    // CVE-2022-21449: r or s is zero, or a multiple of the order.
    let issuer = Issuer::new();
    for (key, alg, order) in [(issuer.es256(), "ES256", ORDERS[0]), (issuer.es384(), "ES384", ORDERS[1])] {
        let signed = signing_input(&format!(r#"{{"alg":"{alg}","kid":"k"}}"#), CLAIMS.as_bytes());
        let n: Vec<u8> = (0..order.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&order[at..at + 2], 16).unwrap())
            .collect();
        let zero = vec![0; n.len()];
        let mut one = zero.clone();
        *one.last_mut().unwrap() = 1;
        let most = vec![0xff; n.len()];
        for r in [&zero, &one, &n, &most] {
            for s in [&zero, &one, &n, &most] {
                let token = append_signature(&signed, &[&r[..], s].concat());
                assert_eq!(
                    parse_and_verify(&token, &key).err(),
                    Some(Error::SignatureInvalid),
                    "{alg} {r:?} {s:?}"
                );
            }
        }
    }
}

#[test]
fn verify_rejects_signatures_of_another_length_or_encoding() {
    let issuer = Issuer::new();
    let token = issuer.sign(HEADER, CLAIMS.as_bytes());
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let raw = base64url::decode(signature.as_bytes()).unwrap();
    let der = Algorithm::Es256.ecdsa_der(&raw).unwrap();
    assert_eq!(p256::ecdsa::Signature::from_der(&der).unwrap().to_bytes()[..], raw);
    for (algorithm, other) in [
        (Algorithm::Es256, &raw[1..]),
        (Algorithm::Es256, &[0; 64]),
        (Algorithm::Es256, &[0xff; 64]),
        (Algorithm::Es384, &raw),
        (Algorithm::Rs256, &raw),
    ] {
        assert_eq!(algorithm.ecdsa_der(other), None, "{algorithm:?} {other:?}");
    }
    let (r, s) = raw.split_at(32);
    for (other, what) in [
        (vec![], "none"),
        (raw[..63].to_vec(), "cut"),
        ([&raw[..], &[0]].concat(), "one byte more"),
        ([&raw[..], &raw[..]].concat(), "twice"),
        ([&[0], r, &[0], s].concat(), "padded"),
        (der, "DER"),
        ([s, r].concat(), "swapped"),
    ] {
        assert_eq!(
            parse_and_verify(&append_signature(signed, &other), &issuer.es256()).err(),
            Some(Error::SignatureInvalid),
            "{what}"
        );
    }
    for (spelling, what) in [
        (format!("{token}="), "padded"),
        (format!("{token}AAA"), "an impossible length"),
        (format!("{token} "), "a blank"),
        (format!("{token}\n"), "a line end"),
        (format!("{token}%00"), "percent"),
        (format!("\u{feff}{token}"), "a byte order mark"),
    ] {
        assert_eq!(parse_and_verify(&spelling, &issuer.es256()).err(), Some(Error::NotCanonical), "{what}");
    }
    for (spelling, what) in [
        (format!("{token}.e30"), "a fourth segment"),
        (format!("{token}.e30.e30"), "the shape of a JWE"),
        (format!("{{\"payload\":\"{signed}\"}}"), "the JSON serialization"),
    ] {
        assert_eq!(parse_and_verify(&spelling, &issuer.es256()).err(), Some(Error::Malformed), "{what}");
    }
}

#[test]
fn both_ecdsa_signatures_share_their_fingerprints() {
    // Both (r, s) and (r, n - s) are valid. A revoked token must not be accepted with its other signature.
    let issuer = Issuer::new();
    let tokens = [
        (issuer.es256(), issuer.sign(HEADER, CLAIMS.as_bytes()), ORDERS[0]),
        (issuer.es384(), issuer.sign_es384(r#"{"alg":"ES384","kid":"k"}"#, CLAIMS.as_bytes()), ORDERS[1]),
        (issuer.es512(), issuer.sign_es512(r#"{"alg":"ES512","kid":"k"}"#, CLAIMS.as_bytes()), ORDERS[2]),
    ];
    let parse_and_verify =
        |token: &str, key: &VerifyingKey| Unverified::parse(token.as_bytes())?.verify_with(key, &P521Host);
    for (key, token, order) in tokens {
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let mut signature = base64url::decode(signature.as_bytes()).unwrap();
        let half = signature.len() / 2;
        let mut borrow = 0;
        for at in (0..half).rev() {
            let n = i16::from(u8::from_str_radix(&order[2 * at..2 * at + 2], 16).unwrap());
            let difference = n - i16::from(signature[half + at]) - borrow;
            borrow = i16::from(difference < 0);
            signature[half + at] = u8::try_from(difference.rem_euclid(256)).unwrap();
        }
        let twin = append_signature(signed, &signature);
        assert_ne!(twin, token);
        let (one, other) = (parse_and_verify(&token, &key).unwrap(), parse_and_verify(&twin, &key).unwrap());
        assert_ne!(one.fingerprint(), other.fingerprint());
        let fingerprints = |of: &Authentic| {
            let mut both: Vec<_> = of.fingerprints().collect();
            both.sort();
            both
        };
        assert_eq!(fingerprints(&one).len(), 2);
        assert_eq!(fingerprints(&one), fingerprints(&other));
    }
}

#[test]
fn own_tokens_have_no_other_header_parameters() {
    // Other issuers may use this; this deployment does not.
    let own = SigningKey::ed25519("k", &[7; 32]).unwrap();
    let claims =
        r#"{"iss":"i","sub":"OP1","aud":"api","iat":1,"exp":2,"jti":"j","operator":{"operatorId":"OP1"}}"#;
    for (header, expected) in [
        (r#"{"alg":"EdDSA","kid":"k","typ":"JWT"}"#, None),
        (r#"{"alg":"EdDSA","kid":"k"}"#, None),
        (r#"{"alg":"EdDSA","kid":"k","typ":"at+jwt"}"#, Some(Error::Malformed)),
        (r#"{"alg":"EdDSA","kid":"k","typ":"jwt"}"#, Some(Error::Malformed)),
        (r#"{"alg":"EdDSA","kid":"k","typ":"JOSE"}"#, Some(Error::Malformed)),
        (r#"{"alg":"EdDSA","kid":"k","typ":"dpop+jwt"}"#, Some(Error::Malformed)),
        (r#"{"alg":"EdDSA","kid":"k","x5t":"c29tZXRoaW5n"}"#, Some(Error::Malformed)),
        (r#"{"alg":"EdDSA","kid":"k","jku":"https://evil.example/"}"#, Some(Error::Malformed)),
        (r#"{"alg":"EdDSA","kid":"k","cty":"JWT"}"#, Some(Error::Malformed)),
        (r#"{"alg":"EdDSA","kid":"k","prefix":7}"#, Some(Error::Malformed)),
    ] {
        let token = own.sign(header, claims.as_bytes());
        assert_eq!(parse_and_verify(token.expose(), own.verifying_key()).err(), expected, "{header}");
    }
    let bare = own.sign(r#"{"alg":"EdDSA","kid":"k"}"#, br#"{"iss":"i"}"#);
    assert_eq!(parse_and_verify(bare.expose(), own.verifying_key()).err(), Some(Error::Malformed));
}

#[test]
fn invalid_keys_are_refused() {
    let issuer = Issuer::new();
    let point = issuer.es256().public_material().unwrap();
    let mut off_the_curve = point.clone();
    off_the_curve[63] ^= 1;
    let modulus = |bytes: usize, first: u8, last: u8| {
        let mut modulus = vec![0xa5; bytes];
        (modulus[0], modulus[bytes - 1]) = (first, last);
        modulus
    };
    let rsa = |exponent: u32, modulus: Vec<u8>| [&exponent.to_be_bytes()[..], &modulus].concat();
    for (algorithm, material, what) in [
        (Algorithm::Es256, off_the_curve, "a point off the curve"),
        (Algorithm::Es256, vec![0; 64], "0, 0"),
        (Algorithm::Es256, point[..32].to_vec(), "x alone"),
        (Algorithm::Es256, [&[4], &point[..]].concat(), "SEC 1"),
        (Algorithm::Es384, point, "a point of another curve"),
        (Algorithm::Hs384, vec![1; 47], "a secret shorter than the hash"),
        (Algorithm::Hs512, vec![1; 63], "a secret shorter than the hash"),
        (Algorithm::Rs256, rsa(65537, modulus(255, 0x80, 1)), "2040 bits"),
        (Algorithm::Rs256, rsa(65537, modulus(256, 0x7f, 1)), "2047 bits"),
        (Algorithm::Rs256, rsa(65537, modulus(257, 0x00, 1)), "a leading zero"),
        (Algorithm::Rs256, rsa(65537, modulus(1025, 0x01, 1)), "8193 bits"),
        (Algorithm::Rs256, rsa(65539, modulus(513, 0x01, 1)), "4097 bits and a large exponent"),
        (Algorithm::Es512, vec![1; 131], "a short point"),
        (Algorithm::Es512, [&[2][..], &[0; 131]].concat(), "x above 2^521"),
        (Algorithm::Es512, [&[0; 66], &[2][..], &[0; 65]].concat(), "y above 2^521"),
        (Algorithm::Rs256, rsa(65537, modulus(256, 0x80, 2)), "an even modulus"),
        (Algorithm::Rs256, rsa(1, modulus(256, 0x80, 1)), "exponent 1"),
        (Algorithm::Ps256, rsa(65536, modulus(256, 0x80, 1)), "an even exponent"),
        (Algorithm::Ps512, vec![], "nothing"),
    ] {
        assert!(VerifyingKey::foreign(ISSUER, "k", algorithm, &material).is_err(), "{what}");
    }
    for (exponent, modulus) in [
        (3, modulus(512, 0x80, 1)),
        (u32::MAX, modulus(512, 0xff, 1)),
        (65537, modulus(1024, 0xff, 1)),
        (65537, modulus(257, 0x01, 1)),
    ] {
        assert!(VerifyingKey::foreign(ISSUER, "k", Algorithm::Rs256, &rsa(exponent, modulus)).is_ok());
    }
    assert!(VerifyingKey::foreign(ISSUER, &"k".repeat(256), Algorithm::Hs256, &[1; 32]).is_err());
}

#[test]
fn the_type_is_for_the_caller_to_check() {
    let issuer = Issuer::new();
    for typ in [None, Some("JWT"), Some("dpop+jwt"), Some("")] {
        let member = typ.map_or(String::new(), |typ| format!(r#","typ":"{typ}""#));
        let token = issuer.sign(&format!(r#"{{"alg":"ES256","kid":"k"{member}}}"#), CLAIMS.as_bytes());
        assert_eq!(parse_and_verify(&token, &issuer.es256()).unwrap().typ(), typ);
    }
}

proptest::proptest! {
    /// A token that differs in any byte is another credential or none: what revokes one revokes the other.
    #[test]
    fn changed_tokens_of_other_issuers_have_the_same_fingerprints(
        header in proptest::sample::select(&TOLERATED_HEADERS[..]),
        at in proptest::prelude::any::<proptest::sample::Index>(),
        byte: u8,
        how in 0..3_u8,
    ) {
        let issuer = Issuer::new();
        let token = issuer.sign(header, CLAIMS.as_bytes());
        let mut changed = token.clone().into_bytes();
        let at = at.index(changed.len());
        match how {
            0 => changed[at] = byte,
            1 => changed.insert(at, byte),
            _ => drop(changed.remove(at)),
        }
        let original = parse_and_verify(&token, &issuer.es256()).unwrap();
        let accepted = Unverified::parse(&changed).and_then(|token| token.verify(&issuer.es256()));
        if let Ok(accepted) = accepted {
            let (mut one, mut other): (Vec<_>, Vec<_>) =
                (original.fingerprints().collect(), accepted.fingerprints().collect());
            one.sort();
            other.sort();
            proptest::prop_assert_eq!(one, other);
        }
    }
}

#[test]
fn algorithms_have_one_name() {
    for algorithm in Algorithm::ALL {
        assert_eq!(Algorithm::from_name(algorithm.name()), Some(algorithm));
        assert_eq!(Algorithm::from_name(&algorithm.name().to_lowercase()), None);
        assert_eq!(algorithm.is_symmetric(), algorithm.name().starts_with("HS"), "{algorithm:?}");
    }
    for other in ["", "none", "ES256 ", "ES256K"] {
        assert_eq!(Algorithm::from_name(other), None, "{other}");
    }
}

#[test]
fn only_format_2_of_api_keys_has_a_public_key() {
    for kind in Kind::ALL {
        assert_eq!(kind.is_symmetric(), kind != Kind::Signed, "{kind:?}");
    }
}

#[test]
fn names_of_foreign_keys_have_at_most_255_bytes() {
    for (issuer, kid, is_valid) in [(255, 255, true), (256, 1, false), (1, 256, false)] {
        let key = VerifyingKey::foreign(&"i".repeat(issuer), &"k".repeat(kid), Algorithm::Hs256, &[1; 32]);
        assert_eq!(key.is_ok(), is_valid, "{issuer} {kid}");
    }
}

/// A host that verifies signatures and records the arguments.
struct TestHost(Option<bool>, std::cell::RefCell<Vec<VerifyCall>>);

/// Algorithm, key and signature.
type VerifyCall = (Algorithm, Vec<u8>, Vec<u8>);

impl SignatureVerifier for TestHost {
    fn verify(&self, algorithm: Algorithm, key: &[u8], _: &[u8], signature: &[u8]) -> Option<bool> {
        self.1.borrow_mut().push((algorithm, key.to_vec(), signature.to_vec()));
        self.0
    }
}

#[test]
fn host_verifies_with_the_algorithm_of_the_key() {
    let issuer = Issuer::new();
    let token = issuer.sign(HEADER, CLAIMS.as_bytes());
    let forged = issuer.sign(r#"{"alg":"HS256","kid":"k"}"#, CLAIMS.as_bytes());
    let twisted = token.replacen("eyJ", "eyA", 1);
    for (host_result, expected) in [(None, true), (Some(true), true), (Some(false), false)] {
        let host = TestHost(host_result, Vec::new().into());
        let opened = Unverified::parse(token.as_bytes()).unwrap().verify_with(&issuer.es256(), &host);
        assert_eq!(opened.is_ok(), expected, "{host_result:?}");
        let (algorithm, key, signature) = host.1.borrow()[0].clone();
        assert_eq!((algorithm, signature.len()), (Algorithm::Es256, 64));
        // Computed with `openssl ec -pubout -outform DER | sha256sum`.
        assert_eq!(Fingerprint::digest(&key).to_string(), KEY_INFO_SHA256);
    }
    let host = TestHost(Some(true), Vec::new().into());
    assert_eq!(
        Unverified::parse(forged.as_bytes()).unwrap().verify_with(&issuer.es256(), &host),
        Err(Error::AlgorithmMismatch)
    );
    assert!(Unverified::parse(twisted.as_bytes()).is_err());
    assert!(host.1.borrow().is_empty(), "not even asked");
}

#[test]
fn host_receives_canonical_signatures_only() {
    // A host that parses numbers accepts 00 r 00 s for r s, which would give a revoked token another fingerprint.
    let issuer = Issuer::new();
    let es256 = issuer.sign(HEADER, CLAIMS.as_bytes());
    let es384 = issuer.sign_es384(r#"{"alg":"ES384","kid":"k"}"#, CLAIMS.as_bytes());
    let rsa = [&[0, 1, 0, 1, 0x80][..], &[1; 255]].concat();
    let rsa = VerifyingKey::foreign(ISSUER, "k", Algorithm::Rs256, &rsa).unwrap();
    let rs256 =
        append_signature(&signing_input(r#"{"alg":"RS256","kid":"k"}"#, CLAIMS.as_bytes()), &[1; 256]);
    let es512 = issuer.sign_es512(r#"{"alg":"ES512","kid":"k"}"#, CLAIMS.as_bytes());
    for (key, token) in
        [(issuer.es256(), es256), (issuer.es384(), es384), (issuer.es512(), es512), (rsa, rs256)]
    {
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let right = base64url::decode(signature.as_bytes()).unwrap();
        let (r, s) = right.split_at(right.len() / 2);
        for (signature, asked) in [
            (right.clone(), true),
            (right[1..].to_vec(), false),
            ([&[0], &right[..]].concat(), false),
            ([r, &[0], s].concat(), false),
            ([&[0], r, &[0], s].concat(), false),
            ([&[0; 2], r, &[0; 2], s].concat(), false),
            (vec![], false),
        ] {
            let host = TestHost(Some(true), Vec::new().into());
            let token = append_signature(signed, &signature);
            let opened = Unverified::parse(token.as_bytes()).unwrap().verify_with(&key, &host);
            assert_eq!(opened.is_ok(), asked, "{key:?}: {} bytes", signature.len());
            assert_eq!(host.1.borrow().len(), usize::from(asked), "{key:?}: {} bytes", signature.len());
        }
    }
}

#[test]
fn c4_p521_is_verified_by_a_host_alone() {
    let issuer = Issuer::new();
    let token = issuer.sign_es512(r#"{"alg":"ES512","kid":"k"}"#, CLAIMS.as_bytes());
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let mut wrong = base64url::decode(signature.as_bytes()).unwrap();
    wrong[100] ^= 1;
    let zero = append_signature(signed, &[&wrong[..66], &[0; 66]].concat());
    let wrong = append_signature(signed, &wrong);
    let verify = |token: &str, host: &dyn SignatureVerifier| {
        Unverified::parse(token.as_bytes()).unwrap().verify_with(&issuer.es512(), host).err()
    };
    let silent = TestHost(None, Vec::new().into());
    for (token, by_host, alone) in [
        (&token, None, Error::AlgorithmUnsupported),
        (&wrong, Some(Error::SignatureInvalid), Error::AlgorithmUnsupported),
        (&zero, Some(Error::SignatureInvalid), Error::AlgorithmUnsupported),
    ] {
        assert_eq!(verify(token, &P521Host), by_host);
        assert_eq!(verify(token, &silent), Some(alone));
    }
}

#[test]
fn b5_key_or_token_of_another_issuer_may_have_no_kid() {
    let issuer = Issuer::new();
    let point = issuer.es256().public_material().unwrap();
    let key = |kid| VerifyingKey::foreign(ISSUER, kid, Algorithm::Es256, &point).unwrap();
    let named = issuer.sign(HEADER, CLAIMS.as_bytes());
    let nameless = issuer.sign(r#"{"alg":"ES256"}"#, CLAIMS.as_bytes());
    for (token, kid, expected) in [
        (&named, "k", None),
        (&named, "", None),
        (&nameless, "k", None),
        (&nameless, "", None),
        (&named, "other", Some(Error::SignatureInvalid)),
    ] {
        assert_eq!(parse_and_verify(token, &key(kid)).err(), expected, "{kid}");
    }
    let own = SigningKey::ed25519("k", &[7; 32]).unwrap();
    let claims =
        r#"{"iss":"i","sub":"OP1","aud":"api","iat":1,"exp":2,"jti":"j","operator":{"operatorId":"OP1"}}"#;
    let nameless = own.sign(r#"{"alg":"EdDSA"}"#, claims.as_bytes());
    let refused = parse_and_verify(nameless.expose(), own.verifying_key()).err();
    assert_eq!(refused, Some(Error::SignatureInvalid), "tokens of this deployment name their key");
}

#[test]
fn c1_ed25519_is_a_name_of_eddsa_for_other_issuers_only() {
    let local = SigningKey::ed25519("k", &[7; 32]).unwrap();
    let public = *local.verifying_key().public_bytes().unwrap();
    let foreign = VerifyingKey::foreign(ISSUER, "k", Algorithm::EdDsa, &public).unwrap();
    for (alg, by_other, here) in [("EdDSA", true, true), ("Ed25519", true, false), ("ed25519", false, false)]
    {
        let header = format!(r#"{{"alg":"{alg}","kid":"k"}}"#);
        let claims = r#"{"iss":"https://issuer.example","sub":"OP1","aud":"api","iat":1,"exp":2,"jti":"j","operator":{"operatorId":"OP1"}}"#;
        let token = local.sign(&header, claims.as_bytes());
        assert_eq!(parse_and_verify(token.expose(), &foreign).is_ok(), by_other, "{alg}");
        assert_eq!(parse_and_verify(token.expose(), local.verifying_key()).is_ok(), here, "{alg}");
    }
}
