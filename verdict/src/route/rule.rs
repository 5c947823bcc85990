use alloc::{format, string::String, vec::Vec};

use serde::{Deserialize, Deserializer};

use super::{Path, Table, Template, Unroutable, host::Host, path::Reading, request::Request};
use crate::{
    Mode, StalePolicy,
    claim::Wanted,
    config::{checked, pairs, printable},
    permission::is_name,
};

/// Which requests, and what is demanded of them.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(with = "Fields"))]
#[serde(try_from = "Fields")]
pub struct Rule {
    hosts: Vec<Host>,
    target: Target,
    methods: Vec<String>,
    demand: Demand,
}

#[derive(Debug, Clone)]
enum Target {
    Template(Template),
    Table(Table),
}

/// What a request must bring.
#[derive(Debug, Clone)]
pub(crate) struct Demand {
    pub(crate) access: Access,
    /// One of them; any that the policy accepts when there are none here.
    pub(crate) issuers: Vec<String>,
    /// One of them; any that the policy accepts when there are none here.
    pub(crate) audiences: Vec<String>,
    pub(crate) claims: Vec<(String, Wanted)>,
    pub(crate) scopes: Vec<String>,
    pub(crate) permission: Option<String>,
    /// Names of places of credentials; any that the policy accepts when there are none here.
    pub(crate) credentials: Vec<String>,
    pub(crate) staleness: Option<StalePolicy>,
    /// That of the policy when there is none here.
    pub(crate) mode: Option<Mode>,
    preflight: Preflight,
}

/// Whether a credential is needed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// No credential is looked at.
    Public,
    /// One that is sent must be good; none is fine.
    Optional,
    /// A good credential is needed.
    #[default]
    Required,
}

/// What becomes of a CORS preflight, which browsers send without credentials.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
enum Preflight {
    /// It is a request like any other.
    #[default]
    Check,
    /// It passes if the method that it asks for matches the rule: the upstream answers it.
    Pass,
}

/// A rule that matches.
pub(super) struct Found<'p> {
    /// Its number.
    pub(super) rule: usize,
    pub(super) demand: &'p Demand,
    pub(super) access: Access,
    pub(super) permission: Option<&'p str>,
    pub(super) template: &'p Template,
    pub(super) preflight: bool,
}

impl Rule {
    /// How many operations it is about.
    pub(super) fn operations(&self) -> usize {
        match &self.target {
            Target::Template(_) => 1,
            Target::Table(table) => table.len(),
        }
    }

    pub(super) fn asks_for_permission(&self) -> bool {
        self.demand.permission.is_some() || matches!(self.target, Target::Table(_))
    }

    pub(super) fn asks_for_host(&self) -> bool {
        !self.hosts.is_empty()
    }

    /// Whether a literal of its paths is another text when it is folded.
    pub(super) fn folds(&self) -> bool {
        match &self.target {
            Target::Template(template) => template.folds(),
            Target::Table(table) => table.templates().any(Template::folds),
        }
    }

    pub(super) const fn demand(&self) -> &Demand {
        &self.demand
    }

    pub(super) fn find<'p>(
        &'p self,
        rule: usize,
        request: &Request<'_>,
        path: &Path<'_>,
        reading: Reading,
    ) -> Result<Option<Found<'p>>, Unroutable> {
        if !self.hosts.is_empty() && !self.hosts.iter().any(|host| host.matches(request.host)) {
            return Ok(None);
        }
        let asked = request.preflight.filter(|_| self.demand.preflight == Preflight::Pass);
        let method = asked.unwrap_or(request.method);
        if !self.methods.is_empty() && !self.methods.iter().any(|known| covers(known, method)) {
            return Ok(None);
        }
        let demand = &self.demand;
        let preflight = asked.is_some();
        Ok(match &self.target {
            Target::Template(template) => template.matches(path, reading)?.then_some(Found {
                rule,
                demand,
                access: demand.access,
                permission: demand.permission.as_deref(),
                template,
                preflight,
            }),
            Target::Table(table) => table.find(path, reading, method)?.map(|operation| Found {
                rule,
                demand,
                access: if operation.public { Access::Public } else { demand.access },
                permission: (!operation.exempt && demand.access == Access::Required)
                    .then_some(operation.name.as_str()),
                template: &operation.template,
                preflight,
            }),
        })
    }
}

