//! Sets of paths: the templates of the policy, and the matchers of Envoy and Istio in relation to them.
//!
//! A *cell* is a template without the paths of the smaller templates in a set that is closed under intersection. All
//! paths of a cell are in the same templates of the set, so a matcher that is made of such templates either matches all
//! of them or none.

use std::{cmp::Reverse, collections::BTreeSet, fmt};

/// The maximum number of segments, as in the policy.
const MAX_SEGMENTS: usize = 64;

/// The maximum number of texts that a regular expression is expanded to.
const MAX_EXPANSIONS: usize = 64;

/// Whether a condition is true for all requests of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Truth {
    No,
    /// It is true for some of them, or that is unknown.
    Maybe,
    Yes,
}

impl From<bool> for Truth {
    fn from(is: bool) -> Self {
        if is { Self::Yes } else { Self::No }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// A literal segment; empty for a trailing slash.
    Literal(String),
    /// A segment that is not empty.
    Variable,
}

/// A path template of the policy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Template {
    parts: Vec<Part>,
    /// Whether it ends with `/**`.
    rest: bool,
}

impl Template {
    pub(super) const fn everything() -> Self {
        Self { parts: Vec::new(), rest: true }
    }

    /// Returns the template of one path, or `None` if templates cannot express it.
    pub(super) fn exact(path: &str) -> Option<Self> {
        let segments: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
        let last = segments.len().checked_sub(1)?;
        let is_valid =
            |(at, segment): (usize, &&str)| (segment.is_empty() && at == last) || is_literal(segment);
        if segments.len() > MAX_SEGMENTS || !segments.iter().enumerate().all(is_valid) {
            return None;
        }
        let parts = segments.into_iter().map(|segment| Part::Literal(segment.to_owned())).collect();
        Some(Self { parts, rest: false }).filter(|template| !template.has_verb())
    }

    /// Returns whether it ends with a custom verb, such as `/users:search`. A variable of any other rule would not match a
    /// segment with this end, so that the cells would be wrong.
    fn has_verb(&self) -> bool {
        let Some(Part::Literal(text)) = self.parts.last().filter(|_| !self.rest) else { return false };
        text.rsplit_once(':')
            .is_some_and(|(_, verb)| verb.starts_with(|first: char| first.is_ascii_alphabetic()))
    }

    /// Returns the template of a path without a trailing slash and everything below it.
    pub(super) fn below(path: &str) -> Option<Self> {
        match path {
            "" => Some(Self::everything()),
            path if path.ends_with('/') => None,
            path => Self::exact(&format!("{path}/")).map(|mut below| {
                below.parts.pop();
                Self { rest: true, ..below }
            }),
        }
    }

    pub(super) fn is_subset_of(&self, other: &Self) -> bool {
        let length = if other.rest {
            self.parts.len() >= other.parts.len()
        } else {
            !self.rest && self.parts.len() == other.parts.len()
        };
        length
            && other.parts.iter().zip(&self.parts).all(|(other, part)| match (other, part) {
                (Part::Variable, Part::Literal(text)) => !text.is_empty(),
                (Part::Literal(other), Part::Literal(text)) => other == text,
                (other, Part::Variable) => *other == Part::Variable,
            })
    }

    fn intersection(&self, other: &Self) -> Option<Self> {
        let (longer, shorter) =
            if self.parts.len() >= other.parts.len() { (self, other) } else { (other, self) };
        if longer.parts.len() > shorter.parts.len() && !shorter.rest {
            return None;
        }
        let mut parts = longer.parts.clone();
        for (part, other) in parts.iter_mut().zip(&shorter.parts) {
            match (&*part, other) {
                (Part::Literal(text), Part::Variable) if !text.is_empty() => {}
                (Part::Variable, Part::Literal(text)) if !text.is_empty() => *part = other.clone(),
                (part, other) if *part == *other => {}
                _ => return None,
            }
        }
        // Of two templates of one length, one without `/**` leaves nothing below.
        let rest = longer.rest && shorter.rest;
        Some(Self { parts, rest })
    }

    pub(super) fn overlaps(&self, other: &Self) -> bool {
        self.intersection(other).is_some()
    }

