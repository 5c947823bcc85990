//! Requests that last: WebSockets, server-sent events, gRPC streams, uploads, downloads and long polls, by HTTP/1.1 and
//! HTTP/2, and an upstream that serves them for as long as they are open.

use anyhow::{Context, Result, bail, ensure};
use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use hyper::body::Bytes;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::ext::Protocol;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{interval, timeout};

/// The time to open a stream.
const OPEN_TIMEOUT: Duration = Duration::from_secs(40);

const OPEN_ATTEMPTS: u32 = 5;

/// Streams per HTTP/2 connection: less than the 100 of the reference configuration.
const STREAMS_PER_CONNECTION: usize = 90;

/// The interval at which both ends of a stream send something. Thousands of streams need a longer one.
pub const BEAT: Duration = Duration::from_millis(200);

/// What is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A WebSocket: an upgrade in HTTP/1.1, an extended `CONNECT` in HTTP/2.
    WebSocket,
    /// Server-sent events.
    Events,
    /// A response without end.
    Download,
    /// A request body without end, and no response yet.
    Upload,
    /// A request without a response.
    Poll,
    /// A bidirectional gRPC stream, by HTTP/2 only.
    Grpc,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    Http1,
    Http2,
}

/// How a stream has ended.
#[derive(Debug, Clone)]
pub struct End {
    pub at: Instant,
    /// The status of the response, or 0 if there was none.
    pub status: u16,
    /// The body of the response.
    pub body: String,
    /// Whether the stream was reset or cut off rather than completed.
    pub is_cut_off: bool,
}

/// An open stream.
#[derive(Debug)]
pub struct OpenStream {
    pub kind: Kind,
    pub version: Version,
    received: Arc<AtomicU64>,
    end: JoinHandle<End>,
    sending: AbortHandle,
}

impl OpenStream {
    pub fn is_open(&self) -> bool {
        !self.end.is_finished()
    }

    /// The number of bytes received after the response headers.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Waits for the end of the stream.
    pub async fn ended_within(mut self, deadline: Duration) -> Result<End> {
        let what = format!("{:?} over {:?}", self.kind, self.version);
        timeout(deadline, &mut self.end).await.with_context(|| format!("{what} is still open"))?.context(what)
    }
}

/// The client closes its side.
impl Drop for OpenStream {
    fn drop(&mut self) {
        self.end.abort();
        self.sending.abort();
    }
}

/// A connection over HTTP/2, and the number of streams that it was used for.
type Http2Connection = (SendRequest<Channel<Bytes, Infallible>>, usize);

/// Opens streams to one address. Those over HTTP/2 share connections.
#[derive(Debug)]
pub struct Client {
    address: SocketAddr,
    beat: Duration,
    http2: Mutex<Option<Http2Connection>>,
}

impl Client {
    /// Creates a client whose uploads and WebSockets send something at this interval.
    pub fn new(address: SocketAddr, beat: Duration) -> Self {
        Self { address, beat, http2: Mutex::default() }
    }

    /// Opens a stream. Returns when the upstream has it: when the response has begun, or, where there is none, when the
    /// request has been sent. `prefix` comes before the path.
    pub async fn open(&self, kind: Kind, version: Version, prefix: &str, token: &str) -> Result<OpenStream> {
        let path = format!("{prefix}/{}", kind.path());
        let opened = async {
            // While a machine is busy, Envoy's connection to the upstream may time out.
            let mut attempts = 0;
            loop {
                let opened = match version {
                    Version::Http1 => self.open_http1(kind, &path, token).await,
                    Version::Http2 => self.open_http2(kind, &path, token).await,
                };
                attempts += 1;
                if opened.is_ok() || attempts == OPEN_ATTEMPTS {
                    return opened;
                }
            }
        };
        timeout(OPEN_TIMEOUT, opened).await.with_context(|| format!("{kind:?} over {version:?}: not open"))?
    }

