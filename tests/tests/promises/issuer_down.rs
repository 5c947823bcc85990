//! Edges verify tokens of another issuer with keys that the control plane fetched. A failure of the issuer's server does
//! not affect edges, even if the control plane restarts.

use harness::{Connection, Deployment, Envoy, Options, eventually};
use serde_json::json;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};
use token::base64url;
use token::mint::SigningKey;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

#[tokio::test]
async fn issuer_outage_does_not_affect_edge() {
    let (first, second) = (key("first"), key("second"));
    let mut idp = Idp::start("127.0.0.1:0".parse().unwrap(), &[&first]).await;
    let settings = tempfile::NamedTempFile::new().unwrap();
    let section = format!("[[issuers]]\nissuer = '{ISSUER}'\njwks_url = 'http://{}/keys'\n", idp.address);
    std::fs::write(settings.path(), section).unwrap();
    let mut deployment = Deployment::start(Options {
        settings: vec![("KEYSTILE_CONFIG", settings.path().display().to_string())],
        plugin: |configuration| {
            configuration["issuers"] = json!([{ "issuer": ISSUER, "audiences": ["api"] }]);
        },
        ..Options::default()
    })
    .await
    .unwrap();
    let (own, mut workers) = deployment.admitted_token().await.unwrap();
    let token = issue_token(&first, "alice");
    deployment.envoy.wait_admitting(&token).await.unwrap();
    let echo = workers[0].get(&token).await.unwrap().expect(200).unwrap().json().unwrap();
    assert_eq!(echo["headers"]["x-keystile-subject"], json!([format!("{ISSUER}#alice")]));
    Envoy::wait_refusing(&mut workers, &issue_token(&second, "alice"), 401, "token_key_unknown").await;

    idp.stop().await;
    deployment.control_plane.kill().unwrap();
    deployment.control_plane.serve().await.unwrap();
    let listed = |deployment: &Deployment| deployment.control_plane.cli(["issuer", "list"]).unwrap();
    eventually("the failure is reported", async || match listed(&deployment)[0]["error"].as_str() {
        Some("no connection") => Ok(()),
        error => anyhow::bail!("{error:?}"),
    })
    .await;
    // The edges have the bundle of the restarted control plane.
    let late = deployment.control_plane.token().await.unwrap();
    deployment.control_plane.revoke(&own, json!({ "token": late })).await.unwrap();
    Envoy::wait_refusing(&mut workers, &late, 401, "revoked").await;
    wait_admitted(&mut workers, &[&own, &token, &issue_token(&first, "bob")]).await;

    // The server is back with another key. The control plane fetches it, and edges admit only tokens of the new key.
    let _idp = Idp::start(idp.address, &[&second]).await;
    deployment.envoy.wait_admitting(&issue_token(&second, "alice")).await.unwrap();
    Envoy::wait_refusing(&mut workers, &token, 401, "token_key_unknown").await;
    wait_admitted(&mut workers, &[&own, &issue_token(&second, "bob")]).await;
}

async fn wait_admitted(workers: &mut [Connection], tokens: &[&String]) {
    for worker in workers {
        for token in tokens {
            worker.get(token).await.unwrap().expect(200).unwrap();
        }
    }
}

fn key(kid: &str) -> SigningKey {
    let mut seed = [7; 32];
    seed.iter_mut().zip(kid.bytes()).for_each(|(to, from)| *to = from);
    SigningKey::ed25519(kid, &seed).unwrap()
}

fn issue_token(key: &SigningKey, subject: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let header = json!({ "alg": "EdDSA", "kid": key.kid() });
    let claims = json!({ "iss": ISSUER, "sub": subject, "aud": "api", "iat": now, "exp": now + 3600 });
    key.sign(&header.to_string(), claims.to_string().as_bytes()).expose().to_owned()
}

/// A server that only serves a key set.
pub(crate) struct Idp {
    address: SocketAddr,
    task: JoinHandle<()>,
    open: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Idp {
    pub(crate) async fn start(address: SocketAddr, keys: &[&SigningKey]) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let keys: Vec<_> = keys
            .iter()
            .map(|key| {
                let public = key.verifying_key().public_bytes().unwrap();
                json!({ "kty": "OKP", "crv": "Ed25519", "kid": key.kid(), "x": base64url::encode(public) })
            })
            .collect();
        let body = json!({ "keys": keys }).to_string();
        let answer =
            format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let open = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::clone(&open);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.lock().unwrap().push(tokio::spawn(serve(stream, answer.clone())));
            }
        });
        Self { address, task, open }
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) async fn stop(&mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
        for connection in self.open.lock().unwrap().drain(..) {
            connection.abort();
        }
    }
}

async fn serve(mut stream: TcpStream, answer: String) {
    let mut request = [0; 4096];
    if stream.read(&mut request).await.is_ok_and(|read| read > 0) {
        let _ = stream.write_all(answer.as_bytes()).await;
        let _ = stream.shutdown().await;
    }
}

const ISSUER: &str = "https://idp.example";
