//! If the worker that fetches crashes during a fetch, the version still reaches every worker.

use crate::filter_crash::{trap, trapping};
use crate::scene::{Different, Scene};
use harness::{Fault, eventually, tools};

#[tokio::test]
async fn a_leader_that_crashes_in_the_middle_of_a_fetch_is_succeeded() {
    let folder = tempfile::TempDir::new().unwrap();
    let wasm = trapping(&tools::wasm().unwrap(), folder.path());
    let mut scene = Scene::set(Different { wasm: Some(wasm), ..Different::default() }).await;
    // Either worker may be the leader.
    for crashing in [0, 1] {
        let victim = scene.token().await;
        scene.admitted(&victim).await;
        let before = scene.proxy.seen().objects;
        scene.proxy.set(Fault::Held);
        scene.revoke(&victim).await;
        eventually("an object is requested", async || {
            anyhow::ensure!(scene.proxy.seen().objects > before, "none");
            Ok(())
        })
        .await;
        scene.workers[crashing].send(trap(&victim)).await.unwrap().expect(503).unwrap();
        scene.proxy.set(Fault::None);
        let admin = scene.admin.clone();
        scene.admitted(&admin).await;
        scene.refused(&victim).await;
    }
    let reloaded = scene.envoy.stats("^wasm.keystile.vm_reload_success$").await.unwrap();
    assert_eq!(reloaded.values().sum::<u64>(), 2);
}
