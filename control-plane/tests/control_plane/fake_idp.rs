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
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let state = IdpState {
            origin: origin.clone(),
            behavior: Behavior::Good,
            keys: vec![key("first")],
            headers: Vec::new(),
            requests: Vec::new(),
        };
        let state = Arc::new(Mutex::new(state));
        let router = Router::new().fallback(answer).with_state(Arc::clone(&state));
        let task = tokio::spawn(async move { axum_serve(listener, router).await });
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

/// Returns a public key that depends on the name.
pub(crate) fn key(kid: &str) -> Value {
    let mut seed = [7; 32];
    seed.iter_mut().zip(kid.bytes()).for_each(|(to, from)| *to = from);
    let signer = SigningKey::ed25519("x", &seed).unwrap();
    let public = signer.verifying_key().public_bytes().unwrap();
    json!({ "kty": "OKP", "crv": "Ed25519", "use": "sig", "kid": kid, "x": base64url::encode(public) })
}

/// Serves one request per connection, so that no connection remains when the server stops.
async fn axum_serve(listener: TcpListener, router: Router) {
    use hyper::server::conn::http1;
    use hyper_util::{rt::TokioIo, service::TowerToHyperService};
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let service = TowerToHyperService::new(router.clone());
        connections.spawn(async move {
            let _ =
                http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service).await;
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
