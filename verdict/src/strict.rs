//! Configuration out of JSON, by serde: an error names the place and never quotes what stands there.

use alloc::{
    boxed::Box,
    format,
    string::{String, ToString},
};
use core::fmt;

use serde::{
    Deserializer,
    de::{
        DeserializeOwned, DeserializeSeed, Error as _, Expected, MapAccess, SeqAccess, Unexpected, Visitor,
        value,
    },
    forward_to_deserialize_any,
};
use token::json::{Json, Number};

use crate::PolicyError;

pub(crate) fn read<T: DeserializeOwned>(json: &[u8]) -> Result<T, PolicyError> {
    let json =
        Json::read(json).map_err(|error| PolicyError { path: ".".into(), message: error.to_string() })?;
    T::deserialize(At(&json)).map_err(|error| {
        let Wrong { mut path, message } = *error.0;
        if path.is_empty() {
            path.push('.');
        }
        PolicyError { path, message }
    })
}

/// A value of the configuration as a source.
#[derive(Clone, Copy)]
struct At<'de>(&'de Json);

impl<'de> Deserializer<'de> for At<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Json::Null => visitor.visit_unit(),
            Json::Bool(is) => visitor.visit_bool(*is),
            Json::Number(Number::Unsigned(number)) => visitor.visit_u64(*number),
            Json::Number(Number::Negative(number)) => visitor.visit_i64(*number),
            Json::Number(Number::Float(number)) => visitor.visit_f64(*number),
            Json::String(text) => visitor.visit_borrowed_str(text),
            Json::Array(items) => visitor.visit_seq(Items { rest: items.iter(), index: 0 }),
            Json::Object(object) => visitor.visit_map(Members { rest: object.members().iter(), next: None }),
        }
    }

    // What a type asks for is all that it gets: an array is no struct, and each arm that is not there is code saved.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_map(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Json::Object(object) => visitor.visit_map(Members { rest: object.members().iter(), next: None }),
            _ => Err(self.instead_of(&"an object")),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Json::Array(items) => visitor.visit_seq(Items { rest: items.iter(), index: 0 }),
            _ => Err(self.instead_of(&"an array")),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Json::String(text) => visitor.visit_borrowed_str(text),
            _ => Err(self.instead_of(&"a string")),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Json::Number(Number::Unsigned(number)) => visitor.visit_u64(*number),
            _ => Err(self.instead_of(&"a whole number, 0 or more")),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Json::Bool(is) => visitor.visit_bool(*is),
            _ => Err(self.instead_of(&"true or false")),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Json::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.0 {
            Json::String(text) => visitor.visit_enum(value::BorrowedStrDeserializer::new(text)),
            Json::Object(object) => visitor.visit_enum(value::MapAccessDeserializer::new(Members {
                rest: object.members().iter(),
                next: None,
            })),
            _ => Err(Error::custom("must be a name, or an object with one member")),
        }
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct identifier
        ignored_any
    }
}

impl At<'_> {
    #[cold]
    fn instead_of(self, expected: &dyn Expected) -> Error {
        let found = match self.0 {
            Json::Null => Unexpected::Unit,
            Json::Bool(is) => Unexpected::Bool(*is),
            Json::Number(Number::Unsigned(number)) => Unexpected::Unsigned(*number),
            Json::Number(Number::Negative(number)) => Unexpected::Signed(*number),
            Json::Number(Number::Float(number)) => Unexpected::Float(*number),
            Json::String(text) => Unexpected::Str(text),
            Json::Array(_) => Unexpected::Seq,
            Json::Object(_) => Unexpected::Map,
        };
        Error::invalid_type(found, expected)
    }
}

struct Items<'de> {
    rest: core::slice::Iter<'de, Json>,
    index: usize,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        let Some(item) = self.rest.next() else { return Ok(None) };
        let index = self.index;
        self.index = index.saturating_add(1);
        seed.deserialize(At(item)).map(Some).map_err(|error| error.inside(&format!("[{index}]")))
    }
}

struct Members<'de> {
    rest: core::slice::Iter<'de, (String, Json)>,
    next: Option<&'de (String, Json)>,
}

impl<'de> MapAccess<'de> for Members<'de> {
    type Error = Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        self.next = self.rest.next();
        let Some((name, _)) = self.next else { return Ok(None) };
        let name = value::BorrowedStrDeserializer::new(name);
        seed.deserialize(name).map(Some).map_err(|error: Error| self.inside(error))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        let value = self.next.map_or(&Json::Null, |(_, value)| value);
        seed.deserialize(At(value)).map_err(|error| self.inside(error))
    }
}

impl Members<'_> {
    fn inside(&self, error: Error) -> Error {
        error.inside(self.next.map_or("", |(name, _)| name))
    }
}

/// One word, as every step of reading may return it: that is 20 KB of code.
#[derive(Debug)]
struct Error(Box<Wrong>);

/// What is wrong, and how far within what is being read.
#[derive(Debug)]
struct Wrong {
    path: String,
    message: String,
}

impl Error {
    #[cold]
    fn inside(mut self, outer: &str) -> Self {
        let path = &mut self.0.path;
        let dot = if path.is_empty() || path.starts_with('[') { "" } else { "." };
        *path = [outer, dot, path].concat();
        self
    }
}

impl serde::de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(Box::new(Wrong { path: String::new(), message: message.to_string() }))
    }

    /// What stands in the wrong place may be the credential: only its type is named.
    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let found = match found {
            Unexpected::Bool(_) => "true or false",
            Unexpected::Unsigned(_) | Unexpected::Signed(_) | Unexpected::Float(_) => "a number",
            Unexpected::Str(_) => "a string",
            Unexpected::Unit | Unexpected::Option => "null",
            Unexpected::Seq => "an array",
            Unexpected::Map => "an object",
            _ => "something else",
        };
        Self::custom(format_args!("{found}, expected {expected}"))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl core::error::Error for Error {}
