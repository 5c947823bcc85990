use super::Service;
use crate::{
    clock::Time,
    model::{Edge, Page, Paged},
    store::{StoreError, edges, revocations, versions, watermarks},
};

/// The edges, and what they are measured by.
#[derive(Debug)]
pub struct Fleet {
    /// The latest version there is.
    pub version: u64,
    pub members: Vec<Member>,
    /// Where the next page begins; none at the end.
    pub next: Option<String>,
}

#[derive(Debug)]
pub struct Member {
    pub edge: Edge,
    pub state: EdgeState,
    /// How many revocations and watermarks are newer than what it enforces; none of one that never asked, or that holds
    /// what was never published here.
    pub behind: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EdgeState {
    /// Enrolled, but it never asked for a manifest.
    Unseen,
    /// It asked within the lifetime of a manifest.
    Live,
    /// It did not: what it holds is stale, if it runs.
    Silent,
}

impl EdgeState {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unseen => "unseen",
            Self::Live => "live",
            Self::Silent => "silent",
        }
    }
}

impl Fleet {
    /// Whether all workers of an edge enforce the latest version.
    pub fn is_current(&self, member: &Member) -> bool {
        enforces(&member.edge, self.version, self.version)
    }
}

/// Whether all workers of an edge enforce this version. What is above the latest was never published here: nobody knows
/// what it refuses.
pub(super) fn enforces(edge: &Edge, version: u64, latest: u64) -> bool {
    edge.report.is_some_and(|report| report.version <= latest && report.enforces() >= version)
}

/// Who enforces what, and how far behind the store that is.
pub async fn list_edges(service: &Service, page: &Page) -> Result<Fleet, StoreError> {
    let now = service.now();
    let mut read = service.store.read().await?;
    let version = versions::current(&mut read).await?.number;
    let mut members = Vec::new();
    let Paged { items, next } = edges::page(&mut read, page).await?;
    for edge in items {
        let behind = match edge.report.map(|report| report.enforces()) {
            _ if edge.report.is_some_and(|report| report.version > version) => None,
            Some(enforced) if enforced < version => Some(
                revocations::count_since(&mut read, enforced).await?
                    + watermarks::count_since(&mut read, enforced).await?,
            ),
            Some(_) => Some(0),
            None => None,
        };
        members.push(Member { state: state(service, &edge, now), behind, edge });
    }
    Ok(Fleet { version, members, next })
}

pub(super) fn state(service: &Service, edge: &Edge, now: Time) -> EdgeState {
    let lifetime = service.config.publisher.lifetime.get();
    match edge.last_seen_at {
        None => EdgeState::Unseen,
        // Seconds, rounded down: an instant of the last one counts.
        Some(seen) if now <= Time::from_seconds(seen.saturating_add(1)).plus(lifetime) => EdgeState::Live,
        Some(_) => EdgeState::Silent,
    }
}
