//! Keys of other issuers are used as their sets name them: by `kid` and algorithm, or as the only one of an algorithm. Envoy
//! verifies P-521 and large RSA keys. A key that an issuer starts to use is fetched when a token names it.

use crate::host_edge::{HostEdge, NOW_MS, configuration, request};
use crate::issuer_down::Idp;
use bundle::builder::Builder;
use harness::envoy::Settings;
use harness::fake_control_plane::{FakeControlPlane, hex};
use harness::host::HttpCall;
use harness::{Connection, Deployment, Envoy, Options, client, eventually};
use p256::ecdsa::signature::Signer;
use serde_json::{Value, json};
use token::mint::SigningKey;
use token::{Algorithm, Fingerprint, VerifyingKey, base64url};

/// The issuers of one edge, and their keys.
fn issuers(settings: &mut Settings) {
    let member = |issuer: &str| json!({ "issuer": issuer, "audiences": ["api"] });
    settings.plugin_configuration["issuers"] = [ISSUER, SHARED_KID, NAMELESS, TWO].map(member).into();
}

/// A key set with every kind of key in [`ISSUER`], several algorithms of one `kid` in [`SHARED_KID`], one key without `kid`
/// for each of two algorithms in [`NAMELESS`], and two keys of one algorithm in [`TWO`].
fn set_keys(content: &mut Builder, local: &VerifyingKey) {
    let ed = |issuer: &str, kid: &str, seed: u8| foreign(issuer, kid, Algorithm::EdDsa, &ed25519(seed));
    let p256 = |issuer: &str, kid: &str| {
        let point = p256_key().verifying_key().to_sec1_point(false);
        foreign(issuer, kid, Algorithm::Es256, &point.as_bytes()[1..])
    };
    let rsa = |kid: &str, modulus: &str| {
        let modulus = base64url::decode(modulus.as_bytes()).unwrap();
        foreign(ISSUER, kid, Algorithm::Rs256, &[&[0, 1, 0, 1], &modulus[..]].concat())
    };
    let point = p521_key().verifying_key().to_sec1_point(false);
    let keys = [
        local.clone(),
        foreign(ISSUER, "p521", Algorithm::Es512, &point.as_bytes()[1..]),
        rsa("rsa6144", MODULUS_6144),
        rsa("rsa8192", MODULUS_8192),
        ed(SHARED_KID, "one", 1),
        p256(SHARED_KID, "one"),
        ed(NAMELESS, "", 1),
        p256(NAMELESS, ""),
        ed(TWO, "a", 1),
        ed(TWO, "b", 2),
        p256(TWO, "c"),
    ];
    content.set_verifying_keys(&keys).unwrap();
}

fn foreign(issuer: &str, kid: &str, algorithm: Algorithm, material: &[u8]) -> VerifyingKey {
    VerifyingKey::foreign(issuer, kid, algorithm, material).unwrap()
}

fn ed25519(seed: u8) -> [u8; 32] {
    *SigningKey::ed25519("x", &[seed; 32]).unwrap().verifying_key().public_bytes().unwrap()
}

fn p256_key() -> p256::ecdsa::SigningKey {
    p256::ecdsa::SigningKey::from_slice(&[4; 32]).unwrap()
}

fn p521_key() -> p521::ecdsa::SigningKey {
    p521::ecdsa::SigningKey::from_slice(&[&[0, 5][..], &[5; 64]].concat()).unwrap()
}

fn header(alg: &str, kid: Option<&str>) -> String {
    match kid {
        Some(kid) => json!({ "alg": alg, "kid": kid }).to_string(),
        None => json!({ "alg": alg }).to_string(),
    }
}

fn claims(issuer: &str) -> Value {
    json!({ "iss": issuer, "sub": "alice", "aud": "api", "iat": 1_700_000_000, "exp": 4_102_444_800_u64 })
}

fn sign(issuer: &str, alg: &str, kid: Option<&str>, signature: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let parts = [header(alg, kid), claims(issuer).to_string()].map(|part| base64url::encode(part.as_bytes()));
    let signed = parts.join(".");
    [&signed, ".", &base64url::encode(&signature(signed.as_bytes()))].concat()
}

