use alloc::{borrow::Cow, string::String, vec::Vec};
use core::fmt;

use serde::Deserialize;

/// Why a request is not matched with any rule: two readers could read it in two ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unroutable {
    /// No method, or none that is a token.
    Method,
    /// No host where a rule asks for it, several, or one that is none.
    Host,
    /// No path, several, one that does not start with `/`, or one with characters that none may have.
    Path,
    /// The path is longer than any rule can match.
    TooLong,
    /// `//`.
    EmptySegment,
    /// A segment `.` or `..`, in any spelling.
    DotSegment,
    /// `%2f`, `%5c`, `\`, `%3f` or `%23`.
    Separator,
    /// `;` or `%3b`.
    Parameters,
    /// Percent-encoding where the character itself would do and means the same.
    NotCanonical,
    /// `%25` before two hexadecimal digits.
    DoubleEncoding,
    /// A slash at the end is all that keeps it from another rule.
    TrailingSlash,
    /// Capitals, or dots and spaces at the ends of its segments, are all that keeps it from another rule.
    ReadAlike,
}

/// Whether the upstream may take paths for the same that differ in capitals, or in dots and spaces at the ends of segments.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum PathCase {
    /// It may: where such a path falls under another rule, the request is refused.
    #[default]
    Fold,
    /// It tells them apart.
    Exact,
}

/// How a segment is compared with a literal of a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    AsSent,
    Folded,
}

impl Reading {
    pub(super) fn is_same(self, literal: &str, segment: &str) -> bool {
        match self {
            Self::AsSent => literal == segment,
            // A literal has neither spaces nor letters beyond ASCII.
            Self::Folded => literal.trim_end_matches('.').eq_ignore_ascii_case(segment),
        }
    }
}

impl Unroutable {
    /// Every one of them.
    pub const ALL: [Self; 12] = [
        Self::Method,
        Self::Host,
        Self::Path,
        Self::TooLong,
        Self::EmptySegment,
        Self::DotSegment,
        Self::Separator,
        Self::Parameters,
        Self::NotCanonical,
        Self::DoubleEncoding,
        Self::TrailingSlash,
        Self::ReadAlike,
    ];

    /// Returns the stable code for answers, logs and metrics.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Method => "method_malformed",
            Self::Host => "host_malformed",
            Self::Path => "path_malformed",
            Self::TooLong => "path_too_long",
            Self::EmptySegment => "path_empty_segment",
            Self::DotSegment => "path_dot_segment",
            Self::Separator => "path_encoded_separator",
            Self::Parameters => "path_parameters",
            Self::NotCanonical => "path_not_canonical",
            Self::DoubleEncoding => "path_double_encoding",
            Self::TrailingSlash => "path_trailing_slash",
            Self::ReadAlike => "path_read_alike",
        }
    }
}

impl fmt::Display for Unroutable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Method => "the method is malformed",
            Self::Host => "the host is malformed",
            Self::Path => "the path is malformed",
            Self::TooLong => "the path is too long",
            Self::EmptySegment => "the path has an empty segment",
            Self::DotSegment => "the path has a segment of dots",
            Self::Separator => "the path has a separator in disguise",
            Self::Parameters => "the path has parameters",
            Self::NotCanonical => "the path is not in its canonical spelling",
            Self::DoubleEncoding => "the path is encoded twice",
            Self::TrailingSlash => "the path is ambiguous by the slash at its end",
            Self::ReadAlike => {
                "the path is ambiguous by its capitals, or by a dot or space at the end of a segment"
            }
        })
    }
}

/// A path that has one reading. A slash at its end is a last segment that is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Path<'r>(Vec<Segment<'r>>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment<'r> {
    pub(super) text: Cow<'r, str>,
    /// Whether a character that may stand in a literal was sent in percent-encoding.
    pub(super) respelled: bool,
}

impl<'r> Path<'r> {
    /// `target` is the request target in origin form (RFC 9112 section 3.2.1), its query included.
    pub(crate) fn parse(target: &'r [u8]) -> Result<Self, Unroutable> {
        let end = target.iter().position(|byte| *byte == b'?').unwrap_or(target.len());
        let path = target.get(..end).unwrap_or_default();
        if path.len() > MAX_PATH_BYTES {
            return Err(Unroutable::TooLong);
        }
        let path = core::str::from_utf8(path).map_err(|_| Unroutable::Path)?;
        let mut left = path.strip_prefix('/').ok_or(Unroutable::Path)?.split('/').peekable();
        let mut segments = Vec::with_capacity(USUAL_SEGMENTS);
        while let Some(segment) = left.next() {
            if segment.is_empty() && left.peek().is_some() {
                return Err(Unroutable::EmptySegment);
            }
            if segments.len() == MAX_SEGMENTS {
                return Err(Unroutable::TooLong);
            }
            segments.push(Segment::parse(segment)?);
        }
        Ok(Self(segments))
    }

