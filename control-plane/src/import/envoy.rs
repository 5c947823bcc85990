//! Reads `jwt_authn` and RBAC filters from an Envoy configuration.

use std::collections::BTreeMap;

use serde_json::Value;
use verdict::is_header_name;

use super::{
    ImportError, ImportOptions,
    condition::{ClaimValue, Condition, Test, TextMatch, TokenTest},
    needs::Needs,
    paths::{HostMatch, PathMatch},
    policy::Program,
    provider::{KeySource, Location, Provider},
    report::Report,
    requirement::Requirement,
    source::{Fields, Node, Result, member},
};

/// The names of the filters, which are also the keys of their metadata and of their configurations by route.
const JWT_AUTHN: &str = "envoy.filters.http.jwt_authn";
const RBAC: &str = "envoy.filters.http.rbac";

const JWT_AUTHN_TYPE: &str = "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication";
const JWT_AUTHN_ROUTE_TYPE: &str = "envoy.extensions.filters.http.jwt_authn.v3.PerRouteConfig";
const RBAC_TYPE: &str = "envoy.extensions.filters.http.rbac.v3.RBAC";
const RBAC_ROUTE_TYPE: &str = "envoy.extensions.filters.http.rbac.v3.RBACPerRoute";

/// The default of `clock_skew_seconds`.
pub(super) const DEFAULT_LEEWAY_SECONDS: u64 = 60;

const REFUSES: &str = "the policy refuses the requests for which the decision depends on it";
const BY_HAND: &str = "write a rule for these requests by hand, or keep the check at the upstream";

/// A list of HTTP filters with `jwt_authn` in it.
struct Chain<'v> {
    filters: Node<'v>,
    /// The routes beside it.
    routes: Option<Node<'v>>,
    has_remote_routes: bool,
    /// The name of the listener, if there is one.
    listener: Option<String>,
}

/// Reads an Envoy configuration, a part of it with `http_filters`, a list of filters, or one filter.
pub(super) fn read(
    document: &Value,
    options: &ImportOptions,
    report: &mut Report,
) -> Result<Program, ImportError> {
    let mut chains = Vec::new();
    find_chains(&Node::new(document, ""), None, &mut chains);
    if chains.is_empty() {
        let root = Node::new(document, "");
        let lists_filters = document.as_array().is_some_and(|items| items.iter().any(is_jwt_filter));
        if lists_filters {
            chains.push(Chain { filters: root, routes: None, has_remote_routes: false, listener: None });
        } else if is_jwt_filter(document) {
            return Reader::new(options, report).program(&[root], None).map_err(Into::into);
        } else if document.get("providers").is_some() {
            let mut reader = Reader::new(options, report);
            reader.read_jwt(&root.fields()?)?;
            return Ok(reader.finish()?);
        }
    }
    if let Some(name) = &options.listener {
        chains.retain(|chain| chain.listener.as_ref() == Some(name));
    }
    match chains.as_slice() {
        [] => Err(ImportError::NothingFound),
        [chain] => {
            if chain.has_remote_routes {
                report.dropped(
                    chain.filters.path.clone(),
                    "the routes come from a discovery service, so that this file does not contain their configurations of the filters",
                    "configurations by route are not carried over: routes that they restrict further are not restricted",
                    "import a file with `route_config` if routes have `typed_per_filter_config`",
                );
            }
            let filters = chain.filters.items()?;
            Ok(Reader::new(options, report).program(&filters, chain.routes.as_ref())?)
        }
        several => {
            let paths: Vec<String> = several
                .iter()
                .map(|chain| match &chain.listener {
                    Some(name) => format!("{name} ({})", chain.filters.path),
                    None => chain.filters.path.clone(),
                })
                .collect();
            Err(ImportError::SeveralChains(paths.join(", ")))
        }
    }
}

/// Finds all lists of HTTP filters that contain `jwt_authn`.
fn find_chains<'v>(node: &Node<'v>, listener: Option<&str>, chains: &mut Vec<Chain<'v>>) {
    match node.value {
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                find_chains(&Node::new(item, format!("{}[{at}]", node.path)), listener, chains);
            }
        }
        Value::Object(members) => {
            let text = |name: &str| members.get(name).and_then(Value::as_str);
            let is_listener = members.contains_key("filter_chains") || members.contains_key("filterChains");
            let listener = if is_listener { text("name").or(listener) } else { listener };
            for (name, value) in members {
                let path = member(&node.path, name);
                let is_filters = matches!(name.as_str(), "http_filters" | "httpFilters")
                    && value.as_array().is_some_and(|items| items.iter().any(is_jwt_filter));
                if is_filters {
                    let child = |names: [&str; 2]| {
                        names
                            .iter()
                            .find_map(|name| Some(Node::new(members.get(*name)?, member(&node.path, name))))
                    };
                    chains.push(Chain {
                        filters: Node::new(value, path),
                        routes: child(["route_config", "routeConfig"]),
                        has_remote_routes: ["rds", "scoped_routes", "scopedRoutes"]
                            .iter()
                            .any(|name| members.contains_key(*name)),
                        listener: listener.map(str::to_owned),
                    });
                } else {
                    find_chains(&Node::new(value, path), listener, chains);
                }
            }
        }
        _ => {}
    }
}

fn is_jwt_filter(filter: &Value) -> bool {
    type_of(filter).is_some_and(|kind| kind == JWT_AUTHN_TYPE)
        || filter.get("name").and_then(Value::as_str) == Some(JWT_AUTHN)
}

/// Returns the type of a filter's configuration, without its prefix.
fn type_of(filter: &Value) -> Option<&str> {
    let config = filter.get("typed_config").or_else(|| filter.get("typedConfig"))?;
    Some(type_name(config))
}

fn type_name(config: &Value) -> &str {
    let url = config.get("type_url").or_else(|| config.get("typeUrl")).or_else(|| config.get("@type"));
    let url = url.and_then(Value::as_str).unwrap_or_default();
    url.rsplit_once('/').map_or(url, |(_, name)| name)
}

/// Returns the message in a `typed_config`, also one in a `TypedStruct`.
fn message<'v>(config: &Node<'v>) -> Node<'v> {
    match config.value.get("value") {
        Some(value) if config.value.get("type_url").or_else(|| config.value.get("typeUrl")).is_some() => {
            Node::new(value, member(&config.path, "value"))
        }
        _ => config.clone(),
    }
}

/// What a route has instead of the configuration of the filters.
#[derive(Default)]
struct RouteOverride {
    requirement: Option<Requirement>,
    rbac: Option<Condition>,
}

struct Reader<'r> {
    options: &'r ImportOptions,
    report: &'r mut Report,
    program: Program,
    /// The number of each provider by its name.
    numbers: BTreeMap<String, usize>,
    requirements: BTreeMap<String, Requirement>,
    has_jwt: bool,
    /// The conditions of RBAC filters. Those before `jwt_authn` see no token.
    rbac: Vec<Condition>,
    /// The name of each RBAC filter, and whether it is behind `jwt_authn`.
    rbac_filters: Vec<(String, bool)>,
    payload_keys: Vec<(String, String)>,
    /// Other keys of the metadata, whose values depend on the token.
    opaque_keys: Vec<String>,
    used_keys: Vec<String>,
}

