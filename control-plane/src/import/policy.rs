//! Writes the policy: divides requests into cells, decides for each cell, and merges cells that decide alike.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::{
    ImportError,
    condition::{Cell, Condition, Lost, PREFIX_WITHIN_SEGMENT, STRICTER_SUFFIX, Test},
    needs::Needs,
    paths::{HostCell, HostMatch, Template, Truth, closure},
    provider::{Location, Provider},
    report::Report,
    requirement::{Anonymous, Grant, Outcome, Requirement, with_conditions},
};

/// The maximum number of templates, and of cells.
const MAX_TEMPLATES: usize = 2000;
const MAX_CELLS: usize = 20_000;

/// A value of `iss` that no issuer has. A rule that requires it refuses every request with a token.
const NO_ISSUER: &str = "urn:keystile:refused";

/// A claim that no token has, for headers that must be removed from requests and have no equivalent.
pub(super) const NO_CLAIM: &str = "urn:keystile:not-forwarded";

/// What the source decides.
#[derive(Debug, Default)]
pub(super) struct Program {
    pub(super) providers: Vec<Provider>,
    /// The requirements on tokens: the first whose condition is true applies. If none is, nothing is required.
    pub(super) choices: Vec<(Condition, Requirement)>,
    /// Further conditions, all of which must be true.
    pub(super) conditions: Vec<Condition>,
    /// Whether CORS preflights pass without a token.
    pub(super) passes_preflights: bool,
    /// Further templates that get rules of their own.
    pub(super) templates: Vec<Template>,
    /// Headers that must be removed from requests.
    pub(super) removed_headers: Vec<String>,
    /// Whether the source compares paths ignoring case.
    pub(super) ignores_case: bool,
}

/// What remains of a cell: its rules.
struct Row {
    path: Template,
    host: HostCell,
    /// The methods of each outcome other than `default`.
    methods: Vec<(Vec<String>, Outcome)>,
    default: Outcome,
    preflight: bool,
}

impl Row {
    fn decides_like(&self, other: &Self) -> bool {
        self.methods == other.methods && self.default == other.default && self.preflight == other.preflight
    }

    fn refuses_all(&self) -> bool {
        self.methods.is_empty() && self.default == Outcome::REFUSED && !self.preflight
    }
}

impl Program {
    /// Returns the members of the policy.
    pub(super) fn policy(&self, report: &mut Report) -> Result<Map<String, Value>, ImportError> {
        let rows = merged(self.rows(report)?);
        let mut members = Map::new();
        let (used, seen) = used_providers(&rows);
        let searched =
            self.providers.iter().enumerate().filter(|(at, _)| used.contains(at) || seen.contains(at));
        let sources = Sources::new(searched.map(|(_, provider)| provider));
        members.insert("credentials".to_owned(), sources.to_json());
        let issuers = self.issuers(&used);
        if !issuers.is_empty() {
            members.insert("issuers".to_owned(), Value::Array(issuers));
        }
        if let Some(claims) = self.claim_headers(report) {
            members.insert("identity".to_owned(), json!({ "claims": claims }));
        }
        let forwards = |at: &usize| self.providers.get(*at).is_some_and(|provider| provider.forwards);
        let strips = used.is_empty() || !used.iter().all(forwards);
        let mut rules = Vec::new();
        for (path, host, methods, outcome, preflight) in without_last_refusals(rows) {
            let providers = &self.providers;
            let rule = RuleWriter { providers, sources: &sources, strips, report: &mut *report };
            rules.push(rule.write(&path, &host, &methods, &outcome, preflight));
        }
        members.insert("rules".to_owned(), Value::Array(rules));
        members.insert("unmatched".to_owned(), json!("refuse"));
        if !self.conditions.is_empty() {
            members.insert("answers".to_owned(), json!({ "unmatched_status": 403 }));
        }
        if !strips {
            members.insert("strip_credential".to_owned(), json!(false));
        }
        Ok(members)
    }

    /// Returns the smallest leeway of the providers.
    pub(super) fn leeway_seconds(&self) -> Option<u64> {
        self.providers.iter().map(|provider| provider.leeway_seconds.min(300)).min()
    }

