//! Detection of a wrong clock, and the repair of its consequences.
//!
//! The instants of watermarks only grow, and credentials must be issued later: a watermark that a clock ahead has raised
//! blocks issuing for its scope until that instant. Stored times cannot show that the clock is wrong, as they may be old
//! after a long stop. So the clock is compared with other clocks:
//!
//! ```text
//! PostgreSQL       the clock of its server
//! live edges       an edge rejects a manifest that was signed more than a minute ahead of its own clock. If no live edge
//!                  has accepted a recent manifest, our clock is ahead. The edge with the newest manifest counts. Edges do
//!                  not show that our clock is behind
//! ```
//! Without any of these nothing confirms the clock, and no edge refuses a bundle because of it.

use crate::{
    credentials::{api_keys::take_back_expiry, coverage, issued},
    db::{StoreError, versions},
    domain::{
        Actor, ApiKeyId, CoreError, ErrorKind, Event, UnixMillis, UnixSeconds, Version, WatermarkScope,
    },
    edges::{self, list::bundle_time},
    issuers,
    keys::signing_keys,
    publishing::blocks,
    restore::gaps,
    revocation::{revocations, watermarks},
    service::Service,
};

/// By how many seconds clocks may differ. Edges allow the same difference.
const MAX_CLOCK_DIFFERENCE_SECS: u64 = 60;

/// An edge is live if it has sent a request within this time, in seconds. It is longer than a request waits.
const LIVE_EDGE_SECS: u64 = 60;

/// Why the clock cannot be trusted.
#[derive(Debug, thiserror::Error)]
pub enum ClockError {
    /// The clock is ahead by this number of seconds of another clock, which the text names.
    #[error(
        "the clock of this machine is {0} s ahead of {1}: a revocation up to now would block issuing for its \
         scope for as long"
    )]
    Ahead(u64, &'static str),
    /// The clock is behind another clock.
    #[error(
        "the clock of this machine is {0} s behind {1}: credentials issued in that time would not be \
         revoked"
    )]
    Behind(u64, &'static str),
    /// No other clock confirms the clock, which a repair requires.
    #[error("no other clock confirms this one: no edge has accepted a manifest in the last minutes")]
    Unconfirmed,
    /// The store cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ClockError {
    /// Returns the error code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Ahead(..) => "clock_ahead",
            Self::Behind(..) => "clock_behind",
            Self::Unconfirmed => "clock_unconfirmed",
            Self::Store(error) => error.code(),
        }
    }
}

impl CoreError for ClockError {
    fn code(&self) -> &'static str {
        self.code()
    }

    fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(error) => error.kind(),
            Self::Ahead(..) | Self::Behind(..) | Self::Unconfirmed => ErrorKind::Unavailable,
        }
    }
}

/// Whether another clock confirms ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockConfirmation {
    /// Another clock agrees.
    Confirmed,
    /// There is no other clock to compare with.
    NoOtherClock,
}

/// Compares the clock with that of the database server, before a revocation up to now by a caller that cannot force it.
/// Edges are not considered, as their reports must not prevent a revocation.
pub async fn check_store_clock(service: &Service) -> Result<ClockConfirmation, ClockError> {
    let (now, theirs) = (service.now(), service.store.clock().await?);
    let Some(theirs) = theirs else { return Ok(ClockConfirmation::NoOtherClock) };
    let of = "the clock of the database server";
    let (ahead, behind) = (seconds_between(theirs, now), seconds_between(now, theirs));
    match (ahead > MAX_CLOCK_DIFFERENCE_SECS, behind > MAX_CLOCK_DIFFERENCE_SECS) {
        (true, _) => Err(ClockError::Ahead(ahead, of)),
        (_, true) => Err(ClockError::Behind(behind, of)),
        _ => Ok(ClockConfirmation::Confirmed),
    }
}

/// Compares the clock with that of the database server, or else with the live edges, before a revocation up to now. An error
/// means that the other clock disagrees. Live edges notice only a clock that is ahead.
pub async fn check_clock(service: &Service) -> Result<ClockConfirmation, ClockError> {
    if check_store_clock(service).await? == ClockConfirmation::Confirmed {
        return Ok(ClockConfirmation::Confirmed);
    }
    let now = service.now();
    let live = edges::list(&mut service.store.reader().await?)
        .await?
        .into_iter()
        .filter(|edge| edge.last_seen_at.is_some_and(|seen| seen.abs_diff(now.seconds()) <= LIVE_EDGE_SECS));
    // An edge without a bundle has accepted no manifest.
    let newest = live.filter_map(|edge| bundle_time(edge.report?)).max();
    let Some(newest) = newest else { return Ok(ClockConfirmation::NoOtherClock) };
    let age = seconds_between(newest, now);
    match age > service.config.publisher.lifetime.get().as_secs().saturating_add(MAX_CLOCK_DIFFERENCE_SECS) {
        true => {
            Err(ClockError::Ahead(age, "every live edge, or the edges reject manifests for another reason"))
        }
        false => Ok(ClockConfirmation::Confirmed),
    }
}

