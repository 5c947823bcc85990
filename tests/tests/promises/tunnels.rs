//! A tunnel by `CONNECT`, for which Envoy is the proxy, needs a credential, and ends when the credential is revoked.

use anyhow::{Context, Result, ensure};
use harness::envoy::Settings;
use harness::fake_control_plane::{TestSigner, plugin_configuration};
use harness::{FakeControlPlane, Scratch, eventually};
use http_body_util::Empty;
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::Duration;
use token::Fingerprint;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// The promise is one second; a busy machine gets more time.
const DEADLINE: Duration = Duration::from_secs(10);

const TIMEOUT: Duration = Duration::from_secs(40);

/// The target, which Envoy ignores: it forwards all tunnels to one cluster.
const TARGET: &str = "db.example:5432";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tunnel_ends_when_its_credential_is_revoked() {
    let scratch = Scratch::new().unwrap();
    let configuration = plugin_configuration(&TestSigner::new(1));
    let mut settings = Settings::for_scratch(&scratch, configuration.clone()).unwrap();
    settings.workers = 1;
    let address = scratch.address(8443);
    settings.more_listeners = vec![listener(address, &settings.filter(&configuration))];
    let upstream = TcpListener::bind(settings.upstream).await.unwrap();
    let upstream = tokio::spawn(serve_upstream(upstream));
    let mut control_plane = FakeControlPlane::start_before_upstream(scratch, settings).await;
    let survivor = control_plane.token();

    for (open, version) in [(Tunnel::open_http1 as Open, "HTTP/1.1"), (Tunnel::open_http2, "HTTP/2")] {
        let victim = control_plane.token();
        for token in [None, Some("abc")] {
            assert_eq!(status(open(address, token).await), "status 401", "{version}: {token:?}");
        }
        let mut surviving = None;
        eventually("a tunnel opens", async || {
            surviving = Some(open(address, Some(&survivor)).await?);
            anyhow::Ok(())
        })
        .await;
        let mut surviving = surviving.unwrap();
        let mut used = open(address, Some(&victim)).await.unwrap();
        let idle = open(address, Some(&victim)).await.unwrap();
        used.ping().await.unwrap();
        surviving.ping().await.unwrap();
        let fingerprint = Fingerprint::digest(victim.as_bytes());
        assert!(control_plane.content.revoke(control_plane.version, fingerprint).unwrap());
        control_plane.publish();
        used.wait_for_end().await.context(version).unwrap();
        idle.wait_for_end().await.context(version).unwrap();
        surviving.ping().await.unwrap();
        assert_eq!(status(open(address, Some(&victim)).await), "status 401", "{version}");
    }
    eventually("four ends are counted", async || {
        let ended = control_plane.envoy.metric("keystile_ended_revoked").await?;
        ensure!(ended == 4, "{ended} tunnels were ended");
        Ok(())
    })
    .await;
    upstream.abort();
}

/// Returns the error of a tunnel that was refused.
fn status(opened: Result<Tunnel>) -> String {
    opened.err().map(|error| error.to_string()).unwrap_or_default()
}

type Open = for<'a> fn(
    SocketAddr,
    Option<&'a str>,
) -> std::pin::Pin<Box<dyn Future<Output = Result<Tunnel>> + Send + 'a>>;

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// An open tunnel to an upstream that sends everything back.
struct Tunnel(Box<dyn Stream>);

impl Tunnel {
    fn open_http1<'a>(
        address: SocketAddr,
        token: Option<&'a str>,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<Self>> + Send + 'a>> {
        Box::pin(async move {
            let mut socket = TcpStream::connect(address).await?;
            let credential =
                token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
            let head = format!("CONNECT {TARGET} HTTP/1.1\r\nhost: {TARGET}\r\n{credential}\r\n");
            socket.write_all(head.as_bytes()).await?;
            let mut received = Vec::new();
            while !received.windows(4).any(|end| end == b"\r\n\r\n") {
                ensure!(timeout(TIMEOUT, socket.read_buf(&mut received)).await?? > 0, "no response");
            }
            let status = String::from_utf8_lossy(&received[9..12]).into_owned();
            ensure!(status == "200", "status {status}");
            Ok(Self(Box::new(socket)))
        })
    }

    fn open_http2<'a>(
        address: SocketAddr,
        token: Option<&'a str>,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<Self>> + Send + 'a>> {
        Box::pin(async move {
            let socket = TcpStream::connect(address).await?;
            let (mut sender, connection) =
                http2::handshake(TokioExecutor::new(), TokioIo::new(socket)).await?;
            tokio::spawn(connection);
            let mut request = Request::connect(TARGET);
            if let Some(token) = token {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            let response = sender.send_request(request.body(Empty::<Bytes>::new())?);
            let mut response = timeout(TIMEOUT, response).await??;
            ensure!(response.status() == 200, "status {}", response.status().as_u16());
            let upgraded = hyper::upgrade::on(&mut response).await?;
            // The connection ends with its last sender.
            tokio::spawn(async move {
                let _sender = sender;
                tokio::time::sleep(TIMEOUT).await;
            });
            Ok(Self(Box::new(TokioIo::new(upgraded))))
        })
    }

    async fn ping(&mut self) -> Result<()> {
        self.0.write_all(b"ping").await?;
        let mut answer = [0; 4];
        timeout(TIMEOUT, self.0.read_exact(&mut answer)).await.context("no answer")??;
        ensure!(&answer == b"ping", "{answer:?}");
        Ok(())
    }

    async fn wait_for_end(mut self) -> Result<()> {
        let mut rest = [0; 16];
        let end = timeout(DEADLINE, self.0.read(&mut rest)).await.context("the tunnel is still open")?;
        ensure!(!matches!(end, Ok(1..)), "data instead of an end: {rest:?}");
        Ok(())
    }
}

/// Sends back what it receives, and answers HTTP requests, with which the harness finds out whether the edge is ready.
async fn serve_upstream(listener: TcpListener) -> Result<()> {
    loop {
        let (mut stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            let mut received = [0; 4096];
            while let size @ 1.. = stream.read(&mut received).await? {
                let is_request = received[..size].starts_with(b"GET ");
                let answer = if is_request {
                    b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
                } else {
                    &received[..size]
                };
                stream.write_all(answer).await?;
            }
            anyhow::Ok(())
        });
    }
}

/// A listener for tunnels by HTTP/1.1 and HTTP/2.
fn listener(address: SocketAddr, filter: &Value) -> Value {
    let kind = |name: &str| format!("type.googleapis.com/envoy.extensions.filters.{name}");
    json!({
        "name": "tunnels",
        "address": { "socket_address": { "address": address.ip(), "port_value": address.port() } },
        "filter_chains": [{ "filters": [{
            "name": "http",
            "typed_config": {
                "@type": kind("network.http_connection_manager.v3.HttpConnectionManager"),
                "stat_prefix": "tunnels",
                "use_remote_address": true,
                "upgrade_configs": [{ "upgrade_type": "CONNECT" }],
                "http2_protocol_options": { "allow_connect": true },
                "delayed_close_timeout": "0.2s",
                "route_config": { "virtual_hosts": [{
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{
                        "match": { "connect_matcher": {} },
                        "route": {
                            "cluster": "upstream",
                            "timeout": "0s",
                            "upgrade_configs": [{ "upgrade_type": "CONNECT", "connect_config": {} }],
                        },
                    }],
                }] },
                "http_filters": [filter, {
                    "name": "router",
                    "typed_config": { "@type": kind("http.router.v3.Router") },
                }],
            },
        }] }],
    })
}