fn eddsa(issuer: &str, kid: Option<&str>, seed: u8) -> String {
    let key = SigningKey::ed25519("x", &[seed; 32]).unwrap();
    key.sign(&header("EdDSA", kid), claims(issuer).to_string().as_bytes()).expose().to_owned()
}

fn es256(issuer: &str, kid: Option<&str>) -> String {
    let sign_p256 = |signed: &[u8]| {
        let signature: p256::ecdsa::Signature = p256_key().sign(signed);
        signature.to_bytes().to_vec()
    };
    sign(issuer, "ES256", kid, sign_p256)
}

fn es512(kid: Option<&str>) -> String {
    let sign_p521 = |signed: &[u8]| {
        let signature: p521::ecdsa::Signature = p521_key().sign(signed);
        signature.to_bytes().to_vec()
    };
    sign(ISSUER, "ES512", kid, sign_p521)
}

/// Changes the signature of a token.
fn with_signature(token: &str, change: impl FnOnce(&mut Vec<u8>)) -> String {
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let mut signature = base64url::decode(signature.as_bytes()).unwrap();
    change(&mut signature);
    [signed, ".", &base64url::encode(&signature)].concat()
}

pub(crate) fn with_other_signature(token: &str) -> String {
    with_signature(token, |signature| signature[100] ^= 1)
}

/// Returns `admitted`, or the code of the refusal.
async fn decision(worker: &mut Connection, token: &str) -> String {
    let response = worker.send(client::bearer(token)).await.unwrap();
    if response.status == 200 { "admitted".to_owned() } else { response.code() }
}

#[tokio::test]
async fn b5_c1_c4_keys_are_found_and_envoy_verifies_large_ones() {
    let mut control_plane = FakeControlPlane::start_with(issuers).await;
    let local = control_plane.signing.verifying_key().clone();
    set_keys(&mut control_plane.content, &local);
    control_plane.publish();
    let p521 = es512(Some("p521"));
    let mut workers = control_plane.envoy.wait_admitting(&p521).await.unwrap();
    let flip = |signature: &mut Vec<u8>| signature[100] ^= 1;
    let table = [
        (p521.clone(), "admitted"),
        (es512(None), "admitted"),
        (with_signature(&p521, flip), "token_signature_invalid"),
        // Numbers of another length, zero, or above the order, which the host could read as others.
        (with_signature(&p521, |signature| signature.insert(0, 0)), "token_signature_invalid"),
        (with_signature(&p521, |signature| signature[..66].fill(0)), "token_signature_invalid"),
        (with_signature(&p521, |signature| signature[66..].fill(255)), "token_signature_invalid"),
        (with_signature(&p521, |signature| *signature = vec![1; 64]), "token_signature_invalid"),
        (RS256_6144.to_owned(), "admitted"),
        (RS256_8192.to_owned(), "admitted"),
        (with_signature(RS256_6144, flip), "token_signature_invalid"),
        (with_signature(RS256_8192, flip), "token_signature_invalid"),
        // One `kid` for two types of keys: each token gets the key of its algorithm, and no other check.
        (eddsa(SHARED_KID, Some("one"), 1), "admitted"),
        (es256(SHARED_KID, Some("one")), "admitted"),
        (eddsa(SHARED_KID, Some("one"), 2), "token_signature_invalid"),
        (sign(SHARED_KID, "HS256", Some("one"), |_| vec![0; 32]), "token_algorithm_mismatch"),
        (sign(SHARED_KID, "none", Some("one"), |_| Vec::new()), "token_algorithm_mismatch"),
        (eddsa(SHARED_KID, Some("two"), 1), "token_key_unknown"),
        (eddsa(SHARED_KID, None, 1), "admitted"),
        // Keys without `kid`.
        (eddsa(NAMELESS, Some("any"), 1), "admitted"),
        (eddsa(NAMELESS, None, 1), "admitted"),
        (es256(NAMELESS, Some("any")), "admitted"),
        (eddsa(NAMELESS, Some("any"), 2), "token_signature_invalid"),
        // Two keys of one algorithm.
        (eddsa(TWO, None, 1), "token_key_ambiguous"),
        (eddsa(TWO, Some("b"), 2), "admitted"),
        (eddsa(TWO, Some("a"), 2), "token_signature_invalid"),
        (es256(TWO, None), "admitted"),
        // The keys of another issuer are for none of its tokens.
        (eddsa(ISSUER, None, 1), "token_algorithm_mismatch"),
        (eddsa(ISSUER, Some("one"), 1), "token_key_unknown"),
    ];
    for worker in &mut workers {
        for (token, expected) in &table {
            assert_eq!(decision(worker, token).await, *expected, "{token}");
        }
    }
    // A revoked token is refused with its other ECDSA signature, too.
    let other = VerifyingKey::foreign(ISSUER, "p521", Algorithm::Es512, &{
        let point = p521_key().verifying_key().to_sec1_point(false);
        point.as_bytes()[1..].to_vec()
    })
    .unwrap();
    let fingerprints: Vec<_> = token::Unverified::parse(p521.as_bytes())
        .unwrap()
        .verify_with(&other, &Yes)
        .unwrap()
        .fingerprints()
        .collect();
    assert_eq!(fingerprints.len(), 2);
    control_plane.content.revoke(1, fingerprints[1]).unwrap();
    control_plane.publish();
    Envoy::wait_refusing(&mut workers, &p521, 401, "revoked").await;
}

