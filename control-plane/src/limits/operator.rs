//! The limits of an operator, which protect the other operators.
//!
//! Rates are counted in memory by each server. Items are counted in the store, in the transaction that adds one, so that
//! replicas agree. No limit rejects a revocation: beyond the operator's share, revocations of single tokens are merged (see
//! [`revoke`](crate::revocation::revoke())), and the operator cannot create AuthKeys.

use super::{
    queries as shares,
    reached::{LimitError, LimitKind, LimitReached},
};
use crate::{
    accounts::{operators, roles, users},
    credentials::{api_keys, auth_keys},
    db::{StoreError, Write},
    domain::{OperatorId, Subject, UnixMillis, UnixSeconds, WatermarkScope},
    revocation::{EXPIRED_RETENTION_SECS, revocations},
    service::Service,
};

/// Checks whether a user may have another AuthKey. The transaction must have the version lock.
pub(crate) async fn check_auth_key_limit(
    service: &Service,
    write: &mut Write,
    subject: &Subject,
    now: UnixMillis,
) -> Result<(), LimitError> {
    let limit = service.config.limits.auth_keys;
    if is_reached(limit, auth_keys::count(write, subject, limit).await?) {
        return Err(refuse(service, LimitKind::AuthKeys, limit));
    }
    // Deleting an AuthKey adds a watermark, which counts as a revocation.
    if is_share_used_up(service, write, &subject.operator, now).await? {
        let limit = service.config.limits.revocations;
        return Err(refuse(service, LimitKind::Revocations, limit));
    }
    Ok(())
}

/// Checks whether an operator may have another item. The transaction must have the version lock.
pub(crate) async fn check_limit(
    service: &Service,
    write: &mut Write,
    operator: &OperatorId,
    what: LimitKind,
) -> Result<(), LimitError> {
    let limits = &service.config.limits;
    let (limit, have) = match what {
        LimitKind::ApiKeys => (limits.api_keys, api_keys::count(write, operator, limits.api_keys).await?),
        LimitKind::Users => (limits.users, users::count(write, operator, limits.users).await?),
        LimitKind::Roles => (limits.roles, roles::count(write, operator, limits.roles).await?),
        LimitKind::AuthKeys | LimitKind::Revocations => return Ok(()),
    };
    if is_reached(limit, have) { Err(refuse(service, what, limit)) } else { Ok(()) }
}

/// Counts what a limit refuses.
fn refuse(service: &Service, kind: LimitKind, limit: u64) -> LimitError {
    service.metrics().count_limited(LimitReached::CODE);
    LimitError::Reached(LimitReached { kind, limit })
}

/// Returns whether an operator has reached its limit of revocations in the bundle.
pub(crate) async fn is_share_used_up(
    service: &Service,
    write: &mut Write,
    operator: &OperatorId,
    now: UnixMillis,
) -> Result<bool, StoreError> {
    let limit = service.config.limits.revocations;
    Ok(limit > 0 && is_reached(limit, shares::current_share(write, operator, now).await?))
}

/// Counts a revocation of a credential that expires at this second.
pub(crate) async fn count_revocation(
    write: &mut Write,
    operator: &OperatorId,
    expires_at: UnixSeconds,
) -> Result<(), StoreError> {
    shares::add(write, operator, expires_at.saturating_add(EXPIRED_RETENTION_SECS)).await
}

/// Returns whether a watermark of the scope would be a new one that counts.
pub(crate) async fn counts_as_new(write: &mut Write, scope: &WatermarkScope) -> Result<bool, StoreError> {
    // Watermarks of other scopes are bounded by the number of users.
    let counts = matches!(scope, WatermarkScope::AuthKey(_) | WatermarkScope::Session(_));
    Ok(counts && crate::revocation::watermarks::find(write, scope).await?.is_none())
}

const fn is_reached(limit: u64, have: u64) -> bool {
    limit > 0 && have >= limit
}

/// The size of the installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstallationSize {
    /// The number of operators.
    pub operators: u64,
    /// The number of revocations.
    pub revocations: u64,
    /// The operator with the most counted revocations, and their number.
    pub largest: Option<(OperatorId, u64)>,
}

/// Counts operators and revocations.
pub async fn count_installation(service: &Service) -> Result<InstallationSize, StoreError> {
    let mut read = service.store.read().await?;
    Ok(InstallationSize {
        operators: operators::count(&mut read).await?,
        revocations: revocations::count(&mut read).await?,
        largest: shares::largest_share(&mut read, service.now()).await?,
    })
}