    /// Returns the template of the same paths with the slash at their end removed or added, unless it is `/` or ends
    /// with `/**`.
    pub(super) fn with_slash_toggled(&self) -> Option<Self> {
        let (last, before) = self.parts.split_last()?;
        let slash = Part::Literal(String::new());
        let parts = match (self.rest, *last == slash) {
            (true, _) => return None,
            (false, true) if before.is_empty() => return None,
            (false, true) => before.to_vec(),
            (false, false) => [&self.parts[..], &[slash]].concat(),
        };
        Some(Self { parts, rest: false }).filter(|template| !template.has_verb())
    }

    /// Returns a key that orders each template before those that contain it.
    pub(super) fn specificity(&self) -> impl Ord + use<> {
        let variables = self.parts.iter().filter(|part| **part == Part::Variable).count();
        (Reverse(self.parts.len()), self.rest, variables, self.clone())
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, part) in self.parts.iter().enumerate() {
            match part {
                Part::Literal(text) => write!(f, "/{text}")?,
                Part::Variable => write!(f, "/{{v{at}}}")?,
            }
        }
        f.write_str(if self.rest { "/**" } else { "" })
    }
}

/// Returns the templates and all their intersections, in the order of [`Template::specificity`], or `None` if there are
/// more than `limit`.
pub(super) fn closure(templates: impl IntoIterator<Item = Template>, limit: usize) -> Option<Vec<Template>> {
    let mut all: BTreeSet<Template> = BTreeSet::new();
    let mut pending: BTreeSet<Template> = templates.into_iter().collect();
    pending.insert(Template::everything());
    while let Some(next) = pending.pop_first() {
        let intersections: Vec<Template> = all.iter().filter_map(|known| known.intersection(&next)).collect();
        all.insert(next);
        pending.extend(intersections.into_iter().filter(|new| !all.contains(new)));
        if all.len() > limit {
            return None;
        }
    }
    let mut all: Vec<Template> = all.into_iter().collect();
    all.sort_by_key(Template::specificity);
    Some(all)
}

/// A matcher of paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PathMatch {
    Template(Template),
    /// Everything below a path with its slash, without some paths.
    Directory {
        below: Template,
        without: Vec<Template>,
    },
    /// All paths that begin with a text whose last segment may continue: `/api` matches `/apis` too.
    Prefix {
        below: Template,
        directory: Template,
        start: String,
    },
    Suffix(String),
    /// Some paths of a template.
    Within(Template),
}

impl PathMatch {
    pub(super) fn exact(path: &str) -> Self {
        Template::exact(path).map_or_else(|| Self::within(path), Self::Template)
    }

    pub(super) fn path_separated_prefix(prefix: &str) -> Self {
        Template::below(prefix).map_or_else(|| Self::within(prefix), Self::Template)
    }

    /// A prefix of the text of a path. With `whole_segments`, its last segment must not continue.
    pub(super) fn prefix(prefix: &str, whole_segments: bool) -> Self {
        if prefix.is_empty() || prefix == "/" {
            return Self::Template(Template::everything());
        }
        if let Some(path) = prefix.strip_suffix('/') {
            return match (Template::below(path), Template::exact(path)) {
                (Some(below), Some(path)) => Self::Directory { below, without: vec![path] },
                _ => Self::within(prefix),
            };
        }
        let (directory, start) = prefix.rsplit_once('/').unwrap_or_default();
        match (Template::below(prefix), Template::below(directory)) {
            (Some(below), Some(_)) if whole_segments => Self::Template(below),
            (Some(below), Some(directory)) => Self::Prefix { below, directory, start: start.to_owned() },
            _ => Self::within(prefix),
        }
    }

    /// Some paths that begin with a text.
    fn within(prefix: &str) -> Self {
        let mut directory = prefix;
        while let Some((shorter, _)) = directory.rsplit_once('/') {
            directory = shorter;
            if let Some(below) = Template::below(directory) {
                return Self::Within(below);
            }
        }
        Self::Within(Template::everything())
    }

