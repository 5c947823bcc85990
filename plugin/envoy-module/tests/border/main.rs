//! The module at its border: each hook, with a fake Envoy. `make module-sanitizer` runs these tests with an address
//! sanitizer.

mod fixtures;
mod host;
mod panics;
mod streams;
mod vectors;

use fixtures::ControlPlane;
use host::{Config, Route, logged};
use serde_json::json;
use token::Fingerprint;

fn headers<'h>(authorization: &'h str, more: &[(&'h str, &'h str)]) -> Vec<(&'h str, &'h str)> {
    let pseudo =
        [(":method", "GET"), (":path", "/orders/1?x=y"), (":authority", "api.test"), ("accept", "*/*")];
    pseudo.into_iter().chain([("authorization", authorization)]).chain(more.iter().copied()).collect()
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

#[test]
fn admitted_request_gets_identity_and_loses_credential() {
    let control_plane = ControlPlane::new();
    let config = Config::new(&control_plane.inline_configuration().to_string()).unwrap();
    let token = control_plane.token();
    let authorization = bearer(&token);
    for (more, expected_accept) in [
        (vec![], "*/*"),
        (vec![("x-keystile-subject", "spoofed"), ("x-empty", "")], "*/*"),
        // Too many names for single changes, so that all headers are replaced.
        (
            vec![
                ("x-keystile-a", "1"),
                ("x_keystile_b", "1"),
                ("x-keystile-c", "1"),
                ("x-keystile-d", "1"),
                ("x-keystile-a", "2"),
                ("x-empty", ""),
            ],
            "*/*",
        ),
    ] {
        let stream = config.stream(&headers(&authorization, &more)).unwrap();
        assert!(stream.request_headers());
        let forwarded = stream.headers(0);
        assert_eq!(stream.header("x-keystile-subject").as_deref(), Some("OP0000000001"), "{forwarded:?}");
        let fingerprint = Fingerprint::digest(token.as_bytes()).to_string();
        assert_eq!(stream.header("x-keystile-fingerprint"), Some(fingerprint));
        assert_eq!(stream.header("authorization"), None);
        assert_eq!(stream.header("accept").as_deref(), Some(expected_accept));
        assert_eq!(stream.header(":path").as_deref(), Some("/orders/1?x=y"));
        assert_eq!(forwarded.iter().filter(|(name, _)| name.starts_with("x-keystile-")).count(), 3);
        assert!(!forwarded.iter().any(|(name, _)| name == "x_keystile_b"));
        assert_eq!(stream.header("x-empty").as_deref(), more.contains(&("x-empty", "")).then_some(""));
        assert_eq!(stream.state("keystile.subject").as_deref(), Some("OP0000000001"));
        assert_eq!(stream.metadata("subject").as_deref(), Some("OP0000000001"));
        assert_eq!(stream.state("keystile.reason"), None);
    }
    config.tick();
    assert_eq!([config.metric("keystile_admitted"), config.metric("keystile_cache_hits")], [3, 2]);
    assert_eq!(config.metric("keystile_bundle_version"), 1);
}

/// A client must not select a route by headers that are removed afterwards.
#[test]
fn route_is_selected_again_after_spoofed_headers() {
    let control_plane = ControlPlane::new();
    let json = control_plane.inline_configuration().to_string();
    let authorization = bearer(&control_plane.token());
    for (filter, more, routings) in [
        ("keystile", vec![], 0),
        ("keystile", vec![("x-keystile-operator", "OP2")], 1),
        ("keystile", vec![("x-keystile-a", "1"), ("x-keystile-a", "2")], 1),
        ("keystile_route_by_identity", vec![], 1),
    ] {
        let config = Config::with_name(filter, &json).unwrap();
        let stream = config.stream(&headers(&authorization, &more)).unwrap();
        assert!(stream.request_headers());
        assert_eq!(stream.routings(), routings, "{filter} {more:?}");
    }
    assert!(Config::with_name("other", &json).is_none());
    assert!(logged("the module has the filters `keystile` and `keystile_route_by_identity`"));
}

#[test]
fn refused_request_is_answered() {
    let control_plane = ControlPlane::new();
    let config = Config::new(&control_plane.inline_configuration().to_string()).unwrap();
    let stream = config.stream(&headers("Basic x", &[])).unwrap();
    assert!(!stream.request_headers());
    let reply = stream.reply().unwrap();
    assert_eq!((reply.status, &*reply.details), (401, "keystile_credential_missing"));
    assert!(reply.body.contains("credential_missing"), "{reply:?}");
    assert!(reply.headers.iter().any(|(name, _)| name == "www-authenticate"), "{reply:?}");
    assert_eq!(stream.metadata("reason").as_deref(), Some("credential_missing"));
    config.tick();
    assert_eq!(config.metric("keystile_refused_credential_missing"), 1);
}

/// Envoy answers a gRPC call with the status 0, which means success, unless the filter sets another one.
#[test]
fn refused_grpc_call_gets_a_status_of_failure() {
    let control_plane = ControlPlane::new();
    let config = Config::new(&control_plane.inline_configuration().to_string()).unwrap();
    let authorization = bearer(&control_plane.token());
    for (content_type, authorization, edits, status) in [
        ("application/grpc", "x", None, Some("16")),
        ("application/grpc+proto", "x", None, Some("16")),
        ("application/grpc-web", "x", None, None),
        ("application/json", "x", None, None),
        ("application/grpc", &*authorization, Some(2), Some("14")),
    ] {
        let stream = config.stream(&headers(authorization, &[("content-type", content_type)])).unwrap();
        if let Some(edits) = edits {
            stream.refuse_edits_after(edits);
        }
        assert!(!stream.request_headers());
        let reply = stream.reply().unwrap();
        let sent = reply.headers.iter().find(|(name, _)| name == "grpc-status");
        assert_eq!(sent.map(|(_, value)| &**value), status.map(str::as_bytes), "{content_type}");
    }
}

#[test]
fn query_credential_is_removed_from_path() {
    let control_plane = ControlPlane::new();
    let mut configuration = control_plane.inline_configuration();
    configuration["credentials"] = json!([{ "query": "token" }]);
    let config = Config::new(&configuration.to_string()).unwrap();
    let path = format!("/a?token={}&b=c", control_plane.token());
    let request = [(":method", "GET"), (":path", &*path), (":authority", "api.test"), ("accept", "*/*")];
    let stream = config.stream(&request).unwrap();
    assert!(stream.request_headers());
    let names: Vec<_> = stream.headers(0).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names[..4], [":method", ":path", ":authority", "accept"]);
    assert_eq!(stream.header(":path").as_deref(), Some("/a?b=c"));
}

