use alloc::{string::String, vec::Vec};

use serde::Deserialize;

use super::path::{MAX_SEGMENTS, Path, Reading, Segment, Unroutable, is_plain};
use crate::permission::is_variable;

/// `/sims/{sim_id}/tags` or `/files/**`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(with = "String"))]
#[serde(try_from = "String")]
pub(crate) struct Template {
    pub(super) parts: Vec<Part>,
    /// Whether it ends with `/**`: anything may follow, nothing as well.
    pub(super) open: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// Empty for a slash at the end.
    Literal(String),
    Variable(String),
}

impl Template {
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let bad = Err::<Self, _>;
        let Some(rest) = text.strip_prefix('/') else { return bad("does not start with `/`") };
        let (rest, open) = match rest.strip_suffix("**") {
            Some("") => return Ok(Self { parts: Vec::new(), open: true }),
            Some(rest) => match rest.strip_suffix('/') {
                Some(rest) => (rest, true),
                None => return bad("may have `**` as its last segment only"),
            },
            None => (rest, false),
        };
        let mut parts = Vec::new();
        let mut left = rest.split('/').peekable();
        while let Some(segment) = left.next() {
            if segment.is_empty() && (open || left.peek().is_some()) {
                return bad("has an empty segment");
            }
            let name = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
            let part = match name {
                Some(name) if is_variable(name) => Part::Variable(name.into()),
                None if is_literal(segment) => Part::Literal(segment.into()),
                _ => return bad("has a segment that is neither a literal nor a `{variable}`"),
            };
            if matches!(part, Part::Variable(_)) && parts.contains(&part) {
                return bad("has a variable twice");
            }
            parts.push(part);
        }
        if parts.len() > MAX_SEGMENTS { bad("has too many segments") } else { Ok(Self { parts, open }) }
    }

    /// An error when it matches and would not in the other spelling of the request.
    pub(super) fn matches(&self, path: &Path<'_>, reading: Reading) -> Result<bool, Unroutable> {
        let segments = path.segments();
        let enough =
            if self.open { segments.len() >= self.parts.len() } else { segments.len() == self.parts.len() };
        let mut pairs = self.parts.iter().zip(segments);
        if !enough || !pairs.clone().all(|(part, segment)| part.matches(segment, reading)) {
            return Ok(false);
        }
        let respelled = pairs.any(|(part, segment)| matches!(part, Part::Literal(_)) && segment.respelled);
        if respelled { Err(Unroutable::NotCanonical) } else { Ok(true) }
    }

    /// What the variables stand for in a path that matches.
    pub(crate) fn variables<'a>(&'a self, path: &'a Path<'_>) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.parts.iter().zip(path.segments()).filter_map(|(part, segment)| match part {
            Part::Variable(name) => Some((name.as_str(), &*segment.text)),
            Part::Literal(_) => None,
        })
    }

    /// Whether a literal is another text when it is folded.
    pub(super) fn folds(&self) -> bool {
        let folds = |text: &String| text.ends_with('.') || text.bytes().any(|byte| byte.is_ascii_uppercase());
        self.parts.iter().any(|part| matches!(part, Part::Literal(text) if folds(text)))
    }

    pub(crate) fn has_variable(&self, name: &str) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Variable(known) if known == name))
    }
}

impl Part {
    fn matches(&self, segment: &Segment<'_>, reading: Reading) -> bool {
        match self {
            Self::Literal(text) => reading.is_same(text, &segment.text),
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

/// What a path can have as a segment without percent-encoding. A `*` would be taken for a wildcard.
fn is_literal(segment: &str) -> bool {
    !matches!(segment, "." | "..") && segment.bytes().all(|byte| byte != b'*' && is_plain(byte))
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
            ("/a:b", "/a%3Ab", Err(Unroutable::NotCanonical)),
            ("/a:b/c", "/a%3Ab/d", Ok(false)),
            ("/a:b/**", "/a%3ab/d", Err(Unroutable::NotCanonical)),
        ] {
            let path = Path::parse(path.as_bytes()).unwrap();
            assert_eq!(
                Template::parse(template).unwrap().matches(&path, Reading::AsSent),
                expected,
                "{template} {path:?}"
            );
        }
    }

    #[test]
    fn templates_are_strict() {
        for bad in [
            "", "sims", "//", "/sims//x", "/a/**/b", "/a**", "/**/", "/a//**", "/*", "/a/*/b", "/a*", "/{}",
            "/{a b}", "/{a}/{a}", "/x{a}", "/{a}x", "/{a", "/a}", "/.", "/a/..", "/a;b", "/a%20b", "/a b",
            "/a?b", "/\u{e9}",
        ] {
            assert!(Template::parse(bad).is_err(), "{bad}");
        }
    }
}
