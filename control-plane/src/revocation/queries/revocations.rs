//! Revocations by fingerprint.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use sqlx::{AssertSqlSafe, Row as _, any::AnyRow, query};
use token::Fingerprint;

use crate::{
    db::{Executor, StoreError, Write, prefix_paging, row, versions},
    domain::{FingerprintStatus, Issuance, ListedChange, Revocation, RevocationChange, UnixSeconds, Version},
};

/// The condition that a block of the base covers the credential of revocation `r`, and was built after the revocation.
macro_rules! covered_by_base_sql {
    () => {
        "EXISTS (SELECT 1 FROM issued i JOIN block_coverage c ON c.kid = i.kid AND c.high >= i.issued_at \
         AND c.low <= i.issued_at \
         JOIN blocks b ON b.expires_from = c.expires_from \
         WHERE i.prefix = r.prefix AND i.fingerprint = r.fingerprint \
         AND i.expires_at >= b.expires_from AND r.version <= b.as_of \
         AND (i.expires_at < b.expires_before OR b.expires_before = 9223372036854775807))"
    };
}

/// The result of an insert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevokeOutcome {
    /// The fingerprint is revoked from now on.
    Revoked,
    /// The fingerprint was revoked before.
    AlreadyRevoked,
    /// Another credential has the same fingerprint prefix, and would be refused too.
    PrefixTaken,
}

/// Inserts a revocation.
pub async fn insert(
    write: &mut Write,
    revocation: &Revocation,
    version: Version,
) -> Result<RevokeOutcome, StoreError> {
    let Revocation { fingerprint, expires_at, reason, revoked_at } = revocation;
    let done = query(
        "INSERT INTO revocations (prefix, fingerprint, expires_at, version, reason, revoked_at) \
         SELECT $1, $2, $3, $4, $5, $6 \
         WHERE NOT EXISTS (SELECT 1 FROM issued WHERE prefix = $1 AND fingerprint <> $2) \
         ON CONFLICT (prefix) DO UPDATE SET expires_at = excluded.expires_at, version = excluded.version, \
         reason = excluded.reason, revoked_at = excluded.revoked_at, restored_at = NULL \
         WHERE revocations.fingerprint = excluded.fingerprint AND revocations.restored_at IS NOT NULL",
    )
    .bind(row::prefix_to_column(fingerprint))
    .bind(fingerprint.to_string())
    .bind(row::to_column(*expires_at))
    .bind(row::to_column(version))
    .bind(reason.as_deref())
    .bind(row::to_column(*revoked_at))
    .execute(write.connection())
    .await?;
    if done.rows_affected() == 1 {
        Ok(RevokeOutcome::Revoked)
    } else if find(write, fingerprint).await?.is_some() {
        Ok(RevokeOutcome::AlreadyRevoked)
    } else {
        Ok(RevokeOutcome::PrefixTaken)
    }
}

/// Changes the reason of a revocation, with a new version, so that the journal records it.
pub async fn update_reason(
    write: &mut Write,
    fingerprint: &Fingerprint,
    reason: Option<&str>,
    at: UnixSeconds,
    version: Version,
) -> Result<(), StoreError> {
    query(
        "UPDATE revocations SET reason = $3, revoked_at = $4, version = $5 \
         WHERE prefix = $1 AND fingerprint = $2 AND restored_at IS NULL",
    )
    .bind(row::prefix_to_column(fingerprint))
    .bind(fingerprint.to_string())
    .bind(reason)
    .bind(row::to_column(at))
    .bind(row::to_column(version))
    .execute(write.connection())
    .await?;
    Ok(())
}

/// Takes a revocation back, and makes the version a checkpoint. Returns whether the fingerprint was revoked.
pub async fn unrevoke(
    write: &mut Write,
    fingerprint: &Fingerprint,
    at: UnixSeconds,
    version: Version,
) -> Result<bool, StoreError> {
    let done = query(
        "UPDATE revocations SET restored_at = $3, version = $4 \
         WHERE prefix = $1 AND fingerprint = $2 AND restored_at IS NULL",
    )
    .bind(row::prefix_to_column(fingerprint))
    .bind(fingerprint.to_string())
    .bind(row::to_column(at))
    .bind(row::to_column(version))
    .execute(write.connection())
    .await?;
    let was_revoked = done.rows_affected() == 1;
    if was_revoked {
        // The tail cannot express an un-revocation.
        versions::mark_checkpoint(write, version).await?;
    }
    Ok(was_revoked)
}

/// Finds the revocation of a fingerprint; `None` if it is not revoked.
pub async fn find(
    executor: &mut impl Executor,
    fingerprint: &Fingerprint,
) -> Result<Option<Revocation>, StoreError> {
    let found = query(
        "SELECT fingerprint, expires_at, reason, revoked_at FROM revocations \
               WHERE prefix = $1 AND fingerprint = $2 AND restored_at IS NULL",
    )
    .bind(row::prefix_to_column(fingerprint))
    .bind(fingerprint.to_string())
    .fetch_optional(executor.connection())
    .await?;
    found.as_ref().map(parse_row).transpose()
}

