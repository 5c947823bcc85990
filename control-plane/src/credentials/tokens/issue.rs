//! Issues a token on behalf of an admin.

use token::{Fingerprint, secret::Secret};

use super::mint::{Lifetime, MintError, MintRequest, mint_token};
use crate::{
    accounts::{
        AccountError,
        users::{UserPresence, ensure_user},
    },
    credentials::auth_keys::queries as auth_keys,
    db::{NEVER_EXPIRES, StoreError},
    domain::{Actor, AuthKeyId, SessionId, Subject, UnixSeconds},
    service::Service,
};

/// Why a token could not be issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The operator does not exist, or the user cannot be created.
    #[error(transparent)]
    Account(AccountError),
    /// The AuthKey does not exist.
    #[error("unknown AuthKey")]
    AuthKeyUnknown,
    /// The configuration forbids tokens without expiry.
    #[error(
        "a token without expiry is valid until it is revoked; set `tokens.allow_never` to allow such tokens"
    )]
    NeverNotAllowed,
    /// The store cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The token cannot be minted.
    #[error(transparent)]
    Mint(MintError),
}

impl From<AccountError> for IssueError {
    fn from(error: AccountError) -> Self {
        match error {
            AccountError::Store(error) => Self::Store(error),
            error => Self::Account(error),
        }
    }
}

/// The recipient of a token.
#[derive(Debug, Clone)]
pub enum TokenRecipient {
    /// A subject.
    Subject(Subject),
    /// The subject of an AuthKey. The token is bound to the AuthKey.
    AuthKey(AuthKeyId),
}

/// An issued token.
#[derive(Debug)]
pub struct IssuedToken {
    /// The id of the session, which Soracom calls `apiKey`.
    pub session: SessionId,
    /// The subject of the token.
    pub subject: Subject,
    /// The token. It is shown once.
    pub token: Secret,
    /// The fingerprint of the token.
    pub fingerprint: Fingerprint,
    /// Seconds; `None` if the token never expires.
    pub expires_at: Option<UnixSeconds>,
}

/// Issues a token without the secret of an AuthKey. Creates the user if it does not exist.
pub async fn issue_token(
    service: &Service,
    bearer: TokenRecipient,
    lifetime: Lifetime,
) -> Result<IssuedToken, IssueError> {
    if lifetime == Lifetime::NEVER && !service.config.tokens.allow_never {
        return Err(IssueError::NeverNotAllowed);
    }
    let (subject, auth_key) = match bearer {
        TokenRecipient::AuthKey(id) => {
            let mut reader = service.store.reader().await?;
            let key = auth_keys::find(&mut reader, &id).await?.ok_or(IssueError::AuthKeyUnknown)?;
            (key.subject, Some(key.id))
        }
        TokenRecipient::Subject(subject) => {
            let mut draft = service.draft(&Actor::Admin).await?;
            if ensure_user(service, &mut draft, &subject).await? == UserPresence::Created {
                draft.commit_recorded().await?;
            }
            (subject, None)
        }
    };
    let session = SessionId::random();
    let request = MintRequest {
        subject: subject.clone(),
        auth_key,
        session: Some(session.clone()),
        lifetime,
        actor: Actor::Admin,
    };
    let minted = mint_token(service, request).await.map_err(|error| match error {
        MintError::AuthKeyGone => IssueError::AuthKeyUnknown,
        error => IssueError::Mint(error),
    })?;
    let fingerprint = minted.issuance.fingerprint;
    let expires_at = Some(minted.issuance.expires_at).filter(|end| *end < NEVER_EXPIRES);
    Ok(IssuedToken { session, subject, token: minted.token, fingerprint, expires_at })
}
