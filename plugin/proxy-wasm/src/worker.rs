use alloc::sync::Arc;

use verdict::{Cache, Gate, Snapshot};

use crate::{abi, metrics::Metrics, verifier::HostVerifier};

/// What the requests of one worker share.
pub(crate) struct Worker {
    pub(crate) gate: Gate,
    pub(crate) cache: Cache,
    pub(crate) verifier: HostVerifier,
    pub(crate) snapshot: Option<Arc<Snapshot>>,
    pub(crate) clock: Clock,
    pub(crate) metrics: Metrics,
}

/// What time a request has.
pub(crate) enum Clock {
    /// That of the last tick, which spares each request a host call; ticks are 25 ms apart, the leeway of a token is
    /// seconds.
    Ticks(Option<u64>),
    /// Its own, where a host may have no timers.
    Requests,
}

impl Clock {
    /// Milliseconds since the Unix epoch. None where the host does not know: nothing then may pass.
    pub(crate) fn now(&self) -> Option<u64> {
        match self {
            Self::Ticks(last) => *last,
            Self::Requests => abi::now(),
        }
    }
}