    fn conditions_of_cells(&self) -> impl Iterator<Item = &Condition> {
        self.choices.iter().map(|(condition, _)| condition).chain(&self.conditions)
    }

    /// Decides for each cell.
    fn rows(&self, report: &mut Report) -> Result<Vec<Row>, ImportError> {
        let (mut templates, mut hosts, mut methods) =
            (self.templates.clone(), BTreeSet::new(), BTreeSet::new());
        for condition in self.conditions_of_cells() {
            condition.for_each(&mut |test| match test {
                Test::Path(path) => templates.extend(path.templates()),
                Test::Host(host) => hosts.extend(host.cells()),
                Test::Method(method) => {
                    methods.insert(method.clone());
                }
                Test::Token(_) | Test::Unknown(_) => {}
            });
        }
        // A policy's `GET` matches `HEAD` too.
        if methods.contains("GET") {
            methods.insert("HEAD".to_owned());
        }
        // The policy refuses methods with lower-case letters.
        methods.retain(|method| is_method(method));
        let with_slash: Vec<_> = templates.iter().filter_map(Template::with_slash_toggled).collect();
        templates.extend(with_slash);
        let templates = closure(templates, MAX_TEMPLATES).ok_or(ImportError::TooLarge)?;
        let mut hosts: Vec<HostCell> = hosts.into_iter().map(Some).collect();
        hosts.sort_by_key(|host| host.as_ref().map(HostMatch::specificity));
        hosts.push(None);
        let cells =
            templates.len().saturating_mul(hosts.len()).saturating_mul(methods.len().saturating_add(1));
        if cells > MAX_CELLS {
            return Err(ImportError::TooLarge);
        }
        let mut lost = Lost::new();
        let outcomes: Vec<Outcome> = self
            .choices
            .iter()
            .map(|(_, requirement)| requirement.outcome(&self.providers, report))
            .collect();
        let mut rows = Vec::new();
        for path in &templates {
            for host in &hosts {
                let mut decide = |method| self.decide(Cell { path, host, method }, &outcomes, &mut lost);
                let default = decide(None);
                let by_method: Vec<_> =
                    methods.iter().map(|method| (method.clone(), decide(Some(method)))).collect();
                let options = methods.get("OPTIONS").map(String::as_str);
                let preflight = self.passes_preflights
                    && with_conditions(
                        &Outcome::Public,
                        &self.conditions,
                        &self.providers,
                        Cell { path, host, method: options },
                        &mut Lost::new(),
                    ) == Outcome::Public;
                rows.push(Row {
                    path: path.clone(),
                    host: host.clone(),
                    methods: by_outcome(by_method, &default),
                    default,
                    preflight,
                });
            }
        }
        report_lost(lost, report);
        Ok(rows)
    }

    fn decide(&self, cell: Cell<'_>, outcomes: &[Outcome], lost: &mut Lost) -> Outcome {
        let mut candidates: Vec<&Outcome> = Vec::new();
        let mut unknown = Lost::new();
        let mut is_certain = false;
        for ((condition, _), outcome) in self.choices.iter().zip(outcomes) {
            match condition.truth(cell) {
                Truth::No => continue,
                Truth::Maybe => condition.unknown_parts(cell, &mut unknown),
                Truth::Yes => is_certain = true,
            }
            candidates.push(outcome);
            if is_certain {
                break;
            }
        }
        if !is_certain {
            candidates.push(&Outcome::Public);
        }
        let decided: Vec<Outcome> = candidates
            .into_iter()
            .map(|outcome| with_conditions(outcome, &self.conditions, &self.providers, cell, lost))
            .collect();
        let both = decided.iter().fold(Outcome::Public, |both, outcome| both.and(outcome));
        if decided.iter().any(|outcome| *outcome != both) {
            lost.extend(unknown);
        }
        both
    }

