//! Responses to refused requests, in each style.

use serde_json::{Value, json};
use verdict::{Decision, Gate, Policy, Reason, route::AmbiguousRequest};

use crate::fixtures::{NOW_MS, configuration, gate_with};

fn gate(answers: &str) -> Gate {
    let configuration = configuration().replacen('{', &format!(r#"{{ "answers": {answers},"#), 1);
    Gate::new(Policy::from_json(configuration.as_bytes()).unwrap())
}

fn body(gate: &Gate, reason: Reason) -> Value {
    serde_json::from_str(&gate.refusal_response(&reason.into(), Some(b"id-1")).body).unwrap()
}

fn header(gate: &Gate, reason: Reason, name: &str) -> Option<String> {
    let headers = gate.refusal_response(&reason.into(), None).headers;
    headers.into_iter().find(|(header, _)| *header == name).map(|(_, value)| value)
}

#[test]
fn problem_documents_are_the_default() {
    for gate in [gate("{}"), gate(r#"{ "style": "problem" }"#)] {
        assert_eq!(
            gate.refusal_response(&Reason::PermissionDenied.into(), None).body,
            r#"{"type":"about:blank","title":"Forbidden","status":403,"detail":"the permissions of the subject do not allow this operation","code":"permission_denied"}"#
        );
        assert_eq!(
            header(&gate, Reason::PermissionDenied, "content-type").unwrap(),
            "application/problem+json"
        );
        assert_eq!(body(&gate, Reason::RouteUnmatched)["title"], "Not Found");
        assert_eq!(
            body(&gate, Reason::AmbiguousRequest(AmbiguousRequest::DotSegment))["title"],
            "Bad Request"
        );
    }
}

#[test]
fn soshiaconnect_style_has_its_envelope() {
    let gate = gate(r#"{ "style": "soshiaconnect" }"#);
    for (reason, message) in [
        (Reason::CredentialMissing, "Invalid or missing authentication"),
        (Reason::Revoked, "Invalid or missing authentication"),
        (Reason::PermissionDenied, "Insufficient permissions"),
        (Reason::RouteUnmatched, "no route matches the request"),
        (Reason::BundleMissing, "this edge has no revocation list yet"),
    ] {
        let expected = json!({ "success": false, "message": message, "errors": {}, "code": reason.code() });
        assert_eq!(body(&gate, reason), expected);
    }
    assert_eq!(header(&gate, Reason::Revoked, "content-type").unwrap(), "application/json");
}

#[test]
fn soracom_style_has_both_error_forms() {
    let gate = gate(r#"{ "style": "soracom" }"#);
    let message = "the permissions of the subject do not allow this operation";
    assert_eq!(
        body(&gate, Reason::PermissionDenied),
        json!({
            "code": "permission_denied",
            "message": message,
            "httpStatus": 403,
            "errorMessage": { "code": "permission_denied", "message": message },
        })
    );
}

#[test]
fn kuzzle_style_has_its_envelope() {
    let gate = gate(r#"{ "style": "kuzzle" }"#);
    for (reason, status, id, code) in [
        (Reason::CredentialMissing, 401, "security.rights.unauthorized", 117_637_121),
        (Reason::Expired, 401, "security.token.invalid", 117_506_049),
        (Reason::Revoked, 401, "security.token.invalid", 117_506_049),
        (Reason::PermissionDenied, 403, "security.rights.forbidden", 117_637_122),
        (Reason::RouteUnmatched, 404, "network.http.url_not_found", 50_397_191),
        (Reason::AmbiguousRequest(AmbiguousRequest::Path), 400, "network.http.unexpected_error", 50_397_186),
        (Reason::BundleMissing, 503, "api.process.overloaded", 33_685_506),
    ] {
        let body = body(&gate, reason);
        assert_eq!(
            (&body["status"], &body["requestId"], &body["result"]),
            (&json!(status), &json!("id-1"), &Value::Null)
        );
        let error = &body["error"];
        assert_eq!(
            (&error["id"], &error["code"], &error["status"]),
            (&json!(id), &json!(code), &json!(status))
        );
        assert_eq!(error["props"], json!([reason.code()]));
    }
}

#[test]
fn every_reason_has_a_response_in_every_style() {
    for style in ["problem", "soshiaconnect", "soracom", "kuzzle"] {
        let gate = gate(&format!(r#"{{ "style": "{style}" }}"#));
        for reason in Reason::ALL {
            let answer = gate.refusal_response(&reason.into(), None);
            let text = body(&gate, reason).to_string();
            assert!(text.contains(reason.code()), "{style} {text}");
            assert!([400, 401, 403, 404, 405, 431, 503].contains(&answer.status));
        }
    }
}

#[test]
fn challenge_has_scopes_and_metadata() {
    let url = "https://api.example.com/.well-known/oauth-protected-resource";
    let gate = gate(&format!(r#"{{ "resource_metadata": "{url}" }}"#));
    let challenge = |reason| header(&gate, reason, "www-authenticate");
    assert_eq!(
        challenge(Reason::CredentialMissing).unwrap(),
        format!(r#"Bearer realm="keystile", resource_metadata="{url}""#)
    );
    assert_eq!(
        challenge(Reason::ScopeMissing).unwrap(),
        format!(
            r#"Bearer realm="keystile", error="insufficient_scope", error_description="the token lacks a scope that this route requires", resource_metadata="{url}""#
        )
    );
    for reason in Reason::ALL {
        let insufficient =
            challenge(reason).is_some_and(|challenge| challenge.contains("insufficient_scope"));
        assert_eq!(insufficient, reason.status() == 403, "{reason:?}");
    }
    assert_eq!(challenge(Reason::RouteUnmatched), None);
    assert_eq!(challenge(Reason::AmbiguousRequest(AmbiguousRequest::Path)), None);
}

#[test]
fn denied_requests_can_look_unmatched() {
    let hidden = gate(r#"{ "denied_status": 404 }"#);
    let nothing = hidden.refusal_response(&Reason::RouteUnmatched.into(), None);
    assert_eq!(nothing.status, 404);
    for reason in Reason::ALL.into_iter().filter(|reason| reason.status() == 403) {
        assert_eq!(hidden.refusal_response(&reason.into(), None), nothing, "{reason:?}");
    }
    assert_eq!(hidden.refusal_response(&Reason::Revoked.into(), None).status, 401);
    let revealing = gate(r#"{ "unmatched_status": 403, "denied_status": 403 }"#);
    let answer = revealing.refusal_response(&Reason::RouteUnmatched.into(), None);
    assert_eq!(answer.status, 403);
    assert!(answer.headers.contains(&("www-authenticate", r#"Bearer realm="keystile""#.into())));
}

/// E8: 405 reveals a path and its methods, so it is not sent where a setting hides which paths exist.
#[test]
fn e8_a_wrong_method_is_405_with_allow_unless_paths_are_hidden() {
    let rules = r#""rules": [{ "path": "/a", "methods": ["GET", "PUT"] }, { "path": "/b" },
        { "path": "/h", "hosts": ["x.example"], "methods": ["GET"] },
        { "operations": { "table": "DELETE\t/a\tA:delete\nPOST\t/c/{id}\tC:post\nGET\t/c/me\tC:get" } }]"#;
    let respond = |members: &str, line: &str| {
        let gate = gate_with(&format!("{members} {rules}"));
        let (method, path) = line.split_once(' ').unwrap();
        let headers: [(&str, &[u8]); 3] =
            [(":method", method.as_bytes()), (":path", path.as_bytes()), (":authority", b"api.example")];
        let Decision::Refuse(refusal) = gate.decide(headers.into_iter(), None, NOW_MS) else {
            panic!("{line}")
        };
        let response = gate.response(&refusal, &headers);
        let allow =
            response.headers.iter().find(|(name, _)| *name == "allow").map(|(_, value)| value.clone());
        (refusal.reason().code(), response, allow)
    };
    for (line, status, allow) in [
        ("POST /a", 405, Some("GET, HEAD, PUT, DELETE")),
        ("OPTIONS /a", 405, Some("GET, HEAD, PUT, DELETE")),
        ("GET /c/1", 405, Some("POST")),
        ("DELETE /c/me", 405, Some("POST, GET, HEAD")),
        ("HEAD /a", 503, None),
        ("TRACE /b", 503, None),
        ("PUT /h", 404, None),
        ("PUT /x", 404, None),
    ] {
        let (code, response, found) = respond("", line);
        assert_eq!((response.status, found.as_deref()), (status, allow), "{line}");
        assert_eq!(code == "method_not_allowed", status == 405, "{line}");
    }
    for (answers, status) in [
        (r#""answers": { "method_not_allowed_status": 404 },"#, 404),
        (r#""answers": { "denied_status": 404 },"#, 404),
        (r#""answers": { "unmatched_status": 403 },"#, 403),
        (r#""answers": { "denied_status": 404, "method_not_allowed_status": 405 },"#, 405),
    ] {
        let (code, response, allow) = respond(answers, "POST /a");
        assert_eq!((code, response.status, allow.is_some()), ("method_not_allowed", status, status == 405));
        if status != 405 {
            let (_, unknown, _) = respond(answers, "POST /nothing");
            assert_eq!(response, unknown, "looks like an unknown path");
        }
    }
    // If no rule is needed, the method does not matter.
    let gate = gate_with(&format!(r#""unmatched": "public", {rules}"#));
    let headers: [(&str, &[u8]); 3] =
        [(":method", b"POST"), (":path", b"/a"), (":authority", b"api.example")];
    assert!(matches!(gate.decide(headers.into_iter(), None, NOW_MS), Decision::Pass(_)));
}

/// E9: hosts make the message of the gRPC status from the body.
#[test]
fn e9_grpc_gets_a_short_plain_message_that_needs_no_percent_encoding() {
    for style in ["problem", "soshiaconnect", "soracom", "kuzzle"] {
        let gate = gate(&format!(r#"{{ "style": "{style}" }}"#));
        for (kind, is_grpc) in [
            (&b"application/grpc"[..], true),
            (b"application/grpc+proto", true),
            (b"application/grpc;charset=utf-8", true),
            (b"application/grpc-web", false),
            (b"application/json", false),
        ] {
            let headers: [(&str, &[u8]); 2] = [("content-type", kind), ("x-request-id", b"id-1")];
            for reason in Reason::ALL {
                let response = gate.response(&reason.into(), &headers);
                assert!(response.headers.contains(&("x-request-id", "id-1".into())));
                if is_grpc {
                    let expected = format!("{}: {reason}", reason.code());
                    assert_eq!(response.body, expected);
                    // https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#responses: Percent-Encoded.
                    assert!(
                        expected.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'%'),
                        "{expected}"
                    );
                    assert!(expected.len() <= 150, "{expected}");
                } else {
                    assert!(serde_json::from_str::<Value>(&response.body).is_ok(), "{}", response.body);
                }
            }
        }
    }
}
