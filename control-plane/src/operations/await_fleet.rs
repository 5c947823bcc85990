//! Waits until edges enforce a version.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::{
    Service,
    list_edges::{EdgeState, enforces, may_admit, state},
};
use crate::{
    model::EdgeId,
    store::{StoreError, edges, versions},
};

/// How often the edges are polled. Edge reports are written every 20 ms.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Which edges enforce a version.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reached {
    /// Edges whose workers all enforce the version.
    pub enforcing: Vec<EdgeId>,
    /// Live edges that do not enforce the version yet.
    pub lagging: Vec<EdgeId>,
    /// Edges that have not reported for longer than a manifest is fresh. No command waits for them, but they may still run.
    pub silent: Vec<EdgeId>,
    /// Silent edges that have reported within `publisher.outage_grace`: they may still admit by their old bundle.
    pub may_admit: Vec<EdgeId>,
    /// Enrolled edges without a recorded report.
    pub unseen: Vec<EdgeId>,
}

impl Reached {
    /// Returns whether all live edges enforce the version.
    pub fn by_all(&self) -> bool {
        self.lagging.is_empty()
    }

    /// Returns whether at least one edge enforces the version, and no other edge may still admit by an older bundle.
    pub fn everywhere(&self) -> bool {
        self.lagging.is_empty() && self.may_admit.is_empty() && !self.enforcing.is_empty()
    }

    /// Returns whether there is no edge.
    pub fn by_nobody(&self) -> bool {
        self.enforcing.is_empty()
            && self.lagging.is_empty()
            && self.silent.is_empty()
            && self.unseen.is_empty()
    }
}

/// Waits until all workers of every live edge enforce the version, or until the timeout.
pub async fn await_fleet(service: &Service, version: u64, timeout: Duration) -> Result<Reached, StoreError> {
    await_until(service, version, timeout, Reached::by_all).await
}

/// Waits until every edge that may admit requests enforces the version, or until the timeout.
pub async fn await_everywhere(
    service: &Service,
    version: u64,
    timeout: Duration,
) -> Result<Reached, StoreError> {
    await_until(service, version, timeout, |reached| reached.everywhere() || reached.by_nobody()).await
}

async fn await_until(
    service: &Service,
    version: u64,
    timeout: Duration,
    is_done: impl Fn(&Reached) -> bool,
) -> Result<Reached, StoreError> {
    let deadline = Instant::now() + timeout;
    loop {
        // The first poll waits too, so that the report of an edge which has just started is usually recorded.
        sleep_until((Instant::now() + POLL_INTERVAL).min(deadline)).await;
        let reached = poll(service, version).await?;
        if is_done(&reached) || Instant::now() >= deadline {
            return Ok(reached);
        }
    }
}

/// Reads which edges enforce a version.
async fn poll(service: &Service, version: u64) -> Result<Reached, StoreError> {
    let now = service.now();
    let mut reached = Reached::default();
    let mut read = service.store.read().await?;
    let latest = versions::current(&mut read).await?.number;
    for edge in edges::list(&mut read).await? {
        let list = match state(service, &edge, now) {
            EdgeState::Unseen => &mut reached.unseen,
            EdgeState::Silent => {
                if may_admit(service, &edge, now) {
                    reached.may_admit.push(edge.id.clone());
                }
                &mut reached.silent
            }
            EdgeState::Live | EdgeState::Stale if enforces(&edge, version, latest) => &mut reached.enforcing,
            EdgeState::Live | EdgeState::Stale => &mut reached.lagging,
        };
        list.push(edge.id);
    }
    Ok(reached)
}
