//! Requirements of a rule on the claims of a token.

use alloc::{borrow::Cow, string::String, vec::Vec};
use serde::{Deserialize, Deserializer, de::Error};
use token::json::{Object, Value};

use crate::{config::looks_like_pattern, decision::Reason};

/// The values that a claim must have. A claim that is an array has the values of its members.
#[derive(Debug, Clone)]
pub(crate) enum ClaimMatcher {
    /// At least one of them must match.
    AnyOf(Vec<Self>),
    /// Each of them must match a value.
    AllOf(Vec<Self>),
    /// This value.
    Exact(Value),
    /// The value of a path variable.
    PathVariable(String),
    /// A text with this beginning and this end, and at least one character between them.
    Affixes { prefix: String, suffix: String },
    /// Any value except `null` and the empty text.
    Present,
}

impl ClaimMatcher {
    /// Returns the name of a path variable for which `is_accepted` returns false, if any.
    pub(crate) fn unaccepted_variable(&self, is_accepted: &dyn Fn(&str) -> bool) -> Option<&str> {
        match self {
            Self::AnyOf(all) | Self::AllOf(all) => {
                all.iter().find_map(|matcher| matcher.unaccepted_variable(is_accepted))
            }
            Self::PathVariable(name) if !is_accepted(name) => Some(name),
            _ => None,
        }
    }

    /// Returns the name of a path variable that it needs, if any.
    pub(crate) fn path_variable(&self) -> Option<&str> {
        self.unaccepted_variable(&|_| false)
    }

    /// Returns whether every value is accepted.
    pub(crate) fn accepts_any(&self) -> bool {
        match self {
            Self::AnyOf(all) => all.iter().any(Self::accepts_any),
            Self::AllOf(all) => all.iter().all(Self::accepts_any),
            Self::Present => true,
            _ => false,
        }
    }

    /// Returns whether the requirement is met. `has` returns whether one of the values of the claim matches.
    fn is_met(&self, has: &dyn Fn(&Self) -> bool) -> bool {
        match self {
            Self::AnyOf(all) => all.iter().any(|matcher| matcher.is_met(has)),
            Self::AllOf(all) => all.iter().all(|matcher| matcher.is_met(has)),
            single => has(single),
        }
    }

    /// Returns whether one value, which is no array, matches.
    fn matches(&self, value: &Value, variables: &[(&str, &str)]) -> bool {
        match (self, value) {
            (single, Value::String(text)) => single.matches_text(text, variables),
            (Self::Exact(expected), value) => value == expected,
            (Self::Present, value) => !value.is_null(),
            _ => false,
        }
    }

    fn matches_text(&self, text: &str, variables: &[(&str, &str)]) -> bool {
        match self {
            Self::Exact(expected) => expected.as_str() == Some(text),
            Self::PathVariable(name) => {
                let variable = variables.iter().find(|(known, _)| known == name);
                variable.is_some_and(|(_, variable)| *variable == text)
            }
            Self::Affixes { prefix, suffix } => has_affixes(text, prefix, suffix),
            Self::Present => !text.is_empty(),
            Self::AnyOf(_) | Self::AllOf(_) => false,
        }
    }

    /// Calls `list` for each scope that a client needs: of alternatives, the first.
    fn for_each_scope<'m>(&'m self, list: &mut dyn FnMut(&'m str)) {
        match self {
            Self::AllOf(all) => all.iter().for_each(|matcher| matcher.for_each_scope(list)),
            Self::AnyOf(all) => all.iter().take(1).for_each(|matcher| matcher.for_each_scope(list)),
            Self::Exact(Value::String(scope)) => list(scope),
            _ => {}
        }
    }

    /// Returns whether all values can be scopes (RFC 6749 section 3.3).
    fn is_of_scopes(&self) -> bool {
        let is_scope =
            |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\'));
        match self {
            Self::AnyOf(all) | Self::AllOf(all) => all.iter().all(Self::is_of_scopes),
            Self::Exact(Value::String(text)) => !text.is_empty() && is_scope(text),
            Self::Affixes { prefix, suffix } => is_scope(prefix) && is_scope(suffix),
            Self::Exact(_) | Self::PathVariable(_) | Self::Present => false,
        }
    }
}

