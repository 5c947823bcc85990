//! Paths of requests.

use alloc::{borrow::Cow, string::String, vec::Vec};
use core::fmt;

use serde::Deserialize;

/// Maximum length of a path in bytes. Common servers limit the whole request line to this length.
const MAX_PATH_BYTES: usize = 8192;

/// Maximum number of segments. Templates cannot have more.
pub(super) const MAX_SEGMENTS: usize = 64;

/// Typical number of segments: enough for every operation of Soracom behind a prefix, with one allocation.
const TYPICAL_SEGMENTS: usize = 8;

/// Why a request is ambiguous: two parsers could interpret it differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AmbiguousRequest {
    /// The method is missing or not a token.
    Method,
    /// The host is missing although a rule needs it, repeated, or malformed.
    Host,
    /// The path is missing, repeated, does not start with `/`, or has characters that are not permitted.
    Path,
    /// The path is longer than any rule can match.
    TooLong,
    /// The path has an empty segment (`//`).
    EmptySegment,
    /// The path has a segment `.` or `..`.
    DotSegment,
    /// The path has `%2f`, `%5c`, `\`, `%3f` or `%23`, and would match another rule with the plain character.
    Separator,
    /// The path has `;` or `%3b`, and would match another rule without the parameters.
    Parameters,
    /// The path has percent-encoding where the plain character means the same.
    NotCanonical,
    /// The path has `%25` before two hexadecimal digits.
    DoubleEncoding,
    /// The path matches another rule with the trailing slash added or removed.
    TrailingSlash,
    /// The path matches another rule with case folded, with dots and spaces removed from the ends of segments, or
    /// without its extension.
    EquivalentPath,
}

/// Whether paths that differ only in case, or in dots and spaces at the ends of segments, may be equal for the
/// upstream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum PathCase {
    /// They may be equal: a request is refused if such a path matches another rule.
    #[default]
    Fold,
    /// They are different paths.
    Exact,
}

/// How a segment is compared with a literal of a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PathComparison {
    Exact,
    Folded,
}

impl PathComparison {
    pub(super) fn equals(self, literal: &str, segment: &str) -> bool {
        match self {
            Self::Exact => literal == segment,
            // Literals have neither spaces nor letters beyond ASCII. The segment may have kept its dots.
            Self::Folded => {
                literal.eq_ignore_ascii_case(segment)
                    || literal.trim_end_matches('.').eq_ignore_ascii_case(segment)
            }
        }
    }

    /// Returns whether a segment ends with a suffix of a template, after at least one character, which may be a space that
    /// was removed when the segment was folded.
    fn ends_with(self, segment: &str, suffix: &str) -> bool {
        let Some(at) = segment.len().checked_sub(suffix.len()) else { return false };
        segment.get(at..).is_some_and(|end| match self {
            Self::Exact => at > 0 && end == suffix,
            Self::Folded => end.eq_ignore_ascii_case(suffix),
        })
    }
}

/// A path to compare with templates.
pub(super) struct Lookup<'l, 'r> {
    pub(super) path: &'l Path<'r>,
    pub(super) comparison: PathComparison,
    /// The last segment, if it ends with a custom verb of a rule. It is no value of a variable.
    verb: Option<&'l Segment<'r>>,
}

impl<'l, 'r> Lookup<'l, 'r> {
    /// `verbs` are the custom verbs of all rules.
    pub(super) fn new(path: &'l Path<'r>, comparison: PathComparison, verbs: &[String]) -> Self {
        let verb = if verbs.is_empty() || path.ignores_verbs { None } else { path.verb(comparison, verbs) };
        Self { path, comparison, verb }
    }

    /// Returns whether a segment ends with a custom verb or an extension of a template.
    pub(super) fn ends_with(&self, segment: &Segment<'_>, suffix: &str) -> bool {
        let is_ignored = self.path.ignores_verbs && suffix.starts_with(':');
        !is_ignored && self.comparison.ends_with(&segment.text, suffix)
    }

    /// Returns whether a segment can be the value of a variable.
    pub(super) fn is_variable(&self, segment: &Segment<'_>) -> bool {
        !segment.text.is_empty() && !self.verb.is_some_and(|verb| core::ptr::eq(verb, segment))
    }
}

