//! How long a connection may stay without a request.

use std::{
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use hyper::rt::{Sleep, Timer};
use hyper_util::rt::TokioTimer;

use super::places::Place;

/// Gives edges and trusted proxies longer than everybody else: a request that such a client sends in the moment in
/// which its idle connection is closed is lost, and an edge that is asked nothing is idle for as long as it waits.
///
/// Invariant: hyper sets timers of a connection for the heads of requests only, and sets each anew.
#[derive(Debug)]
pub(super) struct HeadTimer {
    place: Arc<Place>,
    longer: Duration,
}

impl HeadTimer {
    pub(super) fn new(place: Arc<Place>, longer: Duration) -> Self {
        Self { place, longer }
    }

    /// By who is at the other end when the timer is set.
    fn longer(&self) -> Duration {
        if self.place.is_anonymous() { Duration::ZERO } else { self.longer }
    }
}

impl Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        TokioTimer::new().sleep(duration.saturating_add(self.longer()))
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        TokioTimer::new().sleep_until(deadline + self.longer())
    }

    fn now(&self) -> Instant {
        TokioTimer::new().now()
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn Sleep>>, new_deadline: Instant) {
        TokioTimer::new().reset(sleep, new_deadline + self.longer());
    }
}
