use super::{
    condition::{Condition, Test, TokenTest},
    needs::Needs,
    policy::Program,
    provider::{KeySource, Location, Provider},
    report::Report,
    requirement::Requirement,
    *,
};

fn imported(text: &str) -> Imported {
    import(text, &ImportOptions::default()).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn dropped(imported: &Imported) -> Vec<&str> {
    let is_dropped = |remark: &&Remark| remark.kind == RemarkKind::NotCarriedOver;
    imported.remarks.iter().filter(is_dropped).map(|remark| remark.path.as_str()).collect()
}

/// A configuration with this provider, and these rules.
fn jwt_authn(provider: &str, rules: &str) -> String {
    format!(
        "providers: {{ p: {{ issuer: 'https://a.example', audiences: [a], \
         remote_jwks: {{ http_uri: {{ uri: 'https://a.example/keys', cluster: c, timeout: 1s }} }}, {provider} }} }}\n\
         rules: {rules}\n"
    )
}

const ALL: &str = "[{ match: { prefix: / }, requires: { provider_name: p } }]";

#[test]
fn errors_name_the_path_and_no_value() {
    for (text, path) in [
        (jwt_authn("", "[{ match: { prefix: 5 } }]"), "rules[0].match.prefix"),
        (jwt_authn("", "[{ match: {} }]"), "rules[0].match"),
        (jwt_authn("", "[{ requires: { provider_name: p } }]"), "rules[0]"),
        (jwt_authn("", "[{ match: { prefix: / }, requires: { provider_name: s3cret } }]"), "rules[0].requires"),
        (jwt_authn("", "[{ match: { prefix: / }, requirement_name: s3cret }]"), "rules[0]"),
        (jwt_authn("forward: s3cret", ALL), "providers.p.forward"),
        (jwt_authn("from_headers: s3cret", ALL), "providers.p.from_headers"),
        (jwt_authn("claim_to_headers: [{ header_name: s3cret }]", ALL), "providers.p.claim_to_headers[0]"),
        (jwt_authn("max_lifetime: s3cret", ALL), "providers.p.max_lifetime"),
        ("providers: { \"a b\": { issuer: s3cret } }".to_owned(), "providers.\"a b\""),
        (
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nspec: { action: s3cret }".to_owned(),
            "spec.action",
        ),
        (
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nspec: { rules: [{ when: [{ key: s3cret }] }] }"
                .to_owned(),
            "spec.rules[0].when[0]",
        ),
    ] {
        let error = import(&text, &ImportOptions::default()).expect_err(&text).to_string();
        assert!(error.starts_with(&format!("`{path}`: ")), "{error}");
        assert!(!error.contains("s3cret"), "{error}");
    }
}

#[test]
fn unknown_members_are_named_and_refuse() {
    for (text, path) in [
        (jwt_authn("extra: 1", ALL), "providers.p.extra"),
        (
            jwt_authn("", "[{ match: { prefix: / }, requires: { provider_name: p }, extra: 1 }]"),
            "rules[0].extra",
        ),
        (
            jwt_authn("", "[{ match: { prefix: / }, requires: { provider_name: p, extra: 1 } }]"),
            "rules[0].requires.extra",
        ),
        (jwt_authn("", ALL) + "extra: 1\n", "extra"),
    ] {
        let imported = imported(&text);
        assert_eq!(dropped(&imported), [path], "{text}");
        assert_eq!(imported.policy["rules"], json!([]), "{text}");
        assert_eq!(imported.policy["unmatched"], "refuse");
    }
    // A match with an unknown member may not match: the rule after it may apply.
    let text = jwt_authn(
        "",
        "[{ match: { prefix: /, extra: 1 } }, { match: { prefix: / }, requires: { provider_name: p } }]",
    );
    let imported = imported(&text);
    assert_eq!(dropped(&imported), ["rules[0].match.extra"]);
    assert_eq!(imported.policy["rules"], json!([{ "path": "/**", "issuers": ["https://a.example"] }]));
}

#[test]
fn providers_that_the_policy_cannot_have_admit_no_token() {
    let inline = |set: &str| {
        format!(
            "providers: {{ p: {{ issuer: i, audiences: [a], local_jwks: {{ inline_string: '{set}' }} }} }}\nrules: {ALL}\n"
        )
    };
    let regex = jwt_authn("subjects: { safe_regex: { regex: a.* } }", ALL);
    let no_issuer = format!(
        "providers: {{ p: {{ remote_jwks: {{ http_uri: {{ uri: 'https://a.example/k' }} }} }} }}\nrules: {ALL}\n"
    );
    for text in
        [inline(r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#), inline("{}"), inline("x"), regex, no_issuer]
    {
        let imported = imported(&text);
        assert_eq!(dropped(&imported).len(), 1, "{text}");
        assert_eq!(imported.policy["rules"], json!([]), "{text}");
        assert_eq!(imported.issuers, [], "{text}");
        assert!(!format!("{imported:?}").contains("c2VjcmV0"));
    }
}

/// A request with a bad token in such a place would otherwise count as one without a token.
#[test]
fn optional_rules_see_every_place_that_the_source_checks() {
    let optional = "[{ match: { prefix: / }, requires: { requires_any: { requirements: [{ provider_name: p }, { allow_missing: {} }] } } }]";
    let rule = |provider: &str, rules: &str| {
        let imported = imported(&jwt_authn(provider, rules));
        (
            imported.policy["rules"][0].clone(),
            imported.policy["credentials"].clone(),
            dropped(&imported).len(),
        )
    };
    let (both, ..) = rule("", optional);
    assert_eq!(both["access"], "optional");
    // A place that the policy cannot have: a token is required.
    let (one_lost, _, count) = rule("from_params: [jwt], from_cookies: ['a b']", optional);
    assert_eq!(
        (one_lost["access"].clone(), one_lost["issuers"].clone(), count),
        (Value::Null, json!(["https://a.example"]), 2)
    );
    // A provider whose tokens are refused: its places are searched.
    let (dropped_provider, credentials, count) = rule("from_params: [jwt], extra: 1", optional);
    assert_eq!((dropped_provider["access"].clone(), count), (json!("optional"), 1));
    assert_eq!(dropped_provider["claims"]["iss"], "urn:keystile:refused");
    assert_eq!(credentials, json!([{ "query": "jwt" }]));
    // Providers with different places: a token is required.
    let two = jwt_authn("from_params: [jwt]", "[{ match: { prefix: / }, requires: { allow_missing: {} } }]").replace(
        "providers: { p:",
        "providers: { q: { issuer: 'https://b.example', audiences: [b], remote_jwks: { http_uri: { uri: 'https://b.example/keys' } } }, p:",
    );
    let imported = imported(&two);
    assert_eq!(imported.policy["rules"].as_array().unwrap().len(), 1);
    assert_eq!(imported.policy["rules"][0]["access"], Value::Null);
    assert_eq!(imported.policy["rules"][0]["issuers"].as_array().unwrap().len(), 1);
}

#[test]
fn a_provider_without_audiences_accepts_any_but_requirements_can_name_some() {
    let text = jwt_authn("", "[{ match: { path: /a }, requires: { provider_and_audiences: { provider_name: p, audiences: [x] } } }]")
        .replace("audiences: [a], ", "");
    let imported = imported(&text);
    let issuer =
        json!({ "issuer": "https://a.example", "audience_claim": "iss", "audiences": ["https://a.example"] });
    assert_eq!(imported.policy["issuers"], json!([issuer]));
    assert_eq!(imported.policy["rules"].as_array().unwrap()[1]["claims"], json!({ "aud": "x" }));
    assert_eq!((dropped(&imported).len(), imported.remarks.len()), (0, 1));
}

#[test]
fn a_dropped_header_is_removed_from_requests() {
    let imported = imported(&jwt_authn("forward_payload_header: X-Payload", ALL));
    assert_eq!(dropped(&imported), ["providers.p.forward_payload_header"]);
    assert_eq!(imported.policy["identity"]["claims"], json!({ "x-payload": policy::NO_CLAIM }));
}

#[test]
fn the_smallest_leeway_applies() {
    assert_eq!(imported(&jwt_authn("", ALL)).leeway_seconds, 60);
    assert_eq!(imported(&jwt_authn("clock_skew_seconds: 0", ALL)).leeway_seconds, 60);
    assert_eq!(imported(&jwt_authn("clock_skew_seconds: 7", ALL)).leeway_seconds, 7);
    assert_eq!(imported(&jwt_authn("clock_skew_seconds: 900", ALL)).leeway_seconds, 300);
}

/// `jwt_authn` that requires a token for everything, with other filters before and after it, and routes.
fn chain(before: &str, after: &str, routes: &str) -> String {
    let kind = "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication";
    let jwt = jwt_authn("payload_in_metadata: token", ALL).replace('\n', "\n      ");
    format!(
        "http_filters:\n{before}  - name: own-name\n    typed_config:\n      \"@type\": {kind}\n      {jwt}\n{after}\n\
         route_config: {{ virtual_hosts: [{routes}] }}\n"
    )
}

fn rbac(config: &str) -> String {
    let kind = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC";
    format!("  - {{ name: rbac, typed_config: {{ \"@type\": {kind}, {config} }} }}\n")
}

const IS_ADMIN: &str = "{ filter: envoy.filters.http.jwt_authn, path: [{ key: token }, { key: role }], \
                        value: { string_match: { exact: admin } } }";

/// Returns `hosts`, `path` and the requirement of each rule.
fn rules(imported: &Imported) -> Vec<(Value, String, String)> {
    let all = imported.policy["rules"].as_array().unwrap().iter();
    all.map(|rule| {
        let requirement = if rule["access"] == "public" {
            "public".to_owned()
        } else if rule["claims"]["iss"].is_string() {
            "refused".to_owned()
        } else {
            rule["claims"].to_string()
        };
        (rule["hosts"].clone(), rule["path"].as_str().unwrap().to_owned(), requirement)
    })
    .collect()
}

#[test]
fn rbac_filters_are_read_in_all_forms() {
    let allow = |principal: &str| {
        rbac(&format!(
            "rules: {{ policies: {{ x: {{ permissions: [{{ any: true }}], principals: [{{ {principal} }}] }} }} }}"
        ))
    };
    let admin = [(Value::Null, "/**".to_owned(), r#"{"role":"admin"}"#.to_owned())];
    let none: [(Value, String, String); 0] = [];
    let everyone = [(Value::Null, "/**".to_owned(), "null".to_owned())];
    let metadata = format!("metadata: {IS_ADMIN}");
    let sourced = format!("sourced_metadata: {{ metadata_matcher: {IS_ADMIN} }}");
    let of_route = format!("sourced_metadata: {{ metadata_source: ROUTE, metadata_matcher: {IS_ADMIN} }}");
    let typed = "type_url: type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC";
    let wrapped = format!(
        "  - {{ name: rbac, typed_config: {{ \"@type\": type.googleapis.com/xds.type.v3.TypedStruct, {typed}, value: {{ rules: \
         {{ policies: {{ x: {{ permissions: [{{ any: true }}], principals: [{{ {metadata} }}] }} }} }} }} }} }}\n"
    );
    for (before, after, expected) in [
        ("", allow(&metadata), &admin[..]),
        ("", allow(&sourced), &admin),
        ("", wrapped, &admin),
        ("", allow(&of_route), &none),
        ("", allow("and_ids: { ids: [{ any: true }, { any: true }] }"), &everyone),
        // A filter in front of `jwt_authn` sees no token.
        (&*allow(&metadata), String::new(), &none),
        ("", rbac("matcher: {}"), &none),
        ("", rbac("rules: { action: DENY, policies: {} }"), &everyone),
        ("", rbac("rules: { policies: {} }"), &none),
        ("", rbac("rules: { action: LOG, policies: {} }"), &everyone),
        ("", rbac("shadow_rules: { policies: {} }"), &everyone),
        ("", rbac("rules: { action: DENY, policies: {}, extra: 1 }"), &none),
        ("", rbac("extra: 1"), &none),
        ("", allow(&metadata).replace("typed_config", "disabled: true, typed_config"), &everyone),
    ] {
        let text = chain(before, &after, "{ domains: ['*'], routes: [] }");
        assert_eq!(rules(&imported(&text)), expected, "{text}");
    }
}

#[test]
fn the_most_specific_virtual_host_and_its_first_route_apply() {
    let disabled = "{ own-name: { '@type': type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.PerRouteConfig, \
                    disabled: true } }";
    let routes = format!(
        "{{ domains: ['*'], typed_per_filter_config: {disabled}, routes: [{{ match: {{ prefix: / }} }}] }}, \
         {{ domains: [api.example], routes: [{{ match: {{ path: /open }}, typed_per_filter_config: {disabled} }}, \
         {{ match: {{ prefix: / }} }}] }}"
    );
    let api = || json!(["api.example"]);
    let null = || "null".to_owned();
    assert_eq!(
        rules(&imported(&chain("", "", &routes))),
        [
            (api(), "/open/".to_owned(), null()),
            (api(), "/open".to_owned(), "public".to_owned()),
            (api(), "/**".to_owned(), null()),
            (Value::Null, "/**".to_owned(), "public".to_owned()),
        ]
    );
    // A route that may match: the stricter of both requirements applies.
    let routes = format!(
        "{{ domains: ['*'], routes: [{{ match: {{ prefix: /, headers: [{{ name: x, present_match: true }}] }}, \
         typed_per_filter_config: {disabled} }}] }}"
    );
    assert_eq!(rules(&imported(&chain("", "", &routes))), [(Value::Null, "/**".to_owned(), null())]);
    // RBAC that does not run for a route.
    let none =
        "{ rbac: { '@type': type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute } }";
    let routes = format!(
        "{{ domains: ['*'], routes: [{{ match: {{ path_separated_prefix: /a }}, typed_per_filter_config: {none} }}, \
         {{ match: {{ prefix: / }} }}] }}"
    );
    let admin = rbac(&format!(
        "rules: {{ policies: {{ x: {{ permissions: [{{ any: true }}], principals: [{{ metadata: {IS_ADMIN} }}] }} }} }}"
    ));
    assert_eq!(
        rules(&imported(&chain("", &admin, &routes))),
        [
            (Value::Null, "/a/**".to_owned(), null()),
            (Value::Null, "/**".to_owned(), r#"{"role":"admin"}"#.to_owned()),
        ]
    );
}

/// Returns what is not carried over besides the payload, which only some lists of filters read.
fn dropped_besides_payload(imported: &Imported) -> Vec<&str> {
    dropped(imported).into_iter().filter(|path| !path.ends_with(".payload_in_metadata")).collect()
}

const ADMINS_ONLY: &str =
    "rules: { policies: { x: { permissions: [{ any: true }], principals: [{ metadata: IS_ADMIN }] } } }";

/// An RBAC filter with this name that requires the role `admin`.
fn admins_only(name: &str) -> String {
    rbac(&ADMINS_ONLY.replace("IS_ADMIN", IS_ADMIN)).replace("name: rbac", &format!("name: {name}"))
}

/// A virtual host with one route below `/a`, for which RBAC does not run, and another one for everything else.
fn without_rbac_below_a(filter: &str) -> String {
    let kind = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute";
    format!(
        "{{ domains: ['*'], routes: [{{ match: {{ path_separated_prefix: /a }}, typed_per_filter_config: {{ {filter}: {{ '@type': \
         {kind} }} }} }}, {{ match: {{ prefix: / }} }}] }}"
    )
}

const ADMIN: &str = r#"{"role":"admin"}"#;

#[test]
fn rbac_by_route_is_found_by_the_name_of_the_filter() {
    let rule = |path: &str, needs: &str| (Value::Null, path.to_owned(), needs.to_owned());
    for (filter, of_route, expected) in [
        ("own-rbac", "own-rbac", vec![rule("/a/**", "null"), rule("/**", ADMIN)]),
        // Envoy ignores the configuration of a filter that is not in the list, regardless of its type.
        ("own-rbac", "envoy.filters.http.rbac", vec![rule("/**", ADMIN)]),
        ("envoy.filters.http.rbac", "own-rbac", vec![rule("/**", ADMIN)]),
    ] {
        let text = chain("", &admins_only(filter), &without_rbac_below_a(of_route));
        let imported = imported(&text);
        assert_eq!(rules(&imported), expected, "{text}");
        assert_eq!(dropped(&imported), [""; 0], "{text}");
        assert_eq!(imported.remarks.len(), usize::from(filter != of_route), "{:?}", imported.remarks);
    }
}

/// The configuration of a route replaces that of one filter, and the others still apply.
#[test]
fn rbac_by_route_is_refused_beside_a_second_filter_or_before_jwt_authn() {
    let path = "route_config.virtual_hosts[0].routes[0].typed_per_filter_config.one";
    let everything_else = (Value::Null, "/**".to_owned(), ADMIN.to_owned());
    let (one, two) = (admins_only("one"), admins_only("two"));
    for text in [
        chain("", &(one.clone() + &two), &without_rbac_below_a("one")),
        chain("", &(two + &one), &without_rbac_below_a("one")),
    ] {
        let imported = imported(&text);
        let below_a = (Value::Null, "/a/**".to_owned(), "refused".to_owned());
        assert_eq!(rules(&imported), [below_a, everything_else.clone()], "{text}");
        assert_eq!(dropped(&imported), [path], "{text}");
    }
    // A filter in front of `jwt_authn` sees no token, so that it refuses all requests.
    let text = chain(&one, "", &without_rbac_below_a("one"));
    let imported = imported(&text);
    assert_eq!(rules(&imported), [], "{text}");
    assert_eq!(dropped(&imported), [path], "{text}");
}

/// The policy does not distinguish ports, so a domain with a port may or may not apply.
#[test]
fn a_domain_with_a_port_may_not_apply() {
    let disabled = "{ own-name: { '@type': type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.PerRouteConfig, \
                    disabled: true } }";
    for (domain, expected) in [
        ("api.example", vec![("[\"api.example\"]", "public"), ("null", "null")]),
        ("'api.example:8443'", vec![("null", "null")]),
        ("'*.example:8443'", vec![("null", "null")]),
    ] {
        let routes = format!(
            "{{ domains: [{domain}], typed_per_filter_config: {disabled}, routes: [{{ match: {{ prefix: / }} }}] }}, \
             {{ domains: ['*'], routes: [{{ match: {{ prefix: / }} }}] }}"
        );
        let imported = imported(&chain("", "", &routes));
        let found: Vec<(String, String)> =
            rules(&imported).into_iter().map(|(hosts, _, needs)| (hosts.to_string(), needs)).collect();
        let expected: Vec<(String, String)> =
            expected.into_iter().map(|(hosts, needs)| (hosts.to_owned(), needs.to_owned())).collect();
        assert_eq!(found, expected, "{domain}");
    }
}

/// Their values depend on the token, but are no claims of it.
#[test]
fn conditions_on_metadata_about_a_token_are_not_carried_over() {
    for member in ["header_in_metadata", "failed_status_in_metadata"] {
        let text = chain("", &admins_only("rbac"), "{ domains: ['*'], routes: [] }")
            .replace("payload_in_metadata: token", &format!("payload_in_metadata: payload, {member}: token"));
        let imported = imported(&text);
        assert_eq!(rules(&imported), [], "{text}");
        let about = format!("http_filters[0].typed_config.providers.p.{member}");
        let of_rbac = "http_filters[1].typed_config.rules.policies.x.principals[0].metadata";
        assert_eq!(dropped_besides_payload(&imported), [&about, of_rbac], "{text}");
    }
}

#[test]
fn keys_of_an_issuer_are_those_of_a_provider_whose_tokens_are_accepted() {
    let provider = |name: &str, member: &str| {
        format!(
            "{name}: {{ issuer: 'https://a.example', audiences: [a], {member} remote_jwks: {{ http_uri: {{ uri: \
             'https://a.example/{name}' }} }} }}"
        )
    };
    let both = "[{ match: { prefix: / }, requires: { requires_any: { requirements: [{ provider_name: p }, { provider_name: q }] } } }]";
    for (p, q, expected) in [
        ("extra: 1,", "", "https://a.example/q"),
        ("", "extra: 1,", "https://a.example/p"),
        // A provider with other keys of the same issuer is not carried over.
        ("", "", "https://a.example/p"),
    ] {
        let text = format!("providers: {{ {}, {} }}\nrules: {both}\n", provider("p", p), provider("q", q));
        let imported = imported(&text);
        let keys = IssuerKeys::Url(expected.to_owned());
        assert_eq!(
            imported.issuers,
            [ImportedIssuer { issuer: "https://a.example".to_owned(), keys }],
            "{text}"
        );
        assert_eq!(dropped(&imported).len(), 1, "{text}");
    }
}

#[test]
fn what_is_not_read_is_refused() {
    let kind = "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.PerRouteConfig";
    let disabled = format!("{{ own-name: {{ '@type': {kind}, disabled: true }} }}");
    let refused = |path: &str| (Value::Null, path.to_owned(), "refused".to_owned());
    let token = (Value::Null, "/**".to_owned(), "null".to_owned());

    // Weighted clusters whose configurations of the filters differ.
    let clusters = format!(
        "{{ weighted_clusters: {{ clusters: [{{ name: c, weight: 1, typed_per_filter_config: {disabled} }}] }} }}"
    );
    let routes = format!(
        "{{ domains: ['*'], routes: [{{ match: {{ path_separated_prefix: /a }}, route: {clusters} }}, {{ match: {{ prefix: / }} }}] }}"
    );
    let with_clusters = imported(&chain("", "", &routes));
    assert_eq!(rules(&with_clusters), [refused("/a/**"), token.clone()]);
    assert_eq!(dropped_besides_payload(&with_clusters), ["route_config.virtual_hosts[0].routes[0].route"]);
    let of_another_filter = imported(&chain("", "", &routes.replace("own-name", "other")));
    assert_eq!(
        (rules(&of_another_filter), dropped_besides_payload(&of_another_filter).len()),
        (vec![token], 0)
    );

    // A matching tree instead of routes.
    let with_tree = imported(&chain("", "", "{ domains: ['*'], matcher: { on_no_match: {} } }"));
    assert_eq!(rules(&with_tree), []);
    assert_eq!(dropped_besides_payload(&with_tree), ["route_config.virtual_hosts[0].matcher"]);

    // A filter within another one, by a matcher or by name.
    let inner = admins_only("rbac");
    let config = inner.split_once("typed_config: ").unwrap().1.trim_end().strip_suffix(" }").unwrap();
    let outer = "type.googleapis.com/envoy.extensions.common.matching.v3.ExtensionWithMatcher";
    let wrapped = format!(
        "  - {{ name: outer, typed_config: {{ '@type': {outer}, extension_config: {{ name: rbac, typed_config: {config} }} }} }}\n"
    );
    let text = chain("", &wrapped, "{ domains: ['*'], routes: [] }");
    let error = import(&text, &ImportOptions::default()).unwrap_err().to_string();
    assert!(
        error.starts_with("`http_filters[1]`: contains `jwt_authn` or RBAC within another filter"),
        "{error}"
    );
}

#[test]
fn paths_that_are_compared_ignoring_case_may_be_any_path() {
    let rules_of = |first: &str, second: &str| {
        let all = format!(
            "[{{ match: {{ path: /a, case_sensitive: false }}{first} }}, {{ match: {{ prefix: / }}{second} }}]"
        );
        imported(&jwt_authn("", &all))
    };
    let needs = ", requires: { provider_name: p }";
    // `/A` needs a token, and no rule can name it apart from `/b`.
    let imported = rules_of(needs, "");
    assert_eq!(rules(&imported), [(Value::Null, "/**".to_owned(), "null".to_owned())]);
    assert!(imported.ignores_case);
    assert_eq!(dropped(&imported), ["rules[0].match"]);
    // `/A` needs none in the source, and here it does, like `/b`.
    let found = rules(&rules_of("", needs));
    assert!(found.contains(&(Value::Null, "/**".to_owned(), "null".to_owned())), "{found:?}");
    assert!(!self::imported(&jwt_authn("", ALL)).ignores_case);
}

/// A lazy quantifier is not an optional one: `/a/.*?` and `/a/(.*)?` match different texts to an expander.
#[test]
fn lazy_quantifiers_are_not_read() {
    let is_exact = |path: &paths::PathMatch| {
        matches!(path, paths::PathMatch::Template(_) | paths::PathMatch::Directory { .. })
    };
    for (regex, expected) in [
        ("/a/.*", true),
        ("/a/[^/]+", true),
        ("/a/b?", true),
        ("/a(/b)?", true),
        ("/a/.*?", false),
        ("/a/.+?", false),
        ("/a/[^/]+?", false),
        ("/a/[^/]+?/b", false),
        (r"/a/\d+?", false),
        ("/a/b??", false),
        ("/a/b+?", false),
        ("/a/b{2}", false),
    ] {
        let found = paths::PathMatch::regex(regex, false);
        assert_eq!(found.iter().all(is_exact), expected, "{regex}: {found:?}");
    }
}

#[test]
fn actions_of_istio_that_do_not_decide_here() {
    let policy = |action: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nspec: {{ action: {action}, provider: {{ name: x }}, \
             rules: [{{ to: [{{ operation: {{ paths: ['/a/*'] }} }}] }}] }}\n"
        )
    };
    let everything = || (Value::Null, "/**".to_owned(), "public".to_owned());
    assert_eq!(rules(&imported(&policy("AUDIT"))), [everything()]);
    let custom = imported(&policy("CUSTOM"));
    assert_eq!(dropped(&custom), ["spec.action"]);
    let refused = |path: &str| (Value::Null, path.to_owned(), "refused".to_owned());
    let open = (Value::Null, "/a".to_owned(), "public".to_owned());
    assert_eq!(rules(&custom), [refused("/a/"), open, refused("/a/**"), everything()]);
    // Without any rule, ALLOW allows nothing.
    let nothing =
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: { name: x }\nspec: {}\n";
    assert_eq!(rules(&imported(nothing)), []);
}

#[test]
fn large_configurations_are_imported_or_refused() {
    let rules = |count: usize| {
        let rule = |at: usize| format!("  - match: {{ path: /a/{at} }}\n");
        jwt_authn("", "")
            + &(0..count).map(rule).collect::<String>()
            + "  - { match: { prefix: / }, requires: { provider_name: p } }\n"
    };
    assert_eq!(imported(&rules(300)).policy["rules"].as_array().unwrap().len(), 601);
    assert_eq!(import(&rules(2000), &ImportOptions::default()).unwrap_err(), ImportError::TooLarge);
}

#[test]
fn policies_of_several_workloads_need_a_choice() {
    let policy = |namespace: &str, app: &str, path: &str| {
        format!(
            "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
             metadata: {{ name: x, namespace: {namespace} }}\n\
             spec: {{ selector: {{ matchLabels: {{ app: {app} }} }}, rules: [{{ to: [{{ operation: {{ paths: [{path}] }} }}] }}] }}\n"
        )
    };
    let root = "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
                metadata: { name: x, namespace: istio-system }\n\
                spec: { action: DENY, rules: [{ to: [{ operation: { methods: [DELETE] } }] }] }\n";
    let two_apps = policy("shop", "a", "/a") + &policy("shop", "b", "/b");
    let several =
        |text: &str| matches!(import(text, &ImportOptions::default()), Err(ImportError::SeveralWorkloads(_)));
    assert!(several(&two_apps));
    assert!(several(&(policy("shop", "a", "/a") + &policy("bank", "a", "/b"))));
    let options = ImportOptions { labels: vec![("app".into(), "b".into())], ..ImportOptions::default() };
    let of_b = import(&(two_apps + root), &options).unwrap();
    let paths: Vec<&Value> =
        of_b.policy["rules"].as_array().unwrap().iter().map(|rule| &rule["path"]).collect();
    assert!(paths.contains(&&json!("/b")) && !paths.contains(&&json!("/a")), "{paths:?}");
    assert!(of_b.policy["rules"].to_string().contains("DELETE"), "the policy of the root namespace applies");
}

#[test]
fn several_listeners_need_a_choice() {
    let chain = |name: &str, prefix: &str| {
        format!(
            "  - name: {name}\n    filter_chains: [{{ filters: [{{ typed_config: {{ http_filters: [{{ name: envoy.filters.http.jwt_authn, \
             typed_config: {{ rules: [{{ match: {{ path_separated_prefix: {prefix} }} }}] }} }}] }} }}] }}]\n"
        )
    };
    let text = format!("static_resources:\n  listeners:\n{}{}", chain("one", "/a"), chain("two", "/b"));
    let error = import(&text, &ImportOptions::default()).unwrap_err().to_string();
    assert!(error.contains("one (") && error.contains("two ("), "{error}");
    let options = ImportOptions { listener: Some("two".into()), ..ImportOptions::default() };
    assert!(import(&text, &options).is_ok());
    let options = ImportOptions { listener: Some("three".into()), ..ImportOptions::default() };
    assert_eq!(import(&text, &options).unwrap_err(), ImportError::NothingFound);
    assert_eq!(import("a: 1", &ImportOptions::default()).unwrap_err(), ImportError::NothingFound);
    assert_eq!(import("", &ImportOptions::default()).unwrap_err(), ImportError::NothingFound);
}

/// The hand translations in tests/data/import describe the same policies as the Istio documents.
#[test]
fn istio_and_its_translation_give_one_policy() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/import");
    let mut compared = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let Some(name) = name.strip_suffix(".envoy.yaml") else { continue };
        let read = |end: &str| imported(&std::fs::read_to_string(format!("{folder}/{name}{end}")).unwrap());
        let (istio, envoy) = (read(".yaml"), read(".envoy.yaml"));
        // Its policies may contain the claim `scope` as one text, too.
        if name != "istio_groups" {
            assert_eq!(istio.policy["rules"], envoy.policy["rules"], "{name}");
        }
        compared += 1;
    }
    assert!(compared >= 10);
}

/// A random matcher of a path and perhaps a method, with the same as a function.
struct RandomMatch {
    condition: Condition,
    kind: usize,
    text: &'static str,
    method: Option<&'static str>,
    is_exact: bool,
}

const TEXTS: [&str; 14] = [
    "/", "/a", "/a/", "/ab", "/a/b", "/a/b/", "/a/bc", "/b", "/b/a", "/b/a/c", "/a/b/c", "/abc", "/c",
    "/c/a/b",
];
const METHODS: [&str; 4] = ["GET", "HEAD", "POST", "PUT"];

impl RandomMatch {
    fn new(random: &mut dyn FnMut(usize) -> usize) -> Self {
        let (kind, text) = (random(5), TEXTS[random(TEXTS.len())]);
        let path = match kind {
            0 => paths::PathMatch::exact(text),
            1 => paths::PathMatch::prefix(text, false),
            2 => paths::PathMatch::path_separated_prefix(text.trim_end_matches('/')),
            3 => paths::PathMatch::uri_template("/*/b"),
            _ => paths::PathMatch::Suffix(text.to_owned()),
        };
        let is_exact = matches!(path, paths::PathMatch::Template(_) | paths::PathMatch::Directory { .. });
        let method = (random(2) == 0).then(|| METHODS[random(3)]);
        let tests = [Some(Test::Path(path)), method.map(|method| Test::Method(method.to_owned()))];
        let all = tests.into_iter().flatten().map(|test| Condition::test("x", test)).collect();
        Self { condition: Condition::All(all), kind, text, method, is_exact }
    }

    fn matches(&self, method: &str, path: &str) -> bool {
        let is_path = match self.kind {
            0 => path == self.text,
            1 => path.starts_with(self.text),
            2 => {
                let rest = path.strip_prefix(self.text.trim_end_matches('/'));
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            3 => path.matches('/').count() == 2 && path.ends_with("/b") && path != "//b",
            _ => path.ends_with(self.text),
        };
        is_path && self.method.is_none_or(|known| known == method)
    }
}

/// Programs of random rules are compared with the policy for many requests: the policy lets no request pass that the source
/// refuses, and refuses no request that the source lets pass if all matchers are exact.
#[test]
fn random_programs_are_never_weakened() {
    let mut state = 1_u64;
    let mut random = |limit: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % limit
    };
    let (mut passed, mut stricter) = (0, 0);
    for _ in 0..300 {
        let providers = vec![provider("https://a.example"), provider("https://b.example")];
        let mut program = Program { providers, ..Program::default() };
        let (mut rules, mut conditions) = (Vec::new(), Vec::new());
        for _ in 0..=random(3) {
            let (matcher, needs) = (RandomMatch::new(&mut random), random(4));
            let requirement = match needs {
                0 => Requirement::Nothing,
                1 => Requirement::Provider(0, None),
                2 => Requirement::Any(vec![Requirement::Provider(1, None), Requirement::AllowMissing]),
                _ => Requirement::Refuse,
            };
            program.choices.push((matcher.condition.clone(), requirement));
            rules.push((matcher, needs));
        }
        for _ in 0..random(3) {
            let (matcher, needs_token) = (RandomMatch::new(&mut random), random(2) == 0);
            let denies = matcher.condition.clone().negated();
            // Where it matches, no request passes, or only those with a token.
            let verified = Condition::test("x", Test::Token(TokenTest::Verified));
            program.conditions.push(if needs_token {
                Condition::Any(vec![denies, verified])
            } else {
                denies
            });
            conditions.push((matcher, needs_token));
        }
        let all = rules.iter().map(|(it, _)| it).chain(conditions.iter().map(|(it, _)| it));
        let is_exact = all.clone().all(|matcher| matcher.is_exact);
        let policy = program.policy(&mut Report::default()).unwrap();
        for (method, path) in METHODS.into_iter().flat_map(|method| TEXTS.map(|path| (method, path))) {
            let rule = rules.iter().find(|(matcher, _)| matcher.matches(method, path));
            // No token, and one of each issuer.
            let mut expected = match rule.map_or(0, |(_, needs)| *needs) {
                0 => [true; 3],
                1 => [false, true, false],
                2 => [true, false, true],
                _ => [false; 3],
            };
            let is_verified = rule.is_some_and(|(_, needs)| *needs != 0);
            for (_, needs_token) in conditions.iter().filter(|(matcher, _)| matcher.matches(method, path)) {
                expected[0] = false;
                if !needs_token || !is_verified {
                    expected = [false; 3];
                }
            }
            let found = decide(&policy, method, path);
            for (found, expected) in found.into_iter().zip(expected) {
                let what = || format!("{method} {path} {:?} {}", program.choices, policy["rules"]);
                assert!(!found || expected, "{}", what());
                assert!(found == expected || !is_exact, "{}", what());
                passed += usize::from(found);
                stricter += usize::from(found != expected);
            }
        }
    }
    assert!(passed > 1000 && stricter > 100, "{passed} {stricter}");
}

fn provider(issuer: &str) -> Provider {
    Provider {
        issuer: issuer.to_owned(),
        at: issuer.to_owned(),
        audiences: vec!["a".to_owned()],
        locations: Location::defaults(),
        subjects: vec![Needs::default()],
        keys: KeySource::Discovery,
        ..Provider::for_subjects()
    }
}

/// Returns whether a request passes without a token, with one of a.example, and with one of b.example.
fn decide(policy: &Map<String, Value>, method: &str, path: &str) -> [bool; 3] {
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let matches = |rule: &&Value| {
        let template = rule["path"].as_str().unwrap();
        let (template, rest) =
            template.strip_suffix("/**").map_or((template, false), |template| (template, true));
        let parts: Vec<&str> = template.split('/').skip(1).collect();
        let length = if rest { segments.len() >= parts.len() } else { segments.len() == parts.len() };
        let is_part = |(part, segment): (&&str, &&str)| {
            part == segment || (part.starts_with('{') && !segment.is_empty())
        };
        let is_method = rule["methods"].as_array().is_none_or(|methods| {
            methods.iter().any(|known| known == method || (known == "GET" && method == "HEAD"))
        });
        length && is_method && parts.iter().zip(&segments).all(is_part)
    };
    let Some(rule) = policy["rules"].as_array().unwrap().iter().find(matches) else { return [false; 3] };
    if rule["access"] == "public" {
        return [true; 3];
    }
    let is_refused = rule["claims"]["iss"] == "urn:keystile:refused";
    let accepts =
        |issuer: &str| !is_refused && rule["issuers"].as_array().unwrap().iter().any(|known| known == issuer);
    [rule["access"] == "optional", accepts("https://a.example"), accepts("https://b.example")]
}
