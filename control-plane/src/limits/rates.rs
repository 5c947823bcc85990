//! The rate limits of operators, counted in memory by each server.

use crate::{
    config::Limits,
    domain::{OperatorId, Subject},
    platform::rates::RateLimits,
};

/// The rate limits of all operators.
#[derive(Debug)]
pub(crate) struct OperatorRates {
    pub(crate) tokens: RateLimits<OperatorId>,
    pub(crate) revocations: RateLimits<RevokerKey>,
}

/// Who is counted. The root user is counted separately, so that other users cannot use up its revocations.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct RevokerKey {
    operator: OperatorId,
    root: bool,
}

impl From<&Subject> for RevokerKey {
    fn from(subject: &Subject) -> Self {
        Self { operator: subject.operator.clone(), root: subject.is_root() }
    }
}

impl OperatorRates {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            tokens: RateLimits::per_minute(limits.tokens_per_minute),
            revocations: RateLimits::per_minute(limits.revocations_per_minute),
        }
    }
}