/// A request must not pass with some of its changes.
#[test]
fn request_fails_closed_if_envoy_refuses_a_change() {
    let control_plane = ControlPlane::new();
    let config = Config::new(&control_plane.inline_configuration().to_string()).unwrap();
    let authorization = bearer(&control_plane.token());
    for changes in 0..10 {
        for more in [vec![], vec![("x-keystile-a", "1"), ("x-keystile-a", "2")]] {
            let stream = config.stream(&headers(&authorization, &more)).unwrap();
            stream.refuse_edits_after(changes);
            let passes = stream.request_headers();
            let is_complete = stream.header("x-keystile-fingerprint").is_some()
                && stream.header("x-keystile-subject").is_some()
                && stream.header("authorization").is_none();
            if passes {
                assert!(is_complete, "{changes}: {:?}", stream.headers(0));
            } else {
                assert_eq!(stream.reply().unwrap().status, 503, "{changes}");
                assert_eq!(stream.reply().unwrap().details, "keystile_host_error");
            }
            assert!(passes || changes < 9, "{changes}");
        }
    }
    let empty = config.stream(&[]).unwrap();
    assert!(!empty.request_headers());
    assert_eq!(empty.reply().unwrap().status, 503);
}

#[test]
fn credential_in_trailers_is_removed() {
    let control_plane = ControlPlane::new();
    let config = Config::new(&control_plane.inline_configuration().to_string()).unwrap();
    let authorization = bearer(&control_plane.token());
    let trailers =
        [("authorization", &*authorization), ("x-keystile-subject", "spoofed"), ("x-checksum", "1")];
    for (trailers, edits, passes, kept) in [
        (Some(&trailers[..]), None, true, vec![("x-checksum".to_owned(), "1".to_owned())]),
        (Some(&trailers[2..]), Some(0), true, vec![("x-checksum".to_owned(), "1".to_owned())]),
        (Some(&trailers[..]), Some(1), false, vec![]),
        (None, None, false, vec![]),
    ] {
        let stream = config.stream(&headers(&authorization, &[])).unwrap();
        assert!(stream.request_headers());
        if let Some(edits) = edits {
            stream.refuse_edits_after(edits);
        }
        assert_eq!(stream.request_trailers(trailers), passes);
        if passes {
            assert_eq!(stream.headers(1), kept);
        } else {
            assert_eq!(stream.reply().unwrap().status, 503);
        }
    }
}

#[test]
fn invalid_configurations_are_refused() {
    let control_plane = ControlPlane::new();
    let mut unknown = control_plane.configuration();
    unknown["unknown"] = json!(1);
    let mut foreign = control_plane.inline_configuration();
    foreign["audience"] = json!("other");
    for json in ["", "\u{ff}", "{}", &unknown.to_string(), &foreign.to_string()] {
        assert!(Config::new(json).is_none(), "{json}");
        assert!(Route::new(json).is_none() || json.contains("other"), "{json}");
    }
    assert!(logged("invalid plugin configuration at `unknown`"));
    assert!(logged("the `bundle` of the configuration is refused"));
}

#[test]
fn stream_on_unknown_thread_is_refused() {
    let control_plane = ControlPlane::new();
    let config = Config::new(&control_plane.inline_configuration().to_string()).unwrap();
    assert!(config.stream_with(&headers("x", &[]), |stream| stream.worker = host::WORKERS).is_none());
}

