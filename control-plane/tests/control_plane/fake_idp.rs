//! A fake server of another issuer, controlled by the test.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use http_body_util::channel::Channel;
use serde_json::{Value, json};
use token::{base64url, mint::SigningKey};
use tokio::{net::TcpListener, task::JoinHandle, time::sleep};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig, crypto,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    },
};

#[derive(Debug, Clone)]
pub(crate) enum Behavior {
    Good,
    Status(u16),
    Body(String),
    /// A response that exceeds the maximum size.
    Endless,
    Slow,
    /// Closes the connection in the middle of the response.
    Short,
    Redirect(String),
    /// Has another `issuer` in its discovery document.
    OtherIssuer,
}

#[derive(Debug)]
struct IdpState {
    origin: String,
    behavior: Behavior,
    keys: Vec<Value>,
    headers: Vec<(&'static str, String)>,
    /// The paths of requests, and whether the response was 304.
    requests: Vec<(String, bool)>,
}

pub(crate) struct FakeIdp {
    pub(crate) origin: String,
    state: Arc<Mutex<IdpState>>,
    task: JoinHandle<()>,
}

impl FakeIdp {
    pub(crate) async fn start() -> Self {
        Self::start_with(None).await
    }

    /// Starts a server with a certificate of the authority in `tls/ca.pem`.
    pub(crate) async fn start_tls() -> Self {
        Self::start_with(Some(tls())).await
    }

    async fn start_with(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let origin = format!("{scheme}://{}", listener.local_addr().unwrap());
        let state = IdpState {
            origin: origin.clone(),
            behavior: Behavior::Good,
            keys: vec![key("first")],
            headers: Vec::new(),
            requests: Vec::new(),
        };
        let state = Arc::new(Mutex::new(state));
        let router = Router::new().fallback(answer).with_state(Arc::clone(&state));
        let task = tokio::spawn(async move { axum_serve(listener, tls, router).await });
        Self { origin, state, task }
    }

    pub(crate) fn set_behavior(&self, behavior: Behavior) {
        self.state.lock().unwrap().behavior = behavior;
    }

    pub(crate) fn set_keys(&self, kids: &[&str]) {
        self.state.lock().unwrap().keys = kids.iter().map(|kid| key(kid)).collect();
    }

    pub(crate) fn set_header(&self, name: &'static str, value: &str) {
        self.state.lock().unwrap().headers.push((name, value.to_owned()));
    }

    /// Returns the requests since the last call.
    pub(crate) fn take_requests(&self) -> Vec<(String, bool)> {
        std::mem::take(&mut self.state.lock().unwrap().requests)
    }

    /// Stops listening.
    pub(crate) async fn stop(&mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

/// The file with the authority of [`FakeIdp::start_tls`].
pub(crate) const CA_FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/control_plane/tls/ca.pem");

/// The certificate is for 127.0.0.1, until 2120.
fn tls() -> TlsAcceptor {
    let certificate = CertificateDer::from_pem_slice(include_bytes!("tls/server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("tls/server.key")).unwrap();
    let config = ServerConfig::builder_with_provider(crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// Returns a public key that depends on the name.
pub(crate) fn key(kid: &str) -> Value {
    let mut seed = [7; 32];
    seed.iter_mut().zip(kid.bytes()).for_each(|(to, from)| *to = from);
    let signer = SigningKey::ed25519("x", &seed).unwrap();
    let public = signer.verifying_key().public_bytes().unwrap();
    json!({ "kty": "OKP", "crv": "Ed25519", "use": "sig", "kid": kid, "x": base64url::encode(public) })
}

/// Serves one request per connection, so that no connection remains when the server stops.
async fn axum_serve(listener: TcpListener, tls: Option<TlsAcceptor>, router: Router) {
    use hyper::server::conn::http1;
    use hyper_util::{rt::TokioIo, service::TowerToHyperService};
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let service = TowerToHyperService::new(router.clone());
        let tls = tls.clone();
        connections.spawn(async move {
            let mut http = http1::Builder::new();
            http.keep_alive(false);
            match tls {
                None => drop(http.serve_connection(TokioIo::new(stream), service).await),
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        drop(http.serve_connection(TokioIo::new(stream), service).await);
                    }
                }
            }
        });
    }
}

async fn answer(State(state): State<Arc<Mutex<IdpState>>>, request: Request) -> Response {
    let behavior = state.lock().unwrap().behavior.clone();
    if matches!(behavior, Behavior::Slow) {
        sleep(Duration::from_secs(60)).await;
    }
    let mut state = state.lock().unwrap();
    let path = request.uri().path().to_owned();
    let discovery = path == "/.well-known/openid-configuration";
    let issuer = if matches!(behavior, Behavior::OtherIssuer) {
        "https://else.example"
    } else {
        state.origin.as_str()
    };
    let body = match discovery {
        true => json!({ "issuer": issuer, "jwks_uri": format!("{}/keys", state.origin), "more": [] }),
        false => json!({ "keys": state.keys }),
    };
    let tag = format!("\"{}\"", state.keys.len() * 1000 + state.keys[0].to_string().len());
    let known = request.headers().get("if-none-match").is_some_and(|known| *known == *tag);
    state.requests.push((path, known && !discovery));
    match behavior {
        Behavior::Good | Behavior::Slow | Behavior::OtherIssuer => {
            let mut response = match known && !discovery {
                true => StatusCode::NOT_MODIFIED.into_response(),
                false => body.to_string().into_response(),
            };
            response.headers_mut().insert("etag", tag.parse().unwrap());
            for (name, value) in &state.headers {
                response.headers_mut().insert(*name, value.parse().unwrap());
            }
            response
        }
        Behavior::Status(status) => StatusCode::from_u16(status).unwrap().into_response(),
        Behavior::Body(text) => text.into_response(),
        Behavior::Endless => "x".repeat(10 * 1024 * 1024).into_response(),
        Behavior::Short => {
            let (mut sender, body) = Channel::<Bytes, &'static str>::new(1);
            tokio::spawn(async move {
                let _ = sender.send_data(Bytes::from_static(b"{\"keys\": [")).await;
                sender.abort("the connection is closed");
            });
            ([("content-length", "1000")], Body::new(body)).into_response()
        }
        Behavior::Redirect(to) => (StatusCode::FOUND, [("location", to)]).into_response(),
    }
}
