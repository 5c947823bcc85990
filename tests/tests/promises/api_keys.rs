//! API keys at the edge: they expire, and an edge has no key that can create one.

use bundle::{Manifest, ObjectKind, Objects, Snapshot};
use harness::client::{Response, bearer, send};
use harness::fake_control_plane::{FakeControlPlane, hex, now_ms};
use harness::{ControlPlane, Deployment, Options, eventually};
use hyper::Request;
use serde_json::{Value, json};
use std::net::SocketAddr;
use token::api_key::{ApiKeyFields, Kind, MintingKey, Prefix};
use token::{Fingerprint, base64url};

/// The edge refuses an expired API key while the control plane is down.
#[tokio::test]
async fn format_2_key_expires_without_control_plane() {
    let mut deployment = started().await;
    let alice = format!("{}/alice", deployment.control_plane.root().operator_id);
    let create = |more: &[&str]| {
        let arguments = ["key", "create", "--user", &alice].into_iter().chain(more.iter().copied());
        deployment.control_plane.cli(arguments).unwrap()
    };
    let (lasting, ending) = (create(&[]), create(&["--expires", "10s"]));
    let end = ending["expires_at"].as_u64().unwrap();
    let [lasting, ending] = [&lasting, &ending].map(|key| text(&key["api_key"]));
    for key in [&lasting, &ending] {
        let echo =
            eventually("it is admitted", async || ask(&deployment, key, &alice).await.expect(200)).await;
        let headers = &echo.json().unwrap()["headers"];
        assert_eq!(headers["x-keystile-subject"], json!([alice]));
        assert_eq!(
            headers["x-keystile-fingerprint"],
            json!([Fingerprint::digest(key.as_bytes()).to_string()])
        );
        assert!(!echo.text().contains(key.as_str()), "the credential reached the upstream");
    }
    deployment.control_plane.kill().unwrap();
    let refused =
        eventually("it expires", async || ask(&deployment, &ending, &alice).await.expect(401)).await;
    // The leeway is one second here.
    assert!(now_ms() / 1000 > end, "not before its end and the leeway");
    assert_eq!(refused.code(), "api_key_expired");
    ask(&deployment, &lasting, &alice).await.expect(200).unwrap();
}

/// Tries every 32 bytes that an edge gets as a seed or secret. The short form shows that the search would find one.
#[tokio::test]
async fn edge_data_cannot_mint_format_2_keys() {
    let deployment = started().await;
    let operator = deployment.control_plane.root().operator_id.clone();
    let alice = format!("{operator}/alice");
    let create =
        || text(&deployment.control_plane.cli(["key", "create", "--user", &alice]).unwrap()["api_key"]);
    let honest = create();
    eventually("the honest one is admitted", async || ask(&deployment, &honest, &alice).await.expect(200))
        .await;
    let edge = deployment.control_plane.enroll("stolen").unwrap();
    let key = text(&edge.plugin_configuration["root_keys"][0]);

    let (snapshot, held) = fetch_everything(&deployment.control_plane, &edge.credential, &key).await;
    assert!(!held.iter().any(|(kind, _)| *kind == Some(ObjectKind::SecretKeys)), "edges need no secret");
    let public = *snapshot.generation_key(1).unwrap().public_bytes().unwrap();
    assert_eq!(candidate_keys(&snapshot, &held, &operator), Vec::<String>::new());
    // Try the public key as a private key, in each format.
    for kind in Kind::ALL {
        let thief = MintingKey::new(1, kind, &public).unwrap();
        for name in ["alice", "root of all"] {
            let username = if name == "alice" { &alice } else { &operator };
            let contents = contents(&operator, username);
            let Some(forged) = thief.mint(&contents) else { continue };
            let refused = ask(&deployment, forged.expose(), username).await.expect(401).unwrap();
            assert!(
                ["api_key_signature_invalid", "api_key_tag_invalid"].contains(&&*refused.code()),
                "{kind:?}"
            );
        }
    }

    // In the short form, every edge has the secret that creates them.
    deployment.control_plane.cli(["key", "rotate", "tag", "--short"]).unwrap();
    let short = create();
    eventually("the short one is admitted", async || ask(&deployment, &short, &alice).await.expect(200))
        .await;
    let (snapshot, held) = fetch_everything(&deployment.control_plane, &edge.credential, &key).await;
    let forged = candidate_keys(&snapshot, &held, &operator);
    assert!(!forged.is_empty(), "the search finds the secret of the short form");
    for forged in &forged {
        ask(&deployment, forged, &format!("{operator}/mallory")).await.expect(200).unwrap();
        // Short keys are never valid for a root user.
        ask(&deployment, forged, &operator).await.expect(401).unwrap();
    }
    // Only the retirement of the generation ends it.
    deployment.control_plane.cli(["key", "retire", "tag-2", "--yes"]).unwrap();
    eventually("the forged key is refused", async || {
        let refused = ask(&deployment, &forged[0], &format!("{operator}/mallory")).await.expect(401)?;
        anyhow::ensure!(refused.code() == "api_key_generation_unknown", "{}", refused.code());
        Ok(())
    })
    .await;
    ask(&deployment, &honest, &alice).await.expect(200).unwrap();
    // Edges have no secret again after a rotation to format 2 and the retirement of the short generation.
    deployment.control_plane.cli(["key", "rotate", "tag"]).unwrap();
    deployment.control_plane.cli(["key", "retire", "tag-3", "--yes"]).unwrap();
    eventually("the secrets are gone from the bundle", async || {
        let (_, held) = fetch_everything(&deployment.control_plane, &edge.credential, &key).await;
        anyhow::ensure!(!held.iter().any(|(kind, _)| *kind == Some(ObjectKind::SecretKeys)));
        Ok(())
    })
    .await;
}

