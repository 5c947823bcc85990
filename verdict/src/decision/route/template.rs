//! Path templates.

use alloc::{string::String, vec::Vec};

use serde::Deserialize;

use super::path::{AmbiguousRequest, Lookup, MAX_SEGMENTS, Path, Segment, is_pchar};
use crate::{config::looks_like_pattern, permission::is_variable};

/// A path template such as `/sims/{sim_id}/tags`, `/users/{id}:suspend`, `/files/**` or `/**/*.js`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(with = "String"))]
#[serde(try_from = "String")]
pub(crate) struct Template {
    /// The segments, or those before `**`.
    pub(super) parts: Vec<Part>,
    /// Whether the template has `**`, which matches any number of segments.
    pub(super) has_wildcard: bool,
    /// The segments after `**`.
    tail: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// A literal segment; empty for a trailing slash.
    Literal(String),
    Variable(String),
    /// A last segment with this end, which is a custom verb (`:suspend`) or an extension (`.js`), and at least one
    /// character before it: the value of the variable, or anything if its name is empty.
    Suffix {
        variable: String,
        suffix: String,
    },
}

impl Template {
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let error = Err::<Self, _>;
        let Some(rest) = text.strip_prefix('/') else { return error("must start with `/`") };
        let (mut parts, mut tail, mut has_wildcard) = (Vec::new(), Vec::new(), false);
        let mut remaining = rest.split('/').peekable();
        while let Some(segment) = remaining.next() {
            let is_last = remaining.peek().is_none();
            if segment == "**" {
                if has_wildcard {
                    return error("has `**` twice");
                }
                has_wildcard = true;
                continue;
            }
            let is_after_wildcard = has_wildcard && tail.is_empty();
            if segment.is_empty() && (!is_last || is_after_wildcard) {
                return error("has an empty segment");
            }
            let part = Part::parse(segment, is_last)?;
            let name = part.variable();
            if name.is_some()
                && [&parts, &tail].into_iter().flatten().any(|known: &Part| known.variable() == name)
            {
                return error("has a duplicate variable");
            }
            if has_wildcard { tail.push(part) } else { parts.push(part) }
        }
        if parts.len().saturating_add(tail.len()) > MAX_SEGMENTS {
            error("has too many segments")
        } else {
            Ok(Self { parts, has_wildcard, tail })
        }
    }

    /// Returns whether the template ends with `/**`, so that it matches all paths with this prefix.
    pub(super) const fn matches_prefix(&self) -> bool {
        self.has_wildcard && self.tail.is_empty()
    }

    fn last(&self) -> Option<&Part> {
        if self.has_wildcard { self.tail.last() } else { self.parts.last() }
    }

    /// Returns the custom verb with its colon (https://google.aip.dev/136): the end of the last segment of
    /// `/users/{id}:suspend` and of `/users:search`.
    pub(super) fn verb(&self) -> Option<&str> {
        let text = match self.last()? {
            Part::Literal(text) | Part::Suffix { suffix: text, .. } => text,
            Part::Variable(_) => return None,
        };
        let (_, name) = text.rsplit_once(':')?;
        let start = text.len().checked_sub(name.len())?.checked_sub(1)?;
        text.get(start..).filter(|_| is_verb(name))
    }

    /// Returns whether the last segment is an extension after `*`.
    pub(super) fn has_extension(&self) -> bool {
        matches!(self.last(), Some(Part::Suffix { suffix, .. }) if suffix.starts_with('.'))
    }

    /// Returns the segments for `parts` and those for `tail`, if their number is right. `**` matches those between.
    fn split<'a, 'r>(&self, segments: &'a [Segment<'r>]) -> Option<[&'a [Segment<'r>]; 2]> {
        let between = segments.len().checked_sub(self.parts.len())?.checked_sub(self.tail.len())?;
        if between > 0 && !self.has_wildcard {
            return None;
        }
        Some([segments, segments.get(self.parts.len().checked_add(between)?..)?])
    }

    /// Returns whether the template matches. Returns an error if it would match only with percent-decoding of a
    /// literal.
    pub(super) fn matches(&self, lookup: &Lookup<'_, '_>) -> Result<bool, AmbiguousRequest> {
        let Some([head, end]) = self.split(lookup.path.segments()) else { return Ok(false) };
        let mut is_encoded = false;
        for (parts, segments) in [(&self.parts, head), (&self.tail, end)] {
            for (part, segment) in parts.iter().zip(segments) {
                if !part.matches(segment, lookup) {
                    return Ok(false);
                }
                is_encoded |= segment.has_encoded_pchar && matches!(part, Part::Literal(_));
            }
        }
        if is_encoded { Err(AmbiguousRequest::NotCanonical) } else { Ok(true) }
    }

    /// Returns the name and value of each variable for a matching path.
    pub(crate) fn variables<'a>(&'a self, path: &'a Path<'_>) -> Vec<(&'a str, &'a str)> {
        let mut variables = Vec::new();
        let Some([head, end]) = self.split(path.segments()) else { return variables };
        for (parts, segments) in [(&self.parts, head), (&self.tail, end)] {
            for (part, segment) in parts.iter().zip(segments) {
                let text = &*segment.text;
                let value = match part {
                    Part::Suffix { suffix, .. } => text.get(..text.len().saturating_sub(suffix.len())),
                    _ => Some(text),
                };
                variables.extend(part.variable().zip(value));
            }
        }
        variables
    }

    /// Returns whether a literal changes when it is folded.
    pub(super) fn changes_when_folded(&self) -> bool {
        [&self.parts, &self.tail].into_iter().flatten().any(|part| match part {
            Part::Literal(text) | Part::Suffix { suffix: text, .. } => {
                text.ends_with('.') || text.bytes().any(|byte| byte.is_ascii_uppercase())
            }
            Part::Variable(_) => false,
        })
    }

    pub(crate) fn has_variable(&self, name: &str) -> bool {
        [&self.parts, &self.tail].into_iter().flatten().any(|part| part.variable() == Some(name))
    }
}

