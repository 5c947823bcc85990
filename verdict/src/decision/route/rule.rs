//! Rules for requests.

use alloc::{format, string::String, vec::Vec};

use serde::{Deserialize, Deserializer};

use super::{AmbiguousRequest, Table, Template, host::Host, path::Lookup, request::RequestLine};
use crate::{
    config::{Mode, checked, pairs, printable},
    credential::CredentialSource,
    decision::OpenStreamPolicy,
    identity::claim::{ClaimMatcher, ClaimName, no_scopes, scopes},
    permission::is_name,
    sync::StalePolicy,
};

/// A rule: which requests it matches, and its requirements.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(with = "Fields"))]
#[serde(try_from = "Fields")]
pub struct Rule {
    hosts: Vec<Host>,
    target: PathMatcher,
    methods: Vec<String>,
    requirements: Requirements,
}

#[derive(Debug, Clone)]
enum PathMatcher {
    Template(Template),
    Table(Table),
}

impl PathMatcher {
    fn templates(&self) -> Vec<&Template> {
        match self {
            Self::Template(template) => Vec::from([template]),
            Self::Table(table) => table.templates().collect(),
        }
    }
}

/// The requirements of a rule on matching requests.
#[derive(Debug, Clone)]
pub(crate) struct Requirements {
    pub(crate) access: Access,
    /// The conditions that must be met, and then alternatives, of which one must be met, too.
    pub(crate) conditions: Vec<Conditions>,
    /// The names of the sources that the rule searches. Empty: all sources of the policy.
    pub(super) credentials: Vec<String>,
    /// The sources with these names, in the order of the policy. Empty: all sources of the policy.
    pub(crate) sources: Vec<CredentialSource>,
    /// Whether the credential is removed, or `None` for the setting of the policy.
    pub(crate) strip_credential: Option<bool>,
    /// Whether a credential that is not for this deployment, or that has expired, counts as none.
    pub(crate) ignore_unusable_credentials: bool,
    pub(crate) staleness: Option<StalePolicy>,
    /// The mode, or `None` for that of the policy.
    pub(crate) mode: Option<Mode>,
    /// What happens to open streams, or `None` for the setting of the policy.
    pub(crate) open_streams: Option<OpenStreamPolicy>,
    preflight: Preflight,
    pub(super) encoded_slash: EncodedSlash,
}

/// Conditions on a credential. All of them must be met.
#[derive(Debug, Clone)]
pub(crate) struct Conditions {
    /// The accepted issuers. Empty: all issuers of the policy.
    pub(crate) issuers: Vec<String>,
    /// The accepted audiences. Empty: all audiences of the policy.
    pub(crate) audiences: Vec<String>,
    pub(crate) claims: Vec<(ClaimName, ClaimMatcher)>,
    pub(crate) scopes: ClaimMatcher,
    pub(crate) permission: Option<String>,
}

impl Conditions {
    fn is_empty(&self) -> bool {
        let Self { issuers, audiences, claims, scopes, permission } = self;
        issuers.is_empty()
            && audiences.is_empty()
            && claims.is_empty()
            && scopes.is_empty()
            && permission.is_none()
    }
}

impl Requirements {
    /// Returns the conditions of which one must be met, if there are any.
    pub(crate) fn alternatives(&self) -> &[Conditions] {
        self.conditions.get(1..).unwrap_or_default()
    }

    /// Returns whether a decision may depend on the values of path variables.
    fn uses_variables(&self) -> bool {
        self.conditions.iter().any(|conditions| {
            conditions.permission.is_some()
                || conditions.claims.iter().any(|(_, matcher)| matcher.path_variable().is_some())
        })
    }
}

/// How to treat `%2f` in a path.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, serde::Serialize))]
#[cfg_attr(feature = "schema", serde(rename_all = "snake_case"))]
pub(super) enum EncodedSlash {
    /// The request is refused, unless a slash in its place leads to the same rule and the same variables.
    #[default]
    Refuse,
    /// It is part of the segment, as the upstream reads it.
    Segment,
}

/// Whether a credential is required.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Credentials are not checked.
    Public,
    /// A credential is not required, but must be valid if it is sent.
    Optional,
    /// A valid credential is required.
    #[default]
    Required,
}

/// How to treat a CORS preflight, which browsers send without credentials.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
enum Preflight {
    /// Preflights are treated like other requests.
    #[default]
    Check,
    /// A preflight passes if the method that it asks for matches the rule. The upstream answers it.
    Pass,
}

