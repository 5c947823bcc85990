//! Identity headers are removed first, then set: headers of a client with those names never reach the upstream.

use harness::FakeControlPlane;
use harness::client::{bearer, send, send_trailers};
use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, CONNECTION, HeaderName, HeaderValue};
use serde_json::json;

#[tokio::test]
async fn forged_identity_headers_are_removed() {
    // This Envoy permits underscores, so that only the filter can remove these headers.
    let control_plane =
        FakeControlPlane::start_with(|settings| settings.headers_with_underscores_action = "ALLOW").await;
    let forged = [
        "x-keystile-subject",
        "x-keystile-operator",
        "x-keystile-authkey",
        "x-keystile-session",
        "x-keystile-fingerprint",
        "x_keystile_subject",
        "x-keystile_operator",
        "x_keystile-session",
        "x-keystile-",
        "x_keystile_",
        "x-keystile-role",
        "x_keystile_role",
        "x.keystile.subject",
        "x'keystile'subject",
    ];
    let mut request = bearer(&control_plane.token());
    for name in forged {
        for value in ["forged", "forged-again"] {
            request.headers_mut().append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
    }
    request.headers_mut().append("x-keystileother", HeaderValue::from_static("kept"));
    let echo =
        send(control_plane.envoy.address(), request).await.unwrap().expect(200).unwrap().json().unwrap();
    assert!(!echo.to_string().contains("forged"), "{echo}");
    assert_eq!(echo["headers"]["x-keystile-subject"], json!(["OP0000000001"]));
    assert_eq!(echo["headers"]["x-keystileother"], json!(["kept"]));
    // The token has no session, so the upstream gets none.
    assert_eq!(echo["headers"].get("x-keystile-session"), None);
}

#[tokio::test]
async fn forged_headers_with_binary_values_are_removed() {
    let control_plane = FakeControlPlane::start().await;
    let mut request = bearer(&control_plane.token());
    let value = HeaderValue::from_bytes(b"forged\xff\xfe").unwrap();
    request.headers_mut().append("x-keystile-subject", value);
    let echo =
        send(control_plane.envoy.address(), request).await.unwrap().expect(200).unwrap().json().unwrap();
    assert!(!echo.to_string().contains("forged"), "{echo}");
    assert_eq!(echo["headers"]["x-keystile-subject"], json!(["OP0000000001"]));
}

/// `Connection` names headers that the next hop removes (RFC 9110 section 7.6.1), including identity headers.
#[tokio::test]
async fn forged_headers_named_by_connection_are_removed() {
    let control_plane = FakeControlPlane::start().await;
    let mut request = bearer(&control_plane.token());
    let value = HeaderValue::from_static("keep-alive, x-keystile-subject, x-keystile-operator");
    request.headers_mut().insert(CONNECTION, value);
    let echo =
        send(control_plane.envoy.address(), request).await.unwrap().expect(200).unwrap().json().unwrap();
    assert_eq!(echo["headers"]["x-keystile-subject"], json!(["OP0000000001"]));
    assert_eq!(echo["headers"].get("connection"), None, "{echo}");
}

/// A server may merge trailers into headers, and HTTP/2 forwards trailers.
#[tokio::test]
async fn forged_trailers_are_removed() {
    let control_plane = FakeControlPlane::start_with(|settings| settings.http2_upstream = true).await;
    let mut trailers = HeaderMap::new();
    trailers.insert("x-keystile-subject", HeaderValue::from_static("forged"));
    trailers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer forged"));
    trailers.insert("x-checksum", HeaderValue::from_static("kept"));
    let answer =
        send_trailers(control_plane.envoy.address(), &control_plane.token(), trailers).await.unwrap();
    let echo = answer.expect(200).unwrap().json().unwrap();
    assert!(!echo.to_string().contains("forged"), "{echo}");
    assert_eq!(echo["headers"]["x-keystile-subject"], json!(["OP0000000001"]));
    assert_eq!(echo["trailers"], json!({ "x-checksum": ["kept"] }));
}
