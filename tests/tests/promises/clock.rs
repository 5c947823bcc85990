//! An edge whose clock is an hour off refuses new manifests, logs the reason, and admits nothing after its last bundle is
//! stale.

use harness::fake_control_plane::{FakeControlPlane, Responses, now_ms};
use harness::{Envoy, eventually};
use token::Fingerprint;

#[tokio::test]
async fn edge_clock_an_hour_behind() {
    // For this edge, a new manifest is from the future.
    check_with_clock_off_by_an_hour(3_600_000, "ahead of this edge's clock").await;
}

#[tokio::test]
async fn edge_clock_an_hour_ahead() {
    // For this edge, a new manifest has expired.
    check_with_clock_off_by_an_hour(-3_600_000, "expired").await;
}

async fn check_with_clock_off_by_an_hour(by: i64, message: &str) {
    let mut control_plane = FakeControlPlane::start_with(|settings| {
        settings.plugin_configuration["outage_grace_seconds"] = 0.into();
    })
    .await;
    let (good, victim) = (control_plane.token(), control_plane.token());
    let mut workers = control_plane.workers().await;
    // The last manifest that the edge accepts is fresh for a few seconds.
    let last = sign_with_clock(&mut control_plane, 0, SHORT_MS);
    control_plane.serve_until_taken(last).await;
    control_plane.content.revoke(control_plane.version, Fingerprint::digest(victim.as_bytes())).unwrap();
    let off = sign_with_clock(&mut control_plane, by, SHORT_MS);
    control_plane.serve_until_refused(off).await;
    eventually("the log contains the reason", async || {
        anyhow::ensure!(control_plane.envoy.log().contains(message), "nothing about `{message}`");
        Ok(())
    })
    .await;
    Envoy::wait_refusing(&mut workers, &victim, 503, "bundle_stale").await;
    Envoy::wait_refusing(&mut workers, &good, 503, "bundle_stale").await;
    // The edge recovers when the clock is correct again.
    let right = sign_with_clock(&mut control_plane, 0, LONG_MS);
    control_plane.serve(right);
    Envoy::wait_refusing(&mut workers, &victim, 401, "revoked").await;
    for worker in &mut workers {
        worker.get(&good).await.unwrap().expect(200).unwrap();
    }
}

/// Signs the content as the next version, at the time of another clock, with a lifetime in milliseconds.
fn sign_with_clock(control_plane: &mut FakeControlPlane, by: i64, fresh: u64) -> Responses {
    control_plane.version += 1;
    control_plane.content.checkpoint(control_plane.version).unwrap();
    let content = control_plane.content.build().unwrap();
    control_plane.sign(&content, |draft| {
        draft.issued_at = now_ms().saturating_add_signed(by);
        draft.expires_at = draft.issued_at + fresh;
    })
}

const SHORT_MS: u64 = 3000;
const LONG_MS: u64 = 600_000;