impl AmbiguousRequest {
    /// All variants.
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
        Self::EquivalentPath,
    ];

    /// Returns the stable code for responses, logs and metrics.
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
            Self::EquivalentPath => "path_read_alike",
        }
    }
}

impl fmt::Display for AmbiguousRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Method => "the method is missing or malformed: it must be in upper case",
            Self::Host => "the host is missing or malformed",
            Self::Path => "the path is malformed",
            Self::TooLong => "the path is too long",
            Self::EmptySegment => "the path has an empty segment",
            Self::DotSegment => "the path has a `.` or `..` segment",
            Self::Separator => "the path has an encoded separator or a backslash, and could be read as another path",
            Self::Parameters => "the path has parameters (`;`), and could be read as another path",
            Self::NotCanonical => "the path has percent-encoding that is not needed: send the plain characters",
            Self::DoubleEncoding => "the path is percent-encoded twice",
            Self::TrailingSlash => "the path could be read as another one, with or without a slash at its end",
            Self::EquivalentPath => {
                "the path is ambiguous because of its case or extension, or of a dot or space at the end of a segment"
            }
        })
    }
}

/// A path as it was sent. A trailing slash is an empty last segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Path<'r> {
    segments: Vec<Segment<'r>>,
    /// The characters that some parsers read as the end of a segment or of a path.
    pub(super) delimiters: u8,
    /// Whether no custom verb is looked for.
    ignores_verbs: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment<'r> {
    pub(super) text: Cow<'r, str>,
    /// Whether a character that is permitted in literals was percent-encoded.
    pub(super) has_encoded_pchar: bool,
    has_encoded_colon: bool,
}

/// Characters in segments that some parsers read as the end of a segment or of a path, as bits.
pub(super) struct Delimiter;

/// How a parser reads a [`Delimiter`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// A slash separates segments.
    Slash,
    /// A backslash separates segments.
    Backslash,
    /// Segments end before a semicolon.
    WithoutParameters,
    /// The path ends before a semicolon.
    UntilSemicolon,
    /// The path ends before a question mark or a number sign.
    UntilEnd,
    /// A percent-encoded colon begins no custom verb.
    WithoutVerb,
}

impl Delimiter {
    /// `%2f`
    pub(super) const SLASH: u8 = 1;
    /// `%5c`
    const BACKSLASH: u8 = 2;
    /// `%3b`
    const SEMICOLON: u8 = 4;
    /// `%3f` or `%23`
    const END: u8 = 8;
    /// `%3a` in a segment that ends with a custom verb of a rule.
    const COLON: u8 = 16;
    /// `\`, which proxies replace without decoding `%5c`, so that the two are different kinds.
    const PLAIN_BACKSLASH: u8 = 32;
    /// `;`, which many parsers look for before they decode `%3b`.
    const PLAIN_SEMICOLON: u8 = 64;

    /// Returns the possible readings of a single kind of delimiter, and the error if they are not equivalent. Returns an
    /// error if there are several kinds.
    pub(super) fn readings(kinds: u8) -> Result<(&'static [Reading], AmbiguousRequest), AmbiguousRequest> {
        use AmbiguousRequest::{NotCanonical, Parameters, Separator};
        match kinds {
            0 => Ok((&[], Separator)),
            Self::SLASH => Ok((&[Reading::Slash], Separator)),
            Self::BACKSLASH | Self::PLAIN_BACKSLASH => Ok((&[Reading::Backslash], Separator)),
            Self::SEMICOLON | Self::PLAIN_SEMICOLON => {
                Ok((&[Reading::WithoutParameters, Reading::UntilSemicolon], Parameters))
            }
            Self::END => Ok((&[Reading::UntilEnd], Separator)),
            Self::COLON => Ok((&[Reading::WithoutVerb], NotCanonical)),
            _ if kinds & (Self::SEMICOLON | Self::PLAIN_SEMICOLON) != 0 => Err(Parameters),
            _ => Err(Separator),
        }
    }
}

