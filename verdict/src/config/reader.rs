//! Deserializes the configuration from JSON with serde. Errors contain the path and the expected type, and never a
//! value, because a misplaced value may be a secret.
//!
//! The deserializers of `serde_json` print values in their errors, accept an array for a struct and `null` for a
//! missing member. This one walks a parsed [`Value`] and tracks the path.

use alloc::{
    boxed::Box,
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::{fmt, iter::Enumerate, marker::PhantomData, slice};

use serde::{
    Deserialize, Deserializer,
    de::{
        self, DeserializeSeed, Expected, IntoDeserializer, MapAccess, SeqAccess, Unexpected, Visitor,
        value::MapAccessDeserializer,
    },
    forward_to_deserialize_any,
};
use serde_json::{Map, Value};
use token::json;

use crate::config::PolicyError;

/// Parses JSON strictly and deserializes a `T` from it.
pub(crate) fn from_json<T: de::DeserializeOwned>(text: &[u8]) -> Result<T, PolicyError> {
    let value = json::parse(text)
        .map_err(|error| PolicyError { path: ".".into(), message: printable(&error.to_string()) })?;
    T::deserialize(Node(&value)).map_err(|Error(mut error)| {
        if error.path.is_empty() {
            error.path.push('.');
        }
        *error
    })
}

/// Replaces control characters in text from a configuration, for use in an error or a log line.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|letter| if letter.is_control() { char::REPLACEMENT_CHARACTER } else { letter })
        .collect()
}

/// Returns whether a text that is compared as it is looks like a pattern: a wildcard, a regular expression, or a
/// placeholder.
pub(crate) fn looks_like_pattern(text: &str) -> bool {
    let bytes = text.as_bytes();
    matches!(bytes, [b'^', ..] | [.., b'$'] | [b'{', .., b'}'])
        || bytes.contains(&b'*')
        || bytes.windows(2).any(|pair| pair == b".+")
}

/// Deserializes a number from `MIN` to `MAX`, inclusive.
pub(crate) fn bounded<'de, const MIN: u64, const MAX: u64, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<u64, D::Error> {
    match u64::deserialize(deserializer)? {
        number if (MIN..=MAX).contains(&number) => Ok(number),
        _ => Err(de::Error::custom(format_args!("must be from {MIN} to {MAX}"))),
    }
}

/// Deserializes a `usize` from `MIN` to `MAX`, inclusive.
pub(crate) fn bounded_usize<'de, const MIN: u64, const MAX: u64, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<usize, D::Error> {
    usize::try_from(bounded::<MIN, MAX, D>(deserializer)?).map_err(|_| de::Error::custom("too large"))
}

/// Deserializes a string and converts it with `check`.
pub(crate) fn checked<'de, D: Deserializer<'de>, T, E: fmt::Display>(
    deserializer: D,
    check: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, D::Error> {
    check(<&str>::deserialize(deserializer)?).map_err(de::Error::custom)
}

/// Deserializes a string that must not be empty.
pub(crate) fn non_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    checked(deserializer, |text| if text.is_empty() { Err("must not be empty") } else { Ok(text.into()) })
}

/// Deserializes an array that must not be empty.
pub(crate) fn one_or_more<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    let items = Vec::deserialize(deserializer)?;
    if items.is_empty() { Err(de::Error::custom("there must be at least one")) } else { Ok(items) }
}

/// Deserializes an object as (name, value) pairs in the order of the names. The parser has already refused duplicate
/// names.
pub(crate) fn pairs<'de, D: Deserializer<'de>, K: Deserialize<'de>, V: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<(K, V)>, D::Error> {
    struct Pairs<K, V>(PhantomData<(K, V)>);

    impl<'de, K: Deserialize<'de>, V: Deserialize<'de>> Visitor<'de> for Pairs<K, V> {
        type Value = Vec<(K, V)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
            let mut all = Vec::new();
            while let Some(pair) = members.next_entry()? {
                all.push(pair);
            }
            Ok(all)
        }
    }

    deserializer.deserialize_map(Pairs(PhantomData))
}

/// A configuration error with the path as far as it is known. It is boxed because most deserialization steps return it.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(crate) struct Error(Box<PolicyError>);

impl Error {
    #[cold]
    fn new(message: String) -> Self {
        Self(Box::new(PolicyError { path: String::new(), message }))
    }

    #[cold]
    fn in_member(mut self, name: &str) -> Self {
        let path = &mut self.0.path;
        let dot = if path.is_empty() || path.starts_with('[') { "" } else { "." };
        *path = [&printable(name), dot, path].concat();
        self
    }

