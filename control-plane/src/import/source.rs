//! Reads YAML or JSON with the path of each value. Members that nothing reads are reported by name.

use std::{cell::RefCell, collections::BTreeSet};

use serde_json::{Map, Value};

use super::report::Report;

/// The maximum size of a source. A larger file is not a configuration of one proxy.
const MAX_SOURCE_BYTES: usize = 16 * 1024 * 1024;

/// An error in the source. It never quotes a value, because a configuration may contain secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{path}`: {message}")]
pub struct SourceError {
    pub path: String,
    pub message: String,
}

impl SourceError {
    pub(super) fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        let path: String = path.into();
        Self { path: if path.is_empty() { ".".to_owned() } else { path }, message: message.into() }
    }
}

pub(super) type Result<T, E = SourceError> = std::result::Result<T, E>;

/// Parses all documents of a YAML or JSON text. Duplicate members are errors, and the number of aliases is limited.
pub(super) fn parse_documents(text: &str) -> Result<Vec<Value>> {
    if text.len() > MAX_SOURCE_BYTES {
        return Err(SourceError::new("", "the file is larger than 16 MiB"));
    }
    let options = serde_saphyr::options! {
        with_snippet: false,
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::Error,
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 50_000,
            max_replay_stack_depth: 16,
            max_alias_expansions_per_anchor: 1000,
        },
    };
    serde_saphyr::from_multiple_with_options(text, options).map_err(|error| {
        let place = error.location().map(|at| format!("line {}, column {}", at.line(), at.column()));
        SourceError::new(place.unwrap_or_default(), format!("is not valid YAML: {}", yaml_problem(&error)))
    })
}

/// Returns what is wrong with a YAML text, without a value.
fn yaml_problem(error: &serde_saphyr::Error) -> &'static str {
    let text = error.to_string();
    let has = |part: &str| text.contains(part);
    if has("duplicate") {
        "a member occurs twice"
    } else if has("alias") || has("budget") || has("anchor") {
        "it has too many aliases, levels or nodes, or an alias without an anchor"
    } else {
        "a syntax error"
    }
}

/// A value of the source with its path.
#[derive(Debug, Clone)]
pub(super) struct Node<'v> {
    pub(super) value: &'v Value,
    pub(super) path: String,
}

impl<'v> Node<'v> {
    pub(super) fn new(value: &'v Value, path: impl Into<String>) -> Self {
        Self { value, path: path.into() }
    }

    pub(super) fn error(&self, message: impl Into<String>) -> SourceError {
        SourceError::new(self.path.clone(), message)
    }

    pub(super) fn text(&self) -> Result<&'v str> {
        self.value
            .as_str()
            .ok_or_else(|| self.error("must be text (in quotes, if it looks like another type)"))
    }

    pub(super) fn boolean(&self) -> Result<bool> {
        self.value.as_bool().ok_or_else(|| self.error("must be true or false"))
    }

    pub(super) fn number(&self) -> Result<u64> {
        self.value.as_u64().ok_or_else(|| self.error("must be a whole number that is not negative"))
    }

    pub(super) fn items(&self) -> Result<Vec<Node<'v>>> {
        let items = self.value.as_array().ok_or_else(|| self.error("must be a list"))?;
        Ok(items
            .iter()
            .enumerate()
            .map(|(at, item)| Node::new(item, format!("{}[{at}]", self.path)))
            .collect())
    }

    pub(super) fn texts(&self) -> Result<Vec<String>> {
        self.items()?.iter().map(|item| item.text().map(str::to_owned)).collect()
    }

    /// Returns the members of a map whose names are data.
    pub(super) fn entries(&self) -> Result<Vec<(&'v str, Node<'v>)>> {
        let members = self.value.as_object().ok_or_else(|| self.error("must be an object"))?;
        Ok(members
            .iter()
            .map(|(name, value)| (name.as_str(), Node::new(value, member(&self.path, name))))
            .collect())
    }

    pub(super) fn fields(&self) -> Result<Fields<'v>> {
        let members = self.value.as_object().ok_or_else(|| self.error("must be an object"))?;
        Ok(Fields { members, path: self.path.clone(), taken: RefCell::default() })
    }

    /// Returns seconds of a duration: `3.5s`, or an object with `seconds`.
    pub(super) fn seconds(&self) -> Result<u64> {
        let whole = |text: &str| text.split('.').next().and_then(|seconds| seconds.parse().ok());
        match self.value {
            Value::String(text) => text.strip_suffix('s').and_then(whole),
            Value::Object(members) => match members.get("seconds") {
                Some(Value::String(text)) => text.parse().ok(),
                Some(seconds) => seconds.as_u64(),
                None => Some(0),
            },
            _ => None,
        }
        .ok_or_else(|| self.error("must be a duration such as `300s`"))
    }
}