impl Part {
    fn parse(segment: &str, is_last: bool) -> Result<Self, &'static str> {
        let (variable, suffix) = match segment.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
            Some((name, suffix)) if is_variable(name) => (Some(name), suffix),
            _ => (None, segment.strip_prefix('*').unwrap_or_default()),
        };
        match (variable, suffix) {
            (Some(name), "") => Ok(Self::Variable(name.into())),
            (_, "") if is_literal(segment) => Ok(Self::Literal(segment.into())),
            (_, "") if segment.starts_with(':') => {
                Err("has a segment that begins with `:`. Write `{name}` for a variable")
            }
            (_, "") => Err(
                "has a segment that is neither a literal nor a `{variable}`. Write `{name}` for one segment, `/**` for \
                 any number of segments, `/**/*.js` for an extension, or `{name}:verb` for a custom verb",
            ),
            _ if !is_last => Err("has a verb or an extension before the last segment"),
            (variable, suffix) => {
                let is_verb = suffix.strip_prefix(':').is_some_and(is_verb);
                if !is_verb && (variable.is_some() || !is_extension(suffix)) {
                    return Err(
                        "has a segment with an end that is no custom verb (`{name}:verb`), and no extension after \
                                `*` (`/**/*.js`)",
                    );
                }
                Ok(Self::Suffix { variable: variable.unwrap_or_default().into(), suffix: suffix.into() })
            }
        }
    }

    fn variable(&self) -> Option<&str> {
        match self {
            Self::Variable(name) | Self::Suffix { variable: name, .. } => {
                Some(name).filter(|name| !name.is_empty())
            }
            Self::Literal(_) => None,
        }
        .map(String::as_str)
    }

    fn matches(&self, segment: &Segment<'_>, lookup: &Lookup<'_, '_>) -> bool {
        match self {
            Self::Literal(text) => lookup.comparison.equals(text, &segment.text),
            Self::Variable(_) => lookup.is_variable(segment),
            Self::Suffix { suffix, .. } => lookup.ends_with(segment, suffix),
        }
    }
}

impl TryFrom<String> for Template {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

/// Returns whether a segment is a literal: a segment that a path can have without percent-encoding. What looks like a
/// pattern is refused: it would match itself only.
fn is_literal(segment: &str) -> bool {
    !matches!(segment, "." | "..")
        && !segment.starts_with(':')
        && !looks_like_pattern(segment)
        && segment.bytes().all(is_pchar)
}

/// Returns whether a text is the name of a custom verb, such as `batchGet`.
fn is_verb(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// Returns whether a text is an extension with its dot, such as `.js` or `.min.js`.
fn is_extension(suffix: &str) -> bool {
    suffix.strip_prefix('.').is_some_and(|names| {
        names.split('.').all(|name| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric()))
    })
}

#[cfg(test)]
mod tests {
    use super::{super::path::PathComparison, *};

