//! RSA and ECDSA are verified by the host where it can, else here; what is refused does not depend on it.

use crate::edge::{Edge, configuration, request};
use harness::forge::{Forge, claims, now_ms};
use harness::host::UNIMPLEMENTED;
use harness::{client, eventually};
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{Signature, SigningKey};
use std::cell::Cell;
use std::rc::Rc;
use token::{Algorithm, VerifyingKey, base64url};

#[tokio::test]
async fn count_by_envoys_own_code() {
    let mut forge = Forge::start().await;
    forge.content.set_verifying_keys([forge.signing.verifying_key(), &es256_key(), &rs256_key()]).unwrap();
    forge.publish();
    let by_host = async |forge: &Forge| forge.envoy.metric("keystile_signatures_by_host").await;
    let es256 = es256(&claims(now_ms()));
    let mut workers = forge.envoy.admitting(&es256).await.unwrap();
    workers.extend(forge.envoy.admitting(RS256).await.unwrap());
    eventually("Envoy verifies", async || {
        anyhow::ensure!(by_host(&forge).await? >= 4, "two tokens at two workers");
        Ok(())
    })
    .await;
    for token in [&es256, RS256] {
        for worker in &mut workers {
            let bad = worker.send(client::bearer(&spoilt(token))).await.unwrap().expect(401).unwrap();
            assert_eq!(bad.code(), "token_signature_invalid");
        }
    }
    // Envoy's code reads numbers, and would take the first two for the good one.
    for other in [padded(&es256, &[0], &[0]), padded(&es256, &[0; 2], &[0; 2]), padded(&es256, &[], &[0])] {
        for worker in &mut workers {
            let bad = worker.send(client::bearer(&other)).await.unwrap().expect(401).unwrap();
            assert_eq!(bad.code(), "token_signature_invalid");
        }
    }
}

#[test]
fn are_verified_here_where_the_host_does_not_say() {
    let yes = || Ok(vec![0x08, 0x01]);
    let no = || Ok([b"\x12\x03", b"bad".as_slice()].concat());
    type Answer = fn() -> Result<Vec<u8>, u32>;
    // What the host says, whether a good and a bad signature count then, and how often it is asked about four.
    let cases: [(&str, Answer, bool, bool, u32); 8] = [
        ("yes", yes, true, true, 4),
        ("no", no, false, false, 4),
        ("nothing", || Ok(Vec::new()), true, false, 4),
        ("yes and more", || Ok(vec![0x08, 0x01, 0x12, 0x00]), true, false, 4),
        ("no such number", || Ok(vec![0x08, 0x02]), true, false, 4),
        ("a key it cannot read", || Err(2), true, false, 4),
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
        edge.host.world().functions.insert("verify_signature".into(), Box::new(function));
        for token in [es256(&Edge::claims(1)), RS256.to_owned()] {
            assert_eq!(edge.ask(&request(&spoilt(&token))).is_ok(), bad, "a host that says {name}");
            assert_eq!(edge.ask(&request(&token)).is_ok(), good, "a host that says {name}");
        }
        assert_eq!(asked.get(), times, "a host that says {name}");
    }
}

/// An edge that accepts them.
pub(crate) fn edge() -> Edge {
    let mut edge = Edge::with(configuration(), |_| ());
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
    // Behind the byte that says that both coordinates follow.
    VerifyingKey::local("ec", Algorithm::Es256, &point.as_bytes()[1..]).unwrap()
}

fn rs256_key() -> VerifyingKey {
    let modulus = base64url::decode(RS256_MODULUS.as_bytes()).unwrap();
    VerifyingKey::local("rsa", Algorithm::Rs256, &[&[0, 1, 0, 1], modulus.as_slice()].concat()).unwrap()
}

/// With another bit in the middle of its signature.
fn spoilt(token: &str) -> String {
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let mut signature = base64url::decode(signature.as_bytes()).unwrap();
    let middle = signature.len() / 2;
    signature[middle] ^= 1;
    [signed, &base64url::encode(&signature)].join(".")
}

/// With this in front of both numbers of its signature.
fn padded(token: &str, before_r: &[u8], before_s: &[u8]) -> String {
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let signature = base64url::decode(signature.as_bytes()).unwrap();
    let (r, s) = signature.split_at(signature.len() / 2);
    [signed, &base64url::encode(&[before_r, r, before_s, s].concat())].join(".")
}

/// Issued in 2023, good until 2100; nobody has the private key any more.
pub(crate) const RS256: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6InJzYSIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJodHRwczovL2tleXN0aWxlLnRlc3QiLCJzdWIiOiJPUDAwMDAwMDAwMDEiLCJhdWQiOlsiYXBpIl0sImlhdCI6MTcwMDAwMDAwMCwiZXhwIjo0MTAyNDQ0ODAwLCJqdGkiOiIwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMSIsIm9wZXJhdG9yIjp7Im9wZXJhdG9ySWQiOiJPUDAwMDAwMDAwMDEifX0.fDehkrd_5COxOFHv9PdiVk6kcjqzX9FfZA12UnrJoQzIKkWLlecBltiKhMrat48N6rESslG2ewzr6T45b5gPFoarnUoiSJa6sIMxeHxsguVQrBf3TFNdUCNBufar8ZReH1kjPQQZ11oqodxAZuQnUgLsz39n1XDfOjBE6AlhpURYBe3RyBQpUqrlJ4xJBK9VOWxvps3i4YXeH0y3KVLu9TCM1B8yHvF-DboXqoaFf6ppUJJQqSgI37KTGUh497A9bgeU06JEnrJ0gtZ_SwM0NIDsuIKfP7F4EIYQD-ComE6xtnK4fipZ4g0hLlmu6FjG1XZspEU4eCpvDJQU_dZWoA";

const RS256_MODULUS: &str = "wfDlh_6YDs7upbJR4qXnR2CPnS1D50jRkZFnWDkWGLjtJSghBihXMULjWsXakQkyVplcT9pRamqoSqWYMk09Wl9iinOuuIsTeFLeCEgaGFVU6kiczgrG0nw4vKvXQ1akNXS24P0SmdotzACDAUB85_BYgtSDQ66QyVFhn7BfKbXUcT--E4rE2XpvGDnraHqsPfC4tALQzOPna_Xw03hu98qYqZf0zlMprwtzmx9xdaWvivTmLEb1EiO8C1OS68ub3atvdhxNQ0ADwMuHDejZl7FVDDHveE_N6wCfwTsaIAHDJ6b7We5WzpJb62CeK6EapktRj6xErko2Dluu-M45Aw";
