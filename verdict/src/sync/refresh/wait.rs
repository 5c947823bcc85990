//! The wait time of manifest requests.

/// Minimum pause before a longer wait is tried, in milliseconds. Each attempt can cost a failed request, so the pause
/// doubles after every timeout.
const MIN_PAUSE_MS: u64 = 300_000;

/// Maximum pause before a longer wait is tried, in milliseconds.
const MAX_PAUSE_MS: u64 = 3_600_000;

/// How long the control plane may hold a manifest request: the configured time, or less if a proxy times out earlier.
/// Otherwise a load balancer with a timeout of 5 s would answer every request itself, and no manifest would arrive
/// while nothing changes.
#[derive(Debug)]
pub(super) struct Wait {
    /// The configured wait, in seconds.
    configured_seconds: u64,
    current_seconds: u64,
    /// When to try a longer wait, in milliseconds since the Unix epoch.
    next_trial_at: u64,
    pause_ms: u64,
    /// Whether the current wait is longer than the last one that succeeded.
    is_trial: bool,
}

impl Wait {
    /// Starts with the configured wait, in seconds.
    pub(super) const fn new(configured_seconds: u64) -> Self {
        Self {
            configured_seconds,
            current_seconds: configured_seconds,
            next_trial_at: 0,
            pause_ms: MIN_PAUSE_MS,
            is_trial: false,
        }
    }

    pub(super) const fn configured_seconds(&self) -> u64 {
        self.configured_seconds
    }

    /// Returns the wait of the next request, in seconds. `now` is in milliseconds since the Unix epoch.
    pub(super) fn seconds(&mut self, now: u64) -> u64 {
        // A time further in the future than the longest pause comes from another clock.
        let is_due = now >= self.next_trial_at || self.next_trial_at.saturating_sub(now) > MAX_PAUSE_MS;
        if self.current_seconds < self.configured_seconds && is_due {
            self.current_seconds = self.current_seconds.saturating_mul(2).clamp(1, self.configured_seconds);
            self.next_trial_at = now.saturating_add(self.pause_ms);
            self.is_trial = true;
        }
        self.current_seconds
    }

    /// Records that a request with a wait of `asked` seconds timed out. `now` is in milliseconds since the Unix epoch.
    pub(super) fn record_timeout(&mut self, asked: u64, now: u64) {
        self.current_seconds = self.current_seconds.min(asked.div_euclid(2));
        if core::mem::take(&mut self.is_trial) {
            self.pause_ms = self.pause_ms.saturating_mul(2).min(MAX_PAUSE_MS);
        }
        self.next_trial_at = now.saturating_add(self.pause_ms);
    }

    /// Records that a request with a wait of `asked` seconds was answered.
    pub(super) const fn record_response(&mut self, asked: u64) {
        if asked == self.current_seconds {
            self.is_trial = false;
        }
        if asked == self.configured_seconds {
            self.pause_ms = MIN_PAUSE_MS;
        }
    }
}
