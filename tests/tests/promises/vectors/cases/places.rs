//! Where credentials are: headers, cookies, queries, Basic, protocols of WebSockets.

use super::super::keys::{ApiKey, Key, claims, token};
use super::super::suite::{Suite, With as _, bearer, request};
use serde_json::json;
use token::api_key::Kind;
use token::base64url;

pub(super) fn add(suite: &mut Suite) {
    let good = token(Key::EdDsa, &claims(json!({})));
    let other = token(Key::EdDsa, &claims(json!({ "jti": "2" })));
    let mut group = suite.group(
        "places",
        json!({
            "credentials": [
                { "header": "authorization", "scheme": "Bearer" },
                { "header": "x-token", "prefix": "t=" },
                { "cookie": "session" },
                { "query": "access_token" },
            ],
        }),
    );
    let cookie = |value: &str| request("GET /orders").with("cookie", value);
    let query = |query: &str| request(&format!("GET /orders?{query}"));
    group.admits("prefix in a header", request("GET /orders").with("x-token", format!("t={good}")));
    group.admits("cookie", cookie(&format!("session={good}")));
    group.admits("cookie between others", cookie(&format!("theme=dark; session={good}; lang=en")));
    group.admits("cookie in quotes", cookie(&format!("session=\"{good}\"; lang=en")));
    group.admits(
        "cookie in one of two headers",
        cookie("theme=dark").with("cookie", format!("session={good}")),
    );
    group.admits("query", query(&format!("access_token={good}")));
    group.admits("query between others", query(&format!("a=1&access_token={good}&b=2")));
    group.admits(
        "another scheme beside a cookie",
        cookie(&format!("session={good}")).with("authorization", "Basic YTpi"),
    );
    group.admits("other cookies beside a token", bearer(&good).with("cookie", "theme=dark"));
    group.refuses("empty cookie", "credential_missing", cookie("session="));
    group.refuses(
        "value without the prefix",
        "credential_missing",
        request("GET /orders").with("x-token", good.as_str()),
    );
    let ambiguous = "credential_ambiguous";
    // Envoy joins several headers `authorization` with commas, but not others.
    let twice =
        request("GET /orders").with("x-token", format!("t={good}")).with("x-token", format!("t={other}"));
    group.refuses("two headers", ambiguous, twice);
    group.refuses("cookie and token", ambiguous, bearer(&good).with("cookie", format!("session={other}")));
    group.refuses("query and token", ambiguous, query(&format!("access_token={good}")).bearer(&good));
    group.refuses("two cookies", ambiguous, cookie(&format!("session={good}; session={other}")));
    group.refuses("cookie with a name in upper case", ambiguous, cookie(&format!("Session={good}")));
    group.refuses("cookie after a comma", ambiguous, cookie(&format!("a=1, session={good}")));
    group.refuses("cookie after a space", ambiguous, cookie(&format!("a=1 session={good}")));
    group.refuses("cookie with an encoded name", ambiguous, cookie(&format!("%73ession={good}")));
    group.refuses("two parameters", ambiguous, query(&format!("access_token={good}&access_token={other}")));
    group.refuses("parameter after a semicolon", ambiguous, query(&format!("a=1;access_token={good}")));
    group.refuses("parameter as PHP reads it", ambiguous, query(&format!("access.token={good}")));
    group.refuses("parameter that is an array", ambiguous, query(&format!("access_token[]={good}")));
    group.refuses(
        "cookie with an encoded value",
        "token_not_canonical",
        cookie(&format!("session={}", encoded(&good))),
    );
    group.refuses(
        "encoded parameter",
        "token_not_canonical",
        query(&format!("access_token={}", encoded(&good))),
    );

    let mut group = suite.group(
        "prefixes in cookies and queries",
        json!({
            "credentials": [{ "cookie": "session", "scheme": "Bearer" }, { "query": "token", "prefix": "Bearer " }],
        }),
    );
    for value in [
        format!("Bearer {good}"),
        format!("\"Bearer {good}\""),
        format!("Bearer%20{good}"),
        format!("Bearer+{good}"),
        format!("%22bearer%20{good}%22"),
    ] {
        let name = format!("cookie {}", value.replace(&good, "TOKEN"));
        group.admits(&name, cookie(&format!("session={value}; lang=en")));
    }
    group.admits("query Bearer%20TOKEN", query(&format!("token=Bearer%20{good}&a=1")));
    group.admits("query Bearer+TOKEN", query(&format!("token=Bearer+{good}")));
    group.refuses("cookie without the scheme", "credential_missing", cookie(&format!("session={good}")));
    group.refuses(
        "one of two cookies has the scheme",
        ambiguous,
        cookie(&format!("session={other}; session=Bearer {good}")),
    );

    add_basic(suite, &good);
    add_protocols(suite, &good);
}