    /// Returns `issuers` of the policy.
    fn issuers(&self, used: &BTreeSet<usize>) -> Vec<Value> {
        let mut by_issuer: BTreeMap<&str, Vec<&Provider>> = BTreeMap::new();
        for provider in used.iter().filter_map(|at| self.providers.get(*at)) {
            by_issuer.entry(&provider.issuer).or_default().push(provider);
        }
        let of_issuer = |(issuer, providers): (&str, Vec<&Provider>)| {
            let mut member = json!({ "issuer": issuer });
            let audiences: BTreeSet<&String> =
                providers.iter().flat_map(|provider| self.audiences_of(provider)).collect();
            if providers.iter().any(|provider| provider.audiences.is_empty()) {
                // The source accepts any audience.
                member["audience_claim"] = json!("iss");
                member["audiences"] = json!([issuer]);
            } else {
                member["audiences"] = json!(audiences);
            }
            let lifetimes = providers.iter().map(|provider| provider.max_lifetime_seconds);
            if let Some(lifetime) = lifetimes.flatten().min() {
                member["max_lifetime_seconds"] = json!(lifetime);
            }
            member
        };
        by_issuer.into_iter().map(of_issuer).collect()
    }

    /// Returns the audiences of a provider and those with which requirements replace them.
    fn audiences_of<'p>(&'p self, provider: &'p Provider) -> Vec<&'p String> {
        fn replaced<'p>(requirement: &'p Requirement, number: usize, all: &mut Vec<&'p String>) {
            match requirement {
                Requirement::Provider(named, Some(audiences)) if *named == number => all.extend(audiences),
                Requirement::Any(parts) | Requirement::All(_, parts) => {
                    parts.iter().for_each(|part| replaced(part, number, all));
                }
                _ => {}
            }
        }
        let mut all: Vec<&String> = provider.audiences.iter().collect();
        let number = self.providers.iter().position(|other| other.at == provider.at);
        for (_, requirement) in &self.choices {
            replaced(requirement, number.unwrap_or(usize::MAX), &mut all);
        }
        all
    }

    /// Returns the headers for claims, and those that must only be removed.
    fn claim_headers(&self, report: &mut Report) -> Option<Map<String, Value>> {
        let mut headers: BTreeMap<&str, &str> = BTreeMap::new();
        for provider in &self.providers {
            for (header, claim) in &provider.claim_headers {
                if headers.insert(header, claim).is_some_and(|before| before != claim) {
                    report.dropped(
                        provider.at.clone(),
                        "one header gets different claims from different providers",
                        "the header gets the claim of the last provider",
                        "use a header of its own for each claim",
                    );
                }
            }
        }
        for header in &self.removed_headers {
            headers.entry(header).or_insert(NO_CLAIM);
        }
        let headers: Map<String, Value> =
            headers.into_iter().map(|(header, claim)| (header.to_owned(), Value::from(claim))).collect();
        (!headers.is_empty()).then_some(headers)
    }
}

fn report_lost(lost: Lost, report: &mut Report) {
    for (at, what) in lost {
        if what == STRICTER_SUFFIX {
            report.note(
                at,
                what,
                "the policy refuses a claim such as `a b@example.com`, whose beginning is not a name",
                "nothing, unless the issuer has such values",
            );
        } else if what == PREFIX_WITHIN_SEGMENT {
            report.dropped(
                at,
                what,
                "templates match whole segments (`/api/**` does not match `/apis`), so the policy is as strict as the \
                 strictest requirement for paths that may match",
                "name the other paths of the service with --path, so that they get rules of their own; or use --whole-segments if no \
                 path continues the prefix within its last segment",
            );
        } else {
            report.dropped(
                at,
                what,
                "the policy refuses the requests for which the decision depends on it",
                "write a rule for these requests by hand, or keep the check at the upstream",
            );
        }
    }
}

fn is_method(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-')
}

/// Groups methods by outcome, without those of the default.
fn by_outcome(by_method: Vec<(String, Outcome)>, default: &Outcome) -> Vec<(Vec<String>, Outcome)> {
    let outcome_of =
        |name: &str| by_method.iter().find(|(method, _)| method == name).map(|(_, it)| it.clone());
    let (get, head) = (outcome_of("GET"), outcome_of("HEAD"));
    let mut groups: Vec<(Vec<String>, Outcome)> = Vec::new();
    // The rule for GET would match HEAD too.
    let head_first = head.filter(|head| get.as_ref().is_some_and(|get| get != head && get != default));
    let is_first = head_first.is_some();
    groups.extend(head_first.map(|outcome| (vec!["HEAD".to_owned()], outcome)));
    for (method, outcome) in by_method {
        let is_covered = method == "HEAD" && (is_first || get.as_ref() == Some(&outcome));
        if outcome == *default || is_covered {
            continue;
        }
        let start = usize::from(is_first);
        match groups.iter_mut().skip(start).find(|(_, known)| *known == outcome) {
            Some((methods, _)) => methods.push(method),
            None => groups.push((vec![method], outcome)),
        }
    }
    groups
}

