//! Rate limits, counted in memory: each server counts for itself, and counters restart from zero with the process.

use std::{fmt, hash::Hash, num::NonZeroU32, time::Duration};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    state::keyed::HashMapStateStore,
};

/// A rate limit for each key. The number of keys must be bounded: no key is ever removed.
pub(crate) struct RateLimits<K: Hash + Eq + Clone> {
    /// `None` if there is no limit.
    limiter: Option<RateLimiter<K, HashMapStateStore<K>, DefaultClock>>,
    clock: DefaultClock,
}

impl<K: Hash + Eq + Clone> RateLimits<K> {
    /// Allows `rate` per second, and `burst` times as many at once. A rate of 0 means no limit.
    pub(crate) fn per_second(rate: u32, burst: NonZeroU32) -> Self {
        Self::with_quota(rate, |rate| Quota::per_second(rate).allow_burst(rate.saturating_mul(burst)))
    }

    /// Allows `rate` per minute, all of them at once if need be. A rate of 0 means no limit.
    pub(crate) fn per_minute(rate: u32) -> Self {
        Self::with_quota(rate, Quota::per_minute)
    }

    fn with_quota(rate: u32, quota: impl Fn(NonZeroU32) -> Quota) -> Self {
        let limiter = NonZeroU32::new(rate).map(|rate| RateLimiter::hashmap(quota(rate)));
        Self { limiter, clock: DefaultClock::default() }
    }

    /// Takes one permit.
    ///
    /// # Errors
    ///
    /// The time until the next permit if none is available.
    pub(crate) fn check(&self, key: &K) -> Result<(), Duration> {
        let Some(limiter) = &self.limiter else { return Ok(()) };
        limiter.check_key(key).map_err(|until| until.wait_time_from(self.clock.now()))
    }

    /// Takes `more` permits if that many are available, otherwise none.
    pub(crate) fn charge(&self, key: &K, more: NonZeroU32) {
        if let Some(limiter) = &self.limiter {
            let _ = limiter.check_key_n(key, more);
        }
    }
}

impl<K: Hash + Eq + Clone> fmt::Debug for RateLimits<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rates(limited: {})", self.limiter.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_limits_are_per_key() {
        let rates = RateLimits::per_minute(2);
        assert!(rates.check(&1).is_ok() && rates.check(&1).is_ok());
        let wait = rates.check(&1).unwrap_err();
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(30), "{wait:?}");
        assert!(rates.check(&2).is_ok());
        let unlimited = RateLimits::per_minute(0);
        assert!((0..1000).all(|_| unlimited.check(&1).is_ok()));
    }
}
