//! The only source of time. Other code is given a [`Clock`] or takes the time as an argument.

use crate::domain::UnixMillis;
use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

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
    pub fn manual(at: UnixMillis) -> Self {
        Self::Manual(Arc::new(ManualClock { now: AtomicU64::new(at.millis()), uptime: AtomicU64::new(0) }))
    }

    /// Sets a manual clock forward or back without any time passing. Does nothing to the system clock.
    pub fn set(&self, to: UnixMillis) {
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
    pub fn now(&self) -> UnixMillis {
        match self {
            Self::System => {
                let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                UnixMillis::from_millis(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
            }
            Self::Manual(hands) => UnixMillis::from_millis(hands.now.load(Ordering::SeqCst)),
        }
    }
}

/// Returns the system time. Code that has a `Service` uses the clock of that service instead.
pub fn now() -> UnixMillis {
    Clock::System.now()
}