/// Returns which of these fingerprints are revoked.
pub async fn find_revoked(
    executor: &mut impl Executor,
    fingerprints: &[Fingerprint],
) -> Result<HashSet<Fingerprint>, StoreError> {
    if fingerprints.is_empty() {
        return Ok(HashSet::new());
    }
    let prefixes = row::parameters("$", fingerprints.len());
    let statement =
        format!("SELECT fingerprint FROM revocations WHERE restored_at IS NULL AND prefix IN ({prefixes})");
    let mut found = query(AssertSqlSafe(statement)).persistent(false);
    for fingerprint in fingerprints {
        found = found.bind(row::prefix_to_column(fingerprint));
    }
    let rows = found.fetch_all(executor.connection()).await?;
    // Another fingerprint may have the same prefix, and is not in the list.
    rows.iter().map(|from| row::parsed_text(from, "fingerprint")).collect()
}

/// Returns the changes after a version that no block of the base covers: the latest of each fingerprint.
pub async fn since(executor: &mut impl Executor, version: Version) -> Result<Vec<ListedChange>, StoreError> {
    let mut changes = Vec::new();
    let mut after = Some(row::to_column(version));
    while let Some(low) = after {
        let high = last_of_page(executor, low).await?;
        let rows = query(concat!(
            "SELECT r.fingerprint, r.expires_at, r.reason, r.revoked_at, r.restored_at, r.version, \
             k.kid, k.issued_at, k.expires_at AS issued_until FROM revocations r \
             LEFT JOIN issued k ON k.prefix = r.prefix AND k.fingerprint = r.fingerprint \
             WHERE r.version > $1 AND r.version <= $2 AND (r.restored_at IS NOT NULL OR NOT ",
            covered_by_base_sql!(),
            ") ORDER BY r.version, r.prefix"
        ))
        .bind(low)
        .bind(high)
        .fetch_all(executor.connection())
        .await?;
        for row in &rows {
            changes.push(parse_listed(row)?);
        }
        after = (high < i64::MAX).then_some(high);
    }
    Ok(changes)
}

/// Returns the last version of the page of changes after a version. The changes of one version are not divided.
async fn last_of_page(executor: &mut impl Executor, after: i64) -> Result<i64, StoreError> {
    let last = query("SELECT version FROM revocations WHERE version > $1 ORDER BY version LIMIT 1 OFFSET $2")
        .bind(after)
        .bind(row::to_column(row::BATCH_SIZE))
        .fetch_optional(executor.connection())
        .await?;
    Ok(last.map_or(Ok(i64::MAX), |row| row.try_get("version"))?)
}

/// Returns the status of every fingerprint that has changed after a version. Compaction reads millions.
pub async fn statuses_since(
    executor: &mut impl Executor,
    version: Version,
) -> Result<Vec<FingerprintStatus>, StoreError> {
    let revoked = "SELECT string_agg(fingerprint || expires_at, ',') AS batch FROM revocations \
                   WHERE version > $1 AND version <= $2 AND restored_at IS NULL";
    let unrevoked = "SELECT string_agg(fingerprint || expires_at, ',') AS batch FROM revocations \
                     WHERE version > $1 AND version <= $2 AND restored_at IS NOT NULL";
    let mut statuses = Vec::new();
    let mut after = Some(row::to_column(version));
    while let Some(low) = after {
        let high = last_of_page(executor, low).await?;
        for (is_revoked, batch) in [(true, revoked), (false, unrevoked)] {
            let row = query(batch).bind(low).bind(high).fetch_one(executor.connection()).await?;
            for entry in row::parse_batch(&row::optional_text(&row, "batch")?.unwrap_or_default()) {
                let (fingerprint, expires_at) = entry?;
                statuses.push(FingerprintStatus { fingerprint, expires_at, is_revoked });
            }
        }
        after = (high < i64::MAX).then_some(high);
    }
    Ok(statuses)
}

/// Returns all changes after a version: the latest of each fingerprint, with its version.
pub async fn all_since(
    executor: &mut impl Executor,
    version: Version,
) -> Result<Vec<(Version, RevocationChange)>, StoreError> {
    let rows = query(
        "SELECT fingerprint, expires_at, reason, revoked_at, restored_at, version FROM revocations \
         WHERE version > $1 ORDER BY version, prefix",
    )
    .bind(row::to_column(version))
    .fetch_all(executor.connection())
    .await?;
    rows.iter().map(parse_change).collect()
}