/// Returns the instants that a clock ahead has left and that are more than [`MAX_CLOCK_DIFFERENCE_SECS`] in the future: a
/// description, and the second until which each blocks issuing.
pub async fn instants_ahead(service: &Service) -> Result<Vec<(String, UnixSeconds)>, StoreError> {
    let mut reader = service.store.reader().await?;
    let second = service.now().seconds().saturating_add(MAX_CLOCK_DIFFERENCE_SECS);
    let watermarks = watermarks::list_later_than(&mut reader, second).await?.into_iter();
    let mut found: Vec<(String, UnixSeconds)> = watermarks
        .map(|watermark| (format!("watermark of {}", watermark.scope), watermark.instant))
        .collect();
    for (kid, high) in coverage::floors_after(&mut reader, second).await? {
        found.push((format!("base of {kid}"), high));
    }
    if let Some(until) = gaps::latest_instant_after(&mut reader, second).await? {
        found.push(("gap of a restored database".to_owned(), until));
    }
    Ok(found)
}

/// The result of a repair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClockRepair {
    /// The first bundle with the repair; a checkpoint.
    pub version: Version,
    /// The watermarks that were lowered to now, with their instants before.
    pub watermarks: Vec<(WatermarkScope, UnixSeconds)>,
    /// The number of credentials in these scopes that have a time of issue in the future. Each is revoked by fingerprint.
    pub revoked: u64,
    /// Signing keys for which the base covered future seconds. The base is dropped, and built again when it is due.
    pub covered: Vec<String>,
    /// API keys that were marked as expired although their end is in the future. They are valid again.
    pub unexpired: Vec<ApiKeyId>,
}

/// Corrects what a clock that was ahead has left. Watermarks are lowered to now: credentials that were issued by now stay
/// refused, and known credentials with a later time of issue are revoked by fingerprint.
pub async fn repair_clock(service: &Service, actor: &Actor, forced: bool) -> Result<ClockRepair, ClockError> {
    match check_clock(service).await {
        Ok(ClockConfirmation::Confirmed) => {}
        Ok(ClockConfirmation::NoOtherClock) if !forced => return Err(ClockError::Unconfirmed),
        Err(error) if !forced => return Err(error),
        Err(ClockError::Store(error)) => return Err(ClockError::Store(error)),
        Ok(ClockConfirmation::NoOtherClock) | Err(_) => {}
    }
    let mut change = service.change(actor).await?;
    let (version, now) = (change.version(), change.now());
    let second = now.seconds();
    versions::mark_checkpoint(change.db(), version).await?;
    let (mut lowered, mut revoked) = (Vec::new(), 0);
    for watermark in watermarks::list_later_than(change.db(), second).await? {
        let range = (second, watermark.instant);
        revoked +=
            issued::revoke_issued_after(change.db(), &watermark.scope, range, (second, version)).await?;
        watermarks::lower(change.db(), &watermark.scope, second, version).await?;
        lowered.push((watermark.scope, watermark.instant));
    }
    let covered: Vec<String> =
        coverage::floors_after(change.db(), second).await?.into_iter().map(|(kid, _)| kid).collect();
    if !covered.is_empty() {
        // The revocations in the blocks return to the revocation list, with the new version.
        revocations::renew_covered(change.db(), version).await?;
        blocks::clear(change.db()).await?;
        coverage::lower_floors(change.db(), second).await?;
    }
    gaps::clamp_to_now(change.db(), second).await?;
    let unexpired = take_back_expiry(change.db(), now, version).await?;
    versions::clamp_to_now(change.db(), now).await?;
    edges::clamp_to_now(change.db(), second).await?;
    issuers::clamp_to_now(change.db(), second).await?;
    signing_keys::clamp_to_now(change.db(), second).await?;
    let event = Event::ClockRepaired {
        watermarks: lowered.clone(),
        revoked,
        covered: covered.clone(),
        unexpired: unexpired.clone(),
    };
    let version = change.commit(event).await?;
    Ok(ClockRepair { version, watermarks: lowered, revoked, covered, unexpired })
}

/// Returns the seconds from the first time to the second, or 0 if the second is earlier.
fn seconds_between(first: UnixMillis, second: UnixMillis) -> u64 {
    second.millis().saturating_sub(first.millis()) / 1000
}
