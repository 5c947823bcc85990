use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::{
    Service,
    list_edges::{EdgeState, enforces, state},
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
    /// Enrolled, and never heard of, or so lately that it is not written yet.
    pub unseen: Vec<EdgeId>,
}

impl Reached {
    pub fn by_all(&self) -> bool {
        self.lagging.is_empty()
    }
}

/// Returns when all workers of every live edge enforce the version, or the patience is at its end.
pub async fn await_fleet(service: &Service, version: u64, patience: Duration) -> Result<Reached, StoreError> {
    let deadline = Instant::now() + patience;
    loop {
        // Before the first look too: an edge that has just come up is written by then, mostly.
        sleep_until((Instant::now() + PAUSE).min(deadline)).await;
        let reached = look(service, version).await?;
        if reached.by_all() || Instant::now() >= deadline {
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
            EdgeState::Silent => &mut reached.silent,
            EdgeState::Live if enforces(&edge, version, latest) => &mut reached.enforcing,
            EdgeState::Live => &mut reached.lagging,
        };
        list.push(edge.id);
    }
    Ok(reached)
}

/// What edges tell is written in steps of 20 ms.
const PAUSE: Duration = Duration::from_millis(50);
