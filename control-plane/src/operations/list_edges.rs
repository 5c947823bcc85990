use super::Service;
use crate::{
    clock::Time,
    config,
    model::{Edge, EdgeReport, Page, Paged},
    store::{StoreError, edges, revocations, versions, watermarks},
};

/// The edges, and what they are measured by.
#[derive(Debug)]
pub struct Fleet {
    /// The latest version there is.
    pub version: u64,
    /// The latest version that is older than the lifetime of a manifest: a live edge has had the time to take it.
    pub due: u64,
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
    /// It asked within the lifetime of a manifest, and what it holds is younger than that.
    Live,
    /// It asks, but what it holds is older than the lifetime of a manifest: nothing newer reaches it.
    Stale,
    /// It did not: what it holds is stale, if it runs.
    Silent,
}

impl EdgeState {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unseen => "unseen",
            Self::Live => "live",
            Self::Stale => "stale",
            Self::Silent => "silent",
        }
    }
}

impl Fleet {
    /// Whether all workers of an edge enforce the latest version.
    pub fn is_current(&self, member: &Member) -> bool {
        enforces(&member.edge, self.version, self.version)
    }

    /// Whether an edge asks, and has not taken what it has had the time to take.
    pub fn is_overdue(&self, member: &Member) -> bool {
        matches!(member.state, EdgeState::Live | EdgeState::Stale) && {
            let enrolled = Time::from_seconds(member.edge.enrolled_at).millis();
            !enforces(&member.edge, self.due, self.version) && enrolled < self.due
        }
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
    let lifetime = u64::try_from(service.config.publisher.lifetime.get().as_millis()).unwrap_or(u64::MAX);
    let due =
        versions::latest_until(&mut read, now.millis().saturating_sub(lifetime)).await?.unwrap_or_default();
    let mut members = Vec::new();
    let Paged { items, next } = edges::page(&mut read, page).await?;
    for edge in items {
        let behind = match edge.report.map(|report| report.enforces()) {
            // What was never published here, and what is nothing.
            _ if edge.report.is_some_and(|report| report.version > version || report.version == 0) => None,
            Some(enforced) if enforced < version => Some(
                revocations::count_since(&mut read, enforced).await?
                    + watermarks::count_since(&mut read, enforced).await?,
            ),
            Some(_) => Some(0),
            None => None,
        };
        members.push(Member { state: state(service, &edge, now), behind, edge });
    }
    Ok(Fleet { version, due, members, next })
}

/// All of them, read page by page.
pub async fn list_all_edges(service: &Service) -> Result<Fleet, StoreError> {
    let mut fleet = list_edges(service, &Page::longest(None)).await?;
    while let Some(next) = fleet.next.take() {
        let page = list_edges(service, &Page::longest(Some(next))).await?;
        fleet.members.extend(page.members);
        fleet.next = page.next;
    }
    Ok(fleet)
}

pub(super) fn state(service: &Service, edge: &Edge, now: Time) -> EdgeState {
    let lifetime = service.config.publisher.lifetime.get();
    match edge.last_seen_at {
        None => EdgeState::Unseen,
        // Seconds, rounded down: an instant of the last one counts.
        Some(seen) if now > Time::from_seconds(seen.saturating_add(1)).plus(lifetime) => EdgeState::Silent,
        Some(_) if edge.report.and_then(bundle_of).is_some_and(|at| now > at.plus(lifetime)) => {
            EdgeState::Stale
        }
        Some(_) => EdgeState::Live,
    }
}

/// When the bundle that an edge holds was signed; none of one that holds nothing yet, or does not tell.
pub fn bundle_of(report: EdgeReport) -> Option<Time> {
    report.issued_at.filter(|at| report.version > 0 && *at > 0).map(Time::from_millis)
}

/// Whether an edge that is silent may still admit by what it holds.
pub(super) fn may_admit(service: &Service, edge: &Edge, now: Time) -> bool {
    let config::Publisher { lifetime, outage_grace, .. } = &service.config.publisher;
    edge.last_seen_at.is_some_and(|seen| {
        now <= Time::from_seconds(seen.saturating_add(1)).plus(lifetime.get()).plus(outage_grace.get())
    })
}