    async fn open_http1(&self, kind: Kind, path: &str, token: &str) -> Result<OpenStream> {
        let mut socket = TcpStream::connect(self.address).await?;
        socket.set_nodelay(true)?;
        let (method, more) = match kind {
            Kind::WebSocket => (
                "GET",
                "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                 sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
            ),
            Kind::Upload => ("POST", "transfer-encoding: chunked\r\n"),
            Kind::Events | Kind::Download | Kind::Poll => ("GET", ""),
            Kind::Grpc => bail!("gRPC needs HTTP/2"),
        };
        let head =
            format!("{method} {path} HTTP/1.1\r\nhost: test\r\nauthorization: Bearer {token}\r\n{more}\r\n");
        socket.write_all(head.as_bytes()).await?;
        let received = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&received);
        let mut bytes = Vec::new();
        if kind.has_response() {
            while !bytes.windows(4).any(|window| window == b"\r\n\r\n") {
                ensure!(socket.read_buf(&mut bytes).await? > 0, "the connection was closed");
            }
            let line = String::from_utf8_lossy(&bytes).lines().next().unwrap_or_default().to_owned();
            let expected = if kind == Kind::WebSocket { "101" } else { "200" };
            ensure!(line.contains(expected), "{}", String::from_utf8_lossy(&bytes));
        }
        let (mut reader, mut writer) = socket.into_split();
        let pause = self.beat;
        let sender = tokio::spawn(async move {
            let mut beat = interval(pause);
            loop {
                beat.tick().await;
                let sent = match kind {
                    Kind::WebSocket => writer.write_all(b"ping").await,
                    Kind::Upload => writer.write_all(b"4\r\nping\r\n").await,
                    _ => Ok(()),
                };
                if sent.is_err() {
                    return;
                }
            }
        });
        let sending = sender.abort_handle();
        let end = tokio::spawn(async move {
            let began = kind.has_response();
            let mut response = bytes;
            let cut_off = loop {
                let mut chunk = [0; 4096];
                match reader.read(&mut chunk).await {
                    // Neither a WebSocket nor a response of this upstream has an end of its own.
                    Ok(0) => break began,
                    Ok(size) => {
                        counter.fetch_add(size as u64, Ordering::Relaxed);
                        if !began {
                            response.extend_from_slice(&chunk[..size]);
                            if is_complete(&response) {
                                break false;
                            }
                        }
                    }
                    Err(_) => break response.is_empty() || began,
                }
            };
            sender.abort();
            let text = String::from_utf8_lossy(&response).into_owned();
            let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
            let status = head.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0);
            End { at: Instant::now(), status, body: body.to_owned(), is_cut_off: cut_off }
        });
        Ok(OpenStream { kind, version: Version::Http1, received, end, sending })
    }

    async fn connection(&self) -> Result<SendRequest<Channel<Bytes, Infallible>>> {
        let mut held = self.http2.lock().await;
        if let Some((sender, streams)) = &mut *held
            && *streams < STREAMS_PER_CONNECTION
            && !sender.is_closed()
        {
            *streams += 1;
            return Ok(sender.clone());
        }
        let socket = TcpStream::connect(self.address).await?;
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(socket)).await?;
        tokio::spawn(connection);
        // Extended CONNECT needs the settings of the server.
        sender.ready().await?;
        *held = Some((sender.clone(), 1));
        Ok(sender)
    }

    async fn open_http2(&self, kind: Kind, path: &str, token: &str) -> Result<OpenStream> {
        let mut sender = self.connection().await?;
        let method = match kind {
            Kind::WebSocket => "CONNECT",
            Kind::Upload | Kind::Grpc => "POST",
            Kind::Events | Kind::Download | Kind::Poll => "GET",
        };
        // A body without a sender is empty.
        let (upload, body) = Channel::new(4);
        let upload = matches!(kind, Kind::Upload | Kind::Grpc).then_some(upload);
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://test{path}"))
            .header(header::AUTHORIZATION, format!("Bearer {token}"));
        if kind == Kind::Grpc {
            request = request.header(header::CONTENT_TYPE, "application/grpc").header(header::TE, "trailers");
        }
        let mut request = request.body(body)?;
        if kind == Kind::WebSocket {
            request.extensions_mut().insert(Protocol::from_static("websocket"));
        }
        let pause = self.beat;
        let sending = tokio::spawn(async move {
            let Some(mut upload) = upload else { return };
            let mut beat = interval(pause);
            // An empty gRPC message.
            while upload.send_data(Bytes::from_static(&[0; 5])).await.is_ok() {
                beat.tick().await;
            }
        });
        let abort = sending.abort_handle();
        let received = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&received);
        let mut response = Box::pin(sender.send_request(request));
        let first = if kind.has_response() { Some(response.as_mut().await) } else { None };
        if let Some(Ok(first)) = &first {
            ensure!(first.status() == 200, "status {}", first.status());
        }
        if let Some(Err(error)) = first {
            bail!("{error}");
        }
        if kind == Kind::WebSocket
            && let Some(Ok(mut response)) = first
        {
            let upgraded = hyper::upgrade::on(&mut response).await?;
            let (mut reader, mut writer) = tokio::io::split(TokioIo::new(upgraded));
            let sending = tokio::spawn(async move {
                let mut beat = interval(pause);
                while writer.write_all(b"ping").await.is_ok() {
                    beat.tick().await;
                }
            });
            let abort = sending.abort_handle();
            let end = tokio::spawn(async move {
                let mut chunk = [0; 4096];
                // The upstream never ends it.
                while let Ok(size @ 1..) = reader.read(&mut chunk).await {
                    counter.fetch_add(size as u64, Ordering::Relaxed);
                }
                sending.abort();
                End { at: Instant::now(), status: 200, body: String::new(), is_cut_off: true }
            });
            return Ok(OpenStream { kind, version: Version::Http2, received, end, sending: abort });
        }
        let end = tokio::spawn(async move {
            let response = match first {
                Some(first) => first,
                None => response.await,
            };
            let end = |status, body, is_cut_off| End { at: Instant::now(), status, body, is_cut_off };
            let Ok(response) = response else { return end(0, String::new(), true) };
            let (status, mut body) = (response.status().as_u16(), response.into_body());
            let mut text = Vec::new();
            let is_cut_off = loop {
                match body.frame().await {
                    None => break false,
                    Some(Err(_)) => break true,
                    Some(Ok(frame)) => {
                        let data = frame.into_data().unwrap_or_default();
                        counter.fetch_add(data.len() as u64, Ordering::Relaxed);
                        if text.len() < 4096 {
                            text.extend_from_slice(&data);
                        }
                    }
                }
            };
            sending.abort();
            end(status, String::from_utf8_lossy(&text).into_owned(), is_cut_off)
        });
        Ok(OpenStream { kind, version: Version::Http2, received, end, sending: abort })
    }
}

