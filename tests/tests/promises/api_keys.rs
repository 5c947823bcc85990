//! API keys at the edge: they end by themselves, and nothing that an edge holds makes one.

use bundle::{Manifest, ObjectKind, Objects, Snapshot};
use harness::client::{Response, bearer, send};
use harness::forge::{Forge, hex, now_ms};
use harness::{ControlPlane, Options, World, eventually};
use hyper::Request;
use serde_json::{Value, json};
use std::net::SocketAddr;
use token::api_key::{ApiKeyFields, Kind, MintingKey, Prefix};
use token::{Fingerprint, base64url};

/// Issued by the real control plane, which is then gone: the edge asks nobody when its time has come.
#[tokio::test]
async fn one_of_format_2_ends_though_the_edge_is_cut_off() {
    let mut world = started().await;
    let alice = format!("{}/alice", world.control_plane.root().operator_id);
    let create = |more: &[&str]| {
        let arguments = ["key", "create", "--user", &alice].into_iter().chain(more.iter().copied());
        world.control_plane.cli(arguments).unwrap()
    };
    let (lasting, ending) = (create(&[]), create(&["--expires", "10s"]));
    let end = ending["expires_at"].as_u64().unwrap();
    let [lasting, ending] = [&lasting, &ending].map(|key| text(&key["api_key"]));
    for key in [&lasting, &ending] {
        let echo = eventually("it is admitted", async || ask(&world, key, &alice).await.expect(200)).await;
        let headers = &echo.json().unwrap()["headers"];
        assert_eq!(headers["x-keystile-subject"], json!([alice]));
        assert_eq!(
            headers["x-keystile-fingerprint"],
            json!([Fingerprint::digest(key.as_bytes()).to_string()])
        );
        assert!(!echo.text().contains(key.as_str()), "the credential reached the upstream");
    }
    world.control_plane.kill().unwrap();
    let refused = eventually("it ends", async || ask(&world, &ending, &alice).await.expect(401)).await;
    // The leeway is a second here.
    assert!(now_ms() / 1000 > end, "not before its end and the leeway");
    assert_eq!(refused.code(), "api_key_expired");
    ask(&world, &lasting, &alice).await.expect(200).unwrap();
}

/// Whatever of it anybody takes for a seed or a secret. That the search finds one where there is one is shown by the
/// short form, which is a choice.
#[tokio::test]
async fn nothing_an_edge_holds_makes_one_of_format_2() {
    let world = started().await;
    let operator = world.control_plane.root().operator_id.clone();
    let alice = format!("{operator}/alice");
    let create = || text(&world.control_plane.cli(["key", "create", "--user", &alice]).unwrap()["api_key"]);
    let honest = create();
    eventually("the honest one is admitted", async || ask(&world, &honest, &alice).await.expect(200)).await;
    let edge = world.control_plane.enroll("stolen").unwrap();
    let key = text(&edge.plugin_configuration["root_keys"][0]);

    let (snapshot, held) = everything(&world.control_plane, &edge.credential, &key).await;
    assert!(!held.iter().any(|(kind, _)| *kind == Some(ObjectKind::SecretKeys)), "edges need no secret");
    let public = *snapshot.generation_key(1).unwrap().public_bytes().unwrap();
    assert_eq!(made(&snapshot, &held, &operator), Vec::<String>::new());
    // The public key, as if it were private, under each format.
    for kind in Kind::ALL {
        let thief = MintingKey::new(1, kind, &public).unwrap();
        for name in ["alice", "root of all"] {
            let username = if name == "alice" { &alice } else { &operator };
            let contents = contents(&operator, username);
            let Some(forged) = thief.mint(&contents) else { continue };
            let refused = ask(&world, forged.expose(), username).await.expect(401).unwrap();
            assert!(
                ["api_key_signature_invalid", "api_key_tag_invalid"].contains(&&*refused.code()),
                "{kind:?}"
            );
        }
    }

    // By choice: every edge holds what makes them.
    world.control_plane.cli(["key", "rotate", "tag", "--short"]).unwrap();
    let short = create();
    eventually("the short one is admitted", async || ask(&world, &short, &alice).await.expect(200)).await;
    let (snapshot, held) = everything(&world.control_plane, &edge.credential, &key).await;
    let forged = made(&snapshot, &held, &operator);
    assert!(!forged.is_empty(), "the search finds what is there to be found");
    for forged in &forged {
        ask(&world, forged, &format!("{operator}/mallory")).await.expect(200).unwrap();
        // Though never for a root user.
        ask(&world, forged, &operator).await.expect(401).unwrap();
    }
    // What ends it, and nothing else.
    world.control_plane.cli(["key", "retire", "tag-2", "--yes"]).unwrap();
    eventually("it is over", async || {
        let refused = ask(&world, &forged[0], &format!("{operator}/mallory")).await.expect(401)?;
        anyhow::ensure!(refused.code() == "api_key_generation_unknown", "{}", refused.code());
        Ok(())
    })
    .await;
    ask(&world, &honest, &alice).await.expect(200).unwrap();
    // Back to where edges hold nothing: the newest generation of format 2, the short ones retired.
    world.control_plane.cli(["key", "rotate", "tag"]).unwrap();
    world.control_plane.cli(["key", "retire", "tag-3", "--yes"]).unwrap();
    eventually("the secrets are gone from the bundle", async || {
        let (_, held) = everything(&world.control_plane, &edge.credential, &key).await;
        anyhow::ensure!(!held.iter().any(|(kind, _)| *kind == Some(ObjectKind::SecretKeys)));
        Ok(())
    })
    .await;
}

