//! Rules search the locations that they name, the text around a credential can
//! have several spellings, and a public request keeps its credentials.

use crate::upgrades;
use harness::client::{connect, send};
use harness::fake_control_plane::FakeControlPlane;
use harness::{Envoy, Response};
use hyper::Request;
use serde_json::{Value, json};
use token::api_key::{ApiKeyFields, Kind, MintingKey, Prefix};
use token::{Claims, Fingerprint, base64url};

const PROTOCOLS: &str = "sec-websocket-protocol";
const KUBERNETES: &str = "base64url.bearer.authorization.k8s.io.";

struct Edge {
    control_plane: FakeControlPlane,
    api_key: String,
}

/// The status and the code of a response, and the request that the upstream received.
struct Answer {
    status: u16,
    code: String,
    detail: String,
    got: Option<Value>,
}

impl Edge {
    async fn start() -> Self {
        let mut control_plane = upgrades::control_plane(|settings| {
            settings.headers_with_underscores_action = "ALLOW";
            let members = settings.plugin_configuration.as_object_mut().unwrap();
            let Value::Object(policy) = policy() else { unreachable!() };
            members.extend(policy);
        })
        .await;
        let minting = MintingKey::new(2, Kind::Signed, &[7; 32]).unwrap();
        let fields = ApiKeyFields {
            prefix: &Prefix::default(),
            operator: "OP0000000001",
            number: 1,
            issued_at: control_plane.claims().iat,
            expires_at: None,
            random: [9; 4],
            username: "",
        };
        let api_key = minting.mint(&fields).unwrap().expose().to_owned();
        let generations = [minting.generation_key()];
        control_plane.content.set_public_keys([control_plane.signing.verifying_key()], generations).unwrap();
        control_plane.publish();
        control_plane.envoy.wait_admitting(&api_key).await.unwrap();
        Self { control_plane, api_key }
    }

    fn token(&self) -> String {
        self.control_plane.token()
    }

    fn expired(&self) -> String {
        let claims = self.control_plane.claims();
        self.control_plane.mint(&Claims { exp: Some(claims.iat - 600), iat: claims.iat - 900, ..claims })
    }

    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let request =
            headers.iter().fold(Request::get(path), |request, (name, value)| request.header(*name, *value));
        let response = send(self.control_plane.envoy.address(), request.body(String::new()).unwrap()).await;
        Answer::from(&response.unwrap())
    }

    /// Sends a request that must be refused.
    async fn refused(&self, path: &str, headers: &[(&str, &str)], code: &str) -> String {
        let answer = self.get(path, headers).await;
        assert_eq!((answer.status, &*answer.code), (401, code), "{path} {headers:?}: {}", answer.detail);
        assert!(answer.got.is_none(), "{path}: the upstream received it");
        for (_, value) in headers.iter().filter(|(_, value)| value.len() > 20) {
            assert!(!answer.detail.contains(value), "{}", answer.detail);
        }
        answer.detail
    }

    /// Sends a request that must reach the upstream, and returns it as the upstream received it.
    async fn passed(&self, path: &str, headers: &[(&str, &str)]) -> Value {
        let answer = self.get(path, headers).await;
        assert_eq!(answer.status, 200, "{path} {headers:?}: {} {}", answer.code, answer.detail);
        answer.got.unwrap()
    }

    /// Sends a request that must be admitted, and returns it as the upstream received it.
    async fn admitted(&self, path: &str, headers: &[(&str, &str)]) -> Value {
        let got = self.passed(path, headers).await;
        assert_eq!(got["headers"]["x-keystile-subject"], json!(["OP0000000001"]), "{path} {headers:?}");
        got
    }

    /// Sends a request that must pass without an identity, and returns it as the upstream received it.
    async fn anonymous(&self, path: &str, headers: &[(&str, &str)]) -> Value {
        let got = self.passed(path, headers).await;
        assert!(!got.to_string().contains("x-keystile-"), "{path} {headers:?}: {got}");
        got
    }
}

impl From<&Response> for Answer {
    fn from(response: &Response) -> Self {
        let got = response.headers.get("x-got").map(|got| base64url::decode(got.as_bytes()).unwrap());
        let detail = response.json().unwrap_or_default()["detail"].as_str().unwrap_or_default().to_owned();
        let got = got.map(|got| serde_json::from_slice(&got).unwrap());
        Self { status: response.status, code: response.code(), detail, got }
    }
}