/// A host that accepts every signature.
struct Yes;

impl token::SignatureVerifier for Yes {
    fn verify(&self, _: Algorithm, _: &[u8], _: &[u8], _: &[u8]) -> Option<bool> {
        Some(true)
    }
}

/// Returns an edge that accepts tokens of the issuers, in a host without `verify_signature`.
pub(crate) fn edge() -> HostEdge {
    let mut configuration = configuration();
    configuration["issuers"] =
        [ISSUER, TWO].map(|issuer| json!({ "issuer": issuer, "audiences": ["api"] })).into();
    let mut edge = HostEdge::start_with(configuration, |_| ());
    let local = edge.eddsa.verifying_key().clone();
    set_keys(&mut edge.content, &local);
    edge.publish();
    edge
}

/// The filter has the code for RSA, but not for P-521.
#[test]
fn c4_without_a_host_p521_is_refused_with_its_own_reason() {
    let mut edge = edge();
    let token = es512(Some("p521"));
    for token in [&token, &with_signature(&token, |signature| signature[100] ^= 1)] {
        assert_eq!(edge.ask(&request(token)).unwrap_err(), "keystile_token_algorithm_unsupported");
    }
    for token in [RS256_6144, RS256_8192] {
        assert!(edge.ask(&request(token)).is_ok());
        let bad = with_signature(token, |signature| signature[100] ^= 1);
        assert_eq!(edge.ask(&request(&bad)).unwrap_err(), "keystile_token_signature_invalid");
    }
    type Answer = fn() -> Result<Vec<u8>, u32>;
    let cases: [(Answer, &str); 4] = [
        (|| Ok(vec![0x08, 0x01]), "admitted"),
        (|| Ok([b"\x12\x03", b"bad".as_slice()].concat()), "keystile_token_signature_invalid"),
        (|| Ok(Vec::new()), "keystile_token_algorithm_unsupported"),
        (|| Err(2), "keystile_token_algorithm_unsupported"),
    ];
    for (answer, expected) in cases {
        let mut edge = self::edge();
        edge.host.state().functions.insert("verify_signature".into(), Box::new(move |_: &[u8]| answer()));
        let decided = edge.ask(&request(&token)).err();
        assert_eq!(decided.as_deref().unwrap_or("admitted"), expected);
        let zero = with_signature(&token, |signature| signature[..66].fill(0));
        assert_eq!(edge.ask(&request(&zero)).unwrap_err(), "keystile_token_signature_invalid");
    }
}

/// The reports of missing keys, as the control plane gets them.
fn reports(edge: &mut HostEdge) -> Vec<String> {
    let header = |call: &HttpCall| {
        let value = call.headers.get("x-keystile-missing-keys")?;
        Some(String::from_utf8(value.to_vec()).unwrap())
    };
    let found: Vec<_> = edge.host.state().http_calls.iter().filter_map(header).collect();
    edge.host.state().http_calls.retain(|call| header(call).is_none());
    found
}

