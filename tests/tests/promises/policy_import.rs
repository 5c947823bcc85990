//! `keystile policy import` turns configurations of Envoy's `jwt_authn` and RBAC, and of Istio, into a policy. Envoy's own
//! filters and Keystile with the imported policy let the same requests pass, except where Keystile is stricter, which the
//! table names. Keystile never lets a request pass that the source refuses.
//!
//! The configurations in tests/data/import are modeled on the public documentation of Envoy and Istio, which each file
//! cites. For Istio, `NAME.envoy.yaml` is what istiod would generate, translated by hand. The keys are local here.

use harness::client::{Connection, Response};
use harness::{FakeControlPlane, eventually, fake_control_plane, tools};
use hyper::Request;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use token::mint::SigningKey;
use token::{Algorithm, VerifyingKey, base64url};

#[tokio::test]
async fn imported_policies_let_the_same_requests_pass() {
    let issuer = Issuer::new();
    let folder = tempfile::tempdir().unwrap();
    let mut imports = Vec::new();
    let mut control_plane = FakeControlPlane::start_with(|settings| {
        settings.workers = 1;
        for (number, case) in CASES.iter().enumerate() {
            let base = folder.path().join("base.json");
            std::fs::write(&base, settings.plugin_configuration.to_string()).unwrap();
            let (filters, routes) = native(case.name, &issuer.jwks());
            let imported = import(case, &base, folder.path(), &issuer.jwks());
            let port = |offset: usize| u16::try_from(10_000 + offset + 2 * number).unwrap();
            let [theirs, ours] = [0, 1].map(|at| SocketAddr::new(settings.listen.ip(), port(at)));
            settings.more_listeners.push(listener(
                &format!("{}-{number}", case.name),
                "theirs",
                theirs,
                &filters,
                routes.clone(),
            ));
            let ours_filter = settings.filter(&imported["policy"]);
            settings.more_listeners.push(listener(
                &format!("{}-{number}", case.name),
                "ours",
                ours,
                &[ours_filter],
                routes,
            ));
            imports.push((imported, theirs, ours));
        }
    })
    .await;
    let own = control_plane.signing.verifying_key().clone();
    let foreign: Vec<_> = ISSUERS.iter().map(|name| issuer.verifying_key(name)).collect();
    control_plane.content.set_verifying_keys([&own].into_iter().chain(&foreign)).unwrap();
    control_plane.publish();

    let mut problems = Vec::new();
    for (case, (imported, theirs, ours)) in CASES.iter().zip(&imports) {
        let requests = requests(case, &issuer);
        let (mut theirs, mut ours) = (Client::new(*theirs), Client::new(*ours));
        let mut expected = Vec::new();
        for (what, request) in &requests {
            let status = theirs.send(request).await.unwrap().status;
            let is_expected = matches!(status, 200 | 401 | 403) || what.starts_with(HOSTILE);
            assert!(is_expected, "{} {what}: {status}", case.name);
            expected.push(status == 200);
        }
        let is_stricter =
            |what: &str| what.starts_with(HOSTILE) || case.stricter.iter().any(|part| is_in(part, what));
        let mut both = requests.iter().zip(&expected);
        let probe =
            both.find(|((what, _), passes)| **passes && !is_stricter(what) && !what.ends_with("none"));
        if let Some(((what, probe), _)) = probe {
            eventually(&format!("{}: {what}", case.name), async || {
                ours.send(probe).await?.expect(200).map(drop)
            })
            .await;
        }
        let (mut passed, mut refused) = (0, 0);
        let mut unused: Vec<&str> = case.stricter.to_vec();
        for ((what, request), passes) in requests.iter().zip(expected) {
            let response = ours.send(request).await.unwrap();
            let found = response.status == 200;
            if found {
                passed += 1
            } else {
                refused += 1
            }
            if found && !passes {
                problems.push(format!("{} {what}: passes, and the source refuses it", case.name));
            } else if !found && passes && !what.starts_with(HOSTILE) {
                let named = case.stricter.iter().find(|part| is_in(part, what));
                match named {
                    Some(named) => unused.retain(|other| other != named),
                    None => problems.push(format!(
                        "{} {what}: {} {}",
                        case.name,
                        response.status,
                        response.code()
                    )),
                }
            }
        }
        if !unused.is_empty() {
            problems.push(format!("{}: not stricter: {unused:?}", case.name));
        }
        assert!(passed > 0 && refused > 0, "{}: {passed} passed, {refused} refused", case.name);
        let dropped: Vec<&str> = imported["remarks"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|remark| remark["kind"] == "not_carried_over")
            .map(|remark| remark["path"].as_str().unwrap())
            .collect();
        if dropped != case.dropped {
            problems.push(format!("{}: not carried over: {dropped:?}", case.name));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// A connection that is opened again if Envoy has closed it.
struct Client {
    address: SocketAddr,
    connection: Option<Connection>,
}

impl Client {
    const fn new(address: SocketAddr) -> Self {
        Self { address, connection: None }
    }

    async fn send(&mut self, request: &Request<String>) -> anyhow::Result<Response> {
        if let Some(connection) = &mut self.connection
            && let Ok(response) = connection.send(request.clone()).await
        {
            return Ok(response);
        }
        let mut connection = Connection::open(self.address).await?;
        let response = connection.send(request.clone()).await;
        self.connection = Some(connection);
        response
    }
}

/// Returns whether a request has all parts of a description, separated by ` & `.
fn is_in(parts: &str, what: &str) -> bool {
    parts.split(" & ").all(|part| what.contains(part))
}

/// A configuration and the requests that the table consists of.
struct Case {
    name: &'static str,
    /// Options of the command.
    options: &'static [&'static str],
    /// Issuers and their audiences.
    providers: &'static [(&'static str, &'static str)],
    /// Method, path and, if it matters, host.
    targets: &'static [&'static str],
    /// Names and claims of further tokens of the first issuer.
    claims: &'static [(&'static str, &'static str)],
    /// Further requests with a good token for the first target: header lines, or a path.
    places: &'static [(&'static str, &'static str)],
    /// The header in which tokens are, with its prefix.
    header: (&'static str, &'static str),
    /// The requests that only the source lets pass.
    stricter: &'static [&'static str],
    /// The paths of what is not carried over.
    dropped: &'static [&'static str],
}

