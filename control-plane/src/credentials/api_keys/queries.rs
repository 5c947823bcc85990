//! API keys.

use sqlx::{any::AnyRow, query};
use token::Fingerprint;

use crate::{
    db::{Executor, StoreError, Write, row},
    domain::{
        ApiKey, ApiKeyId, ApiKeyState, InvalidPageRequest, OperatorId, Page, PageRequest, PresentedUsername,
        Subject, TombstoneKind, UnixMillis, UnixSeconds, UserName, WatermarkScope,
    },
    journal::tombstones,
    keys::tag_keys::parse_kind,
};

macro_rules! select {
    () => {
        "SELECT number, fingerprint, generation, format, operator_id, user_name, username, key_prefix, name, metadata, \
         state, issued_at, ends_at, expires_at, last_used_at FROM api_keys "
    };
}

/// Allocates a number: at least the milliseconds since the Unix epoch, so that even a database which was restored from a
/// backup allocates no number twice.
pub async fn next_number(write: &mut Write, now: UnixMillis) -> Result<ApiKeyId, StoreError> {
    let row = query(
        "UPDATE api_key_numbers SET last = CASE WHEN last < $1 THEN $1 ELSE last + 1 END WHERE id = 1 RETURNING last",
    )
    .bind(row::to_column(now.millis()))
    .fetch_one(write.connection())
    .await?;
    Ok(ApiKeyId(row::from_column(&row, "last")?))
}

/// Inserts an API key.
pub async fn insert(write: &mut Write, key: &ApiKey) -> Result<(), StoreError> {
    let ApiKey {
        id,
        fingerprint,
        generation,
        kind,
        owner: Subject { operator, user },
        username,
        prefix,
        name,
        metadata,
        state,
        issued_at,
        ends_at,
        expires_at,
        last_used_at,
    } = key;
    query(
        "INSERT INTO api_keys (number, fingerprint, generation, operator_id, user_name, username, key_prefix, \
         name, metadata, state, issued_at, expires_at, last_used_at, format, ends_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
    )
    .bind(row::to_column(id.0))
    .bind(fingerprint.to_string())
    .bind(i64::from(*generation))
    .bind(operator.as_str())
    .bind(user.as_ref().map(UserName::as_str))
    .bind(username.as_str())
    .bind(prefix.as_str())
    .bind(name.as_deref())
    .bind(metadata.as_ref().map(ToString::to_string))
    .bind(state_name(*state))
    .bind(row::to_column(*issued_at))
    .bind(expires_at.map(row::to_column))
    .bind(last_used_at.map(row::to_column))
    .bind(kind.name())
    .bind(ends_at.map(row::to_column))
    .execute(write.connection())
    .await?;
    Ok(())
}

/// Finds an API key by its id.
pub async fn find(executor: &mut impl Executor, id: ApiKeyId) -> Result<Option<ApiKey>, StoreError> {
    let found = query(concat!(select!(), "WHERE number = $1"))
        .bind(row::to_column(id.0))
        .fetch_optional(executor.connection())
        .await?;
    found.as_ref().map(parse_row).transpose()
}

/// Finds an API key by its fingerprint.
pub async fn find_by_fingerprint(
    executor: &mut impl Executor,
    fingerprint: &Fingerprint,
) -> Result<Option<ApiKey>, StoreError> {
    let found = query(concat!(select!(), "WHERE fingerprint = $1"))
        .bind(fingerprint.to_string())
        .fetch_optional(executor.connection())
        .await?;
    found.as_ref().map(parse_row).transpose()
}

/// Returns the API keys of a user, of an operator, or of all, in the order of their creation.
pub(in crate::credentials) async fn list(
    executor: &mut impl Executor,
    operator: Option<&OperatorId>,
    user: Option<&UserName>,
) -> Result<Vec<ApiKey>, StoreError> {
    let statement = concat!(
        select!(),
        "WHERE ($1 = '' OR operator_id = $1) AND ($2 = '' OR user_name = $2) ORDER BY number"
    );
    let rows = query(statement)
        .bind(operator.map_or("", OperatorId::as_str))
        .bind(user.map_or("", UserName::as_str))
        .fetch_all(executor.connection())
        .await?;
    rows.iter().map(parse_row).collect()
}

