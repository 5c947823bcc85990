//! The timeout of a connection that sends no request.

use std::{
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use hyper::rt::{Sleep, Timer};
use hyper_util::rt::TokioTimer;

use super::slots::Slot;

/// Extends the header timeout for edges and trusted proxies. A request that such a client sends at the moment at which
/// its idle connection is closed is lost, and an edge is idle between its requests.
///
/// Invariant: hyper sets a connection's timers for request headers only, and resets them for each request.
#[derive(Debug)]
pub(super) struct HeadTimer {
    slot: Arc<Slot>,
    extension: Duration,
}

impl HeadTimer {
    pub(super) fn new(slot: Arc<Slot>, extension: Duration) -> Self {
        Self { slot, extension }
    }

    /// Returns the extension for the kind of client at the time the timer is set.
    fn current_extension(&self) -> Duration {
        if self.slot.is_anonymous() { Duration::ZERO } else { self.extension }
    }
}

impl Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        TokioTimer::new().sleep(duration.saturating_add(self.current_extension()))
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        TokioTimer::new().sleep_until(deadline + self.current_extension())
    }

    fn now(&self) -> Instant {
        TokioTimer::new().now()
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn Sleep>>, new_deadline: Instant) {
        TokioTimer::new().reset(sleep, new_deadline + self.current_extension());
    }
}
