//! What a rule demands of the claims of a token, beyond what every token must have.

use alloc::{
    collections::BTreeMap,
    string::{String, ToString},
    vec::Vec,
};

use serde::{Deserialize, de::IgnoredAny};
use serde_json::Value;

use crate::Reason;

/// What a claim must be: a value, one of several, or what the path says. A claim that is an array needs one member
/// that fits.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "Value")]
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

impl TryFrom<Value> for Wanted {
    type Error = &'static str;

    fn try_from(source: Value) -> Result<Self, &'static str> {
        const SHAPE: &str =
            "must be a string, a number, true or false, an array of these, or {\"path_variable\": name}";
        let scalar =
            |value: &Value| value.is_string() || value.is_i64() || value.is_u64() || value.is_boolean();
        match source {
            Value::Array(values) if !values.is_empty() && values.iter().all(scalar) => {
                Ok(Self::AnyOf(values))
            }
            Value::Object(members) if members.len() == 1 => match members.get("path_variable") {
                Some(Value::String(name)) => Ok(Self::PathVariable(name.clone())),
                _ => Err(SHAPE),
            },
            value if scalar(&value) => Ok(Self::AnyOf(Vec::from([value]))),
            _ => Err(SHAPE),
        }
    }
}

/// `presented` is a token whose signature holds. One without claims, such as an API key, has none of them.
pub(crate) fn check(
    presented: &[u8],
    claims: &BTreeMap<String, Wanted>,
    scopes: &[String],
    variables: &[(&str, &str)],
) -> Result<(), Reason> {
    if claims.is_empty() && scopes.is_empty() {
        return Ok(());
    }
    let payload = payload(presented).unwrap_or_default();
    for (name, wanted) in claims {
        let claim = claim(&payload, name);
        if !claim.is_some_and(|claim| wanted.fits(claim, variables)) {
            return Err(Reason::ClaimMissing);
        }
    }
    if scopes.iter().all(|scope| has_scope(&payload, scope)) { Ok(()) } else { Err(Reason::ScopeMissing) }
}

fn payload(presented: &[u8]) -> Option<Value> {
    let segment = presented.split(|byte| *byte == b'.').nth(1)?;
    let json = token::base64url::decode(segment)?;
    // Refused where a member stands twice: which of them another reader would take is not known.
    serde_json::from_slice::<Once>(&json).ok()?;
    serde_json::from_slice(&json).ok()
}

/// `operator.operatorId`, or where a name has a dot itself, a JSON pointer (RFC 6901).
fn claim<'v>(payload: &'v Value, name: &str) -> Option<&'v Value> {
    if name.starts_with('/') {
        return payload.pointer(name);
    }
    name.split('.').try_fold(payload, |value, member| value.as_object()?.get(member))
}

/// In `scope`, separated by spaces (RFC 8693 section 4.2), or in `scp`, which is an array at some issuers.
fn has_scope(payload: &Value, scope: &str) -> bool {
    ["scope", "scp"].into_iter().filter_map(|name| payload.get(name)).any(|claim| match claim {
        Value::String(list) => list.split(' ').any(|held| held == scope),
        Value::Array(list) => list.iter().any(|held| held.as_str() == Some(scope)),
        _ => false,
    })
}

/// An object without a member that stands twice, at the top.
struct Once;

impl<'de> Deserialize<'de> for Once {
    fn deserialize<D: serde::Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> serde::de::Visitor<'de> for Members {
            type Value = Once;

            fn expecting(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Once, A::Error> {
                let mut names = alloc::collections::BTreeSet::new();
                while let Some((name, IgnoredAny)) = map.next_entry::<String, IgnoredAny>()? {
                    if !names.insert(name.to_string()) {
                        return Err(serde::de::Error::custom("a member stands twice"));
                    }
                }
                Ok(Once)
            }
        }

        source.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests {
    use std::format;

    use super::*;

    fn checked(payload: &str, claims: &str, scopes: &[&str]) -> Result<(), Reason> {
        let presented = format!("e30.{}.e30", token::base64url::encode(payload.as_bytes()));
        let claims = serde_json::from_str(claims).unwrap();
        let scopes: Vec<String> = scopes.iter().map(|scope| (*scope).into()).collect();
        check(presented.as_bytes(), &claims, &scopes, &[("operator_id", "OP1"), ("n", "5")])
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
            assert!(serde_json::from_str::<Wanted>(bad).is_err(), "{bad}");
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
        assert_eq!(check(b"not a token", &BTreeMap::new(), &["a".into()], &[]), Err(Reason::ScopeMissing));
        assert_eq!(check(b"not a token", &BTreeMap::new(), &[], &[]), Ok(()));
    }
}