/// Returns whether a text has this beginning and this end. What precedes a suffix must be a name, so that
/// `@example.com` is the end of one address, and not of a list or of an address of another domain.
fn has_affixes(text: &str, prefix: &str, suffix: &str) -> bool {
    let middle = text.strip_prefix(prefix).and_then(|rest| rest.strip_suffix(suffix));
    let is_permitted = |byte: u8| match suffix.as_bytes().first() {
        None => true,
        _ if byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) => true,
        // The local part of an address (RFC 5321 section 4.1.2), without quotes.
        Some(b'@') => b"!#$%&'*+/=?^`{|}~".contains(&byte),
        Some(_) => false,
    };
    middle.is_some_and(|middle| !middle.is_empty() && middle.bytes().all(is_permitted))
}

const SHAPE: &str = "must be a string, a whole number, true or false, an array of these, or an object with one of `any_of`, \
                     `all_of`, `exact`, `path_variable`, `present`, `prefix` and `suffix`, or with both `prefix` and `suffix`";

const PATTERN: &str = "looks like a pattern, but is compared as it is. Write {\"prefix\": text}, {\"suffix\": text}, \
                       {\"present\": true}, {\"path_variable\": name}, or {\"exact\": text} for this very text";

impl ClaimMatcher {
    fn parse(value: &Value) -> Result<Self, &'static str> {
        match value {
            Value::Array(items) => Self::parse_list(items).map(Self::AnyOf),
            Value::Object(members) => {
                let mut members = members.iter();
                let (name, value) = members.next().ok_or(SHAPE)?;
                let first = Self::parse_member(name, value)?;
                match (first, members.next()) {
                    (first, None) => Ok(first),
                    // The members are in the order of their names.
                    (Self::Affixes { prefix, .. }, Some((name, value)))
                        if members.len() == 0 && name == "suffix" =>
                    {
                        match Self::parse_member(name, value)? {
                            Self::Affixes { suffix, .. } => Ok(Self::Affixes { prefix, suffix }),
                            _ => Err(SHAPE),
                        }
                    }
                    _ => Err(SHAPE),
                }
            }
            Value::String(text) if looks_like_pattern(text) => Err(PATTERN),
            value => Self::parse_scalar(value),
        }
    }

    fn parse_list(items: &[Value]) -> Result<Vec<Self>, &'static str> {
        let mut list = Vec::with_capacity(items.len());
        for item in items {
            list.push(Self::parse(item)?);
        }
        if list.is_empty() { Err(SHAPE) } else { Ok(list) }
    }

    fn parse_scalar(value: &Value) -> Result<Self, &'static str> {
        let is_scalar = value.is_boolean() || value.is_string() || value.is_u64() || value.is_i64();
        if is_scalar { Ok(Self::Exact(value.clone())) } else { Err(SHAPE) }
    }

    /// Parses a member of a matcher that is an object.
    fn parse_member(name: &str, value: &Value) -> Result<Self, &'static str> {
        // Next to a letter or a digit, another name could continue: `example.com` is the end of `badexample.com` too.
        let ends_name = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_punctuation);
        match (name, value) {
            ("any_of", Value::Array(items)) => Self::parse_list(items).map(Self::AnyOf),
            ("all_of", Value::Array(items)) => Self::parse_list(items).map(Self::AllOf),
            ("exact", value) => Self::parse_scalar(value),
            ("present", Value::Bool(true)) => Ok(Self::Present),
            ("path_variable", Value::String(name)) => Ok(Self::PathVariable(name.clone())),
            ("prefix" | "suffix", Value::String(text)) if looks_like_pattern(text) => {
                Err("a prefix or suffix is compared as it is: leave the `*` or other pattern out")
            }
            ("prefix", Value::String(prefix)) if ends_name(prefix.as_bytes().last()) => {
                Ok(Self::Affixes { prefix: prefix.clone(), suffix: String::new() })
            }
            ("suffix", Value::String(suffix)) if ends_name(suffix.as_bytes().first()) => {
                Ok(Self::Affixes { prefix: String::new(), suffix: suffix.clone() })
            }
            ("prefix", _) => Err("`prefix` must end with a character that ends a name, such as `:` or `/`"),
            ("suffix", _) => {
                Err("`suffix` must begin with a character that begins a name, such as `@` or `.`")
            }
            _ => Err(SHAPE),
        }
    }

    /// Returns whether there are no requirements.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::AllOf(all) if all.is_empty())
    }
}

