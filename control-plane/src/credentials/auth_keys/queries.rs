//! AuthKeys.

use sqlx::{any::AnyRow, query};
use token::secret::SecretHash;

use crate::{
    db::{Executor, StoreError, Write, row},
    domain::{
        AuthKey, AuthKeyId, OperatorId, Page, PageRequest, Subject, TombstoneKind, UnixSeconds, UserName,
    },
    journal::tombstones,
};

macro_rules! select {
    () => {
        "SELECT auth_key_id, operator_id, user_name, secret_hash, created_by, created_at, last_used_at FROM auth_keys "
    };
}

/// Inserts an AuthKey.
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
    .bind(row::to_column(*created_at))
    .bind(last_used_at.map(row::to_column))
    .bind(created_by.as_deref())
    .execute(write.connection())
    .await?;
    Ok(())
}

/// Finds an AuthKey.
pub async fn find(executor: &mut impl Executor, id: &AuthKeyId) -> Result<Option<AuthKey>, StoreError> {
    let row = query(concat!(select!(), "WHERE auth_key_id = $1"))
        .bind(id.as_str())
        .fetch_optional(executor.connection())
        .await?;
    row.as_ref().map(parse_row).transpose()
}

/// Returns all AuthKeys of an operator and its users, or of all operators, in the order of their creation.
pub async fn list(executor: &mut impl Executor, of: Option<&OperatorId>) -> Result<Vec<AuthKey>, StoreError> {
    let rows =
        query(concat!(select!(), "WHERE $1 = '' OR operator_id = $1 ORDER BY created_at, auth_key_id"))
            .bind(of.map_or("", OperatorId::as_str))
            .fetch_all(executor.connection())
            .await?;
    rows.iter().map(parse_row).collect()
}

/// Returns a page of the AuthKeys of an operator or of all, in the order of their creation. With `roots`, returns those of
/// root users only.
pub(in crate::credentials) async fn page(
    executor: &mut impl Executor,
    of: Option<&OperatorId>,
    roots: bool,
    page: &PageRequest,
) -> Result<Page<AuthKey>, StoreError> {
    let (created_at, id) = page.after_pair()?.unwrap_or((-1, ""));
    let rows = query(concat!(
        select!(),
        "WHERE ($1 = '' OR operator_id = $1) AND ($2 = 0 OR user_name IS NULL) \
         AND (created_at > $3 OR (created_at = $3 AND auth_key_id > $4)) \
         ORDER BY created_at, auth_key_id LIMIT $5"
    ))
    .bind(of.map_or("", OperatorId::as_str))
    .bind(i64::from(roots))
    .bind(created_at)
    .bind(id)
    .bind(page.rows())
    .fetch_all(executor.connection())
    .await?;
    let keys = rows.iter().map(parse_row).collect::<Result<Vec<_>, _>>()?;
    Ok(page.paginate(keys, |key| format!("{}.{}", key.created_at, key.id)))
}

/// Counts the AuthKeys of a user, up to `limit`.
pub async fn count(executor: &mut impl Executor, subject: &Subject, limit: u64) -> Result<u64, StoreError> {
    let found = query(
        "SELECT COUNT(*) AS number FROM (SELECT 1 AS one FROM auth_keys \
         WHERE operator_id = $1 AND COALESCE(user_name, '') = $2 LIMIT $3) AS counted",
    )
    .bind(subject.operator.as_str())
    .bind(subject.user.as_ref().map_or("", UserName::as_str))
    .bind(row::to_column(limit))
    .fetch_one(executor.connection())
    .await?;
    row::from_column(&found, "number")
}

/// Returns the AuthKeys that an actor has created since an instant.
pub async fn created_by(
    executor: &mut impl Executor,
    creator: &str,
    since: UnixSeconds,
) -> Result<Vec<AuthKey>, StoreError> {
    let rows = query(concat!(
        select!(),
        "WHERE created_by = $1 AND created_at >= $2 ORDER BY created_at, auth_key_id"
    ))
    .bind(creator)
    .bind(row::to_column(since))
    .fetch_all(executor.connection())
    .await?;
    rows.iter().map(parse_row).collect()
}

/// Deletes an AuthKey. Returns whether it existed.
pub async fn delete(write: &mut Write, id: &AuthKeyId) -> Result<bool, StoreError> {
    let gone = query("DELETE FROM auth_keys WHERE auth_key_id = $1 RETURNING auth_key_id, created_at")
        .bind(id.as_str())
        .fetch_all(write.connection())
        .await?;
    Ok(insert_tombstones(write, &gone).await? == 1)
}

/// Deletes the AuthKeys of a user, or of all users of the operator. Returns their number.
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
    insert_tombstones(write, &gone).await
}

/// Writes tombstones of deleted rows. Returns their number.
async fn insert_tombstones(write: &mut Write, gone: &[AnyRow]) -> Result<u64, StoreError> {
    for from in gone {
        let (id, at) = (row::text(from, "auth_key_id")?, row::from_column(from, "created_at")?);
        tombstones::insert(write, TombstoneKind::AuthKey, &id, at).await?;
    }
    Ok(u64::try_from(gone.len()).unwrap_or(u64::MAX))
}

/// Records the last use. An earlier time changes nothing.
pub async fn record_use(write: &mut Write, id: &AuthKeyId, at: UnixSeconds) -> Result<(), StoreError> {
    query("UPDATE auth_keys SET last_used_at = $2 WHERE auth_key_id = $1 AND (last_used_at IS NULL OR last_used_at < $2)")
        .bind(id.as_str())
        .bind(row::to_column(at))
        .execute(write.connection())
        .await?;
    Ok(())
}

fn parse_row(from: &AnyRow) -> Result<AuthKey, StoreError> {
    Ok(AuthKey {
        id: row::parsed_text(from, "auth_key_id")?,
        subject: row::subject(from)?,
        secret_hash: SecretHash::from_bytes(row::hash(from, "secret_hash")?),
        created_by: row::optional_text(from, "created_by")?,
        created_at: row::from_column(from, "created_at")?,
        last_used_at: row::optional_from_column(from, "last_used_at")?,
    })
}