/// Finds a root user's key, active or disabled, that edges would assign to a user of this name. A key of format 1 is never
/// assigned to a user of the operator.
pub async fn list_by_name(
    executor: &mut impl Executor,
    operator: &OperatorId,
    name: &UserName,
) -> Result<Option<ApiKeyId>, StoreError> {
    let found = query(
        "SELECT number FROM api_keys WHERE operator_id = $1 AND user_name IS NULL AND username = $2 AND format <> '1' \
         AND state <> 'expired' ORDER BY number LIMIT 1",
    )
    .bind(operator.as_str())
    .bind(name.as_str())
    .fetch_optional(executor.connection())
    .await?;
    found.as_ref().map(|found| Ok(ApiKeyId(row::from_column(found, "number")?))).transpose()
}

/// Returns a page of the API keys of a user, of an operator, or of all, in the order of their creation.
pub(in crate::credentials) async fn page(
    executor: &mut impl Executor,
    operator: Option<&OperatorId>,
    user: Option<&UserName>,
    page: &PageRequest,
) -> Result<Page<ApiKey>, StoreError> {
    let after = match page.after() {
        Some(after) => after.parse::<ApiKeyId>().map_err(|_| InvalidPageRequest::After)?.0,
        None => 0,
    };
    let statement = concat!(
        select!(),
        "WHERE ($1 = '' OR operator_id = $1) AND ($2 = '' OR user_name = $2) AND number > $3 \
         ORDER BY number LIMIT $4"
    );
    let rows = query(statement)
        .bind(operator.map_or("", OperatorId::as_str))
        .bind(user.map_or("", UserName::as_str))
        .bind(row::to_column(after))
        .bind(page.rows())
        .fetch_all(executor.connection())
        .await?;
    let keys = rows.iter().map(parse_row).collect::<Result<Vec<_>, _>>()?;
    Ok(page.paginate(keys, |key| key.id.to_string()))
}

/// Counts the API keys of an operator that are not expired, up to `limit`.
pub async fn count(
    executor: &mut impl Executor,
    operator: &OperatorId,
    limit: u64,
) -> Result<u64, StoreError> {
    let statement = "SELECT COUNT(*) AS number FROM (SELECT 1 AS one FROM api_keys WHERE operator_id = $1 AND state <> 'expired' LIMIT $2) AS counted";
    row::count_up_to(executor, statement, operator.as_str(), limit).await
}

/// Returns the API keys of a scope that were issued at or before an instant.
pub(in crate::credentials) async fn list_in_scope(
    executor: &mut impl Executor,
    scope: &WatermarkScope,
    until: UnixSeconds,
) -> Result<Vec<ApiKey>, StoreError> {
    let (operator, user) = match scope {
        WatermarkScope::Global | WatermarkScope::SigningKey(_) => (None, None),
        WatermarkScope::Operator(operator) => (Some(operator), None),
        WatermarkScope::User(operator, user) => (Some(operator), Some(user)),
        // API keys are not issued for AuthKeys or sessions, nor by other issuers.
        WatermarkScope::AuthKey(_)
        | WatermarkScope::Session(_)
        | WatermarkScope::ForeignUser(_)
        | WatermarkScope::Issuer(_)
        | WatermarkScope::Client(_)
        | WatermarkScope::IssuerSession(_)
        | WatermarkScope::TokenId(_) => return Ok(Vec::new()),
    };
    let mut keys = list(executor, operator, user).await?;
    keys.retain(|key| {
        key.issued_at <= until && !matches!(scope, WatermarkScope::SigningKey(kid) if *kid != key.kid())
    });
    Ok(keys)
}

/// Returns the keys that have reached their end and are not marked as expired.
pub(in crate::credentials) async fn list_due(
    executor: &mut impl Executor,
    now: UnixSeconds,
) -> Result<Vec<ApiKey>, StoreError> {
    let rows = query(concat!(select!(), "WHERE expires_at <= $1 AND state <> 'expired' ORDER BY number"))
        .bind(row::to_column(now))
        .fetch_all(executor.connection())
        .await?;
    rows.iter().map(parse_row).collect()
}

/// Returns the keys that are marked as expired although their end is later than this second.
pub(in crate::credentials) async fn list_expired_early(
    executor: &mut impl Executor,
    now: UnixSeconds,
) -> Result<Vec<ApiKey>, StoreError> {
    let rows = query(concat!(select!(), "WHERE expires_at > $1 AND state = 'expired' ORDER BY number"))
        .bind(row::to_column(now))
        .fetch_all(executor.connection())
        .await?;
    rows.iter().map(parse_row).collect()
}

