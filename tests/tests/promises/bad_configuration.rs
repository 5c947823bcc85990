//! An invalid configuration is refused, and the log contains the path of the error.

use bundle::builder::RootKey;
use harness::Scratch;
use harness::envoy::Settings;
use serde_json::{Value, json};

#[test]
fn invalid_configuration_is_rejected_by_path() {
    let scratch = Scratch::new().unwrap();
    let validate = |configuration: Value| {
        Settings::for_scratch(&scratch, configuration).unwrap().validate(scratch.folder())
    };
    validate(valid_configuration()).expect("the configuration that the cases change is valid");

    let cases: [(&str, Spoil); 12] = [
        ("root_keys", |it| remove(it, "root_keys")),
        ("audience", |it| remove(it, "audience")),
        ("audiance", |it| it["audiance"] = json!("default")),
        ("root_keys[0]", |it| it["root_keys"][0] = json!("AAAA")),
        ("root_keys", |it| it["root_keys"] = json!([])),
        ("control_plane.cluster", |it| it["control_plane"]["cluster"] = json!(7)),
        ("control_plane.waitseconds", |it| it["control_plane"]["waitseconds"] = json!(7)),
        ("tokens.leeway_seconds", |it| it["tokens"]["leeway_seconds"] = json!(-1)),
        ("tokens.audiences", |it| it["tokens"]["audiences"] = json!([])),
        ("credentials[1].header", |it| it["credentials"][1]["header"] = json!("not a name")),
        ("outage_grace_seconds", |it| it["outage_grace_seconds"] = json!("15m")),
        ("identity_prefix", |it| it["identity_prefix"] = json!("")),
    ];
    for (path, spoil) in cases {
        let mut configuration = valid_configuration();
        spoil(&mut configuration);
        let error = format!("{:#}", validate(configuration).expect_err(path));
        assert!(error.contains(path), "`{path}` is not named in: {error}");
        assert!(!error.contains("ks_edge_"), "a credential in the log: {error}");
    }
    for (what, configuration) in [("an array", json!([])), ("null", Value::Null)] {
        validate(configuration).expect_err(what);
    }
}

fn valid_configuration() -> Value {
    json!({
        "audience": "default",
        "root_keys": [RootKey::new(&[1; 32]).public_key().to_string()],
        "control_plane": { "cluster": "keystile", "authority": "keystile", "credential": "ks_edge_any", "wait_seconds": 15 },
        "allow_inline_secrets": true,
        "tokens": { "issuer": "https://keystile.test", "audiences": ["api"], "leeway_seconds": 5 },
        "credentials": [{ "header": "authorization", "scheme": "Bearer" }, { "header": "x-api-token" }],
        "identity_prefix": "x-keystile-",
        "strip_credential": true,
        "outage_grace_seconds": 900,
        "realm": "keystile",
    })
}

fn remove(from: &mut Value, name: &str) {
    from.as_object_mut().unwrap().remove(name);
}

type Spoil = fn(&mut Value);