impl<'r> Path<'r> {
    /// Parses a request target in origin form (RFC 9112 section 3.2.1). The query is ignored.
    pub(crate) fn parse(target: &'r [u8]) -> Result<Self, AmbiguousRequest> {
        let end = target.iter().position(|byte| *byte == b'?').unwrap_or(target.len());
        let path = target.get(..end).unwrap_or_default();
        if path.len() > MAX_PATH_BYTES {
            return Err(AmbiguousRequest::TooLong);
        }
        let path = core::str::from_utf8(path).map_err(|_| AmbiguousRequest::Path)?;
        let mut remaining = path.strip_prefix('/').ok_or(AmbiguousRequest::Path)?.split('/').peekable();
        let mut segments = Vec::with_capacity(TYPICAL_SEGMENTS);
        let mut delimiters = 0;
        while let Some(segment) = remaining.next() {
            if segment.is_empty() && remaining.peek().is_some() {
                return Err(AmbiguousRequest::EmptySegment);
            }
            if segments.len() == MAX_SEGMENTS {
                return Err(AmbiguousRequest::TooLong);
            }
            segments.push(Segment::parse(segment, &mut delimiters)?);
        }
        Ok(Self { segments, delimiters, ignores_verbs: false })
    }

    pub(super) fn segments(&self) -> &[Segment<'r>] {
        &self.segments
    }

    fn with_segments(&self, segments: Vec<Segment<'r>>) -> Self {
        Self { segments, ..*self }
    }

    /// Returns the last segment that is not empty, if it ends with one of these custom verbs.
    fn verb(&self, comparison: PathComparison, verbs: &[String]) -> Option<&Segment<'r>> {
        let last = self.segments.iter().rfind(|segment| !segment.text.is_empty())?;
        let is_verb = |verb: &String| &*last.text == verb || comparison.ends_with(&last.text, verb);
        verbs.iter().any(is_verb).then_some(last)
    }

    /// Notes whether the colon of a custom verb may be percent-encoded.
    pub(super) fn note_encoded_verb(&mut self, verbs: &[String]) {
        if self.verb(PathComparison::Folded, verbs).is_some_and(|segment| segment.has_encoded_colon) {
            self.delimiters |= Delimiter::COLON;
        }
    }

    /// Returns the path with its trailing slash removed or added.
    pub(super) fn with_trailing_slash_toggled(&self) -> Self {
        let mut segments = self.segments.clone();
        if segments.last().is_some_and(|last| last.text.is_empty()) {
            // "/" is one empty segment and stays unchanged.
            if segments.len() > 1 {
                segments.pop();
            }
        } else {
            segments.push(Segment::plain(""));
        }
        self.with_segments(segments)
    }

    /// Returns whether [`folded`](Self::folded) removes something. If not, it is [`in_lower_case`](Self::in_lower_case).
    pub(super) fn shrinks_when_folded(&self) -> bool {
        let shrinks = |text: &str| text.is_empty() || trim_segment(text).len() < text.len();
        self.segments.iter().any(|segment| shrinks(&segment.text))
    }

    /// Returns the path with its letters folded, and nothing removed.
    pub(super) fn in_lower_case(&self) -> Self {
        let fold = |segment: &Segment<'r>| Segment {
            text: Cow::Owned(segment.text.chars().map(fold_character).collect()),
            ..*segment
        };
        self.with_segments(self.segments.iter().map(fold).collect())
    }

    /// Returns whether a segment has only spaces before a dot, so that parsers differ about whether it has a name before its
    /// extension.
    pub(super) fn has_blank_name(&self) -> bool {
        let has_blank_name =
            |text: &str| text.trim_start().len() < text.len() && text.trim_start().starts_with('.');
        self.segments.iter().any(|segment| has_blank_name(&segment.text))
    }

    /// Returns whether [`folded`](Self::folded) differs from this path.
    pub(super) fn changes_when_folded(&self) -> bool {
        self.segments.iter().any(Segment::changes_when_folded)
    }

    /// Returns the path as seen by an upstream that ignores case, leading spaces and trailing spaces and dots of names,
    /// like the file systems of Windows. Segments that become empty are removed, like repeated slashes.
    pub(super) fn folded(&self) -> Self {
        self.with_segments(without_empty(self.segments.iter().map(Segment::folded).collect()))
    }

    /// Returns the path without its extension: the last dot and what follows it.
    pub(super) fn without_extension(&self) -> Self {
        let mut segments = self.segments.clone();
        if let Some(last) = segments.last_mut()
            && let Some((name, _)) = last.text.rsplit_once('.')
        {
            last.text = Cow::Owned(name.into());
        }
        self.with_segments(segments)
    }

    /// Returns the path as seen by a parser that reads delimiters in this way, or `None` if it would see a segment `.` or
    /// `..`, an empty one before the last, which only some parsers ignore, or too many segments.
    pub(super) fn read(&self, reading: Reading) -> Option<Self> {
        let mut segments = Vec::with_capacity(self.segments.len());
        let mut is_at_end = false;
        for segment in &self.segments {
            let mut text = String::with_capacity(segment.text.len());
            for letter in segment.text.chars() {
                match (reading, letter) {
                    (Reading::Slash, '/') | (Reading::Backslash, '\\') => {
                        segments.push(Segment { text: Cow::Owned(text), ..*segment });
                        text = String::new();
                        continue;
                    }
                    (Reading::WithoutParameters, ';') => break,
                    (Reading::UntilSemicolon, ';') | (Reading::UntilEnd, '?' | '#') => {
                        is_at_end = true;
                        break;
                    }
                    _ => text.push(letter),
                }
            }
            segments.push(Segment { text: Cow::Owned(text), ..*segment });
            if is_at_end {
                break;
            }
        }
        let is_refused = |one: &Segment<'_>| matches!(&*one.text, "" | "." | "..");
        let before_last = segments.len().saturating_sub(1);
        let last_is_refused = segments.last().is_some_and(|last| !last.text.is_empty() && is_refused(last));
        if segments.len() > MAX_SEGMENTS
            || last_is_refused
            || segments.iter().take(before_last).any(is_refused)
        {
            return None;
        }
        let ignores_verbs = reading == Reading::WithoutVerb;
        Some(Self { segments, delimiters: self.delimiters, ignores_verbs })
    }
}

