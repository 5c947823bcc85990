//! How often somebody may do something: counted in memory, so by each server for itself and afresh after a restart.

use std::{fmt, hash::Hash, num::NonZeroU32, time::Duration};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    state::keyed::HashMapStateStore,
};

/// A rate for each key, of which there must be a bounded number: none is forgotten.
pub(crate) struct Rates<K: Hash + Eq + Clone> {
    /// None where there is no limit.
    limiter: Option<RateLimiter<K, HashMapStateStore<K>, DefaultClock>>,
    clock: DefaultClock,
}

impl<K: Hash + Eq + Clone> Rates<K> {
    /// `rate` a second, and `burst` times as many at once; 0 is no limit.
    pub(crate) fn per_second(rate: u32, burst: NonZeroU32) -> Self {
        Self::of(rate, |rate| Quota::per_second(rate).allow_burst(rate.saturating_mul(burst)))
    }

    /// `rate` a minute, and all of them at once; 0 is no limit.
    pub(crate) fn per_minute(rate: u32) -> Self {
        Self::of(rate, Quota::per_minute)
    }

    fn of(rate: u32, quota: impl Fn(NonZeroU32) -> Quota) -> Self {
        let limiter = NonZeroU32::new(rate).map(|rate| RateLimiter::hashmap(quota(rate)));
        Self { limiter, clock: DefaultClock::default() }
    }

    /// Takes one; how long to wait where there is none.
    pub(crate) fn take(&self, key: &K) -> Result<(), Duration> {
        let Some(limiter) = &self.limiter else { return Ok(()) };
        limiter.check_key(key).map_err(|until| until.wait_time_from(self.clock.now()))
    }

    /// Takes more where there are as many.
    pub(crate) fn take_more(&self, key: &K, more: NonZeroU32) {
        if let Some(limiter) = &self.limiter {
            let _ = limiter.check_key_n(key, more);
        }
    }
}

impl<K: Hash + Eq + Clone> fmt::Debug for Rates<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rates(limited: {})", self.limiter.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_its_own() {
        let rates = Rates::per_minute(2);
        assert!(rates.take(&1).is_ok() && rates.take(&1).is_ok());
        let wait = rates.take(&1).unwrap_err();
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(30), "{wait:?}");
        assert!(rates.take(&2).is_ok());
        let unlimited = Rates::per_minute(0);
        assert!((0..1000).all(|_| unlimited.take(&1).is_ok()));
    }
}
