//! API keys, and pairs of API key and token.

use super::super::keys::{ApiKey, ISSUED, Key, claims, token, with_checksum};
use super::super::suite::{Suite, With as _, bearer, request};
use serde_json::json;
use token::api_key::Kind;

const ALICE: &str = "OP0000000001/alice";

pub(super) fn add(suite: &mut Suite) {
    let mut group = suite.group(
        "api keys",
        json!({
            "credentials": [{ "header": "authorization", "scheme": "Bearer" }, { "header": "x-api-key" }],
            "api_keys": { "prefixes": ["ks_live_", "sk_live_"] },
        }),
    );
    let in_header = |key: &str| request("GET /orders").with("x-api-key", key);
    let format1 = ApiKey::new(Kind::Format1, 1, ALICE).mint();
    let format1_without_user = ApiKey::new(Kind::Format1, 2, "").mint();
    let root = ApiKey::new(Kind::Signed, 3, "").mint();
    let alice = ApiKey::new(Kind::Signed, 4, "alice").mint();
    let short = ApiKey::new(Kind::Short, 5, "alice").mint();
    let other_prefix = ApiKey { prefix: "sk_live_", ..ApiKey::new(Kind::Signed, 6, "") }.mint();
    let endless = ApiKey { expires_at: None, ..ApiKey::new(Kind::Signed, 7, "") }.mint();
    let expired =
        |kind, username| ApiKey { expires_at: Some(ISSUED + 60), ..ApiKey::new(kind, 8, username) }.mint();

    group.admits("format 1", bearer(&format1).with("x-username", ALICE));
    group.admits("format 1 without username", in_header(&format1_without_user));
    group.admits("format 2 of a root user", in_header(&root));
    group.admits("format 2 of a root user as bearer token", bearer(&root));
    group.admits("format 2 of a user", in_header(&alice).with("x-username", "alice"));
    group.admits(
        "format 2 of a user with the operator in the username",
        in_header(&ApiKey::new(Kind::Signed, 9, ALICE).mint()).with("x-username", ALICE),
    );
    group.admits("format 2 without expiry", in_header(&endless));
    group.admits("short form", in_header(&short).with("x-username", "alice"));
    group.admits("another prefix", in_header(&other_prefix));
    group.admits("token in the header for API keys", in_header(&token(Key::EdDsa, &claims(json!({})))));
    group.admits(
        "username beside a token is not verified",
        bearer(&token(Key::EdDsa, &claims(json!({})))).with("x-username", "anyone"),
    );

    group.refuses(
        "format 1 with another username",
        "api_key_tag_invalid",
        in_header(&format1).with("x-username", "OP0000000001/bob"),
    );
    group.refuses("format 1 without its username", "api_key_tag_invalid", in_header(&format1));
    group.refuses(
        "format 1 with a username that it does not have",
        "api_key_tag_invalid",
        in_header(&format1_without_user).with("x-username", ALICE),
    );
    group.refuses(
        "short form with another username",
        "api_key_tag_invalid",
        in_header(&short).with("x-username", "bob"),
    );
    group.refuses(
        "format 2 with another username",
        "api_key_signature_invalid",
        in_header(&alice).with("x-username", "bob"),
    );
    group.refuses("format 2 without its username", "api_key_signature_invalid", in_header(&alice));
    group.refuses(
        "format 2 with a user of another operator",
        "api_key_signature_invalid",
        in_header(&alice).with("x-username", "OP0000000002/alice"),
    );
    group.refuses("changed character", "api_key_checksum_wrong", in_header(&with_other_digit(&root, 20)));
    let changed = with_new_checksum(&with_other_digit(&root, 20));
    group.refuses("changed character with its checksum", "api_key_signature_invalid", in_header(&changed));
    group.refuses("one character less", "api_key_length_wrong", in_header(&root[..root.len() - 1]));
    group.refuses("prefix alone", "api_key_length_wrong", in_header("ks_live_"));
    group.refuses("hyphen", "api_key_alphabet_wrong", in_header(&root.replacen(&root[20..21], "-", 1)));
    group.refuses(
        "number beyond the format",
        "api_key_not_canonical",
        in_header(&with_checksum(&format!("ks_live_{}", "z".repeat(39)))),
    );
    group.refuses(
        "number without a format",
        "api_key_format_unknown",
        in_header(&with_checksum(&format!("ks_live_{}", "0".repeat(39)))),
    );
    let generation = ApiKey { generation: 7, ..ApiKey::new(Kind::Signed, 10, "") }.mint();
    group.refuses("unknown generation", "api_key_generation_unknown", in_header(&generation));
    let generation = ApiKey { generation: 3, ..ApiKey::new(Kind::Signed, 11, "alice") }.mint();
    group.refuses(
        "generation of the short form",
        "api_key_signature_invalid",
        in_header(&generation).with("x-username", "alice"),
    );
    group.refuses("expired, format 2", "api_key_expired", in_header(&expired(Kind::Signed, "")));
    group.refuses(
        "expired, short form",
        "api_key_expired",
        in_header(&expired(Kind::Short, "alice")).with("x-username", "alice"),
    );
    group.refuses("unknown prefix", "token_malformed", in_header(&root.replacen("ks_", "xs_", 1)));
    group.refuses("prefix exchanged", "api_key_checksum_wrong", in_header(&root.replacen("ks_", "sk_", 1)));
    let exchanged = with_new_checksum(&root.replacen("ks_", "sk_", 1));
    group.refuses("prefix exchanged with its checksum", "api_key_signature_invalid", in_header(&exchanged));
    group.refuses(
        "two usernames",
        "credential_ambiguous",
        in_header(&alice).with("x-username", "alice").with("x-username", "bob"),
    );
    group.refuses(
        "username with an underscore",
        "credential_ambiguous",
        in_header(&alice).with("x_username", "alice"),
    );
    group.refuses(
        "API key and token",
        "credential_ambiguous",
        bearer(&token(Key::EdDsa, &claims(json!({})))).with("x-api-key", root.as_str()),
    );
    group.refuses(
        "header with an underscore",
        "credential_ambiguous",
        request("GET /orders").with("x_api_key", root.as_str()),
    );
    group.refuses("joined by a comma", "credential_ambiguous", in_header(&format!("{root},{root}")));
    group.refuses("empty", "credential_missing", in_header(""));

    let mut group =
        suite.group("api keys are not accepted", json!({ "credentials": [{ "header": "x-api-key" }] }));
    group.refuses("format 2", "token_malformed", in_header(&root));

    add_pairs(suite);
}

