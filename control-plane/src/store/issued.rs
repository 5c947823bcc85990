use sqlx::{any::AnyRow, query};
use token::Fingerprint;

use super::{Lookup, StoreError, Write, auth_keys, coverage, gaps, row, watermarks};
use crate::model::{AuthKeyId, Issuance, SessionId, UniverseMember, UserName, WatermarkScope};

/// What became of a row. Only an inserted one may be released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inserted {
    Yes,
    /// Another credential, issued or revoked, has the same prefix: a lookup by prefix could not tell them apart.
    PrefixTaken,
    /// The AuthKey it is exchanged for was deleted meanwhile.
    AuthKeyGone,
    /// The base knows all that its key signed up to that second, or a watermark or a gap refuses that: it must be issued
    /// later.
    Covered,
}

pub async fn insert(write: &mut Write, issuance: &Issuance) -> Result<Inserted, StoreError> {
    let Issuance { fingerprint, kid, subject, auth_key, session, issued_at, expires_at } = issuance;
    let done = query(
        "INSERT INTO issued \
         (prefix, fingerprint, kid, operator_id, user_name, auth_key_id, session_id, issued_at, expires_at) \
         SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9 \
         WHERE NOT EXISTS (SELECT 1 FROM revocations WHERE prefix = $1) \
         AND NOT EXISTS (SELECT 1 FROM coverage WHERE kid = $3 AND high >= $8) \
         AND NOT EXISTS (SELECT 1 FROM watermarks WHERE instant >= $8 AND ((kind = 'global' AND id = '') \
         OR (kind = 'signing_key' AND id = $3) OR (kind = 'operator' AND id = $4) OR (kind = 'user' AND id = $10) \
         OR (kind = 'auth_key' AND id = $6) OR (kind = 'session' AND id = $7))) \
         AND NOT EXISTS (SELECT 1 FROM gaps WHERE version IS NOT NULL AND issued_until >= $8) \
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
    .bind(subject.to_string())
    .execute(write.connection())
    .await?;
    Ok(match auth_key {
        _ if done.rows_affected() == 1 => Inserted::Yes,
        Some(id) if auth_keys::find(write, id).await?.is_none() => Inserted::AuthKeyGone,
        _ if is_before(write, issuance).await? => Inserted::Covered,
        _ => Inserted::PrefixTaken,
    })
}

/// Whether the base covers, or a watermark or a gap refuses, whatever was issued then.
async fn is_before(lookup: &mut impl Lookup, issuance: &Issuance) -> Result<bool, StoreError> {
    let Issuance { kid, subject, auth_key, session, issued_at, .. } = issuance;
    let session = session.as_ref().map(SessionId::as_str);
    let watermark = watermarks::applicable(lookup, kid, subject, auth_key.as_ref(), session).await?;
    let before = watermark.max(coverage::of(lookup, kid).await?).max(gaps::end(lookup).await?);
    Ok(before.is_some_and(|instant| instant >= *issued_at))
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

/// Whether a row of `issued` is of the scope that $1 to $5 name.
macro_rules! of_scope {
    () => {
        "($1 = '' OR operator_id = $1) AND ($2 = '' OR user_name = $2) AND ($3 = '' OR auth_key_id = $3) \
         AND ($4 = '' OR session_id = $4) AND ($5 = '' OR kid = $5)"
    };
}

fn scope_columns(scope: &WatermarkScope) -> (&str, &str, &str, &str, &str) {
    match scope {
        WatermarkScope::Global => ("", "", "", "", ""),
        WatermarkScope::SigningKey(kid) => ("", "", "", "", kid.as_str()),
        WatermarkScope::Operator(operator) => (operator.as_str(), "", "", "", ""),
        WatermarkScope::User(operator, user) => (operator.as_str(), user.as_str(), "", "", ""),
        WatermarkScope::AuthKey(id) => ("", "", id.as_str(), "", ""),
        WatermarkScope::Session(id) => ("", "", "", id.as_str(), ""),
    }
}

/// The latest issue within a scope, of those later than `after` and no later than `until`.
///
/// A token issued right after a revocation has an instant slightly in the future; the next revocation must cover it.
pub async fn latest(
    lookup: &mut impl Lookup,
    scope: &WatermarkScope,
    after: u64,
    until: u64,
) -> Result<Option<u64>, StoreError> {
    let (operator, user, auth_key, session, kid) = scope_columns(scope);
    let found = query(concat!(
        "SELECT MAX(issued_at) AS latest FROM issued WHERE issued_at > $6 AND issued_at <= $7 AND ",
        of_scope!()
    ))
    .bind(operator)
    .bind(user)
    .bind(auth_key)
    .bind(session)
    .bind(kid)
    .bind(row::signed(after))
    .bind(row::signed(until))
    .fetch_one(lookup.on())
    .await?;
    row::optional_unsigned(&found, "latest")
}

/// When the last of a scope expires, of those that do so later than `after`.
pub async fn last_expiry(
    lookup: &mut impl Lookup,
    scope: &WatermarkScope,
    after: u64,
) -> Result<Option<u64>, StoreError> {
    let (operator, user, auth_key, session, kid) = scope_columns(scope);
    let found = query(concat!(
        "SELECT MAX(expires_at) AS latest FROM issued WHERE expires_at > $6 AND ",
        of_scope!()
    ))
    .bind(operator)
    .bind(user)
    .bind(auth_key)
    .bind(session)
    .bind(kid)
    .bind(row::signed(after))
    .fetch_one(lookup.on())
    .await?;
    row::optional_unsigned(&found, "latest")
}

/// Revokes by fingerprint what bears a later date than `after`: a watermark that reached so far would refuse all that is
/// issued before then. Returns how many.
pub async fn revoke_later(
    write: &mut Write,
    scope: &WatermarkScope,
    (after, until): (u64, u64),
    (now, version): (u64, u64),
) -> Result<u64, StoreError> {
    let (operator, user, auth_key, session, kid) = scope_columns(scope);
    let done = query(concat!(
        "INSERT INTO revocations (prefix, fingerprint, expires_at, version, reason, revoked_at) \
         SELECT prefix, fingerprint, expires_at, $8, 'revoked with its scope', $9 FROM issued \
         WHERE issued_at > $6 AND issued_at <= $7 AND ",
        of_scope!(),
        " ON CONFLICT (prefix) DO UPDATE SET version = excluded.version, revoked_at = excluded.revoked_at, \
         restored_at = NULL \
         WHERE revocations.fingerprint = excluded.fingerprint AND revocations.restored_at IS NOT NULL"
    ))
    .bind(operator)
    .bind(user)
    .bind(auth_key)
    .bind(session)
    .bind(kid)
    .bind(row::signed(after))
    .bind(row::signed(until))
    .bind(row::signed(version))
    .bind(row::signed(now))
    .execute(write.connection())
    .await?;
    Ok(done.rows_affected())
}

/// Whether anything that a key signed may still be good. Looks at every row where there is nothing.
pub async fn any_of(lookup: &mut impl Lookup, kid: &str) -> Result<bool, StoreError> {
    let found = query("SELECT 1 AS one FROM issued WHERE kid = $1 LIMIT 1")
        .bind(kid)
        .fetch_optional(lookup.on())
        .await?;
    Ok(found.is_some())
}

/// All that was issued, in the order of the unsigned prefix, from this one on: a portion, and the prefix to go on from.
pub async fn universe(
    lookup: &mut impl Lookup,
    from: u64,
) -> Result<(Vec<UniverseMember>, Option<u64>), StoreError> {
    let (low, high) = in_order::range(from);
    let rows = query(
        "SELECT i.fingerprint, i.kid, i.issued_at, i.expires_at, \
         CASE WHEN r.prefix IS NULL THEN 0 ELSE 1 END AS revoked FROM issued i \
         LEFT JOIN revocations r ON r.prefix = i.prefix AND r.fingerprint = i.fingerprint AND r.restored_at IS NULL \
         WHERE i.prefix >= $1 AND i.prefix <= $2 ORDER BY i.prefix LIMIT $3",
    )
    .bind(low)
    .bind(high)
    .bind(row::signed(in_order::PORTION))
    .fetch_all(lookup.on())
    .await?;
    let members: Vec<UniverseMember> = rows
        .iter()
        .map(|from| {
            Ok(UniverseMember {
                fingerprint: row::parsed(from, "fingerprint")?,
                kid: row::text(from, "kid")?,
                issued_at: row::unsigned(from, "issued_at")?,
                expires_at: row::unsigned(from, "expires_at")?,
                revoked: row::unsigned(from, "revoked")? != 0,
            })
        })
        .collect::<Result<_, StoreError>>()?;
    let next = in_order::next(from, members.last().map(|member| &member.fingerprint), members.len());
    Ok((members, next))
}

/// Walking through a table by the unsigned prefix, which SQL keeps as signed: first the upper half of its numbers.
pub(super) mod in_order {
    use token::Fingerprint;

    /// What to ask for, both included.
    pub(crate) fn range(from: u64) -> (i64, i64) {
        let from = from.cast_signed();
        (from, if from < 0 { -1 } else { i64::MAX })
    }

    /// Where to go on after a portion that ended with `last`.
    pub(crate) fn next(from: u64, last: Option<&Fingerprint>, found: usize) -> Option<u64> {
        let full = u64::try_from(found).is_ok_and(|found| found >= PORTION);
        match last {
            Some(last) if full => last.prefix().checked_add(1),
            _ if from <= LAST_OF_FIRST_HALF => Some(LAST_OF_FIRST_HALF + 1),
            _ => None,
        }
    }

    pub(crate) const PORTION: u64 = 4096;

    const LAST_OF_FIRST_HALF: u64 = i64::MAX.cast_unsigned();
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