fn policy() -> Value {
    json!({
        "api_keys": {},
        "credentials": [
            { "header": "authorization", "scheme": "Bearer" },
            { "header": "authorization", "scheme": "Basic", "name": "basic" },
            { "header": "x-api-key" },
            { "cookie": "session" },
            { "cookie": "wrapped", "scheme": "Bearer" },
            { "query": "access_token" },
            { "query": "jwt", "prefix": "Bearer " },
            { "header": PROTOCOLS, "prefix": "app-token." },
            { "header": PROTOCOLS, "prefix": KUBERNETES, "encoding": "base64url" },
        ],
        "rules": [
            { "path": "/public/**", "access": "public" },
            { "path": "/stripped/**", "access": "public", "strip_credential": true },
            { "path": "/header/**", "credentials": ["authorization"] },
            { "path": "/kept/**", "credentials": ["authorization"], "strip_credential": false },
            { "path": "/basic/**", "credentials": ["basic"] },
            { "path": "/optional/**", "access": "optional" },
            { "path": "/optional-header/**", "access": "optional", "credentials": ["authorization"] },
            { "path": "/remove/**", "access": "optional", "ignore_unusable_credentials": true },
            { "path": "/forward/**", "access": "optional", "ignore_unusable_credentials": true, "strip_credential": false },
            { "path": "/" },
            { "path": "/any/**" },
        ],
        "unmatched": "public",
    })
}

/// Returns the header of RFC 7617 section 2.
fn basic(username: &str, password: &str) -> String {
    let mut encoded = base64url::encode(format!("{username}:{password}").as_bytes());
    encoded.extend(std::iter::repeat_n('=', (4 - encoded.len() % 4) % 4));
    format!("Basic {}", encoded.replace('-', "+").replace('_', "/"))
}

#[tokio::test]
async fn credentials_are_where_rules_search() {
    let mut edge = Edge::start().await;
    d1_public_requests_pass_unchanged(&edge).await;
    d2_rules_search_the_locations_that_they_name(&edge).await;
    d3_a_token_in_a_list_of_protocols_is_found(&edge).await;
    d4_cookies_have_prefixes_and_quotes(&edge).await;
    d5_basic_has_an_api_key(&edge).await;
    d5_the_challenge_asks_for_basic(&edge).await;
    d6_optional_rules_ignore_what_is_not_usable(&edge).await;
    f1_messages_describe_what_was_sent(&edge).await;
    every_wrapping_has_the_same_fingerprint(&mut edge).await;
}

async fn d1_public_requests_pass_unchanged(edge: &Edge) {
    let token = edge.token();
    let bearer = format!("Bearer {token}");
    let sent = [
        ("authorization", "Bearer the-service's-own"),
        ("cookie", "session=abc; Session=def; theme=dark"),
        ("x-api-key", "one, two"),
        ("x_api_key", "three"),
        ("x-username", "bob"),
        (PROTOCOLS, "app-v1, app-token.abc"),
    ];
    for path in ["/public/x?access_token=a&Access_Token=b;c=1", "/not/in/a/rule?access_token=a"] {
        for authorization in ["Bearer the-service's-own", "Basic dXNlcjpwYXNz", &bearer] {
            let mut headers = sent;
            headers[0].1 = authorization;
            let forged = [("x-keystile-subject", "root"), ("x_keystile_subject", "root")];
            let all: Vec<_> = headers.iter().chain(&forged).copied().collect();
            let got = edge.anonymous(path, &all).await;
            assert_eq!(got["path"], path);
            for (name, value) in headers {
                assert_eq!(got["headers"][name], json!([value]), "{path}");
            }
            assert!(!got.to_string().contains("root"), "{got}");
        }
    }
    // The rule can have them removed.
    let got = edge.anonymous("/stripped/x?access_token=a&b=1", &sent).await;
    assert_eq!(got["path"], "/stripped/x?b=1");
    assert_eq!(
        (&got["headers"]["cookie"], &got["headers"][PROTOCOLS]),
        (&json!(["theme=dark"]), &json!(["app-v1"]))
    );
    for name in ["authorization", "x-api-key", "x_api_key", "x-username"] {
        assert_eq!(got["headers"].get(name), None);
    }
}

