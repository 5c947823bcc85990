use std::{cell::RefCell, sync::Arc};

use verdict::{Cache, Gate, OpenStreams, Snapshot};

use crate::{
    host_verifier::HostVerifier,
    hostcalls::{self, StreamEnd},
    log::LogThrottle,
    metrics::Metrics,
};

/// The [`Worker`] of a plugin context, or `None` before its configuration has been accepted and after the plugin context
/// has been deleted: a stream that outlives it is refused.
pub(crate) type WorkerCell = RefCell<Option<Worker>>;

/// The state that the requests of one plugin context share.
pub(crate) struct Worker {
    pub(crate) gate: Gate,
    pub(crate) cache: Cache,
    pub(crate) verifier: HostVerifier,
    pub(crate) snapshot: Option<Arc<Snapshot>>,
    pub(crate) clock: Clock,
    pub(crate) metrics: Metrics,
    /// Throttles the line about tokens that are refused because of a claim.
    pub(crate) claim_log: LogThrottle,
    /// `None` on a host without timers, which cannot end streams later.
    pub(crate) open_streams: Option<OpenStreams<StreamEnd>>,
}

/// The source of the time at which a request is decided.
pub(crate) enum Clock {
    /// The time of the last tick, which saves a host call per request. Ticks are 25 ms apart; the leeway for the
    /// times in a token is in seconds.
    LastTick(Option<u64>),
    /// The host's clock, if ticks are rare, and for hosts that may have no timers.
    Host,
}

impl Clock {
    /// Returns milliseconds since the Unix epoch, or `None` if the host has no clock. No request may pass then.
    pub(crate) fn now(&self) -> Option<u64> {
        match self {
            Self::LastTick(time) => *time,
            Self::Host => hostcalls::now_ms(),
        }
    }
}
