//! Limits repeated log lines to one per minute.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// The minimum time between two log lines.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Allows one log line per [`LOG_INTERVAL`].
#[derive(Debug, Default)]
pub(crate) struct LogThrottle {
    last: Mutex<Option<Instant>>,
}

impl LogThrottle {
    /// Returns true if a line may be written now, and counts it as written.
    pub(crate) fn allow(&self, now: Instant) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let allowed = last.is_none_or(|last| now.saturating_duration_since(last) >= LOG_INTERVAL);
        if allowed {
            *last = Some(now);
        }
        allowed
    }
}

/// Allows one log line per [`LOG_INTERVAL`] for each key. The number of keys must be bounded, such as enrolled edges.
#[derive(Debug)]
pub(crate) struct KeyedLogThrottle<K> {
    last: Mutex<HashMap<K, Instant>>,
}

impl<K> Default for KeyedLogThrottle<K> {
    fn default() -> Self {
        Self { last: Mutex::default() }
    }
}

impl<K: Hash + Eq + Clone> KeyedLogThrottle<K> {
    /// Returns true if a line about `key` may be written now, and counts it as written.
    pub(crate) fn allow(&self, key: &K, now: Instant) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.retain(|_, last| now.saturating_duration_since(*last) < LOG_INTERVAL);
        let allowed = !last.contains_key(key);
        if allowed {
            last.insert(key.clone(), now);
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throttle_allows_one_line_per_minute() {
        let (throttle, start) = (LogThrottle::default(), Instant::now());
        for (second, allowed) in [(0, true), (1, false), (59, false), (60, true), (61, false)] {
            assert_eq!(throttle.allow(start + Duration::from_secs(second)), allowed, "{second}");
        }
    }
}