async fn d2_rules_search_the_locations_that_they_name(edge: &Edge) {
    let (token, expired) = (edge.token(), edge.expired());
    let bearer = format!("Bearer {token}");
    let stale = format!("theme=dark; session={expired}");
    for (name, value) in [
        ("cookie", "session=of-another-application"),
        ("cookie", &*stale),
        ("cookie", "session=a; session=b; Session=c"),
        ("x-api-key", "of-the-service"),
        ("x-api-key", "a, b"),
        ("x_api_key", "a"),
        (PROTOCOLS, "app-v1, app-token.a, app-token.b"),
    ] {
        for path in ["/header/x?access_token=a&Access_Token=b", "/optional-header/x?jwt=Bearer+a"] {
            let got = edge.admitted(path, &[("authorization", &bearer), (name, value)]).await;
            assert_eq!((&got["headers"][name], &got["path"]), (&json!([value]), &json!(path)));
            assert_eq!(got["headers"].get("authorization"), None, "{name}: {value}");
            edge.refused(path, &[("authorization", "Bearer a"), (name, value)], "token_malformed").await;
            let twice = [("authorization", &*bearer), (name, value), ("authorization", &bearer)];
            edge.refused(path, &twice, "credential_ambiguous").await;
        }
        edge.refused("/header/x", &[(name, value)], "credential_misplaced").await;
        let got = edge.anonymous("/optional-header/x", &[(name, value)]).await;
        assert_eq!(got["headers"][name], json!([value]));
        // The default is as strict as before.
        edge.refused("/any/x", &[("authorization", &bearer), (name, value)], "credential_ambiguous").await;
    }
    edge.refused("/header/x", &[], "credential_missing").await;
    // A source of the same header that the rule does not name.
    edge.refused("/header/x", &[("authorization", &basic(&edge.api_key, ""))], "credential_misplaced").await;
    let got = edge.admitted("/kept/x", &[("authorization", &bearer), ("x-api-key", "a")]).await;
    assert_eq!(
        (&got["headers"]["authorization"], &got["headers"]["x-api-key"]),
        (&json!([bearer]), &json!(["a"]))
    );
}

async fn d3_a_token_in_a_list_of_protocols_is_found(edge: &Edge) {
    let token = edge.token();
    let ours = format!("app-token.{token}");
    let encoded = format!("{KUBERNETES}{}", base64url::encode(token.as_bytes()));
    let address = edge.control_plane.envoy.address();
    let upgrade = async |lines: &[&str]| {
        let mut request = upgrades::send_upgrade(Request::new(String::new()));
        *request.uri_mut() = "/any/x".parse().unwrap();
        for line in lines {
            request.headers_mut().append(PROTOCOLS, line.parse().unwrap());
        }
        send(address, request).await.unwrap()
    };
    for (lines, left) in [
        (&[&*format!("app-v1, {ours}")][..], &["app-v1"][..]),
        (&[&format!("{ours},app-v1")], &["app-v1"]),
        (&[&format!("app-v1,{ours}, app-v2")], &["app-v1, app-v2"]),
        (&["app-v1", &ours], &["app-v1"]),
        (&[&ours, "app-v1, app-v2"], &["app-v1, app-v2"]),
        (&["app-v1", &format!("{ours}, app-v2")], &["app-v1", "app-v2"]),
        (&[&format!("v4.channel.k8s.io, {encoded}")], &["v4.channel.k8s.io"]),
    ] {
        let response = upgrade(lines).await.expect(101).unwrap();
        let got = upgrades::echo(&response);
        assert_eq!(got["headers"][PROTOCOLS], json!(left), "{lines:?}");
        assert_eq!(got["headers"]["x-keystile-subject"], json!(["OP0000000001"]), "{lines:?}");
        assert!(!got.to_string().contains(&token));
        // The client offered the protocol that it gets.
        let accepted = response.headers[PROTOCOLS].to_str().unwrap();
        assert_eq!(Some(accepted), left[0].split(", ").next(), "{lines:?}");
        let joined = lines.join(", ");
        let extended = connect(address, Some("websocket"), "/any/x", &[(PROTOCOLS, &joined)]).await.unwrap();
        let got = upgrades::echo(&extended.expect(200).unwrap());
        assert_eq!(got["headers"]["x-keystile-subject"], json!(["OP0000000001"]), "{joined}");
    }
    for (lines, code) in [
        (&[&*format!("{ours}, {ours}")][..], "credential_ambiguous"),
        (&[&ours, &ours], "credential_ambiguous"),
        (&[&format!("{ours}, {encoded}")], "credential_ambiguous"),
        (&[&format!("{encoded}=, app-v1")], "credential_ambiguous"),
        (&["app-v1, app-v2"], "credential_missing"),
        (&[&format!("app-v1, app-token.{}=", token)], "token_not_canonical"),
    ] {
        assert_eq!(upgrade(lines).await.expect(401).unwrap().code(), code, "{lines:?}");
    }
}

