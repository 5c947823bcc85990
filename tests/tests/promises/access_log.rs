//! Access logs, and every other filter that reads filter state, learn who asked and why it was refused.

use harness::forge::Forge;
use harness::{client, eventually};
use serde_json::json;

#[tokio::test]
async fn names_the_subject_and_the_reason() {
    let forge = Forge::with(|settings| {
        settings.plugin_configuration["filter_state"] = json!(["reason", "key_id", "subject", "operator"]);
    })
    .await;
    let mut worker = forge.workers().await.remove(0);
    worker.get(&forge.token()).await.unwrap().expect(200).unwrap();
    worker.send(client::without_credential()).await.unwrap().expect(401).unwrap();
    for told in [
        "200 via_upstream subject=OP0000000001 reason=-",
        "401 keystile_credential_missing subject=- reason=credential_missing",
    ] {
        eventually(told, async || {
            anyhow::ensure!(forge.envoy.log().contains(told), "the access log does not say it");
            Ok(())
        })
        .await;
    }
}
