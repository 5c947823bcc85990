use sqlx::{any::AnyRow, query};

use super::{Lookup, StoreError, Write, row};
use crate::model::{AuthKeyId, Subject, Watermark, WatermarkScope};

/// Raises the watermark of a scope, and puts its end off; lower ones than the present change nothing. Whether anything
/// was changed.
pub async fn raise(write: &mut Write, watermark: &Watermark, version: u64) -> Result<bool, StoreError> {
    let Watermark { scope, instant, ends_at } = watermark;
    let (kind, id) = columns(scope);
    let done = query(
        "INSERT INTO watermarks (kind, id, instant, version, ends_at) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (kind, id) DO UPDATE SET version = excluded.version, \
         instant = CASE WHEN excluded.instant > watermarks.instant THEN excluded.instant ELSE watermarks.instant END, \
         ends_at = CASE WHEN excluded.ends_at > watermarks.ends_at THEN excluded.ends_at ELSE watermarks.ends_at END \
         WHERE excluded.instant > watermarks.instant OR excluded.ends_at > watermarks.ends_at",
    )
    .bind(kind)
    .bind(id)
    .bind(row::signed(*instant))
    .bind(row::signed(version))
    .bind(row::signed(*ends_at))
    .execute(write.connection())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Whether the scope has one.
pub async fn exists(lookup: &mut impl Lookup, scope: &WatermarkScope) -> Result<bool, StoreError> {
    let (kind, id) = columns(scope);
    let found = query("SELECT instant FROM watermarks WHERE kind = $1 AND id = $2")
        .bind(kind)
        .bind(id)
        .fetch_optional(lookup.on())
        .await?;
    Ok(found.is_some())
}

/// The greatest instant that holds for a token of these: a new one must be issued after it.
pub async fn applicable(
    lookup: &mut impl Lookup,
    kid: &str,
    subject: &Subject,
    auth_key: Option<&AuthKeyId>,
    session: Option<&str>,
) -> Result<Option<u64>, StoreError> {
    Ok(latest(lookup, kid, subject, auth_key, session).await?.map(|watermark| watermark.instant))
}

/// The watermark that [`applicable`] is of.
pub async fn latest(
    lookup: &mut impl Lookup,
    kid: &str,
    subject: &Subject,
    auth_key: Option<&AuthKeyId>,
    session: Option<&str>,
) -> Result<Option<Watermark>, StoreError> {
    let found = query(
        "SELECT kind, id, instant, ends_at FROM watermarks WHERE (kind = 'global' AND id = '') \
         OR (kind = 'signing_key' AND id = $1) OR (kind = 'operator' AND id = $2) OR (kind = 'user' AND id = $3) \
         OR (kind = 'auth_key' AND id = $4) OR (kind = 'session' AND id = $5) ORDER BY instant DESC LIMIT 1",
    )
    .bind(kid)
    .bind(subject.operator.as_str())
    .bind(subject.to_string())
    .bind(auth_key.map_or("", AuthKeyId::as_str))
    .bind(session.unwrap_or(""))
    .fetch_optional(lookup.on())
    .await?;
    found.as_ref().map(read).transpose()
}

/// Those whose instants lie after a second, but for those that are there for good.
pub async fn later_than(lookup: &mut impl Lookup, second: u64) -> Result<Vec<Watermark>, StoreError> {
    let rows = query(
        "SELECT kind, id, instant, ends_at FROM watermarks WHERE instant > $1 AND instant < $2 ORDER BY kind, id",
    )
    .bind(row::signed(second))
    .bind(row::signed(row::NEVER))
    .fetch_all(lookup.on())
    .await?;
    rows.iter().map(read).collect()
}

/// Moves a watermark back, in a version that must be a checkpoint: a tail only raises.
pub async fn lower(
    write: &mut Write,
    scope: &WatermarkScope,
    instant: u64,
    version: u64,
) -> Result<(), StoreError> {
    let (kind, id) = columns(scope);
    query("UPDATE watermarks SET instant = $3, version = $4 WHERE kind = $1 AND id = $2 AND instant > $3")
        .bind(kind)
        .bind(id)
        .bind(row::signed(instant))
        .bind(row::signed(version))
        .execute(write.connection())
        .await?;
    Ok(())
}

/// Those that were raised after a version, each with its own.
pub async fn since(lookup: &mut impl Lookup, version: u64) -> Result<Vec<(u64, Watermark)>, StoreError> {
    let rows = query(
        "SELECT version, kind, id, instant, ends_at FROM watermarks WHERE version > $1 ORDER BY version, kind, id",
    )
    .bind(row::signed(version))
    .fetch_all(lookup.on())
    .await?;
    rows.iter().map(|from| Ok((row::unsigned(from, "version")?, read(from)?))).collect()
}

pub async fn count_since(lookup: &mut impl Lookup, version: u64) -> Result<u64, StoreError> {
    let row = query("SELECT COUNT(*) AS changes FROM watermarks WHERE version > $1")
        .bind(row::signed(version))
        .fetch_one(lookup.on())
        .await?;
    row::unsigned(&row, "changes")
}

/// Forgets those that refuse nothing any more, as all they cover expired before this second; returns how many.
pub async fn collect(write: &mut Write, before: u64) -> Result<u64, StoreError> {
    let done = query("DELETE FROM watermarks WHERE ends_at < $1")
        .bind(row::signed(before))
        .execute(write.connection())
        .await?;
    Ok(done.rows_affected())
}

/// Kind and id.
pub fn columns(scope: &WatermarkScope) -> (&'static str, String) {
    match scope {
        WatermarkScope::Global => ("global", String::new()),
        WatermarkScope::SigningKey(kid) => ("signing_key", kid.clone()),
        WatermarkScope::Operator(operator) => ("operator", operator.to_string()),
        WatermarkScope::User(..) => ("user", scope.to_string()),
        WatermarkScope::AuthKey(id) => ("auth_key", id.to_string()),
        WatermarkScope::Session(id) => ("session", id.to_string()),
    }
}

fn read(from: &AnyRow) -> Result<Watermark, StoreError> {
    let scope = scope(&row::text(from, "kind")?, &row::text(from, "id")?)?;
    Ok(Watermark {
        scope,
        instant: row::unsigned(from, "instant")?,
        ends_at: row::unsigned(from, "ends_at")?,
    })
}

/// The reverse of [`columns`].
pub fn scope(kind: &str, id: &str) -> Result<WatermarkScope, StoreError> {
    const CORRUPT: StoreError = StoreError::Corrupt { what: "scope" };
    Ok(match kind {
        "global" => WatermarkScope::Global,
        "signing_key" => WatermarkScope::SigningKey(id.to_owned()),
        "operator" => WatermarkScope::Operator(id.parse().map_err(|_| CORRUPT)?),
        "user" => match id.parse::<Subject>().map_err(|_| CORRUPT)? {
            Subject { operator, user: Some(user) } => WatermarkScope::User(operator, user),
            Subject { user: None, .. } => return Err(CORRUPT),
        },
        "auth_key" => WatermarkScope::AuthKey(id.parse().map_err(|_| CORRUPT)?),
        "session" => WatermarkScope::Session(id.parse().map_err(|_| CORRUPT)?),
        _ => return Err(CORRUPT),
    })
}
