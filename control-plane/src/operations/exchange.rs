use std::{fmt, time::Duration};

use token::secret::{Secret, SecretHash};

use super::{
    Service,
    mint::{Lifetime, MintError, Order, mint},
};
use crate::{
    model::{Actor, AuthKeyId, SessionId, Subject},
    store::{StoreError, auth_keys},
};

/// Why no token is given.
#[derive(Debug)]
pub enum ExchangeError {
    /// The id is unknown or the secret is wrong: which of both is not told.
    Refused,
    /// The operator has had as many tokens as it may in a minute; how long until the next.
    TooMany(Duration),
    Store(StoreError),
    Mint(MintError),
}

impl fmt::Display for ExchangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("the AuthKey id or the AuthKey is wrong"),
            Self::TooMany(_) => f.write_str(
                "this operator has been issued as many tokens as it may in a minute; use those until they expire",
            ),
            Self::Store(error) => error.fmt(f),
            Self::Mint(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ExchangeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Refused | Self::TooMany(_) => None,
            Self::Store(error) => error.source(),
            Self::Mint(error) => error.source(),
        }
    }
}

#[derive(Debug)]
pub struct Exchanged {
    pub session: SessionId,
    pub subject: Subject,
    pub token: Secret,
}

/// AuthKey -> API key and token.
pub async fn exchange(
    service: &Service,
    id: &str,
    secret: &str,
    lifetime: Lifetime,
) -> Result<Exchanged, ExchangeError> {
    let id: AuthKeyId = id.parse().map_err(|_| ExchangeError::Refused)?;
    let held = {
        let mut reader = service.store.reader().await.map_err(ExchangeError::Store)?;
        auth_keys::find(&mut reader, &id).await.map_err(ExchangeError::Store)?
    };
    // An unknown id costs the same look-up and the same comparison as a wrong secret.
    let matches = held.as_ref().map_or(NOBODYS, |key| key.secret_hash).matches(secret);
    let key = held.filter(|_| matches).ok_or(ExchangeError::Refused)?;
    service.rates.tokens.take(&key.subject.operator).map_err(ExchangeError::TooMany)?;
    service.usage.auth_key_used(&key.id, service.now());
    let session = SessionId::random();
    let order = Order {
        subject: key.subject.clone(),
        auth_key: Some(key.id.clone()),
        session: Some(session.clone()),
        lifetime,
        actor: Actor::AuthKey(key.id),
    };
    let minted = mint(service, order).await.map_err(|error| match error {
        MintError::AuthKeyGone => ExchangeError::Refused,
        error => ExchangeError::Mint(error),
    })?;
    Ok(Exchanged { session, subject: key.subject, token: minted.token })
}

/// The hash of nothing anybody can present.
const NOBODYS: SecretHash = SecretHash::from_bytes([0; 32]);