fn add_pairs(suite: &mut Suite) {
    let mut group = suite.group(
        "pairs",
        json!({ "credentials": [{ "header": "x-soracom-token", "pair": "x-soracom-api-key" }] }),
    );
    let with_session = token(Key::EdDsa, &claims(json!({ "sid": "api-1" })));
    let without_session = token(Key::EdDsa, &claims(json!({})));
    let pair = |token: &str| request("GET /v1/sims").with("x-soracom-token", token);
    group.admits("both", pair(&with_session).with("x-soracom-api-key", "api-1"));
    group.refuses(
        "another API key",
        "api_key_mismatch",
        pair(&with_session).with("x-soracom-api-key", "api-2"),
    );
    group.refuses("token alone", "api_key_mismatch", pair(&with_session));
    group.refuses(
        "API key alone",
        "credential_missing",
        request("GET /v1/sims").with("x-soracom-api-key", "api-1"),
    );
    group.refuses(
        "token without a session",
        "api_key_mismatch",
        pair(&without_session).with("x-soracom-api-key", "api-1"),
    );
    group.refuses(
        "two API keys",
        "credential_ambiguous",
        pair(&with_session).with("x-soracom-api-key", "api-1").with("x-soracom-api-key", "api-1"),
    );
    group.refuses(
        "API key under a similar name",
        "credential_ambiguous",
        pair(&with_session).with("x_soracom_api_key", "api-1"),
    );
}

fn with_new_checksum(key: &str) -> String {
    with_checksum(&key[..key.len() - 6])
}

fn with_other_digit(key: &str, at: usize) -> String {
    let other = if &key[at..=at] == "0" { "1" } else { "0" };
    [&key[..at], other, &key[at + 1..]].concat()
}