const A: &str = "https://issuer-a.example";
const B: &str = "https://issuer-b.example";
const BEARER: (&str, &str) = ("authorization", "Bearer ");

/// The token that nothing is wrong with has no `exp` in the past, no `nbf` and no other particular claim.
const CASE: Case = Case {
    name: "",
    options: &[],
    providers: &[(A, "a")],
    targets: &["GET /"],
    claims: &[],
    places: &[],
    header: BEARER,
    stricter: &[],
    dropped: &[],
};

const PREFIX_TARGETS: &[&str] =
    &["GET /", "GET /open", "GET /open/", "GET /open/x", "GET /opened", "POST /x/y"];

const CASES: [Case; 30] = [
    Case {
        name: "envoy_remote_keys",
        providers: &[("https://login.shop.example", "shop-app")],
        targets: PREFIX_TARGETS,
        claims: &[
            ("two audiences", r#"{"aud": ["other", "shop-web"]}"#),
            ("no subject", r#"{"sub": null}"#),
            ("no expiry", r#"{"exp": null}"#),
        ],
        places: &[
            ("/?access_token=TOKEN", ""),
            ("/?token=TOKEN", ""),
            ("/", "authorization: bearer TOKEN"),
            ("/", "authorization: TOKEN"),
            ("/", "authorization: Bearer  TOKEN"),
            ("/", "x-token: TOKEN"),
            ("/?access_token=TOKEN", "authorization: Bearer TOKEN"),
        ],
        // Keystile requires both claims, and one token in one place.
        stricter: &["no subject", "no expiry", "access_token=TOKEN authorization: Bearer TOKEN"],
        ..CASE
    },
    Case {
        name: "envoy_own_header",
        providers: &[("https://gateway.example", "backend")],
        header: ("x-gateway-assertion", ""),
        targets: PREFIX_TARGETS,
        places: &[("/", "authorization: Bearer TOKEN"), ("/?access_token=TOKEN", "")],
        dropped: &["[0].typed_config.providers.gateway.forward_payload_header"],
        ..CASE
    },
    Case {
        name: "envoy_audience_by_path",
        providers: &[(A, "site"), (A, "v1-clients")],
        targets: &[
            "GET /status",
            "GET /status/",
            "GET /status/x",
            "GET /statuses",
            "GET /v1",
            "GET /v1/",
            "GET /v1/x",
            "GET /v1x",
            "POST /",
            "GET /x/v1/",
        ],
        // The source's prefix continues within the segment, without a token.
        stricter: &["/statuses "],
        dropped: &["http_filters[0].typed_config.rules[0].match.prefix"],
        ..CASE
    },
    Case {
        name: "envoy_groups",
        providers: &[(A, "a"), (B, "b")],
        targets: &[
            "GET /either/x",
            "GET /either/",
            "GET /either",
            "GET /both/x",
            "GET /both",
            "GET /other",
            "GET /",
        ],
        dropped: &["rules[1].requires.requires_all"],
        ..CASE
    },
    Case {
        name: "envoy_prefixes",
        providers: &[(A, "a"), (B, "b")],
        targets: &["GET /baz", "GET /baz/x", "GET /foo/x", "GET /fool", "GET /other"],
        // `/fool` needs a token of either, so all other paths do, too.
        stricter: &["/other ", "/fool good of https://issuer-b.example"],
        dropped: &["rules[0].match.prefix", "rules[1].match.prefix"],
        ..CASE
    },
    Case {
        name: "envoy_prefixes",
        options: &["--path", "/other", "--path", "/fool/x"],
        providers: &[(A, "a"), (B, "b")],
        targets: &["GET /baz/x", "GET /fool/x", "GET /other", "GET /other/x", "GET /others", "GET /"],
        stricter: &["GET / ", "/others "],
        dropped: &["rules[0].match.prefix", "rules[1].match.prefix"],
        ..CASE
    },
    Case {
        name: "envoy_prefixes",
        options: &["--whole-segments"],
        providers: &[(A, "a"), (B, "b")],
        targets: &["GET /baz", "GET /baz/x", "GET /foo/x", "GET /other", "GET /"],
        ..CASE
    },
    Case {
        name: "envoy_optional",
        providers: &[("https://visitors.example", "portal")],
        targets: &["GET /account", "GET /account/x", "GET /accounts", "GET /", "POST /x"],
        ..CASE
    },
    Case {
        name: "envoy_optional_and_required",
        providers: &[(B, "b"), (A, "a")],
        targets: &["GET /internal/x", "GET /x"],
        // A request can have one credential.
        stricter: &["/internal/x "],
        dropped: &["typed_config.rules[0].requires.requires_all"],
        ..CASE
    },
    Case {
        name: "envoy_locations",
        targets: &["GET /", "GET /x?y=1"],
        places: &[
            ("/", "x-token: token=TOKEN"),
            ("/", "x-token: TOKEN"),
            ("/?jwt=TOKEN", ""),
            ("/?access_token=TOKEN", ""),
            ("/", "cookie: session=TOKEN"),
            ("/", "cookie: other=1; session=TOKEN"),
            ("/", "cookie: other=TOKEN"),
        ],
        ..CASE
    },
    Case {
        name: "envoy_matchers",
        targets: &[
            "GET /healthz",
            "GET /healthz/",
            "GET /docs",
            "GET /docs/x",
            "POST /docs/x",
            "HEAD /docs",
            "GET /users/7/avatar",
            "GET /users/7/x/avatar",
            "GET /users//avatar",
            "GET /img/x.png",
            "GET /img",
            "GET /css/",
            "GET /js/x",
            "GET /feeds/news/rss",
            "GET /feeds/rss",
            "GET /",
        ],
        places: &[("/", "x-internal: 1")],
        // A condition on a header cannot be expressed, and an empty segment is ambiguous.
        stricter: &["x-internal: 1", "/users//avatar "],
        dropped: &["typed_config.rules[5].match.headers[0]"],
        ..CASE
    },
    Case {
        name: "envoy_by_route",
        providers: &[(A, "staff"), (B, "partners")],
        targets: &[
            "GET /public",
            "GET /public/x",
            "GET /publicity",
            "GET /partners/x",
            "GET /partners",
            "GET /x",
        ],
        ..CASE
    },
    Case {
        name: "envoy_preflight",
        providers: &[(A, "spa")],
        targets: &["GET /", "OPTIONS /x"],
        places: &[("OPTIONS /x", "origin: https://x.example, access-control-request-method: PUT")],
        ..CASE
    },
    Case {
        name: "envoy_rbac_scopes",
        targets: &[
            "GET /healthz",
            "GET /books/1",
            "HEAD /books/1",
            "POST /books/1",
            "PUT /books/1",
            "GET /books",
            "GET /x",
        ],
        claims: &[
            ("reader", r#"{"scope": "profile books:read"}"#),
            ("writer", r#"{"scope": "books:write"}"#),
            ("gold writer", r#"{"scope": "books:write x", "tier": "gold"}"#),
            ("gold", r#"{"tier": "gold"}"#),
            ("similar", r#"{"scope": "books:reads"}"#),
        ],
        ..CASE
    },
    Case {
        name: "envoy_rbac_roles",
        targets: &["GET /", "POST /", "GET /admin/x", "GET /admin", "HEAD /x", "GET /office/x"],
        claims: &[
            ("admin", r#"{"roles": ["x", "admin"]}"#),
            ("viewer", r#"{"roles": ["viewer"]}"#),
            ("sales", r#"{"department": "sales"}"#),
            ("other", r#"{"roles": ["administrator"], "department": "Sales"}"#),
        ],
        // The policy has no conditions on the address of the client.
        stricter: &["/office/x "],
        dropped: &["[1].typed_config.rules.policies.office.principals[0].remote_ip"],
        ..CASE
    },
    Case {
        name: "envoy_rbac_by_route",
        targets: &["GET /members", "GET /editors/x", "GET /misnamed/x", "GET /", "POST /x"],
        claims: &[("admin", r#"{"role": "admin"}"#), ("editor", r#"{"role": "editor"}"#)],
        ..CASE
    },
    Case {
        name: "envoy_ignore_case",
        targets: &["GET /members", "GET /open/x", "GET /Members/x", "GET /MEMBERS", "GET /other"],
        // Any path may be another spelling, so that all need a token.
        stricter: &["/other "],
        dropped: &["rules[1].match"],
        ..CASE
    },
    Case {
        name: "envoy_rbac_deny",
        targets: &[
            "GET /ledger/x",
            "POST /ledger/x",
            "GET /closed",
            "GET /closed/",
            "GET /forum/x",
            "GET /forum",
            "GET /",
        ],
        claims: &[("clerk", r#"{"roles": ["clerk"]}"#), ("banned", r#"{"status": "banned"}"#)],
        // The policy has no condition that a claim must not have a value.
        stricter: &["/forum/x "],
        dropped: &["[1].typed_config.rules.policies.banned.principals[0].metadata.value"],
        ..CASE
    },
    Case {
        name: "envoy_spiffe",
        providers: &[("https://spire.example", "spiffe://shop.example/api")],
        claims: &[
            ("in the domain", r#"{"sub": "spiffe://shop.example/cart"}"#),
            ("in another domain", r#"{"sub": "spiffe://shop.example.org/cart"}"#),
            ("too long", r#"{"sub": "spiffe://shop.example/cart", "exp": "now+90000"}"#),
        ],
        ..CASE
    },
    Case {
        name: "envoy_failed_allowed",
        targets: &["GET /open/x", "GET /members/x", "GET /x"],
        // A credential must be valid if it is sent.
        stricter: &["/open/x "],
        dropped: &["[0].typed_config.rules[0].requires.requires_any.requirements[1].allow_missing_or_failed"],
        ..CASE
    },
    Case { name: "istio_required", targets: PREFIX_TARGETS, ..CASE },
    Case { name: "istio_optional", targets: PREFIX_TARGETS, ..CASE },
    Case {
        name: "istio_health_open",
        targets: &["GET /healthz", "POST /healthz", "GET /healthz/", "GET /", "GET /healthz/x"],
        ..CASE
    },
    Case {
        name: "istio_issuer_by_host",
        providers: &[(A, "a"), (B, "b")],
        targets: &["GET / one.example", "GET / x.two.example", "GET / two.example", "GET / three.example"],
        ..CASE
    },
    Case {
        name: "istio_groups",
        targets: &[
            "GET /",
            "GET /reports/1",
            "POST /reports/1",
            "HEAD /reports/1",
            "POST /orders",
            "GET /orders",
        ],
        claims: &[
            ("in group 2", r#"{"sub": "tester", "groups": ["x", "group2"]}"#),
            ("in group 1 as text", r#"{"sub": "tester", "groups": "group1"}"#),
            ("another subject", r#"{"sub": "tester2", "groups": ["group1"]}"#),
            ("auditor", r#"{"realm": {"role": "auditor"}, "email": "jo.doe@shop.example"}"#),
            ("auditor elsewhere", r#"{"realm": {"role": "auditor"}, "email": "jo@shop.example.org"}"#),
            ("auditor with a space", r#"{"realm": {"role": "auditor"}, "email": "jo doe@shop.example"}"#),
            ("orders", r#"{"scope": "a orders:write"}"#),
        ],
        // Before the end of an address there must be one name.
        stricter: &["auditor with a space"],
        ..CASE
    },
    Case {
        name: "istio_deny",
        targets: &[
            "GET /headers",
            "GET /headers/",
            "GET /private/x",
            "GET /private",
            "DELETE /x",
            "DELETE /trash/x",
            "GET /",
        ],
        ..CASE
    },
    Case {
        name: "istio_peers",
        targets: &["GET /info", "GET /info/x", "POST /data", "GET /data", "GET /"],
        dropped: &[
            "[1].spec.rules[0].from[0].source.principals",
            "[1].spec.rules[0].from[1].source.namespaces",
            "[1].spec.rules[0].to[0].operation.paths[0]",
        ],
        ..CASE
    },
    Case {
        name: "istio_locations",
        header: ("x-jwt", "JWT "),
        places: &[("/?token=TOKEN", ""), ("/", "authorization: Bearer TOKEN"), ("/", "x-jwt: TOKEN")],
        ..CASE
    },
    Case {
        name: "istio_list_and_templates",
        targets: &[
            "GET /tenants/x/public/",
            "GET /tenants/a=b/bills",
            "GET /tenants/a*b/bills",
            "GET /tenants/a@b:c/bills",
            "GET /tenants/x/public/a=b",
            "GET /tenants/x/public/y",
            "GET /tenants/x/public/y/z",
            "GET /tenants/x/public",
            "GET /tenants/x/bills",
            "POST /tenants/x/bills",
            "GET /tenants/x/y/bills",
            "GET /tenants/bills",
        ],
        ..CASE
    },
    Case {
        name: "istio_two_issuers_any_audience",
        providers: &[(A, "a"), (B, "b")],
        targets: &["GET /a/x", "GET /b/x", "GET /c"],
        ..CASE
    },
];

/// All issuers of the configurations. Each signs with the same key.
const ISSUERS: [&str; 7] = [
    A,
    B,
    "https://login.shop.example",
    "https://gateway.example",
    "https://visitors.example",
    "https://spire.example",
    "https://unused.example",
];

struct Issuer(SigningKey);

impl Issuer {
    fn new() -> Self {
        Self(SigningKey::ed25519("key", &[9; 32]).unwrap())
    }

    fn public(&self) -> Vec<u8> {
        self.0.verifying_key().public_material().unwrap()
    }

    fn verifying_key(&self, issuer: &str) -> VerifyingKey {
        VerifyingKey::foreign(issuer, self.0.kid(), Algorithm::EdDsa, &self.public()).unwrap()
    }

    fn jwks(&self) -> String {
        let x = base64url::encode(&self.public());
        json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": self.0.kid(), "x": x }] })
            .to_string()
    }

    /// Returns a token with these claims in addition to, or instead of, the usual ones. `null` removes a claim, and
    /// `now+N` is a time.
    fn token(&self, issuer: &str, audience: &str, claims: &str) -> String {
        let now = i64::try_from(fake_control_plane::now_ms() / 1000).unwrap();
        let mut all =
            json!({ "iss": issuer, "sub": "u-1", "aud": audience, "iat": now - 10, "exp": now + 3600 });
        let claims: Value = serde_json::from_str(claims).unwrap();
        for (name, value) in claims.as_object().unwrap() {
            let seconds = value.as_str().and_then(|text| text.strip_prefix("now")?.parse::<i64>().ok());
            all[name] = seconds.map_or(value.clone(), |seconds| json!(now + seconds));
        }
        all.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        let header = json!({ "alg": "EdDSA", "kid": self.0.kid() }).to_string();
        self.0.sign(&header, all.to_string().as_bytes()).expose().to_owned()
    }
}

/// Returns the requests of a case, each with what it is.
fn requests(case: &Case, issuer: &Issuer) -> Vec<(String, Request<String>)> {
    let (first, audience) = case.providers[0];
    let mut tokens: Vec<(String, Option<String>)> = vec![("none".into(), None)];
    for (name, audience) in case.providers {
        tokens.push((format!("good of {name} for {audience}"), Some(issuer.token(name, audience, "{}"))));
    }
    for (name, claims) in [
        ("for another audience", r#"{"aud": "elsewhere"}"#),
        ("without audience", r#"{"aud": null}"#),
        ("expired", r#"{"exp": "now-3600"}"#),
        ("expired just now", r#"{"exp": "now-30"}"#),
        ("not valid yet", r#"{"nbf": "now+3600"}"#),
        ("of another issuer", r#"{"iss": "https://other.example"}"#),
    ] {
        tokens.push((name.into(), Some(issuer.token(first, audience, claims))));
    }
    for (name, claims) in case.claims {
        tokens.push(((*name).into(), Some(issuer.token(first, audience, claims))));
    }
    let good = issuer.token(first, audience, "{}");
    let mut forged = good.clone().into_bytes();
    let middle = good.rfind('.').unwrap() + 10;
    forged[middle] = if forged[middle] == b'A' { b'B' } else { b'A' };
    tokens.push(("forged".into(), Some(String::from_utf8(forged).unwrap())));
    tokens.push(("not a token".into(), Some("abc".into())));

    let mut all = Vec::new();
    let (header, prefix) = case.header;
    for target in case.targets {
        for (name, token) in &tokens {
            let mut request = request(target);
            if let Some(token) = token {
                request = request.header(header, format!("{prefix}{token}"));
            }
            all.push((format!("{target} {name}"), request.body(String::new()).unwrap()));
        }
    }
    // Paths that two parsers read differently. Keystile may refuse them.
    // `--whole-segments` declares that some of them do not exist.
    for target in case.targets.iter().take(if case.options == ["--whole-segments"] { 0 } else { 3 }) {
        let (method, path) = target.split_once(' ').unwrap();
        let (path, host) = path.split_once(' ').map_or((path, ""), |(path, host)| (path, host));
        for path in hostile_paths(path) {
            for (name, token) in [("none", None), ("good", Some(&good))] {
                let mut request = request(format!("{method} {path} {host}").trim_end());
                if let Some(token) = token {
                    request = request.header(header, format!("{prefix}{token}"));
                }
                all.push((format!("{HOSTILE} {method} {path} {name}"), request.body(String::new()).unwrap()));
            }
        }
    }
    for (path, lines) in case.places {
        let target = if path.starts_with('/') { format!("GET {path}") } else { (*path).to_owned() };
        let mut request = request(&target.replace("TOKEN", &good));
        for line in lines.split(", ").filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(": ").unwrap();
            request = request.header(name, value.replace("TOKEN", &good));
        }
        all.push((format!("{target} {lines}"), request.body(String::new()).unwrap()));
    }
    all
}

/// Marks requests of which the table has no expectation, except that Keystile lets none pass that the source refuses.
const HOSTILE: &str = "hostile";

/// Returns spellings of a path that some parsers take for it.
fn hostile_paths(path: &str) -> Vec<String> {
    let rest = path.get(1..).unwrap_or_default();
    let encoded: String = rest.bytes().take(1).map(|first| format!("%{first:02x}")).collect();
    vec![
        format!("{path}/"),
        format!("{path}/."),
        format!("{path}//"),
        format!("{path}%2f"),
        format!("{path}%2Fx"),
        format!("{path};x"),
        format!("{path}%3Bx=1"),
        format!("{path}%20"),
        format!("{path}."),
        format!("{path}.json"),
        format!("{path}:verb"),
        format!("{path}?x=/../y"),
        format!("/{path}"),
        format!("/x/..{path}"),
        format!("/x/%2e%2e{path}"),
        format!("/.;{path}"),
        path.to_uppercase(),
        format!("/{encoded}{}", rest.get(1..).unwrap_or_default()),
        path.replacen('/', "/%2f", 1),
        path.replacen('/', "\\", 1).replacen('\\', "/\\", 1),
    ]
}

fn request(target: &str) -> hyper::http::request::Builder {
    let mut parts = target.split(' ');
    let builder = Request::builder().method(parts.next().unwrap()).uri(parts.next().unwrap());
    match parts.next() {
        Some(host) => builder.header("host", host),
        None => builder,
    }
}

fn data(name: &str) -> PathBuf {
    tools::root().join("tests/data/import").join(format!("{name}.yaml"))
}

/// Reads a file, with the key set in place of `KEYS`.
fn source(name: &str, jwks: &str) -> String {
    let text = std::fs::read_to_string(data(name)).unwrap();
    text.replace("inline_string: KEYS", &format!("inline_string: '{jwks}'"))
}

/// Imports the configuration by the command.
fn import(case: &Case, base: &Path, folder: &Path, jwks: &str) -> Value {
    let file = folder.join(format!("{}.yaml", case.name));
    std::fs::write(&file, source(case.name, jwks)).unwrap();
    // The credentials of the harness, which the policy replaces.
    let mut plugin: Value = serde_json::from_slice(&std::fs::read(base).unwrap()).unwrap();
    plugin.as_object_mut().unwrap().remove("credentials");
    std::fs::write(base, plugin.to_string()).unwrap();
    let output = Command::new(tools::keystile().unwrap())
        .args(["policy", "import", "--json", "--base"])
        .arg(base)
        .args(case.options)
        .arg(&file)
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    let expected = if case.dropped.is_empty() { 0 } else { 5 };
    assert_eq!(output.status.code(), Some(expected), "{}: {stderr}", case.name);
    for path in case.dropped {
        assert!(stderr.contains(&format!("not carried over: {path}: ")), "{}: {stderr}", case.name);
    }
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Returns Envoy's own filters of a configuration with local keys, and the routes beside them.
fn native(name: &str, jwks: &str) -> (Vec<Value>, Option<Value>) {
    let name = if name.starts_with("istio") { format!("{name}.envoy") } else { name.to_owned() };
    let mut document: Value = serde_saphyr::from_str(&source(&name, jwks)).unwrap();
    localize_keys(&mut document, jwks);
    let manager = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";
    if let Some(manager) = document.pointer(manager) {
        return (manager["http_filters"].as_array().unwrap().clone(), Some(manager["route_config"].clone()));
    }
    let filters = match document {
        Value::Array(filters) => filters,
        document if document.get("http_filters").is_some() => {
            document["http_filters"].as_array().unwrap().clone()
        }
        document if document.get("providers").is_some() => {
            vec![json!({ "name": "envoy.filters.http.jwt_authn", "typed_config": document })]
        }
        filter => vec![filter],
    };
    (filters, None)
}

/// Replaces remote keys, which the test has no server for.
fn localize_keys(value: &mut Value, jwks: &str) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| localize_keys(item, jwks)),
        Value::Object(members) => {
            if members.remove("remote_jwks").is_some() {
                members.insert("local_jwks".into(), json!({ "inline_string": jwks }));
            }
            members.values_mut().for_each(|member| localize_keys(member, jwks));
        }
        _ => {}
    }
}

fn listener(name: &str, whose: &str, at: SocketAddr, filters: &[Value], routes: Option<Value>) -> Value {
    let router = json!({
        "name": "envoy.filters.http.router",
        "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
    });
    let is_router = |filter: &&Value| filter["name"] != "envoy.filters.http.router";
    let filters: Vec<Value> = filters.iter().filter(is_router).cloned().chain([router]).collect();
    let mut routes = routes.unwrap_or_else(|| {
        json!({
            "virtual_hosts": [{
                "name": "all",
                "domains": ["*"],
                "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": "upstream" } }],
            }],
        })
    });
    if whose == "ours" {
        for route in routes["virtual_hosts"][0]["routes"].as_array_mut().unwrap() {
            route.as_object_mut().unwrap().remove("typed_per_filter_config");
        }
    }
    json!({
        "name": format!("{name}-{whose}"),
        "address": { "socket_address": { "address": at.ip().to_string(), "port_value": at.port() } },
        "filter_chains": [{
            "filters": [{
                "name": "envoy.filters.network.http_connection_manager",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                    "stat_prefix": name,
                    "use_remote_address": true,
                    "normalize_path": true,
                    "route_config": routes,
                    "http_filters": filters,
                },
            }],
        }],
    })
}
