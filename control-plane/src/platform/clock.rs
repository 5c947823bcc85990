//! The only source of time. Other code is given a [`Clock`] or takes the time as an argument.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// A point in time, as milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    millis: u64,
}

impl Time {
    /// Returns the time `millis` milliseconds after the Unix epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self { millis }
    }

    /// Returns the time `seconds` seconds after the Unix epoch.
    pub const fn from_seconds(seconds: u64) -> Self {
        Self { millis: seconds.saturating_mul(1000) }
    }

    /// Returns the milliseconds since the Unix epoch.
    pub const fn millis(self) -> u64 {
        self.millis
    }

    /// Returns the seconds since the Unix epoch, rounded down.
    pub const fn seconds(self) -> u64 {
        self.millis / 1000
    }

    /// Returns the time `duration` later.
    pub fn plus(self, duration: Duration) -> Self {
        Self { millis: self.millis.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)) }
    }
}

/// A source of time.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    #[default]
    System,
    /// A clock for tests, which only [`set`](Self::set) and [`advance`](Self::advance) move. No setting selects it.
    Manual(Arc<ManualClock>),
}

/// The state of a manual clock, in milliseconds.
#[derive(Debug)]
pub struct ManualClock {
    now: AtomicU64,
    uptime: AtomicU64,
}

impl Clock {
    /// Returns a manual clock that shows `at`.
    pub fn manual(at: Time) -> Self {
        Self::Manual(Arc::new(ManualClock { now: AtomicU64::new(at.millis()), uptime: AtomicU64::new(0) }))
    }

    /// Sets a manual clock forward or back without any time passing. Does nothing to the system clock.
    pub fn set(&self, to: Time) {
        if let Self::Manual(hands) = self {
            hands.now.store(to.millis(), Ordering::SeqCst);
        }
    }

    /// Lets time pass on a manual clock: advances both the clock and the uptime.
    pub fn advance(&self, by: Duration) {
        if let Self::Manual(hands) = self {
            self.set(self.now().plus(by));
            let millis = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
            hands.uptime.fetch_add(millis, Ordering::SeqCst);
        }
    }

    /// Returns the time since a fixed moment in this process. Setting the clock does not change it.
    pub fn uptime(&self) -> Duration {
        match self {
            Self::System => START.elapsed(),
            Self::Manual(hands) => Duration::from_millis(hands.uptime.load(Ordering::SeqCst)),
        }
    }

    /// Returns the current time.
    #[expect(clippy::disallowed_methods, reason = "this is the only source of time")]
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

/// Returns the system time. Code that has a `Service` uses the clock of that service instead.
pub fn now() -> Time {
    Clock::System.now()
}
