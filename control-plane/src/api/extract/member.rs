//! Members of a JSON object, deserialized with an error that contains no value.

use std::fmt::{self, Display};

use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeOwned, IntoDeserializer, MapAccess, Unexpected, Visitor, value::MapDeserializer},
    forward_to_deserialize_any,
};
use serde_json::Value;

/// The members of an object in their order, repeated ones too.
pub(super) struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;

        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(MembersVisitor)
    }
}

impl Members {
    /// Deserializes a struct. The error is a text such as "`instant`: expected a whole number, 0 or more".
    pub(super) fn into_body<T: DeserializeOwned>(self) -> Result<T, String> {
        let members = self.0.into_iter().map(|(name, value)| (name, Member(value)));
        serde_path_to_error::deserialize(MapDeserializer::<_, MemberError>::new(members)).map_err(|error| {
            let path = error.path().to_string();
            let place = if path == "." { "the request body".to_owned() } else { format!("`{path}`") };
            format!("{place}: {}", error.into_inner())
        })
    }
}

/// The value of a member.
struct Member(Value);

impl IntoDeserializer<'_, MemberError> for Member {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Member {
    type Error = MemberError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, MemberError> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(value),
            Value::String(value) => visitor.visit_string(value),
            Value::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(value), _) => visitor.visit_u64(value),
                (None, Some(value)) => visitor.visit_i64(value),
                (None, None) => visitor.visit_f64(number.as_f64().unwrap_or(f64::NAN)),
            },
            Value::Array(values) => {
                let values = values.into_iter().map(Member);
                visitor.visit_seq(de::value::SeqDeserializer::new(values))
            }
            Value::Object(members) => {
                let members = members.into_iter().map(|(name, value)| (name, Member(value)));
                visitor.visit_map(MapDeserializer::new(members))
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, MemberError> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, MemberError> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct enum identifier ignored_any
    }
}

/// What is wrong with a member. It contains no value, which may be a secret.
#[derive(Debug, thiserror::Error)]
enum MemberError {
    #[error("expected {0}")]
    Expected(&'static str),
    #[error("unknown field `{0}`")]
    Unknown(String),
    #[error("missing field `{0}`")]
    Missing(&'static str),
    #[error("duplicate field `{0}`")]
    Duplicate(&'static str),
}

impl de::Error for MemberError {
    fn custom<T: Display>(_: T) -> Self {
        // The text may quote the value.
        Self::Expected("another value")
    }

    fn invalid_type(_: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::expected(expected)
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::expected(expected)
    }

    fn invalid_length(_: usize, expected: &dyn de::Expected) -> Self {
        Self::expected(expected)
    }

    fn unknown_variant(_: &str, _: &'static [&'static str]) -> Self {
        Self::Expected("another value")
    }

    fn unknown_field(field: &str, _: &'static [&'static str]) -> Self {
        Self::Unknown(field.to_owned())
    }

    fn missing_field(field: &'static str) -> Self {
        Self::Missing(field)
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::Duplicate(field)
    }
}

impl MemberError {
    /// Names what was expected in the terms of JSON. `expected` names a Rust type, and never a value.
    fn expected(expected: &dyn de::Expected) -> Self {
        Self::Expected(match expected.to_string().as_str() {
            "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, 0 or more",
            "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
            "a string" => "a string",
            "a boolean" => "true or false",
            "a sequence" => "an array",
            "a map" => "an object",
            _ => "another value",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only errors are of interest")]
    struct Body {
        text: String,
        #[serde(default)]
        number: Option<u64>,
        #[serde(default)]
        flag: bool,
        #[serde(default)]
        list: Vec<String>,
        #[serde(default)]
        map: std::collections::BTreeMap<String, u64>,
    }

    #[test]
    fn errors_name_the_member_and_no_value() {
        for (body, expected) in [
            (r#"{"text":"t","number":null,"flag":true,"list":["a"],"map":{"a":1}}"#, None),
            ("{}", Some("the request body: missing field `text`")),
            (r#"{"text":5}"#, Some("`text`: expected a string")),
            (r#"{"text":"t","number":"SECRET"}"#, Some("`number`: expected a whole number, 0 or more")),
            (r#"{"text":"t","number":-1}"#, Some("`number`: expected a whole number, 0 or more")),
            (r#"{"text":"t","number":1.5}"#, Some("`number`: expected a whole number, 0 or more")),
            (r#"{"text":"t","flag":"SECRET"}"#, Some("`flag`: expected true or false")),
            (r#"{"text":"t","list":"SECRET"}"#, Some("`list`: expected an array")),
            (r#"{"text":"t","list":["a",["SECRET"]]}"#, Some("`list[1]`: expected a string")),
            (r#"{"text":"t","map":{"b":"SECRET"}}"#, Some("`map.b`: expected a whole number, 0 or more")),
            (r#"{"text":"t","map":["SECRET"]}"#, Some("`map`: expected an object")),
            (r#"{"text":"t","other":"SECRET"}"#, Some("`other`: unknown field `other`")),
        ] {
            let members: Members = serde_json::from_str(body).unwrap();
            assert_eq!(
                members.into_body::<Body>().map(drop),
                expected.map_or(Ok(()), |text| Err(text.to_owned()))
            );
        }
        let members: Members = serde_json::from_str(r#"{"text":"a","text":"SECRET"}"#).unwrap();
        let error = members.into_body::<Body>().unwrap_err();
        assert!(error.ends_with("duplicate field `text`"), "{error}");
    }
}