    /// The paths that a regular expression matches entirely.
    pub(super) fn regex(regex: &str, whole_segments: bool) -> Vec<Self> {
        let text = regex.strip_prefix('^').unwrap_or(regex);
        let text = text.strip_suffix('$').unwrap_or(text);
        match expand(text) {
            Some(texts) => texts.iter().map(|text| Self::expanded(text, whole_segments)).collect(),
            None => {
                let end = text.find(|letter: char| !is_plain(letter)).unwrap_or(text.len());
                // The character before `?` or `*` is not part of the prefix, and none is if there are alternatives.
                let prefix =
                    text.get(..end.saturating_sub(1)).filter(|_| !text.contains('|')).unwrap_or_default();
                vec![Self::within(prefix)]
            }
        }
    }

    /// Converts a text with placeholders.
    fn expanded(text: &str, whole_segments: bool) -> Self {
        if let Some(prefix) = text.strip_suffix(ANYTHING).filter(|prefix| !has_placeholder(prefix)) {
            return Self::prefix(prefix, whole_segments);
        }
        if let Some(prefix) = text.strip_suffix(SOMETHING).filter(|prefix| !has_placeholder(prefix)) {
            if prefix == "/" {
                return Self::Directory {
                    below: Template::everything(),
                    without: Template::exact("/").into_iter().collect(),
                };
            }
            return match Self::prefix(prefix, whole_segments) {
                Self::Directory { below, mut without } => {
                    without.extend(Template::exact(prefix));
                    Self::Directory { below, without }
                }
                _ => Self::within(prefix),
            };
        }
        let Some(rest) = text.strip_prefix('/') else { return Self::Within(Template::everything()) };
        let segments: Vec<&str> = rest.split('/').collect();
        let mut parts = Vec::new();
        let mut is_exact = true;
        for (at, segment) in segments.iter().enumerate() {
            let is_last = at.checked_add(1) == Some(segments.len());
            parts.push(match *segment {
                SEGMENT => Part::Variable,
                PART_OF_SEGMENT => {
                    is_exact = false;
                    Part::Variable
                }
                text if is_literal(text) && !text.is_empty() => Part::Literal(text.to_owned()),
                "" if is_last => Part::Literal(String::new()),
                _ => return Self::Within(Template { parts, rest: true }),
            });
        }
        let template = Template { parts, rest: false };
        if is_exact && !template.has_verb() { Self::Template(template) } else { Self::inside(template) }
    }

    /// A URI template: `{name}` and `*` are one segment, `**` at the end is everything below.
    pub(super) fn uri_template(text: &str) -> Self {
        let Some(rest) = text.strip_prefix('/') else { return Self::Within(Template::everything()) };
        let segments: Vec<&str> = rest.split('/').collect();
        let mut parts = Vec::new();
        for (at, segment) in segments.iter().enumerate() {
            let is_last = at.checked_add(1) == Some(segments.len());
            let name = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
            let (name, pattern) = match name {
                Some(name) => name.split_once('=').map_or((name, "*"), |(name, pattern)| (name, pattern)),
                None => ("", *segment),
            };
            match (name, pattern) {
                ("**", _) | (_, "**") if is_last => {
                    let path = Template { parts: parts.clone(), rest: false };
                    let without = if parts.is_empty() { Vec::new() } else { vec![path] };
                    return Self::Directory { below: Template { parts, rest: true }, without };
                }
                ("**", _) | (_, "**") => return Self::Within(Template { parts, rest: true }),
                (_, "*") => parts.push(Part::Variable),
                ("", literal) if is_literal(literal) && (is_last || !literal.is_empty()) => {
                    parts.push(Part::Literal(literal.to_owned()));
                }
                _ => return Self::Within(Template { parts, rest: true }),
            }
        }
        let template = Template { parts, rest: false };
        if template.has_verb() { Self::inside(template) } else { Self::Template(template) }
    }

    /// Some paths of a template, or of what is above it if it cannot be a rule.
    fn inside(template: Template) -> Self {
        let has_verb = template.has_verb();
        let Template { mut parts, rest } = template;
        if has_verb {
            parts.pop();
        }
        Self::Within(Template { parts, rest: rest || has_verb })
    }

