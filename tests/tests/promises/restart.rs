//! The version of the bundle never decreases, regardless of how the control plane ended.

use bundle::{Manifest, PublicKey};
use harness::client::{bearer, send};
use harness::{ControlPlane, Deployment, EnrolledEdge, Options, Store};
use serde_json::json;

#[tokio::test]
async fn version_never_decreases_after_restart_on_sqlite() {
    never_back(Store::Sqlite).await;
}

#[tokio::test]
async fn version_never_decreases_after_restart_on_postgresql() {
    never_back(Store::Postgres).await;
}

async fn never_back(store: Store) {
    let mut deployment = Deployment::start(Options { store, ..Options::default() }).await.unwrap();
    let (admin, mut workers) = deployment.admitted_token().await.unwrap();
    let edge = deployment.control_plane.enroll("observer").unwrap();
    let mut last = manifest(&deployment.control_plane, &edge).await;
    for hard in [false, true, false, true] {
        let victim = deployment.control_plane.token().await.unwrap();
        deployment.control_plane.revoke(&admin, json!({ "token": victim })).await.unwrap();
        let revoked = manifest(&deployment.control_plane, &edge).await;
        assert!(revoked.version() > last.version(), "a revocation is a new version");
        harness::Envoy::wait_refusing(&mut workers, &victim, 401, "revoked").await;

        if hard {
            deployment.control_plane.kill().unwrap()
        } else {
            deployment.control_plane.stop().unwrap()
        }
        deployment.control_plane.serve().await.unwrap();
        last = manifest(&deployment.control_plane, &edge).await;
        assert!(last.version() >= revoked.version(), "{} after {}", last.version(), revoked.version());
        assert!(last.issued_at() >= revoked.issued_at(), "issued before the restart");
        // The edges accept it. They refuse an earlier version.
        harness::Envoy::wait_refusing(&mut workers, &victim, 401, "revoked").await;
    }
    let shown = deployment.envoy.metric("keystile_bundle_version").await.unwrap();
    assert!(shown > 0, "the gauge is {shown}");
}

async fn manifest(control_plane: &ControlPlane, edge: &EnrolledEdge) -> Manifest {
    let mut request = bearer(&edge.credential);
    *request.uri_mut() = "/edge/v1/manifest?have=0".parse().unwrap();
    let answer = send(control_plane.address(), request).await.unwrap().expect(200).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let key: PublicKey = text(&edge.plugin_configuration["root_keys"][0]).parse().unwrap();
    Manifest::open(&answer.body, &[key], &text(&edge.plugin_configuration["audience"])).unwrap()
}