#[test]
fn bundle_is_fetched_once_for_all_configurations() {
    let mut control_plane = ControlPlane::new();
    let json = control_plane.configuration().to_string();
    let first = Config::new(&json).unwrap();
    let authorization = bearer(&control_plane.token());
    let status = |config: &Config, worker| {
        let prepare = |stream: &mut host::Prepared| stream.worker = worker;
        let stream = config.stream_with(&headers(&authorization, &[]), prepare).unwrap();
        if stream.request_headers() { 200 } else { stream.reply().unwrap().status }
    };
    assert_eq!(status(&first, 0), 503, "nothing is loaded yet");
    assert_eq!(first.take_callouts().len(), 0, "nothing is fetched before the first event");
    first.deliver();
    control_plane.serve(&first);
    assert_eq!([status(&first, 0), status(&first, 1)], [200, 200]);
    let second = Config::new(&json).unwrap();
    assert_eq!(status(&second, 1), 200, "a configuration that replaces another has its bundle");
    second.tick();
    assert_eq!(second.take_callouts().len(), 0, "the first one fetches");
    // The first one goes away with its request.
    drop(first);
    control_plane.revoke(authorization.strip_prefix("Bearer ").unwrap());
    second.tick();
    control_plane.serve(&second);
    assert_eq!([status(&second, 0), status(&second, 1)], [401, 401]);
    second.tick();
    assert_eq!(second.metric("keystile_bundle_version"), control_plane.version());
    assert_eq!(second.metric("keystile_refused_revoked"), 2);
}

#[test]
fn failed_requests_keep_the_bundle() {
    let control_plane = ControlPlane::new();
    let config = Config::new(&control_plane.configuration().to_string()).unwrap();
    config.fail_callouts(Some(2));
    config.deliver();
    assert!(logged("is there a cluster `keystile`?"));
    config.fail_callouts(None);
    let next = |config: &Config| {
        for _ in 0..1000 {
            config.tick();
            if let [callout, ..] = &config.take_callouts()[..] {
                return callout.clone();
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("no request");
    };
    let mut failures = 1;
    for (status, chunks) in [
        (None, &[][..]),
        (Some(503), &[&b"{}"[..]]),
        (Some(401), &[]),
        (Some(200), &[&b"KSM1"[..], &[0; 5000]]),
    ] {
        let callout = next(&config);
        config.respond(callout.id, status, chunks);
        config.respond(callout.id, status, chunks);
        failures += 1;
    }
    config.respond(u64::MAX, Some(200), &[]);
    config.tick();
    assert_eq!(config.metric("keystile_refresh_failed"), failures);
    assert!(logged("or one that is wrong, or was removed or replaced"));
}

/// Envoy does not do this. If it did, the module must neither wait for itself nor use a call that it does not know yet.
#[test]
fn answer_within_the_call_that_sends_the_request_is_ignored() {
    let control_plane = ControlPlane::new();
    let config = Config::new(&control_plane.configuration().to_string()).unwrap();
    config.fail_within_calls(true);
    config.deliver();
    config.tick();
    assert_eq!([config.metric("keystile_refresh_failed"), config.metric("keystile_panics")], [0, 0]);
    assert_eq!(config.take_callouts().len(), 0, "the request counts as sent");
}

#[test]
fn route_has_its_own_policy() {
    let control_plane = ControlPlane::new();
    let config = Config::new(&control_plane.inline_configuration().to_string()).unwrap();
    let mut public = control_plane.inline_configuration();
    public["unmatched"] = json!("public");
    let mut foreign = control_plane.configuration();
    foreign["audience"] = json!("other");
    let public = Route::new(&public.to_string()).unwrap();
    let foreign = Route::new(&foreign.to_string()).unwrap();
    let authorization = bearer(&control_plane.token());
    for (route, authorization, status) in [
        (public.0, "Basic x", 200),
        (public.0, &*authorization, 200),
        (foreign.0, &*authorization, 503),
        (std::ptr::null(), "Basic x", 401),
        (std::ptr::null(), &*authorization, 200),
    ] {
        let stream = config.stream_with(&headers(authorization, &[]), |stream| stream.route = route).unwrap();
        let answered = if stream.request_headers() { 200 } else { stream.reply().unwrap().status };
        assert_eq!(answered, status);
        // The route goes away before the stream.
    }
    assert!(logged("the configuration of their route has another audience"));
    // A client selects the public route by a header that is removed.
    let spoofed = headers(&authorization, &[("x-keystile-operator", "OP2")]);
    for (next_route, passes) in [(None, true), (Some(public.0), true), (Some(std::ptr::null()), false)] {
        let prepare =
            |stream: &mut host::Prepared| (stream.route, stream.next_route) = (public.0, next_route);
        let stream = config.stream_with(&spoofed, prepare).unwrap();
        assert_eq!(stream.request_headers(), passes);
        assert!(passes || stream.reply().unwrap().status == 503);
    }
}
