use alloc::{string::String, vec::Vec};

use serde::Deserialize;

use super::{
    Path, PathCase, Template, Unroutable,
    path::Reading,
    request::Request,
    rule::{Access, Demand, Found, Rule},
};
use crate::{Mode, Reason, StalePolicy, claim};

/// Rules in their order.
#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(with = "Vec<Rule>"))]
#[serde(from = "Vec<Rule>")]
pub struct Rules {
    rules: Vec<Rule>,
    /// Whether a literal of their paths is another text when it is folded.
    fold: bool,
}

/// What becomes of a request that no rule matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Unmatched {
    /// It is refused.
    Refuse,
    /// It passes with a good credential.
    Required,
    /// It passes with a good credential or none.
    Optional,
    /// It passes, and no credential is looked at.
    Public,
}

impl From<Vec<Rule>> for Rules {
    fn from(rules: Vec<Rule>) -> Self {
        let fold = rules.iter().any(Rule::folds);
        Self { rules, fold }
    }
}

/// The rule that a request falls under.
#[derive(Debug, Default)]
pub(crate) struct Route<'p, 'r> {
    pub(crate) access: Access,
    pub(crate) preflight: bool,
    /// Its number.
    pub(crate) rule: Option<usize>,
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
    /// Returns whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The operations of all tables and the other rules, together.
    pub fn len(&self) -> usize {
        self.rules.iter().map(Rule::operations).sum()
    }

    pub(crate) fn ask_for_permissions(&self) -> bool {
        self.rules.iter().any(Rule::asks_for_permission)
    }

    /// Whether a rule looks at this member of a token, beyond what every request does.
    pub(crate) fn look_at(&self, member: &str) -> bool {
        self.rules.iter().map(Rule::demand).any(|Demand { audiences, claims, scopes, .. }| match member {
            "aud" if !audiences.is_empty() => true,
            "scope" | "scp" if !scopes.is_empty() => true,
            _ => claims.iter().any(|(name, _)| claim::is_in(name, member)),
        })
    }

    pub(crate) fn scopes(&self, rule: usize) -> &[String] {
        self.rules.get(rule).map_or(&[], |rule| &rule.demand().scopes)
    }

    pub(crate) fn stale_policies(&self) -> impl Iterator<Item = StalePolicy> {
        self.rules.iter().filter_map(|rule| rule.demand().staleness)
    }

    /// Whether any says so itself.
    pub(crate) fn have(&self, mode: Mode) -> bool {
        self.rules.iter().any(|rule| rule.demand().mode == Some(mode))
    }

    /// The places of credentials that rules name, with the number of the rule.
    pub(crate) fn credentials(&self) -> impl Iterator<Item = (usize, &str)> {
        let numbered = self.rules.iter().enumerate();
        numbered.flat_map(|(at, rule)| rule.demand().credentials.iter().map(move |name| (at, name.as_str())))
    }

    pub(crate) fn route<'p, 'r>(
        &'p self,
        unmatched: Option<Unmatched>,
        case: PathCase,
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
        let request = Request::of(headers, self.rules.iter().any(Rule::asks_for_host))?;
        let path = Path::parse(request.target)?;
        let found = self.find(&request, &path, Reading::AsSent)?;
        // A closed template says itself whether a slash ends it; anything else takes both spellings.
        let by_slash = match &found {
            Some(found) => found.template.open,
            None => access.is_some(),
        };
        let rule = found.as_ref().map(|found| found.rule);
        if by_slash {
            let other = self.find(&request, &path.toggled(), Reading::AsSent)?;
            if other.map(|other| other.rule) != rule {
                return Err(Unroutable::TrailingSlash.into());
            }
        }
        // What no rule matches and nothing lets pass is refused as that.
        let is_open = found.is_some() || access.is_some();
        if case == PathCase::Fold && is_open && (self.fold || path.folds()) {
            let folded = path.folded();
            let other = self.find(&request, &folded, Reading::Folded)?;
            let same_row = match (&other, &found) {
                (Some(other), Some(found)) => core::ptr::eq(other.template, found.template),
                (None, None) => true,
                _ => false,
            };
            if !same_row || other.map(|other| other.rule) != rule {
                return Err(Unroutable::ReadAlike.into());
            }
            if by_slash {
                let other = self.find(&request, &folded.toggled(), Reading::Folded)?;
                if other.map(|other| other.rule) != rule {
                    return Err(Unroutable::ReadAlike.into());
                }
            }
        }
        match found {
            Some(Found { rule, demand, access, permission, template, preflight }) => Ok(Route {
                rule: Some(rule),
                access,
                preflight,
                demand: Some(demand),
                permission,
                place: Some((template, path)),
            }),
            None => Ok(Route { access: access.ok_or(Reason::RouteUnmatched)?, ..Route::default() }),
        }
    }

    fn find<'p>(
        &'p self,
        request: &Request<'_>,
        path: &Path<'_>,
        reading: Reading,
    ) -> Result<Option<Found<'p>>, Unroutable> {
        for (number, rule) in self.rules.iter().enumerate() {
            if let Some(found) = rule.find(number, request, path, reading)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}
