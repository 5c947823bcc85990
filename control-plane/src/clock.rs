//! The one clock: everything else takes the time as an argument.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Time since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    millis: u64,
}

impl Time {
    pub const fn from_millis(millis: u64) -> Self {
        Self { millis }
    }

    pub const fn from_seconds(seconds: u64) -> Self {
        Self { millis: seconds.saturating_mul(1000) }
    }

    pub const fn millis(self) -> u64 {
        self.millis
    }

    /// Whole seconds, rounded down.
    pub const fn seconds(self) -> u64 {
        self.millis / 1000
    }

    pub fn plus(self, duration: Duration) -> Self {
        Self { millis: self.millis.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)) }
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the one clock")]
pub fn now() -> Time {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time { millis: u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX) }
}