impl<'r> Reader<'r> {
    fn new(options: &'r ImportOptions, report: &'r mut Report) -> Self {
        Self {
            options,
            report,
            program: Program::default(),
            numbers: BTreeMap::new(),
            requirements: BTreeMap::new(),
            has_jwt: false,
            rbac: Vec::new(),
            rbac_filters: Vec::new(),
            payload_keys: Vec::new(),
            opaque_keys: Vec::new(),
            used_keys: Vec::new(),
        }
    }

    fn program(mut self, filters: &[Node<'_>], routes: Option<&Node<'_>>) -> Result<Program> {
        let mut jwt_name = JWT_AUTHN.to_owned();
        for filter in filters {
            let fields = filter.fields()?;
            let name = fields.text("name")?.unwrap_or_default();
            if fields.boolean("disabled")? {
                self.report.note(
                    filter.path.clone(),
                    "the filter is disabled",
                    "it is not carried over",
                    "nothing, unless routes enable it",
                );
                continue;
            }
            fields.ignore(&["is_optional"]);
            let config = fields.get("typed_config");
            let kind = config.as_ref().map_or("", |config| type_name(config.value)).to_owned();
            let is_jwt = kind == JWT_AUTHN_TYPE || (kind.is_empty() && name == JWT_AUTHN);
            let is_rbac = kind == RBAC_TYPE || (kind.is_empty() && name == RBAC);
            if !is_jwt && !is_rbac {
                // A filter within another one, by a matcher or a discovery service, has conditions that are not read.
                let text = filter.value.to_string();
                if [JWT_AUTHN_TYPE, RBAC_TYPE].iter().any(|kind| text.contains(kind)) {
                    return Err(filter.error(
                        "contains `jwt_authn` or RBAC within another filter: import the configuration without it",
                    ));
                }
                continue;
            }
            let Some(config) = config else {
                return Err(filter.error(
                    "has no `typed_config`: the importer needs the configuration of the filter itself",
                ));
            };
            fields.finish(self.report, REFUSES);
            let config = message(&config).fields()?;
            config.ignore(&["@type"]);
            if is_jwt {
                if self.has_jwt {
                    return Err(
                        filter.error("is a second `jwt_authn` filter in one list: import each on its own")
                    );
                }
                name.clone_into(&mut jwt_name);
                self.read_jwt(&config)?;
            } else {
                let condition = self.read_rbac(&config)?;
                let condition = if self.has_jwt { condition } else { without_tokens(condition) };
                self.rbac_filters.push((name.to_owned(), self.has_jwt));
                self.rbac.push(condition);
            }
        }
        if let Some(routes) = routes {
            self.read_routes(routes, &jwt_name)?;
        }
        self.finish()
    }

    fn finish(mut self) -> Result<Program> {
        for (at, key) in std::mem::take(&mut self.payload_keys) {
            if !self.used_keys.contains(&key) {
                self.report.dropped(
                    at,
                    "the payload is written to the metadata, and no RBAC filter in this list reads it",
                    "access logs, Lua, rate limits and other filters do not get the claims",
                    "use `identity.claims` for headers, or `filter_state` for the subject",
                );
            }
        }
        self.program.conditions = std::mem::take(&mut self.rbac);
        Ok(self.program)
    }

    fn read_jwt(&mut self, config: &Fields<'_>) -> Result<()> {
        self.has_jwt = true;
        config.ignore(&["@type"]);
        for (name, provider) in config.entries("providers")? {
            let number = self.read_provider(&provider)?;
            self.numbers.insert(name.to_owned(), number);
        }
        for (name, requirement) in config.entries("requirement_map")? {
            let requirement = self.read_requirement(&requirement)?;
            self.requirements.insert(name.to_owned(), requirement);
        }
        for rule in config.items("rules")? {
            let fields = rule.fields()?;
            let matcher = fields.get("match").ok_or_else(|| rule.error("has no `match`"))?;
            let condition = self.read_route_match(&matcher)?;
            let requirement = match (fields.get("requires"), fields.text("requirement_name")?) {
                (Some(requires), None) => self.read_requirement(&requires)?,
                (None, Some(name)) => self.named_requirement(name, &rule)?,
                (None, None) => Requirement::Nothing,
                (Some(_), Some(_)) => return Err(rule.error("has both `requires` and `requirement_name`")),
            };
            let is_partial = fields.finish(self.report, "the policy refuses the requests of this rule");
            let requirement = if is_partial { Requirement::Refuse } else { requirement };
            self.program.choices.push((condition, requirement));
        }
        if let Some(rules) = config.get("filter_state_rules") {
            self.report.dropped(
                rules.path,
                "requirements that depend on filter state",
                "the policy refuses the requests that no rule matches",
                "write a rule for each of these requests, by host, path and method",
            );
            self.program.choices.push((Condition::Always, Requirement::Refuse));
        }
        self.program.passes_preflights = config.boolean("bypass_cors_preflight")?;
        if config.boolean("strip_failure_response")? {
            self.report.note(
                member(&config.path, "strip_failure_response"),
                "responses to refused requests have no body in the source",
                "Keystile's have a body with a code, and never a part of the token",
                "choose the form in `answers.style`",
            );
        }
        config.ignore(&["stat_prefix"]);
        if config.finish(self.report, "the policy refuses all requests, since the member may restrict them") {
            self.program.choices.insert(0, (Condition::Always, Requirement::Refuse));
        }
        Ok(())
    }

    fn named_requirement(&self, name: &str, at: &Node<'_>) -> Result<Requirement> {
        let named = self.requirements.get(name).cloned();
        named.ok_or_else(|| at.error("`requirement_name` is not in `requirement_map`"))
    }

    /// Reads a provider. The policy accepts none of its tokens if it cannot express it, which is then reported.
    fn read_provider(&mut self, node: &Node<'_>) -> Result<usize> {
        let fields = node.fields()?;
        let issuer = fields.text("issuer")?.unwrap_or_default().to_owned();
        let audiences = fields.texts("audiences")?;
        let keys = self.read_keys(&fields)?;
        let (locations, has_other_locations) = self.read_locations(&fields)?;
        let forwards = fields.boolean("forward")?;
        let payload_key =
            fields.text("payload_in_metadata")?.filter(|key| !key.is_empty()).map(str::to_owned);
        if let Some(key) = &payload_key {
            self.payload_keys.push((member(&node.path, "payload_in_metadata"), key.clone()));
        }
        let spaced_claims = match fields.get("normalize_payload_in_metadata") {
            Some(normalize) => {
                let normalize = normalize.fields()?;
                let claims = normalize.texts("space_delimited_claims")?;
                normalize.finish(self.report, REFUSES);
                claims
            }
            None => Vec::new(),
        };
        for name in ["header_in_metadata", "failed_status_in_metadata"] {
            if let Some(key) = fields.text(name)?.filter(|key| !key.is_empty()) {
                self.opaque_keys.push(key.to_owned());
                self.report.dropped(
                    member(&node.path, name),
                    "metadata about the token",
                    "access logs and other filters do not get it",
                    "use `filter_state` (`reason`, `subject`, `key_id`)",
                );
            }
        }
        if let Some(header) = fields.text("forward_payload_header")?.filter(|header| !header.is_empty()) {
            self.report.dropped(
                member(&node.path, "forward_payload_header"),
                "a header with the payload of the token",
                "the policy removes the header from requests, so that no client can forge it, and the upstream does not get it",
                "use `identity.claims` for single claims, or `identity.assertion`",
            );
            self.program
                .removed_headers
                .extend(Some(header.to_ascii_lowercase()).filter(|name| is_header_name(name)));
        }
        fields.ignore(&["pad_forward_payload_header", "jwt_cache_config", "require_expiration"]);
        let mut claim_headers = Vec::new();
        for entry in fields.items("claim_to_headers")? {
            let entry_fields = entry.fields()?;
            let header =
                entry_fields.text("header_name")?.ok_or_else(|| entry.error("has no `header_name`"))?;
            let claim = entry_fields.text("claim_name")?.ok_or_else(|| entry.error("has no `claim_name`"))?;
            entry_fields.finish(self.report, "the header lacks what the member does");
            claim_headers.extend(self.claim_header(&entry, header, claim));
        }
        if fields.boolean("clear_route_cache")? {
            self.report.dropped(
                member(&node.path, "clear_route_cache"),
                "routes that depend on headers of the filter",
                "the route is chosen before the filter runs, so that such routes do not match",
                "choose the route by host and path, or put the decision into the upstream",
            );
        }
        let mut subjects = match fields.get("subjects") {
            Some(subjects) => self.read_subjects(&subjects)?,
            None => vec![Needs::default()],
        };
        let leeway_seconds = match fields.number("clock_skew_seconds")? {
            None | Some(0) => DEFAULT_LEEWAY_SECONDS,
            Some(seconds) => seconds,
        };
        let max_lifetime = fields.get("max_lifetime");
        let max_lifetime_seconds = max_lifetime.as_ref().map(Node::seconds).transpose()?;
        if let Some(lifetime) = max_lifetime {
            self.report.note(
                lifetime.path,
                "the time until the token expires is limited",
                "Keystile limits the time from `iat` to `exp` instead, so that a token without `iat`, or one of a longer \
                 lifetime that is about to expire, is refused",
                "raise `max_lifetime_seconds` if the issuer's tokens live longer",
            );
        }
        let is_partial = fields.finish(self.report, "the policy refuses the tokens of this provider");
        if is_partial || keys.is_none() {
            subjects.clear();
        }
        let provider = Provider {
            at: node.path.clone(),
            issuer,
            audiences,
            has_replaced_audiences: false,
            locations,
            has_other_locations,
            forwards,
            payload_key,
            spaced_claims,
            subjects,
            keys: keys.unwrap_or(KeySource::Discovery),
            leeway_seconds,
            max_lifetime_seconds,
            claim_headers,
        };
        Ok(add_provider(&mut self.program.providers, provider, self.report))
    }

    fn claim_header(&mut self, at: &Node<'_>, header: &str, claim: &str) -> Option<(String, String)> {
        claim_header(at, header, claim, self.report)
    }

    fn read_subjects(&mut self, node: &Node<'_>) -> Result<Vec<Needs>> {
        let (text, ignores_case) = self.read_string_match(node)?;
        let test = TokenTest::Claim {
            key: None,
            claim: vec!["sub".to_owned()],
            value: if ignores_case { ClaimValue::Other } else { ClaimValue::Text(text) },
            is_list: false,
        };
        Ok(super::condition::subject_needs(&node.path, test, self.report))
    }

    /// Returns where the keys are, or `None` if the control plane cannot read them there, which is then reported.
    fn read_keys(&mut self, fields: &Fields<'_>) -> Result<Option<KeySource>> {
        if let Some(remote) = fields.get("remote_jwks") {
            let remote_fields = remote.fields()?;
            let uri = remote_fields.get("http_uri").ok_or_else(|| remote.error("has no `http_uri`"))?;
            let uri_fields = uri.fields()?;
            let url = uri_fields.text("uri")?.ok_or_else(|| uri.error("has no `uri`"))?;
            uri_fields.ignore(&["cluster", "timeout"]);
            uri_fields.finish(self.report, "the control plane fetches the keys without it");
            remote_fields.ignore(&["cache_duration", "async_fetch", "retry_policy"]);
            remote_fields.finish(self.report, "the control plane fetches the keys without it");
            return Ok(Some(KeySource::Url(url.to_owned())));
        }
        let Some(local) = fields.get("local_jwks") else {
            return Err(fields.error("has neither `remote_jwks` nor `local_jwks`"));
        };
        let local_fields = local.fields()?;
        local_fields.ignore(&["watched_directory"]);
        let source = match (local_fields.text("inline_string")?, local_fields.text("filename")?) {
            (Some(text), _) => Some(KeySource::Inline(text.to_owned())),
            (None, Some(file)) => Some(KeySource::File(file.to_owned())),
            (None, None) => {
                self.report.dropped(
                    local.path.clone(),
                    "keys from a source other than `inline_string` and `filename`",
                    "the policy refuses the tokens of this provider",
                    "write the key set to a file, and name it in `local_jwks.filename`",
                );
                local_fields.ignore(&["inline_bytes", "environment_variable"]);
                None
            }
        };
        local_fields.finish(self.report, "the keys are read without it");
        Ok(source)
    }

    /// Returns the locations, and whether there are others that the policy cannot have.
    fn read_locations(&mut self, fields: &Fields<'_>) -> Result<(Vec<Location>, bool)> {
        let mut locations = Vec::new();
        let mut count = 0_usize;
        for header in fields.items("from_headers")? {
            count = count.saturating_add(1);
            let header_fields = header.fields()?;
            let name = header_fields.text("name")?.ok_or_else(|| header.error("has no `name`"))?;
            let prefix = header_fields.text("value_prefix")?.unwrap_or_default();
            header_fields.finish(self.report, "the policy looks for tokens without it");
            locations.extend(header_location(&header, name, prefix, self.report));
        }
        let named =
            [("from_params", Location::Query as fn(String) -> Location), ("from_cookies", Location::Cookie)];
        for (name, of) in named {
            for item in fields.items(name)? {
                count = count.saturating_add(1);
                locations.extend(named_location(&item, of, self.report)?);
            }
        }
        if count == 0 {
            return Ok((Location::defaults(), false));
        }
        let has_other = locations.len() < count;
        Ok((locations, has_other))
    }

    fn read_requirement(&mut self, node: &Node<'_>) -> Result<Requirement> {
        let fields = node.fields()?;
        let mut kinds = Vec::new();
        if let Some(name) = fields.text("provider_name")? {
            kinds.push(Requirement::Provider(self.provider_number(name, node)?, None));
        }
        if let Some(both) = fields.get("provider_and_audiences") {
            let both_fields = both.fields()?;
            let name =
                both_fields.text("provider_name")?.ok_or_else(|| both.error("has no `provider_name`"))?;
            let audiences = both_fields.texts("audiences")?;
            both_fields.finish(self.report, REFUSES);
            let number = self.provider_number(name, &both)?;
            let audiences = Some(audiences).filter(|audiences| !audiences.is_empty());
            if let Some(provider) = self.program.providers.get_mut(number) {
                provider.has_replaced_audiences |= audiences.is_some();
            }
            kinds.push(Requirement::Provider(number, audiences));
        }
        for (name, is_any) in [("requires_any", true), ("requires_all", false)] {
            let Some(list) = fields.get(name) else { continue };
            let list_fields = list.fields()?;
            let parts = list_fields
                .items("requirements")?
                .iter()
                .map(|part| self.read_requirement(part))
                .collect::<Result<Vec<_>>>()?;
            list_fields.finish(self.report, REFUSES);
            if parts.is_empty() {
                return Err(list.error("has no `requirements`"));
            }
            kinds.push(if is_any { Requirement::Any(parts) } else { Requirement::All(list.path, parts) });
        }
        if fields.get("allow_missing").is_some() {
            kinds.push(Requirement::AllowMissing);
        }
        if let Some(failed) = fields.get("allow_missing_or_failed") {
            kinds.push(Requirement::AllowMissingOrFailed(failed.path));
        }
        // A list would require one of `extract_only_without_validation` and similar members of later versions.
        if fields.finish(self.report, "the policy refuses the requests under this requirement") {
            return Ok(Requirement::Refuse);
        }
        match kinds.len() {
            0 => Ok(Requirement::Nothing),
            1 => Ok(kinds.swap_remove(0)),
            _ => Err(node.error("has more than one kind of requirement")),
        }
    }

    fn provider_number(&self, name: &str, at: &Node<'_>) -> Result<usize> {
        let number = self.numbers.get(name).copied();
        number.ok_or_else(|| at.error("names a provider that `providers` does not contain"))
    }

    fn read_route_match(&mut self, node: &Node<'_>) -> Result<Condition> {
        let fields = node.fields()?;
        let mut all = Vec::new();
        let ignores_case = fields.get("case_sensitive").is_some_and(|node| node.value == &Value::Bool(false));
        let whole = self.options.whole_segments;
        let path = |at: &str, path: PathMatch| Condition::test(at, Test::Path(path));
        let mut has_path = true;
        if let Some(prefix) = fields.get("prefix") {
            all.push(path(&prefix.path, PathMatch::prefix(prefix.text()?, whole)));
        } else if let Some(exact) = fields.get("path") {
            all.push(path(&exact.path, PathMatch::exact(exact.text()?)));
        } else if let Some(prefix) = fields.get("path_separated_prefix") {
            all.push(path(&prefix.path, PathMatch::path_separated_prefix(prefix.text()?)));
        } else if let Some(regex) = fields.get("safe_regex") {
            all.push(self.read_regex(&regex)?);
        } else if let Some(policy) = fields.get("path_match_policy") {
            let policy_fields = policy.fields()?;
            policy_fields.ignore(&["name"]);
            let config =
                policy_fields.get("typed_config").ok_or_else(|| policy.error("has no `typed_config`"))?;
            let config = message(&config).fields()?;
            config.ignore(&["@type"]);
            all.push(match config.text("path_template")? {
                Some(template) => path(&policy.path, PathMatch::uri_template(template)),
                None => Condition::test(&policy.path, Test::Unknown("an extension that matches paths")),
            });
            config.finish(self.report, REFUSES);
        } else if fields.get("connect_matcher").is_some() {
            all.push(Condition::test(&node.path, Test::Method("CONNECT".to_owned())));
        } else {
            has_path = false;
        }
        if ignores_case {
            self.program.ignores_case = true;
            // A path in another case matches too, so no path is known not to match.
            let other_case =
                Condition::test(&node.path, Test::Unknown("a path that is compared ignoring case"));
            all = vec![Condition::Any(vec![Condition::All(all), other_case])];
            self.report.note(
                member(&node.path, "case_sensitive"),
                "paths are compared ignoring case",
                "the policy refuses spellings in another case that match another rule (400, `path_read_alike`), since upstreams \
                 differ about them",
                "let clients use one spelling",
            );
        }
        for header in fields.items("headers")? {
            all.push(self.read_header_match(&header)?);
        }
        const OTHERS: [(&str, &str); 7] = [
            ("query_parameters", "a condition on query parameters"),
            ("runtime_fraction", "a fraction of requests"),
            ("grpc", "a condition on the content type of gRPC"),
            ("tls_context", "a condition on the client certificate"),
            ("dynamic_metadata", "a condition on metadata"),
            ("filter_state", "a condition on filter state"),
            ("cookies", "a condition on cookies"),
        ];
        for (name, what) in OTHERS {
            let Some(other) = fields.get(name) else { continue };
            if other.value.as_array().is_none_or(|items| !items.is_empty()) {
                all.push(Condition::test(other.path, Test::Unknown(what)));
            }
        }
        for name in fields.unread() {
            all.push(Condition::test(member(&node.path, name), Test::Unknown("a member that is unknown")));
        }
        if !has_path && fields.unread().is_empty() {
            return Err(
                node.error("matches no path: one of `prefix`, `path`, `safe_regex` and so on is required")
            );
        }
        Ok(Condition::All(all))
    }

    fn read_regex(&mut self, node: &Node<'_>) -> Result<Condition> {
        let fields = node.fields()?;
        let regex = fields.text("regex")?.ok_or_else(|| node.error("has no `regex`"))?;
        fields.ignore(&["google_re2"]);
        fields.finish(self.report, REFUSES);
        let paths = PathMatch::regex(regex, self.options.whole_segments).into_iter();
        Ok(Condition::Any(paths.map(|path| Condition::test(&node.path, Test::Path(path))).collect()))
    }

    /// Reads a string matcher. Returns whether it ignores case.
    fn read_string_match(&mut self, node: &Node<'_>) -> Result<(TextMatch, bool)> {
        let fields = node.fields()?;
        let mut found = Vec::new();
        if let Some(text) = fields.text("exact")? {
            found.push(TextMatch::Exact(text.to_owned()));
        }
        if let Some(text) = fields.text("prefix")? {
            found.push(TextMatch::Prefix(text.to_owned()));
        }
        if let Some(text) = fields.text("suffix")? {
            found.push(TextMatch::Suffix(text.to_owned()));
        }
        for name in ["safe_regex", "contains", "custom"] {
            if fields.get(name).is_some() {
                found.push(TextMatch::Other);
            }
        }
        let ignores_case = fields.boolean("ignore_case")?;
        let is_partial = fields.finish(self.report, REFUSES);
        match (found.len(), found.pop()) {
            (1, Some(text)) => Ok((if is_partial { TextMatch::Other } else { text }, ignores_case)),
            (0, _) if is_partial => Ok((TextMatch::Other, ignores_case)),
            _ => Err(node
                .error("must have exactly one of `exact`, `prefix`, `suffix`, `contains` and `safe_regex`")),
        }
    }

    fn read_header_match(&mut self, node: &Node<'_>) -> Result<Condition> {
        let fields = node.fields()?;
        let name = fields.text("name")?.ok_or_else(|| node.error("has no `name`"))?.to_ascii_lowercase();
        let inverted = fields.boolean("invert_match")?;
        fields.ignore(&["treat_missing_header_as_empty"]);
        let mut text = None;
        if let Some(matcher) = fields.get("string_match") {
            if name == ":method"
                && let Some(regex) = matcher.value.get("safe_regex").and_then(|regex| regex.get("regex"))
            {
                text = Some((TextMatch::Other, regex.as_str().map(str::to_owned)));
            } else {
                let (matched, ignores_case) = self.read_string_match(&matcher)?;
                // Hosts are compared ignoring case.
                let is_same = !ignores_case || matches!(&*name, ":authority" | "host");
                text = Some((if is_same { matched } else { TextMatch::Other }, None));
            }
        }
        type Kind = fn(String) -> TextMatch;
        const OLD: [(&str, Kind); 3] = [
            ("exact_match", TextMatch::Exact),
            ("prefix_match", TextMatch::Prefix),
            ("suffix_match", TextMatch::Suffix),
        ];
        for (member, of) in OLD {
            if let Some(value) = fields.text(member)? {
                text = Some((of(value.to_owned()), None));
            }
        }
        if let Some(regex) = fields.get("safe_regex_match") {
            let regex = regex.value.get("regex").and_then(Value::as_str).map(str::to_owned);
            text = Some((TextMatch::Other, regex));
        }
        fields.ignore(&["present_match", "range_match", "contains_match"]);
        let is_partial = fields.finish(self.report, REFUSES);
        let whole = self.options.whole_segments;
        let unknown = Test::Unknown("a condition on a header");
        let tests = match (&*name, text) {
            _ if is_partial => vec![unknown],
            (":method", Some((TextMatch::Exact(method), _))) => vec![Test::Method(method)],
            (":method", Some((_, Some(regex)))) => match methods_of(&regex) {
                Some(methods) => methods.into_iter().map(Test::Method).collect(),
                None => vec![Test::Unknown("a condition on the method")],
            },
            (":authority" | "host", Some((text, _))) => match text {
                TextMatch::Exact(host) => vec![Test::Host(HostMatch::pattern(&host))],
                TextMatch::Suffix(suffix) => vec![Test::Host(HostMatch::pattern(&format!("*{suffix}")))],
                _ => vec![Test::Host(HostMatch::Other)],
            },
            // The header contains the query too.
            (":path", Some((TextMatch::Prefix(prefix), _))) if !prefix.contains('?') => {
                vec![Test::Path(PathMatch::prefix(&prefix, whole))]
            }
            (":path", _) => vec![Test::Unknown("a condition on the path with its query")],
            _ => vec![unknown],
        };
        let any = Condition::Any(tests.into_iter().map(|test| Condition::test(&node.path, test)).collect());
        Ok(if inverted { any.negated() } else { any })
    }

    /// Reads an RBAC filter: the condition under which it lets requests pass.
    fn read_rbac(&mut self, config: &Fields<'_>) -> Result<Condition> {
        for name in ["shadow_rules", "shadow_matcher"] {
            if config.get(name).is_some() {
                self.report.note(
                    member(&config.path, name),
                    "shadow rules only count",
                    "they have no effect on which requests pass, and are not carried over",
                    "use `mode: report` in a rule to try it",
                );
            }
        }
        config.ignore(&["shadow_rules_stat_prefix", "rules_stat_prefix", "track_per_rule_stats"]);
        let mut condition = Condition::Always;
        if let Some(matcher) = config.get("matcher") {
            condition = Condition::test(matcher.path, Test::Unknown("a tree of matchers"));
        } else if let Some(rules) = config.get("rules") {
            condition = self.read_rbac_rules(&rules)?;
        }
        for name in config.unread() {
            let at = member(&config.path, name);
            let unknown = Condition::test(at, Test::Unknown("a member that is unknown"));
            condition = Condition::All(vec![condition, unknown]);
        }
        Ok(condition)
    }

    fn read_rbac_rules(&mut self, node: &Node<'_>) -> Result<Condition> {
        let fields = node.fields()?;
        let action = match fields.get("action") {
            None => "ALLOW",
            Some(action) => match action.value {
                Value::String(name) => name.as_str(),
                Value::Number(number) if number.as_u64() == Some(0) => "ALLOW",
                Value::Number(number) if number.as_u64() == Some(1) => "DENY",
                Value::Number(number) if number.as_u64() == Some(2) => "LOG",
                _ => return Err(action.error("must be ALLOW, DENY or LOG")),
            },
        };
        let mut policies = Vec::new();
        for (_, policy) in fields.entries("policies")? {
            let policy_fields = policy.fields()?;
            let permissions = self.read_list(&policy_fields.items("permissions")?, Self::read_permission)?;
            let principals = self.read_list(&policy_fields.items("principals")?, Self::read_principal)?;
            let mut all = vec![permissions, principals];
            for name in ["condition", "checked_condition", "cel_config"] {
                if let Some(condition) = policy_fields.get(name) {
                    all.push(Condition::test(condition.path, Test::Unknown("an expression (CEL)")));
                }
            }
            for name in policy_fields.unread() {
                all.push(Condition::test(
                    member(&policy.path, name),
                    Test::Unknown("a member that is unknown"),
                ));
            }
            policies.push(Condition::All(all));
        }
        fields.ignore(&["audit_logging_options"]);
        let mut matched = Condition::Any(policies);
        for name in fields.unread() {
            let unknown =
                Condition::test(member(&node.path, name), Test::Unknown("a member that is unknown"));
            // Neither ALLOW nor DENY can rely on such a list.
            let both = vec![matched, unknown];
            matched = if action == "DENY" { Condition::Any(both) } else { Condition::All(both) };
        }
        match action {
            "ALLOW" => Ok(matched),
            "DENY" => Ok(matched.negated()),
            "LOG" => {
                self.report.note(
                    node.path.clone(),
                    "the action LOG lets all requests pass",
                    "it has no effect on which requests pass, and is not carried over",
                    "nothing",
                );
                Ok(Condition::Always)
            }
            _ => Err(node.error("`action` must be ALLOW, DENY or LOG")),
        }
    }

    fn read_list(
        &mut self,
        items: &[Node<'_>],
        read: fn(&mut Self, &Node<'_>) -> Result<Condition>,
    ) -> Result<Condition> {
        Ok(Condition::Any(items.iter().map(|item| read(self, item)).collect::<Result<_>>()?))
    }

    fn read_permission(&mut self, node: &Node<'_>) -> Result<Condition> {
        let fields = node.fields()?;
        let [(name, value)] = fields_with_value(&fields)[..] else {
            return Err(node.error("must have exactly one kind of permission"));
        };
        let value = Node::new(value, member(&node.path, name));
        Ok(match snake_case(name).as_str() {
            "and_rules" => Condition::All(self.read_rules(&value, "rules", Self::read_permission)?),
            "or_rules" => Condition::Any(self.read_rules(&value, "rules", Self::read_permission)?),
            "not_rule" => self.read_permission(&value)?.negated(),
            "any" => Condition::Always,
            "header" => self.read_header_match(&value)?,
            "url_path" => self.read_url_path(&value)?,
            "uri_template" => self.read_uri_template(&value)?,
            "metadata" => self.read_metadata(&value)?,
            "sourced_metadata" => self.read_sourced_metadata(&value)?,
            "destination_ip" | "destination_port" | "destination_port_range" => {
                Condition::test(value.path, Test::Unknown("a condition on the destination address"))
            }
            "requested_server_name" => Condition::test(value.path, Test::Unknown("a condition on TLS (SNI)")),
            _ => Condition::test(
                value.path,
                Test::Unknown("a kind of permission that the policy cannot express"),
            ),
        })
    }

    fn read_principal(&mut self, node: &Node<'_>) -> Result<Condition> {
        let fields = node.fields()?;
        let [(name, value)] = fields_with_value(&fields)[..] else {
            return Err(node.error("must have exactly one kind of principal"));
        };
        let value = Node::new(value, member(&node.path, name));
        Ok(match snake_case(name).as_str() {
            "and_ids" => Condition::All(self.read_rules(&value, "ids", Self::read_principal)?),
            "or_ids" => Condition::Any(self.read_rules(&value, "ids", Self::read_principal)?),
            "not_id" => self.read_principal(&value)?.negated(),
            "any" => Condition::Always,
            "header" => self.read_header_match(&value)?,
            "url_path" => self.read_url_path(&value)?,
            "metadata" => self.read_metadata(&value)?,
            "sourced_metadata" => self.read_sourced_metadata(&value)?,
            "source_ip" | "direct_remote_ip" | "remote_ip" => {
                Condition::test(value.path, Test::Unknown("a condition on the client address"))
            }
            "authenticated" => {
                Condition::test(value.path, Test::Unknown("a condition on the client certificate"))
            }
            _ => Condition::test(
                value.path,
                Test::Unknown("a kind of principal that the policy cannot express"),
            ),
        })
    }

    fn read_rules(
        &mut self,
        node: &Node<'_>,
        name: &str,
        read: fn(&mut Self, &Node<'_>) -> Result<Condition>,
    ) -> Result<Vec<Condition>> {
        let fields = node.fields()?;
        let all = fields.items(name)?.iter().map(|item| read(self, item)).collect();
        fields.finish(self.report, REFUSES);
        all
    }

    fn read_uri_template(&mut self, node: &Node<'_>) -> Result<Condition> {
        let fields = node.fields()?;
        let config = fields.get("typed_config").ok_or_else(|| node.error("has no `typed_config`"))?;
        Ok(match message(&config).value.get("path_template").and_then(Value::as_str) {
            Some(template) => Condition::test(&node.path, Test::Path(PathMatch::uri_template(template))),
            None => Condition::test(&node.path, Test::Unknown("an extension that matches paths")),
        })
    }

    fn read_url_path(&mut self, node: &Node<'_>) -> Result<Condition> {
        let fields = node.fields()?;
        let path = fields.get("path").ok_or_else(|| node.error("has no `path`"))?;
        fields.finish(self.report, REFUSES);
        if let Some(regex) = path.value.get("safe_regex").or_else(|| path.value.get("safeRegex")) {
            return self.read_regex(&Node::new(regex, member(&path.path, "safe_regex")));
        }
        let (text, ignores_case) = self.read_string_match(&path)?;
        let matcher = match text {
            _ if ignores_case => {
                return Ok(Condition::test(&path.path, Test::Unknown("a path that ignores case")));
            }
            TextMatch::Exact(text) => PathMatch::exact(&text),
            TextMatch::Prefix(text) => PathMatch::prefix(&text, self.options.whole_segments),
            TextMatch::Suffix(text) => PathMatch::Suffix(text),
            _ => {
                return Ok(Condition::test(
                    &path.path,
                    Test::Unknown("a form of path that templates cannot express"),
                ));
            }
        };
        Ok(Condition::test(&path.path, Test::Path(matcher)))
    }

    fn read_sourced_metadata(&mut self, node: &Node<'_>) -> Result<Condition> {
        let fields = node.fields()?;
        let source = fields.text("metadata_source")?.unwrap_or("DYNAMIC");
        let matcher =
            fields.get("metadata_matcher").ok_or_else(|| node.error("has no `metadata_matcher`"))?;
        if source != "DYNAMIC" || fields.finish(self.report, REFUSES) {
            return Ok(Condition::test(&node.path, Test::Unknown("a condition on metadata of the route")));
        }
        self.read_metadata(&matcher)
    }

    /// Reads a metadata matcher. The claims of the token are in the metadata of `jwt_authn`.
    fn read_metadata(&mut self, node: &Node<'_>) -> Result<Condition> {
        let fields = node.fields()?;
        let filter = fields.text("filter")?.unwrap_or_default();
        let inverted = fields.boolean("invert")?;
        let mut keys = Vec::new();
        for segment in fields.items("path")? {
            let segment_fields = segment.fields()?;
            keys.push(segment_fields.text("key")?.ok_or_else(|| segment.error("has no `key`"))?.to_owned());
            segment_fields.finish(self.report, REFUSES);
        }
        let value = fields.get("value").ok_or_else(|| node.error("has no `value`"))?;
        if fields.finish(self.report, REFUSES) || filter != JWT_AUTHN {
            return Ok(Condition::test(
                &node.path,
                Test::Unknown("a condition on metadata of another filter"),
            ));
        }
        let mut keys = keys.into_iter();
        let Some(key) = keys.next() else { return Err(node.error("has no `path`")) };
        self.used_keys.push(key.clone());
        let claim: Vec<String> = keys.collect();
        let condition = if self.opaque_keys.contains(&key) {
            Condition::test(&node.path, Test::Unknown("a condition on the header or the status of a token"))
        } else if claim.is_empty() {
            Condition::test(&node.path, Test::Unknown("a condition on a payload as a whole"))
        } else {
            self.read_claim_value(&value, &key, &claim, false)?
        };
        Ok(if inverted { condition.negated() } else { condition })
    }

    fn read_claim_value(
        &mut self,
        node: &Node<'_>,
        key: &str,
        claim: &[String],
        is_list: bool,
    ) -> Result<Condition> {
        let fields = node.fields()?;
        let [(name, value)] = fields_with_value(&fields)[..] else {
            return Err(node.error("must have exactly one kind of matcher"));
        };
        let inner = Node::new(value, member(&node.path, name));
        let value = match snake_case(name).as_str() {
            "string_match" => {
                let (text, ignores_case) = self.read_string_match(&inner)?;
                if ignores_case { ClaimValue::Other } else { ClaimValue::Text(text) }
            }
            "bool_match" => ClaimValue::Scalar(Value::from(inner.boolean()?)),
            "double_match" => match inner.value.get("exact") {
                Some(number) if number.is_u64() || number.is_i64() => ClaimValue::Scalar(number.clone()),
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "checked to be a whole number in the range"
                )]
                Some(number) => match number.as_f64() {
                    Some(whole) if whole.fract() == 0.0 && whole.abs() < 9e15 => {
                        ClaimValue::Scalar(Value::from(whole as i64))
                    }
                    _ => ClaimValue::Other,
                },
                None => ClaimValue::Other,
            },
            "present_match" if inner.boolean()? => ClaimValue::Text(TextMatch::Present),
            "list_match" if !is_list => {
                let list = inner.fields()?;
                let one_of = list.get("one_of").ok_or_else(|| inner.error("has no `one_of`"))?;
                list.finish(self.report, REFUSES);
                return self.read_claim_value(&one_of, key, claim, true);
            }
            "or_match" => {
                let either = inner.fields()?;
                let matchers = either.items("value_matchers")?;
                either.finish(self.report, REFUSES);
                let all = matchers.iter().map(|matcher| self.read_claim_value(matcher, key, claim, is_list));
                return Ok(Condition::Any(all.collect::<Result<_>>()?));
            }
            _ => ClaimValue::Other,
        };
        let test = TokenTest::Claim { key: Some(key.to_owned()), claim: claim.to_vec(), value, is_list };
        Ok(Condition::test(&node.path, Test::Token(test)))
    }

    /// Reads the configurations by route, which replace those of the filters.
    fn read_routes(&mut self, node: &Node<'_>, jwt: &str) -> Result<()> {
        let config = node.fields()?;
        let outer = self.read_override(&config, jwt)?;
        let mut overrides: Vec<(Condition, RouteOverride)> = Vec::new();
        let mut hosts = Vec::new();
        for host in config.items("virtual_hosts")? {
            let fields = host.fields()?;
            if fields.get("matcher").is_some() {
                self.report.dropped(
                    member(&host.path, "matcher"),
                    "routes that a matching tree selects",
                    "the policy refuses all requests",
                    "import a configuration with `routes`",
                );
                self.program.choices.insert(0, (Condition::Always, Requirement::Refuse));
            }
            let of_host = self.read_override(&fields, jwt)?;
            let mut routes = Vec::new();
            for route in fields.items("routes")? {
                let route_fields = route.fields()?;
                let mut own = self.read_override(&route_fields, jwt)?;
                if self.has_cluster_overrides(&route_fields, jwt) {
                    own.requirement = Some(Requirement::Refuse);
                }
                let matcher = route_fields.get("match").ok_or_else(|| route.error("has no `match`"))?;
                let requirement = own
                    .requirement
                    .or_else(|| of_host.requirement.clone())
                    .or_else(|| outer.requirement.clone());
                let permits = own.rbac.or_else(|| of_host.rbac.clone()).or_else(|| outer.rbac.clone());
                routes.push((self.read_route_match(&matcher)?, requirement, permits));
            }
            for domain in fields.items("domains")? {
                let text = domain.text()?.to_owned();
                hosts.push((domain_rank(&text), text, domain.path, routes.clone()));
            }
        }
        // The most specific host applies, and of its routes the first that matches.
        hosts.sort_by_key(|(rank, ..)| *rank);
        let mut hosts_before = Vec::new();
        for (_, domain, at, routes) in hosts {
            let host = match domain.as_str() {
                "*" => Condition::Always,
                domain => Condition::test(at, Test::Host(HostMatch::pattern(domain))),
            };
            let mut before = hosts_before.clone();
            for (matcher, requirement, rbac) in routes {
                let first = Condition::All(vec![
                    host.clone(),
                    matcher.clone(),
                    Condition::Any(before.clone()).negated(),
                ]);
                overrides.push((first, RouteOverride { requirement, rbac }));
                before.push(matcher);
            }
            hosts_before.push(host);
        }
        // Without any override, routes have no effect on which requests pass.
        let has = |is: fn(&RouteOverride) -> bool| overrides.iter().any(|(_, it)| is(it));
        if has(|it| it.requirement.is_some()) {
            let mut choices = Vec::new();
            for (condition, it) in &overrides {
                choices.extend(it.requirement.clone().map(|requirement| (condition.clone(), requirement)));
            }
            choices.append(&mut self.program.choices);
            self.program.choices = choices;
        }
        if has(|it| it.rbac.is_some()) {
            let replaced: Vec<Condition> = overrides
                .iter()
                .filter_map(|(condition, it)| {
                    let permits = it.rbac.clone()?;
                    Some(Condition::All(vec![condition.clone(), permits]))
                })
                .collect();
            let elsewhere: Vec<Condition> = overrides
                .iter()
                .filter(|(_, it)| it.rbac.is_some())
                .map(|(condition, _)| condition.clone().negated())
                .collect();
            let general = Condition::All([elsewhere, std::mem::take(&mut self.rbac)].concat());
            self.rbac = vec![Condition::Any([vec![general], replaced].concat())];
        }
        Ok(())
    }

    /// Returns whether the clusters of a route have configurations of the filters, which is then reported.
    fn has_cluster_overrides(&mut self, route: &Fields<'_>, jwt: &str) -> bool {
        let Some(action) = route.get("route") else { return false };
        let clusters = action.value.get("weighted_clusters").or_else(|| action.value.get("weightedClusters"));
        let text = clusters.map(Value::to_string).unwrap_or_default();
        let rbac = self.rbac_filters.iter().map(|(name, _)| name.as_str());
        let has_overrides = rbac.chain([jwt]).any(|name| text.contains(&format!("{name:?}:")));
        if has_overrides {
            self.report.dropped(
                action.path,
                "configurations of the filters by weighted cluster",
                "the policy refuses the requests of the route",
                "give the route one configuration",
            );
        }
        has_overrides
    }

    /// Envoy finds the configuration by the name of the filter, and ignores those of other names.
    fn read_override(&mut self, fields: &Fields<'_>, jwt: &str) -> Result<RouteOverride> {
        let mut found = RouteOverride::default();
        for (name, config) in fields.entries("typed_per_filter_config")? {
            let kind = type_name(config.value).to_owned();
            let inner = message(&config);
            if name == jwt {
                found.requirement = Some(self.read_jwt_override(&inner, &kind)?);
            } else if self.rbac_filters.iter().any(|(known, _)| known == name) {
                found.rbac = Some(match self.rbac_filters.as_slice() {
                    [(_, true)] => self.read_rbac_override(&inner, &kind)?,
                    // It replaces the conditions of one filter, and those of the others still apply.
                    _ => {
                        self.report.dropped(
                            config.path,
                            "the configuration of one of several RBAC filters, or of one before `jwt_authn`, by route",
                            "the policy refuses the requests of the route",
                            "put the conditions into one RBAC filter behind `jwt_authn`",
                        );
                        Condition::Always.negated()
                    }
                });
            } else if kind == JWT_AUTHN_ROUTE_TYPE || kind == RBAC_ROUTE_TYPE {
                self.report.note(
                    config.path,
                    "a configuration by route for a filter that is not in the list",
                    "the source ignores it, and so does the policy",
                    "name the filter as in `http_filters`, if it should apply",
                );
            }
        }
        Ok(found)
    }

    fn read_jwt_override(&mut self, node: &Node<'_>, kind: &str) -> Result<Requirement> {
        let fields = node.fields()?;
        fields.ignore(&["@type", "config", "is_optional"]);
        if kind != JWT_AUTHN_ROUTE_TYPE {
            let disabled = fields.boolean("disabled")?;
            return Ok(if disabled { Requirement::Nothing } else { self.unknown_override(node) });
        }
        if fields.boolean("disabled")? {
            return Ok(Requirement::Nothing);
        }
        match fields.text("requirement_name")? {
            // Envoy answers 403.
            Some(name) => Ok(self.requirements.get(name).cloned().unwrap_or(Requirement::Refuse)),
            None => Ok(self.unknown_override(node)),
        }
    }

    fn unknown_override(&mut self, node: &Node<'_>) -> Requirement {
        self.report.dropped(
            node.path.clone(),
            "a configuration by route of an unknown form",
            "the policy refuses the requests of the route",
            BY_HAND,
        );
        Requirement::Refuse
    }

    fn read_rbac_override(&mut self, node: &Node<'_>, kind: &str) -> Result<Condition> {
        let fields = node.fields()?;
        fields.ignore(&["@type"]);
        if kind != RBAC_ROUTE_TYPE {
            let disabled = fields.boolean("disabled")?;
            let unknown = Test::Unknown("a configuration by route of an unknown form");
            return Ok(if disabled { Condition::Always } else { Condition::test(&node.path, unknown) });
        }
        match fields.get("rbac") {
            Some(rbac) => self.read_rbac(&rbac.fields()?),
            // RBAC does not run for the route.
            None => Ok(Condition::Always),
        }
    }
}

/// Returns the members of an object that are not `null`, if they are of one kind.
fn fields_with_value<'v>(fields: &Fields<'v>) -> Vec<(&'v str, &'v Value)> {
    let names = fields.unread();
    let all: Vec<_> = names.into_iter().filter_map(|name| Some((name, fields.get(name)?.value))).collect();
    all
}

fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

/// Returns a key that orders the domains of virtual hosts as Envoy searches them.
fn domain_rank(domain: &str) -> (u8, std::cmp::Reverse<usize>) {
    let kind = match (domain, domain.starts_with('*'), domain.ends_with('*')) {
        ("*", ..) => 3,
        (_, true, _) => 1,
        (_, _, true) => 2,
        _ => 0,
    };
    (kind, std::cmp::Reverse(domain.len()))
}

/// Returns the methods of a regular expression such as `GET|POST`.
fn methods_of(regex: &str) -> Option<Vec<String>> {
    let text = regex.strip_prefix('^').unwrap_or(regex);
    let text = text.strip_suffix('$').unwrap_or(text);
    let text = text.strip_prefix('(').and_then(|text| text.strip_suffix(')')).unwrap_or(text);
    let methods: Vec<String> = text.split('|').map(str::to_owned).collect();
    let is_method =
        |method: &String| !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase());
    methods.iter().all(is_method).then_some(methods)
}

