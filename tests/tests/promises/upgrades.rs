//! A request for a WebSocket, by HTTP/1.1 or HTTP/2 (RFC 8441), is decided like any other, and the upstream gets the same
//! identity headers.

use harness::client::{bearer, connect, request_without_credential, send};
use harness::envoy::Settings;
use harness::fake_control_plane::{TestSigner, plugin_configuration};
use harness::{FakeControlPlane, Response, Scratch};
use hyper::Request;
use hyper::header::{CONNECTION, HeaderValue, UPGRADE};
use serde_json::{Map, Value, json};
use token::base64url;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// Envoy forwards the `Connection` of an upgrade unchanged. The next hop would remove the headers it names (RFC 9110
/// section 7.6.1), and the request would have no identity.
#[tokio::test]
async fn connection_header_removes_no_identity() {
    let control_plane = control_plane(|_| ()).await;
    for (lines, expected) in [
        (&["upgrade"][..], &["upgrade"][..]),
        (&["Upgrade, X-Keystile-Subject"], &["Upgrade"]),
        (&["upgrade,x-keystile-subject,x-keystile-operator,authorization"], &["upgrade"]),
        (&["keep-alive, x_keystile_subject, upgrade"], &["keep-alive, upgrade"]),
        (&["upgrade", "x-keystile-subject"], &["upgrade"]),
        (&["x-keystile-subject", "Keep-Alive, Upgrade"], &["Keep-Alive, Upgrade"]),
    ] {
        let mut request = send_upgrade(bearer(&control_plane.token()));
        request.headers_mut().remove(CONNECTION);
        for line in lines {
            request.headers_mut().append(CONNECTION, HeaderValue::from_static(line));
        }
        request.headers_mut().insert("proxy-connection", HeaderValue::from_static("x-keystile-subject"));
        let echo = echo(&send(control_plane.envoy.address(), request).await.unwrap().expect(101).unwrap());
        let left = join_header_values(&echo, "connection");
        assert_eq!(left, expected.join(","), "{lines:?}");
        assert!(
            !echo["headers"]
                .get("proxy-connection")
                .is_some_and(|left| left.to_string().contains("keystile"))
        );
        assert_eq!(echo["headers"]["x-keystile-subject"], json!(["OP0000000001"]), "{lines:?}");
        assert_eq!(echo["headers"]["upgrade"], json!(["websocket"]), "Envoy treats it as an upgrade");
        assert_eq!(echo["headers"].get("authorization"), None);
    }
    let refused =
        send(control_plane.envoy.address(), send_upgrade(request_without_credential())).await.unwrap();
    assert_eq!(refused.expect(401).unwrap().code(), "credential_missing");
}

