//! The list of rules.

use alloc::{string::String, vec::Vec};

use serde::Deserialize;

use super::{
    AmbiguousRequest, Path, PathCase, Template,
    path::PathComparison,
    request::RequestLine,
    rule::{Access, Requirements, Rule, RuleMatch},
};
use crate::{CredentialSource, Mode, Reason, StalePolicy, claim};

/// The rules in order of precedence.
#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(with = "Vec<Rule>"))]
#[serde(from = "Vec<Rule>")]
pub struct Rules {
    rules: Vec<Rule>,
    /// Whether a literal of a path changes when it is folded.
    has_foldable_literal: bool,
}

/// How to treat a request that no rule matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum UnmatchedPolicy {
    /// The request is refused.
    Refuse,
    /// The request requires a valid credential.
    Required,
    /// A credential is not required, but must be valid if it is sent.
    Optional,
    /// The request passes, and credentials are not checked.
    Public,
}

impl From<Vec<Rule>> for Rules {
    fn from(rules: Vec<Rule>) -> Self {
        let has_foldable_literal = rules.iter().any(Rule::changes_when_folded);
        Self { rules, has_foldable_literal }
    }
}

/// The rule that applies to a request.
#[derive(Debug, Default)]
pub(crate) struct Route<'p, 'r> {
    pub(crate) access: Access,
    pub(crate) preflight: bool,
    /// The index of the rule.
    pub(crate) rule: Option<usize>,
    /// The requirements of the rule, or `None` if no rule matched.
    pub(crate) requirements: Option<&'p Requirements>,
    pub(crate) permission: Option<&'p str>,
    matched: Option<(&'p Template, Path<'r>)>,
}

impl Route<'_, '_> {
    /// Returns the name and value of each path variable.
    pub(crate) fn variables(&self) -> Vec<(&str, &str)> {
        self.matched.as_ref().map_or_else(Vec::new, |(template, path)| template.variables(path).collect())
    }
}

impl Rules {
    /// Returns whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Returns the number of operations in all tables plus the number of other rules.
    pub fn len(&self) -> usize {
        self.rules.iter().map(Rule::operations).sum()
    }

    /// Returns whether any rule requires a permission.
    pub(crate) fn require_permissions(&self) -> bool {
        self.rules.iter().any(Rule::requires_permission)
    }

    /// Returns whether a rule uses this top-level claim, beyond the claims that every request uses.
    pub(crate) fn uses_claim(&self, member: &str) -> bool {
        self.rules.iter().map(Rule::requirements).any(|Requirements { audiences, claims, scopes, .. }| {
            match member {
                "aud" if !audiences.is_empty() => true,
                "scope" | "scp" if !scopes.is_empty() => true,
                _ => claims.iter().any(|(name, _)| claim::needs_member(name, member)),
            }
        })
    }

    /// Returns the scopes that a rule requires.
    pub(crate) fn scopes(&self, rule: usize) -> &[String] {
        self.rules.get(rule).map_or(&[], |rule| &rule.requirements().scopes)
    }

    /// Returns the stale policies of the rules.
    pub(crate) fn stale_policies(&self) -> impl Iterator<Item = StalePolicy> {
        self.rules.iter().filter_map(|rule| rule.requirements().staleness)
    }

    /// Returns whether any rule sets this mode, instead of having that of the policy.
    pub(crate) fn any_in_mode(&self, mode: Mode) -> bool {
        self.rules.iter().any(|rule| rule.requirements().mode == Some(mode))
    }

    /// Finds the credential sources that the rules name. Returns the index of a rule and a name that no source has, if
    /// any.
    pub(crate) fn resolve_sources(&mut self, all: &[CredentialSource]) -> Result<(), (usize, &str)> {
        let mut rules = self.rules.iter_mut().enumerate();
        rules.try_for_each(|(at, rule)| rule.resolve_sources(all).map_err(|name| (at, name)))
    }

    /// Returns the requirements of a rule.
    pub(crate) fn requirements(&self, rule: usize) -> Option<&Requirements> {
        self.rules.get(rule).map(Rule::requirements)
    }

    /// Finds the rule for a request. `unmatched` applies if no rule matches.
    pub(crate) fn route<'p, 'r>(
        &'p self,
        unmatched: Option<UnmatchedPolicy>,
        case: PathCase,
        headers: impl Iterator<Item = (&'r str, &'r [u8])> + Clone,
    ) -> Result<Route<'p, 'r>, Reason> {
        let fallback = match unmatched {
            // Without rules, every request requires a credential.
            None if self.is_empty() => UnmatchedPolicy::Required,
            None => UnmatchedPolicy::Refuse,
            Some(unmatched) => unmatched,
        };
        let access = match fallback {
            UnmatchedPolicy::Refuse => None,
            UnmatchedPolicy::Required => Some(Access::Required),
            UnmatchedPolicy::Optional => Some(Access::Optional),
            UnmatchedPolicy::Public => Some(Access::Public),
        };
        if self.is_empty() {
            let access = access.ok_or(Reason::RouteUnmatched)?;
            return Ok(Route { access, ..Route::default() });
        }
        let request = RequestLine::from_headers(headers, self.rules.iter().any(Rule::requires_host))?;
        let path = Path::parse(request.target)?;
        let found = self.find(&request, &path, PathComparison::Exact)?;
        // A template without `/**` determines whether a trailing slash matches. Otherwise both forms must match the
        // same rule.
        let checks_trailing_slash = match &found {
            Some(found) => found.template.matches_prefix,
            None => access.is_some(),
        };
        let rule = found.as_ref().map(|found| found.rule);
        if checks_trailing_slash {
            let other = self.find(&request, &path.with_trailing_slash_toggled(), PathComparison::Exact)?;
            if other.map(|other| other.rule) != rule {
                return Err(AmbiguousRequest::TrailingSlash.into());
            }
        }
        // An unmatched request that is refused anyway is reported as unmatched, not as ambiguous.
        let is_open = found.is_some() || access.is_some();
        if case == PathCase::Fold && is_open && (self.has_foldable_literal || path.changes_when_folded()) {
            let folded = path.folded();
            let other = self.find(&request, &folded, PathComparison::Folded)?;
            let same_row = match (&other, &found) {
                (Some(other), Some(found)) => core::ptr::eq(other.template, found.template),
                (None, None) => true,
                _ => false,
            };
            if !same_row || other.map(|other| other.rule) != rule {
                return Err(AmbiguousRequest::EquivalentPath.into());
            }
            if checks_trailing_slash {
                let other =
                    self.find(&request, &folded.with_trailing_slash_toggled(), PathComparison::Folded)?;
                if other.map(|other| other.rule) != rule {
                    return Err(AmbiguousRequest::EquivalentPath.into());
                }
            }
        }
        match found {
            Some(RuleMatch { rule, requirements, access, permission, template, preflight }) => Ok(Route {
                rule: Some(rule),
                access,
                preflight,
                requirements: Some(requirements),
                permission,
                matched: Some((template, path)),
            }),
            None => Ok(Route { access: access.ok_or(Reason::RouteUnmatched)?, ..Route::default() }),
        }
    }

    fn find<'p>(
        &'p self,
        request: &RequestLine<'_>,
        path: &Path<'_>,
        comparison: PathComparison,
    ) -> Result<Option<RuleMatch<'p>>, AmbiguousRequest> {
        for (number, rule) in self.rules.iter().enumerate() {
            if let Some(found) = rule.find(number, request, path, comparison)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}
