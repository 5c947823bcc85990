//! The host verifies RSA and ECDSA if it can, otherwise the filter does. The decisions are the same.

use crate::host_edge::{HostEdge, configuration, request};
use harness::fake_control_plane::{FakeControlPlane, claims, now_ms};
use harness::host::UNIMPLEMENTED;
use harness::{client, eventually};
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{Signature, SigningKey};
use std::cell::Cell;
use std::rc::Rc;
use token::{Algorithm, VerifyingKey, base64url};

#[tokio::test]
async fn native_signatures_are_counted_in_envoy() {
    let mut control_plane = FakeControlPlane::start().await;
    control_plane
        .content
        .set_verifying_keys([control_plane.signing.verifying_key(), &es256_key(), &rs256_key()])
        .unwrap();
    control_plane.publish();
    let by_host = async |control_plane: &FakeControlPlane| {
        control_plane.envoy.metric("keystile_signatures_by_host").await
    };
    let es256 = es256(&claims(now_ms()));
    let mut workers = control_plane.envoy.wait_admitting(&es256).await.unwrap();
    workers.extend(control_plane.envoy.wait_admitting(RS256).await.unwrap());
    eventually("Envoy verifies", async || {
        anyhow::ensure!(by_host(&control_plane).await? >= 4, "two tokens at two workers");
        Ok(())
    })
    .await;
    for token in [&es256, RS256] {
        for worker in &mut workers {
            let bad =
                worker.send(client::bearer(&flip_signature_bit(token))).await.unwrap().expect(401).unwrap();
            assert_eq!(bad.code(), "token_signature_invalid");
        }
    }
    // Envoy parses the numbers, and would accept the first two spellings.
    for other in [
        pad_numbers(&es256, &[0], &[0]),
        pad_numbers(&es256, &[0; 2], &[0; 2]),
        pad_numbers(&es256, &[], &[0]),
    ] {
        for worker in &mut workers {
            let bad = worker.send(client::bearer(&other)).await.unwrap().expect(401).unwrap();
            assert_eq!(bad.code(), "token_signature_invalid");
        }
    }
}

#[test]
fn signatures_are_verified_in_wasm_if_host_cannot() {
    let yes = || Ok(vec![0x08, 0x01]);
    let no = || Ok([b"\x12\x03", b"bad".as_slice()].concat());
    type Answer = fn() -> Result<Vec<u8>, u32>;
    // The response of the host, whether a valid and an invalid signature are then accepted, and the number of calls for
    // four tokens.
    let cases: [(&str, Answer, bool, bool, u32); 8] = [
        ("yes", yes, true, true, 4),
        ("no", no, false, false, 4),
        ("nothing", || Ok(Vec::new()), true, false, 4),
        ("yes and a second field", || Ok(vec![0x08, 0x01, 0x12, 0x00]), true, false, 4),
        ("no such number", || Ok(vec![0x08, 0x02]), true, false, 4),
        ("a key it cannot parse", || Err(2), true, false, 4),
        ("no such function", || Err(1), true, false, 1),
        ("no such call", || Err(UNIMPLEMENTED), true, false, 1),
    ];
    for (name, answer, good, bad, times) in cases {
        let mut edge = edge();
        let asked = Rc::new(Cell::new(0));
        let counter = Rc::clone(&asked);
        let function = move |_: &[u8]| {
            counter.set(counter.get() + 1);
            answer()
        };
        edge.host.state().functions.insert("verify_signature".into(), Box::new(function));
        for token in [es256(&HostEdge::claims(1)), RS256.to_owned()] {
            assert_eq!(
                edge.ask(&request(&flip_signature_bit(&token))).is_ok(),
                bad,
                "a host that answers {name}"
            );
            assert_eq!(edge.ask(&request(&token)).is_ok(), good, "a host that returns: {name}");
        }
        assert_eq!(asked.get(), times, "a host that returns: {name}");
    }
}

/// An edge that accepts them.
pub(crate) fn edge() -> HostEdge {
    let mut edge = HostEdge::start_with(configuration(), |_| ());
    edge.content.set_verifying_keys([edge.eddsa.verifying_key(), &es256_key(), &rs256_key()]).unwrap();
    edge.publish();
    edge
}

