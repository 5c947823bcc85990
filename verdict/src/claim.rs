//! Requirements of a rule on the claims of a token.

use alloc::{string::String, vec::Vec};

use serde::{Deserialize, Deserializer, de::Error as _};
use token::json::{Object, Value};

use crate::Reason;

/// The value that a claim must have: one of several values, or the value of a path variable. An array claim matches if
/// one of its members matches.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ClaimMatcher {
    AnyOf(Vec<Value>),
    PathVariable(String),
}

impl ClaimMatcher {
    pub(crate) fn path_variable(&self) -> Option<&str> {
        match self {
            Self::AnyOf(_) => None,
            Self::PathVariable(name) => Some(name),
        }
    }

    fn matches(&self, claim: &Value, variables: &[(&str, &str)]) -> bool {
        let matches_one = |claim: &Value| match self {
            Self::AnyOf(values) => values.contains(claim),
            Self::PathVariable(name) => {
                let value = variables.iter().find(|(known, _)| known == name).map(|(_, value)| *value);
                value.is_some() && claim.as_str() == value
            }
        };
        match claim {
            Value::Array(claims) => claims.iter().any(matches_one),
            claim => matches_one(claim),
        }
    }
}

impl<'de> Deserialize<'de> for ClaimMatcher {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const SHAPE: &str =
            "must be a string, a number, true or false, an array of these, or {\"path_variable\": name}";
        let is_scalar =
            |value: &Value| value.is_boolean() || value.is_string() || value.is_u64() || value.is_i64();
        match Value::deserialize(deserializer)? {
            Value::Array(values) if !values.is_empty() && values.iter().all(is_scalar) => {
                Ok(Self::AnyOf(values))
            }
            Value::Object(members) => match members.get("path_variable") {
                Some(Value::String(name)) if members.len() == 1 => Ok(Self::PathVariable(name.clone())),
                _ => Err(D::Error::custom(SHAPE)),
            },
            value if is_scalar(&value) => Ok(Self::AnyOf(Vec::from([value]))),
            _ => Err(D::Error::custom(SHAPE)),
        }
    }
}

/// The JSON representation of [`ClaimMatcher`], for the schema.
#[cfg(feature = "schema")]
pub(crate) mod shape {
    use alloc::{string::String, vec::Vec};

    use schemars::JsonSchema;

    /// The value that a claim must have.
    #[derive(JsonSchema)]
    #[schemars(untagged)]
    #[expect(dead_code, reason = "only its schema is of use")]
    pub(crate) enum ClaimMatcher {
        One(Scalar),
        AnyOf(#[schemars(length(min = 1))] Vec<Scalar>),
        PathVariable(PathVariable),
    }

    /// The accepted values of a claim.
    #[derive(JsonSchema)]
    #[schemars(untagged)]
    #[expect(dead_code, reason = "only its schema is of use")]
    pub(crate) enum ClaimValues {
        One(Scalar),
        AnyOf(#[schemars(length(min = 1))] Vec<Scalar>),
    }

    #[derive(JsonSchema)]
    #[schemars(untagged)]
    #[expect(dead_code, reason = "only its schema is of use")]
    pub(crate) enum Scalar {
        Text(String),
        Number(i64),
        LargeNumber(u64),
        Bool(bool),
    }

    /// The value of a path variable.
    #[derive(JsonSchema)]
    #[schemars(deny_unknown_fields)]
    #[expect(dead_code, reason = "only its schema is of use")]
    pub(crate) struct PathVariable {
        path_variable: String,
    }
}

/// Checks the claims and scopes of a verified token.
pub(crate) fn check_claims(
    members: &Object,
    claims: &[(String, ClaimMatcher)],
    scopes: &[String],
    variables: &[(&str, &str)],
) -> Result<(), Reason> {
    for (name, matcher) in claims {
        if !get(members, name).is_some_and(|claim| matcher.matches(claim, variables)) {
            return Err(Reason::ClaimMissing);
        }
    }
    let has = |scope: &String| has_scope(members, scope);
    if scopes.iter().all(has) { Ok(()) } else { Err(Reason::ScopeMissing) }
}

/// Returns whether a claim contains one of `audiences`.
pub(crate) fn has_audience(claim: Option<&Value>, audiences: &[String]) -> bool {
    let is_accepted = |claim: &Value| {
        claim.as_str().is_some_and(|audience| audiences.iter().any(|known| known == audience))
    };
    match claim {
        Some(Value::Array(claims)) => claims.iter().any(is_accepted),
        claim => claim.is_some_and(is_accepted),
    }
}

/// Returns the claim with this name: a dotted path such as `operator.operatorId`, or a JSON pointer (RFC 6901) through
/// objects if it starts with a slash.
pub(crate) fn get<'v>(members: &'v Object, name: &str) -> Option<&'v Value> {
    match name.strip_prefix('/') {
        Some(pointer) => {
            let names: Vec<String> = pointer.split('/').map(unescape).collect();
            get_nested(members, names.iter().map(String::as_str))
        }
        None => get_nested(members, name.split('.')),
    }
}

