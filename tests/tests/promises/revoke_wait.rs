//! `revoke --wait` returns when the real edge enforces the revocation, and names an edge that can't.

use crate::fixture::{Fixture, Overrides};
use harness::Fault;
use serde_json::json;

// The command blocks its thread, and the proxy must continue.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoke_wait_waits_for_every_worker() {
    let mut fixture = Fixture::start(Overrides::default()).await;
    for _ in 0..3 {
        let victim = fixture.token().await;
        fixture.wait_admitted(&victim).await;
        let done = fixture.control_plane.cli(["revoke", "--wait", "--token", &victim]).unwrap();
        assert_eq!(
            done["edges"],
            json!({
                "enforcing": ["edge"],
                "lagging": [],
                "may_admit": [],
                "silent": [],
                "unseen": [],
                "kept_streams": 0,
            })
        );
        // No wait here: the command has returned, so the edge must refuse.
        for worker in &mut fixture.workers {
            let response = worker.get(&victim).await.unwrap().expect(401).unwrap();
            assert_eq!(response.code(), "revoked");
        }
    }
    let edges = fixture.control_plane.cli(["edge", "list"]).unwrap();
    // Envoy's main thread may count as a worker.
    assert!(edges[0]["workers"].as_u64() >= Some(2), "{edges}");
    assert_eq!(edges[0]["state"], json!("live"));

    fixture.proxy.set(Fault::CutOff);
    let victim = fixture.token().await;
    let refused = fixture.control_plane.cli(["revoke", "--wait", "--timeout", "1s", "--token", &victim]);
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("do not enforce version") && refused.contains("edge"), "{refused}");
    fixture.proxy.set(Fault::None);
    fixture.wait_refused(&victim).await;
}
