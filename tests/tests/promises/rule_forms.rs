//! Rules with alternatives, custom verbs, extensions and encoded slashes, in the real Envoy.

use harness::envoy::Settings;
use harness::{Envoy, FakeControlPlane, Scratch, Upstream, eventually};
use serde_json::{Value, json};
use std::net::SocketAddr;
use token::mint::SigningKey;
use token::{Algorithm, VerifyingKey};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

// The functions with which the unit tests of the filter model Envoy.
#[path = "../../../verdict/src/decision/route/envoy_paths.rs"]
mod envoy_paths;

#[tokio::test]
async fn rules_have_the_documented_forms() {
    let provider = SigningKey::ed25519("idp-1", &[9; 32]).unwrap();
    let mut control_plane = FakeControlPlane::start_with(|settings| {
        let members = settings.plugin_configuration.as_object_mut().unwrap();
        members.insert("issuers".into(), json!([{ "issuer": ISSUER, "audiences": ["orders"] }]));
        members.insert("rules".into(), rules());
    })
    .await;
    let public = provider.verifying_key().public_material().unwrap();
    let key = VerifyingKey::foreign(ISSUER, provider.kid(), Algorithm::EdDsa, &public).unwrap();
    control_plane.content.set_verifying_keys([control_plane.signing.verifying_key(), &key]).unwrap();
    control_plane.publish();
    let address = control_plane.envoy.address();
    let token = |claims: Value| {
        let now = harness::fake_control_plane::now_ms() / 1000;
        let mut all =
            json!({ "iss": ISSUER, "sub": "7", "aud": "orders", "iat": now - 10, "exp": now + 3600 });
        all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        let header = json!({ "alg": "EdDSA", "kid": provider.kid() }).to_string();
        provider.sign(&header, all.to_string().as_bytes()).expose().to_owned()
    };
    let reader = token(json!({ "scope": "profile orders:read", "email": "jo@example.com" }));
    let admin = token(json!({
        "sub": "1",
        "groups": ["staff", "user-admin"],
        "scope": "orders:write",
        "email": "jo@badexample.com",
        "authorities": [{ "authority": "ROLE_USER" }, { "authority": "ROLE_OWNER" }],
    }));
    for mut worker in control_plane.workers().await {
        eventually("the edge has the provider's key", async || {
            let request = hyper::Request::get("/orders").header("authorization", format!("Bearer {reader}"));
            worker.send(request.body(String::new())?).await?.expect(200).map(drop)
        })
        .await;
    }
    let (nobody, reader, admin) = (None, Some(&*reader), Some(&*admin));
    for (case, method, path, token, status, code) in [
        ("e1_any_of_the_scopes", "GET", "/orders", reader, 200, ""),
        ("e1_any_of_the_scopes", "GET", "/orders", admin, 200, ""),
        ("e1_all_of_the_claims", "GET", "/groups", admin, 200, ""),
        ("e1_all_of_the_claims", "GET", "/groups", reader, 403, "claim_missing"),
        ("e1_members_of_array", "GET", "/authorities", admin, 200, ""),
        ("e1_members_of_array", "GET", "/authorities", reader, 403, "claim_missing"),
        ("e2_owner", "GET", "/accounts/7", reader, 200, ""),
        ("e2_admin", "GET", "/accounts/7", admin, 200, ""),
        ("e2_neither", "GET", "/accounts/8", reader, 403, "claim_missing"),
        ("e3_suffix", "GET", "/mail", reader, 200, ""),
        ("e3_suffix_of_longer_name", "GET", "/mail", admin, 403, "claim_missing"),
        ("e4_verb", "POST", "/v1/users/7:suspend", nobody, 401, "credential_missing"),
        ("e4_verb", "POST", "/v1/users/7:suspend", admin, 200, ""),
        ("e4_variable_takes_no_verb", "GET", "/v1/users/7:suspend", admin, 405, "method_not_allowed"),
        ("e4_variable", "GET", "/v1/users/7", nobody, 200, ""),
        ("e4_encoded_colon", "POST", "/v1/users/7%3Asuspend", admin, 400, "path_not_canonical"),
        ("e5_extension", "GET", "/assets/x/app.min.js", nobody, 200, ""),
        ("e5_extension", "GET", "/assets/..%2Fmail;.js", nobody, 400, "path_parameters"),
        ("e5_extension", "GET", "/mail;.js", nobody, 400, "path_parameters"),
        ("e5_extension", "GET", "/mail%2f.js", nobody, 400, "path_encoded_separator"),
        ("e5_extension", "GET", "/mail%3f.js", nobody, 400, "path_encoded_separator"),
        ("e5_extension", "GET", "/mail.js", nobody, 400, "path_read_alike"),
        ("e5_extension", "GET", "/accounts/7.js", nobody, 400, "path_read_alike"),
        ("e5_extension", "GET", "/assets/app.js/", nobody, 400, "path_trailing_slash"),
        ("e5_extension", "GET", "/assets/app.JS", nobody, 400, "path_read_alike"),
        ("e6_encoded_slash_by_rule", "GET", "/projects/group%2Fproject", nobody, 200, ""),
        (
            "e6_encoded_slash_of_another_rule",
            "GET",
            "/projects/7%2Fmembers",
            nobody,
            400,
            "path_encoded_separator",
        ),
        ("e6_encoded_slash_by_default", "GET", "/v1/users/a%2Fb", nobody, 400, "path_encoded_separator"),
        ("e6_encoded_slash_nobody_reads_otherwise", "GET", "/files/a%2Fb", nobody, 200, ""),
        ("e6_encoded_dots", "GET", "/files/..%2Fmail", nobody, 400, "path_encoded_separator"),
        ("e6_brackets", "GET", "/files/[1]", nobody, 200, ""),
        ("e6_bar", "GET", "/files/a|b", nobody, 200, ""),
        ("e6_parameters_nobody_reads_otherwise", "GET", "/files/a;v=1", nobody, 200, ""),
        ("e6_encoded_number_sign", "GET", "/files/C%23", nobody, 200, ""),
        ("e8_wrong_method", "PUT", "/mail", nobody, 405, "method_not_allowed"),
        ("e8_preflight_of_no_rule", "OPTIONS", "/mail", nobody, 405, "method_not_allowed"),
        ("e8_unknown_path", "PUT", "/nothing/here", nobody, 404, "route_unmatched"),
    ] {
        let answer = exchange(address, method, path, "api.example", "", token).await;
        assert_eq!(
            (answer.status, &*answer.code()),
            (status, code),
            "{case} {method} {path}: {}",
            answer.body
        );
        if status == 200 {
            assert_eq!(
                answer.json()["path"],
                envoy_paths::normalize_path(path).unwrap(),
                "{case}: not as it was sent"
            );
        }
        assert_eq!(answer.header("allow").is_some(), status == 405, "{case}");
    }
    let answer = exchange(address, "PUT", "/mail", "api.example", "", None).await;
    assert_eq!(answer.header("allow"), Some("GET, HEAD"), "e8_wrong_method");

    for (host, status) in [
        ("svc.ns.svc.cluster.local", 200),
        ("svc.ns.svc.cluster.local.", 200),
        ("SVC.ns.svc.cluster.local.:8080", 200),
        // The reference Envoy configuration removes one of the dots.
        ("svc.ns.svc.cluster.local..", 200),
        ("svc.ns.svc.cluster.local...", 400),
        ("other.ns.svc.cluster.local.", 404),
    ] {
        let answer = exchange(address, "GET", "/internal", host, "", None).await;
        assert_eq!(answer.status, status, "e7_trailing_dot_of_host {host}: {}", answer.body);
    }

    for (path, token, status, message) in [
        ("/mail", None, "16", "credential_missing: the request has no credential"),
        ("/mail", Some("x"), "16", "token_malformed: "),
        ("/mail", admin, "7", "claim_missing: the token lacks a claim that this route requires"),
    ] {
        let answer =
            exchange(address, "GET", path, "api.example", "content-type: application/grpc\r\n", token).await;
        let found = answer.header("grpc-message").unwrap_or_default();
        assert_eq!(
            (answer.status, answer.header("grpc-status")),
            (200, Some(status)),
            "e9_grpc_message {path}"
        );
        assert!(found.starts_with(message) && !found.contains(['{', '%', '"']), "e9_grpc_message: {found}");
    }
}

