//! The list of rules.

use alloc::{string::String, vec::Vec};

use serde::Deserialize;

use super::{
    AmbiguousRequest, Path, PathCase, Template,
    path::{Delimiter, Lookup, PathComparison, Reading},
    request::RequestLine,
    rule::{Access, Conditions, EncodedSlash, Requirements, Rule, RuleMatch},
};
use crate::{
    config::{Mode, looks_like_pattern},
    credential::CredentialSource,
    decision::Reason,
    identity::claim::{self, ClaimName},
    sync::StalePolicy,
};

/// The rules in order of precedence.
#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(with = "Vec<Rule>"))]
#[serde(from = "Vec<Rule>")]
pub struct Rules {
    rules: Vec<Rule>,
    /// Whether a literal of a path changes when it is folded.
    has_foldable_literal: bool,
    /// The custom verbs of all paths, such as `:suspend`.
    verbs: Vec<String>,
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
        let (mut has_foldable_literal, mut verbs) = (false, Vec::new());
        for template in rules.iter().flat_map(Rule::templates) {
            has_foldable_literal |= template.changes_when_folded();
            if let Some(verb) = template.verb()
                && !verbs.iter().any(|known| known == verb)
            {
                verbs.push(String::from(verb));
            }
        }
        Self { rules, has_foldable_literal, verbs }
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
        self.matched.as_ref().map_or_else(Vec::new, |(template, path)| template.variables(path))
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
        let uses = |Conditions { audiences, claims, scopes, .. }: &Conditions| match member {
            "aud" if !audiences.is_empty() => true,
            "scope" | "scp" if !scopes.is_empty() => true,
            _ => claims.iter().any(|(ClaimName(name), _)| claim::needs_member(name, member)),
        };
        self.rules.iter().any(|rule| rule.requirements().conditions.iter().any(uses))
    }

    /// Returns the scopes that a client needs for a rule, separated by spaces: of alternatives, those of the first.
    pub(crate) fn scopes(&self, rule: usize) -> String {
        let mut list = String::new();
        if let Some(rule) = self.rules.get(rule) {
            for conditions in rule.requirements().conditions.iter().take(2) {
                claim::list_scopes(&conditions.scopes, &mut list);
            }
        }
        list
    }

    /// Returns the rule and the member with an issuer or audience that looks like a pattern, if any.
    pub(crate) fn pattern(&self) -> Option<(usize, &'static str)> {
        let is_pattern = |name: &String| looks_like_pattern(name);
        for (at, rule) in self.rules.iter().enumerate() {
            for conditions in &rule.requirements().conditions {
                if conditions.issuers.iter().any(is_pattern) {
                    return Some((at, "issuers"));
                }
                if conditions.audiences.iter().any(is_pattern) {
                    return Some((at, "audiences"));
                }
            }
        }
        None
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
        let mut path = Path::parse(request.target)?;
        if !self.verbs.is_empty() {
            path.note_encoded_verb(&self.verbs);
        }
        let resolver = Resolver { rules: self, request: &request, case, is_open: access.is_some() };
        let found = resolver.resolve(&path)?;
        if path.delimiters != 0 {
            resolver.check_readings(&path, found.as_ref())?;
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
            None => {
                let unmatched = || match self.methods(&request, &path).is_empty() {
                    true => Reason::RouteUnmatched,
                    false => Reason::MethodNotAllowed,
                };
                Ok(Route { access: access.ok_or_else(unmatched)?, ..Route::default() })
            }
        }
    }

    /// Returns the methods that rules have for the path and host of a request.
    fn methods<'p>(&'p self, request: &RequestLine<'_>, path: &Path<'_>) -> Vec<&'p str> {
        let lookup = Lookup::new(path, PathComparison::Exact, &self.verbs);
        let mut methods = Vec::new();
        for rule in &self.rules {
            rule.list_methods(request, &lookup, &mut methods);
        }
        methods
    }

    /// Returns the value of the header `Allow` (RFC 9110 section 10.2.1) for a request whose method no rule has.
    pub(crate) fn allow<'r>(
        &self,
        headers: impl Iterator<Item = (&'r str, &'r [u8])> + Clone,
    ) -> Option<String> {
        let request = RequestLine::from_headers(headers, self.rules.iter().any(Rule::requires_host)).ok()?;
        let mut allow = String::new();
        for method in self.methods(&request, &Path::parse(request.target).ok()?) {
            if !allow.is_empty() {
                allow.push_str(", ");
            }
            allow.push_str(method);
        }
        Some(allow)
    }
}

/// Finds the rule for the paths that parsers of one request may see.
struct Resolver<'p, 'r> {
    rules: &'p Rules,
    request: &'r RequestLine<'r>,
    case: PathCase,
    /// Whether a request passes that no rule matches.
    is_open: bool,
}

