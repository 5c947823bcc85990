//! What an import could not carry over, or carries over with a difference.

use std::fmt;

use serde::Serialize;

/// A remark about a part of the source.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Remark {
    /// The path in the source.
    pub path: String,
    pub kind: RemarkKind,
    /// What the source has there.
    pub what: String,
    /// What that means for requests.
    pub effect: String,
    /// What to do.
    pub advice: String,
}

/// Whether a part of the source is missing in the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RemarkKind {
    /// The part is not carried over. The policy refuses what it cannot decide.
    NotCarriedOver,
    /// The part has no effect on which requests pass, or its equivalent differs in a documented way.
    Note,
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            RemarkKind::NotCarriedOver => "not carried over",
            RemarkKind::Note => "note",
        };
        write!(f, "{kind}: {}: {}. {} To do: {}.", self.path, self.what, sentence(&self.effect), self.advice)
    }
}

/// Returns the text as a sentence.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().chain(letters).chain(['.']).collect())
}

/// The remarks of one import, each once.
#[derive(Debug, Default)]
pub(super) struct Report {
    remarks: Vec<Remark>,
}

impl Report {
    pub(super) fn dropped(&mut self, path: impl Into<String>, what: &str, effect: &str, advice: &str) {
        self.add(RemarkKind::NotCarriedOver, path.into(), what, effect, advice);
    }

    pub(super) fn note(&mut self, path: impl Into<String>, what: &str, effect: &str, advice: &str) {
        self.add(RemarkKind::Note, path.into(), what, effect, advice);
    }

    fn add(&mut self, kind: RemarkKind, path: String, what: &str, effect: &str, advice: &str) {
        let path = if path.is_empty() { ".".to_owned() } else { path };
        let remark = Remark {
            path,
            kind,
            what: what.to_owned(),
            effect: effect.to_owned(),
            advice: advice.to_owned(),
        };
        if !self.remarks.contains(&remark) {
            self.remarks.push(remark);
        }
    }

    pub(super) fn into_remarks(self) -> Vec<Remark> {
        self.remarks
    }
}
