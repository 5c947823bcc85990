//! Purges expired rows.

use crate::{
    audit,
    credentials::issued,
    db::{StoreError, versions},
    domain::{UnixMillis, UnixSeconds, Version},
    edges,
    journal::{self, tombstones},
    limits,
    publishing::blocks,
    revocation::{EXPIRED_RETENTION_SECS, revocations, watermarks},
    service::Service,
};

/// Deletes expired rows, and returns their number.
///
/// Expiry is judged by the time that servers have seen pass, as the clock may have been set ahead: see [`advance_passed_time`].
pub async fn purge_expired(service: &Service) -> Result<u64, StoreError> {
    let now = advance_passed_time(service).await?;
    let mut deleted_rows = 0;
    loop {
        // Rows are deleted in batches, so that issuing a token waits for one batch at most.
        let mut upkeep = service.upkeep().await?;
        let deleted = issued::purge(upkeep.db(), purge_threshold(now)).await?;
        upkeep.commit().await?;
        deleted_rows += deleted;
        if deleted < issued::PURGE_BATCH {
            break;
        }
    }
    let mut upkeep = service.upkeep().await?;
    deleted_rows += audit::purge(upkeep.db(), audit_retention_start(service, now)).await?;
    deleted_rows += limits::purge(upkeep.db(), now).await?;
    deleted_rows += edges::purge(upkeep.db(), now.seconds()).await?;
    // The versions of tombstones are times in milliseconds.
    deleted_rows +=
        tombstones::purge(upkeep.db(), Version::new(now.millis().saturating_sub(journal::MARK_RETENTION_MS)))
            .await?;
    upkeep.commit().await?;
    Ok(deleted_rows + purge_bundle_rows(service, now).await?)
}

/// Deletes the expired rows that are part of the bundle, under a new version if there are any.
async fn purge_bundle_rows(service: &Service, now: UnixMillis) -> Result<u64, StoreError> {
    let mut upkeep = service.upkeep().await?;
    let version = upkeep.allocate_version(service.now()).await?;
    let before = purge_threshold(now);
    let deleted_rows = revocations::purge(upkeep.db(), before).await?
        + watermarks::purge(upkeep.db(), before).await?
        + blocks::purge(upkeep.db(), before).await?;
    if deleted_rows > 0 {
        versions::mark_purged(upkeep.db(), version, before).await?;
        upkeep.commit().await?;
    }
    Ok(deleted_rows)
}

/// Returns the time that has passed: the clock's time, but advancing at most twice as fast as the uptime of servers. A
/// clock that is years ahead for an hour advances it by two hours. After a long stop it catches up, which only delays the
/// purge.
async fn advance_passed_time(service: &Service) -> Result<UnixMillis, StoreError> {
    let mut seen = service.seen.lock().await;
    let mut upkeep = service.upkeep().await?;
    upkeep.lock_version().await?;
    let uptime = service.clock().uptime();
    let held = versions::passed_time(upkeep.db()).await?;
    let reached = seen.map_or(held, |(at, then)| at.plus(uptime.saturating_sub(then).saturating_mul(2)));
    let now = service.now();
    let passed = held.max(reached).min(now);
    if passed > held {
        versions::set_passed_time(upkeep.db(), passed).await?;
        upkeep.commit().await?;
    }
    *seen = Some((passed, uptime));
    Ok(passed)
}

/// Returns the second before which expired credentials can be purged.
const fn purge_threshold(now: UnixMillis) -> UnixSeconds {
    now.seconds().saturating_sub(EXPIRED_RETENTION_SECS)
}

/// Returns the time before which audit entries are deleted.
fn audit_retention_start(service: &Service, now: UnixMillis) -> UnixMillis {
    let retention = u64::try_from(service.config.audit.retention.get().as_millis()).unwrap_or(u64::MAX);
    UnixMillis::from_millis(now.millis().saturating_sub(retention))
}
