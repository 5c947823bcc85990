//! Parses the JSON (RFC 8259) of credentials and policies: duplicate members are refused, and depth and width are
//! bounded.
//!
//! If a member occurs twice, two parsers can read two values (RFC 8725 section 2.4), so duplicates are refused at every
//! depth. `serde_json` parses the text; the visitor in this module refuses what `serde_json` accepts.

use alloc::{string::String, vec::Vec};
use core::fmt;

pub use serde_json::{Number, Value};

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::map::Entry;

/// Maximum depth. Tokens of providers have about five levels. Each level takes stack, which is small in a VM.
const MAX_DEPTH: u8 = 16;

/// Maximum number of members of an object. Tokens of providers have at most about 40. The limit bounds the cost of an
/// unverified token (tests/tests/promises/costs.txt).
const MAX_MEMBERS: usize = 128;

/// Upper bound of numbers: all numbers below it are near a 64-bit float.
const MAX_MAGNITUDE: f64 = 1e308;

/// The members of a JSON object.
pub type Object = serde_json::Map<String, Value>;

/// Parses a JSON text.
///
/// # Errors
///
/// Returns an error with its line and column if the text is not JSON in UTF-8, if data follows the value, or if the
/// value has a duplicate member, a member name with U+0000, more than 128 members in one object, more than 16 levels,
/// or a number of 10^308 or more. The error contains no value, and no name other than that of the duplicate.
pub fn parse(text: &[u8]) -> Result<Value, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = Strict { levels_left: MAX_DEPTH }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

/// Builds a [`Value`] and refuses everything that two parsers could interpret differently.
#[derive(Clone, Copy)]
struct Strict {
    levels_left: u8,
}

