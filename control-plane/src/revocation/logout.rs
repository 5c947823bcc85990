use token::Fingerprint;

use super::{AccessScope, RevocationTarget, RevokeError, revoke::revoke_unmetered};
use crate::{
    domain::{Actor, Subject},
    service::Service,
};

/// Why a logout failed.
pub type LogoutError = RevokeError;

/// Revokes a token on behalf of its bearer.
pub async fn logout(
    service: &Service,
    subject: &Subject,
    fingerprint: Fingerprint,
) -> Result<(), LogoutError> {
    let actor = Actor::Token { subject: subject.clone(), fingerprint };
    let authority = AccessScope::Operator(subject.operator.clone());
    match revoke_unmetered(
        service,
        &actor,
        &authority,
        RevocationTarget::Fingerprint(fingerprint),
        Some("logout"),
    )
    .await
    {
        Ok(_) => Ok(()),
        // A token that has just expired needs no revocation.
        Err(RevokeError::NotFound) => {
            service.metrics().count_revocation();
            Ok(())
        }
        Err(error) => Err(error),
    }
}
