/// How long the control plane may hold a request for a manifest: as configured, or less where something in between cuts
/// the request before that. A load balancer with a time limit of 5 s would else answer each of them in the place of the
/// control plane, and nothing would ever arrive while nothing changes.
#[derive(Debug)]
pub(super) struct Wait {
    /// Seconds, as the others without a unit.
    configured: u64,
    current: u64,
    /// When to try a longer one. Milliseconds since the Unix epoch.
    longer_at: u64,
    pause_ms: u64,
    /// Whether the current one is longer than what went well before.
    tries: bool,
}

impl Wait {
    pub(super) const fn new(configured: u64) -> Self {
        Self { configured, current: configured, longer_at: 0, pause_ms: FIRST_PAUSE_MS, tries: false }
    }

    pub(super) const fn configured(&self) -> u64 {
        self.configured
    }

    /// Seconds. `now` in milliseconds.
    pub(super) fn seconds(&mut self, now: u64) -> u64 {
        // A time further ahead than any pause comes from another clock.
        let is_due = now >= self.longer_at || self.longer_at.saturating_sub(now) > MAX_PAUSE_MS;
        if self.current < self.configured && is_due {
            self.current = self.current.saturating_mul(2).clamp(1, self.configured);
            self.longer_at = now.saturating_add(self.pause_ms);
            self.tries = true;
        }
        self.current
    }

    /// A request that was to wait for `asked` seconds was cut. `now` in milliseconds.
    pub(super) fn cut(&mut self, asked: u64, now: u64) {
        self.current = self.current.min(asked.div_euclid(2));
        if core::mem::take(&mut self.tries) {
            self.pause_ms = self.pause_ms.saturating_mul(2).min(MAX_PAUSE_MS);
        }
        self.longer_at = now.saturating_add(self.pause_ms);
    }

    /// A request was answered that waited for `asked` seconds, or could have.
    pub(super) const fn answered(&mut self, asked: u64) {
        if asked == self.current {
            self.tries = false;
        }
        if asked == self.configured {
            self.pause_ms = FIRST_PAUSE_MS;
        }
    }
}

/// Each attempt with a longer wait may cost a failed request: the first after five minutes, later ones less often.
const FIRST_PAUSE_MS: u64 = 300_000;

const MAX_PAUSE_MS: u64 = 3_600_000;
