//! A proxy between an edge and its control planes: a cache, a fault, or an attacker.

use crate::client;
use anyhow::{Context, Result};
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use hyper::Request;
use hyper::body::Bytes;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Forwards each request of an edge to the next of its control planes.
#[derive(Debug)]
pub struct Proxy {
    plan: watch::Sender<Fault>,
    seen: Arc<Mutex<SeenRequests>>,
    task: JoinHandle<()>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Objects are missing.
    Missing,
    /// Objects lack their last byte.
    Truncated,
    /// Each object is replaced by another one.
    Swapped,
    /// Every manifest is replaced by this one.
    Replayed(Bytes),
    /// The next manifest is replaced by this one, and later ones are not.
    Injected(Bytes),
    /// A request that takes longer gets a 504, as from a load balancer with a time limit.
    Impatient(Duration),
    /// Objects are delayed until this fault ends.
    Held,
    /// The proxy closes all connections.
    CutOff,
    /// Acts as a shared cache: it does not wait, stores objects, and revalidates manifests.
    Cache,
}

#[derive(Debug, Clone, Default)]
pub struct SeenRequests {
    pub manifests: usize,
    /// Requests of edges.
    pub objects: usize,
    /// Requests that reached the time limit.
    pub timed_out: usize,
    /// Responses from the cache.
    pub hits: usize,
    /// Manifests that had not changed since the last revalidation.
    pub unchanged: usize,
    pub last_manifest: Bytes,
    requests: usize,
    cache: HashMap<String, (HeaderMap, Bytes)>,
}

#[derive(Clone)]
struct ProxyState {
    upstreams: Vec<SocketAddr>,
    plan: watch::Receiver<Fault>,
    plans: watch::Sender<Fault>,
    seen: Arc<Mutex<SeenRequests>>,
}

impl Proxy {
    pub async fn start(address: SocketAddr, upstreams: Vec<SocketAddr>) -> Result<Self> {
        let listener = TcpListener::bind(address).await.with_context(|| format!("proxy on {address}"))?;
        let plan = watch::Sender::new(Fault::None);
        let seen = Arc::<Mutex<SeenRequests>>::default();
        let state =
            ProxyState { upstreams, plan: plan.subscribe(), plans: plan.clone(), seen: Arc::clone(&seen) };
        let router = Router::new().fallback(handle_request).with_state(state);
        let task = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { plan, seen, task })
    }

    pub fn set(&self, fault: Fault) {
        self.plan.send_replace(fault);
    }

    pub fn seen(&self) -> SeenRequests {
        lock_state(&self.seen).clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn handle_request(State(mut state): State<ProxyState>, uri: Uri, headers: HeaderMap) -> Response {
    let fault = state.plan.borrow().clone();
    let is_object = uri.path().starts_with("/edge/v1/objects/");
    {
        let mut seen = lock_state(&state.seen);
        *if is_object { &mut seen.objects } else { &mut seen.manifests } += 1;
    }
    let answered = match fault {
        Fault::CutOff => return StatusCode::BAD_GATEWAY.into_response(),
        Fault::Missing if is_object => return StatusCode::NOT_FOUND.into_response(),
        Fault::Replayed(manifest) if !is_object => return manifest.into_response(),
        Fault::Injected(manifest) if !is_object => {
            state.plans.send_replace(Fault::None);
            return manifest.into_response();
        }
        Fault::Impatient(limit) => match tokio::time::timeout(limit, forward(&state, &uri, headers)).await {
            Ok(answered) => answered,
            Err(_) => {
                lock_state(&state.seen).timed_out += 1;
                return (StatusCode::GATEWAY_TIMEOUT, "<html>504 Gateway Time-out</html>").into_response();
            }
        },
        Fault::Cache => forward_cached(&state, &uri, headers).await,
        Fault::Held if is_object => {
            let _ = state.plan.wait_for(|fault| *fault != Fault::Held).await;
            forward(&state, &uri, headers).await
        }
        _ => forward(&state, &uri, headers).await,
    };
    let Ok((status, headers, mut body)) = answered else { return StatusCode::BAD_GATEWAY.into_response() };
    if is_object && status == 200 {
        match fault_of(&state) {
            Fault::Truncated => body.truncate(body.len() - 1),
            Fault::Swapped => body = lock_state(&state.seen).last_manifest.clone(),
            _ => {}
        }
    } else if status == 200 {
        lock_state(&state.seen).last_manifest = body.clone();
    }
    (StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY), headers, body).into_response()
}

fn fault_of(state: &ProxyState) -> Fault {
    state.plan.borrow().clone()
}

type Answered = Result<(u16, HeaderMap, Bytes)>;

async fn forward(state: &ProxyState, uri: &Uri, headers: HeaderMap) -> Answered {
    let next = {
        let mut seen = lock_state(&state.seen);
        seen.requests += 1;
        state.upstreams[seen.requests % state.upstreams.len()]
    };
    let mut request = Request::get(uri.clone()).body(String::new())?;
    *request.headers_mut() = headers;
    let response = client::send(next, request).await?;
    let mut kept = response.headers;
    // The proxy frames the body itself.
    for name in [header::TRANSFER_ENCODING, header::CONTENT_LENGTH, header::CONNECTION] {
        kept.remove(name);
    }
    Ok((response.status, kept, response.body))
}

/// RFC 9111: stores `immutable` responses, and revalidates `no-cache` responses with their entity tag.
async fn forward_cached(state: &ProxyState, uri: &Uri, mut headers: HeaderMap) -> Answered {
    // `have` differs between edges; the response does not.
    let key = uri.path().to_owned();
    let held = lock_state(&state.seen).cache.get(&key).cloned();
    let asked = headers.get(header::IF_NONE_MATCH).cloned();
    if let Some((kept, body)) = &held
        && kept.get(header::CACHE_CONTROL).is_some_and(|rule| rule.as_bytes().ends_with(b"immutable"))
    {
        lock_state(&state.seen).hits += 1;
        return Ok((200, kept.clone(), body.clone()));
    }
    headers.remove("prefer");
    if let Some(tag) = held.as_ref().and_then(|(kept, _)| kept.get(header::ETAG)) {
        headers.insert(header::IF_NONE_MATCH, tag.clone());
    }
    let (status, kept, body) = forward(state, uri, headers).await?;
    match (status, held) {
        (304, Some((kept, body))) => {
            lock_state(&state.seen).unchanged += 1;
            let known = kept.get(header::ETAG).cloned();
            Ok(if known == asked { (304, kept, Bytes::new()) } else { (200, kept, body) })
        }
        (200, _) => {
            lock_state(&state.seen).cache.insert(key, (kept.clone(), body.clone()));
            Ok((status, kept, body))
        }
        _ => Ok((status, kept, body)),
    }
}

fn lock_state(seen: &Mutex<SeenRequests>) -> MutexGuard<'_, SeenRequests> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
