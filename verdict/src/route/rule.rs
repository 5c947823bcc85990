use alloc::{format, string::String, vec::Vec};

use token::json::Json;

use super::{Path, Table, Template, Unroutable, host::Host, path::Reading, request::Request};
use crate::{
    Mode, StalePolicy,
    claim::Wanted,
    permission::is_name,
    strict::{self, Members, Read, Wrong, shown},
};

/// Which requests, and what is demanded of them.
#[derive(Debug, Clone)]
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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Access {
    /// No credential is looked at.
    Public,
    /// One that is sent must be good; none is fine.
    Optional,
    #[default]
    Required,
}

/// What becomes of a CORS preflight, which browsers send without credentials.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
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

fn method(json: &Json) -> Result<String, Wrong> {
    let text = strict::text(json)?;
    if is_method(text) { Ok(text.into()) } else { Err(Wrong::new("must be a method in capitals")) }
}

fn permission_name(json: &Json) -> Result<String, Wrong> {
    let text = strict::text(json)?;
    if is_name(text) { Ok(text.into()) } else { Err(Wrong::new("must be `Tag:operation`")) }
}

/// RFC 6749 section 3.3.
fn scope(json: &Json) -> Result<String, Wrong> {
    let text = strict::text(json)?;
    let usual = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
    if !text.is_empty() && text.bytes().all(usual) {
        Ok(text.into())
    } else {
        Err(Wrong::new("must be printable, without spaces, \" and \\"))
    }
}

impl Read for Access {
    fn read(json: &Json) -> Result<Self, Wrong> {
        let known = [("public", Self::Public), ("optional", Self::Optional), ("required", Self::Required)];
        strict::variant(json, &known)
    }
}

impl Read for Preflight {
    fn read(json: &Json) -> Result<Self, Wrong> {
        strict::variant(json, &[("check", Self::Check), ("pass", Self::Pass)])
    }
}

impl Read for Rule {
    fn read(json: &Json) -> Result<Self, Wrong> {
        let members = Members::of(json, &MEMBERS)?;
        let (path, operations) = (members.optional("path")?, members.optional("operations")?);
        let hosts: Vec<Host> = members.optional("hosts")?.unwrap_or_default();
        let methods = members.optional_by("methods", |json| strict::items(json, method))?.unwrap_or_default();
        let access: Access = members.optional("access")?.unwrap_or_default();
        let issuers: Vec<String> = members.optional("issuers")?.unwrap_or_default();
        let audiences: Vec<String> = members.optional("audiences")?.unwrap_or_default();
        let claims =
            members.optional_by("claims", |json| strict::pairs(json, |_, wanted| Wanted::read(wanted)))?;
        let claims = claims.unwrap_or_default();
        let scopes = members.optional_by("scopes", |json| strict::items(json, scope))?.unwrap_or_default();
        let permission = members.optional_by("permission", permission_name)?;
        let credentials: Vec<String> = members.optional("credentials")?.unwrap_or_default();
        let staleness = members.optional("stale")?;
        let mode = members.optional("mode")?;
        let preflight = members.optional("preflight")?.unwrap_or_default();
        let target = match (path, operations) {
            (Some(template), None) => Target::Template(template),
            (None, Some(table)) => Target::Table(table),
            _ => return Err(Wrong::new("needs either `path` or `operations`")),
        };
        if matches!(target, Target::Table(_)) && permission.is_some() {
            return Err(Wrong::new("has `operations`, whose names are the permissions"));
        }
        let demands = !issuers.is_empty()
            || !audiences.is_empty()
            || !claims.is_empty()
            || !scopes.is_empty()
            || permission.is_some();
        if access == Access::Public && (demands || !credentials.is_empty() || staleness.is_some()) {
            return Err(Wrong::new("is public and demands something of a credential"));
        }
        if access == Access::Optional && (permission.is_some() || matches!(target, Target::Table(_))) {
            return Err(Wrong::new("is optional, so it cannot demand a permission"));
        }
        for name in claims.iter().filter_map(|(_, wanted)| wanted.path_variable()) {
            let known = match &target {
                Target::Template(template) => template.has_variable(name),
                Target::Table(table) => table.templates().any(|template| template.has_variable(name)),
            };
            if !known {
                return Err(Wrong::new(format!("has no path variable `{}`", shown(name))));
            }
        }
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

const MEMBERS: [&str; 14] = [
    "hosts",
    "path",
    "operations",
    "methods",
    "access",
    "issuers",
    "audiences",
    "claims",
    "scopes",
    "permission",
    "credentials",
    "stale",
    "mode",
    "preflight",
];