/// A client can name any key: reports are few, and contain nothing that it chooses.
#[test]
fn c5_reports_of_missing_keys_are_bounded_and_have_nothing_of_a_token() {
    let mut edge = edge();
    edge.host.tick().unwrap();
    assert_eq!(reports(&mut edge), [""; 0]);
    let mut sent = Vec::new();
    // Ten seconds with a tick every 25 ms.
    for tick in 0..400_u64 {
        for issuer in [ISSUER, TWO] {
            let kid = format!("flood-{tick}");
            assert_eq!(
                edge.ask(&request(&eddsa(issuer, Some(&kid), 1))).unwrap_err(),
                "keystile_token_key_unknown"
            );
        }
        // These do not name a missing key.
        let _ = edge.ask(&request(&eddsa("https://else.example", Some("x"), 1)));
        let _ = edge.ask(&request(&eddsa(TWO, None, 1)));
        edge.host.state().now += 25_000_000;
        edge.host.tick().unwrap();
        sent.extend(reports(&mut edge));
    }
    let hashes = [ISSUER, TWO].map(|issuer| hex(Fingerprint::digest(issuer.as_bytes()).as_bytes()));
    for hash in &hashes {
        let times = sent.iter().filter(|report| *report == hash).count();
        assert!((2..=3).contains(&times), "{times} reports in ten seconds: {sent:?}");
    }
    assert!(sent.iter().all(|report| hashes.contains(report)), "{sent:?}");
    assert!(!edge.host.state().log.iter().any(|line| line.contains("flood")), "kids are not logged");
    // Without such tokens there are no reports.
    for _ in 0..400 {
        edge.host.state().now += 25_000_000;
        edge.host.tick().unwrap();
    }
    assert_eq!(reports(&mut edge), [""; 0]);
    assert_eq!(NOW_MS / 1000, 1_800_000_000, "the tokens are valid at the time of the host");
}

/// The next regular fetch is due after five minutes.
#[tokio::test]
async fn c5_key_that_a_token_names_is_fetched() {
    let [first, second] =
        ["first", "second"].map(|kid| SigningKey::ed25519(kid, &[kid.as_bytes()[0]; 32]).unwrap());
    let token = |key: &SigningKey| {
        key.sign(&header("EdDSA", Some(key.kid())), claims(ISSUER).to_string().as_bytes()).expose().to_owned()
    };
    let mut idp = Idp::start("127.0.0.1:0".parse().unwrap(), &[&first]).await;
    let settings = tempfile::NamedTempFile::new().unwrap();
    let section = format!(
        "[[issuers]]\nissuer = '{ISSUER}'\njwks_url = 'http://{}/keys'\nmin_refresh = '1s'\n",
        idp.address()
    );
    std::fs::write(settings.path(), section).unwrap();
    let deployment = Deployment::start(Options {
        settings: vec![("KEYSTILE_CONFIG", settings.path().display().to_string())],
        plugin: |configuration| {
            configuration["issuers"] = json!([{ "issuer": ISSUER, "audiences": ["api"] }]);
        },
        ..Options::default()
    })
    .await
    .unwrap();
    let mut workers = deployment.envoy.wait_admitting(&token(&first)).await.unwrap();
    let address = idp.address();
    idp.stop().await;
    let _idp = Idp::start(address, &[&first, &second]).await;
    let secret_name = "a-kid-that-a-client-chose";
    let unknown = eddsa(ISSUER, Some(secret_name), 1);
    assert_eq!(decision(&mut workers[0], &unknown).await, "token_key_unknown");
    for worker in &mut workers {
        eventually("the new key is used", async || match decision(worker, &token(&second)).await.as_str() {
            "admitted" => Ok(()),
            code => anyhow::bail!("{code}"),
        })
        .await;
        assert_eq!(decision(worker, &token(&first)).await, "admitted");
        assert_eq!(decision(worker, &unknown).await, "token_key_unknown");
    }
    for log in [deployment.envoy.log(), deployment.control_plane.log()] {
        assert!(!log.contains(secret_name), "{log}");
    }
}

