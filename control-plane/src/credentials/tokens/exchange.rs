//! Exchanges an AuthKey for a token.

use std::time::Duration;

use token::secret::{Secret, SecretHash};

use super::mint::{Lifetime, MintError, MintRequest, mint_token};
use crate::{
    credentials::auth_keys::queries as auth_keys,
    db::StoreError,
    domain::{Actor, AuthKeyId, CoreError, ErrorKind, SessionId, Subject},
    service::Service,
};

/// The error code for more tokens per minute than an operator may issue.
pub(crate) const TOKENS_EXCEEDED: &str = "operator_tokens_exceeded";

/// The hash for unknown ids. No secret has it.
const DUMMY_SECRET_HASH: SecretHash = SecretHash::from_bytes([0; 32]);

/// Why an AuthKey could not be exchanged.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The id is unknown or the secret is wrong. The error does not reveal which.
    #[error("the AuthKey id or the AuthKey is wrong")]
    Refused,
    /// The operator has reached its limit of tokens a minute. The next attempt can succeed after this time.
    #[error(
        "the operator has reached its limit of issued tokens a minute; reuse the issued tokens until they \
         expire"
    )]
    RateLimited(Duration),
    /// The store cannot be read.
    #[error(transparent)]
    Store(StoreError),
    /// The token cannot be minted.
    #[error(transparent)]
    Mint(MintError),
}

impl CoreError for ExchangeError {
    fn code(&self) -> &'static str {
        match self {
            Self::Refused => "auth_key_refused",
            Self::RateLimited(_) => TOKENS_EXCEEDED,
            Self::Store(error) => error.code(),
            Self::Mint(error) => CoreError::code(error),
        }
    }

    fn kind(&self) -> ErrorKind {
        match self {
            Self::Refused => ErrorKind::Unauthenticated,
            Self::RateLimited(wait) => ErrorKind::Limited(Some(*wait)),
            Self::Store(error) => error.kind(),
            Self::Mint(error) => error.kind(),
        }
    }
}

/// The result of an exchange.
#[derive(Debug)]
pub struct ExchangedToken {
    /// The id of the session, which Soracom calls `apiKey`.
    pub session: SessionId,
    /// The subject of the token.
    pub subject: Subject,
    /// The token. It is shown once.
    pub token: Secret,
}

/// Exchanges an AuthKey for an API key and a token.
pub async fn exchange_auth_key(
    service: &Service,
    id: &str,
    secret: &str,
    lifetime: Lifetime,
) -> Result<ExchangedToken, ExchangeError> {
    let id: AuthKeyId = id.parse().map_err(|_| refuse(service))?;
    let held = {
        let mut reader = service.store.reader().await.map_err(ExchangeError::Store)?;
        auth_keys::find(&mut reader, &id).await.map_err(ExchangeError::Store)?
    };
    // An unknown id takes the same lookup and comparison as a wrong secret, so the response time reveals nothing.
    let matches = held.as_ref().map_or(DUMMY_SECRET_HASH, |key| key.secret_hash).matches(secret);
    let Some(key) = held.filter(|_| matches) else {
        return Err(refuse(service));
    };
    service.rates.tokens.check(&key.subject.operator).map_err(|wait| {
        service.metrics().count_limited(TOKENS_EXCEEDED);
        ExchangeError::RateLimited(wait)
    })?;
    service.usage.record_auth_key_use(&key.id, service.now());
    let session = SessionId::random();
    let request = MintRequest {
        subject: key.subject.clone(),
        auth_key: Some(key.id.clone()),
        session: Some(session.clone()),
        lifetime,
        actor: Actor::AuthKey(key.id),
    };
    let minted = mint_token(service, request).await.map_err(|error| match error {
        MintError::AuthKeyGone => refuse(service),
        error => ExchangeError::Mint(error),
    })?;
    service.metrics().count_issued_token();
    Ok(ExchangedToken { session, subject: key.subject, token: minted.token })
}

/// Counts a refused exchange.
fn refuse(service: &Service) -> ExchangeError {
    service.metrics().count_refused_sign_in();
    ExchangeError::Refused
}
