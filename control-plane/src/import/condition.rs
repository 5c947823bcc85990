//! Conditions on requests, and what remains of them for the requests of one cell.
//!
//! A condition is never weakened: a part that the policy cannot express counts as false, in a negation too.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    needs::Needs,
    paths::{HostCell, HostMatch, PathMatch, Template, Truth},
    provider::Provider,
    report::Report,
};

/// The maximum number of alternatives for one cell.
const MAX_ALTERNATIVES: usize = 64;

/// A condition on a request.
#[derive(Debug, Clone)]
pub(super) enum Condition {
    Always,
    Never,
    /// A condition with its path in the source.
    Test(String, Test),
    Not(Box<Condition>),
    All(Vec<Condition>),
    Any(Vec<Condition>),
}

#[derive(Debug, Clone)]
pub(super) enum Test {
    Path(PathMatch),
    Host(HostMatch),
    Method(String),
    Token(TokenTest),
    /// A condition that the policy cannot express, and what it is on.
    Unknown(&'static str),
}

/// A condition on the token that has been verified. Without one it is false.
#[derive(Debug, Clone)]
pub(super) enum TokenTest {
    Verified,
    Claim {
        /// The key of the payload in the metadata; `None` for the payload of any provider.
        key: Option<String>,
        claim: Vec<String>,
        value: ClaimValue,
        /// Whether the claim must be a list.
        is_list: bool,
    },
    /// `ISSUER/SUBJECT`.
    Principal(TextMatch),
}

#[derive(Debug, Clone)]
pub(super) enum ClaimValue {
    Text(TextMatch),
    /// A number or a boolean.
    Scalar(Value),
    Other,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TextMatch {
    Exact(String),
    Prefix(String),
    Suffix(String),
    /// Any text that is not empty.
    Present,
    Other,
}

impl TextMatch {
    /// Parses a value of an Istio policy: `*` at the beginning or the end matches any text.
    pub(super) fn pattern(pattern: &str) -> Self {
        match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
            (Some(""), _) => Self::Present,
            (_, Some(prefix)) => Self::Prefix(prefix.to_owned()),
            (Some(suffix), _) => Self::Suffix(suffix.to_owned()),
            _ => Self::Exact(pattern.to_owned()),
        }
    }

    fn matches(&self, text: &str) -> Truth {
        match self {
            Self::Exact(expected) => (text == expected).into(),
            Self::Prefix(prefix) => text.starts_with(prefix.as_str()).into(),
            Self::Suffix(suffix) => text.ends_with(suffix.as_str()).into(),
            Self::Present => (!text.is_empty()).into(),
            Self::Other => Truth::Maybe,
        }
    }

