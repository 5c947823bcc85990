//! Project Wycheproof's vectors, for the signatures that native code verifies, and random requests.

use keystile_envoy_module::NativeVerifier;
use serde_json::Value;
use token::{Algorithm, VerifyingKey};
use verdict::SignatureVerifier as _;
use wycheproof::{ecdsa, rsa_pkcs1_verify as pkcs1, rsa_pss_verify as pss};

use crate::{bearer, fixtures::ControlPlane, headers, host::Config};

/// The number of random requests. The address sanitizer sees all of them.
const REQUESTS: u64 = 3000;

/// The numbers of valid and of refused vectors.
type Tally = (usize, usize);

/// Checks that valid vectors are accepted, and that invalid and "acceptable" ones are refused.
fn agree(json: &str, algorithm: Algorithm) -> Tally {
    let set: Value = serde_json::from_str(json).unwrap();
    let (mut accepted, mut refused) = (0, 0);
    for group in set["testGroups"].as_array().unwrap() {
        let key = hex(&group["publicKeyDer"]);
        for test in group["tests"].as_array().unwrap() {
            let signature = hex(&test["sig"]);
            // `token` refuses other lengths before it calls a verifier.
            let length = signature_bytes(algorithm, &key);
            let is_accepted = signature.len() == length
                && NativeVerifier::default().verify(algorithm, &key, &hex(&test["msg"]), &signature)
                    == Some(true);
            assert_eq!(is_accepted, test["result"] == "valid", "{algorithm:?}: {test}");
            if is_accepted { accepted += 1 } else { refused += 1 }
        }
    }
    (accepted, refused)
}

fn signature_bytes(algorithm: Algorithm, key: &[u8]) -> usize {
    match algorithm {
        Algorithm::Es256 => 64,
        Algorithm::Es384 => 96,
        Algorithm::Es512 => 132,
        // The modulus takes most of the key.
        _ => key.len() / 128 * 128,
    }
}

fn hex(text: &Value) -> Vec<u8> {
    base16ct::lower::decode_vec(text.as_str().unwrap()).unwrap()
}

#[test]
fn wycheproof_vectors_through_native_code() {
    // The numbers are those of the same sets through the Rust crates: see token/src/vectors.rs.
    for (json, algorithm, expected) in [
        (ecdsa::TestName::EcdsaSecp256r1Sha256P1363.json_data(), Algorithm::Es256, (173, 89)),
        (ecdsa::TestName::EcdsaSecp384r1Sha384P1363.json_data(), Algorithm::Es384, (193, 87)),
        (ecdsa::TestName::EcdsaSecp521r1Sha512P1363.json_data(), Algorithm::Es512, (231, 87)),
        (pkcs1::TestName::Rsa2048Sha256.json_data(), Algorithm::Rs256, (9, 250)),
        (pkcs1::TestName::Rsa2048Sha384.json_data(), Algorithm::Rs384, (7, 251)),
        (pkcs1::TestName::Rsa2048Sha512.json_data(), Algorithm::Rs512, (8, 251)),
        (pkcs1::TestName::Rsa3072Sha256.json_data(), Algorithm::Rs256, (8, 251)),
        (pkcs1::TestName::Rsa4096Sha512.json_data(), Algorithm::Rs512, (7, 252)),
        (pkcs1::TestName::Rsa8192Sha512.json_data(), Algorithm::Rs512, (7, 252)),
        (pss::TestName::RsaPss2048Sha256Mgf1SaltLen32.json_data(), Algorithm::Ps256, (63, 45)),
        (pss::TestName::RsaPss2048Sha384Mgf1SaltLen48.json_data(), Algorithm::Ps384, (95, 46)),
        (pss::TestName::RsaPss4096Sha512Mgf1SaltLen64.json_data(), Algorithm::Ps512, (132, 47)),
    ] {
        assert_eq!(agree(json, algorithm), expected, "{algorithm:?}");
    }
}