/// A rule that matches a request.
pub(super) struct RuleMatch<'p> {
    /// The index of the rule.
    pub(super) rule: usize,
    pub(super) requirements: &'p Requirements,
    pub(super) access: Access,
    pub(super) permission: Option<&'p str>,
    pub(super) template: &'p Template,
    pub(super) preflight: bool,
}

impl RuleMatch<'_> {
    /// Returns whether the decision may depend on the values of path variables.
    pub(super) fn uses_variables(&self) -> bool {
        self.permission.is_some() || self.requirements.uses_variables()
    }
}

impl Rule {
    /// Returns the number of operations of the rule.
    pub(super) fn operations(&self) -> usize {
        match &self.target {
            PathMatcher::Template(_) => 1,
            PathMatcher::Table(table) => table.len(),
        }
    }

    pub(super) fn requires_permission(&self) -> bool {
        let mut conditions = self.requirements.conditions.iter();
        matches!(self.target, PathMatcher::Table(_)) || conditions.any(|one| one.permission.is_some())
    }

    pub(super) fn requires_host(&self) -> bool {
        !self.hosts.is_empty()
    }

    /// Returns the templates of its paths.
    pub(super) fn templates(&self) -> Vec<&Template> {
        self.target.templates()
    }

    pub(super) const fn requirements(&self) -> &Requirements {
        &self.requirements
    }

    fn matches_host(&self, request: &RequestLine<'_>) -> bool {
        self.hosts.is_empty() || self.hosts.iter().any(|host| host.matches(request.host))
    }

    /// Adds the methods that the rule has for the path and host of a request, with `HEAD` after `GET`.
    pub(super) fn list_methods<'p>(
        &'p self,
        request: &RequestLine<'_>,
        lookup: &Lookup<'_, '_>,
        methods: &mut Vec<&'p str>,
    ) {
        let mut add = |method: &'p str| {
            for method in [method, if method == "GET" { "HEAD" } else { method }] {
                if !methods.contains(&method) {
                    methods.push(method);
                }
            }
        };
        match &self.target {
            _ if !self.matches_host(request) => {}
            PathMatcher::Template(template) => {
                if template.matches(lookup) == Ok(true) {
                    self.methods.iter().for_each(|method| add(method));
                }
            }
            PathMatcher::Table(table) => table.list_methods(lookup, &mut add),
        }
    }

    /// Finds the sources that the rule names. Returns a name that no source has, if any.
    pub(super) fn resolve_sources(&mut self, all: &[CredentialSource]) -> Result<(), &str> {
        let Requirements { credentials, sources, .. } = &mut self.requirements;
        if let Some(unknown) =
            credentials.iter().find(|name| !all.iter().any(|source| source.name() == *name))
        {
            return Err(unknown);
        }
        let is_named = |source: &&CredentialSource| credentials.iter().any(|name| name == source.name());
        *sources = all.iter().filter(is_named).cloned().collect();
        Ok(())
    }

    pub(super) fn find<'p>(
        &'p self,
        rule: usize,
        request: &RequestLine<'_>,
        lookup: &Lookup<'_, '_>,
    ) -> Result<Option<RuleMatch<'p>>, AmbiguousRequest> {
        if !self.matches_host(request) {
            return Ok(None);
        }
        let requested = request.preflight.filter(|_| self.requirements.preflight == Preflight::Pass);
        let method = requested.unwrap_or(request.method);
        if !self.methods.is_empty() && !self.methods.iter().any(|known| method_matches(known, method)) {
            return Ok(None);
        }
        let requirements = &self.requirements;
        let preflight = requested.is_some();
        Ok(match &self.target {
            PathMatcher::Template(template) => template.matches(lookup)?.then_some(RuleMatch {
                rule,
                requirements,
                access: requirements.access,
                permission: requirements
                    .conditions
                    .first()
                    .and_then(|conditions| conditions.permission.as_deref()),
                template,
                preflight,
            }),
            PathMatcher::Table(table) => table.find(lookup, method)?.map(|operation| RuleMatch {
                rule,
                requirements,
                access: if operation.public { Access::Public } else { requirements.access },
                permission: (!operation.exempt && requirements.access == Access::Required)
                    .then_some(operation.name.as_str()),
                template: &operation.template,
                preflight,
            }),
        })
    }
}