/// Whoever may `GET` may ask for the headers alone.
pub(super) fn covers(known: &str, method: &str) -> bool {
    known == method || (known == "GET" && method == "HEAD")
}

pub(super) fn is_method(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-')
}

/// A method in capitals.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(try_from = "String")]
#[cfg_attr(feature = "schema", schemars(with = "String"))]
struct Method(String);

impl TryFrom<String> for Method {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if is_method(&text) { Ok(Self(text)) } else { Err("must be a method in capitals") }
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
        let usual = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
        let is_scope = !text.is_empty() && text.bytes().all(usual);
        if is_scope { Ok(Self(text)) } else { Err("must be printable, without spaces, \" and \\") }
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

/// Which requests, by either `path` or `operations`, and what is demanded of them.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct Fields {
    /// Hosts, or `*.` before one for every name below it; any without it.
    #[serde(default)]
    hosts: Vec<Host>,
    /// A template such as `/sims/{sim_id}` or `/files/**`.
    #[serde(default)]
    path: Option<Template>,
    #[serde(default)]
    operations: Option<Table>,
    /// Methods in capitals; any without it.
    #[serde(default)]
    methods: Vec<Method>,
    #[serde(default)]
    access: Access,
    /// Issuers of which the token must have one.
    #[serde(default)]
    issuers: Vec<String>,
    /// Audiences of which the token must have one.
    #[serde(default)]
    audiences: Vec<String>,
    /// Claims by their paths, and what each must be.
    #[serde(default, deserialize_with = "pairs")]
    #[cfg_attr(
        feature = "schema",
        schemars(with = "alloc::collections::BTreeMap<String, crate::claim::shape::Wanted>")
    )]
    claims: Vec<(String, Wanted)>,
    /// Scopes, all of which the token must have.
    #[serde(default)]
    scopes: Vec<Scope>,
    /// The permission that the subject must have: `Tag:operation`.
    #[serde(default, deserialize_with = "permission_name")]
    permission: Option<String>,
    /// Names of the credential sources that are accepted; any without it.
    #[serde(default)]
    credentials: Vec<String>,
    #[serde(default)]
    stale: Option<StalePolicy>,
    #[serde(default)]
    mode: Option<Mode>,
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
            stale: staleness,
            mode,
            preflight,
        } = fields;
        let target = match (path, operations) {
            (Some(template), None) => Target::Template(template),
            (None, Some(table)) => Target::Table(table),
            _ => return Err("needs either `path` or `operations`".into()),
        };
        if matches!(target, Target::Table(_)) && permission.is_some() {
            return Err("has `operations`, whose names are the permissions".into());
        }
        let demands = !issuers.is_empty()
            || !audiences.is_empty()
            || !claims.is_empty()
            || !scopes.is_empty()
            || permission.is_some();
        if access == Access::Public && (demands || !credentials.is_empty() || staleness.is_some()) {
            return Err("is public and demands something of a credential".into());
        }
        if access == Access::Optional && (permission.is_some() || matches!(target, Target::Table(_))) {
            return Err("is optional, so it cannot demand a permission".into());
        }
        for name in claims.iter().filter_map(|(_, wanted)| wanted.path_variable()) {
            let known = match &target {
                Target::Template(template) => template.has_variable(name),
                Target::Table(table) => table.templates().any(|template| template.has_variable(name)),
            };
            if !known {
                return Err(format!("has no path variable `{}`", printable(name)));
            }
        }
        let methods = methods.into_iter().map(|Method(method)| method).collect();
        let scopes = scopes.into_iter().map(|Scope(scope)| scope).collect();
        let demand = Demand {
            access,
            issuers,
            audiences,
            claims,
            scopes,
            permission,
            credentials,
            staleness,
            mode,
            preflight,
        };
        Ok(Self { hosts, target, methods, demand })
    }
}
