//! A server of fixed documents, such as the key sets of issuers.

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Serves JSON documents by path, and remembers which paths were requested.
#[derive(Debug)]
pub struct DocumentServer {
    requested: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

#[derive(Clone)]
struct Documents {
    by_path: Arc<BTreeMap<String, String>>,
    requested: Arc<Mutex<Vec<String>>>,
}

impl DocumentServer {
    pub async fn start(address: SocketAddr, by_path: BTreeMap<String, String>) -> Result<Self> {
        let listener = TcpListener::bind(address).await.with_context(|| format!("documents on {address}"))?;
        let requested = Arc::<Mutex<Vec<String>>>::default();
        let documents = Documents { by_path: Arc::new(by_path), requested: Arc::clone(&requested) };
        let router = Router::new().fallback(serve).with_state(documents);
        let task = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { requested, task })
    }

    /// Returns the paths of all requests so far, in their order.
    pub fn requested(&self) -> Vec<String> {
        self.requested.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for DocumentServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(State(documents): State<Documents>, uri: Uri) -> Response {
    documents.requested.lock().unwrap_or_else(PoisonError::into_inner).push(uri.path().to_owned());
    match documents.by_path.get(uri.path()) {
        Some(body) => ([(header::CONTENT_TYPE, "application/json")], body.clone()).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