    #[cold]
    fn in_item(mut self, index: usize) -> Self {
        let path = &mut self.0.path;
        let dot = if path.is_empty() || path.starts_with('[') { "" } else { "." };
        *path = format!("[{index}]{dot}{path}");
        self
    }
}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(format!("expected {expected}, found {}", type_name(&found)))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Self::new(["must be one of `", &expected.join("`, `"), "`"].concat())
    }

    /// Quotes the member name: names are not secret.
    fn unknown_field(name: &str, expected: &'static [&'static str]) -> Self {
        let (name, expected) = (printable(name), expected.join("`, `"));
        Self::new(["unknown field `", &name, "`, expected one of `", &expected, "`"].concat())
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(["missing field `", field, "`"].concat())
    }
}

const fn type_name(found: &Unexpected<'_>) -> &'static str {
    match found {
        Unexpected::Unit | Unexpected::Option => "null",
        Unexpected::Bool(_) => "true or false",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) | Unexpected::Float(_) => "a number",
        Unexpected::Str(_) => "a string",
        Unexpected::Seq => "an array",
        Unexpected::Map => "an object",
        _ => "another type",
    }
}

/// A JSON value of the configuration.
#[derive(Clone, Copy)]
struct Node<'a>(&'a Value);

impl Node<'_> {
    #[cold]
    fn wrong_type(self, expected: &str) -> Error {
        let found = match self.0 {
            Value::Null => Unexpected::Unit,
            Value::Bool(is) => Unexpected::Bool(*is),
            Value::Number(_) => Unexpected::Unsigned(0),
            Value::String(text) => Unexpected::Str(text),
            Value::Array(_) => Unexpected::Seq,
            Value::Object(_) => Unexpected::Map,
        };
        de::Error::invalid_type(found, &expected)
    }
}

impl<'de> Deserializer<'de> for Node<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(is) => visitor.visit_bool(*is),
            Value::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(number), _) => visitor.visit_u64(number),
                (None, Some(number)) => visitor.visit_i64(number),
                (None, None) => visitor.visit_f64(number.as_f64().unwrap_or_default()),
            },
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Array(items) => visitor.visit_seq(Items(items.iter().enumerate())),
            Value::Object(members) => visitor.visit_map(Members::new(members)),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Bool(is) => visitor.visit_bool(*is),
            _ => Err(self.wrong_type("true or false")),
        }
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0.as_u64() {
            Some(number) => visitor.visit_u64(number),
            None if self.0.is_number() => Err(de::Error::custom("must be a whole number, 0 or more")),
            None => Err(self.wrong_type("a whole number")),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::String(text) => visitor.visit_borrowed_str(text),
            _ => Err(self.wrong_type("a string")),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    /// A member that is present must have a value: `null` does not mean "absent".
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(self.wrong_type("nothing"))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Array(items) => visitor.visit_seq(Items(items.iter().enumerate())),
            _ => Err(self.wrong_type("an array")),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Object(members) => visitor.visit_map(Members::new(members)),
            _ => Err(self.wrong_type("an object")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_map(visitor)
    }

    /// Accepts `"name"` or `{"name": value}`.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.0 {
            Value::String(name) => visitor.visit_enum(name.as_str().into_deserializer()),
            Value::Object(members) if members.len() == 1 => {
                visitor.visit_enum(MapAccessDeserializer::new(Members::new(members)))
            }
            _ => Err(self.wrong_type(&["one of `", &variants.join("`, `"), "`"].concat())),
        }
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u128 f32 f64 char bytes byte_buf
        unit_struct tuple tuple_struct identifier ignored_any
    }
}

struct Items<'de>(Enumerate<slice::Iter<'de, Value>>);

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let Some((index, item)) = self.0.next() else { return Ok(None) };
        seed.deserialize(Node(item)).map(Some).map_err(|error| error.in_item(index))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.0.len())
    }
}

struct Members<'de> {
    remaining: serde_json::map::Iter<'de>,
    /// The member whose name has been read and whose value has not.
    current: Option<(&'de str, &'de Value)>,
}

impl<'de> Members<'de> {
    fn new(members: &'de Map<String, Value>) -> Self {
        Self { remaining: members.iter(), current: None }
    }
}

impl<'de> MapAccess<'de> for Members<'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some((name, value)) = self.remaining.next() else { return Ok(None) };
        self.current = Some((name, value));
        let key = de::value::BorrowedStrDeserializer::<Error>::new(name);
        seed.deserialize(key).map(Some).map_err(|error| error.in_member(name))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let Some((name, value)) = self.current.take() else {
            return Err(de::Error::custom("a value was requested before its name"));
        };
        seed.deserialize(Node(value)).map_err(|error| error.in_member(name))
    }
}