/// Removes rows whose requests the next matching row decides alike.
fn merged(rows: Vec<Row>) -> Vec<Row> {
    let mut is_forced = vec![false; rows.len()];
    let is_kept = loop {
        let is_kept = needed(&rows, &is_forced);
        let kept = rows.iter().zip(&is_kept).filter(|(_, is_kept)| **is_kept);
        let kept: Vec<(&Template, &HostCell)> = kept.map(|(row, _)| (&row.path, &row.host)).collect();
        // Beside a rule for `/a`, the rule for `/a/` must be for this path alone, or the slash is ambiguous.
        let is_beside_kept = |row: &Row| {
            row.path.with_slash_toggled().is_some_and(|other| kept.contains(&(&other, &row.host)))
        };
        let forced: Vec<bool> =
            rows.iter().zip(&is_forced).map(|(row, is_forced)| *is_forced || is_beside_kept(row)).collect();
        if forced == is_forced {
            break is_kept;
        }
        is_forced = forced;
    };
    rows.into_iter().zip(is_kept).filter(|(_, is_kept)| *is_kept).map(|(row, _)| row).collect()
}

/// Returns for each row whether it is forced, or its requests would be decided otherwise without it.
fn needed(rows: &[Row], is_forced: &[bool]) -> Vec<bool> {
    // From the last, so that it is known which of the later rows are kept.
    let mut kept: Vec<&Row> = Vec::new();
    let mut is_needed = Vec::new();
    for (row, is_forced) in rows.iter().zip(is_forced).rev() {
        let is_next =
            |other: &&&Row| row.path.is_subset_of(&other.path) && is_host_subset(&row.host, &other.host);
        let is_changed = match kept.iter().rev().find(is_next) {
            Some(next) => !row.decides_like(next),
            None => !row.refuses_all(),
        };
        is_needed.push(is_changed || *is_forced);
        if is_changed || *is_forced {
            kept.push(row);
        }
    }
    is_needed.reverse();
    is_needed
}

fn is_host_subset(host: &HostCell, other: &HostCell) -> bool {
    match (host, other) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(host), Some(other)) => host.is_subset_of(other),
    }
}

fn hosts_overlap(host: &HostCell, other: &HostCell) -> bool {
    is_host_subset(host, other) || is_host_subset(other, host)
}

type RuleParts = (Template, HostCell, Vec<String>, Outcome, bool);

/// Returns the rules of the rows, without refusing rules that are followed by no rule for the same requests: the policy
/// refuses what no rule matches.
fn without_last_refusals(rows: Vec<Row>) -> Vec<RuleParts> {
    let mut all: Vec<RuleParts> = Vec::new();
    for Row { path, host, methods, default, preflight } in rows {
        for (methods, outcome) in methods {
            all.push((path.clone(), host.clone(), methods, outcome, preflight));
        }
        all.push((path, host, Vec::new(), default, preflight));
    }
    let mut kept: Vec<RuleParts> = Vec::new();
    for rule in all.into_iter().rev() {
        let (path, host, _, outcome, preflight) = &rule;
        let is_followed = kept.iter().any(|(other, at, ..)| path.overlaps(other) && hosts_overlap(host, at));
        if *outcome != Outcome::REFUSED || *preflight || is_followed {
            kept.push(rule);
        }
    }
    kept.reverse();
    kept
}