/// Returns the condition for a filter that sees no token.
fn without_tokens(condition: Condition) -> Condition {
    match condition {
        Condition::Test(_, Test::Token(_)) => Condition::Never,
        Condition::Not(condition) => without_tokens(*condition).negated(),
        Condition::All(all) => Condition::All(all.into_iter().map(without_tokens).collect()),
        Condition::Any(all) => Condition::Any(all.into_iter().map(without_tokens).collect()),
        condition => condition,
    }
}

/// Adds a provider, and returns its number. If the policy cannot express it, it accepts none of its tokens, which is then
/// reported.
pub(super) fn add_provider(
    providers: &mut Vec<Provider>,
    mut provider: Provider,
    report: &mut Report,
) -> usize {
    if !provider.subjects.is_empty()
        && let Some((what, advice)) = provider_problem(&provider, providers)
    {
        report.dropped(provider.at.clone(), what, "the policy refuses the tokens of this provider", advice);
        provider.subjects.clear();
    }
    if provider.audiences.is_empty() && !provider.subjects.is_empty() {
        report.note(
            provider.at.clone(),
            "the provider accepts tokens for any audience",
            "the policy does too (`audience_claim` is `iss`), so that a token for another service passes (RFC 8725 section \
             3.9)",
            "remove `audience_claim` from the policy, and list the values of `aud` for your service in `audiences`",
        );
    }
    if provider.leeway_seconds > 300 {
        report.note(
            provider.at.clone(),
            "the clock may differ by more than 300 seconds",
            "the policy permits at most 300 seconds",
            "correct the clocks",
        );
    }
    providers.push(provider);
    providers.len().saturating_sub(1)
}

