use super::Service;
use crate::{
    clock::Time,
    journal,
    store::{
        StoreError, audit, blocks, edges, issued, revocations, shares, tombstones, versions, watermarks,
    },
};

/// Forgets what time has made meaningless. Returns how many rows went.
///
/// Not by the clock alone, which may have been set ahead, but by the time that servers have seen passing: see [`passed`].
pub async fn collect(service: &Service) -> Result<u64, StoreError> {
    let now = passed(service).await?;
    let mut gone = 0;
    loop {
        // In portions: who issues a token meanwhile waits for one of them, not for all.
        let mut write = service.store.write().await?;
        let portion = issued::collect(&mut write, expired(now)).await?;
        write.commit().await?;
        gone += portion;
        if portion < issued::PORTION {
            break;
        }
    }
    let mut write = service.store.write().await?;
    gone += audit::collect(&mut write, oldest_line(service, now)).await?;
    gone += shares::collect(&mut write, now).await?;
    gone += edges::collect(&mut write, now.seconds()).await?;
    // The versions of tombstones are times in milliseconds.
    gone += tombstones::collect(&mut write, now.millis().saturating_sub(journal::KEPT)).await?;
    write.commit().await?;
    Ok(gone + from_bundle(service, now).await?)
}

/// A new version, if there is anything that edges need no longer know.
async fn from_bundle(service: &Service, now: Time) -> Result<u64, StoreError> {
    let mut write = service.store.write().await?;
    let version = versions::next(&mut write, service.now()).await?;
    let before = expired(now);
    let gone = revocations::collect(&mut write, before).await?
        + watermarks::collect(&mut write, before).await?
        + blocks::collect(&mut write, before).await?;
    if gone > 0 {
        versions::collected(&mut write, version, before).await?;
        write.commit().await?;
    }
    Ok(gone)
}

/// Until when time has passed: the clock's time, but at most twice as fast as it passed while servers ran. So a clock that
/// is ahead by years for an hour moves it by two hours; after a stop it catches up, and only what is collected is late.
async fn passed(service: &Service) -> Result<Time, StoreError> {
    let mut seen = service.seen.lock().await;
    let mut write = service.store.write().await?;
    versions::lock(&mut write).await?;
    let uptime = service.clock().uptime();
    let held = versions::passed(&mut write).await?;
    let reached = seen.map_or(held, |(at, then)| at.plus(uptime.saturating_sub(then).saturating_mul(2)));
    let now = service.now();
    let passed = held.max(reached).min(now);
    if passed > held {
        versions::has_passed(&mut write, passed).await?;
        write.commit().await?;
    }
    *seen = Some((passed, uptime));
    Ok(passed)
}

/// Whatever expired before this second no edge admits: 300 seconds is the most leeway it can be given. A day is left for
/// a clock that is ahead to be noticed and put right, as what is forgotten here can't be brought back.
const fn expired(now: Time) -> u64 {
    now.seconds().saturating_sub(KEPT)
}

/// For how long edges know of a revocation after its credential has expired.
pub(super) const KEPT: u64 = 300 + 86_400;

fn oldest_line(service: &Service, now: Time) -> Time {
    let retention = u64::try_from(service.config.audit.retention.get().as_millis()).unwrap_or(u64::MAX);
    Time::from_millis(now.millis().saturating_sub(retention))
}