impl<'de> Deserialize<'de> for ClaimMatcher {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&Value::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// Deserializes required scopes. Of a list, which may be empty, all are required.
pub(crate) fn scopes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ClaimMatcher, D::Error> {
    parse_scopes(&Value::deserialize(deserializer)?).map_err(D::Error::custom)
}

fn parse_scopes(value: &Value) -> Result<ClaimMatcher, &'static str> {
    let scopes = match value {
        Value::Array(items) if items.is_empty() => no_scopes(),
        Value::Array(items) => ClaimMatcher::AllOf(ClaimMatcher::parse_list(items)?),
        value => ClaimMatcher::parse(value)?,
    };
    if scopes.is_of_scopes() {
        Ok(scopes)
    } else {
        Err("a scope must be printable ASCII without spaces, \" and \\")
    }
}

/// The requirement of no scope.
pub(crate) const fn no_scopes() -> ClaimMatcher {
    ClaimMatcher::AllOf(Vec::new())
}

/// The name of a claim: a dotted path such as `operator.operatorId`, or a JSON pointer (RFC 6901) if it starts with a
/// slash.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, PartialOrd, Ord))]
#[serde(try_from = "String")]
pub(crate) struct ClaimName(pub(crate) String);

impl TryFrom<String> for ClaimName {
    type Error = &'static str;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        let bytes = name.as_bytes();
        let has = |byte: u8| bytes.contains(&byte);
        let is_index = |part: &[u8]| part.iter().all(u8::is_ascii_digit);
        if bytes.first() == Some(&b'/') {
            Ok(Self(name))
        } else if has(b'/') && has(b'.') {
            Err(
                "a dotted name is a path. Write a name that contains dots as a JSON pointer: `/https:~1~1example.com~1role`",
            )
        } else if has(b'*')
            || has(b'[')
            || bytes.starts_with(b"$.")
            || bytes.split(|byte| *byte == b'.').any(is_index)
        {
            Err(
                "must be a dotted path of names, such as `realm.roles`, which continues in every member of an array, or a \
                 JSON pointer, such as `/realm/roles/0`",
            )
        } else {
            Ok(Self(name))
        }
    }
}

/// The JSON representation of [`ClaimMatcher`], for the schema.
#[cfg(feature = "schema")]
pub(crate) mod shape {
    use alloc::{string::String, vec::Vec};

    use schemars::JsonSchema;

    /// The values that a claim must have.
    #[derive(JsonSchema)]
    #[schemars(untagged)]
    #[expect(dead_code, reason = "only its schema is of use")]
    pub(crate) enum ClaimMatcher {
        One(Scalar),
        /// A list: one of a claim, all of scopes.
        List(Vec<Self>),
        AnyOf(AnyOf),
        AllOf(AllOf),
        Exact(Exact),
        PathVariable(PathVariable),
        Affixes(Affixes),
        Present(Present),
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

    /// One of these must match.
    #[derive(JsonSchema)]
    #[schemars(deny_unknown_fields)]
    #[expect(dead_code, reason = "only its schema is of use")]
    pub(crate) struct AnyOf {
        #[schemars(length(min = 1))]
        any_of: Vec<ClaimMatcher>,
    }

    /// Each of these must match.
    #[derive(JsonSchema)]
    #[schemars(deny_unknown_fields)]
    #[expect(dead_code, reason = "only its schema is of use")]
    pub(crate) struct AllOf {
        #[schemars(length(min = 1))]
        all_of: Vec<ClaimMatcher>,
    }