/// The rule `/internal` is the only one for a host.
fn rules() -> Value {
    json!([
        { "path": "/", "issuers": ["https://keystile.test"] },
        { "path": "/**/*.js", "access": "public" },
        { "path": "/internal", "hosts": ["svc.ns.svc.cluster.local"], "access": "public" },
        { "path": "/orders", "scopes": { "any_of": ["orders:read", "orders:write"] } },
        { "path": "/groups", "claims": { "groups": { "all_of": ["staff", "user-admin"] } } },
        { "path": "/authorities", "claims": { "authorities.authority": "ROLE_OWNER" } },
        {
            "path": "/accounts/{id}",
            "any_of": [{ "claims": { "sub": { "path_variable": "id" } } }, { "claims": { "groups": "user-admin" } }],
        },
        { "path": "/mail", "methods": ["GET"], "claims": { "email": { "suffix": "@example.com" } } },
        { "path": "/mail/**", "methods": ["GET"] },
        { "path": "/v1/users/{id}:suspend", "methods": ["POST"] },
        { "path": "/v1/users/{id}", "methods": ["GET"], "access": "public" },
        { "path": "/projects/{id}", "encoded_slash": "segment", "access": "public" },
        { "path": "/projects/{id}/members" },
        { "path": "/files/**", "access": "public" },
        { "path": "/assets/**", "methods": ["GET"] },
    ])
}

