//! Accepts connections, not more than the process has file descriptors for, and none that stay silent.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use axum::Router;
use hyper::{
    Request,
    body::Incoming,
    server::conn::http1,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    time::sleep,
};

use crate::seldom::Seldom;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub connections: u32,
    /// For the head of a request, from when the connection is open or its last answer sent.
    pub head: Duration,
}

impl Limits {
    /// Raises the limit of open files as far as the process may, and stays below it.
    pub fn of_this_process() -> Self {
        let files = raise_open_files().unwrap_or(u64::MAX);
        let connections = u32::try_from(files.saturating_sub(OWN_FILES)).unwrap_or(u32::MAX).max(1);
        if connections < CONNECTIONS {
            tracing::warn!(
                limit.open_files = files,
                limit.connections = connections,
                "the limit of open files allows fewer connections than usual; raise it (`ulimit -Hn`)"
            );
        }
        Self { connections: connections.min(CONNECTIONS), head: HEAD }
    }
}

/// The other end of the connection that a request came over.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

/// Serves until `stop` turns true, and then what has begun to its end.
pub async fn serve(listener: TcpListener, router: Router, limits: Limits, mut stop: watch::Receiver<bool>) {
    let slots = Arc::new(Semaphore::new(usize::try_from(limits.connections).unwrap_or(usize::MAX)));
    let (full, failing) = (Seldom::default(), Seldom::default());
    loop {
        if slots.available_permits() == 0 && full.due(Instant::now()) {
            tracing::warn!(
                limit.connections = limits.connections,
                "as many connections are open as may be; new ones wait until one is closed"
            );
        }
        let accepted = async {
            let slot = Arc::clone(&slots).acquire_owned().await;
            (slot, listener.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            accepted = accepted => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let connection = connection(stream, peer, router.clone(), limits.head, stop.clone());
                tokio::spawn(async move {
                    connection.await;
                    drop(slot);
                });
            }
            // Gone before it was accepted.
            Err(error) if is_of_the_client(&error) => {}
            Err(error) => {
                if failing.due(Instant::now()) {
                    tracing::error!(
                        error.cause = error.to_string(),
                        "connections can't be accepted; does the process have too few file descriptors?"
                    );
                }
                sleep(RETRY).await;
            }
        }
    }
    drop(listener);
    let _ = slots.acquire_many(limits.connections).await;
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    head: Duration,
    mut stop: watch::Receiver<bool>,
) {
    // Answers are small: waiting to fill a packet only delays them.
    let _ = stream.set_nodelay(true);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(head).max_buf_size(LARGEST_HEAD);
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer.ip()));
        router.call(request)
    });
    let serving = http.serve_connection(TokioIo::new(stream), service);
    let mut serving = std::pin::pin!(serving);
    let stopping = async { drop(stop.wait_for(|stop| *stop).await) };
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = stopping => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(peer.address = %peer, error.cause = error.to_string(), "a connection broke");
    }
}

fn is_of_the_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

/// The soft limit, which is the hard one now if that could be done; none if there is none.
fn raise_open_files() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        Err(error) => {
            tracing::warn!(error.cause = error.to_string(), "the limit of open files can't be raised");
            current
        }
    }
}

/// 10,000 waiting edges, and those that ask for other things meanwhile.
const CONNECTIONS: u32 = 16_384;

/// For the database, the logs and the runtime.
const OWN_FILES: u64 = 64;

/// What a client on a bad line needs, many times over.
const HEAD: Duration = Duration::from_secs(10);

/// Eight times the longest token, which may come in more than one header.
const LARGEST_HEAD: usize = 64 * 1024;

const RETRY: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        task::JoinHandle,
        time::timeout,
    };

    use super::*;

    struct Running {
        address: SocketAddr,
        stop: watch::Sender<bool>,
        serving: JoinHandle<()>,
    }

    async fn running(connections: u32, head: Duration) -> Running {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let waiting = stopped.clone();
        let router = Router::new().route("/healthz", get(async || "well")).route(
            "/wait",
            get(async move || {
                let _ = waiting.clone().wait_for(|stop| *stop).await;
                "answered"
            }),
        );
        let serving = tokio::spawn(serve(listener, router, Limits { connections, head }, stopped));
        Running { address, stop, serving }
    }

    async fn ask(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// Silent from the start, in the middle of a head, and after an answer.
    #[tokio::test]
    async fn idle_connections_keep_nobody_out() {
        let Running { address, stop: _stop, .. } = running(100, Duration::from_millis(300)).await;
        let mut idle = Vec::new();
        for number in 0..300 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let sent: &[u8] = match number % 3 {
                0 => b"",
                1 => b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-slow: ",
                _ => b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n",
            };
            stream.write_all(sent).await.unwrap();
            idle.push(stream);
        }
        let answer = timeout(Duration::from_secs(10), ask(address, "/healthz")).await.expect("an answer");
        assert!(answer.ends_with("well"), "{answer}");
        drop(idle);
    }

    #[tokio::test]
    async fn stopping_answers_what_waits_and_closes_what_is_idle() {
        let Running { address, stop, serving } = running(100, Duration::from_secs(60)).await;
        let idle = TcpStream::connect(address).await.unwrap();
        let waiting = tokio::spawn(ask(address, "/wait"));
        assert!(ask(address, "/healthz").await.ends_with("well"));
        sleep(Duration::from_millis(100)).await;
        stop.send_replace(true);
        assert!(waiting.await.unwrap().ends_with("answered"));
        timeout(Duration::from_secs(5), serving).await.expect("an end").unwrap();
        drop(idle);
    }
}
