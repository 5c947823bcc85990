use std::collections::BTreeSet;

use super::queries as edges;
use crate::{
    config,
    db::{StoreError, versions},
    domain::{Edge, EdgeReport, Page, PageRequest, UnixMillis, Version},
    revocation::revocations,
    service::Service,
};

/// A page of edges, with the versions that they are compared with.
#[derive(Debug)]
pub struct EdgeList {
    /// The latest version of the store.
    pub version: Version,
    /// The latest version that is older than the lifetime of a manifest. Every live edge should enforce it.
    pub due: Version,
    /// The edges.
    pub edges: Vec<EdgeStatus>,
    /// The start of the next page; `None` on the last page.
    pub next: Option<String>,
}

/// An edge with its state.
#[derive(Debug)]
pub struct EdgeStatus {
    /// The edge.
    pub edge: Edge,
    /// Its state.
    pub state: EdgeState,
    /// The number of revocations and watermarks that are newer than the enforced version; `None` if the edge has no bundle,
    /// or one that this installation has not published.
    pub behind: Option<u64>,
}

/// The state of an edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EdgeState {
    /// The edge has never requested a manifest.
    Unseen,
    /// The edge has requested a manifest within the lifetime of a manifest, and its bundle is not older than that.
    Live,
    /// The edge requests manifests, but its bundle is older than the lifetime of a manifest.
    Stale,
    /// The edge has not requested a manifest within the lifetime of a manifest.
    Silent,
}

impl EdgeState {
    /// Returns the name in JSON and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unseen => "unseen",
            Self::Live => "live",
            Self::Stale => "stale",
            Self::Silent => "silent",
        }
    }
}

impl EdgeList {
    /// Returns whether all workers of an edge enforce the latest version.
    pub fn is_current(&self, status: &EdgeStatus) -> bool {
        has_version(&status.edge, self.version, self.version)
    }

    /// Returns whether an edge requests manifests and still does not enforce a version that is due.
    pub fn is_overdue(&self, status: &EdgeStatus) -> bool {
        matches!(status.state, EdgeState::Live | EdgeState::Stale) && {
            let enrolled = UnixMillis::from_seconds(status.edge.enrolled_at).millis();
            !has_version(&status.edge, self.due, self.version) && enrolled < self.due.get()
        }
    }
}

/// Returns whether all workers of an edge enforce a version. A version above the latest was not published by this
/// installation, so it does not count.
pub(crate) fn has_version(edge: &Edge, version: Version, latest: Version) -> bool {
    edge.report.is_some_and(|report| report.version <= latest && report.enforces() >= version)
}

/// Returns the version that all workers of an edge enforce; `None` if the edge has no bundle, or one that this installation,
/// whose latest version is `latest`, has not published.
fn enforced_version(edge: &Edge, latest: Version) -> Option<Version> {
    edge.report
        .filter(|report| report.version > Version::ZERO && report.version <= latest)
        .map(|report| report.enforces())
}

/// Returns a page of the edges with their states.
pub async fn list_edges(service: &Service, page: &PageRequest) -> Result<EdgeList, StoreError> {
    let now = service.now();
    let mut read = service.store.read().await?;
    let version = versions::current(&mut read).await?.number;
    let lifetime = u64::try_from(service.config.publisher.lifetime.get().as_millis()).unwrap_or(u64::MAX);
    let due = versions::latest_until(&mut read, Version::new(now.millis().saturating_sub(lifetime)))
        .await?
        .unwrap_or_default();
    let Page { items, next } = edges::page(&mut read, page).await?;
    let versions: BTreeSet<Version> =
        items.iter().filter_map(|edge| enforced_version(edge, version)).filter(|at| *at < version).collect();
    let newer = revocations::count_changes_since(&mut read, &versions).await?;
    let members = items.into_iter().map(|edge| EdgeStatus {
        state: edge_state(service, &edge, now),
        behind: enforced_version(&edge, version)
            .map(|enforced| newer.get(&enforced).copied().unwrap_or_default()),
        edge,
    });
    let members = members.collect();
    Ok(EdgeList { version, due, edges: members, next })
}

/// Returns all edges, read page by page.
pub async fn list_all_edges(service: &Service) -> Result<EdgeList, StoreError> {
    let mut list = list_edges(service, &PageRequest::with_max_limit(None)).await?;
    while let Some(next) = list.next.take() {
        let page = list_edges(service, &PageRequest::with_max_limit(Some(next))).await?;
        list.edges.extend(page.edges);
        list.next = page.next;
    }
    Ok(list)
}

/// Determines the state of an edge.
pub(crate) fn edge_state(service: &Service, edge: &Edge, now: UnixMillis) -> EdgeState {
    let lifetime = service.config.publisher.lifetime.get();
    match edge.last_seen_at {
        None => EdgeState::Unseen,
        // The time of the last request is rounded down to seconds.
        Some(seen) if now > UnixMillis::from_seconds(seen.saturating_add(1)).plus(lifetime) => {
            EdgeState::Silent
        }
        Some(_) if edge.report.and_then(bundle_time).is_some_and(|at| now > at.plus(lifetime)) => {
            EdgeState::Stale
        }
        Some(_) => EdgeState::Live,
    }
}

/// Returns when the bundle of an edge was signed; `None` if the edge has none, or does not report it.
pub fn bundle_time(report: EdgeReport) -> Option<UnixMillis> {
    report.issued_at.filter(|at| report.version > Version::ZERO && *at > 0).map(UnixMillis::from_millis)
}

/// Returns whether a silent edge may still admit requests by its bundle.
pub(crate) fn may_admit(service: &Service, edge: &Edge, now: UnixMillis) -> bool {
    let config::Publisher { lifetime, outage_grace, .. } = &service.config.publisher;
    edge.last_seen_at.is_some_and(|seen| {
        now <= UnixMillis::from_seconds(seen.saturating_add(1)).plus(lifetime.get()).plus(outage_grace.get())
    })
}