/// Filters see an extended CONNECT as an upgrade: method, path, rules and identity are those of a `GET`.
#[tokio::test]
async fn extended_connect_is_decided_like_get() {
    let control_plane = control_plane(|settings| {
        let members = settings.plugin_configuration.as_object_mut().unwrap();
        members.insert(
            "rules".into(),
            json!([
            { "path": "/", "methods": ["GET"] },
            { "path": "/admin/**", "claims": { "role": "admin" } },
            { "path": "/connect", "methods": ["CONNECT"], "access": "public" },
            { "path": "/open/**", "access": "public" },
            ]),
        );
    })
    .await;
    let (address, token) = (control_plane.envoy.address(), control_plane.token());
    let good = format!("Bearer {token}");
    let forged = [("x-keystile-subject", "root"), ("x-keystile-role", "root"), ("x-forwarded-method", "GET")];
    for (path, authorization, status, code) in [
        ("/", None, 401, "credential_missing"),
        ("/", Some("Bearer x"), 401, "token_malformed"),
        ("/admin/x", None, 401, "credential_missing"),
        ("/admin/x", Some(&*good), 403, "claim_missing"),
        ("/Admin/x", Some(&good), 404, "route_unmatched"),
        ("/open/..%2fadmin/x", Some(&good), 400, "path_encoded_separator"),
        ("/open/%2e%2e/admin/x", Some(&good), 403, "claim_missing"),
        // It is not a plain CONNECT, and a plain GET is not an upgrade.
        ("/connect", None, 405, "method_not_allowed"),
        ("/nothing", Some(&good), 404, "route_unmatched"),
        ("/open/x", None, 200, ""),
        ("/", Some(&good), 200, ""),
    ] {
        let authorization = authorization.map(|value| ("authorization", value));
        let headers: Vec<_> = authorization.into_iter().chain(forged).collect();
        let answer = connect(address, Some("websocket"), path, &headers).await.unwrap();
        assert_eq!((answer.status, &*answer.code()), (status, code), "{path}: {}", answer.text());
        if status == 200 {
            let echo = echo(&answer);
            let subject = authorization.map(|_| json!(["OP0000000001"])).unwrap_or_default();
            assert_eq!(
                echo["headers"].get("x-keystile-subject").cloned().unwrap_or_default(),
                subject,
                "{path}"
            );
            assert!(!echo.to_string().contains("root"), "{echo}");
            assert_eq!(echo["headers"].get("authorization"), None);
        }
    }
    // Without a protocol it is a tunnel, which has no path; and Envoy is not configured for tunnels.
    for (protocol, path) in [(None, "/"), (Some("connect-udp"), "/open/x"), (Some("x-keystile"), "/open/x")] {
        let answer = connect(address, protocol, path, &[("authorization", &*good)]).await;
        let status = answer.map(|answer| answer.status).unwrap_or(0);
        assert!(![200, 101].contains(&status), "{protocol:?}: {status}");
    }
}

pub(crate) fn send_upgrade(mut request: Request<String>) -> Request<String> {
    let headers = request.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert("sec-websocket-version", HeaderValue::from_static("13"));
    headers.insert("sec-websocket-key", HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
    request
}

/// Starts an edge that permits upgrades, in front of a service that accepts them, and the first protocol that it is
/// offered. The service returns the path and the headers of each request.
pub(crate) async fn control_plane(prepare: impl FnOnce(&mut Settings)) -> FakeControlPlane {
    let scratch = Scratch::new().unwrap();
    let mut settings = Settings::for_scratch(&scratch, plugin_configuration(&TestSigner::new(1))).unwrap();
    settings.upgrades = true;
    prepare(&mut settings);
    let listener = TcpListener::bind(settings.upstream).await.unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    FakeControlPlane::start_before_upstream(scratch, settings).await
}

async fn serve(stream: TcpStream) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut headers, mut line, mut path) = (Map::new(), String::new(), None);
        while stream.read_line(&mut line).await? > 2 {
            if let Some((name, value)) = line.trim_end().split_once(": ") {
                let values = headers.entry(name.to_lowercase()).or_insert_with(|| json!([]));
                values.as_array_mut().unwrap().push(value.into());
            } else {
                path = line.split(' ').nth(1).map(str::to_owned);
            }
            line.clear();
        }
        if line.is_empty() {
            return Ok(());
        }
        let got = json!({ "path": path, "headers": headers }).to_string();
        let got = base64url::encode(got.as_bytes());
        if !headers.contains_key("upgrade") {
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx-got: {got}\r\n\r\n");
            stream.write_all(answer.as_bytes()).await?;
            continue;
        }
        let offered = headers.get("sec-websocket-protocol").and_then(|offered| offered[0].as_str());
        let accepted = offered.and_then(|offered| offered.split(',').next());
        let accepted = accepted.map(|accepted| format!("sec-websocket-protocol: {}\r\n", accepted.trim()));
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n{}x-got: {got}\r\n\r\n",
            accepted.unwrap_or_default()
        );
        stream.write_all(answer.as_bytes()).await?;
        return stream.shutdown().await;
    }
}

pub(crate) fn echo(response: &Response) -> Value {
    let got = response.headers.get("x-got").expect("the service got the request").as_bytes();
    serde_json::from_slice(&base64url::decode(got).unwrap()).unwrap()
}

fn join_header_values(echo: &Value, name: &str) -> String {
    let values = echo["headers"][name].as_array().cloned().unwrap_or_default();
    values.iter().map(|value| value.as_str().unwrap()).collect::<Vec<_>>().join(",")
}
