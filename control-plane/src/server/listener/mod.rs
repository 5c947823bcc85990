//! Accepts connections within the limit of file descriptors, and closes those that send no request or do not read their
//! responses. A share of the connections is reserved for edges.

mod address;
mod head_timer;
mod slots;
mod stream;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use axum::Router;
use hyper::{
    Request, StatusCode,
    body::Incoming,
    header::{CONNECTION, HeaderValue},
    server::conn::http1,
    service::{Service as _, service_fn},
};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::Semaphore,
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) use address::ClientNetwork;
use head_timer::HeadTimer;
use slots::{ConnectionSlots, Slot, SlotGuard, SlotLimits};
use stream::{CloseState, Stream};

use crate::{
    config::{Networks, Server},
    domain::EdgeId,
    platform::{
        log_throttle::LogThrottle,
        telemetry::{CloseReason, Metrics},
    },
};

/// File descriptors reserved for the database, the logs, the runtime, and connections that are being closed.
const RESERVED_FDS: u64 = 64;

/// The maximum number of connections that are being closed.
const MAX_CLOSING: usize = 8;

/// The maximum size of a request header: four times the longest token, which may occur in several headers. A connection
/// buffers as many bytes of its responses.
const MAX_HEADER_BYTES: usize = 32 * 1024;

/// The size of the kernel's send and receive buffers. The kernel doubles it for bookkeeping.
const KERNEL_BUFFER_BYTES: u32 = 32 * 1024;

/// The length of the queue of connections that are not accepted yet.
const BACKLOG: u32 = 4096;

/// The maximum number of connections of one edge. It is many times what a proxy with one worker per core opens, but
/// keeps a stolen credential from using up the edges' share.
const MAX_CONNECTIONS_PER_EDGE: usize = 1024;

/// How long to wait after a failed accept.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(250);

/// The limits of the listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The maximum number of connections.
    pub connections: u32,
    /// How many of these may belong to clients that have not presented an edge credential.
    pub anonymous: u32,
    /// How many anonymous connections one client may have.
    pub per_address: u32,
    /// The maximum number of requests on one anonymous connection; 0 means no limit.
    pub requests: u32,
    /// The time for the header of a request, from the opening of the connection or the end of the last response.
    pub header_timeout: Duration,
    /// The same for edges and trusted proxies, if it is longer.
    pub idle: Duration,
    /// The time within which a client must read some part of a response.
    pub write: Duration,
    /// The proxies whose `X-Forwarded-For` is trusted.
    pub trusted: Networks,
}

impl Limits {
    /// Returns the limits from the settings, reduced if the limit of open files is too low. Raises that limit as far as
    /// permitted.
    pub fn from_rlimit(server: &Server) -> Self {
        let files = raise_open_files().unwrap_or(u64::MAX);
        let connections = u32::try_from(files.saturating_sub(RESERVED_FDS)).unwrap_or(u32::MAX).max(1);
        if connections < server.max_connections {
            tracing::warn!(
                limit.open_files = files,
                limit.connections = connections,
                "the limit of open files allows fewer connections than server.max_connections; raise it (`ulimit -Hn`)"
            );
        }
        let connections = connections.min(server.max_connections);
        // Keep the proportion if fewer connections are possible than configured.
        let anonymous = u64::from(server.anonymous_connections) * u64::from(connections)
            / u64::from(server.max_connections.max(1));
        Self {
            connections,
            anonymous: u32::try_from(anonymous).unwrap_or(u32::MAX).max(1),
            per_address: server.connections_per_address,
            requests: server.requests_per_connection,
            header_timeout: server.head_timeout.get(),
            idle: server.idle_timeout.get(),
            write: server.write_timeout.get(),
            trusted: server.trusted_proxies.clone(),
        }
    }

    fn slot_limits(&self) -> SlotLimits {
        let size = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        SlotLimits {
            anonymous: size(self.anonymous),
            per_network: size(self.per_address),
            edges: size(self.connections.saturating_sub(self.anonymous)),
            per_edge: MAX_CONNECTIONS_PER_EDGE,
        }
    }
}

/// The address of the client of a request: the peer of its connection, or the address that trusted proxies name.
#[derive(Debug, Clone, Copy)]
pub struct PeerAddr(pub IpAddr);

/// The connection that a request arrived on.
#[derive(Debug, Clone)]
pub(crate) struct Connection(Arc<Slot>);

