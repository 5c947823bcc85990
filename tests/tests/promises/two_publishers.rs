//! Two control-plane processes publish from one PostgreSQL database, and an edge alternates between them.

use crate::fixture::{Fixture, Overrides};
use harness::{Store, eventually};
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_switches_publishers_without_losing_revocations() {
    let mut fixture =
        Fixture::start(Overrides { store: Some(Store::Postgres), servers: 2, ..Overrides::default() }).await;
    let mut revoked = Vec::new();
    for round in 0..4 {
        let (first, second) = (fixture.token().await, fixture.token().await);
        fixture.wait_admitted(&first).await;
        fixture.revoke(&first).await;
        let other = fixture.second.as_ref().unwrap();
        other.revoke(&fixture.admin, json!({ "token": second })).await.unwrap();
        for token in [first, second] {
            fixture.wait_refused(&token).await;
            revoked.push(token);
        }
        match round {
            0 => {
                fixture.control_plane.cli(["bundle", "compact"]).unwrap();
            }
            // One restarts, the other continues.
            1 => {
                fixture.control_plane.kill().unwrap();
                fixture.control_plane.serve().await.unwrap();
            }
            2 => {
                let back = revoked.pop().unwrap();
                fixture.unrevoke(&back);
                fixture.wait_admitted(&back).await;
            }
            _ => {}
        }
        for token in revoked.clone() {
            fixture.wait_refused(&token).await;
        }
    }
    // The edge refused no bundle of either process.
    let log = fixture.envoy.log();
    for regression in ["epoch_older", "checkpoint_older", "tail_lost"] {
        assert!(!log.contains(regression), "{log}");
    }
    eventually("both publish", async || {
        let edges = fixture.control_plane.cli(["edge", "list"])?;
        anyhow::ensure!(edges[0]["current"] == json!(true), "{edges}");
        Ok(())
    })
    .await;
}

/// A new key is used from the next manifest on, in every process and at every edge.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publisher_keys_are_replaced_without_interruption() {
    let mut fixture =
        Fixture::start(Overrides { store: Some(Store::Postgres), servers: 2, ..Overrides::default() }).await;
    let mut last = fixture.control_plane.cli(["authority", "show"]).unwrap();
    for key in ["snapshot", "tail"] {
        let known = fixture.token().await;
        fixture.revoke(&known).await;
        fixture.wait_refused(&known).await;
        let next = fixture.control_plane.cli(["authority", "rotate", key]).unwrap();
        assert_ne!(next[format!("{key}_key")], last[format!("{key}_key")]);
        assert!(next["epoch"].as_u64() > last["epoch"].as_u64());
        last = next;
        let victim = fixture.token().await;
        fixture.revoke(&victim).await;
        fixture.wait_refused(&victim).await;
        fixture.wait_refused(&known).await;
    }
    // Remove the root key, which no running process needs.
    let root = fixture.control_plane.data().join("keys/root.jwk");
    let away = fixture.scratch().folder().join("root.jwk");
    std::fs::rename(&root, &away).unwrap();
    fixture.control_plane.stop().unwrap();
    fixture.control_plane.serve().await.unwrap();
    let victim = fixture.token().await;
    fixture.revoke(&victim).await;
    fixture.wait_refused(&victim).await;
    let refused = fixture.control_plane.cli(["authority", "rotate", "tail"]).unwrap_err().to_string();
    assert!(refused.contains("the root key is not at"), "{refused}");
    let away = away.to_str().unwrap();
    fixture.control_plane.cli(["authority", "rotate", "tail", "--root-key", away]).unwrap();
    fixture.wait_refused(&victim).await;
}
