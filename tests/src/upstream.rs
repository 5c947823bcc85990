use anyhow::{Context, Result};
use axum::Json;
use axum::Router;
use axum::body::Body;
use http_body_util::BodyExt;
use hyper::{HeaderMap, Uri};
use serde_json::{Map, Value, json};
use std::net::SocketAddr;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// The protected service. It answers every request with its path, headers and trailers: `{"path": "/", "headers": {name: [value, ..]},
/// ..}`.
#[derive(Debug)]
pub struct Upstream {
    address: SocketAddr,
    task: JoinHandle<std::io::Result<()>>,
}

impl Upstream {
    pub async fn start(address: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(address).await.with_context(|| format!("upstream on {address}"))?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(async { axum::serve(listener, Router::new().fallback(echo)).await });
        Ok(Self { address, task })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn echo(uri: Uri, headers: HeaderMap, body: Body) -> Json<Value> {
    let body = body.collect().await;
    let trailers = body.ok().and_then(|body| body.trailers().cloned()).unwrap_or_default();
    let (headers, trailers) = (list_headers(&headers), list_headers(&trailers));
    Json(json!({ "path": uri.path(), "headers": headers, "trailers": trailers }))
}

fn list_headers(headers: &HeaderMap) -> Map<String, Value> {
    let mut listed = Map::new();
    for (name, value) in headers {
        let values = listed.entry(name.as_str()).or_insert_with(|| json!([]));
        if let Value::Array(values) = values {
            values.push(String::from_utf8_lossy(value.as_bytes()).into());
        }
    }
    listed
}
