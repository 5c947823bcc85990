//! Issues a token on behalf of an admin.

use std::fmt;

use token::{Fingerprint, secret::Secret};

use super::{
    AccountError, Service,
    mint::{Lifetime, MintError, MintRequest, mint_token},
    users::ensure_user,
};
use crate::{
    model::{Actor, AuthKeyId, SessionId, Subject},
    store::{NEVER, StoreError, auth_keys},
};

/// Why a token could not be issued.
#[derive(Debug)]
pub enum IssueError {
    /// The operator does not exist, or the user cannot be created.
    Account(AccountError),
    /// The AuthKey does not exist.
    AuthKeyUnknown,
    /// The configuration forbids tokens without expiry.
    NeverNotAllowed,
    /// The store cannot be read or written.
    Store(StoreError),
    /// The token cannot be minted.
    Mint(MintError),
}

impl fmt::Display for IssueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Account(error) => error.fmt(f),
            Self::AuthKeyUnknown => {
                f.write_str("unknown AuthKey; `keystile authkey list` shows the existing ones")
            }
            Self::NeverNotAllowed => f.write_str(
                "a token without expiry is valid until it is revoked; set `tokens.allow_never` to allow such tokens",
            ),
            Self::Store(error) => error.fmt(f),
            Self::Mint(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for IssueError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Account(error) => error.source(),
            Self::AuthKeyUnknown | Self::NeverNotAllowed => None,
            Self::Store(error) => error.source(),
            Self::Mint(error) => error.source(),
        }
    }
}

impl From<AccountError> for IssueError {
    fn from(error: AccountError) -> Self {
        match error {
            AccountError::Store(error) => Self::Store(error),
            error => Self::Account(error),
        }
    }
}

impl From<StoreError> for IssueError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// The recipient of a token.
#[derive(Debug, Clone)]
pub enum Bearer {
    /// A subject.
    Subject(Subject),
    /// The subject of an AuthKey. The token is bound to the AuthKey.
    AuthKey(AuthKeyId),
}

/// An issued token.
#[derive(Debug)]
pub struct Issued {
    /// The id of the session, which is the API key of the pair.
    pub session: SessionId,
    /// The subject of the token.
    pub subject: Subject,
    /// The token. It is shown once.
    pub token: Secret,
    /// The fingerprint of the token.
    pub fingerprint: Fingerprint,
    /// Seconds; `None` if the token never expires.
    pub expires_at: Option<u64>,
}

/// Issues a token without the secret of an AuthKey. Creates the user if it does not exist.
pub async fn issue(service: &Service, bearer: Bearer, lifetime: Lifetime) -> Result<Issued, IssueError> {
    if lifetime == Lifetime::NEVER && !service.config.tokens.allow_never {
        return Err(IssueError::NeverNotAllowed);
    }
    let (subject, auth_key) = match bearer {
        Bearer::AuthKey(id) => {
            let mut reader = service.store.reader().await?;
            let key = auth_keys::find(&mut reader, &id).await?.ok_or(IssueError::AuthKeyUnknown)?;
            (key.subject, Some(key.id))
        }
        Bearer::Subject(subject) => {
            let mut write = service.store.write().await?;
            if let Some(version) =
                ensure_user(service, &mut write, &Actor::Admin, &subject, service.now()).await?
            {
                write.commit().await?;
                service.wait_published(version).await;
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
    let expires_at = Some(minted.issuance.expires_at).filter(|end| *end < NEVER);
    Ok(Issued { session, subject, token: minted.token, fingerprint, expires_at })
}
