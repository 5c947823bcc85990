//! Two control-plane processes publish from one PostgreSQL database, and an edge alternates between them.

use crate::scene::{Different, Scene};
use harness::{Store, eventually};
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_moves_between_publishers_and_forgets_nothing() {
    let mut scene =
        Scene::set(Different { store: Some(Store::Postgres), servers: 2, ..Different::default() }).await;
    let mut revoked = Vec::new();
    for round in 0..4 {
        let (first, second) = (scene.token().await, scene.token().await);
        scene.admitted(&first).await;
        scene.revoke(&first).await;
        let other = scene.second.as_ref().unwrap();
        other.revoke(&scene.admin, json!({ "token": second })).await.unwrap();
        for token in [first, second] {
            scene.refused(&token).await;
            revoked.push(token);
        }
        match round {
            0 => {
                scene.control_plane.cli(["bundle", "rebase"]).unwrap();
            }
            // One restarts, the other continues.
            1 => {
                scene.control_plane.kill().unwrap();
                scene.control_plane.serve().await.unwrap();
            }
            2 => {
                let back = revoked.pop().unwrap();
                scene.unrevoke(&back);
                scene.admitted(&back).await;
            }
            _ => {}
        }
        for token in revoked.clone() {
            scene.refused(&token).await;
        }
    }
    // The edge refused no bundle of either process.
    let log = scene.envoy.log();
    for regression in ["epoch_older", "checkpoint_older", "tail_lost"] {
        assert!(!log.contains(regression), "{log}");
    }
    eventually("both publish", async || {
        let edges = scene.control_plane.cli(["edge", "list"])?;
        anyhow::ensure!(edges[0]["current"] == json!(true), "{edges}");
        Ok(())
    })
    .await;
}

/// A new key is used from the next manifest on, in every process and at every edge.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_replaced_without_a_gap() {
    let mut scene =
        Scene::set(Different { store: Some(Store::Postgres), servers: 2, ..Different::default() }).await;
    let mut last = scene.control_plane.cli(["authority", "show"]).unwrap();
    for key in ["snapshot", "tail"] {
        let known = scene.token().await;
        scene.revoke(&known).await;
        scene.refused(&known).await;
        let next = scene.control_plane.cli(["authority", "rotate", key]).unwrap();
        assert_ne!(next[format!("{key}_key")], last[format!("{key}_key")]);
        assert!(next["epoch"].as_u64() > last["epoch"].as_u64());
        last = next;
        let victim = scene.token().await;
        scene.revoke(&victim).await;
        scene.refused(&victim).await;
        scene.refused(&known).await;
    }
    // Remove the root key, which no running process needs.
    let root = scene.control_plane.data().join("keys/root.jwk");
    let away = scene.scratch().folder().join("root.jwk");
    std::fs::rename(&root, &away).unwrap();
    scene.control_plane.stop().unwrap();
    scene.control_plane.serve().await.unwrap();
    let victim = scene.token().await;
    scene.revoke(&victim).await;
    scene.refused(&victim).await;
    let refused = scene.control_plane.cli(["authority", "rotate", "tail"]).unwrap_err().to_string();
    assert!(refused.contains("the root key is not at"), "{refused}");
    let away = away.to_str().unwrap();
    scene.control_plane.cli(["authority", "rotate", "tail", "--root-key", away]).unwrap();
    scene.refused(&victim).await;
}
