use alloc::{
    collections::BTreeMap,
    format,
    string::{String, ToString},
    vec::Vec,
};

use serde::{Deserialize, Deserializer, de::Error as _};

use super::{Path, Table, Template, Unroutable, host::Host, request::Request};
use crate::{Mode, StalePolicy, claim::Wanted, permission::is_name};

/// Which requests, and what is demanded of them.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "Source")]
pub struct Rule {
    hosts: Vec<Host>,
    target: Target,
    methods: Vec<Method>,
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
    pub(crate) claims: BTreeMap<String, Wanted>,
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
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// No credential is looked at.
    Public,
    /// One that is sent must be good; none is fine.
    Optional,
    #[default]
    Required,
}

/// What becomes of a CORS preflight, which browsers send without credentials.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
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

    pub(super) const fn demand(&self) -> &Demand {
        &self.demand
    }

    pub(super) fn find<'p>(
        &'p self,
        rule: usize,
        request: &Request<'_>,
        path: &Path<'_>,
    ) -> Result<Option<Found<'p>>, Unroutable> {
        if !self.hosts.is_empty() && !self.hosts.iter().any(|host| host.matches(request.host)) {
            return Ok(None);
        }
        let asked = request.preflight.filter(|_| self.demand.preflight == Preflight::Pass);
        let method = asked.unwrap_or(request.method);
        if !self.methods.is_empty() && !self.methods.iter().any(|Method(known)| covers(known, method)) {
            return Ok(None);
        }
        let demand = &self.demand;
        let preflight = asked.is_some();
        Ok(match &self.target {
            Target::Template(template) => template.matches(path)?.then_some(Found {
                rule,
                demand,
                access: demand.access,
                permission: demand.permission.as_deref(),
                template,
                preflight,
            }),
            Target::Table(table) => table.find(path, method)?.map(|operation| Found {
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

#[derive(Debug, Clone)]
struct Method(String);

impl<'de> Deserialize<'de> for Method {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        let text = String::deserialize(source)?;
        if is_method(&text) { Ok(Self(text)) } else { Err(D::Error::custom("must be a method in capitals")) }
    }
}

struct PermissionName(String);

impl<'de> Deserialize<'de> for PermissionName {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        let text = String::deserialize(source)?;
        if is_name(&text) { Ok(Self(text)) } else { Err(D::Error::custom("must be `Tag:operation`")) }
    }
}

struct Scope(String);

impl<'de> Deserialize<'de> for Scope {
    /// RFC 6749 section 3.3.
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        let text = String::deserialize(source)?;
        let usual = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
        if !text.is_empty() && text.bytes().all(usual) {
            Ok(Self(text))
        } else {
            Err(D::Error::custom("must be printable, without spaces, \" and \\"))
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Source {
    #[serde(default)]
    hosts: Vec<Host>,
    path: Option<Template>,
    operations: Option<Table>,
    #[serde(default)]
    methods: Vec<Method>,
    #[serde(default)]
    access: Access,
    #[serde(default)]
    issuers: Vec<String>,
    #[serde(default)]
    audiences: Vec<String>,
    #[serde(default)]
    claims: BTreeMap<String, Wanted>,
    #[serde(default)]
    scopes: Vec<Scope>,
    permission: Option<PermissionName>,
    #[serde(default)]
    credentials: Vec<String>,
    #[serde(rename = "stale")]
    staleness: Option<StalePolicy>,
    mode: Option<Mode>,
    #[serde(default)]
    preflight: Preflight,
}

impl TryFrom<Source> for Rule {
    type Error = String;

    fn try_from(source: Source) -> Result<Self, String> {
        let Source {
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
            staleness,
            mode,
            preflight,
        } = source;
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
        for name in claims.values().filter_map(Wanted::path_variable) {
            let known = match &target {
                Target::Template(template) => template.has_variable(name),
                Target::Table(table) => table.templates().any(|template| template.has_variable(name)),
            };
            if !known {
                return Err(format!("has no path variable `{}`", name.escape_debug()));
            }
        }
        let demand = Demand {
            access,
            issuers,
            audiences,
            claims,
            scopes: scopes.into_iter().map(|Scope(scope)| scope).collect(),
            permission: permission.map(|PermissionName(name)| name.to_string()),
            credentials,
            staleness,
            mode,
            preflight,
        };
        Ok(Self { hosts, target, methods, demand })
    }
}
