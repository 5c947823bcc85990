//! JSON (RFC 8259) as credentials and policies may hold it: no member twice, and bounded in depth and width.
//!
//! A member that stands twice lets two readers of one token see two things (RFC 8725 section 2.4), so it is refused at
//! every depth.
//!
//! By hand: the general library is 10 KB more of the filter. Tests hold this to that library.

mod reader;

use alloc::{borrow::Cow, string::String, vec::Vec};
use core::fmt;

use reader::Reader;

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
    /// With a fraction or an exponent, or of more than 64 bits; cut to a whole number, where that is one of 64 bits and
    /// it has no sign. Two that are equal may have been different numbers.
    Other {
        whole: Option<u64>,
        fraction: bool,
    },
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
        let before = |at| text.get(..at).unwrap_or(text);
        let text = core::str::from_utf8(text)
            .map_err(|error| NotJson::after(before(error.valid_up_to()), "not UTF-8".into()))?;
        let mut reader = Reader::of(text);
        reader.document().map_err(|wrong| NotJson::after(before(reader.at()), wrong))
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
        self.0.iter().find(|(known, _)| same(known, name)).map(|(_, value)| value)
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
#[derive(Debug)]
pub struct NotJson {
    wrong: Wrong,
    line: usize,
    /// In bytes, from 1.
    column: usize,
}

type Wrong = Cow<'static, str>;

impl NotJson {
    #[cold]
    fn after(text: &[u8], wrong: Wrong) -> Self {
        let lines = text.split(|byte| *byte == b'\n');
        let column = lines.clone().next_back().map_or(0, <[u8]>::len).saturating_add(1);
        Self { wrong, line: lines.count(), column }
    }
}

impl fmt::Display for NotJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { wrong, line, column } = self;
        write!(f, "{wrong} at line {line} column {column}")
    }
}

impl core::error::Error for NotJson {}

/// Eight bytes at a time: whoever sends a hundred long names has each compared with all.
fn same(one: &str, other: &str) -> bool {
    let ((one, one_rest), (other, other_rest)) =
        (one.as_bytes().as_chunks::<8>(), other.as_bytes().as_chunks::<8>());
    one.len() == other.len()
        && one.iter().zip(other).all(|(one, other)| u64::from_ne_bytes(*one) == u64::from_ne_bytes(*other))
        && one_rest == other_rest
}

#[cfg(test)]
mod tests {
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
            Json::Number(Number::Other { whole: Some(0), fraction: true }),
        ];
        assert_eq!(object.at(["a", "b"]).unwrap().as_array().unwrap(), expected);
        assert_eq!(object.get("c"), Some(&Json::Number(Number::Other { whole: None, fraction: false })));
        assert_eq!(object.at(["a", "b", "c"]), None);
        assert_eq!(object.at([]), None);
    }
}