/// Returns why the policy cannot accept tokens of a provider, and what to do.
fn provider_problem(provider: &Provider, others: &[Provider]) -> Option<(&'static str, &'static str)> {
    if provider.issuer.is_empty() {
        return Some((
            "the provider has no `issuer` and accepts tokens with any `iss`",
            "name the issuer; Keystile finds the keys of a token by its issuer",
        ));
    }
    let is_pattern = |text: &String| {
        text.contains('*')
            || text.contains(".+")
            || text.contains(['{', '}'])
            || text.starts_with('^')
            || text.ends_with('$')
    };
    let has_pattern = is_pattern(&provider.issuer) || provider.audiences.iter().any(is_pattern);
    if provider.issuer.contains('#') || has_pattern {
        return Some((
            "an issuer or an audience has characters of a pattern (`*`, `{`, `^`, `$`, `#`), which both filters compare as they \
             are",
            "write out the values",
        ));
    }
    if let KeySource::Inline(text) = &provider.keys
        && let Some(problem) = key_set_problem(text)
    {
        return Some((problem, "publish the public keys of the issuer as a key set (RFC 7517)"));
    }
    let is_other = |other: &&Provider| {
        other.issuer == provider.issuer && !other.subjects.is_empty() && other.keys != provider.keys
    };
    others.iter().find(is_other).map(|_| {
        (
            "another provider has the same `issuer` with other keys",
            "publish the keys of the issuer in one key set",
        )
    })
}