/// Removes empty segments except the last one.
fn without_empty(mut segments: Vec<Segment<'_>>) -> Vec<Segment<'_>> {
    let last = segments.pop();
    segments.retain(|segment| !segment.text.is_empty());
    segments.extend(last);
    segments
}

impl<'r> Segment<'r> {
    const fn plain(text: &'r str) -> Self {
        Self { text: Cow::Borrowed(text), has_encoded_pchar: false, has_encoded_colon: false }
    }

    fn changes_when_folded(&self) -> bool {
        self.text.chars().any(|character| fold_character(character) != character)
            || trim_segment(&self.text).len() < self.text.len()
    }

    fn folded(&self) -> Self {
        let text = trim_segment(&self.text).chars().map(fold_character).collect();
        Self { text: Cow::Owned(text), ..*self }
    }

    fn parse(raw: &'r str, delimiters: &mut u8) -> Result<Self, AmbiguousRequest> {
        if matches!(raw, "." | "..") {
            return Err(AmbiguousRequest::DotSegment);
        }
        if raw.bytes().all(is_pchar) {
            return Ok(Self::plain(raw));
        }
        let mut bytes = Vec::with_capacity(raw.len());
        let (mut has_encoded_pchar, mut has_encoded_colon) = (false, false);
        let mut rest = raw.as_bytes();
        while let Some((byte, after)) = rest.split_first() {
            rest = after;
            let mut decoded = *byte;
            if decoded == b'%' {
                (decoded, rest) = percent_hex(rest).ok_or(AmbiguousRequest::Path)?;
                if is_unreserved(decoded) {
                    return Err(AmbiguousRequest::NotCanonical);
                }
                if decoded == b'%' && percent_hex(rest).is_some() {
                    return Err(AmbiguousRequest::DoubleEncoding);
                }
                has_encoded_pchar |= is_pchar(decoded);
                has_encoded_colon |= decoded == b':';
            } else if matches!(decoded, b' ' | b'#') {
                return Err(AmbiguousRequest::Path);
            }
            match decoded {
                b'/' => *delimiters |= Delimiter::SLASH,
                b'\\' if *byte == decoded => *delimiters |= Delimiter::PLAIN_BACKSLASH,
                b'\\' => *delimiters |= Delimiter::BACKSLASH,
                b'?' | b'#' => *delimiters |= Delimiter::END,
                b';' if *byte == decoded => *delimiters |= Delimiter::PLAIN_SEMICOLON,
                b';' => *delimiters |= Delimiter::SEMICOLON,
                byte if byte.is_ascii_control() => return Err(AmbiguousRequest::Path),
                _ => {}
            }
            bytes.push(decoded);
        }
        let text = String::from_utf8(bytes).map_err(|_| AmbiguousRequest::Path)?;
        Ok(Self { text: Cow::Owned(text), has_encoded_pchar, has_encoded_colon })
    }
}

/// Folds a character for the comparison with literals, which are ASCII. Of all other letters, only these four map to
/// ASCII letters when converted to lower or upper case.
const fn fold_character(character: char) -> char {
    match character {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        '\u{130}' | '\u{131}' => 'i',
        other => other.to_ascii_lowercase(),
    }
}

fn trim_segment(text: &str) -> &str {
    text.trim_start().trim_end_matches(|end: char| end == '.' || end.is_whitespace())
}

/// Decodes two hexadecimal digits. Returns the byte and the remaining bytes.
fn percent_hex(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let ([high, low], rest) = bytes.split_first_chunk()?;
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some((digit(*high)? << 4 | digit(*low)?, rest))
}

/// Returns whether a byte is unreserved (RFC 3986 section 2.3).
const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Returns whether a byte is a `pchar` (RFC 3986 section 3.3) other than `;`.
pub(super) const fn is_pchar(byte: u8) -> bool {
    is_unreserved(byte)
        || matches!(byte, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b'=' | b':' | b'@')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(path: &str) -> Result<Vec<String>, AmbiguousRequest> {
        Ok(Path::parse(path.as_bytes())?
            .segments
            .into_iter()
            .map(|segment| segment.text.into_owned())
            .collect())
    }

    #[test]
    fn ambiguous_paths_are_refused() {
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
            ("/files/[1]", &["files", "[1]"]),
            ("/a|b/%7C", &["a|b", "|"]),
            ("/{x}/\"<>^`", &["{x}", "\"<>^`"]),
            ("/\u{e9}", &["\u{e9}"]),
            ("/group%2Fproject", &["group/project"]),
            ("/a\\b%5c", &["a\\b\\"]),
            ("/a;b%3b", &["a;b;"]),
            ("/a%3f%23", &["a?#"]),
        ] {
            assert_eq!(parse(path).unwrap(), expected, "{path}");
        }
        for (path, expected) in [
            ("", AmbiguousRequest::Path),
            ("*", AmbiguousRequest::Path),
            ("sims", AmbiguousRequest::Path),
            ("http://host/sims", AmbiguousRequest::Path),
            ("?/sims", AmbiguousRequest::Path),
            ("/a b", AmbiguousRequest::Path),
            ("/a\u{7f}", AmbiguousRequest::Path),
            ("/a#b", AmbiguousRequest::Path),
            ("/%", AmbiguousRequest::Path),
            ("/%2", AmbiguousRequest::Path),
            ("/%zz", AmbiguousRequest::Path),
            ("/%+1", AmbiguousRequest::Path),
            ("/%00", AmbiguousRequest::Path),
            ("/%0d%0a", AmbiguousRequest::Path),
            ("/%ff", AmbiguousRequest::Path),
            ("/%c0%af", AmbiguousRequest::Path),
            ("//", AmbiguousRequest::EmptySegment),
            ("//sims", AmbiguousRequest::EmptySegment),
            ("/sims//1", AmbiguousRequest::EmptySegment),
            ("/sims/1//", AmbiguousRequest::EmptySegment),
            ("/.", AmbiguousRequest::DotSegment),
            ("/sims/..", AmbiguousRequest::DotSegment),
            ("/../sims", AmbiguousRequest::DotSegment),
            ("/sims/%2e%2E", AmbiguousRequest::NotCanonical),
            ("/sims/.%2e", AmbiguousRequest::NotCanonical),
            ("/%73ims", AmbiguousRequest::NotCanonical),
            ("/a%7Eb", AmbiguousRequest::NotCanonical),
            ("/%252e", AmbiguousRequest::DoubleEncoding),
            ("/%25%32%66", AmbiguousRequest::NotCanonical),
        ] {
            assert_eq!(parse(path), Err(expected), "{path}");
        }
        assert_eq!(parse(&format!("/{}", "a".repeat(8191))).unwrap().len(), 1);
        assert_eq!(parse(&format!("/{}", "a".repeat(8192))), Err(AmbiguousRequest::TooLong));
        assert_eq!(parse(&"/a".repeat(64)).unwrap().len(), 64);
        assert_eq!(parse(&"/a".repeat(65)), Err(AmbiguousRequest::TooLong));
        assert_eq!(Path::parse(b"/\xff"), Err(AmbiguousRequest::Path));
    }

    /// The segments that a parser sees which reads the delimiters of the path in another way.
    #[test]
    fn delimiters_have_other_readings() {
        for (path, expected) in [
            ("/a%2fb/c", Ok(&[Some("/a/b/c")][..])),
            ("/a%2f/c", Ok(&[None])),
            ("/a%2f", Ok(&[Some("/a/")])),
            ("/%2fa", Ok(&[None])),
            ("/a%2f..%2fb", Ok(&[None])),
            ("/a%5cb", Ok(&[Some("/a/b")])),
            ("/a\\.", Ok(&[None])),
            ("/a;x/b", Ok(&[Some("/a/b"), Some("/a")])),
            ("/a/;x", Ok(&[Some("/a/"), Some("/a/")])),
            ("/..;/b", Ok(&[None, None])),
            ("/a%3fx/b", Ok(&[Some("/a")])),
            ("/a%23", Ok(&[Some("/a")])),
            ("/plain", Ok(&[])),
            ("/a%2f;", Err(AmbiguousRequest::Parameters)),
            ("/a%2f%5c", Err(AmbiguousRequest::Separator)),
            ("/a%2f%3f", Err(AmbiguousRequest::Separator)),
        ] {
            let path = Path::parse(path.as_bytes()).unwrap();
            let seen = Delimiter::readings(path.delimiters).map(|(readings, _)| {
                let text = |path: Path<'_>| {
                    path.segments.iter().fold(String::new(), |all, segment| all + "/" + &segment.text)
                };
                readings.iter().map(|reading| path.read(*reading).map(text)).collect::<Vec<_>>()
            });
            let expected = expected.map(|all| all.iter().map(|one| one.map(String::from)).collect());
            assert_eq!(seen, expected, "{path:?}");
        }
    }

    #[test]
    fn a_trailing_slash_is_toggled_except_for_the_root() {
        for (path, toggled) in [("/", "/"), ("/a", "/a/"), ("/a/", "/a"), ("/a/b", "/a/b/")] {
            let [path, toggled] = [path, toggled].map(|path| Path::parse(path.as_bytes()).unwrap());
            assert_eq!(path.with_trailing_slash_toggled(), toggled);
        }
    }

    #[test]
    fn only_paths_that_differ_from_their_folded_form_change_when_folded() {
        for (path, folded) in [
            ("/", "/"),
            ("/admin/x-1", "/admin/x-1"),
            ("/a.b/", "/a.b/"),
            ("/Admin", "/admin"),
            ("/admin.", "/admin"),
            ("/%20admin%20", "/admin"),
            ("/a/%20/b", "/a/b"),
            ("/%C5%BFims", "/sims"),
        ] {
            let sent = Path::parse(path.as_bytes()).unwrap();
            let text = |path: &Path<'_>| {
                path.segments.iter().map(|segment| segment.text.to_string()).collect::<Vec<_>>()
            };
            assert_eq!(text(&sent.folded()), text(&Path::parse(folded.as_bytes()).unwrap()), "{path}");
            assert_eq!(sent.changes_when_folded(), path != folded, "{path}");
        }
    }

    use std::{format, string::ToString};

    #[test]
    fn codes_and_texts_are_unique() {
        let codes: std::collections::BTreeSet<_> =
            AmbiguousRequest::ALL.iter().map(|why| why.code()).collect();
        let texts: std::collections::BTreeSet<_> =
            AmbiguousRequest::ALL.iter().map(|why| why.to_string()).collect();
        assert_eq!((codes.len(), texts.len()), (12, 12));
    }
}
