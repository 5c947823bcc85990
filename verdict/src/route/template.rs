//! Path templates.

use alloc::{string::String, vec::Vec};

use serde::Deserialize;

use super::path::{AmbiguousRequest, MAX_SEGMENTS, Path, PathComparison, Segment, is_pchar};
use crate::permission::is_variable;

/// A path template such as `/sims/{sim_id}/tags` or `/files/**`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(with = "String"))]
#[serde(try_from = "String")]
pub(crate) struct Template {
    pub(super) parts: Vec<Part>,
    /// Whether the template ends with `/**`, so that it matches all paths with this prefix.
    pub(super) matches_prefix: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// A literal segment; empty for a trailing slash.
    Literal(String),
    Variable(String),
}

impl Template {
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let error = Err::<Self, _>;
        let Some(rest) = text.strip_prefix('/') else { return error("does not start with `/`") };
        let (rest, matches_prefix) = match rest.strip_suffix("**") {
            Some("") => return Ok(Self { parts: Vec::new(), matches_prefix: true }),
            Some(rest) => match rest.strip_suffix('/') {
                Some(rest) => (rest, true),
                None => return error("`**` must be the last segment"),
            },
            None => (rest, false),
        };
        let mut parts = Vec::new();
        let mut remaining = rest.split('/').peekable();
        while let Some(segment) = remaining.next() {
            if segment.is_empty() && (matches_prefix || remaining.peek().is_some()) {
                return error("has an empty segment");
            }
            let name = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
            let part = match name {
                Some(name) if is_variable(name) => Part::Variable(name.into()),
                None if is_literal(segment) => Part::Literal(segment.into()),
                _ => return error("has a segment that is neither a literal nor a `{variable}`"),
            };
            if matches!(part, Part::Variable(_)) && parts.contains(&part) {
                return error("has a duplicate variable");
            }
            parts.push(part);
        }
        if parts.len() > MAX_SEGMENTS {
            error("has too many segments")
        } else {
            Ok(Self { parts, matches_prefix })
        }
    }

    /// Returns whether the template matches. Returns an error if it would match only with percent-decoding of a
    /// literal.
    pub(super) fn matches(
        &self,
        path: &Path<'_>,
        comparison: PathComparison,
    ) -> Result<bool, AmbiguousRequest> {
        let segments = path.segments();
        let length_matches = if self.matches_prefix {
            segments.len() >= self.parts.len()
        } else {
            segments.len() == self.parts.len()
        };
        let mut pairs = self.parts.iter().zip(segments);
        if !length_matches || !pairs.clone().all(|(part, segment)| part.matches(segment, comparison)) {
            return Ok(false);
        }
        let is_encoded =
            pairs.any(|(part, segment)| matches!(part, Part::Literal(_)) && segment.has_encoded_pchar);
        if is_encoded { Err(AmbiguousRequest::NotCanonical) } else { Ok(true) }
    }

    /// Returns the name and value of each variable for a matching path.
    pub(crate) fn variables<'a>(&'a self, path: &'a Path<'_>) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.parts.iter().zip(path.segments()).filter_map(|(part, segment)| match part {
            Part::Variable(name) => Some((name.as_str(), &*segment.text)),
            Part::Literal(_) => None,
        })
    }

    /// Returns whether a literal changes when it is folded.
    pub(super) fn changes_when_folded(&self) -> bool {
        let changes_when_folded =
            |text: &String| text.ends_with('.') || text.bytes().any(|byte| byte.is_ascii_uppercase());
        self.parts.iter().any(|part| matches!(part, Part::Literal(text) if changes_when_folded(text)))
    }

    pub(crate) fn has_variable(&self, name: &str) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Variable(known) if known == name))
    }
}

impl Part {
    fn matches(&self, segment: &Segment<'_>, comparison: PathComparison) -> bool {
        match self {
            Self::Literal(text) => comparison.equals(text, &segment.text),
            Self::Variable(_) => !segment.text.is_empty(),
        }
    }
}

impl TryFrom<String> for Template {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

/// Returns whether a segment is a literal: a segment that a path can have without percent-encoding. `*` is refused
/// because it looks like a wildcard.
fn is_literal(segment: &str) -> bool {
    !matches!(segment, "." | "..") && segment.bytes().all(|byte| byte != b'*' && is_pchar(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_match_as_documented() {
        for (template, path, expected) in [
            ("/", "/", Ok(true)),
            ("/", "/a", Ok(false)),
            ("/sims", "/sims", Ok(true)),
            ("/sims", "/sims/", Ok(false)),
            ("/sims", "/Sims", Ok(false)),
            ("/sims/", "/sims/", Ok(true)),
            ("/sims/", "/sims", Ok(false)),
            ("/sims/{id}", "/sims/1", Ok(true)),
            ("/sims/{id}", "/sims/a%20b", Ok(true)),
            ("/sims/{id}", "/sims/a%3Ab", Ok(true)),
            ("/sims/{id}", "/sims", Ok(false)),
            ("/sims/{id}", "/sims/", Ok(false)),
            ("/sims/{id}", "/sims/1/", Ok(false)),
            ("/files/{scope}/{path}/", "/files/a/b/", Ok(true)),
            ("/files/{scope}/{path}/", "/files/a/b", Ok(false)),
            ("/sims/**", "/sims", Ok(true)),
            ("/sims/**", "/sims/", Ok(true)),
            ("/sims/**", "/sims/1/tags/", Ok(true)),
            ("/sims/**", "/simsalabim", Ok(false)),
            ("/**", "/", Ok(true)),
            ("/**", "/a/b", Ok(true)),
            ("/a:b", "/a:b", Ok(true)),
            ("/a:b", "/a%3Ab", Err(AmbiguousRequest::NotCanonical)),
            ("/a:b/c", "/a%3Ab/d", Ok(false)),
            ("/a:b/**", "/a%3ab/d", Err(AmbiguousRequest::NotCanonical)),
        ] {
            let path = Path::parse(path.as_bytes()).unwrap();
            assert_eq!(
                Template::parse(template).unwrap().matches(&path, PathComparison::Exact),
                expected,
                "{template} {path:?}"
            );
        }
    }

    #[test]
    fn templates_are_strict() {
        for error in [
            "", "sims", "//", "/sims//x", "/a/**/b", "/a**", "/**/", "/a//**", "/*", "/a/*/b", "/a*", "/{}",
            "/{a b}", "/{a}/{a}", "/x{a}", "/{a}x", "/{a", "/a}", "/.", "/a/..", "/a;b", "/a%20b", "/a b",
            "/a?b", "/\u{e9}",
        ] {
            assert!(Template::parse(error).is_err(), "{error}");
        }
    }
}
