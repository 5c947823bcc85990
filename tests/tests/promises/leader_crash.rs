//! If the worker that fetches crashes during a fetch, the version still reaches every worker.

use crate::filter_crash::{trap, trapping};
use crate::fixture::{Fixture, Overrides};
use harness::{Fault, eventually, tools};

#[tokio::test]
async fn crashed_leader_is_replaced_during_fetch() {
    let folder = tempfile::TempDir::new().unwrap();
    let wasm = trapping(&tools::wasm().unwrap(), folder.path());
    let mut fixture = Fixture::start(Overrides { wasm: Some(wasm), ..Overrides::default() }).await;
    // Either worker may be the leader.
    for crashing in [0, 1] {
        let victim = fixture.token().await;
        fixture.wait_admitted(&victim).await;
        let before = fixture.proxy.seen().objects;
        fixture.proxy.set(Fault::Held);
        fixture.revoke(&victim).await;
        eventually("an object is requested", async || {
            anyhow::ensure!(fixture.proxy.seen().objects > before, "none");
            Ok(())
        })
        .await;
        fixture.workers[crashing].send(trap(&victim)).await.unwrap().expect(503).unwrap();
        fixture.proxy.set(Fault::None);
        let admin = fixture.admin.clone();
        fixture.wait_admitted(&admin).await;
        fixture.wait_refused(&victim).await;
    }
    let reloaded = fixture.envoy.stats("^wasm.keystile.vm_reload_success$").await.unwrap();
    assert_eq!(reloaded.values().sum::<u64>(), 2);
}