    /// Exactly this value, even if it looks like a pattern.
    #[derive(JsonSchema)]
    #[schemars(deny_unknown_fields)]
    #[expect(dead_code, reason = "only its schema is of use")]
    pub(crate) struct Exact {
        exact: Scalar,
    }

    /// The value of a path variable.
    #[derive(JsonSchema)]
    #[schemars(deny_unknown_fields)]
    #[expect(dead_code, reason = "only its schema is of use")]
    pub(crate) struct PathVariable {
        path_variable: String,
    }

    /// The beginning and the end of a text.
    #[derive(JsonSchema)]
    #[schemars(deny_unknown_fields, extend("minProperties" = 1))]
    #[expect(dead_code, reason = "only its schema is of use")]
    pub(crate) struct Affixes {
        #[schemars(default, skip_serializing_if = "String::is_empty")]
        prefix: String,
        #[schemars(default, skip_serializing_if = "String::is_empty")]
        suffix: String,
    }

    /// Any value except `null` and the empty text.
    #[derive(JsonSchema)]
    #[schemars(deny_unknown_fields)]
    #[expect(dead_code, reason = "only its schema is of use")]
    pub(crate) struct Present {
        #[schemars(extend("const" = true))]
        present: bool,
    }
}

/// Checks the claims of a verified token.
pub(crate) fn check_claims(
    members: &Object,
    claims: &[(ClaimName, ClaimMatcher)],
    variables: &[(&str, &str)],
) -> Result<(), Reason> {
    for (ClaimName(name), matcher) in claims {
        let has = |single: &ClaimMatcher| any_value(members, name, &|value| single.matches(value, variables));
        if !matcher.is_met(&has) {
            return Err(Reason::ClaimMissing);
        }
    }
    Ok(())
}

/// Checks the scopes of a verified token: `scope` (separated by spaces, RFC 8693 section 4.2) and `scp` (an array for
/// some issuers).
pub(crate) fn check_scopes(members: &Object, scopes: &ClaimMatcher) -> Result<(), Reason> {
    let has = |single: &ClaimMatcher| {
        let matches = |scope: &str| single.matches_text(scope, &[]);
        ["scope", "scp"].into_iter().filter_map(|name| members.get(name)).any(|claim| match claim {
            Value::String(list) => list.split(' ').any(matches),
            Value::Array(list) => list.iter().filter_map(Value::as_str).any(matches),
            _ => false,
        })
    };
    if scopes.is_met(&has) { Ok(()) } else { Err(Reason::ScopeMissing) }
}

/// Adds the scopes that a client needs, separated by spaces.
pub(crate) fn list_scopes(scopes: &ClaimMatcher, list: &mut String) {
    scopes.for_each_scope(&mut |scope| {
        if !list.is_empty() {
            list.push(' ');
        }
        list.push_str(scope);
    });
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

/// Returns whether one of the values of a claim satisfies a condition. A dotted path continues in each member of an
/// array, and a JSON pointer in the one that it names. A claim that is an array has the values of its members.
fn any_value(members: &Object, name: &str, condition: &dyn Fn(&Value) -> bool) -> bool {
    let (path, separator) = match name.strip_prefix('/') {
        Some(pointer) => (pointer, b'/'),
        None => (name, b'.'),
    };
    let (first, rest) = split_path(path, separator);
    members.get(&*first).is_some_and(|value| any_nested(value, rest, separator, condition))
}

fn any_nested(value: &Value, path: Option<&str>, separator: u8, condition: &dyn Fn(&Value) -> bool) -> bool {
    match (value, path) {
        (Value::Array(items), Some(path)) if separator == b'/' => {
            let (index, rest) = split_path(path, separator);
            item_at(items, &index).is_some_and(|item| any_nested(item, rest, separator, condition))
        }
        (Value::Array(items), path) => items.iter().any(|item| any_nested(item, path, separator, condition)),
        (Value::Object(members), Some(path)) => {
            let (name, rest) = split_path(path, separator);
            members.get(&*name).is_some_and(|member| any_nested(member, rest, separator, condition))
        }
        (_, Some(_)) => false,
        (value, None) => condition(value),
    }
}

/// Returns the first part of a path, and the others.
fn split_path(path: &str, separator: u8) -> (Cow<'_, str>, Option<&str>) {
    let end = path.bytes().position(|byte| byte == separator);
    let (first, rest) = match end.and_then(|end| path.split_at_checked(end)) {
        Some((first, rest)) => (first, rest.get(1..)),
        None => (path, None),
    };
    let is_escaped = separator == b'/' && first.as_bytes().contains(&b'~');
    (if is_escaped { Cow::Owned(unescape(first)) } else { Cow::Borrowed(first) }, rest)
}

/// Returns the member of an array with this index (RFC 6901 section 4).
fn item_at<'v>(items: &'v [Value], index: &str) -> Option<&'v Value> {
    let is_index = match index.as_bytes() {
        [b'0'] => true,
        [first, ..] => matches!(first, b'1'..=b'9'),
        [] => false,
    };
    items.get(index.parse::<usize>().ok().filter(|_| is_index)?)
}

