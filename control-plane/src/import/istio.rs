//! Reads Istio's RequestAuthentication and AuthorizationPolicy.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use verdict::is_header_name;

use super::{
    ImportError, ImportOptions,
    condition::{ClaimValue, Condition, Test, TextMatch, TokenTest},
    envoy::{DEFAULT_LEEWAY_SECONDS, add_provider, claim_header, header_location, named_location},
    needs::Needs,
    paths::{HostMatch, PathMatch},
    policy::Program,
    provider::{KeySource, Location, Provider},
    report::Report,
    requirement::Requirement,
    source::{Fields, Node, Result, member},
};

const REFUSES: &str = "the policy refuses the requests for which the decision depends on it";

/// The claims that Istio splits at spaces.
const SPACED_CLAIMS: [&str; 2] = ["scope", "permission"];

/// Returns whether a document is a Kubernetes object.
pub(super) fn is_object(document: &Value) -> bool {
    document.get("kind").is_some_and(Value::is_string)
        && document.get("apiVersion").is_some_and(Value::is_string)
}

/// A policy, and the workloads that it applies to.
struct Object<'v> {
    kind: String,
    namespace: String,
    selector: Selector,
    spec: Option<Node<'v>>,
    path: String,
    is_dry_run: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Selector {
    All,
    Labels(BTreeMap<String, String>),
    /// A Gateway or a Service: kind and name.
    Target(String, String),
}

/// Reads all documents.
pub(super) fn read(
    documents: &[Value],
    options: &ImportOptions,
    report: &mut Report,
) -> Result<Program, ImportError> {
    let mut objects = Vec::new();
    for (at, document) in documents.iter().enumerate() {
        let path = if documents.len() == 1 { String::new() } else { format!("[{at}]") };
        find_objects(&Node::new(document, path), &mut objects, report)?;
    }
    let objects = of_one_workload(objects, options, report)?;
    if objects.is_empty() {
        return Err(ImportError::NothingFound);
    }
    let mut reader = Reader { options, report, program: Program::default() };
    let (mut allow, mut deny) = (None, Vec::new());
    for object in &objects {
        if object.kind == "RequestAuthentication" {
            reader.read_authentication(object)?;
        }
    }
    for object in objects.iter().filter(|object| object.kind == "AuthorizationPolicy") {
        let (action, matched) = reader.read_authorization(object)?;
        match action {
            Action::Allow => allow.get_or_insert_with(Vec::new).push(matched),
            Action::Deny => deny.push(matched),
            Action::None => {}
        }
    }
    let Reader { mut program, .. } = reader;
    // A token may be missing, and must be valid if there is one.
    let providers = (0..program.providers.len()).map(|number| Requirement::Provider(number, None));
    let requirement = Requirement::Any(providers.chain([Requirement::AllowMissing]).collect());
    let has_authentication = objects.iter().any(|object| object.kind == "RequestAuthentication");
    program.choices =
        vec![(Condition::Always, if has_authentication { requirement } else { Requirement::Nothing })];
    program.conditions = deny.into_iter().map(Condition::negated).collect();
    program.conditions.extend(allow.map(Condition::Any));
    Ok(program)
}

/// Finds the policies in a document, also in a `List`.
fn find_objects<'v>(node: &Node<'v>, objects: &mut Vec<Object<'v>>, report: &mut Report) -> Result<()> {
    let fields = node.fields()?;
    let kind = fields.text("kind")?.unwrap_or_default();
    if kind.ends_with("List") {
        for item in fields.items("items")? {
            find_objects(&item, objects, report)?;
        }
        return Ok(());
    }
    if !matches!(kind, "RequestAuthentication" | "AuthorizationPolicy") {
        report.note(
            node.path.clone(),
            "an object that is neither a RequestAuthentication nor an AuthorizationPolicy",
            "it is not read",
            "nothing, unless it restricts requests (an EnvoyFilter, for example)",
        );
        return Ok(());
    }
    let version = fields.text("api_version")?.unwrap_or_default();
    if !version.starts_with("security.istio.io/") {
        return Err(node.error("`apiVersion` must be security.istio.io/v1 or v1beta1"));
    }
    fields.ignore(&["status"]);
    let spec = fields.get("spec");
    let metadata = fields.get("metadata");
    fields.finish(report, REFUSES);
    let text = |pointer: &str| metadata.as_ref()?.value.pointer(pointer)?.as_str();
    let namespace = text("/namespace").unwrap_or_default().to_owned();
    let is_dry_run = text("/annotations/istio.io~1dry-run") == Some("true");
    let selector = spec.as_ref().map_or(Ok(Selector::All), read_selector)?;
    objects.push(Object {
        kind: kind.to_owned(),
        namespace,
        selector,
        spec,
        path: node.path.clone(),
        is_dry_run,
    });
    Ok(())
}