/// Envoy without the filter, with each of its actions for encoded slashes.
#[tokio::test]
async fn e6_envoy_normalizes_paths_as_the_model_says() {
    for action in ["KEEP_UNCHANGED", "UNESCAPE_AND_FORWARD"] {
        let scratch = Scratch::new().unwrap();
        let mut settings = Settings::for_scratch(&scratch, Value::Null).unwrap();
        settings.filters_instead = Some(Vec::new());
        settings.path_with_escaped_slashes_action = action;
        let _upstream = Upstream::start(settings.upstream).await.unwrap();
        let envoy = Envoy::start(settings, scratch.folder()).await.unwrap();
        for path in [
            "/",
            "/a/../b/./c",
            "/a/..",
            "/../a",
            "/a//b",
            "/a%2e%2E/b",
            "/a/%2e%2e/b",
            "/%61%7E%2D",
            "/a%2fb%2Fc",
            "/a%2f..%2fb",
            "/a%5cb",
            "/a\\b",
            "/a%3Ab%40",
            "/a%252fb",
            "/files/[1]",
            "/a|b",
            "/a;b=1/c",
            "/a%3fb%23",
            "/a%20b",
            "/%E3%81%82",
            "/a//%2f//b",
        ] {
            let answer = exchange(envoy.address(), "GET", path, "api.example", "", None).await;
            // Slashes are decoded first, and merged last.
            let decoded = match action {
                "UNESCAPE_AND_FORWARD" => envoy_paths::unescape_slashes(path),
                _ => path.to_owned(),
            };
            let expected =
                envoy_paths::normalize_path(&decoded).map(|path| envoy_paths::merge_slashes(&path));
            let found = (answer.status == 200).then(|| answer.json()["path"].as_str().unwrap().to_owned());
            assert_eq!(found, expected, "{action} {path}: {}", answer.body);
        }
    }
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// Sends a request as it is written, also with characters that HTTP clients refuse or encode.
async fn exchange(
    to: SocketAddr,
    method: &str,
    path: &str,
    host: &str,
    more: &str,
    token: Option<&str>,
) -> Answer {
    let mut stream = TcpStream::connect(to).await.unwrap();
    let authorization = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    let request =
        format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{more}{authorization}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    // Envoy closes the connection of a refused request later.
    let mut answer = String::new();
    let mut buffer = [0; 4096];
    while !is_complete(&answer) {
        let size = stream.read(&mut buffer).await.unwrap();
        answer.push_str(str::from_utf8(&buffer[..size]).unwrap());
        if size == 0 {
            break;
        }
    }
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    // The JSON document, whether or not it is in a chunk.
    let body = body.find('{').and_then(|from| body.get(from..=body.rfind('}')?)).unwrap_or_default();
    Answer { status, head: head.into(), body: body.into() }
}

fn is_complete(answer: &str) -> bool {
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    length.map_or_else(|| body.ends_with("0\r\n\r\n"), |length: usize| body.len() >= length)
}

const ISSUER: &str = "https://idp.example.com";
