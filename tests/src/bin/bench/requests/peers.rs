//! The filters that Keystile is compared with, as Envoy's configuration.

use super::issuer::Issuer;
use anyhow::Result;
use serde_json::{Value, json};
use std::path::Path;

/// The headers of claims that do as much as Keystile does for these tokens: subject, operator and fingerprint.
pub(super) const CLAIMS: [(&str, &str); 3] = [
    ("x-keystile-subject", "sub"),
    ("x-keystile-operator", "operator.operatorId"),
    ("x-keystile-jti", "jti"),
];

/// Returns `jwt_authn`, which removes the token. `cached` is the number of verified tokens that it caches, and `claims` are
/// the headers that the upstream gets.
pub(super) fn jwt_authn(issuers: &[Issuer], cached: Option<usize>, claims: &[(&str, &str)]) -> Value {
    let keys: Vec<&Value> = issuers.iter().map(|issuer| &issuer.jwk).collect();
    // It does not check `iss`, because it must accept the tokens of two issuers: one check less than Keystile.
    let mut provider = json!({
        "audiences": ["api"],
        "local_jwks": { "inline_string": json!({ "keys": keys }).to_string() },
    });
    if !claims.is_empty() {
        let claims =
            claims.iter().map(|(header, claim)| json!({ "header_name": header, "claim_name": claim }));
        provider["claim_to_headers"] = claims.collect();
    }
    if let Some(tokens) = cached {
        provider["jwt_cache_config"] = json!({ "jwt_cache_size": tokens });
    }
    filter(
        "jwt_authn",
        "jwt_authn.v3.JwtAuthentication",
        json!({
            "providers": { "keystile": provider },
            "rules": [{ "match": { "prefix": "/" }, "requires": { "provider_name": "keystile" } }],
        }),
    )
}

pub(super) fn api_key_auth(keys: &[String]) -> Value {
    let credentials: Vec<Value> = keys
        .iter()
        .zip(0..)
        .map(|(key, number)| json!({ "key": key, "client": format!("client-{number}") }))
        .collect();
    let settings = json!({ "credentials": credentials, "key_sources": [{ "header": "x-api-key" }] });
    filter("api_key_auth", "api_key_auth.v3.ApiKeyAuth", settings)
}

/// Returns a Lua filter that only reads one header.
pub(super) fn lua() -> Value {
    let source = "function envoy_on_request(handle) local header = handle:headers():get('authorization') end";
    filter("lua", "lua.v3.Lua", json!({ "default_source_code": { "inline_string": source } }))
}

/// Returns `ext_authz` with an HTTP service, at the address of Keystile's control plane.
pub(super) fn ext_authz() -> Value {
    let server = json!({ "uri": "http://authorizer", "cluster": "keystile", "timeout": "5s" });
    filter("ext_authz", "ext_authz.v3.ExtAuthz", json!({ "http_service": { "server_uri": server } }))
}

/// Writes a module with the exports that Envoy requires, and a callback for every request that returns at once.
pub(super) fn empty_wasm(folder: &Path) -> Result<Value> {
    wasm(folder, "empty", include_str!("empty.wat"))
}

/// Writes a module that edits the headers as Keystile does, and does nothing else.
pub(super) fn headers_wasm(folder: &Path) -> Result<Value> {
    wasm(folder, "headers", include_str!("headers.wat"))
}

fn wasm(folder: &Path, name: &str, text: &str) -> Result<Value> {
    let path = folder.join(name).with_extension("wasm");
    std::fs::write(&path, wat::parse_str(text)?)?;
    let code = json!({ "local": { "filename": path } });
    let vm = json!({ "vm_id": name, "runtime": "envoy.wasm.runtime.v8", "code": code });
    Ok(filter("wasm", "wasm.v3.Wasm", json!({ "config": { "name": name, "vm_config": vm } })))
}

fn filter(name: &str, kind: &str, mut settings: Value) -> Value {
    settings["@type"] = json!(format!("type.googleapis.com/envoy.extensions.filters.http.{kind}"));
    json!({ "name": format!("envoy.filters.http.{name}"), "typed_config": settings })
}
