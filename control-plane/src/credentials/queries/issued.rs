//! The issuance log: every issued credential until it expires.

use sqlx::{
    Any,
    any::{AnyArguments, AnyRow},
    query,
    query::Query,
};
use token::Fingerprint;

use super::coverage;
use crate::{
    credentials::auth_keys::queries as auth_keys,
    db::{Executor, StoreError, Write, row},
    domain::{AuthKeyId, IssuedCredential, SessionId, UnixSeconds, UserName, Version, WatermarkScope},
    restore::gaps,
    revocation::watermarks,
};

/// How many rows [`purge`] deletes at most.
pub const PURGE_BATCH: u64 = 2000;

/// The result of an insert. Only an inserted credential may be released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IssueOutcome {
    /// The credential was inserted.
    Inserted,
    /// Another issued or revoked credential has the same fingerprint prefix, so a lookup by prefix would be ambiguous.
    PrefixTaken,
    /// The AuthKey of the credential was deleted in between.
    AuthKeyGone,
    /// The base covers the time of issue, or a watermark or gap refuses it: the credential must be issued later.
    Covered,
}

/// Inserts a credential.
pub async fn insert(write: &mut Write, issuance: &IssuedCredential) -> Result<IssueOutcome, StoreError> {
    let IssuedCredential { fingerprint, kid, subject, auth_key, session, issued_at, expires_at } = issuance;
    let done = query(concat!(
        "INSERT INTO issued \
         (prefix, fingerprint, kid, operator_id, user_name, auth_key_id, session_id, issued_at, expires_at) \
         SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9 \
         WHERE NOT EXISTS (SELECT 1 FROM revocations WHERE prefix = $1) \
         AND NOT EXISTS (SELECT 1 FROM coverage WHERE kid = $3 AND high >= $8) \
         AND NOT EXISTS (SELECT 1 FROM watermarks WHERE instant >= $8 AND ",
        watermarks::applies_sql!("$3", "$4", "$10", "$6", "$7"),
        ") AND NOT EXISTS (SELECT 1 FROM gaps WHERE version IS NOT NULL AND issued_until >= $8) \
         AND ($6 IS NULL OR EXISTS (SELECT 1 FROM auth_keys WHERE auth_key_id = $6)) ON CONFLICT DO NOTHING"
    ))
    .bind(row::prefix_to_column(fingerprint))
    .bind(fingerprint.to_string())
    .bind(kid.as_str())
    .bind(subject.operator.as_str())
    .bind(subject.user.as_ref().map(UserName::as_str))
    .bind(auth_key.as_ref().map(AuthKeyId::as_str))
    .bind(session.as_ref().map(SessionId::as_str))
    .bind(row::to_column(*issued_at))
    .bind(row::to_column(*expires_at))
    .bind(subject.to_string())
    .execute(write.connection())
    .await?;
    Ok(match auth_key {
        _ if done.rows_affected() == 1 => IssueOutcome::Inserted,
        Some(id) if auth_keys::find(write, id).await?.is_none() => IssueOutcome::AuthKeyGone,
        _ if is_refused_at_issue(write, issuance).await? => IssueOutcome::Covered,
        _ => IssueOutcome::PrefixTaken,
    })
}

/// Returns whether the base covers the time of issue, or a watermark or gap refuses it.
async fn is_refused_at_issue(
    executor: &mut impl Executor,
    issuance: &IssuedCredential,
) -> Result<bool, StoreError> {
    let IssuedCredential { kid, subject, auth_key, session, issued_at, .. } = issuance;
    let session = session.as_ref().map(SessionId::as_str);
    let watermark =
        watermarks::highest_applicable(executor, kid, subject, auth_key.as_ref(), session).await?;
    let before =
        watermark.max(coverage::floor_for(executor, kid).await?).max(gaps::latest_end(executor).await?);
    Ok(before.is_some_and(|instant| instant >= *issued_at))
}