/// Keys of all three formats are valid side by side, until their generation is retired.
#[tokio::test]
async fn each_key_format_is_admitted_until_its_generation_is_retired() {
    let mut control_plane = FakeControlPlane::start_with(|settings| {
        settings.plugin_configuration["api_keys"] = json!({});
    })
    .await;
    let minting = [(1, Kind::Format1), (2, Kind::Signed), (3, Kind::Short)]
        .map(|(generation, kind)| MintingKey::new(generation, kind, &[generation; 32]).unwrap());
    let keys: Vec<String> = minting
        .iter()
        .map(|key| key.mint(&contents("OP0000000001", "OP0000000001/alice")).unwrap().expose().to_owned())
        .collect();
    let own = control_plane.signing.verifying_key().clone();
    let address = control_plane.envoy.address();
    for good in [3, 0] {
        let known = &minting[..good];
        control_plane.content.set_public_keys([&own], known.iter().map(MintingKey::generation_key)).unwrap();
        match good {
            0 => control_plane.content.remove_secret_keys(),
            _ => control_plane
                .content
                .set_secret_keys([
                    bundle::builder::SecretKey::Tag { generation: 1, secret: &[1; 32] },
                    bundle::builder::SecretKey::ShortTag { generation: 3, secret: &[3; 32] },
                ])
                .unwrap(),
        }
        control_plane.publish();
        for key in &keys {
            eventually("each key has the state of its generation", async || {
                let response = status_and_code(address, key, "OP0000000001/alice").await;
                match good {
                    0 => anyhow::ensure!(
                        response.code() == "api_key_generation_unknown",
                        "{}",
                        response.text()
                    ),
                    _ => anyhow::ensure!(response.status == 200, "{}", response.text()),
                }
                Ok(())
            })
            .await;
        }
    }
}

/// A key that a restored database does not contain, with a username that belongs to no user.
#[tokio::test]
async fn operator_watermark_covers_every_username() {
    let deployment = started().await;
    let root = deployment.control_plane.root().clone();
    let arguments = ["key", "create", "--user", &root.operator_id, "--username", "alice@example.com"];
    let created = deployment.control_plane.cli(arguments).unwrap();
    let key = text(&created["api_key"]);
    let echo =
        eventually("it is admitted", async || ask(&deployment, &key, "alice@example.com").await.expect(200))
            .await;
    let headers = echo.json().unwrap()["headers"].clone();
    assert_eq!(headers["x-keystile-operator"], json!([root.operator_id]));
    assert_eq!(headers["x-keystile-subject"], json!([format!("{}/alice@example.com", root.operator_id)]));
    let admin = deployment.control_plane.token().await.unwrap();
    deployment.control_plane.revoke(&admin, json!({ "subject": root.operator_id })).await.unwrap();
    eventually("it is refused", async || {
        let refused = ask(&deployment, &key, "alice@example.com").await.expect(401)?;
        // The watermark refuses it. A restored database does not contain its fingerprint.
        anyhow::ensure!(refused.code() == "watermark", "{}", refused.code());
        Ok(())
    })
    .await;
}

