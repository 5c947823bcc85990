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
    seen: Arc<Mutex<Seen>>,
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
pub struct Seen {
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
struct Desk {
    upstreams: Vec<SocketAddr>,
    plan: watch::Receiver<Fault>,
    plans: watch::Sender<Fault>,
    seen: Arc<Mutex<Seen>>,
}

impl Proxy {
    pub async fn start(address: SocketAddr, upstreams: Vec<SocketAddr>) -> Result<Self> {
        let listener = TcpListener::bind(address).await.with_context(|| format!("proxy on {address}"))?;
        let plan = watch::Sender::new(Fault::None);
        let seen = Arc::<Mutex<Seen>>::default();
        let desk = Desk { upstreams, plan: plan.subscribe(), plans: plan.clone(), seen: Arc::clone(&seen) };
        let router = Router::new().fallback(pass).with_state(desk);
        let task = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { plan, seen, task })
    }

    pub fn set(&self, fault: Fault) {
        self.plan.send_replace(fault);
    }

    pub fn seen(&self) -> Seen {
        lock(&self.seen).clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(State(mut desk): State<Desk>, uri: Uri, headers: HeaderMap) -> Response {
    let fault = desk.plan.borrow().clone();
    let is_object = uri.path().starts_with("/edge/v1/objects/");
    {
        let mut seen = lock(&desk.seen);
        *if is_object { &mut seen.objects } else { &mut seen.manifests } += 1;
    }
    let answered = match fault {
        Fault::CutOff => return StatusCode::BAD_GATEWAY.into_response(),
        Fault::Missing if is_object => return StatusCode::NOT_FOUND.into_response(),
        Fault::Replayed(manifest) if !is_object => return manifest.into_response(),
        Fault::Injected(manifest) if !is_object => {
            desk.plans.send_replace(Fault::None);
            return manifest.into_response();
        }
        Fault::Impatient(limit) => match tokio::time::timeout(limit, forward(&desk, &uri, headers)).await {
            Ok(answered) => answered,
            Err(_) => {
                lock(&desk.seen).timed_out += 1;
                return (StatusCode::GATEWAY_TIMEOUT, "<html>504 Gateway Time-out</html>").into_response();
            }
        },
        Fault::Cache => cached(&desk, &uri, headers).await,
        Fault::Held if is_object => {
            let _ = desk.plan.wait_for(|fault| *fault != Fault::Held).await;
            forward(&desk, &uri, headers).await
        }
        _ => forward(&desk, &uri, headers).await,
    };
    let Ok((status, headers, mut body)) = answered else { return StatusCode::BAD_GATEWAY.into_response() };
    if is_object && status == 200 {
        match fault_of(&desk) {
            Fault::Truncated => body.truncate(body.len() - 1),
            Fault::Swapped => body = lock(&desk.seen).last_manifest.clone(),
            _ => {}
        }
    } else if status == 200 {
        lock(&desk.seen).last_manifest = body.clone();
    }
    (StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY), headers, body).into_response()
}

fn fault_of(desk: &Desk) -> Fault {
    desk.plan.borrow().clone()
}

type Answered = Result<(u16, HeaderMap, Bytes)>;

async fn forward(desk: &Desk, uri: &Uri, headers: HeaderMap) -> Answered {
    let next = {
        let mut seen = lock(&desk.seen);
        seen.requests += 1;
        desk.upstreams[seen.requests % desk.upstreams.len()]
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
async fn cached(desk: &Desk, uri: &Uri, mut headers: HeaderMap) -> Answered {
    // `have` differs between edges; the response does not.
    let key = uri.path().to_owned();
    let held = lock(&desk.seen).cache.get(&key).cloned();
    let asked = headers.get(header::IF_NONE_MATCH).cloned();
    if let Some((kept, body)) = &held
        && kept.get(header::CACHE_CONTROL).is_some_and(|rule| rule.as_bytes().ends_with(b"immutable"))
    {
        lock(&desk.seen).hits += 1;
        return Ok((200, kept.clone(), body.clone()));
    }
    headers.remove("prefer");
    if let Some(tag) = held.as_ref().and_then(|(kept, _)| kept.get(header::ETAG)) {
        headers.insert(header::IF_NONE_MATCH, tag.clone());
    }
    let (status, kept, body) = forward(desk, uri, headers).await?;
    match (status, held) {
        (304, Some((kept, body))) => {
            lock(&desk.seen).unchanged += 1;
            let known = kept.get(header::ETAG).cloned();
            Ok(if known == asked { (304, kept, Bytes::new()) } else { (200, kept, body) })
        }
        (200, _) => {
            lock(&desk.seen).cache.insert(key, (kept.clone(), body.clone()));
            Ok((status, kept, body))
        }
        _ => Ok((status, kept, body)),
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
