//! A server that is stopped under load loses nothing that it has acknowledged, and ends by itself.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::task::{JoinSet, spawn_blocking};

use crate::{
    for_each_backend,
    test_env::{TestEnv, entity_tag_version, eventually, json_text},
};

/// How many clients issue and revoke tokens when the server is stopped.
const CLIENTS: usize = 8;

/// How many pairs of requests are answered before the server is stopped.
const ROUNDS_BEFORE: usize = 24;

for_each_backend! {
    async fn stop_under_load_loses_no_acknowledged_change(env: TestEnv) {
        let credential = env.enroll_edge("one");
        let mut server = env.serve();
        let manifest = server.manifest(&credential, 0, 0).send().await.unwrap();
        let version = entity_tag_version(manifest.headers());
        let root = json_text(&server.exchange(&env.auth_key_id, &env.auth_key).await["token"]);

        // An edge that waits for a version which never comes is answered when the server stops.
        let wait = server.manifest(&credential, version + 1_000_000, 60);
        let waiting = tokio::spawn(async move { wait.send().await.map(|answer| answer.status().as_u16()) });

        let rounds = Arc::<AtomicUsize>::default();
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            let exchange =
                server.post("/v1/auth", &json!({ "authKeyId": env.auth_key_id, "authKey": env.auth_key }));
            let (root, rounds) = (root.clone(), Arc::clone(&rounds));
            let revoke = server.post("/revocations", &json!({})).bearer_auth(&root);
            clients.spawn(async move {
                let (mut valid, mut revoked) = (Vec::new(), Vec::new());
                // Ends when the server no longer answers.
                while let Ok(answer) = exchange.try_clone().unwrap().send().await {
                    assert_eq!(answer.status(), 200);
                    let Ok(issued) = answer.json::<Value>().await else { break };
                    let token = json_text(&issued["token"]);
                    let request = revoke.try_clone().unwrap().json(&json!({ "token": token }));
                    // A revocation without an answer may or may not have happened.
                    let Ok(answer) = request.send().await else { break };
                    assert_eq!(answer.status(), 200);
                    revoked.push(token);
                    let Ok(answer) = exchange.try_clone().unwrap().send().await else { break };
                    let Ok(issued) = answer.json::<Value>().await else { break };
                    valid.push(json_text(&issued["token"]));
                    rounds.fetch_add(1, Ordering::SeqCst);
                }
                (valid, revoked)
            });
        }
        eventually("load", async || (rounds.load(Ordering::SeqCst) >= ROUNDS_BEFORE).then_some(())).await;
        let stopped_at = Instant::now();
        server.signal("TERM");
        let (mut valid, mut revoked) = (Vec::new(), Vec::new());
        while let Some(client) = clients.join_next().await {
            let (more_valid, more_revoked) = client.unwrap();
            valid.extend(more_valid);
            revoked.extend(more_revoked);
        }
        assert!(matches!(waiting.await.unwrap(), Ok(200 | 304)), "the waiting edge is answered");
        let (server, status) = spawn_blocking(move || {
            let status = server.wait();
            (server, status)
        })
        .await
        .unwrap();
        drop(server);
        assert!(status.success(), "{status}: {}", env.log());
        assert!(stopped_at.elapsed() < Duration::from_secs(20), "{:?}", stopped_at.elapsed());
        assert!(!env.log().contains("did not finish within"), "{}", env.log());

        assert!(revoked.len() >= ROUNDS_BEFORE && valid.len() >= ROUNDS_BEFORE);
        let server = env.serve();
        for token in &revoked {
            assert_eq!(server.own_api_decision(&env, token).await, (401, "revoked".to_owned()));
        }
        for token in &valid {
            assert_eq!(server.own_api_decision(&env, token).await.0, 200);
        }
    }
}