/// Finds a credential by its fingerprint.
pub async fn find(
    executor: &mut impl Executor,
    fingerprint: &Fingerprint,
) -> Result<Option<IssuedCredential>, StoreError> {
    let found = query(
        "SELECT fingerprint, kid, operator_id, user_name, auth_key_id, session_id, issued_at, expires_at \
         FROM issued WHERE prefix = $1",
    )
    .bind(row::prefix_to_column(fingerprint))
    .fetch_optional(executor.connection())
    .await?;
    let issuance = found.as_ref().map(parse_row).transpose()?;
    Ok(issuance.filter(|issuance| issuance.fingerprint == *fingerprint))
}

/// Finds the latest token of a session. All tokens of a session have the same subject.
pub async fn find_session(
    executor: &mut impl Executor,
    session: &SessionId,
) -> Result<Option<IssuedCredential>, StoreError> {
    let found = query(
        "SELECT fingerprint, kid, operator_id, user_name, auth_key_id, session_id, issued_at, expires_at \
         FROM issued WHERE session_id = $1 ORDER BY issued_at DESC LIMIT 1",
    )
    .bind(session.as_str())
    .fetch_optional(executor.connection())
    .await?;
    found.as_ref().map(parse_row).transpose()
}

/// The condition that a row of `issued` belongs to the scope in the parameters $1 to $5: see [`bind_scope`].
macro_rules! scope_sql {
    () => {
        "($1 = '' OR operator_id = $1) AND ($2 = '' OR user_name = $2) AND ($3 = '' OR auth_key_id = $3) \
         AND ($4 = '' OR session_id = $4) AND ($5 = '' OR kid = $5)"
    };
}

/// Binds the parameters $1 to $5 of a scope.
fn bind_scope(
    query: Query<'static, Any, AnyArguments>,
    scope: &WatermarkScope,
) -> Query<'static, Any, AnyArguments> {
    let (operator, user, auth_key, session, kid) = match scope {
        WatermarkScope::Global => ("", "", "", "", ""),
        WatermarkScope::SigningKey(kid) => ("", "", "", "", kid.as_str()),
        WatermarkScope::Operator(operator) => (operator.as_str(), "", "", "", ""),
        WatermarkScope::User(operator, user) => (operator.as_str(), user.as_str(), "", "", ""),
        WatermarkScope::AuthKey(id) => ("", "", id.as_str(), "", ""),
        WatermarkScope::Session(id) => ("", "", "", id.as_str(), ""),
        // No issued credential has such a `kid`, so nothing is in the scope.
        WatermarkScope::ForeignUser(_)
        | WatermarkScope::Issuer(_)
        | WatermarkScope::Client(_)
        | WatermarkScope::IssuerSession(_)
        | WatermarkScope::TokenId(_) => ("", "", "", "", "#"),
    };
    query.bind(operator).bind(user).bind(auth_key).bind(session).bind(kid)
}

/// Returns the latest time of issue in a scope that is later than `after` and at most `until`.
///
/// A token that was issued right after a revocation is dated slightly in the future, and the next revocation must cover it.
pub async fn latest_issue(
    executor: &mut impl Executor,
    scope: &WatermarkScope,
    after: UnixSeconds,
    until: UnixSeconds,
) -> Result<Option<UnixSeconds>, StoreError> {
    let latest = query(concat!(
        "SELECT MAX(issued_at) AS latest FROM issued WHERE issued_at > $6 AND issued_at <= $7 AND ",
        scope_sql!()
    ));
    let found = bind_scope(latest, scope)
        .bind(row::to_column(after))
        .bind(row::to_column(until))
        .fetch_one(executor.connection())
        .await?;
    row::optional_from_column(&found, "latest")
}

/// Returns the latest expiry in a scope that is later than `after`.
pub async fn latest_expiry(
    executor: &mut impl Executor,
    scope: &WatermarkScope,
    after: UnixSeconds,
) -> Result<Option<UnixSeconds>, StoreError> {
    let latest = query(concat!(
        "SELECT MAX(expires_at) AS latest FROM issued WHERE expires_at > $6 AND ",
        scope_sql!()
    ));
    let found =
        bind_scope(latest, scope).bind(row::to_column(after)).fetch_one(executor.connection()).await?;
    row::optional_from_column(&found, "latest")
}