fn get_nested<'v, 'p>(members: &'v Object, mut path: impl Iterator<Item = &'p str>) -> Option<&'v Value> {
    let first = members.get(path.next()?)?;
    path.try_fold(first, |outer, name| outer.as_object()?.get(name))
}

/// Returns whether looking up the claim `name` needs the top-level member `member`.
pub(crate) fn needs_member(name: &str, member: &str) -> bool {
    match name.strip_prefix('/') {
        Some(pointer) => pointer.split('/').next().is_some_and(|first| unescape(first) == member),
        None => name.split('.').next() == Some(member),
    }
}

/// Decodes `~1` as a slash and `~0` as a tilde (RFC 6901 section 4).
fn unescape(name: &str) -> String {
    let mut characters = name.chars().peekable();
    let mut text = String::with_capacity(name.len());
    while let Some(character) = characters.next() {
        let decoded = match (character, characters.peek()) {
            ('~', Some('0')) => Some('~'),
            ('~', Some('1')) => Some('/'),
            _ => None,
        };
        text.push(decoded.unwrap_or(character));
        if decoded.is_some() {
            characters.next();
        }
    }
    text
}

/// Returns whether `scope` (separated by spaces, RFC 8693 section 4.2) or `scp` (an array for some issuers) contains
/// this scope.
fn has_scope(members: &Object, scope: &str) -> bool {
    ["scope", "scp"].into_iter().filter_map(|name| members.get(name)).any(|claim| match claim {
        Value::String(list) => list.split(' ').any(|granted| granted == scope),
        Value::Array(list) => list.iter().any(|granted| granted.as_str() == Some(scope)),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use token::json;

    fn parse_and_check(payload: &str, claims: &str, scopes: &[&str]) -> Result<(), Reason> {
        #[derive(Deserialize)]
        struct Claims(#[serde(deserialize_with = "config::pairs")] Vec<(String, ClaimMatcher)>);
        let Claims(claims) = config::from_json(claims.as_bytes()).unwrap();
        let payload = json::parse(payload.as_bytes()).ok();
        let members = payload.as_ref().and_then(Value::as_object).cloned().unwrap_or_default();
        let scopes: Vec<String> = scopes.iter().map(|scope| (*scope).into()).collect();
        check_claims(&members, &claims, &scopes, &[("operator_id", "OP1"), ("n", "5")])
    }

    #[test]
    fn claims_must_match() {
        const PAYLOAD: &str = r#"{"a":"x","n":5,"t":true,"g":["p","q"],"operator":{"operatorId":"OP1"},"https://x.y/z":"v","o":null}"#;
        for good in [
            r#"{"a":"x"}"#,
            r#"{"a":["w","x"],"n":5,"t":true}"#,
            r#"{"g":"q"}"#,
            r#"{"g":["q","z"]}"#,
            r#"{"operator.operatorId":"OP1"}"#,
            r#"{"operator.operatorId":{"path_variable":"operator_id"}}"#,
            r#"{"/operator/operatorId":"OP1"}"#,
            r#"{"/https:~1~1x.y~1z":"v"}"#,
        ] {
            assert_eq!(parse_and_check(PAYLOAD, good, &[]), Ok(()), "{good}");
        }
        for bad in [
            r#"{"a":"X"}"#,
            r#"{"a":"x","b":"x"}"#,
            r#"{"n":"5"}"#,
            r#"{"n":{"path_variable":"n"}}"#,
            r#"{"t":"true"}"#,
            r#"{"g":"z"}"#,
            r#"{"a.b":"x"}"#,
            r#"{"operator":"OP1"}"#,
            r#"{"a":{"path_variable":"operator_id"}}"#,
            r#"{"a":{"path_variable":"absent"}}"#,
            r#"{"absent":{"path_variable":"absent"}}"#,
            r#"{"o":"null"}"#,
        ] {
            assert_eq!(parse_and_check(PAYLOAD, bad, &[]), Err(Reason::ClaimMissing), "{bad}");
        }
        for payload in ["{}", "[]", "5", "", r#"{"a":"x","a":"x"}"#] {
            assert_eq!(parse_and_check(payload, r#"{"a":"x"}"#, &[]), Err(Reason::ClaimMissing), "{payload}");
        }
        for bad in
            ["null", "[]", "{}", "1.5", "[null]", r#"{"path_variable":1}"#, r#"{"path_variable":"a","b":1}"#]
        {
            assert!(config::from_json::<ClaimMatcher>(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn all_scopes_are_required() {
        for (payload, expected) in [
            (r#"{"scope":"a b c"}"#, Ok(())),
            (r#"{"scp":["b","a"]}"#, Ok(())),
            (r#"{"scp":"a b"}"#, Ok(())),
            (r#"{"scope":"a","scp":["b"]}"#, Ok(())),
            (r#"{"scope":"a"}"#, Err(Reason::ScopeMissing)),
            (r#"{"scope":"ab a,b"}"#, Err(Reason::ScopeMissing)),
            (r#"{"scope":"a b","scope":"a b"}"#, Err(Reason::ScopeMissing)),
            ("{}", Err(Reason::ScopeMissing)),
        ] {
            assert_eq!(parse_and_check(payload, "{}", &["a", "b"]), expected, "{payload}");
        }
    }
}