/// Returns the token with its first character percent-encoded.
fn encoded(token: &str) -> String {
    format!("%{:02X}{}", token.as_bytes()[0], &token[1..])
}

fn add_basic(suite: &mut Suite, good: &str) {
    let mut group = suite.group(
        "Basic",
        json!({ "credentials": [{ "header": "authorization", "scheme": "Basic" }], "api_keys": {} }),
    );
    let key = ApiKey::new(Kind::Signed, 20, "").mint();
    let basic =
        |text: &str| request("GET /orders").with("authorization", format!("Basic {}", standard_base64(text)));
    group.admits("API key as user name", basic(&format!("{key}:")));
    group.admits("API key as password", basic(&format!("anyone:{key}")));
    group.admits("token as password", basic(&format!("anyone:{good}")));
    group.refuses("no colon", "credential_ambiguous", basic(&key));
    group.refuses(
        "without padding",
        "credential_ambiguous",
        request("GET /orders").with("authorization", "Basic a2V5Og"),
    );
    group.refuses("neither name nor password", "credential_missing", basic(":"));
    group.refuses("password is no credential", "token_malformed", basic("anyone:secret"));
    group.refuses("no credential", "credential_missing", request("GET /orders"));

    let mut group = suite.group(
        "Basic with the user name",
        json!({
            "credentials": [{ "header": "authorization", "scheme": "Basic", "encoding": "basic_username" }],
            "api_keys": {},
        }),
    );
    group.admits("API key and any password", basic(&format!("{key}:x")));
    group.refuses("API key as password", "token_malformed", basic(&format!("x:{key}")));
}

/// Returns the base64 of RFC 4648 section 4, with padding.
fn standard_base64(text: &str) -> String {
    let mut encoded = base64url::encode(text.as_bytes()).replace('-', "+").replace('_', "/");
    encoded.extend(std::iter::repeat_n('=', (4 - encoded.len() % 4) % 4));
    encoded
}

fn add_protocols(suite: &mut Suite, good: &str) {
    let mut group = suite.group(
        "WebSocket protocols",
        json!({
            "credentials": [
                { "header": "sec-websocket-protocol", "prefix": "app-token." },
                { "header": "sec-websocket-protocol", "prefix": "base64url.bearer.", "encoding": "base64url", "name": "encoded" },
            ],
        }),
    );
    let protocols = |value: &str| request("GET /socket").with("sec-websocket-protocol", value);
    let in_base64url = base64url::encode(good.as_bytes());
    group.admits("after another protocol", protocols(&format!("app-v1, app-token.{good}")));
    group.admits("before another protocol", protocols(&format!("app-token.{good}, app-v1")));
    group.admits(
        "in a second header",
        protocols("app-v1").with("sec-websocket-protocol", format!("app-token.{good}")),
    );
    group.admits(
        "base64url, as for Kubernetes",
        protocols(&format!("v4.channel, base64url.bearer.{in_base64url}")),
    );
    group.refuses("no credential", "credential_missing", protocols("app-v1, app-v2"));
    group.refuses("two", "credential_ambiguous", protocols(&format!("app-token.{good}, app-token.{good}")));
    group.refuses(
        "base64url with padding",
        "credential_ambiguous",
        protocols(&format!("base64url.bearer.{in_base64url}=, v4")),
    );
}
