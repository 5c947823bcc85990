//! A publisher without access to its store signs no manifest, so edges become stale.

use std::time::Duration;

use serde_json::json;

use crate::{
    postgres,
    world::{World, eventually, tag},
};

#[tokio::test]
async fn a_publisher_without_its_store_signs_nothing() {
    let mut world = World::on_postgres().await;
    world.set("KEYSTILE_PUBLISHER__RESIGN", "100ms");
    world.set("KEYSTILE_PUBLISHER__LIFETIME", "1s");
    let credential = world.edge("one");
    let server = world.serve();
    let ready = async || server.get("/readyz").send().await.unwrap().status().as_u16();
    assert_eq!(ready().await, 200);
    postgres::execute(&world.url, "ALTER TABLE bundle_state RENAME TO gone");
    eventually("not being ready", async || (ready().await == 503).then_some(())).await;
    // Operations that had started before the table was removed are done by now.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let before = server.manifest(&credential, 0, 0).send().await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let after = server.manifest(&credential, 0, 0).send().await.unwrap();
    assert_eq!(tag(before.headers()), tag(after.headers()));
    postgres::execute(&world.url, "ALTER TABLE gone RENAME TO bundle_state");
    eventually("being ready again", async || (ready().await == 200).then_some(())).await;
    eventually("the log line", async || world.log().contains("publishing again").then_some(())).await;
    let complaints = world.log().matches("nothing is published").count();
    assert_eq!(complaints, 1, "one failure is logged once");
}

/// A server reports a full disk, and continues by itself when there is space.
#[tokio::test]
async fn a_full_disk_is_survived() {
    let mut world = World::on_sqlite().await;
    world.set("KEYSTILE_LOG__LEVEL", "error");
    let server = world.serve_in_little_room(200_000);
    let exchange = async || {
        let body = json!({ "authKeyId": world.auth_key_id, "authKey": world.auth_key });
        server.post("/v1/auth", &body).send().await.unwrap().status().as_u16()
    };
    let ready = async || {
        let response = server.get("/readyz").send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    assert_eq!((exchange().await, ready().await.0), (200, 200));
    eventually("the end of the space", async || (exchange().await == 503).then_some(())).await;
    let complaint = eventually("not being ready", async || {
        let (status, body) = ready().await;
        (status == 503).then_some(body)
    });
    let complaint = complaint.await;
    assert!(complaint.contains("store_unwritable"), "{complaint}");
    for _ in 0..8 {
        assert_eq!((exchange().await, ready().await.0), (503, 503));
    }
    server.make_room();
    assert_eq!((exchange().await, ready().await.0), (200, 200));
    server.exchange(&world.auth_key_id, &world.auth_key).await;
}

#[tokio::test]
async fn the_doctor_tries_a_write() {
    let world = World::on_postgres().await;
    let name = world.url.split(['/', '?']).nth(3).unwrap();
    let read_only = format!("ALTER DATABASE {name} SET default_transaction_read_only = on");
    postgres::execute(&world.url, &read_only);
    let output = world.run(&["doctor", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(told.contains("cannot write to the database"), "{told}");
}