    #[test]
    fn a_variable_before_a_verb_has_the_value_without_it() {
        let template = Template::parse("/v1/{kind}/{id}:suspend").unwrap();
        let path = Path::parse(b"/v1/users/jo%40example.com:suspend").unwrap();
        let variables = template.variables(&path);
        assert_eq!(variables, [("kind", "users"), ("id", "jo@example.com")]);
        let template = Template::parse("/**/{kind}/{id}").unwrap();
        let path = Path::parse(b"/a/b/users/7").unwrap();
        assert_eq!(template.variables(&path), [("kind", "users"), ("id", "7")]);
    }

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
            ("/sims/{id}:verb", "/sims/1:verb", Ok(true)),
            ("/sims/{id}:verb", "/sims/a:b:verb", Ok(true)),
            ("/sims/{id}:verb", "/sims/:verb", Ok(false)),
            ("/sims/{id}:verb", "/sims/1:verbs", Ok(false)),
            ("/sims/{id}:verb", "/sims/1:Verb", Ok(false)),
            ("/sims/{id}:verb", "/sims/1:verb/", Ok(false)),
            ("/sims/{id}", "/sims/1:verb", Ok(false)),
            ("/sims/{id}", "/sims/:verb", Ok(false)),
            ("/sims/{id}/", "/sims/1:verb/", Ok(false)),
            ("/sims/{id}/tags", "/sims/1:verb/tags", Ok(true)),
            ("/sims/{id}", "/sims/1:other", Ok(true)),
            ("/sims/**", "/sims/1:verb", Ok(true)),
            ("/**/*.js", "/a.js", Ok(true)),
            ("/**/*.js", "/x/y/a.min.js", Ok(true)),
            ("/**/*.js", "/x/.js", Ok(false)),
            ("/**/*.js", "/a.js/", Ok(false)),
            ("/**/*.js", "/a.jsx", Ok(false)),
            ("/**/*.js", "/", Ok(false)),
            ("/s/**/*.js", "/s/a.js", Ok(true)),
            ("/s/**/*.js", "/s.js", Ok(false)),
            ("/s/*.js", "/s/a.js", Ok(true)),
            ("/s/*.js", "/s/x/a.js", Ok(false)),
            ("/**/health", "/health", Ok(true)),
            ("/**/health", "/a/b/health", Ok(true)),
            ("/**/health", "/health/a", Ok(false)),
            ("/a/**/a", "/a", Ok(false)),
            ("/a/**/a", "/a/a", Ok(true)),
            ("/**/{id}/end", "/x/1/end", Ok(true)),
            ("/**/{id}/end", "/end", Ok(false)),
        ] {
            let path = Path::parse(path.as_bytes()).unwrap();
            let lookup = Lookup::new(&path, PathComparison::Exact, &[String::from(":verb")]);
            assert_eq!(Template::parse(template).unwrap().matches(&lookup), expected, "{template} {path:?}");
        }
    }

    #[test]
    fn templates_are_strict() {
        for error in [
            "",
            "sims",
            "//",
            "/sims//x",
            "/a/**/**",
            "/a**",
            "/**/",
            "/a//**",
            "/*",
            "/a/*/b",
            "/a*",
            "/{}",
            "/{a b}",
            "/{a}/{a}",
            "/{a}/**/{a}",
            "/x{a}",
            "/{a}x",
            "/{a",
            "/a}",
            "/.",
            "/a/..",
            "/a;b",
            "/a%20b",
            "/a b",
            "/a?b",
            "/\u{e9}",
            "/:id",
            "/a/:id/b",
            "/a/<id>",
            "/{id:int}",
            "/{id...}",
            "/{*rest}",
            "/a/.+",
            "/a$",
            "/{a}:x/b",
            "/*.js/b",
            "/{a}.js",
            "/*.",
            "/*..js",
            "/*js",
            "/*:",
            "/{a}:",
            "/{a}:1",
            "/{a}:x:y",
            "/x*.js",
        ] {
            assert!(Template::parse(error).is_err(), "{error}");
        }
    }
}
