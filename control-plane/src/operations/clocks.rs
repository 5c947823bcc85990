//! What a clock that is wrong does, how it is noticed, and what takes it back.
//!
//! Instants of watermarks only grow, and what is issued must be dated later: one that a clock ahead has raised keeps its
//! scope from being issued anything for as long. By itself no clock tells that it is wrong, and after a long stop all that
//! is kept is old; so it is compared with clocks of others, at this moment:
//!
//! ```text
//! PostgreSQL       the clock of its server
//! live edges       an edge takes no manifest that was signed more than a minute ahead of its own clock; so when none of
//!                  those that ask has taken one of late, it is we who are ahead. Of several the one that is furthest counts
//! ```
//! Where there is neither nothing is at stake yet: no edge refuses anything, and `repair_clock` takes it back.

use std::fmt;

use serde_json::json;

use super::{Service, api_keys::take_back_expiry, list_edges::bundle_of};
use crate::{
    clock::Time,
    model::{Actor, ApiKeyId, WatermarkScope},
    store::{
        StoreError, audit, blocks, coverage, edges, gaps, issued, issuers, revocations, signing_keys,
        versions, watermarks,
    },
};

#[derive(Debug)]
pub enum ClockError {
    /// So many seconds, of which other clock.
    Ahead(u64, &'static str),
    Behind(u64, &'static str),
    /// To take instants back takes another clock that agrees.
    Unconfirmed,
    Store(StoreError),
}

impl ClockError {
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Ahead(..) => "clock_ahead",
            Self::Behind(..) => "clock_behind",
            Self::Unconfirmed => "clock_unconfirmed",
            Self::Store(error) => error.code(),
        }
    }
}

impl fmt::Display for ClockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ahead(by, of) => write!(
                f,
                "the clock of this machine is {by} s ahead of {of}: what is refused up to now would keep its scope from \
                 being issued anything for as long; set the clock, or add --force if it is right"
            ),
            Self::Behind(by, of) => write!(
                f,
                "the clock of this machine is {by} s behind {of}: what was issued since would not be refused; set the \
                 clock, or add --force if it is right"
            ),
            Self::Unconfirmed => f.write_str(
                "no other clock says that this one is right: no edge has taken a manifest of the last minutes; compare it \
                 with another, then add --force",
            ),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ClockError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Store(error) => error.source(),
            _ => None,
        }
    }
}

impl From<StoreError> for ClockError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Whether another clock says that ours is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirmed {
    Yes,
    /// There is none to ask.
    Nobody,
}

/// To be asked before anything is refused up to now by whoever has no `--force`: what edges say of themselves must not
/// keep anybody from revoking.
pub async fn check_store_clock(service: &Service) -> Result<Confirmed, ClockError> {
    let (now, theirs) = (service.now(), service.store.clock().await?);
    let Some(theirs) = theirs else { return Ok(Confirmed::Nobody) };
    let of = "that of the database server";
    let (ahead, behind) = (seconds_from(theirs, now), seconds_from(now, theirs));
    match (ahead > TOLERATED, behind > TOLERATED) {
        (true, _) => Err(ClockError::Ahead(ahead, of)),
        (_, true) => Err(ClockError::Behind(behind, of)),
        _ => Ok(Confirmed::Yes),
    }
}

/// To be asked before anything is refused up to now. An error is the word of another clock against ours.
pub async fn check_clock(service: &Service) -> Result<Confirmed, ClockError> {
    if check_store_clock(service).await? == Confirmed::Yes {
        return Ok(Confirmed::Yes);
    }
    let now = service.now();
    let asking = edges::list(&mut service.store.reader().await?)
        .await?
        .into_iter()
        .filter(|edge| edge.last_seen_at.is_some_and(|seen| seen.abs_diff(now.seconds()) <= LIVE));
    // One that has nothing yet has taken nothing.
    let taken = asking.filter_map(|edge| bundle_of(edge.report?)).max();
    let Some(taken) = taken else { return Ok(Confirmed::Nobody) };
    let old = seconds_from(taken, now);
    match old > service.config.publisher.lifetime.get().as_secs().saturating_add(TOLERATED) {
        true => {
            Err(ClockError::Ahead(old, "every edge that asks for news, or they refuse it for another reason"))
        }
        false => Ok(Confirmed::Yes),
    }
}