    pub(super) fn segments(&self) -> &[Segment<'r>] {
        &self.0
    }

    /// The same with the slash at its end taken away or added.
    pub(super) fn toggled(&self) -> Self {
        let mut segments = self.0.clone();
        if segments.last().is_some_and(|last| last.text.is_empty()) {
            // "/" is one empty segment: there is no other spelling of it.
            if segments.len() > 1 {
                segments.pop();
            }
        } else {
            segments.push(Segment { text: Cow::Borrowed(""), respelled: false });
        }
        Self(segments)
    }

    /// Whether [`folded`](Self::folded) is another path.
    pub(super) fn folds(&self) -> bool {
        self.0.iter().any(Segment::folds)
    }

    /// As it is to a reader that does not tell capitals from small letters, and for which a name does not begin with a
    /// space nor end with a space or dot, as for file systems of Windows. Nothing is left of some segments: an empty one is
    /// one slash more to it.
    pub(super) fn folded(&self) -> Self {
        let mut segments: Vec<Segment<'r>> = self.0.iter().map(Segment::folded).collect();
        let last = segments.pop();
        segments.retain(|segment| !segment.text.is_empty());
        segments.extend(last);
        Self(segments)
    }
}

impl<'r> Segment<'r> {
    fn folds(&self) -> bool {
        self.text.chars().any(|character| folded(character) != character)
            || without_ends(&self.text).len() < self.text.len()
    }

    fn folded(&self) -> Self {
        let text = without_ends(&self.text).chars().map(folded).collect();
        Self { text: Cow::Owned(text), respelled: self.respelled }
    }

    fn parse(raw: &'r str) -> Result<Self, Unroutable> {
        if matches!(raw, "." | "..") {
            return Err(Unroutable::DotSegment);
        }
        if let Some(odd) = raw.bytes().find(|byte| !is_plain(*byte) && *byte != b'%') {
            return Err(match odd {
                b';' => Unroutable::Parameters,
                b'\\' => Unroutable::Separator,
                _ => Unroutable::Path,
            });
        }
        if !raw.contains('%') {
            return Ok(Self { text: Cow::Borrowed(raw), respelled: false });
        }
        let mut bytes = Vec::with_capacity(raw.len());
        let mut respelled = false;
        let mut rest = raw.as_bytes();
        while let Some((byte, after)) = rest.split_first() {
            rest = after;
            if *byte != b'%' {
                bytes.push(*byte);
                continue;
            }
            let (decoded, after) = hexadecimal(rest).ok_or(Unroutable::Path)?;
            rest = after;
            match decoded {
                b'/' | b'\\' | b'?' | b'#' => return Err(Unroutable::Separator),
                b';' => return Err(Unroutable::Parameters),
                b'%' if hexadecimal(rest).is_some() => return Err(Unroutable::DoubleEncoding),
                byte if is_unreserved(byte) => return Err(Unroutable::NotCanonical),
                byte if byte.is_ascii_control() => return Err(Unroutable::Path),
                byte => {
                    respelled |= is_plain(byte);
                    bytes.push(byte);
                }
            }
        }
        let text = String::from_utf8(bytes).map_err(|_| Unroutable::Path)?;
        Ok(Self { text: Cow::Owned(text), respelled })
    }
}

/// Literals are ASCII: of all other letters only these four become one that can stand there, whether a reader folds to
/// small letters or to capitals.
const fn folded(character: char) -> char {
    match character {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        '\u{130}' | '\u{131}' => 'i',
        other => other.to_ascii_lowercase(),
    }
}

fn without_ends(text: &str) -> &str {
    text.trim_start().trim_end_matches(|end: char| end == '.' || end.is_whitespace())
}

/// The byte that two digits spell, and what follows.
fn hexadecimal(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let ([high, low], rest) = bytes.split_first_chunk()?;
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some((digit(*high)? << 4 | digit(*low)?, rest))
}

/// RFC 3986 section 2.3.
const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// RFC 3986 section 3.3, `pchar`, without `;`.
pub(super) const fn is_plain(byte: u8) -> bool {
    is_unreserved(byte)
        || matches!(byte, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b'=' | b':' | b'@')
}

