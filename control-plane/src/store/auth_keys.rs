use sqlx::{any::AnyRow, query};
use token::secret::SecretHash;

use super::{Lookup, StoreError, Write, row, tombstones};
use crate::model::{AuthKey, AuthKeyId, Gone, OperatorId, Page, Paged, Subject, UserName};

pub async fn insert(write: &mut Write, key: &AuthKey) -> Result<(), StoreError> {
    let AuthKey { id, subject, secret_hash, created_by, created_at, last_used_at } = key;
    query(
        "INSERT INTO auth_keys (auth_key_id, operator_id, user_name, secret_hash, created_at, last_used_at, created_by) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(id.as_str())
    .bind(subject.operator.as_str())
    .bind(subject.user.as_ref().map(UserName::as_str))
    .bind(row::hex32(secret_hash.as_bytes()))
    .bind(row::signed(*created_at))
    .bind(last_used_at.map(row::signed))
    .bind(created_by.as_deref())
    .execute(write.connection())
    .await?;
    Ok(())
}

pub async fn find(lookup: &mut impl Lookup, id: &AuthKeyId) -> Result<Option<AuthKey>, StoreError> {
    let row = query(
        "SELECT auth_key_id, operator_id, user_name, secret_hash, created_by, created_at, last_used_at \
         FROM auth_keys WHERE auth_key_id = $1",
    )
    .bind(id.as_str())
    .fetch_optional(lookup.on())
    .await?;
    row.as_ref().map(read).transpose()
}

/// The AuthKeys of an operator and its users, or of all, in the order they were made.
pub async fn list(lookup: &mut impl Lookup, of: Option<&OperatorId>) -> Result<Vec<AuthKey>, StoreError> {
    let rows = query(
        "SELECT auth_key_id, operator_id, user_name, secret_hash, created_by, created_at, last_used_at \
         FROM auth_keys WHERE $1 = '' OR operator_id = $1 ORDER BY created_at, auth_key_id",
    )
    .bind(of.map_or("", OperatorId::as_str))
    .fetch_all(lookup.on())
    .await?;
    rows.iter().map(read).collect()
}

/// A page of the AuthKeys of an operator or of all, in the order they were made; of the root users only with `roots`.
pub async fn page(
    lookup: &mut impl Lookup,
    of: Option<&OperatorId>,
    roots: bool,
    page: &Page,
) -> Result<Paged<AuthKey>, StoreError> {
    let (created_at, id) = page.after_pair()?.unwrap_or((-1, ""));
    let rows = query(
        "SELECT auth_key_id, operator_id, user_name, secret_hash, created_by, created_at, last_used_at \
         FROM auth_keys WHERE ($1 = '' OR operator_id = $1) AND ($2 = 0 OR user_name IS NULL) \
         AND (created_at > $3 OR (created_at = $3 AND auth_key_id > $4)) \
         ORDER BY created_at, auth_key_id LIMIT $5",
    )
    .bind(of.map_or("", OperatorId::as_str))
    .bind(i64::from(roots))
    .bind(created_at)
    .bind(id)
    .bind(page.rows())
    .fetch_all(lookup.on())
    .await?;
    let keys = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    Ok(page.of(keys, |key| format!("{}.{}", key.created_at, key.id)))
}

/// How many a user has, counted up to `limit`.
pub async fn count(lookup: &mut impl Lookup, subject: &Subject, limit: u64) -> Result<u64, StoreError> {
    let found = query(
        "SELECT COUNT(*) AS number FROM (SELECT 1 AS one FROM auth_keys \
         WHERE operator_id = $1 AND COALESCE(user_name, '') = $2 LIMIT $3) AS counted",
    )
    .bind(subject.operator.as_str())
    .bind(subject.user.as_ref().map_or("", UserName::as_str))
    .bind(row::signed(limit))
    .fetch_one(lookup.on())
    .await?;
    row::unsigned(&found, "number")
}

/// Those that somebody made since an instant, for whomever.
pub async fn created_by(
    lookup: &mut impl Lookup,
    creator: &str,
    since: u64,
) -> Result<Vec<AuthKey>, StoreError> {
    let rows = query(
        "SELECT auth_key_id, operator_id, user_name, secret_hash, created_by, created_at, last_used_at \
         FROM auth_keys WHERE created_by = $1 AND created_at >= $2 ORDER BY created_at, auth_key_id",
    )
    .bind(creator)
    .bind(row::signed(since))
    .fetch_all(lookup.on())
    .await?;
    rows.iter().map(read).collect()
}

/// Whether there was one.
pub async fn delete(write: &mut Write, id: &AuthKeyId) -> Result<bool, StoreError> {
    let gone = query("DELETE FROM auth_keys WHERE auth_key_id = $1 RETURNING auth_key_id, created_at")
        .bind(id.as_str())
        .fetch_all(write.connection())
        .await?;
    Ok(bury(write, &gone).await? == 1)
}

/// Those of a user; of everybody in the operator for None. Returns how many.
pub async fn delete_all(
    write: &mut Write,
    operator: &OperatorId,
    user: Option<&UserName>,
) -> Result<u64, StoreError> {
    let gone = query(
        "DELETE FROM auth_keys WHERE operator_id = $1 AND ($2 = '' OR user_name = $2) \
         RETURNING auth_key_id, created_at",
    )
    .bind(operator.as_str())
    .bind(user.map_or("", UserName::as_str))
    .fetch_all(write.connection())
    .await?;
    bury(write, &gone).await
}

async fn bury(write: &mut Write, gone: &[AnyRow]) -> Result<u64, StoreError> {
    for from in gone {
        let (id, at) = (row::text(from, "auth_key_id")?, row::unsigned(from, "created_at")?);
        tombstones::bury(write, Gone::AuthKey, &id, at).await?;
    }
    Ok(u64::try_from(gone.len()).unwrap_or(u64::MAX))
}

/// A later use never becomes an earlier one.
pub async fn used(write: &mut Write, id: &AuthKeyId, at: u64) -> Result<(), StoreError> {
    query("UPDATE auth_keys SET last_used_at = $2 WHERE auth_key_id = $1 AND (last_used_at IS NULL OR last_used_at < $2)")
        .bind(id.as_str())
        .bind(row::signed(at))
        .execute(write.connection())
        .await?;
    Ok(())
}

fn read(from: &AnyRow) -> Result<AuthKey, StoreError> {
    Ok(AuthKey {
        id: row::parsed(from, "auth_key_id")?,
        subject: row::subject(from)?,
        secret_hash: SecretHash::from_bytes(row::hash(from, "secret_hash")?),
        created_by: row::optional_text(from, "created_by")?,
        created_at: row::unsigned(from, "created_at")?,
        last_used_at: row::optional_unsigned(from, "last_used_at")?,
    })
}
