//! Raising watermarks, and how long each is kept.
//!
//! A watermark is kept for as long as anything that it refuses may live, never for a time of its own:
//!
//! ```text
//! everything, a key     tokens of other issuers and API keys have any lifetime      for ever
//! an operator, a user   API keys have none                                          for ever
//! an AuthKey            own tokens alone: the longest that lives, or could          until that has expired
//! a session             one own token, which the ledger knows                       until it has expired
//! ```

use super::{Lifetime, Service, mint::AHEAD};
use crate::{
    clock::Time,
    model::{Watermark, WatermarkScope},
    store::{NEVER, StoreError, Write, issued, watermarks},
};

/// Refuses all of a scope that was issued up to an instant. Whether that is new.
pub(super) async fn raise(
    service: &Service,
    write: &mut Write,
    scope: &WatermarkScope,
    instant: u64,
    now: Time,
    version: u64,
) -> Result<(Watermark, bool), StoreError> {
    let ends_at = ends_at(service, write, scope, now).await?;
    let watermark = Watermark { scope: scope.clone(), instant, ends_at };
    let raised = watermarks::raise(write, &watermark, version).await?;
    Ok((watermark, raised))
}

/// Refuses all of a scope that was issued until now: up to `reach` at least, which is now or little later.
pub(super) async fn raise_to_now(
    service: &Service,
    write: &mut Write,
    scope: &WatermarkScope,
    reach: u64,
    now: Time,
    version: u64,
) -> Result<(Watermark, bool), StoreError> {
    // What was issued right after an earlier revocation lies a second ahead; "all up to now" means it too.
    let furthest = now.seconds().saturating_add(AHEAD.saturating_mul(2));
    let instant = issued::latest(write, scope, reach, furthest).await?.unwrap_or(reach);
    let (watermark, raised) = raise(service, write, scope, instant, now, version).await?;
    // What is dated still later was issued by a clock that was ahead.
    let later = issued::revoke_later(write, scope, (instant, NEVER), (now.seconds(), version)).await?;
    Ok((watermark, raised || later > 0))
}

async fn ends_at(
    service: &Service,
    write: &mut Write,
    scope: &WatermarkScope,
    now: Time,
) -> Result<u64, StoreError> {
    let longest = match scope {
        WatermarkScope::Session(_) => Lifetime::LONGEST.seconds(),
        WatermarkScope::AuthKey(_) if !service.config.tokens.allow_never => Lifetime::LONGEST.seconds(),
        _ => return Ok(NEVER),
    };
    // The ledger may be that of a backup; and some are entered at this very moment.
    let unknown = now.seconds().saturating_add(AHEAD).saturating_add(longest);
    Ok(issued::last_expiry(write, scope, unknown).await?.unwrap_or(unknown))
}
