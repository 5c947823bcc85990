use std::collections::BTreeSet;

use super::{find_missing_entries, queries as gaps};
use crate::{
    accounts::grants,
    db::StoreError,
    domain::Version,
    journal::{CatchUpError, tombstones},
    revocation::revocations,
    service::Service,
};

/// Compacts the journal if it has grown to more than twice the size that it needs. Returns whether it was compacted.
pub async fn compact_journal_if_due(service: &Service) -> Result<bool, CatchUpError> {
    let journal = &service.journal;
    if !journal.needs_compaction() {
        return Ok(false);
    }
    if journal.needs_estimate() {
        // Counting is slow in a large store, so it is done once.
        journal.expect_entries(count_entries(service).await?);
    }
    if journal.needs_compaction() { compact_journal(service).await } else { Ok(false) }
}

async fn count_entries(service: &Service) -> Result<u64, StoreError> {
    let mut read = service.store.read().await?;
    let changes = revocations::count_changes_since(&mut read, &BTreeSet::from([Version::ZERO])).await?;
    Ok(changes.values().sum::<u64>() + tombstones::count(&mut read).await? + grants::count(&mut read).await?)
}

/// Rewrites the journal from the store, without obsolete entries. Returns `false` and changes nothing if the store lacks
/// journal entries: it was restored from a backup, and is not repaired yet.
pub async fn compact_journal(service: &Service) -> Result<bool, CatchUpError> {
    let Some(recorded) = service.journal.read().await? else { return Ok(false) };
    // The store is read after the journal, so it has all journal entries unless it was restored.
    let mut read = service.store.read().await?;
    let is_repaired = gaps::list(&mut read).await?.iter().all(|gap| gap.version.is_some());
    if !is_repaired || !find_missing_entries(&mut read, &recorded).await?.is_empty() {
        return Ok(false);
    }
    service.journal.compact(&mut read, &recorded, service.now()).await
}
