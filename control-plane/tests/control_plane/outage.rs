//! A publisher that is cut off from its store assures nobody that nothing was revoked.

use std::time::Duration;

use crate::{
    postgres,
    world::{World, eventually, tag, version},
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
    // Whatever was under way when the table went is done by now.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let before = server.manifest(&credential, 0, 0).send().await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let after = server.manifest(&credential, 0, 0).send().await.unwrap();
    assert_eq!(tag(before.headers()), tag(after.headers()));
    postgres::execute(&world.url, "ALTER TABLE gone RENAME TO bundle_state");
    eventually("being ready again", async || (ready().await == 200).then_some(())).await;
    eventually("the log line", async || world.log().contains("publishing again").then_some(())).await;
    let complaints = world.log().matches("nothing is published").count();
    assert_eq!(complaints, 1, "one trouble is told once");
}

/// A restored backup holds older versions; edges keep what they have.
#[tokio::test]
async fn a_store_that_went_back_is_not_published() {
    let world = World::on_postgres().await;
    let credential = world.edge("one");
    world.json(&["revoke", "--fingerprint", &"1".repeat(64)]);
    let server = world.serve();
    let have = version(server.manifest(&credential, 0, 0).send().await.unwrap().headers());
    postgres::execute(&world.url, "UPDATE bundle_state SET version = 1");
    eventually("the complaint", async || world.log().contains("store_went_back").then_some(())).await;
    let response = server.manifest(&credential, 0, 0).send().await.unwrap();
    assert_eq!(version(response.headers()), have);
}
