use sqlx::{any::AnyRow, query};
use token::Fingerprint;

use super::{Lookup, StoreError, Write, auth_keys, row};
use crate::model::{AuthKeyId, Issuance, SessionId, UserName, WatermarkScope};

/// What became of a row. Only an inserted one may be released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inserted {
    Yes,
    /// Another credential, issued or revoked, has the same prefix: a lookup by prefix could not tell them apart.
    PrefixTaken,
    /// The AuthKey it is exchanged for was deleted meanwhile.
    AuthKeyGone,
}

pub async fn insert(write: &mut Write, issuance: &Issuance) -> Result<Inserted, StoreError> {
    let Issuance { fingerprint, kid, subject, auth_key, session, issued_at, expires_at } = issuance;
    let done = query(
        "INSERT INTO issued \
         (prefix, fingerprint, kid, operator_id, user_name, auth_key_id, session_id, issued_at, expires_at) \
         SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9 \
         WHERE NOT EXISTS (SELECT 1 FROM revocations WHERE prefix = $1) \
         AND ($6 IS NULL OR EXISTS (SELECT 1 FROM auth_keys WHERE auth_key_id = $6)) ON CONFLICT DO NOTHING",
    )
    .bind(row::prefix(fingerprint))
    .bind(fingerprint.to_string())
    .bind(kid.as_str())
    .bind(subject.operator.as_str())
    .bind(subject.user.as_ref().map(UserName::as_str))
    .bind(auth_key.as_ref().map(AuthKeyId::as_str))
    .bind(session.as_ref().map(SessionId::as_str))
    .bind(row::signed(*issued_at))
    .bind(row::signed(*expires_at))
    .execute(write.connection())
    .await?;
    Ok(match auth_key {
        _ if done.rows_affected() == 1 => Inserted::Yes,
        Some(id) if auth_keys::find(write, id).await?.is_none() => Inserted::AuthKeyGone,
        _ => Inserted::PrefixTaken,
    })
}

pub async fn find(
    lookup: &mut impl Lookup,
    fingerprint: &Fingerprint,
) -> Result<Option<Issuance>, StoreError> {
    let found = query(
        "SELECT fingerprint, kid, operator_id, user_name, auth_key_id, session_id, issued_at, expires_at \
         FROM issued WHERE prefix = $1",
    )
    .bind(row::prefix(fingerprint))
    .fetch_optional(lookup.on())
    .await?;
    let issuance = found.as_ref().map(read).transpose()?;
    Ok(issuance.filter(|issuance| issuance.fingerprint == *fingerprint))
}

/// Any token of the session: they all have the same subject.
pub async fn find_session(
    lookup: &mut impl Lookup,
    session: &SessionId,
) -> Result<Option<Issuance>, StoreError> {
    let found = query(
        "SELECT fingerprint, kid, operator_id, user_name, auth_key_id, session_id, issued_at, expires_at \
         FROM issued WHERE session_id = $1 ORDER BY issued_at DESC LIMIT 1",
    )
    .bind(session.as_str())
    .fetch_optional(lookup.on())
    .await?;
    found.as_ref().map(read).transpose()
}

/// The latest issue within a scope, of those later than `after`.
///
/// A token issued right after a revocation has an instant slightly in the future; the next revocation must cover it.
pub async fn latest(
    lookup: &mut impl Lookup,
    scope: &WatermarkScope,
    after: u64,
) -> Result<Option<u64>, StoreError> {
    let (operator, user, auth_key, session, kid) = match scope {
        WatermarkScope::Global => ("", "", "", "", ""),
        WatermarkScope::SigningKey(kid) => ("", "", "", "", kid.as_str()),
        WatermarkScope::Operator(operator) => (operator.as_str(), "", "", "", ""),
        WatermarkScope::User(operator, user) => (operator.as_str(), user.as_str(), "", "", ""),
        WatermarkScope::AuthKey(id) => ("", "", id.as_str(), "", ""),
        WatermarkScope::Session(id) => ("", "", "", id.as_str(), ""),
    };
    let found = query(
        "SELECT MAX(issued_at) AS latest FROM issued WHERE issued_at > $1 \
         AND ($2 = '' OR operator_id = $2) AND ($3 = '' OR user_name = $3) AND ($4 = '' OR auth_key_id = $4) \
         AND ($5 = '' OR session_id = $5) AND ($6 = '' OR kid = $6)",
    )
    .bind(row::signed(after))
    .bind(operator)
    .bind(user)
    .bind(auth_key)
    .bind(session)
    .bind(kid)
    .fetch_one(lookup.on())
    .await?;
    row::optional_unsigned(&found, "latest")
}

/// Forgets some of what has expired; returns how many, at most [`PORTION`].
pub async fn collect(write: &mut Write, before: u64) -> Result<u64, StoreError> {
    let done = query(
        "DELETE FROM issued WHERE prefix IN (SELECT prefix FROM issued WHERE expires_at < $1 LIMIT $2)",
    )
    .bind(row::signed(before))
    .bind(row::signed(PORTION))
    .execute(write.connection())
    .await?;
    Ok(done.rows_affected())
}

pub const PORTION: u64 = 2000;

fn read(from: &AnyRow) -> Result<Issuance, StoreError> {
    Ok(Issuance {
        fingerprint: row::parsed(from, "fingerprint")?,
        kid: row::text(from, "kid")?,
        subject: row::subject(from)?,
        auth_key: row::optional_parsed(from, "auth_key_id")?,
        session: row::optional_parsed(from, "session_id")?,
        issued_at: row::unsigned(from, "issued_at")?,
        expires_at: row::unsigned(from, "expires_at")?,
    })
}
