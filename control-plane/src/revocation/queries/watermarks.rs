//! Watermarks.

use sqlx::{any::AnyRow, query};

use crate::{
    db::{Executor, StoreError, Write, row},
    domain::{AnySubject, AuthKeyId, Subject, UnixSeconds, Version, Watermark, WatermarkScope},
};

/// The condition that a watermark applies to an own credential. The arguments are the parameters with the key, the operator,
/// the subject, the AuthKey and the session of the credential.
macro_rules! applies_sql {
    ($kid:literal, $operator:literal, $subject:literal, $auth_key:literal, $session:literal) => {
        concat!(
            "((kind = 'global' AND id = '') OR (kind = 'signing_key' AND id = ",
            $kid,
            ") OR (kind = 'operator' AND id = ",
            $operator,
            ") OR (kind = 'user' AND id = ",
            $subject,
            ") OR (kind = 'auth_key' AND id = ",
            $auth_key,
            ") OR (kind = 'session' AND id = ",
            $session,
            "))"
        )
    };
}
pub(crate) use applies_sql;

/// Raises the watermark of a scope, and extends its retention. Lower values change nothing. Returns whether anything has
/// changed.
pub async fn raise(write: &mut Write, watermark: &Watermark, version: Version) -> Result<bool, StoreError> {
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
    .bind(row::to_column(*instant))
    .bind(row::to_column(version))
    .bind(row::to_column(*ends_at))
    .execute(write.connection())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Takes back the watermark of a scope that is one credential. The record is kept until `ends_at`, so that every publisher
/// and journal learns of it. Returns whether there was one.
pub async fn take_back(
    write: &mut Write,
    scope: &WatermarkScope,
    ends_at: UnixSeconds,
    version: Version,
) -> Result<bool, StoreError> {
    let (kind, id) = columns(scope);
    let done = query(
        "UPDATE watermarks SET instant = 0, ends_at = $3, version = $4 WHERE kind = $1 AND id = $2 AND instant > 0",
    )
    .bind(kind)
    .bind(id)
    .bind(row::to_column(ends_at))
    .bind(row::to_column(version))
    .execute(write.connection())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Returns the watermark of a scope.
pub async fn find(
    executor: &mut impl Executor,
    scope: &WatermarkScope,
) -> Result<Option<Watermark>, StoreError> {
    let (kind, id) = columns(scope);
    let found = query("SELECT kind, id, instant, ends_at FROM watermarks WHERE kind = $1 AND id = $2")
        .bind(kind)
        .bind(id)
        .fetch_optional(executor.connection())
        .await?;
    found.as_ref().map(parse_row).transpose()
}

/// Returns the highest instant of the watermarks that apply to a credential. A new one must be issued after it.
pub async fn highest_applicable(
    executor: &mut impl Executor,
    kid: &str,
    subject: &Subject,
    auth_key: Option<&AuthKeyId>,
    session: Option<&str>,
) -> Result<Option<UnixSeconds>, StoreError> {
    Ok(latest_instant(executor, kid, subject, auth_key, session).await?.map(|watermark| watermark.instant))
}

/// Returns the watermark with the highest instant that applies to a credential.
pub async fn latest_instant(
    executor: &mut impl Executor,
    kid: &str,
    subject: &Subject,
    auth_key: Option<&AuthKeyId>,
    session: Option<&str>,
) -> Result<Option<Watermark>, StoreError> {
    let found = query(concat!(
        "SELECT kind, id, instant, ends_at FROM watermarks WHERE ",
        applies_sql!("$1", "$2", "$3", "$4", "$5"),
        " ORDER BY instant DESC LIMIT 1"
    ))
    .bind(kid)
    .bind(subject.operator.as_str())
    .bind(subject.to_string())
    .bind(auth_key.map_or("", AuthKeyId::as_str))
    .bind(session.unwrap_or(""))
    .fetch_optional(executor.connection())
    .await?;
    found.as_ref().map(parse_row).transpose()
}

/// Returns the watermarks with an instant later than a second, except for those of retired keys.
pub async fn list_later_than(
    executor: &mut impl Executor,
    second: UnixSeconds,
) -> Result<Vec<Watermark>, StoreError> {
    let rows = query(
        "SELECT kind, id, instant, ends_at FROM watermarks WHERE instant > $1 AND instant < $2 ORDER BY kind, id",
    )
    .bind(row::to_column(second))
    .bind(row::to_column(row::NEVER_EXPIRES))
    .fetch_all(executor.connection())
    .await?;
    rows.iter().map(parse_row).collect()
}

/// Lowers a watermark. The version must be a checkpoint, as a tail can only raise watermarks.
pub async fn lower(
    write: &mut Write,
    scope: &WatermarkScope,
    instant: UnixSeconds,
    version: Version,
) -> Result<(), StoreError> {
    let (kind, id) = columns(scope);
    query("UPDATE watermarks SET instant = $3, version = $4 WHERE kind = $1 AND id = $2 AND instant > $3")
        .bind(kind)
        .bind(id)
        .bind(row::to_column(instant))
        .bind(row::to_column(version))
        .execute(write.connection())
        .await?;
    Ok(())
}

/// Returns the watermarks that were changed after a version, each with its version.
pub async fn since(
    executor: &mut impl Executor,
    version: Version,
) -> Result<Vec<(Version, Watermark)>, StoreError> {
    let rows = query(
        "SELECT version, kind, id, instant, ends_at FROM watermarks WHERE version > $1 ORDER BY version, kind, id",
    )
    .bind(row::to_column(version))
    .fetch_all(executor.connection())
    .await?;
    rows.iter().map(|from| Ok((row::from_column(from, "version")?, parse_row(from)?))).collect()
}

/// Deletes the watermarks whose covered credentials all expired before a second, and returns their number.
pub async fn purge(write: &mut Write, before: UnixSeconds) -> Result<u64, StoreError> {
    let done = query("DELETE FROM watermarks WHERE ends_at < $1")
        .bind(row::to_column(before))
        .execute(write.connection())
        .await?;
    Ok(done.rows_affected())
}

/// Returns kind and id of a scope as stored.
pub fn columns(scope: &WatermarkScope) -> (&'static str, String) {
    (scope.kind(), scope.id())
}

fn parse_row(from: &AnyRow) -> Result<Watermark, StoreError> {
    let scope = parse_scope(&row::text(from, "kind")?, &row::text(from, "id")?)?;
    Ok(Watermark {
        scope,
        instant: row::from_column(from, "instant")?,
        ends_at: row::from_column(from, "ends_at")?,
    })
}

/// The reverse of [`columns`].
pub fn parse_scope(kind: &str, id: &str) -> Result<WatermarkScope, StoreError> {
    const CORRUPT: StoreError = StoreError::Corrupt { what: "scope" };
    Ok(match kind {
        "global" => WatermarkScope::Global,
        "signing_key" => WatermarkScope::SigningKey(id.to_owned()),
        "operator" => WatermarkScope::Operator(id.parse().map_err(|_| CORRUPT)?),
        "user" => match id.parse().map_err(|_| CORRUPT)? {
            AnySubject::Own(Subject { operator, user: Some(user) }) => WatermarkScope::User(operator, user),
            AnySubject::Own(Subject { user: None, .. }) => return Err(CORRUPT),
            AnySubject::Foreign(subject) => WatermarkScope::ForeignUser(subject),
        },
        "auth_key" => WatermarkScope::AuthKey(id.parse().map_err(|_| CORRUPT)?),
        "session" => WatermarkScope::Session(id.parse().map_err(|_| CORRUPT)?),
        "issuer" => WatermarkScope::Issuer(id.parse().map_err(|_| CORRUPT)?),
        "client" => WatermarkScope::Client(id.parse().map_err(|_| CORRUPT)?),
        "issuer_session" => WatermarkScope::IssuerSession(id.parse().map_err(|_| CORRUPT)?),
        "token_id" => WatermarkScope::TokenId(id.parse().map_err(|_| CORRUPT)?),
        _ => return Err(CORRUPT),
    })
}