async fn d4_cookies_have_prefixes_and_quotes(edge: &Edge) {
    let token = edge.token();
    for value in [
        format!("wrapped=\"Bearer {token}\""),
        format!("wrapped=Bearer%20{token}"),
        format!("wrapped=Bearer+{token}"),
        format!("wrapped=Bearer {token}"),
        format!("wrapped=\"bearer%20{token}\""),
        format!("wrapped=%22Bearer%20{token}%22"),
        format!("session=\"{token}\""),
        format!("$Version=1; wrapped=\"Bearer {token}\"; $Path=/"),
    ] {
        let cookie = format!("theme=dark; {value}; lang=en");
        let got = edge.admitted("/any/x", &[("cookie", &cookie)]).await;
        let left = got["headers"]["cookie"][0].as_str().unwrap();
        assert!(
            left.contains("theme=dark") && left.contains("lang=en") && !left.contains("wrapped"),
            "{left}"
        );
    }
    let got = edge.admitted(&format!("/any/x?jwt=Bearer%20{token}&b=1"), &[]).await;
    assert_eq!(got["path"], "/any/x?b=1");
    for (value, code) in [
        (format!("wrapped={token}"), "credential_missing"),
        (format!("wrapped=\"Bearer {token}"), "credential_missing"),
        (format!("wrapped=Bearer {token}; wrapped=other"), "credential_ambiguous"),
        (format!("wrapped=other; wrapped=Bearer {token}"), "credential_ambiguous"),
        (format!("wrapped=\"other; wrapped=Bearer {token}\""), "credential_ambiguous"),
        (format!("wrapped=Bearer {token}; Wrapped=other"), "credential_ambiguous"),
        (format!("wrapped=Bearer {token}; x=\"1\", wrapped=other"), "credential_ambiguous"),
        (format!("wrapped=Bearer {token}; %77rapped=other"), "credential_ambiguous"),
        (format!("$Version=\"1\", wrapped=\"Bearer {token}\""), "credential_ambiguous"),
        // The credential has one spelling.
        (format!("wrapped=Bearer {}", token.replacen('e', "%65", 1)), "token_not_canonical"),
        (format!("wrapped=Bearer \"{token}\""), "token_not_canonical"),
        (format!("wrapped=Bearer {token}%20"), "token_not_canonical"),
        (format!("session=\"{token}=\""), "token_not_canonical"),
    ] {
        edge.refused("/any/x", &[("cookie", &value)], code).await;
    }
    // The same cookie in two headers.
    let two = [("cookie", "wrapped=other"), ("cookie", &*format!("wrapped=Bearer {token}"))];
    edge.refused("/any/x", &two, "credential_ambiguous").await;
}

async fn d5_basic_has_an_api_key(edge: &Edge) {
    let (key, token) = (&*edge.api_key, edge.token());
    for value in [basic(key, ""), basic("user", key), basic("", key), basic("a", &token)] {
        for path in ["/any/x", "/basic/x"] {
            let got = edge.admitted(path, &[("authorization", &value)]).await;
            assert_eq!(got["headers"].get("authorization"), None);
        }
    }
    let good = basic(key, "");
    for (value, code) in [
        (good.trim_end_matches('=').to_owned() + "A", "credential_ambiguous"),
        (good.replace('=', "") + "==", "credential_ambiguous"),
        (format!("{good}, {good}"), "credential_ambiguous"),
        (basic("user", &format!("{key}:x")), "api_key_length_wrong"),
        (basic("user", &format!("x:{key}")), "token_malformed"),
        (basic(&format!("{key}x"), ""), "api_key_length_wrong"),
        (basic("", ""), "credential_missing"),
        ("Basic".into(), "credential_missing"),
        (format!("Basic {}", base64url::encode(key.as_bytes())), "credential_ambiguous"),
    ] {
        edge.refused("/any/x", &[("authorization", &value)], code).await;
    }
    let two = [("authorization", &*good), ("x-api-key", key)];
    edge.refused("/any/x", &two, "credential_ambiguous").await;
}