const ISSUER: &str = "https://idp.example";
const SHARED_KID: &str = "https://shared.example";
const NAMELESS: &str = "https://nameless.example";
const TWO: &str = "https://two.example";

const MODULUS_6144: &str = "sqaZBCeor2HsZxgYD32hpa-oAz37kkDS-EhNprLqXNx_Z6omzPbHAz50odPq6AYNcEqlosngKwhIKWtugvmKLOHdKehAJIDzoPYI4HbgzIdWEm1uFKY5wkupLfbJBifguqjmXkX9C3Wd5zg_rwnKhvaP86u40K4VFz73GaK0i8wHXAqcPYtfwmxGq_MK0wSnHqePfOJBfCLsFCt8opzUsaJZJwOvGUayChfXkZX7VLu-BqzeLRCHUsnzwJ2vmRSsAWCcm34s1lr3MTfqmkDFqdrNIkExRAiCvPkrZt7B8HyoOIoKmmvnm-Z_tVdzIKr5kDHyIA9x8kgWbaAKhkh0qFkuRHaJu2Kk8tQ5W72Twr0c1vPod04ktGbyDveoOC0CgERxka9XWrWLuyJUdCA65Mso5CacuiqAp9kpkKFr7GQWONLBQ4e3JCdcKc7klQA4dMH0PjabvaSfm8pOlfubbO6MRWGM4Kcg9aWpf8LhLDr9tlu_4H8UeQmXbZ_eyJMOV_2aSUofln3LyH9WCGx7n2oM5LDX7_kEN2emXlH1uu5mMko3EDCx-bOzzcRnAUh9DQvCTcSVvvOQB8ctIfubhmAbiPfNa7ySm8CX5SvkehCR4OmG7URJ4D3MCAxiiTeyN8B5DLhljlZ0EgVtaL1A84dHLFtwRy5wgsXGR8PmxItn4mWJaaxovvwYiHJ_45WrnNxifFWHgYmAI_6mQc_Lpg8Xeh42VTDSdYIkc5M4xTDdkPz5FGHN-9WniFy2aCPYJc6dGjHoG6Uya-9pY_F8IYmrpuU4YUbfP93mUMZPwwfCQE7-p6stCBLWKhpKFugogJvKeQ5hITpVIfgcBFNx870LLlGQeTxTi_Do_MdqDpexGwXvmLBEOIcKA3K8MX_u3DGHVT1fqUJyBKy_E47YA1tLAdBAmVswWBjROinRwSNfvl9YSnv2kMnifT1lR5NzXvu2JgM92-_q8btux5rSFcwIxh5Pz5KRELXLJcaKyMqAJEzC96OtBck9iet8DKyD";

/// A token that is valid until 2100. Its private key no longer exists.
pub(crate) const RS256_6144: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6InJzYTYxNDQifQ.eyJpc3MiOiJodHRwczovL2lkcC5leGFtcGxlIiwic3ViIjoiYWxpY2UiLCJhdWQiOiJhcGkiLCJpYXQiOjE3MDAwMDAwMDAsImV4cCI6NDEwMjQ0NDgwMH0.oswy3h9emzW2Z4mFn8dZeBy6WHYSdFXwB1KRWVOfiG0GZtKteE70fsQxJ1Mb79LGsAVgI-hAfsfwSwizqR_u_LUi-Q6zlayZW8WHjIkNPCRfVypmOntsjtNaFHA-DvxTvFNT87UKfvSND91bYpA9SFy-dVHpb6nrJpVqnq3OeH-yAunt102mUGJA3Z0ttRTmgUCNeVaUwGayodtTeWIoGTz_A4emxWFQHjGqXveIClKFg9TT88CQrwf_R05thu2Dcqbpth_rntBYrqoEW3P_I06BgamaVERbaiPipk7oPD1JSnO7RrUfLr1jUnpFNLq68zkLR29EzUiIPMlHPOd4A9x2uuNYVIbIRYOdt-mu90ZFivNGOp-Bo1ItskoZPlCnpAu3ndUhLhVzeeZ1jvphcdX2gNGZFCTU4QpKweM_R8jQgaMnNcd2i8_G7l35Tw6K_Aryi8emJsg8q3KKsmzqspewgR2XhIUyuZniFrr5-DrhxUuKGVGPPiE4T2Tna2fZXnsANeqe9diqs0ACtcy3kYrabBMJHWz0kvigQVpfdu8ny3s9gtQQaeV1XBRLNSaW1Hvm4fLVZ08eQ9HGa24AiISotWSoIeGmosRRDRpsUXpDmdCo9qhO-fn79tdX77v_mPZgvlaWB_3Fo5xlmAyAEacpXQmX4d_LgaIfZ9-e-R3RPlHkvhakrAtq1YPME57U9gV5-MnleWVIiH6OYOK3zkYHmbISK9nfvQ5WwtDcjePgLlQmWLv16PkFtsdPpiyDM7-PKOy2QvraawPLu19bMyRki9CibjYvacjvjsH6qiJNdHb3Bmanmu1yrOUFxb7_6l-jHHXiUme-MnB_rB9ao-zOMqfhXx4gim73DBwl5EOXKv4iDWbS2h4igEaoDKEZ8zBTa7LoPhQHi3psKwZmtnJFUEjyzLDxq12kw7YMLfTLQmkbtazfv5KkbhaCaXBQU72p4lzosJazw-zkJpIr2N2ePI8TY81Ctk_bQ7L3kZHHWClQcD2pRcGFtGZmrYwm";

