//! Filter state contains the subject and the reason of a refusal, for access logs and other filters.

use harness::fake_control_plane::FakeControlPlane;
use harness::{client, eventually};
use serde_json::json;

#[tokio::test]
async fn access_log_names_subject_and_reason() {
    let control_plane = FakeControlPlane::start_with(|settings| {
        settings.plugin_configuration["filter_state"] = json!(["reason", "key_id", "subject", "operator"]);
    })
    .await;
    let mut worker = control_plane.workers().await.remove(0);
    worker.get(&control_plane.token()).await.unwrap().expect(200).unwrap();
    worker.send(client::request_without_credential()).await.unwrap().expect(401).unwrap();
    for message in [
        "200 via_upstream subject=OP0000000001 reason=-",
        "401 keystile_credential_missing subject=- reason=credential_missing",
    ] {
        eventually(message, async || {
            anyhow::ensure!(
                control_plane.envoy.log().contains(message),
                "the access log does not contain `{message}`"
            );
            Ok(())
        })
        .await;
    }
}

/// An RBAC filter behind Keystile decides by the subject that Keystile has verified.
#[tokio::test]
async fn envoy_rbac_reads_subject() {
    let control_plane = FakeControlPlane::start_with(|settings| {
        settings.plugin_configuration["filter_state"] = json!(["subject"]);
        let key = format!("{}keystile.subject", settings.filter_host.filter_state_prefix());
        let subject =
            |exact: &str| json!({ "filter_state": { "key": key, "string_match": { "exact": exact } } });
        settings.filters_behind = vec![json!({
            "name": "envoy.filters.http.rbac",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
                "rules": { "policies": { "known": {
                    "permissions": [{ "any": true }],
                    "principals": [subject("OP0000000001"), subject("OP0000000001/alice")],
                } } },
            },
        })];
    })
    .await;
    for (sub, status) in
        [("OP0000000001", 200), ("OP0000000001/alice", 200), ("OP0000000001/bob", 403), ("OP0000000002", 403)]
    {
        let operator = token::Operator { operator_id: sub[..12].into() };
        let token =
            control_plane.mint(&token::Claims { sub: sub.into(), operator, ..control_plane.claims() });
        let answer =
            client::get(control_plane.envoy.address(), &token).await.unwrap().expect(status).unwrap();
        // The text is RBAC's: Keystile has admitted the request.
        assert_eq!(answer.text() == "RBAC: access denied", status == 403, "{sub}: {}", answer.text());
    }
}

/// Envoy's rate limits behind Keystile count by the verified subject, not by a header of the client.
#[tokio::test]
async fn envoy_rate_limits_count_by_subject() {
    let control_plane = FakeControlPlane::start_with(|settings| {
        settings.plugin_configuration["filter_state"] = json!(["subject"]);
        let bucket =
            |tokens: u32| json!({ "max_tokens": tokens, "tokens_per_fill": tokens, "fill_interval": "3600s" });
        let always = json!({ "default_value": { "numerator": 100 } });
        settings.filters_behind = vec![json!({
            "name": "envoy.filters.http.local_ratelimit",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
                "stat_prefix": "limits",
                "filter_enabled": always,
                "filter_enforced": always,
                "token_bucket": bucket(1000),
                "rate_limits": [{ "actions": [{ "extension": {
                    "name": "envoy.rate_limit_descriptors.expr",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.rate_limit_descriptors.expr.v3.Descriptor",
                        "descriptor_key": "subject",
                        "text": format!("filter_state['{}keystile.subject']", settings.filter_host.filter_state_prefix()),
                    },
                } }] }],
                // Each value has its own bucket.
                "max_dynamic_descriptors": 100,
                "descriptors": [{ "entries": [{ "key": "subject" }], "token_bucket": bucket(2) }],
            },
        })];
    })
    .await;
    for sub in ["OP0000000001/alice", "OP0000000001/bob"] {
        for status in [200, 200, 429] {
            // The token is a new one each time, because the limit is per subject.
            let operator = token::Operator { operator_id: "OP0000000001".into() };
            let token =
                control_plane.mint(&token::Claims { sub: sub.into(), operator, ..control_plane.claims() });
            client::get(control_plane.envoy.address(), &token).await.unwrap().expect(status).unwrap();
        }
    }
}
