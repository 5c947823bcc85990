//! From text to values, one byte after the other.

use alloc::{string::String, vec::Vec};

use super::{Json, Number, Object, Wrong};

pub(super) struct Reader<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Reader<'t> {
    pub(super) const fn of(text: &'t str) -> Self {
        Self { text, at: 0 }
    }

    /// One value, and nothing behind it.
    pub(super) fn document(&mut self) -> Result<Json, Wrong> {
        let json = self.value(MAX_DEPTH)?;
        self.skips_space();
        if self.peek().is_none() { Ok(json) } else { Err("more behind the end".into()) }
    }

    /// How far it came: where it stopped, if something is wrong.
    pub(super) const fn at(&self) -> usize {
        self.at
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek();
        self.at = self.at.saturating_add(1);
        byte
    }

    fn takes(&mut self, byte: u8) -> bool {
        let takes = self.peek() == Some(byte);
        self.at = self.at.saturating_add(takes.into());
        takes
    }

    fn expects(&mut self, byte: u8, otherwise: &'static str) -> Result<(), Wrong> {
        if self.takes(byte) { Ok(()) } else { Err(otherwise.into()) }
    }

    fn skips_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at = self.at.saturating_add(1);
        }
    }

    /// `room`: how much deeper it may go.
    fn value(&mut self, room: u8) -> Result<Json, Wrong> {
        self.skips_space();
        match self.peek() {
            Some(b'{') => self.object(room).map(Json::Object),
            Some(b'[') => self.array(room).map(Json::Array),
            Some(b'"') => self.string().map(Json::String),
            Some(b'-' | b'0'..=b'9') => self.number().map(Json::Number),
            _ => self.word(),
        }
    }

    fn word(&mut self) -> Result<Json, Wrong> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let words = [("null", Json::Null), ("true", Json::Bool(true)), ("false", Json::Bool(false))];
        let found = words.into_iter().find(|(word, _)| rest.starts_with(word));
        let (word, json) = found.ok_or("expected a value")?;
        self.at = self.at.saturating_add(word.len());
        Ok(json)
    }

    fn object(&mut self, room: u8) -> Result<Object, Wrong> {
        let mut object = Object::default();
        let room = self.open(room, b'}')?;
        while let Some(room) = room {
            self.skips_space();
            let start = self.at;
            if self.peek() != Some(b'"') {
                return Err("expected the name of a member".into());
            }
            let name = self.string()?;
            // Where it ends for readers in C.
            if name.contains('\0') {
                return Err("a name with U+0000 in it".into());
            }
            if object.get(&name).is_some() {
                self.at = start;
                return Err(["`", &name, "` stands twice"].concat().into());
            }
            if object.0.len() >= MAX_MEMBERS {
                return Err("too many members".into());
            }
            self.skips_space();
            self.expects(b':', "expected `:`")?;
            object.0.push((name, self.value(room)?));
            if self.closes(b'}', "expected `,` or `}`")? {
                break;
            }
        }
        Ok(object)
    }

    fn array(&mut self, room: u8) -> Result<Vec<Json>, Wrong> {
        let mut items = Vec::new();
        let room = self.open(room, b']')?;
        while let Some(room) = room {
            items.push(self.value(room)?);
            if self.closes(b']', "expected `,` or `]`")? {
                break;
            }
        }
        Ok(items)
    }

    /// The room within; None if there is nothing in it.
    fn open(&mut self, room: u8, end: u8) -> Result<Option<u8>, Wrong> {
        let within = room.checked_sub(1).ok_or("nested too deep")?;
        self.next();
        self.skips_space();
        Ok(if self.takes(end) { None } else { Some(within) })
    }

    /// Else there is more.
    fn closes(&mut self, end: u8, otherwise: &'static str) -> Result<bool, Wrong> {
        self.skips_space();
        if self.takes(end) {
            return Ok(true);
        }
        self.expects(b',', otherwise).map(|()| false)
    }

    fn string(&mut self) -> Result<String, Wrong> {
        self.next();
        let mut string = String::new();
        loop {
            let rest = self.text.get(self.at..).unwrap_or_default();
            let plain = rest.bytes().position(|byte| matches!(byte, b'"' | b'\\' | ..b' '));
            let (plain, _) =
                plain.and_then(|length| rest.split_at_checked(length)).ok_or("a string without an end")?;
            self.at = self.at.saturating_add(plain.len());
            match self.peek() {
                Some(b'"') => {
                    self.next();
                    // Nearly all have no escape, and cost one allocation.
                    if string.is_empty() {
                        return Ok(plain.into());
                    }
                    string.push_str(plain);
                    return Ok(string);
                }
                Some(b'\\') => {
                    string.push_str(plain);
                    string.push(self.escaped()?);
                }
                _ => return Err("a control character in a string".into()),
            }
        }
    }

    /// RFC 8259 section 7.
    fn escaped(&mut self) -> Result<char, Wrong> {
        self.next();
        Ok(match self.next() {
            Some(byte @ (b'"' | b'\\' | b'/')) => byte.into(),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                let first = self.unit()?;
                if let Some(Ok(letter)) = char::decode_utf16([first]).next() {
                    return Ok(letter);
                }
                let pair =
                    if self.takes(b'\\') && self.takes(b'u') { Some([first, self.unit()?]) } else { None };
                let letter = pair.and_then(|pair| char::decode_utf16(pair).next()?.ok());
                letter.ok_or("half of a surrogate pair")?
            }
            _ => return Err("an escape that is none".into()),
        })
    }

    /// Of UTF-16, in four hexadecimal digits.
    fn unit(&mut self) -> Result<u16, Wrong> {
        let mut unit = 0;
        for _ in 0..4 {
            let digit = self.next().and_then(|byte| char::from(byte).to_digit(16));
            let digit = digit
                .and_then(|digit| u16::try_from(digit).ok())
                .ok_or("expected four hexadecimal digits")?;
            unit = unit << 4 | digit;
        }
        Ok(unit)
    }

    /// RFC 8259 section 6.
    fn number(&mut self) -> Result<Number, Wrong> {
        let start = self.at;
        let negative = self.takes(b'-');
        let whole = self.digits()?;
        if whole.len() > 1 && whole.starts_with('0') {
            return Err("a number with a zero in front".into());
        }
        let fraction = if self.takes(b'.') { self.digits()? } else { "" };
        let exponent = if self.takes(b'e') || self.takes(b'E') { self.exponent()? } else { 0 };
        let written = self.text.get(start..self.at).unwrap_or_default();
        // Where the library that this is held to takes `-0` for no integer, so does this.
        match (negative, written.parse(), written.parse()) {
            (false, Ok(number), _) => return Ok(Number::Unsigned(number)),
            (true, _, Ok(number @ ..0)) => return Ok(Number::Negative(number)),
            _ => {}
        }
        let point = i64::try_from(whole.len()).unwrap_or(i64::MAX).saturating_add(exponent);
        let digits = || (0..).zip(whole.bytes().chain(fraction.bytes()).map(|digit| digit & 15));
        // Beyond this, a reader who takes it for a float reads another number.
        let first = digits().find(|(_, digit)| *digit != 0);
        if first.is_some_and(|(at, _)| point.saturating_sub(at) > MAX_MAGNITUDE) {
            return Err("a number out of range".into());
        }
        let (whole, fraction) = cut(digits(), if first.is_some() { point } else { 0 });
        Ok(Number::Other { whole: whole.filter(|_| !negative), fraction })
    }

    fn exponent(&mut self) -> Result<i64, Wrong> {
        let below = self.takes(b'-');
        if !below {
            self.takes(b'+');
        }
        // One that does not fit is beyond any that makes a difference.
        let size = self.digits()?.parse().unwrap_or(i64::MAX);
        Ok(if below { size.saturating_neg() } else { size })
    }

    fn digits(&mut self) -> Result<&'t str, Wrong> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at = self.at.saturating_add(1);
        }
        self.text
            .get(start..self.at)
            .filter(|digits| !digits.is_empty())
            .ok_or_else(|| "expected a digit".into())
    }
}

