//! Waits until edges enforce a version.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::{
    list::{EdgeState, edge_state, has_version, may_admit},
    queries as edges,
};
use crate::{
    db::{StoreError, versions},
    domain::{EdgeId, Version},
    service::Service,
};

/// How often the edges are polled. Edge reports are written every 20 ms.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Which edges enforce a version.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RolloutStatus {
    /// Edges whose workers all enforce the version.
    pub enforcing: Vec<EdgeId>,
    /// Live edges that do not enforce the version yet.
    pub lagging: Vec<EdgeId>,
    /// Edges that have not reported for longer than a manifest is fresh. No command waits for them, but they may still run.
    pub silent: Vec<EdgeId>,
    /// Silent edges that have reported within `publisher.outage_grace`: they may still admit by their old bundle.
    pub may_admit: Vec<EdgeId>,
    /// Enrolled edges without a recorded report.
    pub never_seen: Vec<EdgeId>,
    /// The number of open streams that rules of the enforcing edges keep although their credential is refused.
    pub kept_streams: u64,
}

impl RolloutStatus {
    /// Returns whether all live edges enforce the version.
    pub fn is_complete_for_live_edges(&self) -> bool {
        self.lagging.is_empty()
    }

    /// Returns whether at least one edge enforces the version, and no other edge may still admit by an older bundle.
    pub fn is_enforced_everywhere(&self) -> bool {
        self.lagging.is_empty() && self.may_admit.is_empty() && !self.enforcing.is_empty()
    }

    /// Returns whether there is no edge.
    pub fn has_no_edges(&self) -> bool {
        self.enforcing.is_empty()
            && self.lagging.is_empty()
            && self.silent.is_empty()
            && self.never_seen.is_empty()
    }
}

/// Waits until all workers of every live edge enforce the version, or until the timeout.
pub async fn await_live_edges(
    service: &Service,
    version: Version,
    timeout: Duration,
) -> Result<RolloutStatus, StoreError> {
    await_until(service, version, timeout, RolloutStatus::is_complete_for_live_edges).await
}

/// Waits until every edge that may admit requests enforces the version, or until the timeout.
pub async fn await_all_edges(
    service: &Service,
    version: Version,
    timeout: Duration,
) -> Result<RolloutStatus, StoreError> {
    await_until(service, version, timeout, |reached| {
        reached.is_enforced_everywhere() || reached.has_no_edges()
    })
    .await
}

async fn await_until(
    service: &Service,
    version: Version,
    timeout: Duration,
    is_done: impl Fn(&RolloutStatus) -> bool,
) -> Result<RolloutStatus, StoreError> {
    let deadline = Instant::now() + timeout;
    loop {
        // The first poll waits too, so that the report of an edge which has just started is usually recorded.
        sleep_until((Instant::now() + POLL_INTERVAL).min(deadline)).await;
        let reached = poll_edges(service, version).await?;
        if is_done(&reached) || Instant::now() >= deadline {
            return Ok(reached);
        }
    }
}

/// Reads which edges enforce a version.
async fn poll_edges(service: &Service, version: Version) -> Result<RolloutStatus, StoreError> {
    let now = service.now();
    let mut reached = RolloutStatus::default();
    let mut read = service.store.read().await?;
    let latest = versions::current(&mut read).await?.number;
    for edge in edges::list(&mut read).await? {
        let list = match edge_state(service, &edge, now) {
            EdgeState::Unseen => &mut reached.never_seen,
            EdgeState::Silent => {
                if may_admit(service, &edge, now) {
                    reached.may_admit.push(edge.id.clone());
                }
                &mut reached.silent
            }
            EdgeState::Live | EdgeState::Stale if has_version(&edge, version, latest) => {
                let workers = edge.report.and_then(|report| report.workers);
                let kept_streams = workers.map_or(0, |workers| workers.kept_streams);
                reached.kept_streams = reached.kept_streams.saturating_add(kept_streams);
                &mut reached.enforcing
            }
            EdgeState::Live | EdgeState::Stale => &mut reached.lagging,
        };
        list.push(edge.id);
    }
    Ok(reached)
}
