//! The one clock: everything else is handed one, or takes the time as an argument.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
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
    /// It stands until whoever holds a copy moves it: tests alone, nothing that is configured makes one.
    Manual(Arc<Hands>),
}

/// Milliseconds.
#[derive(Debug)]
pub struct Hands {
    now: AtomicU64,
    uptime: AtomicU64,
}

impl Clock {
    pub fn manual(at: Time) -> Self {
        Self::Manual(Arc::new(Hands { now: AtomicU64::new(at.millis()), uptime: AtomicU64::new(0) }))
    }

    /// A jump, forwards or back: no time passes. The clock of the system is not ours to set.
    pub fn set(&self, to: Time) {
        if let Self::Manual(hands) = self {
            hands.now.store(to.millis(), Ordering::SeqCst);
        }
    }

    /// So much time passes, and the clock shows it.
    pub fn advance(&self, by: Duration) {
        if let Self::Manual(hands) = self {
            self.set(self.now().plus(by));
            let millis = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
            hands.uptime.fetch_add(millis, Ordering::SeqCst);
        }
    }

    /// How much time has passed since some moment of this process, whatever the clock was set to meanwhile.
    pub fn uptime(&self) -> Duration {
        match self {
            Self::System => START.elapsed(),
            Self::Manual(hands) => Duration::from_millis(hands.uptime.load(Ordering::SeqCst)),
        }
    }

    #[expect(clippy::disallowed_methods, reason = "this is the one clock")]
    pub fn now(&self) -> Time {
        match self {
            Self::System => {
                let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Time::from_millis(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
            }
            Self::Manual(hands) => Time::from_millis(hands.now.load(Ordering::SeqCst)),
        }
    }
}

/// By the clock of the system. What has a `Service` asks it instead.
pub fn now() -> Time {
    Clock::System.now()
}

static START: LazyLock<Instant> = LazyLock::new(Instant::now);
