//! No request can crash the filter or bypass it.

use harness::client::{bearer, request_without_credential, send as send_once};
use harness::{Connection, FakeControlPlane, eventually};
use hyper::Request;
use hyper::header::{HeaderName, HeaderValue};

#[tokio::test]
async fn hostile_headers_neither_trap_nor_admit() {
    let control_plane = FakeControlPlane::start_with(|settings| settings.max_headers_count = 10_000).await;
    let token = control_plane.token();
    for mut worker in control_plane.workers().await {
        // A hostile header beside a valid token reaches the upstream. More headers than the filter can forward
        // are refused before any other check.
        for (base, usual) in [(request_without_credential(), 401), (bearer(&token), 200)] {
            for (name, request) in hostile_requests(base) {
                let expected = if request.headers().len() > 1000 { 431 } else { usual };
                let status = send(&control_plane, &mut worker, name, request).await;
                assert_eq!(status, expected, "{name}, instead of {usual}");
            }
        }
        for value in hostile_values() {
            for (header, prefix) in [("authorization", "Bearer "), ("authorization", ""), ("x-api-token", "")]
            {
                let value = [prefix.as_bytes(), &value].concat();
                let mut request = request_without_credential();
                request.headers_mut().insert(header, HeaderValue::from_bytes(&value).unwrap());
                let status = send(&control_plane, &mut worker, header, request).await;
                assert_eq!(status, 401, "{header}: {} bytes", value.len());
            }
        }
    }
}

/// Sends a request, and then a valid one to the same worker at once, which would fail if the VM had to restart.
async fn send(
    control_plane: &FakeControlPlane,
    worker: &mut Connection,
    name: &str,
    request: Request<String>,
) -> u16 {
    let response = worker.send(request).await.unwrap_or_else(|error| panic!("{name}: {error:#}"));
    let after = worker.get(&control_plane.token()).await.unwrap();
    assert_eq!(after.status, 200, "after {name}: {}", after.text());
    response.status
}

fn hostile_requests(base: Request<String>) -> Vec<(&'static str, Request<String>)> {
    let with = |headers: &mut dyn Iterator<Item = (String, Vec<u8>)>| {
        let mut request = base.clone();
        for (name, value) in headers {
            let name = HeaderName::try_from(name).unwrap();
            request.headers_mut().append(name, HeaderValue::from_bytes(&value).unwrap());
        }
        request
    };
    let one = |name: &str, value: &[u8]| with(&mut std::iter::once((name.to_owned(), value.to_vec())));
    vec![
        ("not UTF-8", one("x-other", b"\xff\xfe\xc3\x28")),
        ("60 KB", one("x-other", &[b'a'; 60_000])),
        ("60 KB, not UTF-8", one("x-other", &[0xff; 60_000])),
        ("a long name", one(&"n".repeat(30_000), b"v")),
        ("an odd request id", one("x-request-id", b"\"\\\xff<script>")),
        ("thousands", with(&mut (0..4000).map(|number| (format!("x-{number}"), b"v".to_vec())))),
        ("thousands of one name", with(&mut (0..4000).map(|_| ("x-other".to_owned(), b"v".to_vec())))),
    ]
}

fn hostile_values() -> Vec<Vec<u8>> {
    vec![
        b"\xff".to_vec(),
        b"\xff\xfe\xfd.\xff.\xff".to_vec(),
        vec![b'a'; 60_000],
        vec![0xff; 60_000],
        vec![b'.'; 60_000],
        b"e30.e30.e30".to_vec(),
        b"bnVsbA.bnVsbA.bnVsbA".to_vec(),
        [b"Bearer".as_slice(), &[b' '; 5000]].concat(),
    ]
}

/// Envoy accepts 1,024 headers from a filter, and drops all headers of a request with more.
#[tokio::test]
async fn large_headers_leave_room_for_claims() {
    let control_plane = FakeControlPlane::start_with(|settings| {
        settings.max_headers_count = 1000;
        let claims: serde_json::Map<_, _> =
            (0..40).map(|number| (format!("x-claim-{number}"), "sub".into())).collect();
        settings.plugin_configuration["identity"] = serde_json::json!({ "claims": claims });
    })
    .await;
    // The upstream accepts 100 headers. Its error shows that the request reached it.
    for (more, message) in [(950, "431 via_upstream"), (980, "431 keystile_headers_too_many")] {
        let mut request = bearer(&control_plane.token());
        for number in 0..more {
            let name = HeaderName::try_from(format!("x-{number}")).unwrap();
            request.headers_mut().insert(name, HeaderValue::from_static("v"));
        }
        send_once(control_plane.envoy.address(), request).await.unwrap().expect(431).unwrap();
        eventually(message, async || {
            anyhow::ensure!(
                control_plane.envoy.log().contains(message),
                "the access log does not contain it"
            );
            Ok(())
        })
        .await;
    }
}
