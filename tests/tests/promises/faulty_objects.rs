//! If an object is missing, truncated or swapped, or a manifest is replayed, an edge keeps its last good bundle until it
//! is stale, and accepts the next honest response.

use crate::scene::{Different, Scene};
use harness::{Envoy, Fault, eventually};

#[tokio::test]
async fn what_is_fetched_wrong_changes_nothing_and_is_told() {
    let mut scene = Scene::set(Different::default()).await;
    let known = scene.token().await;
    scene.revoke(&known).await;
    scene.refused(&known).await;
    let replayed = scene.proxy.seen().last_manifest;
    for (fault, told) in [
        (Fault::Missing, "responded with status 404"),
        (Fault::Truncated, "object"),
        (Fault::Swapped, "object"),
        (Fault::Replayed(replayed), "is not newer than the current version"),
        (Fault::CutOff, "no response from the control plane; a proxy responded with status 502"),
    ] {
        let before = scene.envoy.log().len();
        let failed = scene.envoy.metric("keystile_refresh_failed").await.unwrap();
        scene.proxy.set(fault.clone());
        let victim = scene.token().await;
        scene.admitted(&victim).await;
        scene.revoke(&victim).await;
        eventually("the failure is counted", async || {
            let now = scene.envoy.metric("keystile_refresh_failed").await?;
            anyhow::ensure!(now > failed, "{fault:?}: no refresh failed");
            // Known revocations stay in effect, and valid tokens stay valid.
            for worker in &mut scene.workers {
                worker.get(&known).await?.expect(401)?;
                worker.get(&scene.admin).await?.expect(200)?;
            }
            Ok(())
        })
        .await;
        let log = scene.envoy.log();
        assert!(log[before..].contains("refresh failed"), "{fault:?}: {}", &log[before..]);
        assert!(log[before..].contains(told), "{fault:?}: {}", &log[before..]);
        scene.proxy.set(Fault::None);
        scene.refused(&victim).await;
    }
}

/// During a permanent fault, the edge refuses all requests when its bundle is stale, including tokens revoked since.
#[tokio::test]
async fn no_revoked_credential_is_admitted_past_the_bound() {
    let settings =
        vec![("KEYSTILE_PUBLISHER__LIFETIME", "4s".into()), ("KEYSTILE_PUBLISHER__RESIGN", "1s".into())];
    let mut scene = Scene::set(Different { settings, outage_grace: Some(0), ..Different::default() }).await;
    for fault in [Fault::Missing, Fault::CutOff] {
        let victim = scene.token().await;
        scene.admitted(&victim).await;
        scene.proxy.set(fault);
        scene.revoke(&victim).await;
        Envoy::refusing(&mut scene.workers, &victim, 503, "bundle_stale").await;
        scene.told("all requests are refused by").await;
        scene.proxy.set(Fault::None);
        let admin = scene.admin.clone();
        scene.admitted(&admin).await;
        scene.refused(&victim).await;
    }
}
