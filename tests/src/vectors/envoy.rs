//! Runs the vectors in the real Envoy, with any HTTP filter that implements them: one Envoy, and one listener for each policy.
//!
//! Requests and responses are compared as bytes, so client and upstream are sockets without an HTTP library. Left out are
//! only headers that each connection has for itself, and those that Envoy adds.

use super::{Expected, Forwarded, Line, Request, Response, Vector, Vectors};
use crate::envoy::Settings;
use crate::{Envoy, Scratch};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// Headers of a connection (RFC 9110 section 7.6.1), of framing, and those that Envoy adds.
const OF_HOST: [&str; 10] = [
    "connection",
    "te",
    "transfer-encoding",
    "content-length",
    "date",
    "server",
    "x-forwarded-proto",
    "x-envoy-internal",
    "x-envoy-upstream-service-time",
    "host",
];

/// More than the vectors have.
const MAX_HEADERS: u32 = 2000;

/// The first port of the listeners.
const FIRST_PORT: u16 = 10_000;

/// The time for an exchange. It takes about a millisecond.
const TIMEOUT: Duration = Duration::from_secs(40);

/// Checks all vectors that do not need another clock. `filter` returns the HTTP filter for a plugin configuration.
///
/// # Errors
///
/// Names the vectors that do not hold, with what Envoy did.
pub async fn check(vectors: &Vectors, filter: &dyn Fn(&Value) -> Result<Value>) -> Result<()> {
    let scratch = Scratch::new()?;
    let mut settings = Settings::for_scratch(&scratch, Value::Null)?;
    settings.workers = 1;
    settings.filters_instead = Some(Vec::new());
    settings.access_log = false;
    let groups = vectors.by_policy();
    let mut addresses = BTreeMap::new();
    for (policy, port) in groups.keys().zip(FIRST_PORT..) {
        let address = scratch.address(port);
        let filter = filter(&vectors.configuration(policy)?)?;
        settings.more_listeners.push(listener(policy, address, &filter));
        addresses.insert(*policy, address);
    }
    let upstream = TcpListener::bind(settings.upstream).await?;
    let upstream = tokio::spawn(serve_upstream(upstream));
    let envoy = Envoy::start(settings, scratch.folder()).await?;
    let mut failures = Vec::new();
    for (policy, group) in &groups {
        let group: Vec<&Vector> = group.iter().filter(|vector| vector.clock.is_none()).copied().collect();
        // The second time, the cache has the credential.
        for vector in group.iter().chain(&group) {
            let outcome = outcome(addresses[policy], vector).await;
            if let Err(error) = outcome.and_then(|outcome| compare(vector, &outcome)) {
                failures.push(format!("{}: {error:#}", vector.name));
            }
        }
    }
    upstream.abort();
    envoy.stop()?;
    failures.dedup();
    ensure!(failures.is_empty(), "{} vectors do not hold:\n{}", failures.len(), failures.join("\n"));
    Ok(())
}

fn listener(policy: &str, address: SocketAddr, filter: &Value) -> Value {
    let kind = |name: &str| format!("type.googleapis.com/envoy.extensions.filters.{name}");
    json!({
        "name": policy,
        "address": { "socket_address": { "address": address.ip(), "port_value": address.port() } },
        // The client states its own address.
        "listener_filters": [{
            "name": "proxy_protocol",
            "typed_config": { "@type": kind("listener.proxy_protocol.v3.ProxyProtocol") },
        }],
        "filter_chains": [{ "filters": [{
            "name": "http",
            "typed_config": {
                "@type": kind("network.http_connection_manager.v3.HttpConnectionManager"),
                "stat_prefix": "vectors",
                "use_remote_address": false,
                "skip_xff_append": true,
                "generate_request_id": false,
                "preserve_external_request_id": true,
                "normalize_path": false,
                "merge_slashes": false,
                "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
                "max_request_headers_kb": 96,
                "common_http_protocol_options": {
                    "max_headers_count": MAX_HEADERS,
                    "headers_with_underscores_action": "ALLOW",
                },
                "http_protocol_options": { "allow_custom_methods": true },
                "route_config": { "virtual_hosts": [{
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": "upstream" } }],
                }] },
                "http_filters": [filter, {
                    "name": "router",
                    "typed_config": {
                        "@type": kind("http.router.v3.Router"),
                        "suppress_envoy_headers": true,
                    },
                }],
            },
        }] }],
    })
}

/// What a client and the upstream see.
enum Outcome {
    Forwarded(Forwarded),
    Answered(Response),
}