/// Returns the providers of which tokens pass, and those whose locations must be searched.
fn used_providers(rows: &[Row]) -> (BTreeSet<usize>, BTreeSet<usize>) {
    let outcomes = rows.iter().flat_map(|row| row.methods.iter().map(|(_, it)| it).chain([&row.default]));
    let (mut used, mut searched) = (BTreeSet::new(), BTreeSet::new());
    for outcome in outcomes {
        if let Outcome::Checked { grants, seen, .. } = outcome {
            used.extend(grants.iter().map(|grant| grant.provider));
            searched.extend(seen);
        }
    }
    (used, searched)
}

/// The `credentials` of the policy.
struct Sources {
    all: Vec<(Location, String)>,
}

impl Sources {
    fn new<'p>(providers: impl Iterator<Item = &'p Provider>) -> Self {
        let mut locations: Vec<&Location> = Vec::new();
        for provider in providers {
            for location in &provider.locations {
                if !locations.contains(&location) {
                    locations.push(location);
                }
            }
        }
        let mut all: Vec<(Location, String)> = Vec::new();
        for location in locations {
            let name = match location {
                Location::Header { name, .. } => name.clone(),
                Location::Query(name) => format!("query:{name}"),
                Location::Cookie(name) => format!("cookie:{name}"),
            };
            let mut unique = name.clone();
            let mut number = 2_usize;
            while all.iter().any(|(_, known)| *known == unique) {
                unique = format!("{name}-{number}");
                number = number.saturating_add(1);
            }
            all.push((location.clone(), unique));
        }
        // If a header has several forms, the first that matches applies: the longest prefix goes first.
        all.sort_by_key(|(location, _)| match location {
            Location::Header { prefix, .. } => std::cmp::Reverse(prefix.len()),
            Location::Query(_) | Location::Cookie(_) => std::cmp::Reverse(0),
        });
        Self { all }
    }

    fn to_json(&self) -> Value {
        if self.all.is_empty() {
            return json!([{ "header": "authorization", "scheme": "Bearer" }]);
        }
        let defaults = |location: &Location| match location {
            Location::Header { name, .. } => name.clone(),
            Location::Query(name) => format!("query:{name}"),
            Location::Cookie(name) => format!("cookie:{name}"),
        };
        let source = |(location, name): &(Location, String)| {
            let mut source = match location {
                Location::Header { name, prefix } if prefix.is_empty() => json!({ "header": name }),
                Location::Header { name, prefix } => json!({ "header": name, "prefix": prefix }),
                Location::Query(name) => json!({ "query": name }),
                Location::Cookie(name) => json!({ "cookie": name }),
            };
            if defaults(location) != *name {
                source["name"] = json!(name);
            }
            source
        };
        self.all.iter().map(source).collect()
    }

    /// Returns the names of some locations, or none if they are all of them.
    fn names(&self, locations: &BTreeSet<&Location>) -> Vec<&str> {
        let named = self.all.iter().filter(|(location, _)| locations.contains(location));
        let names: Vec<&str> = named.map(|(_, name)| name.as_str()).collect();
        if names.len() == self.all.len() { Vec::new() } else { names }
    }
}

/// What a token must have, for one or several issuers.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Alternative {
    issuers: BTreeSet<String>,
    audiences: Option<Vec<String>>,
    claims: Vec<(String, Vec<Value>)>,
    /// Alternatives of scopes, all of which the token must have.
    scopes: Vec<BTreeSet<String>>,
}

struct RuleWriter<'w> {
    providers: &'w [Provider],
    sources: &'w Sources,
    /// Whether the policy removes credentials.
    strips: bool,
    report: &'w mut Report,
}