async fn d5_the_challenge_asks_for_basic(edge: &Edge) {
    let refused =
        send(edge.control_plane.envoy.address(), Request::get("/any/x").body(String::new()).unwrap());
    let refused = refused.await.unwrap().expect(401).unwrap();
    let challenges: Vec<_> = refused.headers.get_all("www-authenticate").iter().collect();
    assert_eq!(challenges, ["Bearer realm=\"keystile\"", "Basic realm=\"keystile\", charset=\"UTF-8\""]);
}

async fn d6_optional_rules_ignore_what_is_not_usable(edge: &Edge) {
    let good = edge.token();
    let (signed, _) = good.rsplit_once('.').unwrap();
    let forged = format!("{signed}.{}", base64url::encode(&[1; 64]));
    let claims = edge.control_plane.claims();
    let elsewhere =
        edge.control_plane.mint(&Claims { iss: "https://other.example".into(), ..claims.clone() });
    let future = edge.control_plane.mint(&Claims { iat: claims.iat + 600, ..claims.clone() });
    let audience = edge.control_plane.mint(&Claims { aud: vec!["other".into()], ..claims });
    let other_key = edge.api_key.replace("ks_live_", "ks_test_");
    let last = if edge.api_key.ends_with('x') { 'y' } else { 'x' };
    let mistyped = format!("{}{last}", &edge.api_key[..edge.api_key.len() - 1]);
    // The third and the fourth value: whether the rule ignores and removes it, and whether the other one forwards it.
    for (value, code, removed, forwarded) in [
        ("of-another-application", "token_malformed", true, true),
        (&*edge.expired(), "token_expired", true, false),
        (&elsewhere, "token_issuer_unknown", true, true),
        (&other_key, "token_malformed", true, true),
        (&audience, "token_audience_mismatch", true, false),
        (&format!("{good}="), "token_not_canonical", true, false),
        (&forged, "token_signature_invalid", false, false),
        (&future, "token_issued_in_future", false, false),
        (&mistyped, "api_key_checksum_wrong", false, false),
    ] {
        let cookie = format!("session={value}; theme=dark");
        let bearer = format!("Bearer {value}");
        for (name, value, left) in [("authorization", &bearer, None), ("cookie", &cookie, Some("theme=dark"))]
        {
            let sent = [(name, &**value)];
            let answer = edge.get("/optional/x", &sent).await;
            assert_eq!(answer.code, code, "{value}");
            for (path, ignored) in [("/remove/x", removed), ("/forward/x", forwarded)] {
                let answer = edge.get(path, &sent).await;
                if !ignored {
                    assert_eq!((answer.status >= 400, &*answer.code), (true, code), "{path} {value}");
                    continue;
                }
                assert_eq!(answer.status, 200, "{path} {value}: {}", answer.code);
                let got = answer.got.unwrap();
                assert!(!got.to_string().contains("x-keystile-"), "{got}");
                let left = if path == "/forward/x" { Some(&**value) } else { left };
                assert_eq!(
                    got["headers"].get(name),
                    left.map(|left| json!([left])).as_ref(),
                    "{path} {value}"
                );
            }
        }
    }
    for path in ["/optional/x", "/remove/x", "/forward/x"] {
        edge.anonymous(path, &[]).await;
        let got = edge.admitted(path, &[("authorization", &format!("Bearer {good}"))]).await;
        assert_eq!(got["headers"].get("authorization").is_some(), path == "/forward/x", "{path}");
        // Two are never none.
        let two = [("authorization", "Bearer a"), ("cookie", "session=b")];
        edge.refused(path, &two, "credential_ambiguous").await;
        edge.refused(path, &[("cookie", "Session=b")], "credential_ambiguous").await;
    }
}

