//! How often a worker runs when no request, response or other worker makes it run.

use crate::hostcalls::{self, HostError};

/// The period of ticks while there is work, in milliseconds. At 40 ticks a second with two host calls each, ticking costs
/// about 0.02 % of a core.
const BUSY_MS: u32 = 25;

/// The period of ticks while many streams are ended, a few in each, in milliseconds.
const ENDING_MS: u32 = 10;

/// The period of ticks without work, in milliseconds: a worker that misses an entry in its queue loads the bundle by then,
/// and the lease of a leader is renewed three times before it ends.
const IDLE_MS: u32 = 250;

/// How long a worker must be without work until its ticks become rare, in milliseconds.
const IDLE_AFTER_MS: u64 = 1000;

/// What the next tick is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// Many streams must be ended.
    Ending,
    /// There are open streams, many requests, or something that the next tick continues.
    Pending,
    /// There are only timeouts of a second or more.
    Idle,
}

/// The period of the ticks of one plugin context.
pub(crate) struct TickPeriod {
    milliseconds: u32,
    /// When there was work, in milliseconds since the Unix epoch.
    busy_at: u64,
}

impl TickPeriod {
    /// Starts the ticks of a plugin context. `now` is in milliseconds since the Unix epoch.
    ///
    /// # Errors
    ///
    /// Returns the status if the host has no timers.
    pub(crate) fn start(now: u64) -> Result<Self, HostError> {
        hostcalls::set_tick_period(BUSY_MS)?;
        Ok(Self { milliseconds: BUSY_MS, busy_at: now })
    }

    /// Returns whether the time of the last tick is precise enough to decide requests by it.
    pub(crate) const fn is_short(&self) -> bool {
        self.milliseconds <= BUSY_MS
    }

    /// Returns whether more ticks would cost less than reading the host's clock for each request: from one request per
    /// millisecond since the last tick.
    pub(crate) fn is_busy_with(&self, requests: u64) -> bool {
        requests >= u64::from(self.milliseconds)
    }

    /// Chooses the period. `now` is in milliseconds since the Unix epoch.
    pub(crate) fn update(&mut self, work: Work, now: u64) {
        if work != Work::Idle {
            self.busy_at = now;
        }
        let wanted = match work {
            Work::Ending => ENDING_MS,
            Work::Pending => BUSY_MS,
            Work::Idle if now.abs_diff(self.busy_at) < IDLE_AFTER_MS => BUSY_MS,
            Work::Idle => IDLE_MS,
        };
        // The host had timers at the start. If it refuses now, the period stays as it is until the next attempt.
        if wanted != self.milliseconds && hostcalls::set_tick_period(wanted).is_ok() {
            self.milliseconds = wanted;
        }
    }
}
