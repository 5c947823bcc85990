//! A proxy whose timeout is shorter than the long poll does not make an idle fleet stale.

use crate::scene::{Different, Scene};
use bundle::{Manifest, PublicKey};
use harness::{Fault, eventually};
use std::time::Duration;

#[tokio::test]
async fn an_idle_edge_stays_fresh_behind_a_proxy_with_a_time_limit() {
    let mut scene = Scene::set(Different {
        settings: vec![
            ("KEYSTILE_PUBLISHER__LIFETIME", "8s".into()),
            ("KEYSTILE_PUBLISHER__RESIGN", "1s".into()),
        ],
        outage_grace: Some(0),
        wait_seconds: Some(10),
        ..Different::default()
    })
    .await;
    let root: PublicKey = scene.control_plane.root().root_key.parse().unwrap();
    let issued_at = |scene: &Scene| {
        Manifest::open(&scene.proxy.seen().last_manifest, std::slice::from_ref(&root), "default")
            .unwrap()
            .issued_at()
    };
    // The fault applies to new connections.
    for limit in [Duration::from_millis(2_500), Duration::from_millis(500)] {
        scene.proxy.set(Fault::Impatient(limit));
        let before = scene.proxy.seen().timed_out;
        // Without any revocation, the bundle is still fresh after four lifetimes.
        let end = issued_at(&scene) + 32_000;
        while issued_at(&scene) < end {
            for worker in &mut scene.workers {
                let admitted = worker.get(&scene.admin).await.unwrap();
                assert_eq!(admitted.status, 200, "{limit:?}: {}", admitted.text());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let timed_out = scene.proxy.seen().timed_out - before;
        assert!(timed_out <= 4, "{limit:?}: {timed_out} requests timed out");
    }
    assert!(scene.proxy.seen().timed_out > 0, "no request timed out");
    scene.told("no response from the control plane; a proxy responded with status 504").await;
    // A revocation still arrives.
    let victim = scene.token().await;
    scene.admitted(&victim).await;
    scene.revoke(&victim).await;
    scene.refused(&victim).await;
    eventually("the control plane gets the report", async || {
        let edges = scene.control_plane.cli(["edge", "list"])?;
        anyhow::ensure!(edges.to_string().contains("edge"), "{edges}");
        Ok(())
    })
    .await;
}

/// The log reports whether the control plane or a proxy responded.
#[tokio::test]
async fn the_log_says_who_answered_what() {
    let mut scene = Scene::set(Different::default()).await;
    scene.control_plane.cli(["edge", "remove", "edge", "--yes"]).unwrap();
    scene.told("the control plane responded with status 401 edge_credential_refused: ").await;
    scene.control_plane.kill().unwrap();
    scene.told("no response from the control plane").await;
}