/// Of all three formats side by side, until the generation goes.
#[tokio::test]
async fn each_format_is_good_until_its_generation_is_retired() {
    let mut forge = Forge::with(|settings| {
        settings.plugin_configuration["api_keys"] = json!({});
    })
    .await;
    let minting = [(1, Kind::Format1), (2, Kind::Signed), (3, Kind::Short)]
        .map(|(generation, kind)| MintingKey::new(generation, kind, &[generation; 32]).unwrap());
    let keys: Vec<String> = minting
        .iter()
        .map(|key| key.mint(&contents("OP0000000001", "OP0000000001/alice")).unwrap().expose().to_owned())
        .collect();
    let own = forge.signing.verifying_key().clone();
    let address = forge.envoy.address();
    for good in [3, 0] {
        let known = &minting[..good];
        forge.content.set_public_keys([&own], known.iter().map(MintingKey::generation_key)).unwrap();
        match good {
            0 => forge.content.remove_secret_keys(),
            _ => forge
                .content
                .set_secret_keys([
                    bundle::builder::SecretKey::Tag { generation: 1, secret: &[1; 32] },
                    bundle::builder::SecretKey::ShortTag { generation: 3, secret: &[3; 32] },
                ])
                .unwrap(),
        }
        forge.publish();
        for key in &keys {
            eventually("each is as its generation", async || {
                let response = asked(address, key, "OP0000000001/alice").await;
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

/// What befell a restored database: a key that it does not know, with a username that is no user's.
#[tokio::test]
async fn a_watermark_on_the_operator_is_for_every_username() {
    let world = started().await;
    let root = world.control_plane.root().clone();
    let arguments = ["key", "create", "--user", &root.operator_id, "--username", "alice@example.com"];
    let created = world.control_plane.cli(arguments).unwrap();
    let key = text(&created["api_key"]);
    let echo =
        eventually("it is admitted", async || ask(&world, &key, "alice@example.com").await.expect(200)).await;
    let headers = echo.json().unwrap()["headers"].clone();
    assert_eq!(headers["x-keystile-operator"], json!([root.operator_id]));
    assert_eq!(headers["x-keystile-subject"], json!([format!("{}/alice@example.com", root.operator_id)]));
    let admin = world.control_plane.token().await.unwrap();
    world.control_plane.revoke(&admin, json!({ "subject": root.operator_id })).await.unwrap();
    eventually("it is refused", async || {
        let refused = ask(&world, &key, "alice@example.com").await.expect(401)?;
        // By the watermark, before anybody looks for its fingerprint, which a restored database would not know.
        anyhow::ensure!(refused.code() == "watermark", "{}", refused.code());
        Ok(())
    })
    .await;
}

async fn started() -> World {
    World::start(Options {
        plugin: |configuration| {
            configuration["api_keys"] = json!({});
            configuration["tokens"]["leeway_seconds"] = json!(1);
        },
        ..Options::default()
    })
    .await
    .unwrap()
}

async fn ask(world: &World, key: &str, username: &str) -> Response {
    asked(world.envoy.address(), key, username).await
}

async fn asked(address: SocketAddr, key: &str, username: &str) -> Response {
    let mut request = bearer(key);
    request.headers_mut().insert("x-username", username.parse().unwrap());
    send(address, request).await.unwrap()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
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

/// What comes of every 32 bytes in a row: API keys for `mallory` that the snapshot takes.
fn made(snapshot: &Snapshot, held: &[(Option<ObjectKind>, Vec<u8>)], operator: &str) -> Vec<String> {
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
                // Signing takes long: only what is that very key could succeed.
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

/// All that an edge gets with its credential: the manifest, every object, the secrets; and the credential itself.
async fn everything(
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