    /// Returns the templates that the cells must distinguish.
    pub(super) fn templates(&self) -> Vec<Template> {
        match self {
            Self::Template(template) | Self::Within(template) => vec![template.clone()],
            Self::Directory { below, without } => [&[below.clone()][..], without].concat(),
            Self::Prefix { below, directory, .. } => vec![below.clone(), directory.clone()],
            Self::Suffix(_) => Vec::new(),
        }
    }

    /// Returns whether the matcher matches the paths of a cell.
    pub(super) fn matches(&self, cell: &Template) -> Truth {
        match self {
            Self::Template(template) => cell.is_subset_of(template).into(),
            Self::Within(template) => {
                if cell.is_subset_of(template) {
                    Truth::Maybe
                } else {
                    Truth::No
                }
            }
            Self::Directory { below, without } => {
                (cell.is_subset_of(below) && !without.contains(cell)).into()
            }
            Self::Prefix { below, .. } if cell.is_subset_of(below) => Truth::Yes,
            Self::Prefix { directory, .. } if !cell.is_subset_of(directory) => Truth::No,
            Self::Prefix { directory, start, .. } => match cell.parts.get(directory.parts.len()) {
                Some(Part::Literal(text)) => text.starts_with(start.as_str()).into(),
                Some(Part::Variable) => Truth::Maybe,
                None if cell.rest => Truth::Maybe,
                None => Truth::No,
            },
            Self::Suffix(suffix) => {
                let is_literal = !cell.rest && cell.parts.iter().all(|part| *part != Part::Variable);
                if is_literal { cell.to_string().ends_with(suffix.as_str()).into() } else { Truth::Maybe }
            }
        }
    }
}

/// Placeholders in expanded regular expressions: one segment, one segment of a certain form, any text, any text that is
/// not empty.
const SEGMENT: &str = "\u{1}";
const PART_OF_SEGMENT: &str = "\u{2}";
const ANYTHING: &str = "\u{3}";
const SOMETHING: &str = "\u{4}";

fn has_placeholder(text: &str) -> bool {
    text.contains(|letter: char| ('\u{1}'..='\u{4}').contains(&letter))
}

const fn is_plain(letter: char) -> bool {
    letter.is_ascii_alphanumeric()
        || matches!(letter, '/' | '-' | '_' | '~' | ':' | '@' | '%' | '=' | '&' | '!' | ',')
}

/// Returns whether a segment can be a literal of a template.
fn is_literal(segment: &str) -> bool {
    let is_permitted = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()+,=:@".contains(&byte);
    // The policy refuses literals that look like a pattern.
    let is_pattern = segment.starts_with(':') || segment.ends_with('$') || segment.contains(".+");
    !matches!(segment, "." | "..") && !is_pattern && segment.bytes().all(is_permitted)
}

/// Expands a regular expression of literals, groups, alternatives, optional items and the usual forms of a segment into
/// texts with placeholders. Returns `None` for any other one.
fn expand(regex: &str) -> Option<Vec<String>> {
    let mut parser = Expander { rest: regex };
    let texts = parser.alternatives(0)?;
    parser.rest.is_empty().then_some(texts)
}

struct Expander<'r> {
    rest: &'r str,
}