/// Records the creator of a key, as named in the audit log.
pub(in crate::credentials) async fn set_creator(
    write: &mut Write,
    id: ApiKeyId,
    creator: &str,
) -> Result<(), StoreError> {
    query("UPDATE api_keys SET created_by = $2 WHERE number = $1")
        .bind(row::to_column(id.0))
        .bind(creator)
        .execute(write.connection())
        .await?;
    Ok(())
}

/// Returns the keys that an actor has created since an instant.
pub async fn list_created_by(
    executor: &mut impl Executor,
    creator: &str,
    since: UnixSeconds,
) -> Result<Vec<ApiKey>, StoreError> {
    let rows = query(concat!(select!(), "WHERE created_by = $1 AND issued_at >= $2 ORDER BY number"))
        .bind(creator)
        .bind(row::to_column(since))
        .fetch_all(executor.connection())
        .await?;
    rows.iter().map(parse_row).collect()
}

/// Changes the state of a key. Returns `false` if the key was not in the state `from`.
pub async fn set_state(
    write: &mut Write,
    id: ApiKeyId,
    from: ApiKeyState,
    to: ApiKeyState,
) -> Result<bool, StoreError> {
    let done = query("UPDATE api_keys SET state = $3 WHERE number = $1 AND state = $2")
        .bind(row::to_column(id.0))
        .bind(state_name(from))
        .bind(state_name(to))
        .execute(write.connection())
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Sets the end of a key. An earlier end stays.
pub async fn expire_at(write: &mut Write, id: ApiKeyId, at: UnixSeconds) -> Result<(), StoreError> {
    let moved = query(
        "UPDATE api_keys SET expires_at = $2 WHERE number = $1 AND (expires_at IS NULL OR expires_at > $2) \
         RETURNING fingerprint",
    )
    .bind(row::to_column(id.0))
    .bind(row::to_column(at))
    .fetch_optional(write.connection())
    .await?;
    if let Some(from) = &moved {
        tombstones::insert(write, TombstoneKind::ApiKeyEnd, &row::text(from, "fingerprint")?, at).await?;
    }
    Ok(())
}

/// Deletes a key. Returns whether it existed.
pub async fn delete(write: &mut Write, id: ApiKeyId) -> Result<bool, StoreError> {
    let gone = query("DELETE FROM api_keys WHERE number = $1 RETURNING fingerprint, issued_at")
        .bind(row::to_column(id.0))
        .fetch_optional(write.connection())
        .await?;
    if let Some(from) = &gone {
        let (fingerprint, at) = (row::text(from, "fingerprint")?, row::from_column(from, "issued_at")?);
        tombstones::insert(write, TombstoneKind::ApiKey, &fingerprint, at).await?;
    }
    Ok(gone.is_some())
}

const fn state_name(state: ApiKeyState) -> &'static str {
    match state {
        ApiKeyState::Active => "active",
        ApiKeyState::Disabled => "disabled",
        ApiKeyState::Expired => "expired",
    }
}

fn parse_row(from: &AnyRow) -> Result<ApiKey, StoreError> {
    Ok(ApiKey {
        id: ApiKeyId(row::from_column(from, "number")?),
        fingerprint: row::parsed_text::<Fingerprint>(from, "fingerprint")?,
        generation: u8::try_from(row::from_column::<u64>(from, "generation")?)
            .map_err(|_| StoreError::Corrupt { what: "generation" })?,
        kind: parse_kind(from)?,
        owner: row::subject(from)?,
        username: PresentedUsername::from_stored(row::text(from, "username")?),
        prefix: row::parsed_text(from, "key_prefix")?,
        name: row::optional_text(from, "name")?,
        metadata: row::optional_text(from, "metadata")?
            .map(|text| serde_json::from_str(&text).map_err(|_| StoreError::Corrupt { what: "metadata" }))
            .transpose()?,
        state: match row::text(from, "state")?.as_str() {
            "active" => ApiKeyState::Active,
            "disabled" => ApiKeyState::Disabled,
            "expired" => ApiKeyState::Expired,
            _ => return Err(StoreError::Corrupt { what: "state" }),
        },
        issued_at: row::from_column(from, "issued_at")?,
        ends_at: row::optional_from_column(from, "ends_at")?,
        expires_at: row::optional_from_column(from, "expires_at")?,
        last_used_at: row::optional_from_column(from, "last_used_at")?,
    })
}