impl Connection {
    /// Records that the client has presented the credential of `edge`.
    pub(crate) fn set_edge(&self, edge: &EdgeId) {
        self.0.promote(edge);
    }

    pub(crate) fn is_edge(&self) -> bool {
        self.0.is_edge()
    }

    /// Returns true if the peer is a trusted proxy, which forwards the requests of many clients.
    pub(crate) fn is_proxy(&self) -> bool {
        self.0.is_proxy()
    }
}

/// Opens the listening socket. Its kernel buffers are small, because every connection has its own.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    // Connections inherit the buffer sizes.
    socket.set_send_buffer_size(KERNEL_BUFFER_BYTES)?;
    socket.set_recv_buffer_size(KERNEL_BUFFER_BYTES)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves until `stop` is canceled, and then finishes the requests in progress.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    metrics: Metrics,
    stop: CancellationToken,
) {
    let slots = ConnectionSlots::new(limits.slot_limits());
    let limits = Arc::new(limits);
    // A connection that is being closed keeps its file descriptor for a moment.
    let descriptors = usize::try_from(limits.connections).unwrap_or(usize::MAX).saturating_add(MAX_CLOSING);
    let connections = TaskTracker::new();
    let permits = Arc::new(Semaphore::new(descriptors.min(Semaphore::MAX_PERMITS)));
    let (full, failing) = (Arc::new(LogThrottle::default()), LogThrottle::default());
    loop {
        let accepted = async {
            let permit = Arc::clone(&permits).acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            accepted = accepted => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let network = ClientNetwork::from(peer.ip());
                let slot = if limits.trusted.contains(peer.ip().to_canonical()) {
                    slots.take_proxy(network)
                } else {
                    let (slot, evicts) = slots.take_anonymous(network);
                    if evicts && full.allow(Instant::now()) {
                        tracing::warn!(
                            limit.anonymous_connections = limits.anonymous,
                            limit.connections_per_address = limits.per_address,
                            "the limit of anonymous connections is reached; each new connection closes the oldest one of the \
                             address with the most connections"
                        );
                    }
                    Some(slot)
                };
                let Some(slot) = slot else {
                    metrics.count_closed_connection(CloseReason::Evicted);
                    continue;
                };
                let connected = AcceptedConnection {
                    stream,
                    peer,
                    slot: SlotGuard(slot),
                    router: router.clone(),
                    limits: Arc::clone(&limits),
                    metrics: metrics.clone(),
                };
                report_counts(&metrics, &slots);
                let (stop, metrics, slots) = (stop.clone(), metrics.clone(), Arc::clone(&slots));
                connections.spawn(async move {
                    connected.serve(stop).await;
                    report_counts(&metrics, &slots);
                    drop(permit);
                });
            }
            // The client closed the connection before it was accepted.
            Err(error) if is_client_error(&error) => {}
            Err(error) => {
                if failing.allow(Instant::now()) {
                    tracing::error!(
                        error.cause = error.to_string(),
                        "cannot accept connections; check the limit of file descriptors"
                    );
                }
                sleep(ACCEPT_RETRY_DELAY).await;
            }
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

fn report_counts(metrics: &Metrics, slots: &ConnectionSlots) {
    let counts = slots.counts();
    metrics.set_connections(counts.anonymous, counts.edges);
}

struct AcceptedConnection {
    stream: TcpStream,
    peer: SocketAddr,
    slot: SlotGuard,
    router: Router,
    limits: Arc<Limits>,
    metrics: Metrics,
}

impl AcceptedConnection {
    async fn serve(self, stop: CancellationToken) {
        let Self { stream, peer, slot, router, limits, metrics } = self;
        let close_state = Arc::<CloseState>::default();
        let stream = Stream::new(stream, limits.write, Arc::clone(&close_state));
        let mut http = http1::Builder::new();
        let extension = limits.idle.saturating_sub(limits.header_timeout);
        http.timer(HeadTimer::new(Arc::clone(&slot.0), extension))
            .header_read_timeout(limits.header_timeout)
            .max_buf_size(MAX_HEADER_BYTES);
        let router = TowerToHyperService::new(router);
        let requests = AtomicU32::new(0);
        let service = service_fn(|mut request: Request<Incoming>| {
            let slot = Arc::clone(&slot.0);
            let client = if slot.is_proxy() {
                address::client(peer.ip(), request.headers(), &limits.trusted)
            } else {
                peer.ip()
            };
            let begun = requests.fetch_add(1, Ordering::Relaxed).saturating_add(1);
            let used_up = limits.requests > 0 && begun >= limits.requests;
            let edges_path = request.uri().path().starts_with("/edge/");
            request.extensions_mut().insert(PeerAddr(client));
            request.extensions_mut().insert(Connection(Arc::clone(&slot)));
            let answer = router.call(request);
            async move {
                let mut answer = answer.await?;
                // A removed edge must not keep a connection of the edges' share.
                let removed = edges_path && slot.is_edge() && answer.status() == StatusCode::UNAUTHORIZED;
                if removed || used_up && slot.is_anonymous() {
                    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, std::convert::Infallible>(answer)
            }
        });
        let serving = http.serve_connection(TokioIo::new(stream), service);
        let mut serving = std::pin::pin!(serving);
        let mut evicted = std::pin::pin!(slot.0.wait_evicted());
        let mut stopping = false;
        let ended = loop {
            tokio::select! {
                ended = serving.as_mut() => break ended,
                () = evicted.as_mut() => {
                    close_state.reset_on_close();
                    metrics.count_closed_connection(CloseReason::Evicted);
                    return;
                }
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    serving.as_mut().graceful_shutdown();
                }
            }
        };
        if close_state.is_stalled() {
            metrics.count_closed_connection(CloseReason::Stalled);
        }
        if let Err(error) = ended {
            tracing::debug!(peer.address = %peer, error.cause = error.to_string(), "connection failed");
        }
    }
}

fn is_client_error(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

/// Raises the soft limit of open files to the hard limit. Returns the resulting limit; `None` if unlimited.
fn raise_open_files() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        Err(error) => {
            tracing::warn!(error.cause = error.to_string(), "cannot raise the limit of open files");
            current
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use axum::{Extension, routing::get};
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        task::JoinHandle,
        time::timeout,
    };

    use super::*;

    struct Running {
        address: SocketAddr,
        stop: CancellationToken,
        serving: JoinHandle<()>,
        metrics: Metrics,
        /// The number of requests for `/large`.
        asked: Arc<AtomicU32>,
    }

    fn limits(connections: u32, anonymous: u32, per_address: u32) -> Limits {
        Limits {
            connections,
            anonymous,
            per_address,
            requests: 0,
            header_timeout: Duration::from_secs(60),
            idle: Duration::from_secs(60),
            write: Duration::from_secs(60),
            trusted: Networks::default(),
        }
    }

    async fn running(limits: Limits) -> Running {
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let (waiting, asked) = (stop.clone(), Arc::<AtomicU32>::default());
        let counter = Arc::clone(&asked);
        let router = Router::new()
            .route("/healthz", get(async || "well"))
            .route(
                "/wait",
                get(async move || {
                    waiting.cancelled().await;
                    "answered"
                }),
            )
            .route(
                "/large",
                get(async move || {
                    counter.fetch_add(1, Ordering::Relaxed);
                    "x".repeat(20_000)
                }),
            )
            .route(
                "/edge/{name}",
                get(async |path: axum::extract::Path<String>, connection: Extension<Connection>| {
                    if *path == "stranger" {
                        return StatusCode::UNAUTHORIZED;
                    }
                    connection.set_edge(&path.parse().unwrap());
                    StatusCode::OK
                }),
            )
            .route(
                "/client",
                get(async |Extension(PeerAddr(client)): Extension<PeerAddr>| client.to_string()),
            );
        let metrics = Metrics::new();
        let serving = tokio::spawn(serve(listener, router, limits, metrics.clone(), stop.clone()));
        Running { address, stop, serving, metrics, asked }
    }

    /// Connects from 127.0.0.`from`.
    async fn connect(address: SocketAddr, from: u8) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::new(127, 0, 7, from), 0).into()).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect(address).await.unwrap()
    }

    fn request(path: &str, more: &str) -> String {
        format!("GET {path} HTTP/1.1\r\nhost: x\r\n{more}\r\n")
    }

    async fn ask(address: SocketAddr, path: &str) -> String {
        let mut stream = connect(address, 1).await;
        stream.write_all(request(path, "connection: close\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// Reads one response without a body and keeps the connection open.
    async fn edge(stream: &mut TcpStream, name: &str) -> std::io::Result<String> {
        stream.write_all(request(&format!("/edge/{name}"), "").as_bytes()).await?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            if stream.read_buf(&mut answer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(String::from_utf8(answer).unwrap())
    }

    fn has_line(text: &str, line: &str) -> bool {
        text.lines().any(|found| found == line)
    }

    async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
        let probing = async {
            while !holds().await {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(30), probing)
            .await
            .unwrap_or_else(|_| panic!("{what}: not before the deadline"));
    }

    /// The client falls silent at the start, within a header, and after a response.
    #[tokio::test]
    async fn idle_connections_are_closed() {
        let head = Duration::from_millis(300);
        let Running { address, stop: _stop, .. } =
            running(Limits { header_timeout: head, ..limits(400, 300, 300) }).await;
        let mut idle = Vec::new();
        for number in 0..99 {
            let mut stream = connect(address, 1).await;
            let sent: &[u8] = match number % 3 {
                0 => b"",
                1 => b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-slow: ",
                _ => b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n",
            };
            stream.write_all(sent).await.unwrap();
            idle.push(stream);
        }
        for mut stream in idle {
            let mut rest = Vec::new();
            let ended = timeout(Duration::from_secs(30), stream.read_to_end(&mut rest)).await;
            let _ = ended.expect("the end of a connection");
        }
    }

    /// An edge may send the next request at any moment; if the connection is closed at that moment, the request is
    /// lost.
    #[tokio::test]
    async fn idle_connections_of_edges_and_proxies_stay_open_longer() {
        let (head, idle) = (Duration::from_millis(200), Duration::from_secs(2));
        let trusted: Networks = serde_json::from_str(r#"["127.0.7.9"]"#).unwrap();
        let Running { address, stop: _stop, .. } =
            running(Limits { header_timeout: head, idle, trusted, ..limits(400, 300, 300) }).await;
        let mut stranger = connect(address, 1).await;
        assert!(edge(&mut stranger, "stranger").await.unwrap().starts_with("HTTP/1.1 401"));
        let (mut one, mut proxy) = (connect(address, 1).await, connect(address, 9).await);
        for _ in 0..2 {
            assert!(edge(&mut one, "one").await.unwrap().starts_with("HTTP/1.1 200"));
            assert!(edge(&mut proxy, "stranger").await.unwrap().starts_with("HTTP/1.1 401"));
            sleep(5 * head).await;
        }
        let mut rest = Vec::new();
        assert_eq!(timeout(Duration::ZERO, stranger.read_to_end(&mut rest)).await.unwrap().unwrap(), 0);
        // The connections still end after the idle timeout.
        for mut stream in [one, proxy] {
            let ended = timeout(Duration::from_secs(30), stream.read_to_end(&mut rest)).await;
            assert_eq!(ended.expect("the end of a connection").unwrap(), 0);
        }
    }

    #[tokio::test]
    async fn client_that_does_not_read_is_disconnected() {
        let write = Duration::from_millis(500);
        let Running { address, metrics, asked, stop: _stop, .. } =
            running(Limits { write, ..limits(400, 300, 300) }).await;
        let mut streams = Vec::new();
        for _ in 0..20 {
            let mut stream = connect(address, 1).await;
            // Requests beyond the buffers are not sent.
            let requests = request("/large", "").repeat(500);
            let _ = timeout(write, stream.write_all(requests.as_bytes())).await;
            streams.push(stream);
        }
        let stalled = r#"keystile_connections_closed_total{reason="stalled"} 20"#;
        eventually(stalled, async || has_line(&metrics.render().unwrap(), stalled)).await;
        let asked = asked.load(Ordering::Relaxed);
        assert!(asked < 20 * 50, "{asked} of 10,000 requests were worked on");
        for mut stream in streams {
            // The kernel has discarded the connection, too.
            let error = stream.read_to_end(&mut Vec::new()).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        }
    }

    /// The client reads slowly but gets all responses, including those to requests sent meanwhile.
    #[tokio::test]
    async fn slow_reader_gets_its_response() {
        let Running { address, metrics, stop: _stop, .. } = running(limits(400, 300, 300)).await;
        let mut stream = connect(address, 1).await;
        let requests = request("/large", "").repeat(19) + &request("/large", "connection: close\r\n");
        stream.write_all(requests.as_bytes()).await.unwrap();
        let mut answers = Vec::new();
        while stream.read_buf(&mut answers).await.unwrap() > 0 {
            sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(answers.windows(15).filter(|window| window == b"HTTP/1.1 200 OK").count(), 20);
        assert!(!metrics.render().unwrap().contains("stalled"));
    }

    #[tokio::test]
    async fn anonymous_connections_do_not_use_edge_slots() {
        let Running { address, metrics, stop: _stop, .. } = running(limits(20, 10, 5)).await;
        let mut first = connect(address, 1).await;
        assert!(edge(&mut first, "one").await.unwrap().starts_with("HTTP/1.1 200"));
        let mut strangers = Vec::new();
        for number in 0..100 {
            strangers.push(connect(address, 10 + number % 20).await);
        }
        assert!(edge(&mut first, "one").await.unwrap().starts_with("HTTP/1.1 200"));
        // A second edge can authenticate, and keeps its connection.
        let mut second = connect(address, 2).await;
        assert!(edge(&mut second, "two").await.unwrap().starts_with("HTTP/1.1 200"));
        for number in 0..100 {
            strangers.push(connect(address, 10 + number % 20).await);
        }
        for stream in [&mut first, &mut second] {
            assert!(edge(stream, "edge").await.unwrap().starts_with("HTTP/1.1 200"));
        }
        assert!(ask(address, "/healthz").await.ends_with("well"));
        let text = metrics.render().unwrap();
        let open: u32 = text
            .lines()
            .find_map(|line| line.strip_prefix(r#"keystile_connections{of="anonymous"} "#))
            .map(|number| number.parse().unwrap())
            .unwrap();
        assert!(open <= 10, "{text}");
        assert!(has_line(&text, r#"keystile_connections{of="edges"} 2"#), "{text}");
    }

    /// The connection was authenticated before the edge was removed.
    #[tokio::test]
    async fn rejected_edge_gets_no_edge_slot() {
        let Running { address, stop: _stop, .. } = running(limits(20, 10, 5)).await;
        let mut stream = connect(address, 1).await;
        assert!(!edge(&mut stream, "one").await.unwrap().contains("connection: close"));
        let refused = edge(&mut stream, "stranger").await.unwrap();
        assert!(refused.starts_with("HTTP/1.1 401") && refused.contains("connection: close"), "{refused}");
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn anonymous_connection_ends_after_request_limit() {
        let Running { address, stop: _stop, .. } = running(Limits { requests: 3, ..limits(20, 10, 5) }).await;
        let mut stream = connect(address, 1).await;
        stream.write_all(request("/healthz", "").repeat(10).as_bytes()).await.unwrap();
        let mut answers = String::new();
        // Unread requests may turn the close into a reset.
        let _ = stream.read_to_string(&mut answers).await;
        assert_eq!(answers.matches("HTTP/1.1 200").count(), 3, "{answers}");
        assert_eq!(answers.matches("connection: close").count(), 1, "{answers}");
        let mut stream = connect(address, 1).await;
        for _ in 0..10 {
            assert!(!edge(&mut stream, "one").await.unwrap().contains("connection: close"));
        }
    }

    #[tokio::test]
    async fn trusted_proxy_sets_client_address() {
        let trusted: Networks = serde_json::from_str(r#"["127.0.7.1"]"#).unwrap();
        let Running { address, stop: _stop, .. } = running(Limits { trusted, ..limits(20, 10, 1) }).await;
        for (from, expected) in [(1, "198.51.100.1"), (2, "127.0.7.2")] {
            let more = "x-forwarded-for: 203.0.113.1, 198.51.100.1\r\nconnection: close\r\n";
            let mut stream = connect(address, from).await;
            stream.write_all(request("/client", more).as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.ends_with(expected), "{answer}");
        }
        // The connections of a proxy do not count as those of one client.
        let mut proxied = Vec::new();
        for _ in 0..10 {
            proxied.push(connect(address, 1).await);
        }
        for stream in &mut proxied {
            assert!(edge(stream, "one").await.unwrap().starts_with("HTTP/1.1 200"));
        }
    }

    #[tokio::test]
    async fn shutdown_answers_pending_requests_and_closes_idle_connections() {
        let Running { address, stop, serving, .. } = running(limits(200, 100, 100)).await;
        let idle = connect(address, 1).await;
        let waiting = tokio::spawn(ask(address, "/wait"));
        assert!(ask(address, "/healthz").await.ends_with("well"));
        sleep(Duration::from_millis(100)).await;
        stop.cancel();
        assert!(waiting.await.unwrap().ends_with("answered"));
        timeout(Duration::from_secs(5), serving).await.expect("an end").unwrap();
        drop(idle);
    }
}