fn read_selector(spec: &Node<'_>) -> Result<Selector> {
    let fields = spec.fields()?;
    if let Some(selector) = fields.get("selector") {
        let labels = selector.fields()?.entries("match_labels")?;
        let labels: BTreeMap<String, String> = labels
            .into_iter()
            .map(|(name, value)| Ok((name.to_owned(), value.text()?.to_owned())))
            .collect::<Result<_>>()?;
        return Ok(if labels.is_empty() { Selector::All } else { Selector::Labels(labels) });
    }
    let target = fields.get("target_ref").or_else(|| fields.items("target_refs").ok()?.into_iter().next());
    if fields.items("target_refs")?.len() > 1 {
        return Err(spec.error("has several `targetRefs`: import one policy for each"));
    }
    let Some(target) = target else { return Ok(Selector::All) };
    let target = target.fields()?;
    let part = |name| target.text(name).map(|text| text.unwrap_or_default().to_owned());
    Ok(Selector::Target(part("kind")?, part("name")?))
}

/// Returns the objects of the workload that the options name, or of the only one.
fn of_one_workload<'v>(
    objects: Vec<Object<'v>>,
    options: &ImportOptions,
    report: &mut Report,
) -> Result<Vec<Object<'v>>, ImportError> {
    let mut namespaces: BTreeSet<&str> = objects.iter().map(|object| object.namespace.as_str()).collect();
    namespaces.remove(options.root_namespace.as_str());
    if options.namespace.is_none() && namespaces.len() > 1 {
        return Err(ImportError::SeveralWorkloads(
            "several namespaces: choose one with --namespace".to_owned(),
        ));
    }
    let namespace = options.namespace.clone().or_else(|| namespaces.first().map(|name| (*name).to_owned()));
    let is_near = |object: &Object<'_>| {
        object.namespace == options.root_namespace
            || namespace.as_ref().is_none_or(|namespace| *namespace == object.namespace)
    };
    let selectors: BTreeSet<&Selector> = objects
        .iter()
        .filter(|object| is_near(object))
        .map(|object| &object.selector)
        .filter(|selector| **selector != Selector::All)
        .collect();
    if options.labels.is_empty() && selectors.len() > 1 {
        return Err(ImportError::SeveralWorkloads(
            "several selectors or targets: choose a workload with --label NAME=VALUE for each of its labels, or import \
             the policies of each target on their own"
                .to_owned(),
        ));
    }
    let mut kept = Vec::new();
    for object in objects {
        let selects = match &object.selector {
            _ if options.labels.is_empty() => true,
            Selector::All => true,
            Selector::Labels(labels) => {
                labels.iter().all(|label| options.labels.iter().any(|(a, b)| (a, b) == label))
            }
            Selector::Target(..) => false,
        };
        if is_near(&object) && selects {
            kept.push(object);
        } else {
            report.note(
                object.path,
                "the policy is for other workloads",
                "it is not carried over",
                "import it for its own workload",
            );
        }
    }
    Ok(kept)
}

enum Action {
    Allow,
    Deny,
    /// The policy has no effect on which requests pass.
    None,
}

struct Reader<'r> {
    options: &'r ImportOptions,
    report: &'r mut Report,
    program: Program,
}