impl<'p> Resolver<'p, '_> {
    /// Finds the rule for a path. Returns an error if an equivalent path matches another rule.
    fn resolve(&self, path: &Path<'_>) -> Result<Option<RuleMatch<'p>>, AmbiguousRequest> {
        let found = self.find(path, PathComparison::Exact)?;
        // A template without `/**` at its end determines whether a trailing slash matches. Otherwise both forms must match
        // the same rule.
        let checks_trailing_slash = match &found {
            Some(found) => found.template.matches_prefix(),
            None => self.is_open,
        };
        let is_same_rule = |other: Option<RuleMatch<'_>>| {
            other.map(|other| other.rule) == found.as_ref().map(|found| found.rule)
        };
        if checks_trailing_slash
            && !is_same_rule(self.find(&path.with_trailing_slash_toggled(), PathComparison::Exact)?)
        {
            return Err(AmbiguousRequest::TrailingSlash);
        }
        // An unmatched request that is refused anyway is reported as unmatched, not as ambiguous.
        let is_open = found.is_some() || self.is_open;
        if self.case == PathCase::Fold
            && is_open
            && (self.rules.has_foldable_literal || path.changes_when_folded())
        {
            let is_equivalent = |other: &Path<'_>| {
                let is_same_path =
                    is_same(self.find(other, PathComparison::Folded)?.as_ref(), found.as_ref());
                let toggled = other.with_trailing_slash_toggled();
                Ok(is_same_path
                    && (!checks_trailing_slash || is_same_rule(self.find(&toggled, PathComparison::Folded)?)))
            };
            // A parser that ignores case need not remove spaces and dots.
            if !is_equivalent(&path.folded())?
                || (path.shrinks_when_folded()
                    && (path.has_blank_name() || !is_equivalent(&path.in_lower_case())?))
            {
                return Err(AmbiguousRequest::EquivalentPath);
            }
        }
        // Some frameworks read an extension as a format, and `/users/7.js` as `/users/7`.
        if self.case == PathCase::Fold
            && let Some(found) = &found
            && found.template.has_extension()
        {
            let name = path.without_extension();
            for (name, comparison) in
                [(&name, PathComparison::Exact), (&name.folded(), PathComparison::Folded)]
            {
                let other = self.find(name, comparison)?;
                if !self.is_expected(other.as_ref(), found, path)? {
                    return Err(AmbiguousRequest::EquivalentPath);
                }
            }
        }
        Ok(found)
    }

    /// Returns whether the author of the rules expects that a parser may see a path of another rule: that rule ends with
    /// `/**` and matches the path as it was sent too, so that the earlier rule is an exception to it.
    fn is_expected(
        &self,
        other: Option<&RuleMatch<'p>>,
        found: &RuleMatch<'p>,
        path: &Path<'_>,
    ) -> Result<bool, AmbiguousRequest> {
        let Some(other) = other else { return Ok(true) };
        let lookup = Lookup::new(path, PathComparison::Folded, &self.rules.verbs);
        Ok(is_same(Some(other), Some(found))
            || (other.template.matches_prefix() && other.template.matches(&lookup)?))
    }

    /// Checks that every way to read the delimiters in a path leads to the same rule, and to the same values of its
    /// variables if it uses them.
    fn check_readings(&self, path: &Path<'_>, found: Option<&RuleMatch<'p>>) -> Result<(), AmbiguousRequest> {
        // The request passes if it has a rule, so what other parsers read without one counts, too.
        let resolver = Self { is_open: true, ..*self };
        let mut delimiters = path.delimiters;
        if let Some(found) = found
            && delimiters & Delimiter::SLASH != 0
            && found.requirements.encoded_slash == EncodedSlash::Segment
        {
            delimiters &= !Delimiter::SLASH;
            // The upstream does not decode the slash. A path whose decoded form has a rule of its own is refused anyway.
            let decoded = path.read(Reading::Slash).ok_or(AmbiguousRequest::Separator)?;
            let other = resolver.resolve(&decoded).map_err(|_| AmbiguousRequest::Separator)?;
            if !self.is_expected(other.as_ref(), found, path)? {
                return Err(AmbiguousRequest::Separator);
            }
        }
        let (readings, error) = Delimiter::readings(delimiters)?;
        for reading in readings {
            let read = path.read(*reading).ok_or(error)?;
            let other = resolver.resolve(&read).map_err(|_| error)?;
            let has_same_variables = found.is_none_or(|found| {
                !found.uses_variables() || found.template.variables(path) == found.template.variables(&read)
            });
            if !is_same(found, other.as_ref()) || !has_same_variables {
                return Err(error);
            }
        }
        Ok(())
    }

    fn find(
        &self,
        path: &Path<'_>,
        comparison: PathComparison,
    ) -> Result<Option<RuleMatch<'p>>, AmbiguousRequest> {
        let lookup = Lookup::new(path, comparison, &self.rules.verbs);
        for (number, rule) in self.rules.rules.iter().enumerate() {
            if let Some(found) = rule.find(number, self.request, &lookup)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

/// Returns whether two paths have the same rule, and in a table the same row.
fn is_same(one: Option<&RuleMatch<'_>>, other: Option<&RuleMatch<'_>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one.rule == other.rule && core::ptr::eq(one.template, other.template),
        (None, None) => true,
        _ => false,
    }
}
