//! Subjects, sessions, token ids and clients of other issuers, and whole issuers, are revoked and granted by name, and no
//! issuer can name what is another's.

use std::time::{SystemTime, UNIX_EPOCH};

use harness::{Connection, Deployment, Options, eventually};
use serde_json::{Value, json};
use token::mint::SigningKey;

use crate::issuer_down::Idp;

const IDP: &str = "https://idp.example";
const OTHER: &str = "https://other.example";
/// Without an escape, its subject `b` would be written like the subject `a#b` of `IDP`.
const TRICKY: &str = "https://idp.example#a";

/// What each revocation of `IDP` names, and a token that it refuses.
const VICTIMS: [(&str, &str, &str, &str); 11] = [
    ("--subject", "https://idp.example#u-1", "sub", "u-1"),
    ("--subject", "https://idp.example#a#b", "sub", "a#b"),
    ("--subject", "https://idp.example#CN=svc,O=Example Inc", "sub", "CN=svc,O=Example Inc"),
    ("--subject", "https://idp.example#J\u{fc}rgen%23", "sub", "J\u{fc}rgen%23"),
    ("--session", "https://idp.example#s-1", "sid", "s-1"),
    ("--session", "https://idp.example#s-2", "session_state", "s-2"),
    ("--token-id", "https://idp.example#j-1", "jti", "j-1"),
    ("--token-id", "https://idp.example#j-2", "uti", "j-2"),
    ("--client", "https://idp.example#c-1", "client_id", "c-1"),
    ("--client", "https://idp.example#c-2", "azp", "c-2"),
    ("--client", "https://idp.example#c-3", "cid", "c-3"),
];

/// Claims that hold the same names elsewhere, or at another issuer.
fn lookalikes(own_operator: &str) -> Vec<(&'static str, Value)> {
    let mut claims = Vec::new();
    for issuer in [OTHER, TRICKY] {
        claims.push((issuer, json!({
            "sub": "u-1", "sid": "s-1", "session_state": "s-2", "jti": "j-1", "uti": "j-2", "client_id": "c-1",
            "azp": "c-2", "cid": "c-3",
        })));
    }
    claims.extend([
        (TRICKY, json!({ "sub": "b" })),
        (OTHER, json!({ "sub": "https://idp.example#u-1" })),
        (IDP, json!({ "sub": "https://idp.example#u-1" })),
        (IDP, json!({ "sub": own_operator, "operator": { "operatorId": own_operator } })),
        (IDP, json!({ "sub": "s-1", "sid": "u-1", "jti": "c-1", "azp": "j-1" })),
        (IDP, json!({ "sub": "c-1", "sid": "j-1", "jti": "s-1", "azp": "u-1", "other": "c-1" })),
    ]);
    claims
}