const MODULUS_8192: &str = "o2lQHa0l6lFzYG65VuTormjN-jOd-PmVan7oRdkWaDTXnNfiqDyzaguyk23YEhA4gau0wOZu9FARR2Sqsq2sb9oB7qll8ekqihxpOkkDfywezltJC6IJGzlsgQ1BKe7wm_hxuZbgSOLLBA4N0y6_kGh5SzLp3qDyvOOheA90raNKeWmoGouihPnv-a042zRwM6PLdvoeKTWSs3rRq0Pn2MlejiGlP60MicOMW1Uog7RLX5MKSrvKye70y-XPwXABoVMUlzbxrTUh91YPqEooYkvFdLQ24cWc6ZmIVvdkbLCbFMDhx8irQHozS-sxceSiTvv2afH8ECJTSSWyvxKMaJauApcugI3Ym2its6SZRGZjvpjohNseeqoOorwlu_Qlfw3HRavTqErtHUVShwpaMpozxhvCih2AeA7d3FK0LrcrzyhTeRT_P22pbHwwRWd6UG4sdfvcdpabJ007nUszX5D6tkZ-wM5vxWFg81YfQvnzF9jEylVqojaM4rA1HtR_2wd7AzaNgfzmjIA3ZhWzqE5omZX_eKRIcg8CcZ57yNu78V5a4iviPQZumo0ivaSN5HZhV0GdOSz1G6S7cjVKAuEnr1qpEQFGD8l31cYid8CcU42hTwu2r6W3Kgq0zc7XDli7koTXgSFgzznoaajaFGjpPyiKiNYnqerZpneS_y_ctapgE9Yg1W7HkNBGTryXsF9sxmDw2J7xKZ3WndjYJ0ntkNhMdkqZMivDlyiyHViQnt_PPmXxZJrfBs6GQNK3memgtHnyVNpYWZb9BAFtqT1hH4CUPzclFI4ApADQzTdD4wheBqk_ppS8eFCSYWMJWqYlmMRq6qSZEJWOzhvtb2MFGVpyKTrHX5LZhH3k8MXMxSZDR7KnFM8WkMPPs5tmlq92hXPuW6vDUviC8IPXXRQCyuTeNt27Z-JfG1Gq0UA_LoLY3M-JOjIkfczDVbtVs5tDXzZ96eoOb-EHh7x5Ul2vUPzZ4rYzIlAaLApz22OhIIbli_9-IRhK9lJztUysf5_5jRMnk7YlG8VW-4xmHjohRhbePLDsJP1r2UVsBJfy20ZahIKua8hZCpfcxJdALMtynAihaIBLZMRsObubOfpdn1Y6SOGmS8lUWxKCS2M_0ir-7z7NVoOWpCJCjNXTRDVunsgaRN_6ZtALdwyjw1OLN1p10DqZck7-yxgapV3wF7HkneN-aSYqnVqRg2FGzXlD4b-aNz__hIwzNr_lqkzhI2i9CwjBu4_ehVJEk4NsW7BOKNTdnEs_M5M3VELqbI-cCtVz_jN6NOm31iWHHt4jIeQLKUMuF6EpmEtlc3y6up7ZhnZgMFzDYV17x3dQPRaDpYZGLKS_bry-apFnWQ";

