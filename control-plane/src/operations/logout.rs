use token::Fingerprint;

use super::{Authority, RevokeError, Service, Target, revoke::unmetered};
use crate::model::{Actor, Subject};

pub type LogoutError = RevokeError;

/// The bearer of a token gives it up.
pub async fn logout(
    service: &Service,
    subject: &Subject,
    fingerprint: Fingerprint,
) -> Result<(), LogoutError> {
    let actor = Actor::Token { subject: subject.clone(), fingerprint };
    let authority = Authority::Operator(subject.operator.clone());
    match unmetered(service, &actor, &authority, Target::Fingerprint(fingerprint), Some("logout")).await {
        // It has just expired: what was asked for holds.
        Ok(_) | Err(RevokeError::NotFound) => Ok(()),
        Err(error) => Err(error),
    }
}