impl Expander<'_> {
    fn alternatives(&mut self, depth: usize) -> Option<Vec<String>> {
        let mut all = self.sequence(depth)?;
        while let Some(rest) = self.rest.strip_prefix('|') {
            self.rest = rest;
            all.extend(self.sequence(depth)?);
        }
        (all.len() <= MAX_EXPANSIONS).then_some(all)
    }

    fn sequence(&mut self, depth: usize) -> Option<Vec<String>> {
        let mut texts = vec![String::new()];
        while !self.rest.is_empty() && !self.rest.starts_with(['|', ')']) {
            let is_group = self.rest.starts_with('(');
            let mut item = self.item(depth)?;
            let is_repetition =
                !is_group && item.iter().any(|text| text.contains(|letter: char| letter.is_control()));
            if let Some(rest) = self.rest.strip_prefix('?') {
                // After a repetition, `?` makes it lazy, which has no meaning in a match of the whole path.
                if is_repetition {
                    return None;
                }
                self.rest = rest;
                item.push(String::new());
            }
            if self.rest.starts_with(['*', '+', '?', '{']) {
                return None;
            }
            texts = texts.iter().flat_map(|text| item.iter().map(move |item| text.clone() + item)).collect();
            if texts.len() > MAX_EXPANSIONS {
                return None;
            }
        }
        Some(texts)
    }

    fn item(&mut self, depth: usize) -> Option<Vec<String>> {
        const FORMS: [(&str, &str); 10] = [
            ("[^/]+", SEGMENT),
            (".*", ANYTHING),
            (".+", SOMETHING),
            (r"\d+", PART_OF_SEGMENT),
            (r"\w+", PART_OF_SEGMENT),
            ("[0-9]+", PART_OF_SEGMENT),
            ("[a-z]+", PART_OF_SEGMENT),
            ("[a-z0-9]+", PART_OF_SEGMENT),
            ("[a-zA-Z0-9]+", PART_OF_SEGMENT),
            (r"[\w-]+", PART_OF_SEGMENT),
        ];
        for (form, placeholder) in FORMS {
            if let Some(rest) = self.rest.strip_prefix(form) {
                self.rest = rest;
                return Some(vec![placeholder.to_owned()]);
            }
        }
        if let Some(rest) = self.rest.strip_prefix("(?:").or_else(|| self.rest.strip_prefix('(')) {
            if rest.starts_with('?') || depth > 8 {
                return None;
            }
            self.rest = rest;
            let texts = self.alternatives(depth.checked_add(1)?)?;
            self.rest = self.rest.strip_prefix(')')?;
            return Some(texts);
        }
        let mut letters = self.rest.chars();
        let letter = match letters.next()? {
            '\\' => letters.next().filter(char::is_ascii_punctuation)?,
            letter if is_plain(letter) => letter,
            _ => return None,
        };
        self.rest = letters.as_str();
        Some(vec![letter.to_string()])
    }
}

/// A matcher of hosts. Ports are not compared.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum HostMatch {
    Exact(String),
    /// All names below a domain.
    Below(String),
    /// Names that end with a text, such as `example.com` and `other-example.com`.
    EndsWith(String),
    /// Some hosts.
    Other,
}

/// The hosts of a cell: `None` is any host without a cell of its own.
pub(super) type HostCell = Option<HostMatch>;

impl HostMatch {
    /// Parses a pattern of Envoy's domains and Istio's hosts: a name, `*` before or after a text.
    pub(super) fn pattern(pattern: &str) -> Self {
        let pattern = pattern.to_ascii_lowercase();
        if let Some(suffix) = pattern.strip_prefix('*') {
            return match suffix.strip_prefix('.') {
                Some(domain) if is_host(domain) => Self::Below(domain.to_owned()),
                None if is_host(suffix) => Self::EndsWith(suffix.to_owned()),
                _ => Self::Other,
            };
        }
        // The policy does not distinguish ports, so that a pattern with a port is one for some hosts.
        if is_host(&pattern) { Self::Exact(pattern) } else { Self::Other }
    }

    /// Returns the cells that distinguish the matcher.
    pub(super) fn cells(&self) -> Vec<Self> {
        match self {
            Self::Exact(_) | Self::Below(_) => vec![self.clone()],
            Self::EndsWith(name) => vec![Self::Exact(name.clone()), Self::Below(name.clone())],
            Self::Other => Vec::new(),
        }
    }

    pub(super) fn matches(&self, cell: &HostCell) -> Truth {
        let Some(cell) = cell else {
            return match self {
                Self::Exact(_) | Self::Below(_) => Truth::No,
                Self::EndsWith(_) | Self::Other => Truth::Maybe,
            };
        };
        match self {
            Self::Other => Truth::Maybe,
            Self::Exact(_) => (self == cell).into(),
            Self::Below(_) => cell.is_subset_of(self).into(),
            Self::EndsWith(name) => {
                let (Self::Exact(host) | Self::Below(host)) = cell else { return Truth::Maybe };
                if host.ends_with(name.as_str()) { Truth::Yes } else { Truth::No }
            }
        }
    }

    /// Returns whether all hosts of a cell are in another cell.
    pub(super) fn is_subset_of(&self, other: &Self) -> bool {
        let Self::Below(domain) = other else { return self == other };
        match self {
            Self::Exact(host) | Self::Below(host) => {
                self == other
                    || host.strip_suffix(domain.as_str()).is_some_and(|before| before.ends_with('.'))
            }
            Self::EndsWith(_) | Self::Other => false,
        }
    }

