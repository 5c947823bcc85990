//! A publisher without access to its store signs no manifest, so edges become stale.

use std::time::Duration;

use serde_json::json;

use crate::{
    postgres,
    test_env::{TestEnv, entity_tag, eventually},
};

#[tokio::test]
async fn publisher_signs_nothing_without_store() {
    let mut env = TestEnv::on_postgres().await;
    env.set_setting("KEYSTILE_PUBLISHER__RESIGN", "100ms");
    env.set_setting("KEYSTILE_PUBLISHER__LIFETIME", "1s");
    let credential = env.enroll_edge("one");
    let server = env.serve();
    let ready = async || server.get("/readyz").send().await.unwrap().status().as_u16();
    assert_eq!(ready().await, 200);
    postgres::execute(&env.url, "ALTER TABLE bundle_state RENAME TO gone");
    eventually("not being ready", async || (ready().await == 503).then_some(())).await;
    // Operations that had started before the table was removed are done by now.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let before = server.manifest(&credential, 0, 0).send().await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let after = server.manifest(&credential, 0, 0).send().await.unwrap();
    assert_eq!(entity_tag(before.headers()), entity_tag(after.headers()));
    postgres::execute(&env.url, "ALTER TABLE gone RENAME TO bundle_state");
    eventually("being ready again", async || (ready().await == 200).then_some(())).await;
    eventually("the log line", async || env.log().contains("publishing again").then_some(())).await;
    let messages = env.log().matches("nothing is published").count();
    assert_eq!(messages, 1, "one failure is logged once");
}

/// A server reports a full disk, and continues by itself when there is space.
#[tokio::test]
async fn server_survives_full_disk() {
    let mut env = TestEnv::on_sqlite().await;
    env.set_setting("KEYSTILE_LOG__LEVEL", "error");
    let server = env.serve_with_file_size_limit(200_000);
    let exchange = async || {
        let body = json!({ "authKeyId": env.auth_key_id, "authKey": env.auth_key });
        server.post("/v1/auth", &body).send().await.unwrap().status().as_u16()
    };
    let ready = async || {
        let response = server.get("/readyz").send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    assert_eq!((exchange().await, ready().await.0), (200, 200));
    eventually("the end of the space", async || (exchange().await == 503).then_some(())).await;
    let stderr = eventually("not being ready", async || {
        let (status, body) = ready().await;
        (status == 503).then_some(body)
    });
    let stderr = stderr.await;
    assert!(stderr.contains("store_unwritable"), "{stderr}");
    for _ in 0..8 {
        assert_eq!((exchange().await, ready().await.0), (503, 503));
    }
    server.lift_file_size_limit();
    assert_eq!((exchange().await, ready().await.0), (200, 200));
    server.exchange(&env.auth_key_id, &env.auth_key).await;
}

#[tokio::test]
async fn doctor_probes_a_write() {
    let env = TestEnv::on_postgres().await;
    let name = env.url.split(['/', '?']).nth(3).unwrap();
    let read_only = format!("ALTER DATABASE {name} SET default_transaction_read_only = on");
    postgres::execute(&env.url, &read_only);
    let output = env.run(&["doctor", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8(output.stdout).unwrap();
    assert!(message.contains("cannot write to the database"), "{message}");
}