/// Returns whether a method of a rule matches. `GET` also matches `HEAD`.
pub(super) fn method_matches(rule_method: &str, method: &str) -> bool {
    rule_method == method || (rule_method == "GET" && method == "HEAD")
}

pub(super) fn is_method(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-')
}

/// A method in upper case.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(try_from = "String")]
#[cfg_attr(feature = "schema", schemars(with = "String"))]
struct Method(String);

impl TryFrom<String> for Method {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if is_method(&text) {
            Ok(Self(text))
        } else {
            Err("must be a method in upper case; leave `methods` out for any method")
        }
    }
}

/// Returns whether the member was left out.
#[cfg(feature = "schema")]
fn is_no_scopes(scopes: &ClaimMatcher) -> bool {
    scopes.is_empty()
}

fn encoded_slash<'de, D: Deserializer<'de>>(deserializer: D) -> Result<EncodedSlash, D::Error> {
    checked(deserializer, |text| match text {
        "refuse" => Ok(EncodedSlash::Refuse),
        "segment" => Ok(EncodedSlash::Segment),
        _ => Err("must be `refuse` or `segment`"),
    })
}

fn permission_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    checked(
        deserializer,
        |text| {
            if is_name(text) { Ok(Some(text.into())) } else { Err("must be `Tag:operation`") }
        },
    )
}

/// A rule: which requests it matches, by either `path` or `operations`, and its requirements.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct Fields {
    /// The hosts, where `*.` before a name matches all names below it. Empty: any host.
    #[serde(default)]
    hosts: Vec<Host>,
    /// A path template such as `/sims/{sim_id}` or `/files/**`.
    #[serde(default)]
    path: Option<Template>,
    /// A table of operations instead of one path.
    #[serde(default)]
    operations: Option<Table>,
    /// The methods in upper case. Empty: any method.
    #[serde(default)]
    methods: Vec<Method>,
    #[serde(default)]
    access: Access,
    /// The accepted issuers. Empty: any accepted issuer.
    #[serde(default)]
    issuers: Vec<String>,
    /// The accepted audiences. Empty: any accepted audience.
    #[serde(default)]
    audiences: Vec<String>,
    /// The required claims: the path of each claim and its value.
    #[serde(default, deserialize_with = "pairs")]
    #[cfg_attr(
        feature = "schema",
        schemars(with = "alloc::collections::BTreeMap<String, crate::identity::claim::shape::ClaimMatcher>")
    )]
    claims: Vec<(ClaimName, ClaimMatcher)>,
    /// The required scopes: the token must have all scopes of a list.
    #[serde(default = "no_scopes", deserialize_with = "scopes")]
    #[cfg_attr(
        feature = "schema",
        schemars(with = "crate::identity::claim::shape::ClaimMatcher", skip_serializing_if = "is_no_scopes")
    )]
    scopes: ClaimMatcher,
    /// The permission that the subject must have: `Tag:operation`.
    #[serde(default, deserialize_with = "permission_name")]
    permission: Option<String>,
    /// Alternatives: besides the other requirements, all requirements of one of them must be met.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(with = "Vec<Alternative>"))]
    any_of: Vec<Self>,
    /// The names of the credential sources that the rule searches. Empty: all sources.
    #[serde(default)]
    credentials: Vec<String>,
    /// Whether to remove the credential before the request is forwarded, instead of the setting of the policy. A public
    /// rule removes credentials only if this is true.
    #[serde(default)]
    strip_credential: Option<bool>,
    /// Whether a credential that is not for this deployment, or that has expired, counts as none. It is removed, unless
    /// `strip_credential` of the rule is false. Only for optional rules.
    #[serde(default)]
    ignore_unusable_credentials: bool,
    /// How to decide while the bundle is stale, instead of `outage_grace_seconds`.
    #[serde(default)]
    stale: Option<StalePolicy>,
    /// The mode, instead of that of the policy.
    #[serde(default)]
    mode: Option<Mode>,
    /// What happens to an open stream whose credential would be refused now, instead of the setting of the policy.
    #[serde(default)]
    open_streams: Option<OpenStreamPolicy>,
    #[serde(default)]
    preflight: Preflight,
    #[serde(default, deserialize_with = "encoded_slash")]
    #[cfg_attr(feature = "schema", schemars(with = "EncodedSlash"))]
    encoded_slash: EncodedSlash,
}

