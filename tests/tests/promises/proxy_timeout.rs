//! A proxy whose timeout is shorter than the long poll does not make an idle fleet stale.

use crate::fixture::{Fixture, Overrides};
use bundle::{Manifest, PublicKey};
use harness::{Fault, eventually};
use std::time::Duration;

#[tokio::test]
async fn idle_edge_stays_fresh_behind_proxy_with_timeout() {
    let mut fixture = Fixture::start(Overrides {
        settings: vec![
            ("KEYSTILE_PUBLISHER__LIFETIME", "8s".into()),
            ("KEYSTILE_PUBLISHER__RESIGN", "1s".into()),
        ],
        outage_grace: Some(0),
        wait_seconds: Some(10),
        ..Overrides::default()
    })
    .await;
    let root: PublicKey = fixture.control_plane.root().root_key.parse().unwrap();
    let issued_at = |fixture: &Fixture| {
        Manifest::open(&fixture.proxy.seen().last_manifest, std::slice::from_ref(&root), "default")
            .unwrap()
            .issued_at()
    };
    // The fault applies to new connections.
    for limit in [Duration::from_millis(2_500), Duration::from_millis(500)] {
        fixture.proxy.set(Fault::Impatient(limit));
        let before = fixture.proxy.seen().timed_out;
        // Without any revocation, the bundle is still fresh after four lifetimes.
        let end = issued_at(&fixture) + 32_000;
        while issued_at(&fixture) < end {
            for worker in &mut fixture.workers {
                let admitted = worker.get(&fixture.admin).await.unwrap();
                assert_eq!(admitted.status, 200, "{limit:?}: {}", admitted.text());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let timed_out = fixture.proxy.seen().timed_out - before;
        assert!(timed_out <= 4, "{limit:?}: {timed_out} requests timed out");
    }
    assert!(fixture.proxy.seen().timed_out > 0, "no request timed out");
    fixture.wait_for_log("no response from the control plane; a proxy responded with status 504").await;
    // A revocation still arrives.
    let victim = fixture.token().await;
    fixture.wait_admitted(&victim).await;
    fixture.revoke(&victim).await;
    fixture.wait_refused(&victim).await;
    eventually("the control plane gets the report", async || {
        let edges = fixture.control_plane.cli(["edge", "list"])?;
        anyhow::ensure!(edges.to_string().contains("edge"), "{edges}");
        Ok(())
    })
    .await;
}

/// The log reports whether the control plane or a proxy responded.
#[tokio::test]
async fn log_names_status_and_server_of_failed_fetch() {
    let mut fixture = Fixture::start(Overrides::default()).await;
    fixture.control_plane.cli(["edge", "remove", "edge", "--yes"]).unwrap();
    fixture.wait_for_log("the control plane responded with status 401 edge_credential_refused: ").await;
    fixture.control_plane.kill().unwrap();
    fixture.wait_for_log("no response from the control plane").await;
}
