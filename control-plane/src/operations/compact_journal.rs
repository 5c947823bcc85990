use super::{Service, restore::compare};
use crate::{
    journal::CatchUpError,
    store::{gaps, grants, revocations, tombstones, watermarks},
};

/// Compacts the journal if it has grown to more than twice the size that it needs. Returns whether it was compacted.
pub async fn compact_journal_if_due(service: &Service) -> Result<bool, CatchUpError> {
    let mut read = service.store.read().await?;
    let entries = revocations::count_since(&mut read, 0).await?
        + watermarks::count_since(&mut read, 0).await?
        + tombstones::count(&mut read).await?
        + grants::count(&mut read).await?;
    drop(read);
    if !service.journal.needs_compaction(entries) {
        return Ok(false);
    }
    compact_journal(service).await
}

/// Rewrites the journal from the store, without obsolete entries. Returns `false` and changes nothing if the store lacks
/// journal entries: it was restored from a backup, and is not repaired yet.
pub async fn compact_journal(service: &Service) -> Result<bool, CatchUpError> {
    let Some(recorded) = service.journal.read().await? else { return Ok(false) };
    // The store is read after the journal, so it has all journal entries unless it was restored.
    let mut read = service.store.read().await?;
    let is_repaired = gaps::list(&mut read).await?.iter().all(|gap| gap.version.is_some());
    if !is_repaired || !compare(&mut read, &recorded).await?.is_nothing() {
        return Ok(false);
    }
    service.journal.compact(&mut read, &recorded, service.now()).await
}