/// The digits with a point behind so many of them, cut to a whole number, and whether there was more.
fn cut(digits: impl Iterator<Item = (i64, u8)>, point: i64) -> (Option<u64>, bool) {
    let mut whole = Some(0_u64);
    let mut fraction = false;
    let mut read = 0;
    for (at, digit) in digits {
        if at < point {
            whole = whole.and_then(|whole| whole.checked_mul(10)?.checked_add(digit.into()));
            read = at.saturating_add(1);
        } else {
            fraction |= digit != 0;
        }
    }
    let zeros = u32::try_from(point.saturating_sub(read)).unwrap_or_default();
    (whole.and_then(|whole| whole.checked_mul(10_u64.checked_pow(zeros)?)), fraction)
}

/// What providers write goes some five deep. Each level takes stack, of which a VM has little.
const MAX_DEPTH: u8 = 16;

/// Every number below 10^308 is one among the floats of 64 bits.
const MAX_MAGNITUDE: i64 = 308;

/// Each name is compared with those before it: 128 make 8,000 comparisons, as much as two signatures of Ed25519 take
/// (tests/tests/promises/costs.txt).
const MAX_MEMBERS: usize = 128;

#[cfg(test)]
mod tests {
    use std::{format, string::ToString, vec::Vec};

    use proptest::prelude::*;

    use super::{super::NotJson, *};

