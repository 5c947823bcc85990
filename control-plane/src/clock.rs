//! The one clock: everything else is handed one, or takes the time as an argument.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

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

/// Where the time comes from.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    #[default]
    System,
    /// Milliseconds. It stands until whoever holds a copy sets it: tests alone, nothing that is configured makes one.
    Manual(Arc<AtomicU64>),
}

impl Clock {
    pub fn manual(at: Time) -> Self {
        Self::Manual(Arc::new(AtomicU64::new(at.millis())))
    }

    /// Forwards or back. The clock of the system is not ours to set.
    pub fn set(&self, to: Time) {
        if let Self::Manual(millis) = self {
            millis.store(to.millis(), Ordering::SeqCst);
        }
    }

    #[expect(clippy::disallowed_methods, reason = "this is the one clock")]
    pub fn now(&self) -> Time {
        match self {
            Self::System => {
                let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Time::from_millis(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
            }
            Self::Manual(millis) => Time::from_millis(millis.load(Ordering::SeqCst)),
        }
    }
}

/// By the clock of the system. What has a `Service` asks it instead.
pub fn now() -> Time {
    Clock::System.now()
}