pub(crate) fn es256(claims: &token::Claims) -> String {
    let header = base64url::encode(br#"{"alg":"ES256","kid":"ec","typ":"JWT"}"#);
    let signed = [header, base64url::encode(&serde_json::to_vec(claims).unwrap())].join(".");
    let signature: Signature = es256_signing_key().sign(signed.as_bytes());
    [signed, base64url::encode(&signature.to_bytes())].join(".")
}

fn es256_signing_key() -> SigningKey {
    SigningKey::from_slice(&[4; 32]).unwrap()
}

fn es256_key() -> VerifyingKey {
    let point = es256_signing_key().verifying_key().to_sec1_point(false);
    // The coordinates follow the byte of the uncompressed form.
    VerifyingKey::local("ec", Algorithm::Es256, &point.as_bytes()[1..]).unwrap()
}

fn rs256_key() -> VerifyingKey {
    let modulus = base64url::decode(RS256_MODULUS.as_bytes()).unwrap();
    VerifyingKey::local("rsa", Algorithm::Rs256, &[&[0, 1, 0, 1], modulus.as_slice()].concat()).unwrap()
}

/// Flips a bit of the signature.
fn flip_signature_bit(token: &str) -> String {
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let mut signature = base64url::decode(signature.as_bytes()).unwrap();
    let middle = signature.len() / 2;
    signature[middle] ^= 1;
    [signed, &base64url::encode(&signature)].join(".")
}

/// Prepends bytes to both numbers of the signature.
fn pad_numbers(token: &str, before_r: &[u8], before_s: &[u8]) -> String {
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let signature = base64url::decode(signature.as_bytes()).unwrap();
    let (r, s) = signature.split_at(signature.len() / 2);
    [signed, &base64url::encode(&[before_r, r, before_s, s].concat())].join(".")
}

/// A token from 2023 that is valid until 2100. Its private key no longer exists.
pub(crate) const RS256: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6InJzYSIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJodHRwczovL2tleXN0aWxlLnRlc3QiLCJzdWIiOiJPUDAwMDAwMDAwMDEiLCJhdWQiOlsiYXBpIl0sImlhdCI6MTcwMDAwMDAwMCwiZXhwIjo0MTAyNDQ0ODAwLCJqdGkiOiIwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMSIsIm9wZXJhdG9yIjp7Im9wZXJhdG9ySWQiOiJPUDAwMDAwMDAwMDEifX0.fDehkrd_5COxOFHv9PdiVk6kcjqzX9FfZA12UnrJoQzIKkWLlecBltiKhMrat48N6rESslG2ewzr6T45b5gPFoarnUoiSJa6sIMxeHxsguVQrBf3TFNdUCNBufar8ZReH1kjPQQZ11oqodxAZuQnUgLsz39n1XDfOjBE6AlhpURYBe3RyBQpUqrlJ4xJBK9VOWxvps3i4YXeH0y3KVLu9TCM1B8yHvF-DboXqoaFf6ppUJJQqSgI37KTGUh497A9bgeU06JEnrJ0gtZ_SwM0NIDsuIKfP7F4EIYQD-ComE6xtnK4fipZ4g0hLlmu6FjG1XZspEU4eCpvDJQU_dZWoA";

const RS256_MODULUS: &str = "wfDlh_6YDs7upbJR4qXnR2CPnS1D50jRkZFnWDkWGLjtJSghBihXMULjWsXakQkyVplcT9pRamqoSqWYMk09Wl9iinOuuIsTeFLeCEgaGFVU6kiczgrG0nw4vKvXQ1akNXS24P0SmdotzACDAUB85_BYgtSDQ66QyVFhn7BfKbXUcT--E4rE2XpvGDnraHqsPfC4tALQzOPna_Xw03hu98qYqZf0zlMprwtzmx9xdaWvivTmLEb1EiO8C1OS68ub3atvdhxNQ0ADwMuHDejZl7FVDDHveE_N6wCfwTsaIAHDJ6b7We5WzpJb62CeK6EapktRj6xErko2Dluu-M45Aw";
