//! If an object is missing, truncated or swapped, or a manifest is replayed, an edge keeps its last good bundle until it
//! is stale, and accepts the next honest response.

use crate::fixture::{Fixture, Overrides};
use harness::{Envoy, Fault, eventually};

#[tokio::test]
async fn faulty_objects_change_nothing_and_are_logged() {
    let mut fixture = Fixture::start(Overrides::default()).await;
    let known = fixture.token().await;
    fixture.revoke(&known).await;
    fixture.wait_refused(&known).await;
    let replayed = fixture.proxy.seen().last_manifest;
    for (fault, message) in [
        (Fault::Missing, "responded with status 404"),
        (Fault::Truncated, "object"),
        (Fault::Swapped, "object"),
        (Fault::Replayed(replayed), "is not newer than the current version"),
        (Fault::CutOff, "no response from the control plane; a proxy responded with status 502"),
    ] {
        let before = fixture.envoy.log().len();
        let failed = fixture.envoy.metric("keystile_refresh_failed").await.unwrap();
        fixture.proxy.set(fault.clone());
        let victim = fixture.token().await;
        fixture.wait_admitted(&victim).await;
        fixture.revoke(&victim).await;
        eventually("the failure is counted", async || {
            let now = fixture.envoy.metric("keystile_refresh_failed").await?;
            anyhow::ensure!(now > failed, "{fault:?}: no refresh failed");
            // Known revocations stay in effect, and valid tokens stay valid.
            for worker in &mut fixture.workers {
                worker.get(&known).await?.expect(401)?;
                worker.get(&fixture.admin).await?.expect(200)?;
            }
            Ok(())
        })
        .await;
        let log = fixture.envoy.log();
        assert!(log[before..].contains("refresh failed"), "{fault:?}: {}", &log[before..]);
        assert!(log[before..].contains(message), "{fault:?}: {}", &log[before..]);
        fixture.proxy.set(Fault::None);
        fixture.wait_refused(&victim).await;
    }
}

/// During a permanent fault, the edge refuses all requests when its bundle is stale, including tokens revoked since.
#[tokio::test]
async fn faulty_objects_admit_no_revoked_credential_past_the_bound() {
    let settings =
        vec![("KEYSTILE_PUBLISHER__LIFETIME", "4s".into()), ("KEYSTILE_PUBLISHER__RESIGN", "1s".into())];
    let mut fixture =
        Fixture::start(Overrides { settings, outage_grace: Some(0), ..Overrides::default() }).await;
    for fault in [Fault::Missing, Fault::CutOff] {
        let victim = fixture.token().await;
        fixture.wait_admitted(&victim).await;
        fixture.proxy.set(fault);
        fixture.revoke(&victim).await;
        Envoy::wait_refusing(&mut fixture.workers, &victim, 503, "bundle_stale").await;
        fixture.wait_for_log("all requests are refused by").await;
        fixture.proxy.set(Fault::None);
        let admin = fixture.admin.clone();
        fixture.wait_admitted(&admin).await;
        fixture.wait_refused(&victim).await;
    }
}
