//! The version of the bundle never decreases, regardless of how the control plane ended.

use bundle::{Manifest, PublicKey};
use harness::client::{bearer, send};
use harness::{ControlPlane, Enrolled, Options, Store, World};
use serde_json::json;

#[tokio::test]
async fn never_takes_the_version_back_on_sqlite() {
    never_back(Store::Sqlite).await;
}

#[tokio::test]
async fn never_takes_the_version_back_on_postgresql() {
    never_back(Store::Postgres).await;
}

async fn never_back(store: Store) {
    let mut world = World::start(Options { store, ..Options::default() }).await.unwrap();
    let (admin, mut workers) = world.admitted().await.unwrap();
    let edge = world.control_plane.enroll("observer").unwrap();
    let mut last = manifest(&world.control_plane, &edge).await;
    for hard in [false, true, false, true] {
        let victim = world.control_plane.token().await.unwrap();
        world.control_plane.revoke(&admin, json!({ "token": victim })).await.unwrap();
        let revoked = manifest(&world.control_plane, &edge).await;
        assert!(revoked.version() > last.version(), "a revocation is a new version");
        harness::Envoy::refusing(&mut workers, &victim, 401, "revoked").await;

        if hard {
            world.control_plane.kill().unwrap()
        } else {
            world.control_plane.stop().unwrap()
        }
        world.control_plane.serve().await.unwrap();
        last = manifest(&world.control_plane, &edge).await;
        assert!(last.version() >= revoked.version(), "{} after {}", last.version(), revoked.version());
        assert!(last.issued_at() >= revoked.issued_at(), "issued before the restart");
        // The edges accept it. They refuse an earlier version.
        harness::Envoy::refusing(&mut workers, &victim, 401, "revoked").await;
    }
    let shown = world.envoy.metric("keystile_bundle_version").await.unwrap();
    assert!(shown > 0, "the gauge is {shown}");
}

async fn manifest(control_plane: &ControlPlane, edge: &Enrolled) -> Manifest {
    let mut request = bearer(&edge.credential);
    *request.uri_mut() = "/edge/v1/manifest?have=0".parse().unwrap();
    let answer = send(control_plane.address(), request).await.unwrap().expect(200).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let key: PublicKey = text(&edge.plugin_configuration["root_keys"][0]).parse().unwrap();
    Manifest::open(&answer.body, &[key], &text(&edge.plugin_configuration["audience"])).unwrap()
}
