//! While the control plane is down, edges use their last bundle until the outage grace ends. Then they refuse all requests
//! until it is back.

use harness::{Envoy, Options, World, eventually};
use serde_json::json;
use std::time::Instant;

#[tokio::test]
async fn edges_go_on_still_refusing_what_they_know_until_the_grace_ends() {
    let mut world = World::start(Options {
        settings: vec![
            ("KEYSTILE_PUBLISHER__LIFETIME", "4s".into()),
            ("KEYSTILE_PUBLISHER__RESIGN", "1s".into()),
        ],
        plugin: |configuration| {
            configuration["outage_grace_seconds"] = json!(4);
            configuration["control_plane"]["wait_seconds"] = json!(1);
        },
        ..Options::default()
    })
    .await
    .unwrap();
    let (admin, mut workers) = world.admitted().await.unwrap();
    let revoked = world.control_plane.token().await.unwrap();
    world.control_plane.revoke(&admin, json!({ "token": revoked })).await.unwrap();
    Envoy::refusing(&mut workers, &revoked, 401, "revoked").await;

    world.control_plane.kill().unwrap();
    let killed = Instant::now();
    // The last manifest expires, and then the grace ends, after at most 8 s. The test checks the order, not the exact
    // time.
    let mut went_on = 0;
    let outage_over = async |workers: &mut Vec<harness::Connection>, went_on: &mut u32| {
        for worker in workers.iter_mut() {
            let response = worker.get(&admin).await?;
            match response.status {
                200 => *went_on += 1,
                _ => return response.expect(503).map(|response| assert_eq!(response.code(), "bundle_stale")),
            }
            // The revoked token is always refused. Other tokens are refused when the grace ends.
            let status = worker.get(&revoked).await?.status;
            assert!([401, 503].contains(&status), "a revoked token got {status}");
        }
        anyhow::bail!("still admitted after {:?}", killed.elapsed())
    };
    eventually("the grace ends", async || outage_over(&mut workers, &mut went_on).await).await;
    assert!(killed.elapsed().as_secs() >= 4, "the edges refused after {:?}", killed.elapsed());
    assert!(went_on > 2, "the edges did not continue during the grace");
    Envoy::refusing(&mut workers, &admin, 503, "bundle_stale").await;
    for worker in &mut workers {
        let refused = worker.get(&revoked).await.unwrap();
        assert_ne!(refused.status, 200);
    }

    world.control_plane.serve().await.unwrap();
    world.envoy.admitting(&admin).await.unwrap();
    Envoy::refusing(&mut workers, &revoked, 401, "revoked").await;
    // The log reports each phase.
    for told in [
        "requests are decided by `outage_grace_seconds 4`",
        "all requests are refused by `outage_grace_seconds 4`",
        "fresh again",
    ] {
        eventually(told, async || {
            anyhow::ensure!(world.envoy.log().contains(told), "the log does not contain it");
            Ok(())
        })
        .await;
    }
}

/// An edge that starts while the control plane is down refuses all requests.
#[tokio::test]
async fn an_edge_without_a_bundle_denies_and_says_so() {
    let mut world = World::start(Options::default()).await.unwrap();
    let (token, _) = world.admitted().await.unwrap();
    world.control_plane.stop().unwrap();
    let settings = world.envoy.settings().clone();
    world.envoy.stop().unwrap();
    world.envoy = Envoy::start(settings, world.scratch.folder()).await.unwrap();
    for mut worker in world.envoy.workers().await.unwrap() {
        let refused = worker.get(&token).await.unwrap().expect(503).unwrap();
        assert_eq!(refused.code(), "bundle_missing");
    }
    world.control_plane.serve().await.unwrap();
    world.envoy.admitting(&token).await.unwrap();
}