    /// Returns the requirement on a claim as the policy writes it, and whether it accepts the same values.
    fn requirement(&self) -> Option<(Vec<Value>, Exactness)> {
        let ends_name = |letter: Option<char>| letter.is_some_and(|letter| letter.is_ascii_punctuation());
        match self {
            Self::Exact(text) => Some((vec![exact(text)], Exactness::Same)),
            Self::Prefix(prefix) if ends_name(prefix.chars().next_back()) && !looks_like_pattern(prefix) => {
                Some((vec![exact(prefix), json!({ "prefix": prefix })], Exactness::Same))
            }
            Self::Suffix(suffix) if ends_name(suffix.chars().next()) && !looks_like_pattern(suffix) => {
                Some((vec![exact(suffix), json!({ "suffix": suffix })], Exactness::Stricter))
            }
            Self::Present => Some((vec![json!({ "present": true })], Exactness::Same)),
            Self::Prefix(_) | Self::Suffix(_) | Self::Other => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exactness {
    Same,
    Stricter,
}

fn exact(text: &str) -> Value {
    if looks_like_pattern(text) { json!({ "exact": text }) } else { Value::from(text) }
}

/// Returns whether the policy could refuse a text because it looks like a pattern.
fn looks_like_pattern(text: &str) -> bool {
    !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b" -_.:/@+=,#~".contains(&byte))
}

/// The requests of a cell.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cell<'c> {
    pub(super) path: &'c Template,
    pub(super) host: &'c HostCell,
    /// `None` is any method that the source does not name.
    pub(super) method: Option<&'c str>,
}

/// The parts of the source that the policy cannot express: path, what it is, effect.
pub(super) type Lost = BTreeSet<(String, &'static str)>;

impl Condition {
    pub(super) fn test(path: impl Into<String>, test: Test) -> Self {
        Self::Test(path.into(), test)
    }

    pub(super) fn negated(self) -> Self {
        match self {
            Self::Always => Self::Never,
            Self::Never => Self::Always,
            Self::Not(condition) => *condition,
            condition => Self::Not(Box::new(condition)),
        }
    }

    /// Calls `visit` for each test.
    pub(super) fn for_each(&self, visit: &mut dyn FnMut(&Test)) {
        match self {
            Self::Always | Self::Never => {}
            Self::Test(_, test) => visit(test),
            Self::Not(condition) => condition.for_each(visit),
            Self::All(all) | Self::Any(all) => all.iter().for_each(|condition| condition.for_each(visit)),
        }
    }

    /// Returns whether the condition is true for the requests of a cell, without regard to tokens.
    pub(super) fn truth(&self, cell: Cell<'_>) -> Truth {
        match self {
            Self::Always => Truth::Yes,
            Self::Never => Truth::No,
            Self::Test(_, test) => match test {
                Test::Path(path) => path.matches(cell.path),
                Test::Host(host) => host.matches(cell.host),
                Test::Method(method) => (cell.method == Some(method)).into(),
                Test::Token(_) | Test::Unknown(_) => Truth::Maybe,
            },
            Self::Not(condition) => match condition.truth(cell) {
                Truth::Yes => Truth::No,
                Truth::No => Truth::Yes,
                Truth::Maybe => Truth::Maybe,
            },
            Self::All(all) => least(all.iter().map(|condition| condition.truth(cell))),
            Self::Any(all) => most(all.iter().map(|condition| condition.truth(cell))),
        }
    }

    /// Returns the paths and hosts of the source that make [`Self::truth`] unknown.
    pub(super) fn unknown_parts(&self, cell: Cell<'_>, lost: &mut Lost) {
        match self {
            Self::Always | Self::Never => {}
            Self::Test(at, test) => {
                if self.truth(cell) == Truth::Maybe {
                    lost.insert((at.clone(), test.kind()));
                }
            }
            Self::Not(condition) => condition.unknown_parts(cell, lost),
            Self::All(all) | Self::Any(all) => all.iter().for_each(|part| part.unknown_parts(cell, lost)),
        }
    }

    /// Returns alternatives of what a token of `provider` must have so that the condition is true for a request of the
    /// cell; without a provider, of a request without a verified token. No alternative: it is not known to be true.
    pub(super) fn needs(
        &self,
        is: bool,
        cell: Cell<'_>,
        provider: Option<&Provider>,
        lost: &mut Lost,
    ) -> Vec<Needs> {
        let mut lost_here = Lost::new();
        let needs = self.needs_inner(is, cell, provider, &mut lost_here);
        // What is lost has no effect if the condition is true anyway.
        if !needs.iter().any(Needs::is_empty) {
            lost.extend(lost_here);
        }
        needs
    }

    fn needs_inner(
        &self,
        is: bool,
        cell: Cell<'_>,
        provider: Option<&Provider>,
        lost: &mut Lost,
    ) -> Vec<Needs> {
        let constant = |is_true: bool| if is_true == is { vec![Needs::default()] } else { Vec::new() };
        match self {
            Self::Always => constant(true),
            Self::Never => constant(false),
            Self::Not(condition) => condition.needs(!is, cell, provider, lost),
            Self::All(all) if is => product(all, is, cell, provider, lost),
            Self::Any(all) if !is => product(all, is, cell, provider, lost),
            Self::All(all) | Self::Any(all) => {
                simplified(all.iter().flat_map(|part| part.needs(is, cell, provider, lost)).collect())
            }
            Self::Test(at, test) => {
                let truth = match test {
                    Test::Token(token) => match token.needs(provider) {
                        TokenNeeds::Constant(truth) => truth,
                        TokenNeeds::Exactly(needs, exactness) if is => {
                            if exactness == Exactness::Stricter {
                                lost.insert((at.clone(), STRICTER_SUFFIX));
                            }
                            return needs;
                        }
                        TokenNeeds::Exactly(..) => {
                            lost.insert((at.clone(), NEGATED_CLAIM));
                            return Vec::new();
                        }
                    },
                    _ => self.truth(cell),
                };
                match truth {
                    Truth::Yes => constant(true),
                    Truth::No => constant(false),
                    Truth::Maybe => {
                        lost.insert((at.clone(), test.kind()));
                        Vec::new()
                    }
                }
            }
        }
    }
}

const NEGATED_CLAIM: &str = "a condition that a token must not meet";
const TOO_MANY: &str = "more than 64 alternatives of claims for one path";
pub(super) const STRICTER_SUFFIX: &str =
    "the end of a claim, before which the policy accepts the characters of a name only";

impl Test {
    /// Returns what the test is on.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Path(PathMatch::Prefix { .. }) => PREFIX_WITHIN_SEGMENT,
            Self::Path(PathMatch::Suffix(_)) => "the end of a path",
            Self::Path(_) => "a form of path that templates cannot express",
            Self::Host(_) => "a form of host that the policy cannot express",
            Self::Method(_) => "a method",
            Self::Token(TokenTest::Principal(_)) => "a part of issuer and subject",
            Self::Token(_) => "a comparison of a claim that the policy cannot express",
            Self::Unknown(what) => what,
        }
    }
}

pub(super) const PREFIX_WITHIN_SEGMENT: &str = "a prefix that ends within a segment";

enum TokenNeeds {
    Constant(Truth),
    Exactly(Vec<Needs>, Exactness),
}

impl TokenTest {
    fn needs(&self, provider: Option<&Provider>) -> TokenNeeds {
        let Some(provider) = provider else { return TokenNeeds::Constant(Truth::No) };
        match self {
            Self::Verified => TokenNeeds::Constant(Truth::Yes),
            Self::Principal(text) => principal_needs(text, &provider.issuer),
            Self::Claim { key, claim, value, is_list } => {
                if key.is_some() && *key != provider.payload_key {
                    return TokenNeeds::Constant(Truth::No);
                }
                claim_needs(provider, claim, value, *is_list)
            }
        }
    }
}

fn claim_needs(provider: &Provider, claim: &[String], value: &ClaimValue, is_list: bool) -> TokenNeeds {
    let name = claim_name(claim);
    match value {
        ClaimValue::Text(text) if name == "iss" => TokenNeeds::Constant(text.matches(&provider.issuer)),
        // Keystile requires both.
        ClaimValue::Text(TextMatch::Present) if name == "sub" || name == "exp" => {
            TokenNeeds::Constant(Truth::Yes)
        }
        ClaimValue::Text(TextMatch::Exact(scope))
            if is_list
                && matches!(&*name, "scope" | "scp")
                && provider.spaced_claims.contains(&name)
                && is_scope(scope) =>
        {
            let scopes = BTreeSet::from([scope.clone()]);
            TokenNeeds::Exactly(vec![Needs { scopes, ..Needs::default() }], Exactness::Same)
        }
        ClaimValue::Text(text) => match text.requirement() {
            Some((values, exactness)) => TokenNeeds::Exactly(vec![Needs::claim(name, values)], exactness),
            None => TokenNeeds::Constant(Truth::Maybe),
        },
        ClaimValue::Scalar(value) => {
            TokenNeeds::Exactly(vec![Needs::claim(name, vec![value.clone()])], Exactness::Same)
        }
        ClaimValue::Other => TokenNeeds::Constant(Truth::Maybe),
    }
}

/// Returns whether a text can be a scope (RFC 6749 section 3.3).
fn is_scope(text: &str) -> bool {
    let is_permitted = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
    !text.is_empty() && text.bytes().all(is_permitted) && !looks_like_pattern(text)
}

fn principal_needs(text: &TextMatch, issuer: &str) -> TokenNeeds {
    let before = format!("{issuer}/");
    let subject = |text: TextMatch| match text.requirement() {
        Some((values, exactness)) => {
            TokenNeeds::Exactly(vec![Needs::claim("sub".to_owned(), values)], exactness)
        }
        None => TokenNeeds::Constant(Truth::Maybe),
    };
    match text {
        TextMatch::Present => TokenNeeds::Constant(Truth::Yes),
        TextMatch::Exact(principal) => match principal.strip_prefix(&before) {
            Some(sub) => subject(TextMatch::Exact(sub.to_owned())),
            None => TokenNeeds::Constant(Truth::No),
        },
        TextMatch::Prefix(prefix) if before.starts_with(prefix.as_str()) => TokenNeeds::Constant(Truth::Yes),
        TextMatch::Prefix(prefix) => match prefix.strip_prefix(&before) {
            Some(sub) => subject(TextMatch::Prefix(sub.to_owned())),
            None => TokenNeeds::Constant(Truth::No),
        },
        TextMatch::Suffix(_) | TextMatch::Other => TokenNeeds::Constant(Truth::Maybe),
    }
}

/// Returns the name of a claim as the policy writes it.
pub(super) fn claim_name(claim: &[String]) -> String {
    let is_plain = |name: &String| !name.is_empty() && !name.contains('.') && !name.contains('/');
    if claim.iter().all(is_plain) {
        return claim.join(".");
    }
    claim
        .iter()
        .fold(String::new(), |pointer, name| pointer + "/" + &name.replace('~', "~0").replace('/', "~1"))
}

fn least(truths: impl Iterator<Item = Truth>) -> Truth {
    truths.fold(Truth::Yes, |all, truth| match (all, truth) {
        (Truth::No, _) | (_, Truth::No) => Truth::No,
        (Truth::Yes, Truth::Yes) => Truth::Yes,
        _ => Truth::Maybe,
    })
}

fn most(truths: impl Iterator<Item = Truth>) -> Truth {
    truths.fold(Truth::No, |all, truth| match (all, truth) {
        (Truth::Yes, _) | (_, Truth::Yes) => Truth::Yes,
        (Truth::No, Truth::No) => Truth::No,
        _ => Truth::Maybe,
    })
}

/// Returns the alternatives of conditions that all must be `is`.
fn product(
    all: &[Condition],
    is: bool,
    cell: Cell<'_>,
    provider: Option<&Provider>,
    lost: &mut Lost,
) -> Vec<Needs> {
    let mut product = vec![Needs::default()];
    for part in all {
        let next = part.needs(is, cell, provider, lost);
        let pairs = product.iter().flat_map(|before| next.iter().map(|next| before.and(next)));
        product = simplified(pairs.collect());
        if product.len() > MAX_ALTERNATIVES {
            product.truncate(MAX_ALTERNATIVES);
            lost.insert((String::new(), TOO_MANY));
        }
    }
    product
}

/// Removes alternatives that another one includes.
pub(super) fn simplified(alternatives: Vec<Needs>) -> Vec<Needs> {
    let mut kept: Vec<Needs> = Vec::new();
    for needs in alternatives {
        if kept.iter().any(|other| other.includes(&needs)) {
            continue;
        }
        kept.retain(|other| !needs.includes(other));
        kept.push(needs);
    }
    kept
}

/// Returns alternatives of what a token must have so that its subject matches, or none if the policy cannot express it.
pub(super) fn subject_needs(at: &str, test: TokenTest, report: &mut Report) -> Vec<Needs> {
    let any = Provider::for_subjects();
    let path = Template::everything();
    let cell = Cell { path: &path, host: &None, method: None };
    let needs = Condition::test(at, Test::Token(test)).needs(true, cell, Some(&any), &mut Lost::new());
    if needs.is_empty() {
        report.dropped(
            at,
            "a form of subject that the policy cannot express",
            "the policy refuses the tokens of this provider",
            "use `exact`, or a prefix that ends with `/`, `:` or another character that is not a letter or digit",
        );
    }
    needs
}
