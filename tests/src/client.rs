//! An HTTP/1.1 client with explicit connections, because a test must know which Envoy worker it uses.

use anyhow::{Context, Result, ensure};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::{
    http1::{SendRequest, handshake},
    http2,
};
use hyper::ext::Protocol;
use hyper::{HeaderMap, Request, header};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// One kept-alive connection.
#[derive(Debug)]
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    host: String,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> Result<Self> {
        let stream =
            timeout(TIMEOUT, TcpStream::connect(address)).await?.with_context(|| format!("{address}"))?;
        Self::from_stream(stream, &address.to_string()).await
    }

    /// Uses an open connection.
    pub async fn from_stream(stream: TcpStream, host: &str) -> Result<Self> {
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // Ends with an error when the server closes the connection; the next `send` reports it.
        tokio::spawn(connection);
        Ok(Self { sender, host: host.to_owned() })
    }

    /// Sends a request. A body, if any, is JSON.
    pub async fn send(&mut self, request: Request<String>) -> Result<Response> {
        let (mut parts, body) = request.into_parts();
        parts.headers.entry(header::HOST).or_insert(self.host.parse()?);
        if !body.is_empty() {
            parts.headers.entry(header::CONTENT_TYPE).or_insert("application/json".parse()?);
        }
        let exchange = async {
            self.sender.ready().await?;
            let response = self.sender.send_request(Request::from_parts(parts, Full::from(body))).await?;
            let (parts, body) = response.into_parts();
            let body = body.collect().await?.to_bytes();
            anyhow::Ok(Response { status: parts.status.as_u16(), headers: parts.headers, body })
        };
        timeout(TIMEOUT, exchange).await.context("no answer")?
    }

    /// Sends a GET with a credential as `Authorization: Bearer`.
    pub async fn get(&mut self, token: &str) -> Result<Response> {
        self.send(bearer(token)).await
    }
}

#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Response {
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("not JSON: {}", self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Returns the stable code of an error response (RFC 9457, member `code`), or an empty string.
    pub fn code(&self) -> String {
        let body = self.json().unwrap_or_default();
        body.get("code").and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    /// Fails with the body unless the status is `expected`.
    pub fn expect(self, expected: u16) -> Result<Self> {
        ensure!(self.status == expected, "status {} instead of {expected}: {}", self.status, self.text());
        Ok(self)
    }
}

/// Sends one request on a new connection.
pub async fn send(address: SocketAddr, request: Request<String>) -> Result<Response> {
    Connection::open(address).await?.send(request).await
}

/// Sends a GET on a new connection, with a credential as `Authorization: Bearer`.
pub async fn get(address: SocketAddr, token: &str) -> Result<Response> {
    send(address, bearer(token)).await
}

/// Sends a POST with a body and trailers by HTTP/2.
pub async fn send_trailers(address: SocketAddr, token: &str, trailers: HeaderMap) -> Result<Response> {
    send_http2(address, "POST", token, trailers).await
}

/// Sends a request with any method, a body and trailers by HTTP/2.
pub async fn send_http2(
    address: SocketAddr,
    method: &str,
    token: &str,
    trailers: HeaderMap,
) -> Result<Response> {
    let stream = timeout(TIMEOUT, TcpStream::connect(address)).await??;
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(format!("http://{address}/"))
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .body(Full::<Bytes>::from("body").with_trailers(std::future::ready(Some(Ok(trailers)))))?;
    let exchange = async {
        let (parts, body) = sender.send_request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        anyhow::Ok(Response { status: parts.status.as_u16(), headers: parts.headers, body })
    };
    timeout(TIMEOUT, exchange).await.context("no answer")?
}

/// Sends a `CONNECT` by HTTP/2: extended by a protocol (RFC 8441), or a tunnel.
pub async fn connect(
    address: SocketAddr,
    protocol: Option<&'static str>,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<Response> {
    let stream = timeout(TIMEOUT, TcpStream::connect(address)).await??;
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut request = Request::connect(match protocol {
        Some(_) => format!("http://{address}{path}"),
        None => address.to_string(),
    });
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut request = request.body(Full::<Bytes>::default())?;
    if let Some(protocol) = protocol {
        request.extensions_mut().insert(Protocol::from_static(protocol));
    }
    let exchange = async {
        // Waits for the server's setting that permits it.
        sender.ready().await?;
        let (parts, body) = sender.send_request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        anyhow::Ok(Response { status: parts.status.as_u16(), headers: parts.headers, body })
    };
    timeout(TIMEOUT, exchange).await.context("no answer")?
}

pub fn bearer(token: &str) -> Request<String> {
    Request::get("/")
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .body(String::new())
        .expect("a token is a header value")
}

pub fn request_without_credential() -> Request<String> {
    Request::new(String::new())
}

const TIMEOUT: Duration = Duration::from_secs(40);
