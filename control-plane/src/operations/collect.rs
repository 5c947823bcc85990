use super::{Lifetime, Service};
use crate::{
    clock::Time,
    store::{StoreError, audit, blocks, edges, issued, revocations, shares, versions, watermarks},
};

/// Forgets what time has made meaningless. Returns how many rows went.
pub async fn collect(service: &Service) -> Result<u64, StoreError> {
    let now = service.now();
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
    write.commit().await?;
    Ok(gone + from_bundle(service, now).await?)
}

/// A new version, if there is anything that edges need no longer know.
async fn from_bundle(service: &Service, now: Time) -> Result<u64, StoreError> {
    let mut write = service.store.write().await?;
    let version = versions::next(&mut write, now).await?;
    let before = expired(now);
    let moot = before.saturating_sub(Lifetime::LONGEST.seconds());
    let gone = revocations::collect(&mut write, before).await?
        + watermarks::collect(&mut write, moot).await?
        + blocks::collect(&mut write, before).await?;
    if gone > 0 {
        versions::collected(&mut write, version, before).await?;
        write.commit().await?;
    }
    Ok(gone)
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