async fn started() -> Deployment {
    Deployment::start(Options {
        plugin: |configuration| {
            configuration["api_keys"] = json!({});
            configuration["tokens"]["leeway_seconds"] = json!(1);
        },
        ..Options::default()
    })
    .await
    .unwrap()
}

async fn ask(deployment: &Deployment, key: &str, username: &str) -> Response {
    status_and_code(deployment.envoy.address(), key, username).await
}

async fn status_and_code(address: SocketAddr, key: &str, username: &str) -> Response {
    let mut request = bearer(key);
    request.headers_mut().insert("x-username", username.parse().unwrap());
    send(address, request).await.unwrap()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("not a string: {value}")).to_owned()
}

fn contents<'a>(operator: &'a str, username: &'a str) -> ApiKeyFields<'a> {
    static PREFIX: std::sync::LazyLock<Prefix> = std::sync::LazyLock::new(Prefix::default);
    ApiKeyFields {
        prefix: &PREFIX,
        operator,
        number: 1,
        issued_at: now_ms() / 1000 - 1,
        expires_at: None,
        random: [1, 2, 3, 4],
        username,
    }
}

/// Returns the API keys for `mallory` that the snapshot accepts, made with every window of 32 bytes.
fn candidate_keys(
    snapshot: &Snapshot,
    held: &[(Option<ObjectKind>, Vec<u8>)],
    operator: &str,
) -> Vec<String> {
    let username = format!("{operator}/mallory");
    let prefixes = [Prefix::default()];
    let mut made = Vec::new();
    let windows = held.iter().flat_map(|(_, bytes)| bytes.windows(32));
    for window in windows {
        let secret: &[u8; 32] = window.try_into().unwrap();
        for generation in 0..=u8::MAX {
            let Some(key) = snapshot.generation_key(generation) else { continue };
            for kind in Kind::ALL {
                let Ok(thief) = MintingKey::new(generation, kind, secret) else { continue };
                // Signing is slow, and only the private part of this key could succeed.
                if kind == Kind::Signed && thief.generation_key().public_bytes() != key.public_bytes() {
                    continue;
                }
                let Some(forged) = thief.mint(&contents(operator, &username)) else { continue };
                let presented =
                    token::api_key::Unverified::parse(forged.expose().as_bytes(), &prefixes).unwrap();
                if presented.verify(key, &username).is_ok() {
                    made.push(forged.expose().to_owned());
                }
            }
        }
    }
    made
}

/// Returns everything that an edge gets with its credential: manifest, objects, secrets, and the credential itself.
async fn fetch_everything(
    control_plane: &ControlPlane,
    credential: &str,
    root_key: &str,
) -> (Snapshot, Vec<(Option<ObjectKind>, Vec<u8>)>) {
    let fetch = async |path: String| {
        let mut request: Request<String> = bearer(credential);
        *request.uri_mut() = path.parse().unwrap();
        send(control_plane.address(), request).await.unwrap().expect(200).unwrap().body.to_vec()
    };
    let bytes = fetch("/edge/v1/manifest?have=0".into()).await;
    let manifest = Manifest::open(&bytes, &[root_key.parse().unwrap()], "default").unwrap();
    let mut held = vec![(None, bytes), (None, base64url::decode(root_key.as_bytes()).unwrap())];
    held.push((None, credential.as_bytes().to_vec()));
    let mut objects = Objects::default();
    loop {
        let missing = objects.missing(&manifest, now_ms());
        if missing.is_empty() {
            return (Snapshot::assemble(manifest, &objects, now_ms()).unwrap(), held);
        }
        for entry in missing {
            let hash = hex(entry.sha256());
            let bytes = match entry.kind() {
                ObjectKind::SecretKeys => fetch(format!("/edge/v1/keys?sha256={hash}")).await,
                _ => fetch(format!("/edge/v1/objects/{hash}")).await,
            };
            held.push((Some(entry.kind()), bytes.clone()));
            objects.open(&manifest, entry, bytes).unwrap();
        }
    }
}