impl Reader<'_> {
    fn read_authentication(&mut self, object: &Object<'_>) -> Result<()> {
        let Some(spec) = &object.spec else { return Ok(()) };
        let fields = spec.fields()?;
        fields.ignore(&["selector", "target_ref", "target_refs"]);
        for rule in fields.items("jwt_rules")? {
            self.read_jwt_rule(&rule)?;
        }
        fields.finish(self.report, "tokens are verified without it");
        Ok(())
    }

    fn read_jwt_rule(&mut self, node: &Node<'_>) -> Result<()> {
        let fields = node.fields()?;
        let issuer = fields.text("issuer")?.ok_or_else(|| node.error("has no `issuer`"))?;
        let audiences = fields.texts("audiences")?;
        let url = fields.text("jwks_uri")?;
        let keys =
            match (fields.text("jwks")?.filter(|text| !text.is_empty()), url.filter(|url| !url.is_empty())) {
                (Some(text), _) => KeySource::Inline(text.to_owned()),
                (None, Some(url)) => KeySource::Url(url.to_owned()),
                (None, None) => KeySource::Discovery,
            };
        let mut locations = Vec::new();
        let mut count = 0_usize;
        for header in fields.items("from_headers")? {
            count = count.saturating_add(1);
            let header_fields = header.fields()?;
            let name = header_fields.text("name")?.ok_or_else(|| header.error("has no `name`"))?;
            let prefix = header_fields.text("prefix")?.unwrap_or_default();
            header_fields.finish(self.report, "the policy looks for tokens without it");
            locations.extend(header_location(&header, name, prefix, self.report));
        }
        for (name, of) in
            [("from_params", Location::Query as fn(String) -> Location), ("from_cookies", Location::Cookie)]
        {
            for item in fields.items(name)? {
                count = count.saturating_add(1);
                locations.extend(named_location(&item, of, self.report)?);
            }
        }
        let has_other_locations = locations.len() < count;
        if count == 0 {
            locations = Location::defaults();
        }
        if let Some(header) = fields.text("output_payload_to_header")?.filter(|header| !header.is_empty()) {
            self.report.dropped(
                member(&node.path, "outputPayloadToHeader"),
                "a header with the payload of the token",
                "the policy removes the header from requests, so that no client can forge it, and the upstream does not get it",
                "use `identity.claims` for single claims, or `identity.assertion`",
            );
            self.program
                .removed_headers
                .extend(Some(header.to_ascii_lowercase()).filter(|name| is_header_name(name)));
        }
        let mut claim_headers = Vec::new();
        for entry in fields.items("output_claim_to_headers")? {
            let entry_fields = entry.fields()?;
            let header = entry_fields.text("header")?.ok_or_else(|| entry.error("has no `header`"))?;
            let claim = entry_fields.text("claim")?.ok_or_else(|| entry.error("has no `claim`"))?;
            entry_fields.finish(self.report, "the header lacks what the member does");
            claim_headers.extend(claim_header(&entry, header, claim, self.report));
        }
        let forwards = fields.boolean("forward_original_token")?;
        let mut spaced_claims: Vec<String> = SPACED_CLAIMS.map(str::to_owned).into();
        spaced_claims.extend(fields.texts("space_delimited_claims")?);
        fields.ignore(&["timeout"]);
        let is_partial = fields.finish(self.report, "the policy refuses the tokens of this issuer");
        let provider = Provider {
            at: node.path.clone(),
            issuer: issuer.to_owned(),
            audiences,
            has_replaced_audiences: false,
            locations,
            has_other_locations,
            forwards,
            payload_key: None,
            spaced_claims,
            subjects: if is_partial { Vec::new() } else { vec![Needs::default()] },
            keys,
            leeway_seconds: DEFAULT_LEEWAY_SECONDS,
            max_lifetime_seconds: None,
            claim_headers,
        };
        add_provider(&mut self.program.providers, provider, self.report);
        Ok(())
    }

    /// Reads a policy: its action, and the condition under which it matches.
    fn read_authorization(&mut self, object: &Object<'_>) -> Result<(Action, Condition)> {
        let Some(spec) = &object.spec else { return Ok((Action::Allow, Condition::Never)) };
        let fields = spec.fields()?;
        fields.ignore(&["selector", "target_ref", "target_refs", "provider"]);
        let action = fields.text("action")?.unwrap_or("ALLOW");
        if object.is_dry_run {
            self.report.note(
                object.path.clone(),
                "the policy is a dry run",
                "it has no effect on which requests pass, and is not carried over",
                "use `mode: report` in a rule to try it",
            );
            return Ok((Action::None, Condition::Never));
        }
        let mut rules = Vec::new();
        for rule in fields.items("rules")? {
            rules.push(self.read_rule(&rule)?);
        }
        let mut matched = Condition::Any(rules);
        for name in fields.unread() {
            let unknown =
                Condition::test(member(&spec.path, name), Test::Unknown("a member that is unknown"));
            // Neither ALLOW nor DENY can rely on such a policy.
            let both = vec![matched, unknown];
            matched = if action == "DENY" { Condition::Any(both) } else { Condition::All(both) };
        }
        match action {
            "ALLOW" => Ok((Action::Allow, matched)),
            "DENY" => Ok((Action::Deny, matched)),
            "CUSTOM" => {
                self.report.dropped(
                    member(&spec.path, "action"),
                    "CUSTOM asks an external service",
                    "the policy refuses the requests that these rules match",
                    "keep `ext_authz` beside Keystile, and leave this policy out of the file",
                );
                Ok((Action::Deny, matched))
            }
            "AUDIT" => {
                self.report.note(
                    object.path.clone(),
                    "AUDIT marks requests for a log",
                    "it has no effect on which requests pass, and is not carried over",
                    "use the access log",
                );
                Ok((Action::None, Condition::Never))
            }
            _ => Err(Node::new(spec.value, member(&spec.path, "action"))
                .error("must be ALLOW, DENY, AUDIT or CUSTOM")),
        }
    }

    fn read_rule(&mut self, node: &Node<'_>) -> Result<Condition> {
        // `- {}` matches all requests.
        let fields = node.fields()?;
        let mut all = Vec::new();
        let mut sources = Vec::new();
        for from in fields.items("from")? {
            let from_fields = from.fields()?;
            let source = from_fields.get("source").ok_or_else(|| from.error("has no `source`"))?;
            sources.push(self.read_source(&source)?);
            from_fields.finish(self.report, REFUSES);
        }
        let mut operations = Vec::new();
        for to in fields.items("to")? {
            let to_fields = to.fields()?;
            let operation = to_fields.get("operation").ok_or_else(|| to.error("has no `operation`"))?;
            operations.push(self.read_operation(&operation)?);
            to_fields.finish(self.report, REFUSES);
        }
        for any in [sources, operations] {
            if !any.is_empty() {
                all.push(Condition::Any(any));
            }
        }
        for when in fields.items("when")? {
            all.push(self.read_when(&when)?);
        }
        all.extend(unknown_members(&fields));
        Ok(Condition::All(all))
    }

    fn read_source(&mut self, node: &Node<'_>) -> Result<Condition> {
        let fields = node.fields()?;
        let mut all = Vec::new();
        for (name, is) in [("request_principals", true), ("not_request_principals", false)] {
            let Some(list) = fields.get(name) else { continue };
            let tests = list.items()?.iter().map(|item| principal(item)).collect::<Result<Vec<_>>>()?;
            all.extend(list_condition(tests, is));
        }
        const OTHERS: [(&str, &str); 6] = [
            ("principals", "a condition on the client certificate"),
            ("namespaces", "a condition on the client certificate"),
            ("service_accounts", "a condition on the client certificate"),
            ("ip_blocks", "a condition on the client address"),
            ("remote_ip_blocks", "a condition on the client address"),
            ("trust_domains", "a condition on the client certificate"),
        ];
        for (name, what) in OTHERS {
            for (name, is) in [(name.to_owned(), true), (format!("not_{name}"), false)] {
                let Some(list) = fields.get(&name) else { continue };
                if !list.items()?.is_empty() {
                    all.extend(list_condition(vec![Condition::test(list.path, Test::Unknown(what))], is));
                }
            }
        }
        all.extend(unknown_members(&fields));
        Ok(Condition::All(all))
    }

    fn read_operation(&mut self, node: &Node<'_>) -> Result<Condition> {
        let fields = node.fields()?;
        let mut all = Vec::new();
        type Read = fn(&Reader<'_>, &Node<'_>) -> Result<Condition>;
        const KINDS: [(&str, Read); 4] = [
            ("hosts", |_, item| {
                Ok(match item.text()? {
                    "*" => Condition::Always,
                    pattern => Condition::test(&item.path, Test::Host(HostMatch::pattern(pattern))),
                })
            }),
            ("methods", |_, item| {
                let method = item.text()?;
                Ok(match TextMatch::pattern(method) {
                    TextMatch::Present => Condition::Always,
                    TextMatch::Exact(method) => Condition::test(&item.path, Test::Method(method)),
                    _ => Condition::test(&item.path, Test::Unknown("a condition on the method")),
                })
            }),
            ("paths", |reader, item| reader.read_path(item)),
            ("ports", |_, item| {
                item.text()?;
                Ok(Condition::test(&item.path, Test::Unknown("a condition on the destination port")))
            }),
        ];
        for (name, read) in KINDS {
            for (name, is) in [(name.to_owned(), true), (format!("not_{name}"), false)] {
                let Some(list) = fields.get(&name) else { continue };
                let tests = list.items()?.iter().map(|item| read(self, item)).collect::<Result<Vec<_>>>()?;
                all.extend(list_condition(tests, is));
            }
        }
        all.extend(unknown_members(&fields));
        Ok(Condition::All(all))
    }

    fn read_path(&self, node: &Node<'_>) -> Result<Condition> {
        let text = node.text()?;
        let path = if text.contains("{*}") || text.contains("{**}") {
            PathMatch::uri_template(text)
        } else {
            match TextMatch::pattern(text) {
                TextMatch::Present => return Ok(Condition::Always),
                TextMatch::Exact(path) => PathMatch::exact(&path),
                TextMatch::Prefix(prefix) => PathMatch::prefix(&prefix, self.options.whole_segments),
                TextMatch::Suffix(suffix) => PathMatch::Suffix(suffix),
                TextMatch::Other => return Ok(Condition::Never),
            }
        };
        Ok(Condition::test(&node.path, Test::Path(path)))
    }

    fn read_when(&mut self, node: &Node<'_>) -> Result<Condition> {
        let fields = node.fields()?;
        let key = fields.text("key")?.ok_or_else(|| node.error("has no `key`"))?;
        let mut all = Vec::new();
        for (name, is) in [("values", true), ("not_values", false)] {
            let Some(list) = fields.get(name) else { continue };
            let tests =
                list.items()?.iter().map(|item| read_attribute(key, item)).collect::<Result<Vec<_>>>()?;
            all.extend(list_condition(tests, is));
        }
        if all.is_empty() {
            return Err(node.error("has neither `values` nor `notValues`"));
        }
        all.extend(unknown_members(&fields));
        Ok(Condition::All(all))
    }
}