impl Strict {
    fn descend<E: serde::de::Error>(self) -> Result<Self, E> {
        let levels_left = self.levels_left.checked_sub(1).ok_or_else(|| E::custom("nested too deeply"))?;
        Ok(Self { levels_left })
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        let number =
            if value > -MAX_MAGNITUDE && value < MAX_MAGNITUDE { Number::from_f64(value) } else { None };
        number.map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.descend()?;
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let inner = self.descend()?;
        let mut object = Object::new();
        while let Some(name) = members.next_key::<String>()? {
            // C string parsers end the name there.
            if name.contains('\0') {
                return Err(A::Error::custom("member name with U+0000"));
            }
            if object.len() >= MAX_MEMBERS {
                return Err(A::Error::custom("too many members"));
            }
            match object.entry(name) {
                Entry::Vacant(free) => {
                    free.insert(members.next_value_seed(inner)?);
                }
                Entry::Occupied(earlier) => {
                    return Err(A::Error::custom(format_args!("duplicate member `{}`", earlier.key())));
                }
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        format,
        string::{String, ToString},
        vec::Vec,
    };

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const BOUNDS: [&str; 5] = [
        "nested too deeply",
        "too many members",
        "number out of range",
        "member name with U+0000",
        "duplicate member",
    ];

    const MARKS: &[u8] = b"{}[]\",:\\u0eE-+. nt";

    #[test]
    fn parse_rejects_ambiguous_text() {
        let wide = |members: usize| {
            let members: Vec<_> = (0..members).map(|at| format!("\"{at}\":0")).collect();
            format!("{{{}}}", members.join(","))
        };
        let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        for good in [wide(MAX_MEMBERS), deep(MAX_DEPTH.into())] {
            assert!(parse(good.as_bytes()).is_ok(), "{good}");
        }
        for bad in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":1}"#,
            r#"{"x":[{"a":1,"b":2,"a":3}]}"#,
            r#"{"a":1,"a\u0000b":2}"#,
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
            &"{\"a\":".repeat(100_000),
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(parse(b"{\"a\":\"\xff\"}").is_err());
        assert!(parse(b"{\"a\":1}\xff").is_err());
    }

    /// Checks that the visitor agrees with `serde_json`, except for what the visitor refuses.
    fn check_agreement(text: &[u8]) -> Result<(), String> {
        match (parse(text), serde_json::from_slice::<Value>(text)) {
            (Ok(ours), Ok(theirs)) if ours == theirs => Ok(()),
            (Err(_), Err(_)) => Ok(()),
            (Err(error), Ok(_)) if BOUNDS.iter().any(|bound| error.to_string().starts_with(bound)) => Ok(()),
            (ours, theirs) => Err(format!("{:?}: {ours:?}, {theirs:?}", text.escape_ascii())),
        }
    }

    #[test]
    fn parse_accepts_the_numbers_of_rfc_8259() {
        for (text, number) in [
            ("0", Some(json!(0))),
            ("18446744073709551615", Some(json!(u64::MAX))),
            ("-9223372036854775808", Some(json!(i64::MIN))),
            // Numbers that are not 64-bit integers are floats.
            ("-9223372036854775809", Some(json!(-9_223_372_036_854_775_808.0))),
            ("18446744073709551616", Some(json!(18_446_744_073_709_551_616.0))),
            ("-0", Some(json!(-0.0))),
            ("-0.5", Some(json!(-0.5))),
            ("0.0", Some(json!(0.0))),
            ("0e999999999999999999999", Some(json!(0.0))),
            ("0.000e400", Some(json!(0.0))),
            ("1.7e9", Some(json!(1.7e9))),
            ("1.75E+1", Some(json!(17.5))),
            ("1750e-2", Some(json!(17.5))),
            ("1e-400", Some(json!(0.0))),
            ("1e-9999999999999999999999", Some(json!(0.0))),
            ("1e307", Some(json!(1e307))),
            ("9.9e307", Some(json!(9.9e307))),
            ("1e308", None),
            ("-1e308", None),
            ("1e400", None),
            ("0.01e310", None),
            ("1e9999999999999999999999", None),
            ("01", None),
            ("-", None),
            ("-01", None),
            ("+1", None),
            ("1.", None),
            (".5", None),
            ("1e", None),
            ("1e+", None),
            ("1.e1", None),
            ("0x1", None),
            ("1_0", None),
            ("Infinity", None),
            ("-NaN", None),
        ] {
            assert_eq!(parse(text.as_bytes()).ok(), number, "{text}");
            check_agreement(text.as_bytes()).unwrap();
        }
        let long = "1".repeat(308);
        assert!(parse(long.as_bytes()).unwrap().is_f64());
        assert!(parse(format!("{long}1").as_bytes()).is_err());
    }

    #[test]
    fn parse_unescapes_strings_once() {
        for (text, string) in [
            (r#""\"\\\/\b\f\n\r\t""#, Some("\"\\/\u{8}\u{c}\n\r\t")),
            (r#""\u0061\u00E9\ud83d\ude00é""#, Some("a\u{e9}\u{1f600}\u{e9}")),
            (r#""\ud83d""#, None),
            (r#""\ud83d\u0061""#, None),
            (r#""\ud83dude00""#, None),
            (r#""\ud83d\ud83d""#, None),
            (r#""\ude00\ud83d""#, None),
            (r#""\u006""#, None),
            (r#""\u+061""#, None),
            (r#""\x61""#, None),
            (r#""\"#, None),
            (r#""\""#, None),
            (r#"""#, None),
            ("\"\t\"", None),
            ("\"\u{7f}\"", Some("\u{7f}")),
        ] {
            assert_eq!(parse(text.as_bytes()).ok(), string.map(Value::from), "{text}");
        }
    }

    #[test]
    fn errors_have_a_kind_and_a_position() {
        for (text, error) in [
            ("", "EOF while parsing a value at line 1 column 0"),
            ("{\n \"a\": 1,\n \"a\": 2}", "duplicate member `a` at line 3 column 4"),
            ("[1, 2", "EOF while parsing a list at line 1 column 5"),
            ("{\"a\" 1}", "expected `:` at line 1 column 6"),
            ("[nul]", "expected ident at line 1 column 5"),
            ("[] []", "trailing characters at line 1 column 4"),
            ("[[[[[[[[[[[[[[[[[0]]]]]]]]]]]]]]]]]", "nested too deeply at line 1 column 17"),
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap_err().to_string(), error);
        }
    }

    fn texts() -> impl Strategy<Value = Vec<u8>> {
        let leaf = prop_oneof![
            Just("null".into()),
            Just("true".into()),
            Just("false".into()),
            "-?(0|[1-9][0-9]{0,21})(\\.[0-9]{1,9})?([eE][+-]?[0-9]{1,3})?",
            any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
            "\"(\\\\u[0-9a-fA-F]{4}|\\\\[bfnrt/\"]|[a-z])*\"",
        ];
        let tree = leaf.prop_recursive(6, 40, 5, |inner| {
            let member =
                ("[a-d]{1,2}", inner.clone()).prop_map(|(name, value)| format!("\"{name}\" :{value}"));
            prop_oneof![
                prop::collection::vec(inner, 0..5).prop_map(|items| format!("[{}]", items.join(", "))),
                prop::collection::vec(member, 0..5)
                    .prop_map(|members| format!("{{{}}}", members.join("\n,"))),
            ]
        });
        let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4_u8), 0..3);
        (tree, changes).prop_map(|(text, changes)| {
            let mut text = text.into_bytes();
            for (at, byte, how) in changes {
                let at = at.index(text.len() + 1);
                match how {
                    0 => text.insert(at, byte),
                    1 => text.truncate(at),
                    2 if at < text.len() => drop(text.remove(at)),
                    _ if at < text.len() => text[at] = MARKS[usize::from(byte) % MARKS.len()],
                    _ => {}
                }
            }
            text
        })
    }

    /// Counts members including duplicates.
    fn has_duplicate(text: &[u8]) -> Option<bool> {
        struct All(bool);
        impl<'de> serde::Deserialize<'de> for All {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(Pairs)
            }
        }
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = All;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }
            fn visit_unit<E>(self) -> Result<All, E> {
                Ok(All(false))
            }
            fn visit_bool<E>(self, _: bool) -> Result<All, E> {
                Ok(All(false))
            }
            fn visit_u64<E>(self, _: u64) -> Result<All, E> {
                Ok(All(false))
            }
            fn visit_i64<E>(self, _: i64) -> Result<All, E> {
                Ok(All(false))
            }
            fn visit_f64<E>(self, _: f64) -> Result<All, E> {
                Ok(All(false))
            }
            fn visit_str<E>(self, _: &str) -> Result<All, E> {
                Ok(All(false))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<All, A::Error> {
                let mut found = false;
                while let Some(All(inner)) = items.next_element()? {
                    found |= inner;
                }
                Ok(All(found))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<All, A::Error> {
                let (mut found, mut names) = (false, Vec::<String>::new());
                while let Some((name, All(inner))) = members.next_entry()? {
                    found |= inner || names.contains(&name);
                    names.push(name);
                }
                Ok(All(found))
            }
        }
        serde_json::from_slice(text).ok().map(|All(found)| found)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]
        #[test]
        fn parse_agrees_with_serde_json_and_rejects_duplicates(text in texts()) {
            prop_assert_eq!(check_agreement(&text), Ok(()));
            if has_duplicate(&text) == Some(true) {
                prop_assert!(parse(&text).is_err());
            }
        }
    }
}