    /// Returns the host as the policy writes it.
    pub(super) fn to_policy(&self) -> Option<String> {
        match self {
            Self::Exact(host) => Some(host.clone()),
            Self::Below(domain) => Some(format!("*.{domain}")),
            Self::EndsWith(_) | Self::Other => None,
        }
    }

    /// Returns a key that orders each cell before those that contain it.
    pub(super) fn specificity(&self) -> impl Ord + use<> {
        let (Self::Exact(name) | Self::Below(name) | Self::EndsWith(name)) = self else {
            return (2, Reverse(0), String::new());
        };
        (u8::from(!matches!(self, Self::Exact(_))), Reverse(name.len()), name.clone())
    }
}

fn is_host(name: &str) -> bool {
    let is_permitted = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let is_label = |label: &str| !label.is_empty() && label.bytes().all(is_permitted);
    name.len() <= 253 && name.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(text: &str) -> Template {
        let (text, rest) = text.strip_suffix("/**").map_or((text, false), |text| (text, true));
        let parts = text.split('/').skip(1).map(|segment| match segment.strip_prefix('{') {
            Some(_) => Part::Variable,
            None => Part::Literal(segment.to_owned()),
        });
        Template { parts: parts.collect(), rest }
    }

    /// Returns whether a template has a path, segment by segment.
    fn has(template: &Template, path: &str) -> bool {
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        let length = if template.rest {
            segments.len() >= template.parts.len()
        } else {
            segments.len() == template.parts.len()
        };
        length
            && template.parts.iter().zip(&segments).all(|(part, segment)| match part {
                Part::Literal(text) => text == segment,
                Part::Variable => !segment.is_empty(),
            })
    }

    const TEMPLATES: [&str; 12] = [
        "/**",
        "/a",
        "/a/",
        "/a/**",
        "/a/b",
        "/a/b/**",
        "/{v}",
        "/{v}/b",
        "/{v}/**",
        "/a/{v}",
        "/{v}/{w}/c/**",
        "/",
    ];
    const PATHS: [&str; 16] = [
        "/", "/a", "/a/", "/a/b", "/a/b/", "/a/b/c", "/x", "/x/", "/x/b", "/x/b/c", "/a/x", "/a/x/c",
        "/x/y/c/d", "/ab", "/ab/b", "/abc",
    ];

    #[test]
    fn set_operations_agree_with_paths() {
        for a in TEMPLATES.map(template) {
            for b in TEMPLATES.map(template) {
                let both = a.intersection(&b);
                for path in PATHS {
                    let expected = has(&a, path) && has(&b, path);
                    assert_eq!(both.as_ref().is_some_and(|both| has(both, path)), expected, "{a} {b} {path}");
                    if a.is_subset_of(&b) {
                        assert!(!has(&a, path) || has(&b, path), "{a} {b} {path}");
                    }
                }
                assert_eq!(both.as_ref() == Some(&a), a.is_subset_of(&b), "{a} {b}");
                if a.is_subset_of(&b) && a != b {
                    assert!(a.specificity() < b.specificity(), "{a} {b}");
                }
            }
        }
    }

    /// The cell of a path decides like the path itself, or with `Maybe`.
    #[test]
    fn matchers_agree_with_paths() {
        type Matches = fn(&str) -> bool;
        let matchers: [(PathMatch, Matches); 12] = [
            (PathMatch::exact("/a/b"), |path| path == "/a/b"),
            (PathMatch::prefix("/a", false), |path| path.starts_with("/a")),
            (PathMatch::prefix("/a/", false), |path| path.starts_with("/a/")),
            (PathMatch::prefix("/a/b", false), |path| path.starts_with("/a/b")),
            (PathMatch::prefix("/", false), |_| true),
            (PathMatch::path_separated_prefix("/a"), |path| path == "/a" || path.starts_with("/a/")),
            (PathMatch::uri_template("/{x}/b"), |path| {
                path.ends_with("/b") && path.matches('/').count() == 2
            }),
            (PathMatch::uri_template("/a/**"), |path| path.starts_with("/a/")),
            (PathMatch::Suffix("b".to_owned()), |path| path.ends_with('b')),
            (PathMatch::regex("/a/[^/]+", false).remove(0), |path| {
                path.strip_prefix("/a/").is_some_and(|rest| !rest.is_empty() && !rest.contains('/'))
            }),
            (PathMatch::regex("/a/.+", false).remove(0), |path| path.len() > 3 && path.starts_with("/a/")),
            (PathMatch::regex(r"/a[bc]+", false).remove(0), |path| path == "/ab" || path == "/abc"),
        ];
        let templates = matchers.iter().flat_map(|(matcher, _)| matcher.templates());
        let cells = closure(templates.chain([template("/ab")]), 1000).unwrap();
        for path in PATHS {
            let cell = cells.iter().find(|cell| has(cell, path)).unwrap();
            for (matcher, matches) in &matchers {
                let expected = Truth::from(matches(path));
                let found = matcher.matches(cell);
                assert!(found == expected || found == Truth::Maybe, "{matcher:?} {cell} {path}: {found:?}");
                let is_exact = matches!(matcher, PathMatch::Template(_) | PathMatch::Directory { .. });
                assert!(found != Truth::Maybe || !is_exact, "{matcher:?} {cell}");
            }
        }
    }

    #[test]
    fn regular_expressions_of_usual_forms_become_templates() {
        let of = |regex| PathMatch::regex(regex, false);
        assert_eq!(of("/(a|b)/x"), [PathMatch::exact("/a/x"), PathMatch::exact("/b/x")]);
        assert_eq!(of("^/v1\\.0/?$"), [PathMatch::exact("/v1.0/"), PathMatch::exact("/v1.0")]);
        assert_eq!(of("/a(/.*)?"), [PathMatch::prefix("/a/", false), PathMatch::exact("/a")]);
        assert_eq!(of("/users/[^/]+/tags"), [PathMatch::Template(template("/users/{v}/tags"))]);
        assert_eq!(of(r"/users/\d+"), [PathMatch::Within(template("/users/{v}"))]);
        assert_eq!(of("/users/x{2}"), [PathMatch::Within(template("/users/**"))]);
        assert_eq!(of("/users/?x{2}"), [PathMatch::Within(template("/**"))]);
        assert_eq!(of("/users:search"), [PathMatch::Within(template("/**"))]);
        assert_eq!(PathMatch::exact("/a/users:search"), PathMatch::Within(template("/a/**")));
        assert_eq!(PathMatch::uri_template("/a/users:search"), PathMatch::Within(template("/a/**")));
        assert_eq!(PathMatch::path_separated_prefix("/a:b"), PathMatch::Template(template("/a:b/**")));
        assert_eq!(of("(?i)/a"), [PathMatch::Within(template("/**"))]);
        assert_eq!(of(".*"), [PathMatch::Template(template("/**"))]);
        assert_eq!(of(&"(a|b)".repeat(20)), [PathMatch::Within(template("/**"))]);
    }

    #[test]
    fn hosts_match_as_documented() {
        let exact = |name: &str| Some(HostMatch::Exact(name.to_owned()));
        let below = |name: &str| Some(HostMatch::Below(name.to_owned()));
        for (pattern, cell, expected) in [
            ("a.example", exact("a.example"), Truth::Yes),
            ("A.example", exact("a.example"), Truth::Yes),
            ("a.example:*", exact("a.example"), Truth::Maybe),
            ("a.example:8080", exact("a.example"), Truth::Maybe),
            ("a.example", exact("b.example"), Truth::No),
            ("a.example", None, Truth::No),
            ("*.example", exact("a.example"), Truth::Yes),
            ("*.example", below("a.example"), Truth::Yes),
            ("*.example", exact("example"), Truth::No),
            ("*.a.example", below("example"), Truth::No),
            ("*example", exact("example"), Truth::Yes),
            ("*example", None, Truth::Maybe),
            ("a*", exact("a.example"), Truth::Maybe),
        ] {
            assert_eq!(HostMatch::pattern(pattern).matches(&cell), expected, "{pattern} {cell:?}");
        }
    }
}