// The commands block their thread.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holders_of_other_issuers_are_revoked_and_granted_by_name() {
    let key = SigningKey::ed25519("k", &[7; 32]).unwrap();
    let idp = Idp::start("127.0.0.1:0".parse().unwrap(), &[&key]).await;
    let settings = tempfile::NamedTempFile::new().unwrap();
    let section =
        |issuer| format!("[[issuers]]\nissuer = '{issuer}'\njwks_url = 'http://{}/keys'\n", idp.address());
    std::fs::write(settings.path(), [IDP, OTHER, TRICKY].map(section).concat()).unwrap();
    let deployment = Deployment::start(Options {
        settings: vec![("KEYSTILE_CONFIG", settings.path().display().to_string())],
        plugin: |configuration| {
            let issuer = |issuer| json!({ "issuer": issuer, "audiences": ["api"] });
            configuration["issuers"] = json!([IDP, OTHER, TRICKY].map(issuer));
            configuration["rules"] =
                json!([{ "path": "/granted", "permission": "Sim:getSim" }, { "path": "/**" }]);
        },
        ..Options::default()
    })
    .await
    .unwrap();
    let (own, mut workers) = deployment.admitted_token().await.unwrap();
    let cli = |arguments: &[&str]| deployment.control_plane.cli(arguments.iter().copied()).unwrap();
    let operator = deployment.control_plane.root().operator_id.clone();
    let token = |(issuer, claims): &(&str, Value)| sign(&key, issuer, claims);
    let others: Vec<String> = lookalikes(&operator).iter().map(token).collect();
    for token in &others {
        deployment.envoy.wait_admitting(token).await.unwrap();
    }

    // A3: nothing is granted without a grant. A grant, and a role, is for the named subject only.
    let subject = "https://idp.example#u-1";
    let alice = [sign(&key, IDP, &json!({ "sub": "u-1" }))];
    let document = deployment.scratch.folder().join("permission");
    let document = document.to_str().unwrap();
    std::fs::write(document, r#"{"statements":[{"effect":"allow","api":"Sim:*"}]}"#).unwrap();
    granted(&mut workers, &alice, 403, "permission_denied").await;
    let set = vec!["user", "permission", "set", subject, document];
    at_once(&cli, vec![set, vec!["role", "create", &operator, "sims", document]]);
    granted(&mut workers, &alice, 200, "").await;
    granted(&mut workers, &others, 403, "permission_denied").await;
    cli(&["user", "permission", "clear", subject, "--yes"]);
    granted(&mut workers, &alice, 403, "permission_denied").await;
    cli(&["role", "attach", subject, "sims", "--operator", &operator]);
    granted(&mut workers, &alice, 200, "").await;
    granted(&mut workers, &others, 403, "permission_denied").await;

    // A1 and A2: each revocation refuses its token when the command has ended, and no other.
    let refused: Vec<String> =
        VICTIMS.iter().map(|(_, _, claim, value)| sign(&key, IDP, &json!({ *claim: value }))).collect();
    for worker in &mut workers {
        for token in &refused {
            worker.get(token).await.unwrap().expect(200).unwrap();
        }
    }
    let commands = VICTIMS.map(|(option, name, ..)| vec!["revoke", option, name, "--yes", "--wait"]);
    for (done, (_, name, ..)) in at_once(&cli, commands.to_vec()).iter().zip(VICTIMS) {
        assert_eq!((&done["scope"], &done["edges"]["enforcing"]), (&json!(name), &json!(["edge"])), "{done}");
    }
    for worker in &mut workers {
        for (token, (_, name, ..)) in refused.iter().zip(VICTIMS) {
            assert_eq!(worker.get(token).await.unwrap().expect(401).unwrap().code(), "watermark", "{name}");
        }
        for token in others.iter().chain([&own]) {
            worker.get(token).await.unwrap().expect(200).unwrap();
        }
    }
    // What is issued later is admitted, but for an ended session and a revoked token id.
    for (option, _, claim, value) in VICTIMS {
        let later = sign(&key, IDP, &json!({ claim: value, "iat": now() + 4 }));
        let status = if matches!(option, "--session" | "--token-id") { 401 } else { 200 };
        workers[0].get(&later).await.unwrap().expect(status).unwrap();
    }

    // Sessions and tokens are taken back.
    let is_one = |option: &str| matches!(option, "--session" | "--token-id");
    let taken_back = VICTIMS.iter().filter(|(option, ..)| is_one(option));
    let commands = taken_back.map(|(option, name, ..)| vec!["unrevoke", *option, *name, "--yes"]);
    at_once(&cli, commands.collect());
    for (victim, (option, ..)) in refused.iter().zip(VICTIMS) {
        if is_one(option) {
            wait_admitted(&mut workers, victim).await;
        }
    }

    // A whole issuer.
    cli(&["revoke", "--issuer", IDP, "--yes", "--wait"]);
    for worker in &mut workers {
        for (token, (issuer, _)) in others.iter().zip(lookalikes(&operator)) {
            let response = worker.get(token).await.unwrap();
            match issuer {
                IDP => assert_eq!(response.expect(401).unwrap().code(), "watermark"),
                _ => drop(response.expect(200).unwrap()),
            }
        }
        worker.get(&own).await.unwrap().expect(200).unwrap();
    }
}

/// Runs commands at the same time, each of which waits until it is published. Returns their output.
fn at_once(cli: &(impl Fn(&[&str]) -> Value + Sync), commands: Vec<Vec<&str>>) -> Vec<Value> {
    std::thread::scope(|scope| {
        let running: Vec<_> = commands.iter().map(|arguments| scope.spawn(move || cli(arguments))).collect();
        running.into_iter().map(|command| command.join().unwrap()).collect()
    })
}

/// Waits until every worker decides about `/granted` like this for all tokens.
async fn granted(workers: &mut [Connection], tokens: &[String], status: u16, code: &str) {
    for worker in workers {
        eventually("the grant is in effect", async || {
            for token in tokens {
                let mut request = harness::client::bearer(token);
                *request.uri_mut() = "/granted".parse()?;
                let response = worker.send(request).await?.expect(status)?;
                if status != 200 {
                    anyhow::ensure!(response.code() == code, "{}", response.code());
                }
            }
            anyhow::Ok(())
        })
        .await;
    }
}

async fn wait_admitted(workers: &mut [Connection], token: &str) {
    for worker in workers {
        eventually("the token is admitted again", async || worker.get(token).await?.expect(200)).await;
    }
}

fn sign(key: &SigningKey, issuer: &str, claims: &Value) -> String {
    let header = json!({ "alg": "EdDSA", "kid": key.kid() });
    let mut payload =
        json!({ "iss": issuer, "sub": "someone", "aud": "api", "iat": now() - 1, "exp": now() + 3600 });
    payload.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
    key.sign(&header.to_string(), payload.to_string().as_bytes()).expose().to_owned()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}
