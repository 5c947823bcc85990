//! A proxy before the control plane that is less patient than the long poll makes no fleet stale, however quiet it is.

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
    // Before anything is changed: the proxies that came in between are there from the start of a connection.
    for limit in [Duration::from_millis(2_500), Duration::from_millis(500)] {
        scene.proxy.set(Fault::Impatient(limit));
        let before = scene.proxy.seen().timed_out;
        // Nobody revokes anything. Four lifetimes later, by what is published, it is as fresh as ever.
        let end = issued_at(&scene) + 32_000;
        while issued_at(&scene) < end {
            for worker in &mut scene.workers {
                let admitted = worker.get(&scene.admin).await.unwrap();
                assert_eq!(admitted.status, 200, "{limit:?}: {}", admitted.text());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let timed_out = scene.proxy.seen().timed_out - before;
        assert!(timed_out <= 4, "{limit:?}: {timed_out} requests were cut");
    }
    assert!(scene.proxy.seen().timed_out > 0, "the proxy was patient");
    scene.told("no response from the control plane; a proxy responded with status 504").await;
    // And a revocation arrives.
    let victim = scene.token().await;
    scene.admitted(&victim).await;
    scene.revoke(&victim).await;
    scene.refused(&victim).await;
    eventually("the control plane hears of it", async || {
        let edges = scene.control_plane.cli(["edge", "list"])?;
        anyhow::ensure!(edges.to_string().contains("edge"), "{edges}");
        Ok(())
    })
    .await;
}

/// What the log says, so that operators need not guess who answered.
#[tokio::test]
async fn the_log_says_who_answered_what() {
    let mut scene = Scene::set(Different::default()).await;
    scene.control_plane.cli(["edge", "remove", "edge", "--yes"]).unwrap();
    scene.told("the control plane responded with status 401 edge_credential_refused: ").await;
    scene.control_plane.kill().unwrap();
    scene.told("no response from the control plane").await;
}