/// A token that is valid until 2100. Its private key no longer exists.
pub(crate) const RS256_8192: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6InJzYTgxOTIifQ.eyJpc3MiOiJodHRwczovL2lkcC5leGFtcGxlIiwic3ViIjoiYWxpY2UiLCJhdWQiOiJhcGkiLCJpYXQiOjE3MDAwMDAwMDAsImV4cCI6NDEwMjQ0NDgwMH0.YBZ4t4jA24pNDxvlIQ-eRrPgxJ4wb0YZU0TCiKZsz26sCQbpGctqJQvQbPih6ov9xjyebJl2kWRHm8a3_ESBvDVWyRe1fceiHgGjZKvvuyCYyjspEAn52f7N7zK3HQMOF5S98BHLnw6WSeHKcsrSDUeBHuzSCzYxdbUUqR5P3Ubi94T7s2TRqCyfr79_dxGe8p_VD4zVJ8pph52klsaePo35yuiciz3CK5asccMaGodqTi1zuA5yVIbeFQ5z05pCssC2898BxykEGfvBaTVDsAqBuUFcUMV_EaLiSQCgWq9wUjvp1Ir2U51cgFqzF-dFf_r_Pa72rHPy5OPTbKPVc6dWTq-HazBAx7x9pjqFjzrvDQqZh-GdaZeIZy3DgD-tYdICA5djT5MeKUssRyztAny2ebXv4dzU1Nca1gF9bOIxqffaSF0QBHb7grC8yGyocdMEcoUBWDBxydp6j07Ld_SW-jEclNif5NDz7IHwtzvvNod_Bn9QGaG9f6UsgWosAFPQYNyou-ZvnkmQX0P9VrV-PfYyXGgRJjGI2gZk6b2ghT5H2h3AYGD8OLvEEJoggEl-Iv3hEVG4RGK0-IWy6WzAcLu81xw7UaXV3zjtuCns7Gvmey5coMa24XVegyZpHVxu5u-I7dI4FuLYWUkvjzJBPZvHxtA4Pbk5TlRQRjVMNkN5JNSbWmiojWvPfD113435pbnxKwLXpsUW1-FPp0QKK3YTLe94oa0X4cclFQBpkfX0uknElWnV1aRU1fb5dL8lltCAjtDkgUHlNo3ie-SxTE8q9-9DOW1J6K36FnAbOC9BMPXKh4cD2-CKvIC-5URYx-4dYTQpR_Bh-NUDwmGlasB8EILLrxuiNvHHOlSsm3UCdmrLQ7HT0cNJF2RWzG9ZDNDxyv8zBhChaddI2u8H2Lsc1xU-9bVETZv0DuAcZcGDZThGtXRnD6DyM0R1bj2AmPuPXxwkpDMmc1TR2NTnYqD1uneiPprK1wuKXu1vgGk4ljnI5GTETmQekAZ0B36Z30ylQqxjRYmXwjtamV70s3cMAWaCTclVph6Wl1QxHQ5Z2kxL-khch4J2DubpHr4JrB6Ig-WlLdTikaWh2hS9O41R48oW4fWhutra_ZY4fJbWiNCt78uCqEdKGoLXTI-Y-apdLJUWDH5rYVfhDQLCfHzODWa6_s4g1WGK_LGw-WxP7-W_h24mV1RcMlBinicbMmqQQXOlgMxtccq5FspFxtYLDqKojrwPREkV74RIPjBLuTsMx6NvgX_E8K3MdGdfM9k-mS8mQmSH9WLnm29l89TzBSQaIbTs_MPikbv2C44gO70qnrI9l1yj3o-4U8j9Xm7NsGO7Sq17R-U0eA";