/// Revokes the credentials of a scope that were issued later than `after` and at most `until` by fingerprint, as a watermark
/// that covers them would block issuing until then. Returns their number.
pub async fn revoke_issued_after(
    write: &mut Write,
    scope: &WatermarkScope,
    (after, until): (UnixSeconds, UnixSeconds),
    (now, version): (UnixSeconds, Version),
) -> Result<u64, StoreError> {
    let insert = query(concat!(
        "INSERT INTO revocations (prefix, fingerprint, expires_at, version, reason, revoked_at) \
         SELECT prefix, fingerprint, expires_at, $8, 'revoked with its scope', $9 FROM issued \
         WHERE issued_at > $6 AND issued_at <= $7 AND ",
        scope_sql!(),
        " ON CONFLICT (prefix) DO UPDATE SET version = excluded.version, revoked_at = excluded.revoked_at, \
         restored_at = NULL \
         WHERE revocations.fingerprint = excluded.fingerprint AND revocations.restored_at IS NOT NULL"
    ));
    let done = bind_scope(insert, scope)
        .bind(row::to_column(after))
        .bind(row::to_column(until))
        .bind(row::to_column(version))
        .bind(row::to_column(now))
        .execute(write.connection())
        .await?;
    Ok(done.rows_affected())
}

/// Returns whether any credential that a key signed is in the log. Scans the whole table if there is none.
pub async fn has_any_of_key(executor: &mut impl Executor, kid: &str) -> Result<bool, StoreError> {
    let found = query("SELECT 1 AS one FROM issued WHERE kid = $1 LIMIT 1")
        .bind(kid)
        .fetch_optional(executor.connection())
        .await?;
    Ok(found.is_some())
}

/// Returns the next own tokens in the order of issue, each with its expiry, and the second up to which they were issued.
/// They were issued within a range of seconds, inclusive, and expire at `expires_from` or later.
///
/// Tokens were written in the order of issue, so they are read nearly in sequence.
pub async fn own_tokens(
    executor: &mut impl Executor,
    (from, until): (UnixSeconds, UnixSeconds),
    expires_from: UnixSeconds,
) -> Result<(Vec<(Fingerprint, UnixSeconds)>, UnixSeconds), StoreError> {
    // The tokens of one second are not divided.
    let last = query(
        "SELECT issued_at FROM issued WHERE issued_at >= $1 AND issued_at <= $2 ORDER BY issued_at LIMIT 1 OFFSET $3",
    )
    .bind(row::to_column(from))
    .bind(row::to_column(until))
    .bind(row::to_column(row::BATCH_SIZE))
    .fetch_optional(executor.connection())
    .await?;
    let last = last.map_or(Ok(until), |row| row::from_column(&row, "issued_at"))?;
    let row = query(
        "SELECT string_agg(fingerprint || expires_at, ',') AS batch FROM issued \
         WHERE issued_at >= $1 AND issued_at <= $2 AND expires_at >= $3 AND kid IN (SELECT kid FROM signing_keys)",
    )
    .bind(row::to_column(from))
    .bind(row::to_column(last))
    .bind(row::to_column(expires_from))
    .fetch_one(executor.connection())
    .await?;
    let batch = row::optional_text(&row, "batch")?.unwrap_or_default();
    Ok((row::parse_batch(&batch).collect::<Result<_, _>>()?, last))
}

/// Deletes up to [`PURGE_BATCH`] credentials that expired before a second, and returns their number.
pub async fn purge(write: &mut Write, before: UnixSeconds) -> Result<u64, StoreError> {
    let done = query(
        "DELETE FROM issued WHERE prefix IN (SELECT prefix FROM issued WHERE expires_at < $1 LIMIT $2)",
    )
    .bind(row::to_column(before))
    .bind(row::to_column(PURGE_BATCH))
    .execute(write.connection())
    .await?;
    Ok(done.rows_affected())
}

fn parse_row(from: &AnyRow) -> Result<IssuedCredential, StoreError> {
    Ok(IssuedCredential {
        fingerprint: row::parsed_text(from, "fingerprint")?,
        kid: row::text(from, "kid")?,
        subject: row::subject(from)?,
        auth_key: row::optional_parsed_text(from, "auth_key_id")?,
        session: row::optional_parsed_text(from, "session_id")?,
        issued_at: row::from_column(from, "issued_at")?,
        expires_at: row::from_column(from, "expires_at")?,
    })
}
