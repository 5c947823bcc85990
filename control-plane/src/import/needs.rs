//! What a token must have.

use std::collections::BTreeSet;

use serde_json::Value;

/// What a token must have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// The name of each claim, and the values of which it must have one.
    pub(super) claims: Vec<(String, Vec<Value>)>,
    pub(super) scopes: BTreeSet<String>,
}

impl Needs {
    pub(super) fn claim(name: String, values: Vec<Value>) -> Self {
        Self { claims: vec![(name, values)], scopes: BTreeSet::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.claims.is_empty() && self.scopes.is_empty()
    }

    pub(super) fn and(&self, other: &Self) -> Self {
        let mut both = self.clone();
        both.claims.extend(other.claims.iter().filter(|claim| !self.claims.contains(claim)).cloned());
        both.claims.sort_by(|(a, _), (b, _)| a.cmp(b));
        both.scopes.extend(other.scopes.iter().cloned());
        both
    }

    /// Returns whether every token that has what `other` needs has what this needs.
    pub(super) fn includes(&self, other: &Self) -> bool {
        self.claims.iter().all(|(name, values)| {
            let narrower = |(other, narrower): &(String, Vec<Value>)| {
                other == name && narrower.iter().all(|value| values.contains(value))
            };
            other.claims.iter().any(narrower)
        }) && self.scopes.is_subset(&other.scopes)
    }
}