impl Fields {
    /// Returns the conditions of an alternative. It has no other members.
    fn into_conditions(self) -> Result<Conditions, &'static str> {
        let Self { issuers, audiences, claims, scopes, permission, .. } = self;
        let has_others = self.path.is_some()
            || self.operations.is_some()
            || !self.hosts.is_empty()
            || !self.methods.is_empty()
            || self.access != Access::default()
            || !self.any_of.is_empty()
            || !self.credentials.is_empty()
            || self.strip_credential.is_some()
            || self.ignore_unusable_credentials
            || self.stale.is_some()
            || self.mode.is_some()
            || self.open_streams.is_some()
            || self.preflight != Preflight::default()
            || self.encoded_slash != EncodedSlash::default();
        let conditions = Conditions { issuers, audiences, claims, scopes, permission };
        if has_others || conditions.is_empty() {
            Err(
                "a member of `any_of` must have `issuers`, `audiences`, `claims`, `scopes` or `permission`, and nothing else",
            )
        } else {
            Ok(conditions)
        }
    }
}

/// The JSON representation of an alternative, for the schema.
#[cfg(feature = "schema")]
#[derive(schemars::JsonSchema)]
#[schemars(deny_unknown_fields, extend("minProperties" = 1))]
#[expect(dead_code, reason = "only its schema is of use")]
struct Alternative {
    /// The accepted issuers. Empty: any accepted issuer.
    #[schemars(default)]
    issuers: Vec<String>,
    /// The accepted audiences. Empty: any accepted audience.
    #[schemars(default)]
    audiences: Vec<String>,
    /// The required claims: the path of each claim and its value.
    #[schemars(default)]
    claims: alloc::collections::BTreeMap<String, crate::identity::claim::shape::ClaimMatcher>,
    /// The required scopes: the token must have all scopes of a list.
    #[schemars(
        default = "no_scopes",
        with = "crate::identity::claim::shape::ClaimMatcher",
        skip_serializing_if = "is_no_scopes"
    )]
    scopes: ClaimMatcher,
    /// The permission that the subject must have: `Tag:operation`.
    #[schemars(default)]
    permission: Option<String>,
}

impl TryFrom<Fields> for Rule {
    type Error = String;

    fn try_from(fields: Fields) -> Result<Self, String> {
        let Fields {
            hosts,
            path,
            operations,
            methods,
            access,
            issuers,
            audiences,
            claims,
            scopes,
            permission,
            any_of,
            credentials,
            strip_credential,
            ignore_unusable_credentials,
            stale: staleness,
            mode,
            open_streams,
            preflight,
            encoded_slash,
        } = fields;
        let mut conditions = Vec::from([Conditions { issuers, audiences, claims, scopes, permission }]);
        for alternative in any_of {
            conditions.push(alternative.into_conditions()?);
        }
        let target = match (path, operations) {
            (Some(template), None) => PathMatcher::Template(template),
            (None, Some(table)) => PathMatcher::Table(table),
            _ => return Err("exactly one of `path` and `operations` is required".into()),
        };
        let requires_permission = conditions.iter().any(|one| one.permission.is_some());
        if matches!(target, PathMatcher::Table(_)) && requires_permission {
            return Err(
                "`permission` is not permitted with `operations`, whose names are the permissions".into()
            );
        }
        let has_requirements = !conditions.iter().all(Conditions::is_empty);
        if access == Access::Public
            && (has_requirements || !credentials.is_empty() || staleness.is_some() || open_streams.is_some())
        {
            return Err("a public rule must not have requirements on credentials".into());
        }
        if access == Access::Optional && (requires_permission || matches!(target, PathMatcher::Table(_))) {
            return Err("an optional rule must not require a permission".into());
        }
        if access != Access::Optional && ignore_unusable_credentials {
            return Err("`ignore_unusable_credentials` is permitted in optional rules only".into());
        }
        let templates = target.templates();
        let is_known = |name: &str| templates.iter().any(|template| template.has_variable(name));
        let mut claims = conditions.iter().flat_map(|one| &one.claims);
        if let Some(name) = claims.find_map(|(_, matcher)| matcher.unaccepted_variable(&is_known)) {
            return Err(format!("the path has no variable `{}`", printable(name)));
        }
        let methods = methods.into_iter().map(|Method(method)| method).collect();
        let requirements = Requirements {
            access,
            conditions,
            credentials,
            sources: Vec::new(),
            strip_credential,
            ignore_unusable_credentials,
            staleness,
            mode,
            open_streams,
            preflight,
            encoded_slash,
        };
        Ok(Self { hosts, target, methods, requirements })
    }
}