impl Kind {
    const fn path(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::Events => "events",
            Self::Download => "download",
            Self::Upload => "upload",
            Self::Poll => "poll",
            Self::Grpc => "test.Stream/Both",
        }
    }

    /// Whether the response begins before the stream ends.
    pub const fn has_response(self) -> bool {
        !matches!(self, Self::Upload | Self::Poll)
    }
}

/// Returns whether a response with `content-length` is complete.
fn is_complete(response: &[u8]) -> bool {
    let text = String::from_utf8_lossy(response);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    length.and_then(|length| length.parse().ok()).is_some_and(|length: usize| body.len() >= length)
}

/// Serves streams of every kind, at any path that ends like theirs, and answers other requests with 200. Accepts
/// HTTP/1.1 and HTTP/2.
#[derive(Debug)]
pub struct StreamUpstream {
    task: JoinHandle<()>,
    open: Arc<AtomicU64>,
}

impl StreamUpstream {
    /// Starts an upstream that sends something at this interval.
    pub async fn start(address: SocketAddr, beat: Duration) -> Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let open = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&open);
        let router = Router::new().fallback(move |request| serve(request, Arc::clone(&counter), beat));
        let task = tokio::spawn(async { axum::serve(listener, router).await.unwrap_or_default() });
        Ok(Self { task, open })
    }

    /// The number of streams that are open at the upstream.
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }
}

impl Drop for StreamUpstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Counts a stream for as long as it is open.
struct Counted(Arc<AtomicU64>);

impl Counted {
    fn new(open: Arc<AtomicU64>) -> Self {
        open.fetch_add(1, Ordering::Relaxed);
        Self(open)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn serve(mut request: Request<Body>, open: Arc<AtomicU64>, beat: Duration) -> Response {
    let path = request.uri().path().to_owned();
    match path.rsplit('/').next().unwrap_or_default() {
        "websocket" => {
            let counted = Counted::new(open);
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let _counted = counted;
                let Ok(upgraded) = upgrade.await else { return };
                let (mut reader, mut writer) = tokio::io::split(TokioIo::new(upgraded));
                let _ = tokio::io::copy(&mut reader, &mut writer).await;
            });
            let headers = [(header::CONNECTION, "upgrade"), (header::UPGRADE, "websocket")];
            (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
        }
        "events" => endless(open, "text/event-stream", Bytes::from_static(b"data: beat\n\n"), beat),
        "download" => endless(open, "application/octet-stream", Bytes::from_static(&[0; 1024]), beat),
        "upload" => {
            let _counted = Counted::new(open);
            let mut body = request.into_body();
            while let Some(Ok(_)) = body.frame().await {}
            StatusCode::OK.into_response()
        }
        // A long poll that is answered after a while.
        "late" => {
            let _counted = Counted::new(open);
            tokio::time::sleep(5 * beat).await;
            "late".into_response()
        }
        "poll" => {
            let _counted = Counted::new(open);
            std::future::pending().await
        }
        "Both" => {
            let counted = Counted::new(open);
            let body = request.into_body().map_frame(move |frame| {
                let _ = &counted;
                frame
            });
            ([(header::CONTENT_TYPE, "application/grpc")], Body::new(body)).into_response()
        }
        _ => StatusCode::OK.into_response(),
    }
}

fn endless(open: Arc<AtomicU64>, kind: &'static str, chunk: Bytes, pause: Duration) -> Response {
    let (mut sender, body) = Channel::<Bytes, Infallible>::new(4);
    tokio::spawn(async move {
        let _counted = Counted::new(open);
        let mut beat = interval(pause);
        while sender.send_data(chunk.clone()).await.is_ok() {
            beat.tick().await;
        }
    });
    ([(header::CONTENT_TYPE, kind)], Body::new(body)).into_response()
}