impl RuleWriter<'_> {
    fn write(
        self,
        path: &Template,
        host: &HostCell,
        methods: &[String],
        outcome: &Outcome,
        preflight: bool,
    ) -> Value {
        let mut rule = Map::new();
        if let Some(host) = host.as_ref().and_then(HostMatch::to_policy) {
            rule.insert("hosts".to_owned(), json!([host]));
        }
        rule.insert("path".to_owned(), json!(path.to_string()));
        if !methods.is_empty() {
            rule.insert("methods".to_owned(), json!(methods));
        }
        match outcome {
            Outcome::Public => {
                rule.insert("access".to_owned(), json!("public"));
            }
            Outcome::Checked { anonymous, seen, grants } => {
                self.write_checked(&mut rule, *anonymous, seen, grants);
            }
        }
        if preflight {
            rule.insert("preflight".to_owned(), json!("pass"));
        }
        Value::Object(rule)
    }

    fn write_checked(
        self,
        rule: &mut Map<String, Value>,
        mut anonymous: Anonymous,
        seen: &BTreeSet<usize>,
        grants: &[Grant],
    ) {
        let provider_of = |number: &usize| self.providers.get(*number);
        let mut grants: Vec<&Grant> = grants.iter().collect();
        let first = grants.first().and_then(|grant| provider_of(&grant.provider));
        let locations: BTreeSet<&Location> = match first {
            Some(provider) => provider.locations.iter().collect(),
            // No token passes, wherever it is.
            None => seen.iter().filter_map(provider_of).flat_map(|provider| &provider.locations).collect(),
        };
        let is_same = |number: &usize| {
            provider_of(number)
                .is_some_and(|other| other.locations.iter().collect::<BTreeSet<_>>() == locations)
        };
        // A rule has one list of locations. A token of one provider must not pass in the place of another, and a request with
        // a bad token in a place that the rule does not search must not count as one without a token.
        let is_unseen = |number: &usize| {
            let is_lost = provider_of(number).is_none_or(|provider| provider.has_other_locations);
            is_lost || (first.is_some() && !is_same(number))
        };
        let unseen = seen.iter().filter(|number| anonymous != Anonymous::Refused && is_unseen(number));
        let others = grants.iter().map(|grant| &grant.provider).filter(|number| !is_same(number));
        let others: BTreeSet<&usize> = unseen.chain(others).collect();
        for provider in others.iter().filter_map(|number| provider_of(number)) {
            self.report.dropped(
                provider.at.clone(),
                "the provider has locations of tokens that a rule cannot have beside those of another provider, or at all",
                "where both are accepted, the policy refuses its tokens in other locations; where a token may be missing, it \
                 refuses requests without one",
                "let all providers use the same locations, or write the rule by hand",
            );
        }
        if !others.is_empty() {
            anonymous = Anonymous::Refused;
        }
        grants.retain(|grant| is_same(&grant.provider));
        let mut of_grants = grants.iter().filter_map(|grant| provider_of(&grant.provider)).peekable();
        let forwards = of_grants.peek().is_some() && of_grants.all(|provider| provider.forwards);
        let mut alternatives = Vec::new();
        for grant in grants {
            let Some(provider) = self.providers.get(grant.provider) else { continue };
            let Needs { claims, scopes } = &grant.needs;
            let scopes = if scopes.is_empty() { Vec::new() } else { vec![scopes.clone()] };
            let shares_issuer = self
                .providers
                .iter()
                .any(|other| other.issuer == provider.issuer && other.audiences != provider.audiences);
            let own = Some(provider.audiences.clone()).filter(|own| !own.is_empty());
            let audiences = match (&grant.audiences, own) {
                (Some(audiences), _) => Some(audiences.clone()),
                // Without audiences of its own, the issuer would accept those that requirements name.
                (None, own) if shares_issuer || provider.has_replaced_audiences => own,
                (None, _) => None,
            };
            let accepts_any =
                |other: &Provider| other.issuer == provider.issuer && other.audiences.is_empty();
            let mut claims = claims.clone();
            let audiences = match audiences {
                // The audience of this issuer is in no other claim.
                Some(audiences) if self.providers.iter().any(accepts_any) => {
                    claims.push(("aud".to_owned(), audiences.into_iter().map(Value::from).collect()));
                    None
                }
                audiences => audiences,
            };
            let issuers = BTreeSet::from([provider.issuer.clone()]);
            alternatives.push(Alternative { issuers, audiences, claims, scopes });
        }
        let alternatives = merged_alternatives(alternatives);
        if anonymous != Anonymous::Refused {
            rule.insert("access".to_owned(), json!("optional"));
        }
        if anonymous == Anonymous::PassesIfFailed {
            rule.insert("ignore_unusable_credentials".to_owned(), json!(true));
        }
        if self.strips && forwards {
            rule.insert("strip_credential".to_owned(), json!(false));
        }
        match alternatives.as_slice() {
            [] => {
                rule.insert("claims".to_owned(), json!({ "iss": NO_ISSUER }));
            }
            [only] => only.write(rule),
            several => {
                let written = several.iter().map(|alternative| {
                    let mut member = Map::new();
                    alternative.write(&mut member);
                    Value::Object(member)
                });
                rule.insert("any_of".to_owned(), written.collect());
            }
        }
        let names = self.sources.names(&locations);
        if !names.is_empty() {
            rule.insert("credentials".to_owned(), json!(names));
        }
    }
}

