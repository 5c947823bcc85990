//! Invalid requests are refused with a specific error, and responses have the documented form.

use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};

use crate::test_env::TestEnv;

#[tokio::test]
async fn request_bodies_are_parsed_strictly() {
    let env = TestEnv::on_sqlite().await;
    let server = env.serve();
    let token = env.issue_root_token();
    let long = "x".repeat(501);
    let revocations = [
        (json!({}), "expected exactly one of"),
        (json!({ "fingerprint": "0", "token": "t" }), "expected exactly one of"),
        (json!({ "fingerprint": "ABC" }), "`fingerprint`: a fingerprint has 64 lower case hex digits"),
        (json!({ "keyId": "secret-x" }), "`keyId`: a key id begins with"),
        (json!({ "subject": "OP1" }), "`subject`: an operator id is"),
        (
            json!({ "subject": env.operator, "instant": "now" }),
            "`instant`: expected a whole number, 0 or more",
        ),
        (json!({ "subject": env.operator, "instant": -1 }), "`instant`: expected a whole number, 0 or more"),
        (json!({ "token": "a.b.c", "instant": 1 }), "`instant`: allowed only with `subject`"),
        (json!({ "token": "a.b.c" }), "the token is not spelled as it was issued"),
        (json!({ "token": 5 }), "`token`: expected a string"),
        (json!({ "tokens": "t" }), "`tokens`: unknown field `tokens`"),
        (json!({ "subject": env.operator, "reason": long }), "`reason`: expected at most 500 bytes"),
        (json!([]), "the request body: expected an object"),
        (json!([null, "a.b.c"]), "the request body: expected an object"),
        (json!("a.b.c"), "the request body: expected an object"),
        (json!(null), "the request body: expected an object"),
        (json!({ "token": { "a": 1 } }), "`token`: expected a string"),
    ];
    for (body, expected) in revocations {
        let response = server.revoke(&token, body.clone()).await;
        assert_eq!(response.status(), 400, "{body}");
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        let problem: Value = response.json().await.unwrap();
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(expected), "{body}: {detail}");
        assert_eq!(problem["message"], problem["detail"]);
        assert_eq!(problem["status"], 400);
    }
    let raw = |body: &'static str, kind: &'static str| {
        let request = server.raw("/v1/auth", kind, body);
        async { request.send().await.unwrap() }
    };
    let secret = r#"{"authKeyId":"keyId-a","authKey":["SECRET"]}"#;
    for (body, status, expected) in [
        (r#"{"authKeyId":"a","authKey":"b"} x"#, 400, "unexpected data after the JSON document"),
        (r#"{"authKeyId":"a","authKeyId":"b"}"#, 400, "duplicate field `authKeyId`"),
        (r#"{"authKeyId":"a"}"#, 400, "missing field `authKey`"),
        (r#"{"authKeyId":"a","authKey":"b","email":"c"}"#, 400, "`email`: unknown field `email`"),
        ("{", 400, "invalid JSON at line 1"),
        ("", 400, "invalid JSON at line 1"),
        ("[", 400, "invalid JSON at line 1"),
        (r#" ["a","SECRET",null]"#, 400, "the request body: expected an object"),
        (
            r#"{"authKeyId":"a","authKey":"b","tokenTimeoutSeconds":"1"}"#,
            400,
            "expected a whole number, 0 or more",
        ),
        (
            r#"{"authKeyId":"a","authKey":"b","tokenTimeoutSeconds":1.5}"#,
            400,
            "expected a whole number, 0 or more",
        ),
        (secret, 400, "`authKey`: expected a string"),
    ] {
        let response = raw(body, "application/json").await;
        assert_eq!(response.status(), status, "{body}");
        let answer = response.text().await.unwrap();
        assert!(answer.contains(expected), "{body}: {answer}");
        assert!(!answer.contains("SECRET"));
    }
    assert_eq!(raw("{}", "text/plain").await.status(), 415);
    let large = json!({ "token": "x".repeat(20_000) });
    let response = server.revoke(&token, large).await;
    assert_eq!(response.status(), 413);
    assert_eq!(response.json::<Value>().await.unwrap()["code"], "body_too_large");
}

/// The labels of metrics have a bounded set of values for all requests.
#[tokio::test]
async fn unknown_methods_create_no_metrics() {
    let env = TestEnv::on_sqlite().await;
    let server = env.serve();
    let series = async || {
        let metrics = server.get("/metrics").send().await.unwrap().text().await.unwrap();
        metrics.lines().filter(|line| !line.starts_with('#')).count()
    };
    let odd = async |number: usize, path: &str| {
        let method = format!("ODD{number}{}", "X".repeat(1000));
        let status = server.with_method(&method, path).send().await.unwrap().status();
        assert!([404, 405].contains(&status.as_u16()), "{status}");
    };
    series().await;
    odd(0, "/nothing").await;
    odd(0, "/healthz").await;
    let before = series().await;
    for number in 1..=500 {
        odd(number, "/healthz").await;
        odd(number, &format!("/nothing/{number}")).await;
    }
    assert_eq!(series().await, before);
    let counted = server.metric(r#"keystile_http_requests_total{method="other",route="none",status="404"}"#);
    assert_eq!(counted.await.unwrap(), "501");
}

#[tokio::test]
async fn paths_methods_and_queries_are_validated_strictly() {
    let env = TestEnv::on_sqlite().await;
    let credential = env.enroll_edge("one");
    let server = env.serve();
    for (request, status) in [
        (server.get("/nothing"), 404),
        (server.get("/v1/auth"), 405),
        (server.delete("/revocations"), 405),
        (server.get("/edge/v1/manifest?have=x").bearer_auth(&credential), 400),
        (server.get("/edge/v1/manifest?had=1").bearer_auth(&credential), 400),
        (server.post("/v1/auth?", &json!({ "authKeyId": env.auth_key_id, "authKey": env.auth_key })), 200),
        (server.get("/healthz"), 200),
        (server.get("/readyz"), 200),
    ] {
        let response = request.header("x-request-id", "mine-1").send().await.unwrap();
        assert_eq!(response.status(), status, "{}", response.url());
        assert_eq!(response.headers()["x-request-id"], "mine-1");
    }
    let response = server.get("/healthz").header("x-request-id", "a b").send().await.unwrap();
    assert_ne!(response.headers()["x-request-id"], "a b");
    let health: Value = server.get("/healthz").send().await.unwrap().json().await.unwrap();
    for (series, expected) in [
        (r#"keystile_http_requests_total{method="GET",route="/healthz",status="200"}"#, "3".to_owned()),
        (r#"keystile_http_requests_total{method="GET",route="none",status="404"}"#, "1".to_owned()),
        ("keystile_bundle_version", health["version"].to_string()),
        ("keystile_tokens_issued_total", "1".to_owned()),
    ] {
        assert_eq!(server.metric(series).await, Some(expected), "{series}");
    }
}
