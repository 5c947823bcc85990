//! Behind a cache, requests do not wait: edges poll, unchanged manifests get a 304, and objects come from the cache.

use crate::fixture::{Fixture, Overrides};
use harness::envoy::Settings;
use harness::{Envoy, Fault, eventually};

#[tokio::test]
async fn cache_fetches_objects_once_for_all_edges() {
    let mut fixture = Fixture::start(Overrides::default()).await;
    fixture.proxy.set(Fault::Cache);
    for _ in 0..3 {
        let victim = fixture.token().await;
        fixture.wait_admitted(&victim).await;
        fixture.revoke(&victim).await;
        fixture.wait_refused(&victim).await;
    }
    eventually("an unchanged manifest", async || {
        anyhow::ensure!(fixture.proxy.seen().unchanged > 0, "every manifest had changed");
        Ok(())
    })
    .await;
    // Polling is limited to some requests per second.
    let (before, began) = (fixture.proxy.seen().manifests, std::time::Instant::now());
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    let asked = fixture.proxy.seen().manifests - before;
    let most = 10 * usize::try_from(began.elapsed().as_secs()).unwrap();
    assert!((1..=most).contains(&asked), "{asked} requests in {:?}", began.elapsed());

    // Another edge that starts now finds all objects in the cache.
    let hits = fixture.proxy.seen().hits;
    let mut settings: Settings = fixture.envoy.settings().clone();
    settings.listen = fixture.scratch().address(8180);
    settings.admin = fixture.scratch().address(9911);
    let folder = fixture.scratch().folder().join("second");
    std::fs::create_dir(&folder).unwrap();
    let second = Envoy::start(settings, &folder).await.unwrap();
    second.wait_admitting(&fixture.admin).await.unwrap();
    assert!(fixture.proxy.seen().hits > hits, "the cache did not answer any request");
}
