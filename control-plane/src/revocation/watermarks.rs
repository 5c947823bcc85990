//! Raising watermarks, and their retention.
//!
//! A watermark is kept as long as any credential that it refuses can be valid:
//!
//! ```text
//! everything, a key     tokens of other issuers and API keys have any lifetime      forever
//! an operator, a user   API keys may have no expiry                                 forever
//! an AuthKey            own tokens only                                             until the longest-lived has expired
//! a session             one own token, which is in the issuance log                 until it has expired
//! ```

use super::queries::watermarks;
pub(crate) use super::queries::watermarks::applies_sql;
pub use super::queries::watermarks::{
    columns, find, highest_applicable, latest_instant, list_later_than, lower, parse_scope, purge, raise,
    since, take_back,
};
use crate::{
    credentials::{
        issued,
        tokens::{Lifetime, mint::MAX_ISSUE_SKEW_SECS},
    },
    db::{NEVER_EXPIRES, StoreError, Write},
    domain::{UnixMillis, UnixSeconds, Version, Watermark, WatermarkScope},
    service::Service,
};

/// Revokes all credentials of a scope that were issued up to an instant. Returns the watermark as stored, which is later if
/// it was raised further before, and whether it was raised now.
pub(crate) async fn raise_at(
    service: &Service,
    write: &mut Write,
    scope: &WatermarkScope,
    instant: UnixSeconds,
    now: UnixMillis,
    version: Version,
) -> Result<(Watermark, bool), StoreError> {
    let ends_at = watermark_end(service, write, scope, now).await?;
    let watermark = Watermark { scope: scope.clone(), instant, ends_at };
    let raised = watermarks::raise(write, &watermark, version).await?;
    let stored = watermarks::find(write, scope).await?;
    Ok((stored.unwrap_or(watermark), raised))
}

/// Revokes all credentials of a scope that were issued until now. The instant is at least `reach`, which is now or slightly
/// later.
pub(crate) async fn raise_to_now(
    service: &Service,
    write: &mut Write,
    scope: &WatermarkScope,
    reach: UnixSeconds,
    now: UnixMillis,
    version: Version,
) -> Result<(Watermark, bool), StoreError> {
    // A credential that was issued right after an earlier revocation is dated slightly ahead, and must be covered too.
    let furthest = now.seconds().saturating_add(MAX_ISSUE_SKEW_SECS.saturating_mul(2));
    let instant = issued::latest_issue(write, scope, reach, furthest).await?.unwrap_or(reach);
    let (watermark, raised) = raise_at(service, write, scope, instant, now, version).await?;
    // Credentials with a later time of issue come from a clock that was ahead.
    let later =
        issued::revoke_issued_after(write, scope, (instant, NEVER_EXPIRES), (now.seconds(), version)).await?;
    Ok((watermark, raised || later > 0))
}

/// Returns the second until which a watermark is kept.
async fn watermark_end(
    service: &Service,
    write: &mut Write,
    scope: &WatermarkScope,
    now: UnixMillis,
) -> Result<UnixSeconds, StoreError> {
    let longest = match scope {
        WatermarkScope::Session(_) => Lifetime::MAX.seconds(),
        WatermarkScope::AuthKey(_) if !service.config.tokens.allow_never => Lifetime::MAX.seconds(),
        _ => return Ok(NEVER_EXPIRES),
    };
    // The issuance log may be that of a backup, and credentials may be inserted at this moment.
    let unknown = now.seconds().saturating_add(MAX_ISSUE_SKEW_SECS).saturating_add(longest);
    Ok(issued::latest_expiry(write, scope, unknown).await?.unwrap_or(unknown))
}