/// Returns the claim with this name, a [`ClaimName`]. A dotted path continues through objects only.
pub(crate) fn get<'v>(members: &'v Object, name: &str) -> Option<&'v Value> {
    let (mut path, separator) = match name.strip_prefix('/') {
        Some(pointer) => (Some(pointer), b'/'),
        None => (Some(name), b'.'),
    };
    let (first, rest) = split_path(path?, separator);
    let mut value = members.get(&*first)?;
    path = rest;
    while let Some(remaining) = path {
        let (next, rest) = split_path(remaining, separator);
        value = match value {
            Value::Object(members) => members.get(&*next)?,
            Value::Array(items) if separator == b'/' => item_at(items, &next)?,
            _ => return None,
        };
        path = rest;
    }
    Some(value)
}

/// Returns whether looking up the claim `name` needs the top-level member `member`.
pub(crate) fn needs_member(name: &str, member: &str) -> bool {
    match name.strip_prefix('/') {
        Some(pointer) => split_path(pointer, b'/').0 == member,
        None => split_path(name, b'.').0 == member,
    }
}

/// Decodes `~1` as a slash and `~0` as a tilde (RFC 6901 section 4).
fn unescape(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    let mut rest = name.chars();
    while let Some(letter) = rest.next() {
        let decoded = match (letter, rest.as_str().as_bytes().first()) {
            ('~', Some(b'0')) => '~',
            ('~', Some(b'1')) => '/',
            _ => {
                text.push(letter);
                continue;
            }
        };
        text.push(decoded);
        rest.next();
    }
    text
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;
    use crate::config;
    use token::json;

    fn parse_and_check(payload: &str, claims: &str, required: &str) -> Result<(), Reason> {
        #[derive(Deserialize)]
        struct Claims(#[serde(deserialize_with = "config::pairs")] Vec<(ClaimName, ClaimMatcher)>);
        #[derive(Deserialize)]
        struct Scopes(#[serde(deserialize_with = "scopes")] ClaimMatcher);
        let Claims(claims) = config::from_json(claims.as_bytes()).unwrap();
        let Scopes(scopes) = config::from_json(required.as_bytes()).unwrap();
        let payload = json::parse(payload.as_bytes()).ok();
        let members = payload.as_ref().and_then(Value::as_object).cloned().unwrap_or_default();
        check_claims(&members, &claims, &[("operator_id", "OP1"), ("n", "5")])?;
        check_scopes(&members, &scopes)
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
            assert_eq!(parse_and_check(PAYLOAD, good, "[]"), Ok(()), "{good}");
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
            assert_eq!(parse_and_check(PAYLOAD, bad, "[]"), Err(Reason::ClaimMissing), "{bad}");
        }
        for payload in ["{}", "[]", "5", "", r#"{"a":"x","a":"x"}"#] {
            assert_eq!(
                parse_and_check(payload, r#"{"a":"x"}"#, "[]"),
                Err(Reason::ClaimMissing),
                "{payload}"
            );
        }
        for bad in [
            "null",
            "[]",
            "{}",
            "1.5",
            "[null]",
            r#"{"path_variable":1}"#,
            r#"{"path_variable":"a","b":1}"#,
            r#"{"any_of":[]}"#,
            r#"{"all_of":["a"],"any_of":["b"]}"#,
            r#"{"exact":["a"]}"#,
            r#"{"present":false}"#,
            r#"{"exact":"a","prefix":"b:"}"#,
            r#"{"all_of":[1.5]}"#,
        ] {
            assert!(config::from_json::<ClaimMatcher>(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn e1_any_of_and_all_of_work_in_claims_arrays_and_scopes() {
        const PAYLOAD: &str = r#"{"g":["p","q"],"s":"x","scope":"orders:read profile","scp":["z"],
            "authorities":[{"authority":"ROLE_A"},{"authority":"ROLE_B","ids":[1,2]}],"nested":[["a"]],"e":"","l":[]}"#;
        for (claims, scopes, expected) in [
            (r#"{"g":{"any_of":["p","z"]}}"#, "[]", true),
            (r#"{"g":{"all_of":["p","q"]}}"#, "[]", true),
            (r#"{"g":{"all_of":["p","z"]}}"#, "[]", false),
            (r#"{"g":{"all_of":["q",{"any_of":["z","p"]}]}}"#, "[]", true),
            (r#"{"g":["z",{"all_of":["p","q"]}]}"#, "[]", true),
            (r#"{"s":{"all_of":["x"]}}"#, "[]", true),
            (r#"{"s":{"all_of":["x","y"]}}"#, "[]", false),
            (r#"{"authorities.authority":"ROLE_B"}"#, "[]", true),
            (r#"{"authorities.authority":{"all_of":["ROLE_A","ROLE_B"]}}"#, "[]", true),
            (r#"{"authorities.authority":"ROLE_C"}"#, "[]", false),
            (r#"{"authorities.ids":2}"#, "[]", true),
            (r#"{"/authorities/0/authority":"ROLE_A"}"#, "[]", true),
            (r#"{"/authorities/0/authority":"ROLE_B"}"#, "[]", false),
            (r#"{"/authorities/00/authority":"ROLE_A"}"#, "[]", false),
            (r#"{"/authorities/2/authority":"ROLE_A"}"#, "[]", false),
            (r#"{"/authorities/authority":"ROLE_A"}"#, "[]", false),
            (r#"{"nested":"a"}"#, "[]", true),
            (r#"{"g":{"present":true}}"#, "[]", true),
            (r#"{"e":{"present":true}}"#, "[]", false),
            (r#"{"l":{"present":true}}"#, "[]", false),
            (r#"{"absent":{"present":true}}"#, "[]", false),
            ("{}", r#"["orders:read","z"]"#, true),
            ("{}", r#"["orders:read","orders:write"]"#, false),
            ("{}", r#"{"any_of":["orders:read","orders:write"]}"#, true),
            ("{}", r#"{"any_of":["orders:write","z"]}"#, true),
            ("{}", r#"{"any_of":["orders:write","orders"]}"#, false),
            ("{}", r#"[{"any_of":["orders:write","orders:read"]},"profile"]"#, true),
            ("{}", r#"[{"any_of":["orders:write","orders:read"]},"email"]"#, false),
            ("{}", r#"{"all_of":["orders:read","profile"]}"#, true),
            ("{}", r#"[{"prefix":"orders:"}]"#, true),
            ("{}", r#"[{"prefix":"order:"}]"#, false),
        ] {
            assert_eq!(parse_and_check(PAYLOAD, claims, scopes).is_ok(), expected, "{claims} {scopes}");
        }
        for bad in
            [r#"["a b"]"#, r#"[""]"#, r#"[1]"#, r#"[{"path_variable":"n"}]"#, r#"["a*"]"#, r#"{"any_of":[]}"#]
        {
            #[derive(Debug, Deserialize)]
            struct Scopes(
                #[serde(deserialize_with = "scopes")]
                #[expect(dead_code, reason = "only whether it can be read is tested")]
                ClaimMatcher,
            );
            assert!(config::from_json::<Scopes>(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn e3_suffix_and_prefix_match_whole_names_only() {
        for (matcher, value, expected) in [
            (r#"{"suffix":"@example.com"}"#, "jo@example.com", true),
            (r#"{"suffix":"@example.com"}"#, "jo+x@example.com", true),
            (r#"{"suffix":"@example.com"}"#, "j\u{fc}rgen@example.com", false),
            (r#"{"suffix":"@example.com"}"#, "@example.com", false),
            (r#"{"suffix":"@example.com"}"#, "jo@badexample.com", false),
            (r#"{"suffix":"@example.com"}"#, "jo@Example.com", false),
            (r#"{"suffix":"@example.com"}"#, "jo@example.com.", false),
            (r#"{"suffix":"@example.com"}"#, "jo@example.com\n", false),
            (r#"{"suffix":"@example.com"}"#, "jo@evil.com@example.com", false),
            (r#"{"suffix":"@example.com"}"#, "jo@evil.com,x@example.com", false),
            (r#"{"suffix":"@example.com"}"#, "jo@evil.com x@example.com", false),
            (r#"{"suffix":"@example.com"}"#, "\"jo@evil.com\"@example.com", false),
            (r#"{"suffix":"@example.com"}"#, "<jo@evil.com>x@example.com", false),
            (r#"{"suffix":".example.com"}"#, "a.b.example.com", true),
            (r#"{"suffix":".example.com"}"#, "https://evil.com/?.example.com", false),
            (r#"{"suffix":".example.com"}"#, "evil.com#.example.com", false),
            (r#"{"prefix":"repo:org/name:"}"#, "repo:org/name:ref:refs/heads/main", true),
            (r#"{"prefix":"repo:org/name:"}"#, "repo:org/name:", false),
            (r#"{"prefix":"repo:org/name:"}"#, "repo:org/name2:ref", false),
            (r#"{"prefix":"a:","suffix":":b"}"#, "a:x:b", true),
            (r#"{"prefix":"a:","suffix":"-b"}"#, "a:x-b", true),
            (r#"{"prefix":"a:","suffix":":b"}"#, "a:b", false),
            (r#"{"exact":"*@example.com"}"#, "*@example.com", true),
            (r#"{"exact":"*@example.com"}"#, "jo@example.com", false),
        ] {
            let matcher: ClaimMatcher = config::from_json(matcher.as_bytes()).unwrap();
            assert_eq!(matcher.matches(&Value::from(value), &[]), expected, "{matcher:?} {value}");
            assert!(!matcher.matches(&Value::from(5), &[]));
        }
        for bad in [
            r#""*""#,
            r#""*@example.com""#,
            r#""^admin""#,
            r#""admin$""#,
            r#""a.+b""#,
            r#""{id}""#,
            r#"["a","b*"]"#,
            r#"{"suffix":"example.com"}"#,
            r#"{"suffix":""}"#,
            r#"{"suffix":"*@a.b"}"#,
            r#"{"prefix":"svc"}"#,
            r#"{"prefix":""}"#,
            r#"{"prefix":"svc-*"}"#,
            r#"{"prefix":"svc-","suffix":"x"}"#,
        ] {
            let error = config::from_json::<ClaimMatcher>(bad.as_bytes()).unwrap_err().to_string();
            assert!(!error.contains("*@") && !error.contains("svc"), "a value is quoted: {error}");
        }
        for bad in
            ["authorities.0.authority", "a[0]", "$.roles", "roles.*", "a..b", "", "https://example.com/roles"]
        {
            assert!(ClaimName::try_from(String::from(bad)).is_err(), "{bad}");
        }
        for good in
            ["sub", "realm_access.roles", "/authorities/0/authority", "/https:~1~1example.com~1role", "urn:x"]
        {
            assert!(ClaimName::try_from(String::from(good)).is_ok(), "{good}");
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
            assert_eq!(parse_and_check(payload, "{}", r#"["a","b"]"#), expected, "{payload}");
        }
    }
}
