//! The JSON Schema of the plugin configuration is current, and every documented example matches it.

use std::{env, fs};

use boon::{Compiler, Draft, SchemaIndex, Schemas};
use serde_json::{Value, json};
use verdict::Policy;

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/policy.schema.json");

/// `KEYSTILE_UPDATE=1` rewrites the file.
#[test]
fn committed_schema_is_current() {
    let schema = format!("{}\n", serde_json::to_string_pretty(&Policy::schema()).unwrap());
    if env::var_os("KEYSTILE_UPDATE").is_some() {
        fs::write(PATH, &schema).unwrap();
    }
    let committed = fs::read_to_string(PATH).unwrap_or_default();
    assert!(committed == schema, "{PATH} is not current: run this test with KEYSTILE_UPDATE=1");
}

struct Schema {
    schemas: Schemas,
    index: SchemaIndex,
}

impl Schema {
    fn new() -> Self {
        let mut compiler = Compiler::new();
        compiler.set_default_draft(Draft::V2020_12);
        compiler.add_resource("policy.schema.json", serde_json::to_value(Policy::schema()).unwrap()).unwrap();
        let mut schemas = Schemas::new();
        let index = compiler.compile("policy.schema.json", &mut schemas).unwrap();
        Self { schemas, index }
    }

    fn check(&self, policy: &Value) -> Result<(), String> {
        self.schemas.validate(policy, self.index).map_err(|error| format!("{error:#}\n{policy:#}"))
    }
}

/// Returns the required members, which examples omit.
fn required() -> Value {
    json!({
        "audience": "default",
        "root_keys": ["11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"],
        "control_plane": { "cluster": "keystile" },
        "tokens": { "issuer": "https://keystile.local", "audiences": ["api"] },
    })
}

/// Returns the JSON that starts with `start` in a page.
fn example(page: &str, start: &str) -> Value {
    let at = page.find(start).unwrap_or_else(|| panic!("no {start:?}"));
    let at = at + start.find('{').unwrap();
    serde_json::Deserializer::from_str(&page[at..]).into_iter::<Value>().next().unwrap().unwrap()
}

#[test]
fn examples_match_schema_and_parser() {
    let schema = Schema::new();
    let examples = [
        example(include_str!("../../../docs/filter-config.md"), "{ \"audience\""),
        example(include_str!("../../POLICY.md"), "```json\n{"),
        example(include_str!("../../../envoy/COMPARISON.md"), "```json\n{"),
    ];
    for example in examples {
        let mut policy = required();
        policy.as_object_mut().unwrap().extend(example.as_object().unwrap().clone());
        // The example of a real edge has a real key.
        policy["root_keys"] = required()["root_keys"].clone();
        schema.check(&policy).unwrap();
        let environment = b"KEYSTILE_ASSERTION=AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8\0".to_vec();
        let environment = verdict::Environment::from_block(environment);
        Policy::from_json_with_env(policy.to_string().as_bytes(), &environment).unwrap();
    }
}

#[test]
fn schema_refuses_wrong_shapes() {
    let schema = Schema::new();
    let refused = |change: Value| {
        let mut policy = required();
        policy.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        assert!(Policy::from_json(policy.to_string().as_bytes()).is_err(), "{change}");
        assert!(schema.check(&policy).is_err(), "{change}");
    };
    schema.check(&required()).unwrap();
    for change in [
        json!({ "audiance": "default" }),
        json!({ "root_keys": [] }),
        json!({ "mode": "watch" }),
        json!({ "cache_entries": 65_537 }),
        json!({ "outage_grace_seconds": -1 }),
        json!({ "realm": null }),
        json!({ "bundle": null }),
        json!({ "unmatched": null }),
        json!({ "rules": [{ "path": null }] }),
        json!({ "max_manifest_lifetime_seconds": 0 }),
        json!({ "control_plane": { "cluster": "" } }),
        json!({ "credentials": [{ "header": "X-Api-Key" }] }),
        json!({ "rules": [{ "path": "/a", "stale": "never" }] }),
        json!({ "rules": [{ "path": "/a", "claims": { "a": null } }] }),
        json!({ "rules": [{ "path": "/a", "pth": 1 }] }),
        json!({ "identity": { "headers": { "unknown": "x-a" } } }),
        json!({ "answers": { "denied_status": 401 } }),
        json!({ "client_address": { "header": "x", "trusted_hops": 0 } }),
    ] {
        refused(change);
    }
}