/// Returns a page of the latest changes of all fingerprints, from a prefix on, and the start of the next page.
pub async fn page_by_prefix(
    executor: &mut impl Executor,
    from: u64,
) -> Result<(Vec<(Version, RevocationChange)>, Option<u64>), StoreError> {
    let (low, high) = prefix_paging::prefix_range(from);
    let rows = query(
        "SELECT fingerprint, expires_at, reason, revoked_at, restored_at, version FROM revocations \
         WHERE prefix >= $1 AND prefix <= $2 ORDER BY prefix LIMIT $3",
    )
    .bind(low)
    .bind(high)
    .bind(row::to_column(prefix_paging::PAGE_SIZE))
    .fetch_all(executor.connection())
    .await?;
    let found: Vec<(Version, RevocationChange)> =
        rows.iter().map(parse_change).collect::<Result<_, StoreError>>()?;
    let next = prefix_paging::next(from, found.last().map(|(_, change)| change.fingerprint()), found.len());
    Ok((found, next))
}

/// Gives the revocations that the base covers a new version, before the blocks are deleted.
pub async fn renew_covered(write: &mut Write, version: Version) -> Result<(), StoreError> {
    query(concat!(
        "UPDATE revocations SET version = $1 WHERE prefix IN \
         (SELECT r.prefix FROM revocations r WHERE r.restored_at IS NULL AND ",
        covered_by_base_sql!(),
        ")"
    ))
    .bind(row::to_column(version))
    .execute(write.connection())
    .await?;
    Ok(())
}

/// Counts the revocations of own tokens after a version, up to a limit. The base covers no API keys.
pub async fn count_own_since(
    executor: &mut impl Executor,
    version: Version,
    limit: u64,
) -> Result<u64, StoreError> {
    let row = query(
        "SELECT COUNT(*) AS number FROM (SELECT 1 AS one FROM revocations r \
         JOIN issued i ON i.prefix = r.prefix AND i.fingerprint = r.fingerprint \
         WHERE r.version > $1 AND r.restored_at IS NULL AND i.kid IN (SELECT kid FROM signing_keys) \
         LIMIT $2) AS own",
    )
    .bind(row::to_column(version))
    .bind(row::to_column(limit))
    .fetch_one(executor.connection())
    .await?;
    row::from_column(&row, "number")
}

/// Counts the changes of revocations and watermarks after each of these versions.
pub async fn count_changes_since(
    executor: &mut impl Executor,
    versions: &BTreeSet<Version>,
) -> Result<BTreeMap<Version, u64>, StoreError> {
    if versions.is_empty() {
        return Ok(BTreeMap::new());
    }
    let statement = format!(
        "SELECT v.column1 AS version, (SELECT COUNT(*) FROM revocations r WHERE r.version > v.column1) \
         + (SELECT COUNT(*) FROM watermarks w WHERE w.version > v.column1) AS changes FROM (VALUES {}) AS v",
        row::parameters("($)", versions.len())
    );
    let mut counts = query(AssertSqlSafe(statement)).persistent(false);
    for version in versions {
        counts = counts.bind(row::to_column(*version));
    }
    let rows = counts.fetch_all(executor.connection()).await?;
    rows.iter()
        .map(|from| Ok((row::from_column(from, "version")?, row::from_column(from, "changes")?)))
        .collect()
}

/// Counts the revocations in effect.
pub async fn count(executor: &mut impl Executor) -> Result<u64, StoreError> {
    row::count(executor, "SELECT COUNT(*) AS number FROM revocations WHERE restored_at IS NULL").await
}

/// Deletes the revocations of credentials that expired before a second, and returns their number.
pub async fn purge(write: &mut Write, before: UnixSeconds) -> Result<u64, StoreError> {
    let done = query("DELETE FROM revocations WHERE expires_at < $1")
        .bind(row::to_column(before))
        .execute(write.connection())
        .await?;
    Ok(done.rows_affected())
}

/// Reads a change with its version.
fn parse_change(from: &AnyRow) -> Result<(Version, RevocationChange), StoreError> {
    let change = match row::optional_from_column::<u64>(from, "restored_at")? {
        None => RevocationChange::Revoked(parse_row(from)?),
        Some(_) => RevocationChange::Restored {
            fingerprint: row::parsed_text(from, "fingerprint")?,
            expires_at: row::from_column(from, "expires_at")?,
        },
    };
    Ok((row::from_column(from, "version")?, change))
}

fn parse_listed(from: &AnyRow) -> Result<ListedChange, StoreError> {
    let (version, change) = parse_change(from)?;
    let issuance = match row::optional_text(from, "kid")? {
        None => None,
        Some(kid) => Some(Issuance {
            kid,
            issued_at: row::from_column(from, "issued_at")?,
            expires_at: row::from_column(from, "issued_until")?,
        }),
    };
    Ok(ListedChange { version, change, issuance })
}

fn parse_row(from: &AnyRow) -> Result<Revocation, StoreError> {
    Ok(Revocation {
        fingerprint: row::parsed_text(from, "fingerprint")?,
        expires_at: row::from_column(from, "expires_at")?,
        reason: row::optional_text(from, "reason")?,
        revoked_at: row::from_column(from, "revoked_at")?,
    })
}
