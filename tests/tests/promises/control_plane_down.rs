//! While the control plane is down, edges use their last bundle until the outage grace ends. Then they refuse all requests
//! until it is back.

use harness::{Deployment, Envoy, Options, eventually};
use serde_json::json;
use std::time::Instant;

#[tokio::test]
async fn edges_refuse_revoked_tokens_until_outage_grace_ends() {
    let mut deployment = Deployment::start(Options {
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
    let (admin, mut workers) = deployment.admitted_token().await.unwrap();
    let revoked = deployment.control_plane.token().await.unwrap();
    deployment.control_plane.revoke(&admin, json!({ "token": revoked })).await.unwrap();
    Envoy::wait_refusing(&mut workers, &revoked, 401, "revoked").await;

    deployment.control_plane.kill().unwrap();
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
    Envoy::wait_refusing(&mut workers, &admin, 503, "bundle_stale").await;
    for worker in &mut workers {
        let refused = worker.get(&revoked).await.unwrap();
        assert_ne!(refused.status, 200);
    }

    deployment.control_plane.serve().await.unwrap();
    deployment.envoy.wait_admitting(&admin).await.unwrap();
    Envoy::wait_refusing(&mut workers, &revoked, 401, "revoked").await;
    // The log reports each phase.
    for message in [
        "requests are decided by `outage_grace_seconds 4`",
        "all requests are refused by `outage_grace_seconds 4`",
        "fresh again",
    ] {
        eventually(message, async || {
            anyhow::ensure!(deployment.envoy.log().contains(message), "the log does not contain it");
            Ok(())
        })
        .await;
    }
}

/// An edge that starts while the control plane is down refuses all requests.
#[tokio::test]
async fn edge_without_bundle_denies_and_logs() {
    let mut deployment = Deployment::start(Options::default()).await.unwrap();
    let (token, _) = deployment.admitted_token().await.unwrap();
    deployment.control_plane.stop().unwrap();
    let settings = deployment.envoy.settings().clone();
    deployment.envoy.stop().unwrap();
    deployment.envoy = Envoy::start(settings, deployment.scratch.folder()).await.unwrap();
    for mut worker in deployment.envoy.workers().await.unwrap() {
        let refused = worker.get(&token).await.unwrap().expect(503).unwrap();
        assert_eq!(refused.code(), "bundle_missing");
    }
    deployment.control_plane.serve().await.unwrap();
    deployment.envoy.wait_admitting(&token).await.unwrap();
}