/// What a clock that was ahead has left: what it is, and until when nothing is issued for it.
pub async fn instants_ahead(service: &Service) -> Result<Vec<(String, u64)>, StoreError> {
    let mut reader = service.store.reader().await?;
    let second = service.now().seconds().saturating_add(TOLERATED);
    let watermarks = watermarks::later_than(&mut reader, second).await?.into_iter();
    let mut found: Vec<(String, u64)> = watermarks
        .map(|watermark| (format!("watermark of {}", watermark.scope), watermark.instant))
        .collect();
    for (kid, high) in coverage::later_than(&mut reader, second).await? {
        found.push((format!("base of {kid}"), high));
    }
    if let Some(until) = gaps::later_than(&mut reader, second).await? {
        found.push(("time of issue that a restored database does not know".to_owned(), until));
    }
    Ok(found)
}

/// What was taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClockRepaired {
    /// The first bundle with it; a checkpoint.
    pub version: u64,
    pub watermarks: Vec<(WatermarkScope, u64)>,
    /// Issued with a date that was not over yet, and of such a scope: refused by fingerprint from now on.
    pub revoked: u64,
    /// Signing keys of which the base covered seconds to come; it is built anew when that is due.
    pub covered: Vec<String>,
    /// API keys that were marked as expired although their end is still to come: good again.
    pub unexpired: Vec<ApiKeyId>,
}

/// Takes back what a clock that was ahead has left. Watermarks come down to now, not further: what was issued by now stays
/// refused, and what is known to be dated later is refused by fingerprint.
pub async fn repair_clock(
    service: &Service,
    actor: &Actor,
    forced: bool,
) -> Result<ClockRepaired, ClockError> {
    match check_clock(service).await {
        Ok(Confirmed::Yes) => {}
        Ok(Confirmed::Nobody) if !forced => return Err(ClockError::Unconfirmed),
        Err(error) if !forced => return Err(error),
        Err(ClockError::Store(error)) => return Err(ClockError::Store(error)),
        Ok(Confirmed::Nobody) | Err(_) => {}
    }
    let mut write = service.store.write().await?;
    let version = versions::next(&mut write, service.now()).await?;
    let now = service.now();
    let second = now.seconds();
    versions::settle(&mut write, version).await?;
    let (mut lowered, mut revoked) = (Vec::new(), 0);
    for watermark in watermarks::later_than(&mut write, second).await? {
        let range = (second, watermark.instant);
        revoked += issued::revoke_later(&mut write, &watermark.scope, range, (second, version)).await?;
        watermarks::lower(&mut write, &watermark.scope, second, version).await?;
        lowered.push((watermark.scope, watermark.instant));
    }
    let covered: Vec<String> =
        coverage::later_than(&mut write, second).await?.into_iter().map(|(kid, _)| kid).collect();
    if !covered.is_empty() {
        // What the blocks say is said beside them again, to those as well who have heard it long ago.
        revocations::tell_again(&mut write, version).await?;
        blocks::clear(&mut write).await?;
        coverage::lower(&mut write, second).await?;
    }
    gaps::put_right(&mut write, second).await?;
    let unexpired = take_back_expiry(&mut write, now, version).await?;
    versions::put_right(&mut write, now).await?;
    edges::put_right(&mut write, second).await?;
    issuers::put_right(&mut write, second).await?;
    signing_keys::put_right(&mut write, second).await?;
    let detail = json!({
        "version": version,
        "watermarks": lowered.iter().map(|(scope, instant)| json!([scope.to_string(), instant])).collect::<Vec<_>>(),
        "revoked": revoked,
        "covered": covered,
        "unexpired": unexpired.iter().map(ToString::to_string).collect::<Vec<_>>(),
    });
    audit::append(
        &mut write,
        audit::Change { at: now, actor, action: "clock.repair", target: "clock", detail },
    )
    .await?;
    write.commit().await?;
    service.settle(version).await;
    Ok(ClockRepaired { version, watermarks: lowered, revoked, covered, unexpired })
}

/// From the first to the second; none if that is earlier.
fn seconds_from(first: Time, second: Time) -> u64 {
    second.millis().saturating_sub(first.millis()) / 1000
}

/// Seconds that clocks may be apart: what edges allow too.
const TOLERATED: u64 = 60;

/// Seconds since an edge has asked: longer than it waits for an answer.
const LIVE: u64 = 60;
