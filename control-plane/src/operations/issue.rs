use std::fmt;

use token::{Fingerprint, secret::Secret};

use super::{
    AccountError, Service,
    mint::{Lifetime, MintError, Order, mint},
    users::ensure_user,
};
use crate::{
    model::{Actor, AuthKeyId, SessionId, Subject},
    store::{NEVER, StoreError, auth_keys},
};

#[derive(Debug)]
pub enum IssueError {
    /// No such operator, or a user that can't be made.
    Account(AccountError),
    AuthKeyUnknown,
    /// The settings want every token to end.
    NeverNotAllowed,
    Store(StoreError),
    Mint(MintError),
}

impl fmt::Display for IssueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Account(error) => error.fmt(f),
            Self::AuthKeyUnknown => {
                f.write_str("there is no such AuthKey; `keystile authkey list` shows those there are")
            }
            Self::NeverNotAllowed => f.write_str(
                "a token that never ends is good until somebody revokes it; if that is wanted, set `tokens.allow_never`",
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

/// For whom a token is issued.
#[derive(Debug, Clone)]
pub enum Bearer {
    Subject(Subject),
    AuthKey(AuthKeyId),
}

#[derive(Debug)]
pub struct Issued {
    pub session: SessionId,
    pub subject: Subject,
    pub token: Secret,
    pub fingerprint: Fingerprint,
    /// None: never.
    pub expires_at: Option<u64>,
}

/// An admin issues a token without the secret of an AuthKey. A user that is named for the first time is made.
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
                service.settle(version).await;
            }
            (subject, None)
        }
    };
    let session = SessionId::random();
    let order = Order {
        subject: subject.clone(),
        auth_key,
        session: Some(session.clone()),
        lifetime,
        actor: Actor::Admin,
    };
    let minted = mint(service, order).await.map_err(|error| match error {
        MintError::AuthKeyGone => IssueError::AuthKeyUnknown,
        error => IssueError::Mint(error),
    })?;
    let fingerprint = minted.issuance.fingerprint;
    let expires_at = Some(minted.issuance.expires_at).filter(|end| *end < NEVER);
    Ok(Issued { session, subject, token: minted.token, fingerprint, expires_at })
}
