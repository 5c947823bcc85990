//! An edge whose clock is an hour off takes nothing it could not judge, says so, and admits nothing past the bound.

use harness::forge::{Forge, Served, now_ms};
use harness::{Envoy, eventually};
use token::Fingerprint;

#[tokio::test]
async fn an_edge_whose_clock_is_an_hour_behind() {
    // To it, what is signed now comes from the future.
    hour_off(3_600_000, "ahead of this edge's clock").await;
}

#[tokio::test]
async fn an_edge_whose_clock_is_an_hour_ahead() {
    // To it, what is signed now has long expired.
    hour_off(-3_600_000, "expired").await;
}

async fn hour_off(by: i64, told: &str) {
    let mut forge = Forge::with(|settings| {
        settings.plugin_configuration["outage_grace_seconds"] = 0.into();
    })
    .await;
    let (good, victim) = (forge.token(), forge.token());
    let mut workers = forge.workers().await;
    // The last word that it can judge, for a few seconds.
    let last = signed(&mut forge, 0, SHORT_MS);
    forge.serve_taken(last).await;
    forge.content.revoke(forge.version, Fingerprint::digest(victim.as_bytes())).unwrap();
    let off = signed(&mut forge, by, SHORT_MS);
    forge.serve_refused(off).await;
    eventually("the log tells why", async || {
        anyhow::ensure!(forge.envoy.log().contains(told), "nothing about `{told}`");
        Ok(())
    })
    .await;
    Envoy::refusing(&mut workers, &victim, 503, "bundle_stale").await;
    Envoy::refusing(&mut workers, &good, 503, "bundle_stale").await;
    // Once the clock is right again so is the edge.
    let right = signed(&mut forge, 0, LONG_MS);
    forge.serve(right);
    Envoy::refusing(&mut workers, &victim, 401, "revoked").await;
    for worker in &mut workers {
        worker.get(&good).await.unwrap().expect(200).unwrap();
    }
}

/// The content as the next version, by a clock that is off, fresh for so many milliseconds.
fn signed(forge: &mut Forge, by: i64, fresh: u64) -> Served {
    forge.version += 1;
    forge.content.checkpoint(forge.version).unwrap();
    let content = forge.content.build().unwrap();
    forge.sign(&content, |draft| {
        draft.issued_at = now_ms().saturating_add_signed(by);
        draft.expires_at = draft.issued_at + fresh;
    })
}

const SHORT_MS: u64 = 3000;
const LONG_MS: u64 = 600_000;