#[test]
fn salts_of_another_length_are_refused() {
    for (json, algorithm) in [
        (pss::TestName::RsaPss2048Sha256Mgf1SaltLen0.json_data(), Algorithm::Ps256),
        (pss::TestName::RsaPss4096Sha512Mgf1SaltLen32.json_data(), Algorithm::Ps512),
    ] {
        let set: Value = serde_json::from_str(json).unwrap();
        for group in set["testGroups"].as_array().unwrap() {
            let key = hex(&group["publicKeyDer"]);
            for test in group["tests"].as_array().unwrap().iter().filter(|test| test["result"] == "valid") {
                let verified =
                    NativeVerifier::default().verify(algorithm, &key, &hex(&test["msg"]), &hex(&test["sig"]));
                assert_eq!(verified, Some(false), "{test}");
            }
        }
    }
}

#[test]
fn other_algorithms_are_left_to_token() {
    for algorithm in [Algorithm::EdDsa, Algorithm::Hs256, Algorithm::Hs384, Algorithm::Hs512] {
        assert_eq!(NativeVerifier::default().verify(algorithm, &[], &[], &[]), None);
    }
    // A key that is not DER is not verified with: `token` encodes it.
    assert_eq!(NativeVerifier::default().verify(Algorithm::Es256, b"\x30\x00", &[], &[0; 64]), None);
    let key = VerifyingKey::foreign("i", "k", Algorithm::Es256, &[1; 64]);
    assert!(key.is_err(), "not a point");
}

/// Parts of valid requests in random places: no request without the token is admitted, and the sanitizer finds nothing.
#[test]
fn random_requests_never_pass_unchecked() {
    let control_plane = ControlPlane::new();
    let mut configuration = control_plane.inline_configuration();
    configuration["credentials"] = serde_json::json!([
        { "header": "authorization", "scheme": "Bearer" },
        { "cookie": "session" },
        { "query": "token" },
    ]);
    let config = Config::new(&configuration.to_string()).unwrap();
    let token = control_plane.token();
    let authorization = bearer(&token);
    let path = format!("/a?token={token}&token=x");
    let cookie = format!("a=b; session={token}; session=");
    let twisted = token.replacen("eyJ", "eyA", 1);
    let names = [
        ":path",
        ":method",
        ":authority",
        "authorization",
        "cookie",
        "x-keystile-subject",
        "X-Keystile-Subject",
        "x_keystile_subject",
        "connection",
        "",
        "accept",
        "x-request-id",
        "content-type",
        "te",
    ];
    let values = [
        "",
        "/",
        "GET",
        "*/*",
        &*authorization,
        &path,
        &cookie,
        &twisted,
        "keep-alive, x-keystile-subject",
        "application/grpc",
        "Bearer ",
        "\u{e9}\0\r\n",
        "session=\"%22\"",
    ];
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % below as u64).unwrap()
    };
    let (mut admitted, mut answered) = (0, 0);
    let mut open = Vec::new();
    for _ in 0..REQUESTS {
        let mut request = headers(["x", &authorization][random(2)], &[]);
        for _ in 0..random(12) {
            let at = random(request.len() + 1);
            request.insert(at, (names[random(names.len())], values[random(values.len())]));
        }
        if random(3) == 0 {
            let at = random(request.len());
            request.remove(at);
        }
        let stream = config.stream(&request).unwrap();
        if random(10) == 0 {
            stream.refuse_edits_after(random(20));
        }
        let has_token = request.iter().any(|(_, value)| value.contains(&*token));
        if stream.request_headers() {
            assert!(has_token, "{request:?}");
            assert_eq!(stream.header("x-keystile-subject").as_deref(), Some("OP0000000001"), "{request:?}");
            admitted += 1;
            if random(2) == 0 {
                let trailers: Vec<_> = (0..random(5))
                    .map(|_| (names[random(names.len())], values[random(values.len())]))
                    .collect();
                stream.request_trailers(Some(&trailers));
            }
        } else {
            assert!(stream.reply().is_some());
            answered += 1;
        }
        match random(4) {
            0 => open.push(stream),
            1 => stream.deliver_event(random(3) as u64),
            2 => stream.destroy_early(),
            _ => {}
        }
        if open.len() > 20 {
            let at = random(open.len());
            drop(open.swap_remove(at));
        }
    }
    assert!(admitted > 100 && answered > 100, "{admitted} {answered}");
    drop(open);
    config.tick();
    assert_eq!(config.metric("keystile_panics"), 0);
}