/// Returns what is wrong with an inline key set, without quoting it.
fn key_set_problem(text: &str) -> Option<&'static str> {
    let Ok(set) = serde_json::from_str::<Value>(text) else {
        return Some("the inline key set is not JSON");
    };
    let Some(keys) = set.get("keys").and_then(Value::as_array) else {
        return Some("the inline key set has no `keys`");
    };
    let is_symmetric = |key: &Value| key.get("kty").and_then(Value::as_str) == Some("oct");
    keys.iter().any(is_symmetric).then_some(
        "the key set has symmetric keys (HS256 and so on), with which every edge could issue tokens of this issuer",
    )
}

/// Returns the header and the claim as the policy writes them, or reports a header that it cannot have.
pub(super) fn claim_header(
    at: &Node<'_>,
    header: &str,
    claim: &str,
    report: &mut Report,
) -> Option<(String, String)> {
    let header = header.to_ascii_lowercase();
    if !is_header_name(&header) {
        report.dropped(
            at.path.clone(),
            "a header of HTTP framing, or with other characters than letters, digits, `-` and `_`",
            "the upstream does not get the claim",
            "rename the header",
        );
        return None;
    }
    let claim: Vec<String> = claim.split('.').map(str::to_owned).collect();
    Some((header, super::condition::claim_name(&claim)))
}