async fn f1_messages_describe_what_was_sent(edge: &Edge) {
    let other_key = edge.api_key.replace("ks_live_", "ks_test_");
    for (path, headers, code, said) in [
        ("/any/x", &[("x_api_key", "abc")][..], "credential_ambiguous", "resembles that of a credential"),
        ("/any/x?Access_Token=abc", &[], "credential_ambiguous", "resembles that of a credential"),
        ("/any/x", &[("x-api-key", "abc,def")], "credential_ambiguous", "has a comma"),
        ("/any/x", &[("cookie", "session=abc,def")], "credential_ambiguous", "has a comma"),
        ("/any/x", &[("authorization", "Basic abc")], "credential_ambiguous", "strict base64"),
        (
            "/any/x",
            &[("x-api-key", &*edge.api_key), ("x-username", "a"), ("x_username", "b")],
            "credential_ambiguous",
            "accompanies",
        ),
        ("/any/x", &[("x-api-key", "a"), ("cookie", "session=b")], "credential_ambiguous", "more than one"),
        ("/any/x", &[("x-api-key", &other_key)], "token_malformed", "nor an API key with an accepted prefix"),
        ("/any/x", &[("x-api-key", "secret-abc")], "token_malformed", "neither a token nor an API key"),
        ("/header/x", &[("x-api-key", "abc")], "credential_misplaced", "another one"),
    ] {
        let detail = edge.refused(path, headers, code).await;
        assert!(detail.contains(said), "{headers:?}: {detail}");
    }
}

/// A revocation is by fingerprint, so no wrapping may change it.
async fn every_wrapping_has_the_same_fingerprint(edge: &mut Edge) {
    let (token, bystander) = (edge.token(), edge.token());
    let wrappings = |token: &str| {
        [
            ("authorization", format!("Bearer {token}")),
            ("authorization", format!("bearer   {token} ")),
            ("authorization", basic(token, "")),
            ("authorization", basic("user", token)),
            ("x-api-key", token.to_owned()),
            ("cookie", format!("session={token}")),
            ("cookie", format!("session=\"{token}\"")),
            ("cookie", format!("session=%22{token}%22")),
            ("cookie", format!("wrapped=\"Bearer {token}\"")),
            ("cookie", format!("wrapped=Bearer%20{token}")),
            ("cookie", format!("wrapped=%42earer++{token}")),
            (PROTOCOLS, format!("app-v1, app-token.{token}")),
            (PROTOCOLS, format!("{KUBERNETES}{}", base64url::encode(token.as_bytes()))),
            (":path", format!("/any/x?access_token={token}")),
            (":path", format!("/any/x?jwt=Bearer%20{token}")),
            (":path", format!("/any/x?jwt=Bearer+{token}")),
        ]
    };
    let fingerprint = Fingerprint::digest(token.as_bytes());
    let ask = async |edge: &Edge, (name, value): &(&str, String)| match *name {
        ":path" => edge.get(value, &[]).await,
        name => edge.get("/any/x", &[(name, value)]).await,
    };
    for wrapping in wrappings(&token) {
        let got = ask(edge, &wrapping).await.got.unwrap_or_else(|| panic!("{wrapping:?}"));
        assert_eq!(
            got["headers"]["x-keystile-fingerprint"],
            json!([fingerprint.to_string()]),
            "{wrapping:?}"
        );
    }
    let version = edge.control_plane.version + 1;
    edge.control_plane.content.revoke(version, fingerprint).unwrap();
    edge.control_plane.publish();
    let mut workers = edge.control_plane.envoy.workers().await.unwrap();
    Envoy::wait_refusing(&mut workers, &token, 401, "revoked").await;
    for (revoked, good) in wrappings(&token).iter().zip(&wrappings(&bystander)) {
        assert_eq!(ask(edge, revoked).await.code, "revoked", "{revoked:?}");
        assert_eq!(ask(edge, good).await.status, 200, "{good:?}");
    }
    // A revoked credential is never none.
    for path in ["/optional/x", "/remove/x", "/forward/x"] {
        edge.refused(path, &[("authorization", &format!("Bearer {token}"))], "revoked").await;
    }
}