    #[test]
    fn what_two_readers_could_read_differently_is_refused() {
        let wide = |members: usize| {
            let members: Vec<_> = (0..members).map(|at| format!("\"{at}\":0")).collect();
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
        ] {
            assert_eq!(Json::parse(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(Json::parse(b"{\"a\":\"\xff\"}"), None);
    }

    fn same(ours: &Json, theirs: &serde_json::Value) -> bool {
        use serde_json::Value;
        match (ours, theirs) {
            (Json::Null, Value::Null) => true,
            (Json::Bool(a), Value::Bool(b)) => a == b,
            (Json::String(a), Value::String(b)) => a == b,
            (Json::Number(Number::Unsigned(a)), Value::Number(b)) => Some(*a) == b.as_u64(),
            (Json::Number(Number::Negative(a)), Value::Number(b)) => Some(*a) == b.as_i64() && *a < 0,
            (Json::Number(Number::Other { whole, .. }), Value::Number(b)) => {
                // A float is the nearest there is; ours is cut from what was written.
                let float = b.as_f64().unwrap();
                let near = |whole: u64| (whole as f64 - float).abs() <= 1.0 + float * 1e-15;
                let too_large = || float.is_sign_negative() || float > 1.8e19;
                b.is_f64() && whole.map_or_else(too_large, near)
            }
            (Json::Array(a), Value::Array(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
            }
            (Json::Object(a), Value::Object(b)) => {
                a.0.len() == b.len()
                    && a.iter().all(|(name, value)| b.get(name).is_some_and(|other| same(value, other)))
            }
            _ => false,
        }
    }

    const BOUNDS: [&str; 4] =
        ["nested too deep", "too many members", "a number out of range", "a name with U+0000 in it"];

    fn agree(text: &[u8]) -> Result<(), std::string::String> {
        match (Json::read(text), serde_json::from_slice(text).ok()) {
            (Ok(ours), Some(theirs)) if same(&ours, &theirs) => Ok(()),
            (Err(_), None) => Ok(()),
            // What this refuses beyond the library.
            (Err(NotJson { wrong, .. }), Some(_))
                if wrong.contains("stands twice") || BOUNDS.contains(&&*wrong) =>
            {
                Ok(())
            }
            (ours, theirs) => Err(format!("{:?}: {ours:?}, {theirs:?}", text.escape_ascii())),
        }
    }

    #[test]
    fn numbers_are_what_rfc_8259_calls_so() {
        let cut = |whole, fraction| Some(Json::Number(Number::Other { whole, fraction }));
        for (text, number) in [
            ("0", Some(Json::Number(Number::Unsigned(0)))),
            ("18446744073709551615", Some(Json::Number(Number::Unsigned(u64::MAX)))),
            ("-9223372036854775808", Some(Json::Number(Number::Negative(i64::MIN)))),
            ("-9223372036854775809", cut(None, false)),
            ("-0", cut(None, false)),
            ("-0.5", cut(None, true)),
            ("0.0", cut(Some(0), false)),
            ("0e999999999999999999999", cut(Some(0), false)),
            ("0.000e400", cut(Some(0), false)),
            ("1.7e9", cut(Some(1_700_000_000), false)),
            ("1.75E+1", cut(Some(17), true)),
            ("1750e-2", cut(Some(17), true)),
            ("1700e-2", cut(Some(17), false)),
            ("0.00175e4", cut(Some(17), true)),
            ("17.50", cut(Some(17), true)),
            ("0.01e309", cut(None, false)),
            ("1e19", cut(Some(10_000_000_000_000_000_000), false)),
            ("1e20", cut(None, false)),
            ("1e307", cut(None, false)),
            ("1e-400", cut(Some(0), true)),
            ("1e-9999999999999999999999", cut(Some(0), true)),
            ("18446744073709551615.9", cut(Some(u64::MAX), true)),
            ("18446744073709551616", cut(None, false)),
            ("9.9e307", cut(None, false)),
            ("1e308", None),
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
            assert_eq!(Json::parse(text.as_bytes()), number, "{text}");
            agree(text.as_bytes()).unwrap();
        }
        let long = "1".repeat(308);
        assert_eq!(Json::parse(long.as_bytes()), cut(None, false));
        assert_eq!(Json::parse(format!("{long}1").as_bytes()), None);
    }

    #[test]
    fn strings_are_unescaped_once() {
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
            assert_eq!(
                Json::parse(text.as_bytes()),
                string.map(|string| Json::String(string.into())),
                "{text}"
            );
            agree(text.as_bytes()).unwrap();
        }
    }

    #[test]
    fn an_error_names_what_and_where() {
        for (text, error) in [
            ("", "expected a value at line 1 column 1"),
            ("{\n \"a\": 1,\n \"a\": 2}", "`a` stands twice at line 3 column 2"),
            ("[1, 2", "expected `,` or `]` at line 1 column 6"),
            ("{\"a\" 1}", "expected `:` at line 1 column 6"),
            ("[nul]", "expected a value at line 1 column 2"),
            ("[] []", "more behind the end at line 1 column 4"),
        ] {
            assert_eq!(Json::read(text.as_bytes()).unwrap_err().to_string(), error);
        }
        assert_eq!(Json::read(b"[\n\xff]").unwrap_err().to_string(), "not UTF-8 at line 2 column 1");
    }

    const MARKS: &[u8] = b"{}[]\",:\\u0eE-+. nt";

    fn texts() -> impl Strategy<Value = Vec<u8>> {
        let leaf = prop_oneof![
            Just("null".into()),
            Just("true".into()),
            Just("false".into()),
            "-?(0|[1-9][0-9]{0,21})(\\.[0-9]{1,9})?([eE][+-]?[0-9]{1,3})?",
            any::<std::string::String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
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

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]
        #[test]
        fn agrees_with_a_general_library(text in texts()) {
            prop_assert_eq!(agree(&text), Ok(()));
        }
    }
}
