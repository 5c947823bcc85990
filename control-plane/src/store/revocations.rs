use sqlx::{any::AnyRow, query};
use token::Fingerprint;

use super::{Lookup, StoreError, Write, issued::in_order, row, versions};
use crate::model::{Revocation, RevocationChange};

/// Whether a block of the base covers the credential of revocation `r`, and was built when it was revoked already.
macro_rules! covered {
    () => {
        "EXISTS (SELECT 1 FROM issued i JOIN block_coverage c ON c.kid = i.kid AND c.high >= i.issued_at \
         JOIN blocks b ON b.expires_from = c.expires_from \
         WHERE i.prefix = r.prefix AND i.fingerprint = r.fingerprint \
         AND i.expires_at >= b.expires_from AND r.version <= b.as_of \
         AND (i.expires_at < b.expires_before OR b.expires_before = 9223372036854775807))"
    };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inserted {
    Yes,
    /// It is revoked already.
    Before,
    /// The prefix belongs to another credential, which would be refused too.
    PrefixTaken,
}

pub async fn insert(
    write: &mut Write,
    revocation: &Revocation,
    version: u64,
) -> Result<Inserted, StoreError> {
    let Revocation { fingerprint, expires_at, reason, revoked_at } = revocation;
    let done = query(
        "INSERT INTO revocations (prefix, fingerprint, expires_at, version, reason, revoked_at) \
         SELECT $1, $2, $3, $4, $5, $6 \
         WHERE NOT EXISTS (SELECT 1 FROM issued WHERE prefix = $1 AND fingerprint <> $2) \
         ON CONFLICT (prefix) DO UPDATE SET expires_at = excluded.expires_at, version = excluded.version, \
         reason = excluded.reason, revoked_at = excluded.revoked_at, restored_at = NULL \
         WHERE revocations.fingerprint = excluded.fingerprint AND revocations.restored_at IS NOT NULL",
    )
    .bind(row::prefix(fingerprint))
    .bind(fingerprint.to_string())
    .bind(row::signed(*expires_at))
    .bind(row::signed(version))
    .bind(reason.as_deref())
    .bind(row::signed(*revoked_at))
    .execute(write.connection())
    .await?;
    if done.rows_affected() == 1 {
        Ok(Inserted::Yes)
    } else if find(write, fingerprint).await?.is_some() {
        Ok(Inserted::Before)
    } else {
        Ok(Inserted::PrefixTaken)
    }
}

/// Gives a revocation that holds another reason, as a change that edges and the journal hear of.
pub async fn confirm(
    write: &mut Write,
    fingerprint: &Fingerprint,
    reason: Option<&str>,
    at: u64,
    version: u64,
) -> Result<(), StoreError> {
    query(
        "UPDATE revocations SET reason = $3, revoked_at = $4, version = $5 \
         WHERE prefix = $1 AND fingerprint = $2 AND restored_at IS NULL",
    )
    .bind(row::prefix(fingerprint))
    .bind(fingerprint.to_string())
    .bind(reason)
    .bind(row::signed(at))
    .bind(row::signed(version))
    .execute(write.connection())
    .await?;
    Ok(())
}

/// Takes a revocation back, in a version that is a checkpoint from now on. Whether there was one.
pub async fn restore(
    write: &mut Write,
    fingerprint: &Fingerprint,
    at: u64,
    version: u64,
) -> Result<bool, StoreError> {
    let done = query(
        "UPDATE revocations SET restored_at = $3, version = $4 \
         WHERE prefix = $1 AND fingerprint = $2 AND restored_at IS NULL",
    )
    .bind(row::prefix(fingerprint))
    .bind(fingerprint.to_string())
    .bind(row::signed(at))
    .bind(row::signed(version))
    .execute(write.connection())
    .await?;
    let held = done.rows_affected() == 1;
    if held {
        // The tail can't take anything back.
        versions::settle(write, version).await?;
    }
    Ok(held)
}

/// The revocation that holds, if any.
pub async fn find(
    lookup: &mut impl Lookup,
    fingerprint: &Fingerprint,
) -> Result<Option<Revocation>, StoreError> {
    let found = query(
        "SELECT fingerprint, expires_at, reason, revoked_at FROM revocations \
               WHERE prefix = $1 AND fingerprint = $2 AND restored_at IS NULL",
    )
    .bind(row::prefix(fingerprint))
    .bind(fingerprint.to_string())
    .fetch_optional(lookup.on())
    .await?;
    found.as_ref().map(read).transpose()
}

/// What changed after a version and no block of the base says already: of each fingerprint the latest, with the version.
pub async fn since(
    lookup: &mut impl Lookup,
    version: u64,
) -> Result<Vec<(u64, RevocationChange)>, StoreError> {
    let rows = query(concat!(
        "SELECT r.fingerprint, r.expires_at, r.reason, r.revoked_at, r.restored_at, r.version FROM revocations r \
         WHERE r.version > $1 AND (r.restored_at IS NOT NULL OR NOT ",
        covered!(),
        ") ORDER BY r.version, r.prefix"
    ))
    .bind(row::signed(version))
    .fetch_all(lookup.on())
    .await?;
    rows.iter().map(change).collect()
}

/// What changed after a version, said by a block of the base or not: of each fingerprint the latest, with the version.
pub async fn all_since(
    lookup: &mut impl Lookup,
    version: u64,
) -> Result<Vec<(u64, RevocationChange)>, StoreError> {
    let rows = query(
        "SELECT fingerprint, expires_at, reason, revoked_at, restored_at, version FROM revocations \
         WHERE version > $1 ORDER BY version, prefix",
    )
    .bind(row::signed(version))
    .fetch_all(lookup.on())
    .await?;
    rows.iter().map(change).collect()
}

/// Reads the latest change of every fingerprint, in portions: those from `from` on, and the prefix to go on from.
pub async fn portion(
    lookup: &mut impl Lookup,
    from: u64,
) -> Result<(Vec<(u64, RevocationChange)>, Option<u64>), StoreError> {
    let (low, high) = in_order::range(from);
    let rows = query(
        "SELECT fingerprint, expires_at, reason, revoked_at, restored_at, version FROM revocations \
         WHERE prefix >= $1 AND prefix <= $2 ORDER BY prefix LIMIT $3",
    )
    .bind(low)
    .bind(high)
    .bind(row::signed(in_order::PORTION))
    .fetch_all(lookup.on())
    .await?;
    let found: Vec<(u64, RevocationChange)> = rows.iter().map(change).collect::<Result<_, StoreError>>()?;
    let next = in_order::next(from, found.last().map(|(_, change)| change.fingerprint()), found.len());
    Ok((found, next))
}

/// Revocations that a block of the base says, from this prefix on: a portion, and the prefix to go on from.
pub async fn in_the_base(
    lookup: &mut impl Lookup,
    from: u64,
) -> Result<(Vec<(u64, Fingerprint)>, Option<u64>), StoreError> {
    let (low, high) = in_order::range(from);
    let rows = query(concat!(
        "SELECT r.fingerprint, r.expires_at FROM revocations r \
         WHERE r.restored_at IS NULL AND r.prefix >= $1 AND r.prefix <= $2 AND ",
        covered!(),
        " ORDER BY r.prefix LIMIT $3"
    ))
    .bind(low)
    .bind(high)
    .bind(row::signed(in_order::PORTION))
    .fetch_all(lookup.on())
    .await?;
    let found: Vec<(u64, Fingerprint)> = rows
        .iter()
        .map(|from| Ok((row::unsigned(from, "expires_at")?, row::parsed(from, "fingerprint")?)))
        .collect::<Result<_, StoreError>>()?;
    let next = in_order::next(from, found.last().map(|(_, fingerprint)| fingerprint), found.len());
    Ok((found, next))
}

/// Makes what the base says news again, for the blocks that say it are to go.
pub async fn tell_again(write: &mut Write, version: u64) -> Result<(), StoreError> {
    query(concat!(
        "UPDATE revocations SET version = $1 WHERE prefix IN \
         (SELECT r.prefix FROM revocations r WHERE r.restored_at IS NULL AND ",
        covered!(),
        ")"
    ))
    .bind(row::signed(version))
    .execute(write.connection())
    .await?;
    Ok(())
}

/// Of how many revocations the tokens are known, so that a base could take them in: which each expire, and how many.
pub async fn outside_the_base(lookup: &mut impl Lookup, kids: &[String]) -> Result<Vec<u64>, StoreError> {
    let mut expiries = Vec::new();
    for kid in kids {
        let rows = query(concat!(
            "SELECT k.expires_at FROM revocations r \
             JOIN issued k ON k.prefix = r.prefix AND k.fingerprint = r.fingerprint AND k.kid = $1 \
             WHERE r.restored_at IS NULL AND NOT ",
            covered!()
        ))
        .bind(kid.as_str())
        .fetch_all(lookup.on())
        .await?;
        for row in &rows {
            expiries.push(row::unsigned(row, "expires_at")?);
        }
    }
    Ok(expiries)
}

pub async fn count_since(lookup: &mut impl Lookup, version: u64) -> Result<u64, StoreError> {
    let row = query("SELECT COUNT(*) AS changes FROM revocations WHERE version > $1")
        .bind(row::signed(version))
        .fetch_one(lookup.on())
        .await?;
    row::unsigned(&row, "changes")
}

/// How many hold.
pub async fn count(lookup: &mut impl Lookup) -> Result<u64, StoreError> {
    row::count(lookup, "SELECT COUNT(*) AS number FROM revocations WHERE restored_at IS NULL").await
}

/// Forgets those whose credential has expired by itself; returns how many.
pub async fn collect(write: &mut Write, before: u64) -> Result<u64, StoreError> {
    let done = query("DELETE FROM revocations WHERE expires_at < $1")
        .bind(row::signed(before))
        .execute(write.connection())
        .await?;
    Ok(done.rows_affected())
}

/// With the version.
fn change(from: &AnyRow) -> Result<(u64, RevocationChange), StoreError> {
    let change = match row::optional_unsigned(from, "restored_at")? {
        None => RevocationChange::Revoked(read(from)?),
        Some(_) => RevocationChange::Restored {
            fingerprint: row::parsed(from, "fingerprint")?,
            expires_at: row::unsigned(from, "expires_at")?,
        },
    };
    Ok((row::unsigned(from, "version")?, change))
}

fn read(from: &AnyRow) -> Result<Revocation, StoreError> {
    Ok(Revocation {
        fingerprint: row::parsed(from, "fingerprint")?,
        expires_at: row::unsigned(from, "expires_at")?,
        reason: row::optional_text(from, "reason")?,
        revoked_at: row::unsigned(from, "revoked_at")?,
    })
}