/// Returns a header as a location of tokens, or reports one that the policy cannot have.
pub(super) fn header_location(
    at: &Node<'_>,
    name: &str,
    prefix: &str,
    report: &mut Report,
) -> Option<Location> {
    const REFUSES: &str = "the policy does not find tokens there, and refuses requests without a token where the source checks it";
    let name = name.to_ascii_lowercase();
    let is_visible = prefix.bytes().all(|byte| (byte.is_ascii_graphic() || byte == b' ') && byte != b',');
    if !is_header_name(&name) || name == "cookie" || !is_visible {
        let what = "a header or a prefix with characters that the policy does not permit there";
        report.dropped(at.path.clone(), what, REFUSES, "let clients send the token in another header");
        return None;
    }
    if !prefix.is_empty() && !prefix.ends_with(' ') {
        report.note(
            at.path.clone(),
            "the prefix may be anywhere in the header, with other characters between it and the token",
            "the policy accepts it only at the beginning, directly before the token",
            "add what precedes the token to `prefix` in the policy",
        );
    }
    Some(Location::Header { name, prefix: prefix.to_owned() })
}

/// Returns a query parameter or cookie as a location of tokens, or reports one that the policy cannot have.
pub(super) fn named_location(
    at: &Node<'_>,
    of: fn(String) -> Location,
    report: &mut Report,
) -> Result<Option<Location>> {
    let name = at.text()?;
    let is_permitted = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    if name.is_empty() || !name.bytes().all(is_permitted) {
        report.dropped(
            at.path.clone(),
            "a name with other characters than letters, digits, `-`, `.`, `_` and `~`",
            "the policy does not find tokens there, and refuses requests without a token where the source checks it",
            "let clients send the token under another name",
        );
        return Ok(None);
    }
    Ok(Some(of(name.to_owned())))
}
