use alloc::{
    collections::BTreeMap,
    format,
    string::{String, ToString},
    vec::Vec,
};

use serde::{Deserialize, Deserializer, de::Error as _};

use super::{Path, Table, Template, Unroutable, host, host::Host};
use crate::{Reason, claim::Wanted, object::Object, permission::is_name};

/// Rules in their order.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(transparent)]
pub struct Rules(Vec<Rule>);

/// Which requests, and what is demanded of them.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "Object<Source>")]
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
    /// Headers of credentials; any that the policy accepts when there are none here.
    pub(crate) credentials: Vec<String>,
    pub(crate) staleness: Option<Staleness>,
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

/// What becomes of a request that no rule matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unmatched {
    Refuse,
    Required,
    Optional,
    Public,
}

/// What follows when the edge has not heard of the control plane for longer than a manifest lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Staleness {
    /// Nothing is admitted.
    Deny,
    /// Everything is, for so long.
    OutageGraceSeconds(u64),
    /// What was issued within so many seconds is: a credential lives on for that long at most without its revocation
    /// having a chance to arrive.
    IssuedWithinSeconds(u64),
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

/// The rule that a request falls under.
#[derive(Debug, Default)]
pub(crate) struct Route<'p, 'r> {
    pub(crate) access: Access,
    pub(crate) preflight: bool,
    /// None where no rule matched or there are none.
    pub(crate) demand: Option<&'p Demand>,
    pub(crate) permission: Option<&'p str>,
    place: Option<(&'p Template, Path<'r>)>,
}

impl Route<'_, '_> {
    pub(crate) fn variables(&self) -> Vec<(&str, &str)> {
        self.place.as_ref().map_or_else(Vec::new, |(template, path)| template.variables(path).collect())
    }
}

impl Rules {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The operations of all tables and the other rules, together.
    pub fn len(&self) -> usize {
        let lengths = self.0.iter().map(|rule| match &rule.target {
            Target::Template(_) => 1,
            Target::Table(table) => table.len(),
        });
        lengths.sum()
    }

    pub(crate) fn ask_for_permissions(&self) -> bool {
        let asks = |rule: &Rule| rule.demand.permission.is_some() || matches!(rule.target, Target::Table(_));
        self.0.iter().any(asks)
    }

    /// The headers of credentials that rules name, with the number of the rule.
    pub(crate) fn credentials(&self) -> impl Iterator<Item = (usize, &str)> {
        let numbered = self.0.iter().enumerate();
        numbered.flat_map(|(at, rule)| rule.demand.credentials.iter().map(move |name| (at, name.as_str())))
    }

    pub(crate) fn route<'p, 'r>(
        &'p self,
        unmatched: Option<Unmatched>,
        headers: impl Iterator<Item = (&'r str, &'r [u8])> + Clone,
    ) -> Result<Route<'p, 'r>, Reason> {
        let fallback = match unmatched {
            // A configuration without rules says that everything needs a credential.
            None if self.is_empty() => Unmatched::Required,
            None => Unmatched::Refuse,
            Some(unmatched) => unmatched,
        };
        let access = match fallback {
            Unmatched::Refuse => None,
            Unmatched::Required => Some(Access::Required),
            Unmatched::Optional => Some(Access::Optional),
            Unmatched::Public => Some(Access::Public),
        };
        if self.is_empty() {
            let access = access.ok_or(Reason::RouteUnmatched)?;
            return Ok(Route { access, ..Route::default() });
        }
        let request = Request::of(headers, self.0.iter().any(|rule| !rule.hosts.is_empty()))?;
        let path = Path::parse(request.target)?;
        let found = self.find(&request, &path)?;
        // A closed template says itself whether a slash ends it; anything else takes both spellings.
        let by_slash = match &found {
            Some(found) => found.template.open,
            None => access.is_some(),
        };
        if by_slash {
            let other = self.find(&request, &path.toggled())?;
            if other.map(|other| other.rule) != found.as_ref().map(|found| found.rule) {
                return Err(Unroutable::TrailingSlash.into());
            }
        }
        match found {
            Some(Found { demand, access, permission, template, preflight, .. }) => Ok(Route {
                access,
                preflight,
                demand: Some(demand),
                permission,
                place: Some((template, path)),
            }),
            None => Ok(Route { access: access.ok_or(Reason::RouteUnmatched)?, ..Route::default() }),
        }
    }

    fn find<'p>(&'p self, request: &Request<'_>, path: &Path<'_>) -> Result<Option<Found<'p>>, Unroutable> {
        for (number, rule) in self.0.iter().enumerate() {
            if let Some(found) = rule.find(number, request, path)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

struct Found<'p> {
    rule: usize,
    demand: &'p Demand,
    access: Access,
    permission: Option<&'p str>,
    template: &'p Template,
    preflight: bool,
}

impl Rule {
    fn find<'p>(
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

/// What rules look at.
struct Request<'r> {
    method: &'r str,
    /// Empty where no rule asks for it.
    host: &'r str,
    target: &'r [u8],
    /// The method that a CORS preflight asks for.
    preflight: Option<&'r str>,
}

impl<'r> Request<'r> {
    fn of(
        headers: impl Iterator<Item = (&'r str, &'r [u8])> + Clone,
        with_host: bool,
    ) -> Result<Self, Unroutable> {
        let method = only(headers.clone(), &[":method"], Unroutable::Method)?;
        let method = method.and_then(token).ok_or(Unroutable::Method)?;
        let target = only(headers.clone(), &[":path"], Unroutable::Path)?.ok_or(Unroutable::Path)?;
        let host = if with_host {
            let authority = only(headers.clone(), &[":authority", "host"], Unroutable::Host)?;
            host::named(authority.ok_or(Unroutable::Host)?)?
        } else {
            ""
        };
        // Fetch standard, section 4.8: both headers make a preflight.
        let has_origin = || headers.clone().any(|(name, _)| name.eq_ignore_ascii_case("origin"));
        let preflight = if method == "OPTIONS" && has_origin() {
            let asked = only(headers.clone(), &["access-control-request-method"], Unroutable::Method)?;
            asked.map(|asked| token(asked).ok_or(Unroutable::Method)).transpose()?
        } else {
            None
        };
        Ok(Self { method, host, target, preflight })
    }
}

/// None when there is none; several must be the same.
fn only<'r>(
    headers: impl Iterator<Item = (&'r str, &'r [u8])>,
    names: &[&str],
    several: Unroutable,
) -> Result<Option<&'r [u8]>, Unroutable> {
    let mut found = None;
    for (name, value) in headers {
        if names.iter().any(|wanted| wanted.eq_ignore_ascii_case(name))
            && found.replace(value).is_some_and(|before| before != value)
        {
            return Err(several);
        }
    }
    Ok(found)
}

/// RFC 9110 section 5.6.2.
fn token(bytes: &[u8]) -> Option<&str> {
    let text = core::str::from_utf8(bytes).ok()?;
    let usual = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    (!text.is_empty() && text.bytes().all(usual)).then_some(text)
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
    staleness: Option<Staleness>,
    #[serde(default)]
    preflight: Preflight,
}

impl TryFrom<Object<Source>> for Rule {
    type Error = String;

    fn try_from(Object(source): Object<Source>) -> Result<Self, String> {
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
            preflight,
        };
        Ok(Self { hosts, target, methods, demand })
    }
}
