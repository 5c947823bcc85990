//! Rules for requests.

use alloc::{format, string::String, vec::Vec};

use serde::{Deserialize, Deserializer};

use super::{
    AmbiguousRequest, Path, Table, Template, host::Host, path::PathComparison, request::RequestLine,
};
use crate::{
    CredentialSource, Mode, OpenStreamPolicy, StalePolicy,
    claim::ClaimMatcher,
    config::{checked, pairs, printable},
    permission::is_name,
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

/// The requirements of a rule on matching requests.
#[derive(Debug, Clone)]
pub(crate) struct Requirements {
    pub(crate) access: Access,
    /// The accepted issuers. Empty: all issuers of the policy.
    pub(crate) issuers: Vec<String>,
    /// The accepted audiences. Empty: all audiences of the policy.
    pub(crate) audiences: Vec<String>,
    pub(crate) claims: Vec<(String, ClaimMatcher)>,
    pub(crate) scopes: Vec<String>,
    pub(crate) permission: Option<String>,
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

impl Rule {
    /// Returns the number of operations of the rule.
    pub(super) fn operations(&self) -> usize {
        match &self.target {
            PathMatcher::Template(_) => 1,
            PathMatcher::Table(table) => table.len(),
        }
    }

    pub(super) fn requires_permission(&self) -> bool {
        self.requirements.permission.is_some() || matches!(self.target, PathMatcher::Table(_))
    }

    pub(super) fn requires_host(&self) -> bool {
        !self.hosts.is_empty()
    }

    /// Returns whether a literal of its paths changes when it is folded.
    pub(super) fn changes_when_folded(&self) -> bool {
        match &self.target {
            PathMatcher::Template(template) => template.changes_when_folded(),
            PathMatcher::Table(table) => table.templates().any(Template::changes_when_folded),
        }
    }

    pub(super) const fn requirements(&self) -> &Requirements {
        &self.requirements
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
        path: &Path<'_>,
        comparison: PathComparison,
    ) -> Result<Option<RuleMatch<'p>>, AmbiguousRequest> {
        if !self.hosts.is_empty() && !self.hosts.iter().any(|host| host.matches(request.host)) {
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
            PathMatcher::Template(template) => template.matches(path, comparison)?.then_some(RuleMatch {
                rule,
                requirements,
                access: requirements.access,
                permission: requirements.permission.as_deref(),
                template,
                preflight,
            }),
            PathMatcher::Table(table) => table.find(path, comparison, method)?.map(|operation| RuleMatch {
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
        if is_method(&text) { Ok(Self(text)) } else { Err("must be a method in upper case") }
    }
}

/// A scope (RFC 6749 section 3.3).
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(try_from = "String")]
#[cfg_attr(feature = "schema", schemars(with = "String"))]
struct Scope(String);

impl TryFrom<String> for Scope {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let is_permitted = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
        let is_scope = !text.is_empty() && text.bytes().all(is_permitted);
        if is_scope { Ok(Self(text)) } else { Err("must be printable ASCII without spaces, \" and \\") }
    }
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
        schemars(with = "alloc::collections::BTreeMap<String, crate::claim::shape::ClaimMatcher>")
    )]
    claims: Vec<(String, ClaimMatcher)>,
    /// The required scopes: the token must have all of them.
    #[serde(default)]
    scopes: Vec<Scope>,
    /// The permission that the subject must have: `Tag:operation`.
    #[serde(default, deserialize_with = "permission_name")]
    permission: Option<String>,
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
            credentials,
            strip_credential,
            ignore_unusable_credentials,
            stale: staleness,
            mode,
            open_streams,
            preflight,
        } = fields;
        let target = match (path, operations) {
            (Some(template), None) => PathMatcher::Template(template),
            (None, Some(table)) => PathMatcher::Table(table),
            _ => return Err("exactly one of `path` and `operations` is required".into()),
        };
        if matches!(target, PathMatcher::Table(_)) && permission.is_some() {
            return Err(
                "`permission` is not permitted with `operations`, whose names are the permissions".into()
            );
        }
        let has_requirements = !issuers.is_empty()
            || !audiences.is_empty()
            || !claims.is_empty()
            || !scopes.is_empty()
            || permission.is_some();
        if access == Access::Public
            && (has_requirements || !credentials.is_empty() || staleness.is_some() || open_streams.is_some())
        {
            return Err("a public rule must not have requirements on credentials".into());
        }
        if access == Access::Optional && (permission.is_some() || matches!(target, PathMatcher::Table(_))) {
            return Err("an optional rule must not require a permission".into());
        }
        if access != Access::Optional && ignore_unusable_credentials {
            return Err("`ignore_unusable_credentials` is permitted in optional rules only".into());
        }
        for name in claims.iter().filter_map(|(_, matcher)| matcher.path_variable()) {
            let is_known = match &target {
                PathMatcher::Template(template) => template.has_variable(name),
                PathMatcher::Table(table) => table.templates().any(|template| template.has_variable(name)),
            };
            if !is_known {
                return Err(format!("the path has no variable `{}`", printable(name)));
            }
        }
        let methods = methods.into_iter().map(|Method(method)| method).collect();
        let scopes = scopes.into_iter().map(|Scope(scope)| scope).collect();
        let requirements = Requirements {
            access,
            issuers,
            audiences,
            claims,
            scopes,
            permission,
            credentials,
            sources: Vec::new(),
            strip_credential,
            ignore_unusable_credentials,
            staleness,
            mode,
            open_streams,
            preflight,
        };
        Ok(Self { hosts, target, methods, requirements })
    }
}
