use alloc::sync::Arc;

use verdict::{Cache, Gate, Snapshot};

use crate::{metrics::Metrics, verifier::HostVerifier};

/// What the requests of one worker share. The time is that of the last tick, which spares each request a host call;
/// ticks are 25 ms apart, the leeway of a token is seconds.
pub(crate) struct Worker {
    pub(crate) gate: Gate,
    pub(crate) cache: Cache,
    pub(crate) verifier: HostVerifier,
    pub(crate) snapshot: Option<Arc<Snapshot>>,
    pub(crate) now: Option<u64>,
    pub(crate) metrics: Metrics,
}