impl Alternative {
    fn write(&self, rule: &mut Map<String, Value>) {
        let one_or_list = |values: &[Value]| match values {
            [only] => only.clone(),
            values => Value::Array(values.to_vec()),
        };
        rule.insert("issuers".to_owned(), json!(self.issuers));
        if let Some(audiences) = &self.audiences {
            rule.insert("audiences".to_owned(), json!(audiences));
        }
        let mut claims: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
        for (name, values) in &self.claims {
            claims.entry(name).or_default().push(one_or_list(values));
        }
        if !claims.is_empty() {
            let written = claims.into_iter().map(|(name, all)| {
                (
                    name.to_owned(),
                    if let [only] = all.as_slice() { only.clone() } else { json!({ "all_of": all }) },
                )
            });
            rule.insert("claims".to_owned(), Value::Object(written.collect()));
        }
        match self.scopes.as_slice() {
            [] => {}
            [all] => {
                rule.insert("scopes".to_owned(), json!(all));
            }
            several => {
                let one = |scopes: &BTreeSet<String>| match scopes.iter().collect::<Vec<_>>().as_slice() {
                    [only] => json!(only),
                    all => json!({ "all_of": all }),
                };
                let any: Vec<Value> = several.iter().map(one).collect();
                rule.insert("scopes".to_owned(), json!({ "any_of": any }));
            }
        }
    }
}

/// Merges alternatives that differ only in their issuers, in the values of one claim, or in their scopes.
fn merged_alternatives(alternatives: Vec<Alternative>) -> Vec<Alternative> {
    let mut all = alternatives;
    loop {
        let pairs = (0..all.len()).flat_map(|a| (a.saturating_add(1)..all.len()).map(move |b| (a, b)));
        let Some((a, b, both)) =
            pairs.filter_map(|(a, b)| Some((a, b, all.get(a)?.merged_with(all.get(b)?)?))).next()
        else {
            return all;
        };
        all.remove(b);
        if let Some(place) = all.get_mut(a) {
            *place = both;
        }
    }
}

impl Alternative {
    fn merged_with(&self, other: &Self) -> Option<Self> {
        let same_issuers = self.issuers == other.issuers;
        let same_audiences = self.audiences == other.audiences;
        let (same_claims, same_scopes) = (self.claims == other.claims, self.scopes == other.scopes);
        if same_audiences && same_claims && same_scopes {
            let issuers = self.issuers.union(&other.issuers).cloned().collect();
            return Some(Self { issuers, ..self.clone() });
        }
        if !same_issuers {
            return None;
        }
        if same_audiences && same_claims && !self.scopes.is_empty() && !other.scopes.is_empty() {
            return Some(Self {
                scopes: [self.scopes.clone(), other.scopes.clone()].concat(),
                ..self.clone()
            });
        }
        if same_claims && same_scopes {
            let (Some(own), Some(others)) = (&self.audiences, &other.audiences) else { return None };
            let mut audiences = own.clone();
            audiences.extend(others.iter().filter(|it| !own.contains(it)).cloned());
            return Some(Self { audiences: Some(audiences), ..self.clone() });
        }
        if !same_audiences || !same_scopes || self.claims.len() != other.claims.len() {
            return None;
        }
        let mut claims = self.claims.clone();
        let mut differences = claims.iter_mut().zip(&other.claims).filter(|(a, b)| **a != **b);
        let ((name, values), (other_name, others)) = differences.next()?;
        if name != other_name || differences.next().is_some() {
            return None;
        }
        for value in others {
            if !values.contains(value) {
                values.push(value.clone());
            }
        }
        Some(Self { claims, ..self.clone() })
    }
}
