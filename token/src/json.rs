//! JSON as credentials may hold it: no member twice, and bounded in depth and width.
//!
//! A member that stands twice lets two readers of one token see two things (RFC 8725 section 2.4), so it is refused at
//! every depth. The text itself is `serde_json`'s business: UTF-8, escapes, numbers that fit.

use alloc::{string::String, vec::Vec};
use core::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor},
};

#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    Null,
    Bool(bool),
    Number(Number),
    String(String),
    Array(Vec<Json>),
    Object(Object),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    Unsigned(u64),
    Negative(i64),
    /// A fraction, an exponent, or an integer of more than 64 bits.
    Float(f64),
}

/// The members in the order they were written.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Object(Vec<(String, Json)>);

impl Json {
    /// None if it is no JSON, or one with a member that stands twice, too deep or too wide.
    pub fn parse(text: &[u8]) -> Option<Self> {
        Self::read(text).ok()
    }

    /// As [`Self::parse`], and says what is wrong where.
    pub fn read(text: &[u8]) -> Result<Self, NotJson> {
        let mut source = serde_json::Deserializer::from_slice(text);
        let json = Self::deserialize(&mut source).map_err(NotJson)?;
        source.end().map_err(NotJson)?;
        Ok(json)
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    pub const fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(is) => Some(*is),
            _ => None,
        }
    }

    pub const fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Number(Number::Unsigned(number)) => Some(*number),
            _ => None,
        }
    }

    pub fn as_array(&self) -> Option<&[Self]> {
        match self {
            Self::Array(items) => Some(items),
            _ => None,
        }
    }

    pub const fn as_object(&self) -> Option<&Object> {
        match self {
            Self::Object(object) => Some(object),
            _ => None,
        }
    }
}

impl Object {
    pub fn get(&self, name: &str) -> Option<&Json> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// What stands at `a`, then `b` in it, and so on.
    pub fn at<'p>(&self, path: impl IntoIterator<Item = &'p str>) -> Option<&Json> {
        let mut path = path.into_iter();
        let first = self.get(path.next()?)?;
        path.try_fold(first, |within, name| within.as_object()?.get(name))
    }

    /// A copy of the members with these names.
    pub fn only(&self, wanted: impl Fn(&str) -> bool) -> Self {
        Self(self.0.iter().filter(|(name, _)| wanted(name)).cloned().collect())
    }

    pub fn members(&self) -> &[(String, Json)] {
        &self.0
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Json)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }
}

/// What is wrong with a text, and in which line and column.
pub struct NotJson(serde_json::Error);

impl fmt::Display for NotJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for NotJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NotJson({self})")
    }
}

impl core::error::Error for NotJson {}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        Room(MAX_DEPTH).deserialize(source)
    }
}

/// How much deeper a value may go.
#[derive(Clone, Copy)]
struct Room(u8);

impl Room {
    fn inside<E: Error>(self) -> Result<Self, E> {
        self.0.checked_sub(1).map(Self).ok_or_else(|| E::custom("nested too deep"))
    }
}

impl<'de> DeserializeSeed<'de> for Room {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<Json, D::Error> {
        source.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Room {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E: Error>(self, is: bool) -> Result<Json, E> {
        Ok(Json::Bool(is))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Json, E> {
        Ok(Json::Number(Number::Unsigned(number)))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Json, E> {
        Ok(Json::Number(u64::try_from(number).map_or(Number::Negative(number), Number::Unsigned)))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Json, E> {
        Ok(Json::Number(Number::Float(number)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Json, E> {
        Ok(Json::String(text.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut source: A) -> Result<Json, A::Error> {
        let room = self.inside()?;
        let mut items = Vec::new();
        while let Some(item) = source.next_element_seed(room)? {
            items.push(item);
        }
        Ok(Json::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut source: A) -> Result<Json, A::Error> {
        let room = self.inside()?;
        let mut object = Object::default();
        while let Some(name) = source.next_key::<String>()? {
            if object.get(&name).is_some() {
                return Err(Error::custom(format_args!("`{name}` stands twice")));
            }
            if object.0.len() >= MAX_MEMBERS {
                return Err(Error::custom("too many members"));
            }
            object.0.push((name, source.next_value_seed(room)?));
        }
        Ok(Json::Object(object))
    }
}

/// What providers write goes some five deep. Each level takes stack, of which a VM has little.
const MAX_DEPTH: u8 = 16;

/// Each name is compared with those before it: 128 make 8,000 comparisons, some microseconds.
const MAX_MEMBERS: usize = 128;

#[cfg(test)]
mod tests {
    use std::format;

    use super::*;

    #[test]
    fn is_what_was_written() {
        let json = Json::parse(br#"{"a":{"b":["x",null,true,7,-7,0.5]},"c":18446744073709551616}"#).unwrap();
        let object = json.as_object().unwrap();
        let expected = [
            Json::String("x".into()),
            Json::Null,
            Json::Bool(true),
            Json::Number(Number::Unsigned(7)),
            Json::Number(Number::Negative(-7)),
            Json::Number(Number::Float(0.5)),
        ];
        assert_eq!(object.at(["a", "b"]).unwrap().as_array().unwrap(), expected);
        assert_eq!(object.get("c"), Some(&Json::Number(Number::Float(18_446_744_073_709_551_616.0))));
        assert_eq!(object.at(["a", "b", "c"]), None);
        assert_eq!(object.at([]), None);
    }

    #[test]
    fn what_two_readers_could_read_differently_is_refused() {
        let wide = |members: usize| {
            let members: std::vec::Vec<_> = (0..members).map(|at| format!("\"{at}\":0")).collect();
            format!("{{{}}}", members.join(","))
        };
        let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        for good in [wide(MAX_MEMBERS), deep(MAX_DEPTH.into())] {
            assert!(Json::parse(good.as_bytes()).is_some(), "{good}");
        }
        for bad in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":1}"#,
            r#"{"x":[{"a":1,"b":2,"a":3}]}"#,
            r#"{"a":1} x"#,
            r#"{"a":1}{}"#,
            r#"{"a":1,}"#,
            r#"{"a":01}"#,
            r#"{"a":1e400}"#,
            r#"{"a":NaN}"#,
            r#"{"a":"\ud800"}"#,
            r#"{'a':1}"#,
            "{\"a\":\"\u{1}\"}",
            "\u{feff}{}",
            "",
            &wide(MAX_MEMBERS + 1),
            &deep(usize::from(MAX_DEPTH) + 1),
            &"[".repeat(100_000),
        ] {
            assert_eq!(Json::parse(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(Json::parse(b"{\"a\":\"\xff\"}"), None);
    }
}