/// Returns the condition that one of the tests is true, or that none is. An empty list is no condition.
fn list_condition(tests: Vec<Condition>, is: bool) -> Option<Condition> {
    let any = (!tests.is_empty()).then_some(Condition::Any(tests))?;
    Some(if is { any } else { any.negated() })
}

fn unknown_members(fields: &Fields<'_>) -> Vec<Condition> {
    let unknown =
        |name: &str| Condition::test(member(&fields.path, name), Test::Unknown("a member that is unknown"));
    fields.unread().into_iter().map(unknown).collect()
}

fn principal(node: &Node<'_>) -> Result<Condition> {
    let test = match TextMatch::pattern(node.text()?) {
        TextMatch::Present => TokenTest::Verified,
        text => TokenTest::Principal(text),
    };
    Ok(Condition::test(&node.path, Test::Token(test)))
}

/// Reads a value of an attribute of a request.
fn read_attribute(key: &str, node: &Node<'_>) -> Result<Condition> {
    let text = TextMatch::pattern(node.text()?);
    let claim = match key {
        "request.auth.principal" => return principal(node),
        "request.auth.audiences" => Some(vec!["aud".to_owned()]),
        "request.auth.presenter" => Some(vec!["azp".to_owned()]),
        key => key.strip_prefix("request.auth.claims").and_then(bracketed),
    };
    let Some(claim) = claim else {
        let what = if key.starts_with("request.headers") {
            "a condition on a header"
        } else if key.starts_with("source") || key.starts_with("remote") {
            "a condition on the client"
        } else if key.starts_with("destination") || key.starts_with("connection") {
            "a condition on the connection"
        } else {
            "a condition on an attribute that the policy does not have"
        };
        return Ok(Condition::test(&node.path, Test::Unknown(what)));
    };
    let test = TokenTest::Claim { key: None, claim, value: ClaimValue::Text(text), is_list: true };
    Ok(Condition::test(&node.path, Test::Token(test)))
}

/// Returns the names of `[a][b]`.
fn bracketed(text: &str) -> Option<Vec<String>> {
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    let names: Vec<String> = inner.split("][").map(str::to_owned).collect();
    names.iter().all(|name| !name.is_empty() && !name.contains(['[', ']'])).then_some(names)
}
