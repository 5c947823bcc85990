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

/// Who enforces a version, when the waiting for it ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reached {
    pub enforcing: Vec<EdgeId>,
    /// Live, but not there yet.
    pub lagging: Vec<EdgeId>,
    /// Not heard of for longer than a manifest is fresh: nobody waits for these, but they may still run.
    pub silent: Vec<EdgeId>,
    /// Those of the silent that were heard of within `publisher.outage_grace`: each may admit by what it holds.
    pub may_admit: Vec<EdgeId>,
    /// Enrolled, and never heard of, or so lately that it is not written yet.
    pub unseen: Vec<EdgeId>,
}

impl Reached {
    pub fn by_all(&self) -> bool {
        self.lagging.is_empty()
    }

    /// Whether edges enforce it, and none that is not known to may still admit by what it holds.
    pub fn everywhere(&self) -> bool {
        self.lagging.is_empty() && self.may_admit.is_empty() && !self.enforcing.is_empty()
    }

    /// Whether there is no edge that could ever tell.
    pub fn by_nobody(&self) -> bool {
        self.enforcing.is_empty()
            && self.lagging.is_empty()
            && self.silent.is_empty()
            && self.unseen.is_empty()
    }
}

/// Returns when all workers of every live edge enforce the version, or the patience is at its end.
pub async fn await_fleet(service: &Service, version: u64, patience: Duration) -> Result<Reached, StoreError> {
    await_until(service, version, patience, Reached::by_all).await
}

/// Returns when every edge that may admit by what it holds enforces the version, or the patience is at its end.
pub async fn await_everywhere(
    service: &Service,
    version: u64,
    patience: Duration,
) -> Result<Reached, StoreError> {
    await_until(service, version, patience, |reached| reached.everywhere() || reached.by_nobody()).await
}

async fn await_until(
    service: &Service,
    version: u64,
    patience: Duration,
    enough: impl Fn(&Reached) -> bool,
) -> Result<Reached, StoreError> {
    let deadline = Instant::now() + patience;
    loop {
        // Before the first look too: an edge that has just come up is written by then, mostly.
        sleep_until((Instant::now() + PAUSE).min(deadline)).await;
        let reached = look(service, version).await?;
        if enough(&reached) || Instant::now() >= deadline {
            return Ok(reached);
        }
    }
}

async fn look(service: &Service, version: u64) -> Result<Reached, StoreError> {
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

/// What edges tell is written in steps of 20 ms.
const PAUSE: Duration = Duration::from_millis(50);