/// The members of an object. [`Self::finish`] reports those that nothing has read.
#[derive(Debug)]
pub(super) struct Fields<'v> {
    members: &'v Map<String, Value>,
    pub(super) path: String,
    taken: RefCell<BTreeSet<String>>,
}

impl<'v> Fields<'v> {
    /// Returns a member by its name in snake case or in camel case. `null` counts as absent.
    pub(super) fn get(&self, name: &str) -> Option<Node<'v>> {
        let camel = camel_case(name);
        let (name, value) =
            self.members.get_key_value(name).or_else(|| self.members.get_key_value(&camel))?;
        self.taken.borrow_mut().insert(name.clone());
        (!value.is_null()).then(|| Node::new(value, member(&self.path, name)))
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<&'v str>> {
        self.get(name).map(|node| node.text()).transpose()
    }

    pub(super) fn texts(&self, name: &str) -> Result<Vec<String>> {
        self.get(name).map_or(Ok(Vec::new()), |node| node.texts())
    }

    pub(super) fn items(&self, name: &str) -> Result<Vec<Node<'v>>> {
        self.get(name).map_or(Ok(Vec::new()), |node| node.items())
    }

    pub(super) fn entries(&self, name: &str) -> Result<Vec<(&'v str, Node<'v>)>> {
        self.get(name).map_or(Ok(Vec::new()), |node| node.entries())
    }

    pub(super) fn boolean(&self, name: &str) -> Result<bool> {
        self.get(name).map_or(Ok(false), |node| node.boolean())
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<u64>> {
        self.get(name).map(|node| node.number()).transpose()
    }

    /// Marks members as read that have no effect on which requests pass.
    pub(super) fn ignore(&self, names: &[&str]) {
        for name in names {
            let _ = self.get(name);
        }
    }

    pub(super) fn error(&self, message: impl Into<String>) -> SourceError {
        SourceError::new(self.path.clone(), message)
    }

    /// Returns the names of the members that have not been read.
    pub(super) fn unread(&self) -> Vec<&'v str> {
        let taken = self.taken.borrow();
        self.members.keys().filter(|name| !taken.contains(*name)).map(String::as_str).collect()
    }

    /// Reports members that have not been read. Returns whether there are any.
    pub(super) fn finish(&self, report: &mut Report, effect: &str) -> bool {
        let unread = self.unread();
        for name in &unread {
            report.dropped(
                member(&self.path, name),
                "this member is unknown",
                effect,
                "compare it with the documentation of the source, and add what it does to the policy by hand",
            );
        }
        !unread.is_empty()
    }
}

/// Returns the path of a member.
pub(super) fn member(path: &str, name: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    let name =
        if !name.is_empty() && name.bytes().all(is_plain) { name.to_owned() } else { format!("{name:?}") };
    if path.is_empty() { name } else { format!("{path}.{name}") }
}

fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let mut camel = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        camel.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        camel.extend(letters);
    }
    camel
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_yaml_is_an_error_without_a_value() {
        let bomb: String = (1..12).fold("a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned(), |text, level| {
            let before = format!("*a{}", level - 1);
            text + &format!("a{level}: &a{level} [{}]\n", [before.as_str(); 9].join(", "))
        });
        for (text, expected) in [
            ("a: s3cret\na: s3cret\n", "occurs twice"),
            ("{\"a\": 1, \"a\": \"s3cret\"}", "occurs twice"),
            ("a: [s3cret", "syntax error"),
            ("a: *s3cret", "alias"),
            (&bomb, "aliases"),
            (&"[".repeat(10_000), "not valid YAML"),
        ] {
            let error = parse_documents(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains("s3cret"), "{error}");
        }
        assert_eq!(parse_documents("---\na: 1\n---\n---\nb: 2\n").unwrap().len(), 2);
    }

    #[test]
    fn members_that_nothing_reads_are_named() {
        let value = serde_json::json!({ "fromHeaders": [], "from_params": [], "extra": 1 });
        let fields = Node::new(&value, "x").fields().unwrap();
        assert!(fields.get("from_headers").is_some());
        assert!(fields.get("from_params").is_some());
        assert_eq!(fields.unread(), ["extra"]);
    }
}