/// What common servers take at most for the whole request line.
const MAX_PATH_BYTES: usize = 8192;

/// No template has as many.
pub(super) const MAX_SEGMENTS: usize = 64;

/// Enough for every operation of Soracom, behind a prefix: one allocation.
const USUAL_SEGMENTS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(path: &str) -> Result<Vec<String>, Unroutable> {
        Ok(Path::parse(path.as_bytes())?.0.into_iter().map(|segment| segment.text.into_owned()).collect())
    }

    #[test]
    fn one_reading_or_none() {
        for (path, expected) in [
            ("/", &[""][..]),
            ("/?x=/../%2f", &[""]),
            ("/sims", &["sims"]),
            ("/sims/", &["sims", ""]),
            ("/sims/a%20b?", &["sims", "a b"]),
            ("/sims/srn%3Asoracom:::Role:x", &["sims", "srn:soracom:::Role:x"]),
            ("/sims/%E3%81%82", &["sims", "\u{3042}"]),
            ("/a..b/...", &["a..b", "..."]),
            ("/100%25", &["100%"]),
            ("/%25zz", &["%zz"]),
        ] {
            assert_eq!(parse(path).unwrap(), expected, "{path}");
        }
        for (path, expected) in [
            ("", Unroutable::Path),
            ("*", Unroutable::Path),
            ("sims", Unroutable::Path),
            ("http://host/sims", Unroutable::Path),
            ("?/sims", Unroutable::Path),
            ("/a b", Unroutable::Path),
            ("/a\u{7f}", Unroutable::Path),
            ("/\u{e9}", Unroutable::Path),
            ("/a#b", Unroutable::Path),
            ("/a|b", Unroutable::Path),
            ("/%", Unroutable::Path),
            ("/%2", Unroutable::Path),
            ("/%zz", Unroutable::Path),
            ("/%+1", Unroutable::Path),
            ("/%00", Unroutable::Path),
            ("/%0d%0a", Unroutable::Path),
            ("/%ff", Unroutable::Path),
            ("/%c0%af", Unroutable::Path),
            ("//", Unroutable::EmptySegment),
            ("//sims", Unroutable::EmptySegment),
            ("/sims//1", Unroutable::EmptySegment),
            ("/sims/1//", Unroutable::EmptySegment),
            ("/.", Unroutable::DotSegment),
            ("/sims/..", Unroutable::DotSegment),
            ("/../sims", Unroutable::DotSegment),
            ("/sims/%2e%2E", Unroutable::NotCanonical),
            ("/sims/.%2e", Unroutable::NotCanonical),
            ("/%73ims", Unroutable::NotCanonical),
            ("/a%7Eb", Unroutable::NotCanonical),
            ("/sims%2f1", Unroutable::Separator),
            ("/sims%2F1", Unroutable::Separator),
            ("/sims%5c1", Unroutable::Separator),
            ("/sims\\1", Unroutable::Separator),
            ("/sims%3fx", Unroutable::Separator),
            ("/sims%23x", Unroutable::Separator),
            ("/sims;x=1", Unroutable::Parameters),
            ("/sims/1;", Unroutable::Parameters),
            ("/..;/sims", Unroutable::Parameters),
            ("/sims%3bx", Unroutable::Parameters),
            ("/%252e", Unroutable::DoubleEncoding),
            ("/%25%32%66", Unroutable::NotCanonical),
        ] {
            assert_eq!(parse(path), Err(expected), "{path}");
        }
        assert_eq!(parse(&format!("/{}", "a".repeat(8191))).unwrap().len(), 1);
        assert_eq!(parse(&format!("/{}", "a".repeat(8192))), Err(Unroutable::TooLong));
        assert_eq!(parse(&"/a".repeat(64)).unwrap().len(), 64);
        assert_eq!(parse(&"/a".repeat(65)), Err(Unroutable::TooLong));
        assert_eq!(Path::parse(b"/\xff"), Err(Unroutable::Path));
    }

    use std::{format, string::ToString};

    #[test]
    fn codes_are_one_to_one() {
        let codes: std::collections::BTreeSet<_> = Unroutable::ALL.iter().map(|why| why.code()).collect();
        let texts: std::collections::BTreeSet<_> =
            Unroutable::ALL.iter().map(|why| why.to_string()).collect();
        assert_eq!((codes.len(), texts.len()), (12, 12));
    }
}
