//! What may happen all the time and is worth a log line once in a while.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

#[derive(Debug, Default)]
pub(crate) struct Seldom {
    last: Mutex<Option<Instant>>,
}

impl Seldom {
    /// Whether it is time for a line; then it is not for a minute.
    pub(crate) fn due(&self, now: Instant) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|last| now.saturating_duration_since(last) >= PERIOD);
        if due {
            *last = Some(now);
        }
        due
    }
}

/// The same for each of a bounded number of things, such as enrolled edges.
#[derive(Debug)]
pub(crate) struct SeldomEach<K> {
    last: Mutex<HashMap<K, Instant>>,
}

impl<K> Default for SeldomEach<K> {
    fn default() -> Self {
        Self { last: Mutex::default() }
    }
}

impl<K: Hash + Eq + Clone> SeldomEach<K> {
    /// Whether it is time for a line about this one; then it is not for a minute.
    pub(crate) fn due(&self, of: &K, now: Instant) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.retain(|_, last| now.saturating_duration_since(*last) < PERIOD);
        let due = !last.contains_key(of);
        if due {
            last.insert(of.clone(), now);
        }
        due
    }
}

const PERIOD: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_a_minute() {
        let (seldom, start) = (Seldom::default(), Instant::now());
        for (second, due) in [(0, true), (1, false), (59, false), (60, true), (61, false)] {
            assert_eq!(seldom.due(start + Duration::from_secs(second)), due, "{second}");
        }
    }
}
