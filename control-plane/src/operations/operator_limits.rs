//! What one operator may do, so that it takes no room or time of others.
//!
//! Rates are counted in memory, by each server for itself. What an operator has is counted in the store, in the
//! transaction that adds to it, so that replicas agree. No revocation is refused for what others hold: past its share
//! those of single tokens are merged (see [`super::revoke`]), and the operator makes no further AuthKey.

use std::fmt;

use super::{Service, collect::KEPT};
use crate::{
    clock::Time,
    config::Limits,
    model::{OperatorId, Subject, WatermarkScope},
    rates::Rates,
    store::{StoreError, Write, api_keys, auth_keys, operators, revocations, roles, shares, users},
};

#[derive(Debug)]
pub(super) struct OperatorRates {
    pub(super) tokens: Rates<OperatorId>,
    pub(super) revocations: Rates<Revoker>,
}

/// The root user is counted apart, so that no other user keeps it from revoking.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Revoker {
    operator: OperatorId,
    root: bool,
}

impl From<&Subject> for Revoker {
    fn from(subject: &Subject) -> Self {
        Self { operator: subject.operator.clone(), root: subject.is_root() }
    }
}

impl OperatorRates {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            tokens: Rates::per_minute(limits.tokens_per_minute),
            revocations: Rates::per_minute(limits.revocations_per_minute),
        }
    }
}

/// An operator has as many as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitReached {
    pub what: Limited,
    pub limit: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limited {
    AuthKeys,
    ApiKeys,
    Users,
    Roles,
    Revocations,
}

impl fmt::Display for LimitReached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, limit } = self;
        match what {
            Limited::AuthKeys => write!(
                f,
                "the user has {limit} AuthKeys, as many as `limits.auth_keys` allows; delete one that is no longer used"
            ),
            Limited::ApiKeys => write!(
                f,
                "the operator has {limit} API keys, as many as `limits.api_keys` allows; delete some that are no longer used"
            ),
            Limited::Users => {
                write!(
                    f,
                    "the operator has {limit} users, as many as `limits.users` allows; delete some first"
                )
            }
            Limited::Roles => {
                write!(
                    f,
                    "the operator has {limit} roles, as many as `limits.roles` allows; delete some first"
                )
            }
            Limited::Revocations => write!(
                f,
                "edges hold {limit} revocations of this operator, as many as `limits.revocations` allows; it makes no \
                 AuthKeys until some have expired"
            ),
        }
    }
}

/// Whether a user may have one more AuthKey. In a transaction that holds the version.
pub(super) async fn allow_auth_key(
    service: &Service,
    write: &mut Write,
    subject: &Subject,
    now: Time,
) -> Result<Result<(), LimitReached>, StoreError> {
    let limit = service.config.limits.auth_keys;
    if reached(limit, auth_keys::count(write, subject, limit).await?) {
        return Ok(Err(LimitReached { what: Limited::AuthKeys, limit }));
    }
    // Each leaves a watermark when it is deleted.
    if share_used_up(service, write, &subject.operator, now).await? {
        let limit = service.config.limits.revocations;
        return Ok(Err(LimitReached { what: Limited::Revocations, limit }));
    }
    Ok(Ok(()))
}

/// Whether an operator may have one more of these. In a transaction that holds the version.
pub(super) async fn allow(
    service: &Service,
    write: &mut Write,
    operator: &OperatorId,
    what: Limited,
) -> Result<Result<(), LimitReached>, StoreError> {
    let limits = &service.config.limits;
    let (limit, have) = match what {
        Limited::ApiKeys => (limits.api_keys, api_keys::count(write, operator, limits.api_keys).await?),
        Limited::Users => (limits.users, users::count(write, operator, limits.users).await?),
        Limited::Roles => (limits.roles, roles::count(write, operator, limits.roles).await?),
        Limited::AuthKeys | Limited::Revocations => return Ok(Ok(())),
    };
    Ok(if reached(limit, have) { Err(LimitReached { what, limit }) } else { Ok(()) })
}

/// Whether edges hold as much of an operator as they are to.
pub(super) async fn share_used_up(
    service: &Service,
    write: &mut Write,
    operator: &OperatorId,
    now: Time,
) -> Result<bool, StoreError> {
    let limit = service.config.limits.revocations;
    Ok(limit > 0 && reached(limit, shares::held(write, operator, now).await?))
}

/// Counts the revocation of a credential that expires at this second.
pub(super) async fn count_revocation(
    write: &mut Write,
    operator: &OperatorId,
    expires_at: u64,
) -> Result<(), StoreError> {
    shares::add(write, operator, expires_at.saturating_add(KEPT)).await
}

/// Whether a watermark of the scope would be one more that counts.
pub(super) async fn counts_anew(write: &mut Write, scope: &WatermarkScope) -> Result<bool, StoreError> {
    // Of others there are no more than users.
    let counts = matches!(scope, WatermarkScope::AuthKey(_) | WatermarkScope::Session(_));
    Ok(counts && !crate::store::watermarks::exists(write, scope).await?)
}

const fn reached(limit: u64, have: u64) -> bool {
    limit > 0 && have >= limit
}

/// What edges hold, and whose most of it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Load {
    pub operators: u64,
    pub revocations: u64,
    /// The operator with the most revocations that count for it.
    pub largest: Option<(OperatorId, u64)>,
}

pub async fn load(service: &Service) -> Result<Load, StoreError> {
    let mut read = service.store.read().await?;
    Ok(Load {
        operators: operators::count(&mut read).await?,
        revocations: revocations::count(&mut read).await?,
        largest: shares::largest(&mut read, service.now()).await?,
    })
}
