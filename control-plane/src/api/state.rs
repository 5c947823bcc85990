//! The state of the API.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use verdict::Gate;

use super::{clock_check::ClockCheck, middleware::admission::RequestAdmission};
use crate::{
    domain::EdgeId,
    platform::{log_throttle::KeyedLogThrottle, telemetry::Metrics},
    publishing::{Publication, Publications},
    service::Service,
};

/// The state that handlers share.
#[derive(Clone)]
pub(crate) struct AppState {
    pub(super) service: Arc<Service>,
    pub(super) publications: Publications,
    pub(super) gate: Arc<Gate>,
    pub(super) metrics: Metrics,
    /// Throttles the warning about edges that report a version above the latest.
    pub(super) edge_ahead_log: Arc<KeyedLogThrottle<EdgeId>>,
    pub(super) admission: Arc<RequestAdmission>,
    pub(super) clock_check: Arc<ClockCheck>,
    pub(super) stop: CancellationToken,
}

impl AppState {
    /// Returns the latest publication.
    pub(super) fn latest(&self) -> Arc<Publication> {
        self.publications.latest()
    }
}
