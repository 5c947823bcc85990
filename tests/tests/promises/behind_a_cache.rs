//! Behind a cache, requests do not wait: edges poll, unchanged manifests get a 304, and objects come from the cache.

use crate::scene::{Different, Scene};
use harness::envoy::Settings;
use harness::{Envoy, Fault, eventually};

#[tokio::test]
async fn polling_reaches_every_edge_and_objects_are_fetched_once() {
    let mut scene = Scene::set(Different::default()).await;
    scene.proxy.set(Fault::Cache);
    for _ in 0..3 {
        let victim = scene.token().await;
        scene.admitted(&victim).await;
        scene.revoke(&victim).await;
        scene.refused(&victim).await;
    }
    eventually("an unchanged manifest", async || {
        anyhow::ensure!(scene.proxy.seen().unchanged > 0, "every manifest had changed");
        Ok(())
    })
    .await;
    // Polling is limited to some requests per second.
    let (before, began) = (scene.proxy.seen().manifests, std::time::Instant::now());
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    let asked = scene.proxy.seen().manifests - before;
    let most = 10 * usize::try_from(began.elapsed().as_secs()).unwrap();
    assert!((1..=most).contains(&asked), "{asked} requests in {:?}", began.elapsed());

    // Another edge that starts now finds all objects in the cache.
    let hits = scene.proxy.seen().hits;
    let mut settings: Settings = scene.envoy.settings().clone();
    settings.listen = scene.scratch().address(8180);
    settings.admin = scene.scratch().address(9911);
    let folder = scene.scratch().folder().join("second");
    std::fs::create_dir(&folder).unwrap();
    let second = Envoy::start(settings, &folder).await.unwrap();
    second.admitting(&scene.admin).await.unwrap();
    assert!(scene.proxy.seen().hits > hits, "the cache did not answer any request");
}