async fn outcome(address: SocketAddr, vector: &Vector) -> Result<Outcome> {
    let Request { method, path, authority, headers, client_address } = &vector.request;
    let client = client_address.as_deref().unwrap_or("192.0.2.1");
    let family = if client.contains(':') { "TCP6" } else { "TCP4" };
    let local = if client.contains(':') { "::1" } else { "127.0.0.1" };
    let mut text = format!("PROXY {family} {client} {local} 50000 80\r\n{method} {path} HTTP/1.1\r\n");
    for Line { name, value } in authority.iter().map(|host| Line::new("host", host)).chain(headers.clone()) {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(text.as_bytes()).await?;
        let mut received = Vec::new();
        let (head, body_from) = read_head(&mut stream, &mut received).await?.context("no response")?;
        let (status, headers) = parse_head(&head)?;
        let status: u16 = status.split(' ').nth(1).context("no status")?.parse()?;
        let length = headers.iter().find(|line| line.name == "content-length");
        let length: usize = length.context("no content-length")?.value.parse()?;
        while method != "HEAD" && received.len() < body_from + length {
            ensure!(stream.read_buf(&mut received).await? > 0, "an incomplete body");
        }
        let body = String::from_utf8(received[body_from..].to_vec())?;
        anyhow::Ok((status, headers, body))
    };
    let (status, headers, body) = timeout(TIMEOUT, exchange).await.context("no response in time")??;
    if headers.iter().any(|line| line.name == UPSTREAM.0) {
        // A response to HEAD has no body.
        let head = headers.iter().find(|line| line.name == UPSTREAM.1).context("no head")?;
        let head =
            String::from_utf8(token::base64url::decode(head.value.as_bytes()).context("no base64url")?)?;
        let (request_line, headers) = parse_head(&head)?;
        let path = request_line.split(' ').nth(1).context("no path")?.to_owned();
        return Ok(Outcome::Forwarded(Forwarded { path, headers }));
    }
    Ok(Outcome::Answered(Response { status, headers, body }))
}

fn compare(vector: &Vector, outcome: &Outcome) -> Result<()> {
    let Expected { decision, response, forwarded, .. } = &vector.expected;
    match (outcome, response, forwarded) {
        (Outcome::Forwarded(found), None, Some(expected)) => {
            ensure!(found.path == expected.path, "path {} instead of {}", found.path, expected.path);
            compare_lines(&without_own(&found.headers), &without_own(&expected.headers))
        }
        (Outcome::Answered(found), Some(expected), None) if is_grpc(&vector.request) => {
            let value =
                |name: &str| found.headers.iter().find(|line| line.name == name).map(|line| &line.value);
            ensure!(
                value("grpc-message") == Some(&expected.body),
                "gRPC message {:?}",
                value("grpc-message")
            );
            let status = match expected.status {
                400 => "13",
                401 => "16",
                403 => "7",
                404 => "12",
                503 => "14",
                other => bail!("status {other}"),
            };
            ensure!(value("grpc-status").is_some_and(|found| found == status), "{:?}", value("grpc-status"));
            Ok(())
        }
        (Outcome::Answered(found), Some(expected), None) => {
            ensure!(
                (found.status, &found.body) == (expected.status, &expected.body),
                "{} {} instead of {} {}",
                found.status,
                found.body,
                expected.status,
                expected.body
            );
            let sorted = |lines: &[Line]| {
                let mut lines = without_own(lines);
                // Envoy puts the type first.
                lines.sort_by(|one, other| one.name.cmp(&other.name));
                lines
            };
            compare_lines(&sorted(&found.headers), &sorted(&expected.headers))
        }
        (Outcome::Forwarded(_), ..) => bail!("forwarded instead of {decision:?}"),
        (Outcome::Answered(response), ..) => {
            bail!("{} {} instead of {decision:?}", response.status, response.body)
        }
    }
}

fn compare_lines(found: &[Line], expected: &[Line]) -> Result<()> {
    ensure!(found == expected, "headers {found:?} instead of {expected:?}");
    Ok(())
}

fn without_own(lines: &[Line]) -> Vec<Line> {
    lines.iter().filter(|line| !OF_HOST.contains(&line.name.as_str())).cloned().collect()
}

fn is_grpc(request: &Request) -> bool {
    request
        .headers
        .iter()
        .any(|line| line.name == "content-type" && line.value.starts_with("application/grpc"))
}

/// The headers of a response of the upstream: that it is one, and the head of the request.
const UPSTREAM: (&str, &str) = ("x-upstream", "x-upstream-head");

/// Answers each request with its head.
async fn serve_upstream(listener: TcpListener) -> Result<()> {
    loop {
        let (mut stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            let mut received = Vec::new();
            while let Some((head, end)) = read_head(&mut stream, &mut received).await? {
                received.drain(..end);
                let head = token::base64url::encode(head.as_bytes());
                let response = format!(
                    "HTTP/1.1 200 OK\r\n{}: 1\r\n{}: {head}\r\ncontent-length: 0\r\n\r\n",
                    UPSTREAM.0, UPSTREAM.1
                );
                stream.write_all(response.as_bytes()).await?;
            }
            anyhow::Ok(())
        });
    }
}

/// Reads until the end of a head, and returns the head and the offset of what follows; `None` at the end of the connection.
async fn read_head(stream: &mut TcpStream, received: &mut Vec<u8>) -> Result<Option<(String, usize)>> {
    loop {
        if let Some(at) = received.windows(4).position(|end| end == b"\r\n\r\n") {
            return Ok(Some((String::from_utf8(received[..at].to_vec())?, at + 4)));
        }
        if stream.read_buf(received).await? == 0 {
            return Ok(None);
        }
    }
}

fn parse_head(head: &str) -> Result<(String, Vec<Line>)> {
    let mut lines = head.split("\r\n");
    let first = lines.next().context("an empty head")?.to_owned();
    let headers: Result<Vec<Line>> = lines
        .map(|line| {
            let (name, value) = line.split_once(':').with_context(|| format!("not a header: {line}"))?;
            Ok(Line::new(name, value.trim()))
        })
        .collect();
    Ok((first, headers?))
}
