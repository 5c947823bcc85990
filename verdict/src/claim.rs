//! What a rule demands of the claims of a token, beyond what every token must have.

use alloc::{string::String, vec::Vec};

use serde::{Deserialize, Deserializer, de::Error as _};
use token::json::{Object, Value};

use crate::Reason;

/// What a claim must be: a value, one of several, or what the path says. A claim that is an array needs one member
/// that fits.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Wanted {
    AnyOf(Vec<Value>),
    PathVariable(String),
}

impl Wanted {
    pub(crate) fn path_variable(&self) -> Option<&str> {
        match self {
            Self::AnyOf(_) => None,
            Self::PathVariable(name) => Some(name),
        }
    }

    fn fits(&self, claim: &Value, variables: &[(&str, &str)]) -> bool {
        let one = |claim: &Value| match self {
            Self::AnyOf(values) => values.contains(claim),
            Self::PathVariable(name) => {
                let value = variables.iter().find(|(known, _)| known == name).map(|(_, value)| *value);
                value.is_some() && claim.as_str() == value
            }
        };
        match claim {
            Value::Array(claims) => claims.iter().any(one),
            claim => one(claim),
        }
    }
}

impl<'de> Deserialize<'de> for Wanted {
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

/// The shapes of [`Wanted`], for the schema.
#[cfg(feature = "schema")]
pub(crate) mod shape {
    use alloc::{string::String, vec::Vec};

    use schemars::JsonSchema;

    /// What a claim must be.
    #[derive(JsonSchema)]
    #[schemars(untagged)]
    #[expect(dead_code, reason = "only its schema is of use")]
    pub(crate) enum Wanted {
        One(Scalar),
        AnyOf(#[schemars(length(min = 1))] Vec<Scalar>),
        PathVariable(PathVariable),
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

    /// The value of a variable in the path.
    #[derive(JsonSchema)]
    #[schemars(deny_unknown_fields)]
    #[expect(dead_code, reason = "only its schema is of use")]
    pub(crate) struct PathVariable {
        path_variable: String,
    }
}

/// `members` are what a token says whose signature holds.
pub(crate) fn check(
    members: &Object,
    claims: &[(String, Wanted)],
    scopes: &[String],
    variables: &[(&str, &str)],
) -> Result<(), Reason> {
    for (name, wanted) in claims {
        if !at(members, name).is_some_and(|claim| wanted.fits(claim, variables)) {
            return Err(Reason::ClaimMissing);
        }
    }
    let has = |scope: &String| has_scope(members, scope);
    if scopes.iter().all(has) { Ok(()) } else { Err(Reason::ScopeMissing) }
}

/// Whether one of the audiences is meant.
pub(crate) fn is_for(members: &Object, audiences: &[String]) -> bool {
    let one = |claim: &Value| claim.as_str().is_some_and(|one| audiences.iter().any(|known| known == one));
    match members.get("aud") {
        Some(Value::Array(several)) => several.iter().any(one),
        claim => claim.is_some_and(one),
    }
}

/// `operator.operatorId`, or where a name has a dot itself, a JSON pointer (RFC 6901) through objects.
pub(crate) fn at<'v>(members: &'v Object, name: &str) -> Option<&'v Value> {
    match name.strip_prefix('/') {
        Some(pointer) => {
            let names: Vec<String> = pointer.split('/').map(unescaped).collect();
            within(members, names.iter().map(String::as_str))
        }
        None => within(members, name.split('.')),
    }
}

fn within<'v, 'p>(members: &'v Object, mut path: impl Iterator<Item = &'p str>) -> Option<&'v Value> {
    let first = members.get(path.next()?)?;
    path.try_fold(first, |outer, name| outer.as_object()?.get(name))
}

/// Whether it takes this member to find a claim of that name.
pub(crate) fn is_in(name: &str, member: &str) -> bool {
    match name.strip_prefix('/') {
        Some(pointer) => pointer.split('/').next().is_some_and(|first| unescaped(first) == member),
        None => name.split('.').next() == Some(member),
    }
}

/// `~1` is a slash and `~0` a tilde.
fn unescaped(name: &str) -> String {
    let mut letters = name.chars().peekable();
    let mut text = String::with_capacity(name.len());
    while let Some(letter) = letters.next() {
        let meant = match (letter, letters.peek()) {
            ('~', Some('0')) => Some('~'),
            ('~', Some('1')) => Some('/'),
            _ => None,
        };
        text.push(meant.unwrap_or(letter));
        if meant.is_some() {
            letters.next();
        }
    }
    text
}

/// In `scope`, separated by spaces (RFC 8693 section 4.2), or in `scp`, which is an array at some issuers.
fn has_scope(members: &Object, scope: &str) -> bool {
    ["scope", "scp"].into_iter().filter_map(|name| members.get(name)).any(|claim| match claim {
        Value::String(list) => list.split(' ').any(|held| held == scope),
        Value::Array(list) => list.iter().any(|held| held.as_str() == Some(scope)),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use token::json;

    fn checked(payload: &str, claims: &str, scopes: &[&str]) -> Result<(), Reason> {
        #[derive(Deserialize)]
        struct Claims(#[serde(deserialize_with = "config::pairs")] Vec<(String, Wanted)>);
        let Claims(claims) = config::from_json(claims.as_bytes()).unwrap();
        let payload = json::parse(payload.as_bytes()).ok();
        let members = payload.as_ref().and_then(Value::as_object).cloned().unwrap_or_default();
        let scopes: Vec<String> = scopes.iter().map(|scope| (*scope).into()).collect();
        check(&members, &claims, &scopes, &[("operator_id", "OP1"), ("n", "5")])
    }

    #[test]
    fn claims_are_there_and_fit() {
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
            assert_eq!(checked(PAYLOAD, good, &[]), Ok(()), "{good}");
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
            assert_eq!(checked(PAYLOAD, bad, &[]), Err(Reason::ClaimMissing), "{bad}");
        }
        for payload in ["{}", "[]", "5", "", r#"{"a":"x","a":"x"}"#] {
            assert_eq!(checked(payload, r#"{"a":"x"}"#, &[]), Err(Reason::ClaimMissing), "{payload}");
        }
        for bad in
            ["null", "[]", "{}", "1.5", "[null]", r#"{"path_variable":1}"#, r#"{"path_variable":"a","b":1}"#]
        {
            assert!(config::from_json::<Wanted>(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_scope_is_needed() {
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
            assert_eq!(checked(payload, "{}", &["a", "b"]), expected, "{payload}");
        }
    }
}
