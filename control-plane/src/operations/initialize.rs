use std::fmt;

use serde_json::json;
use token::{Algorithm, secret::Secret};

use super::create_auth_key;
use crate::{
    authority,
    clock::Clock,
    config::{self, Config},
    home::{self, Home},
    keys::{self, KeyError},
    model::{Actor, AuthKeyId, OperatorId, SigningKeyState, Subject},
    store::{Store, StoreError, audit, auth_keys, operators, signing_keys, versions},
};

#[derive(Debug)]
pub enum InitializeError {
    Before,
    Folder(std::io::Error),
    Keys(KeyError),
    Store(StoreError),
}

impl fmt::Display for InitializeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Before => f.write_str(
                "there is an operator in the database already, and nothing was changed; \
                 `keystile authkey create` makes another AuthKey, --data names another folder",
            ),
            Self::Folder(_) => f.write_str("the data folder can't be made"),
            Self::Keys(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for InitializeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Before => None,
            Self::Folder(error) => Some(error),
            Self::Keys(error) => error.source(),
            Self::Store(error) => error.source(),
        }
    }
}

impl From<StoreError> for InitializeError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

#[derive(Debug)]
pub struct Initialized {
    pub operator: OperatorId,
    pub auth_key: AuthKeyId,
    /// Shown once.
    pub secret: Secret,
    pub root_key: String,
}

/// Makes the data folder, the keys, an operator and its root AuthKey. The database comes last: until its commit
/// nothing counts as initialised, and what is there is taken up by the next attempt.
pub async fn initialize(home: &Home, config: &Config) -> Result<Initialized, InitializeError> {
    initialize_at(home, config, &Clock::System).await
}

/// As [`initialize`], by another clock than that of the system.
pub async fn initialize_at(
    home: &Home,
    config: &Config,
    clock: &Clock,
) -> Result<Initialized, InitializeError> {
    home.create().map_err(InitializeError::Folder)?;
    let store = Store::create(&config.store.url, home.folder()).await?;
    let mut write = store.write().await?;
    // The keys are for the edges; and of two that initialise at once the second waits here, and finds the first.
    versions::next(&mut write, clock.now()).await?;
    versions::has_passed(&mut write, clock.now()).await?;
    if !operators::list(&mut write).await?.is_empty() {
        return Err(InitializeError::Before);
    }
    match home::write_new(&home.config_file(), config::REFERENCE.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(InitializeError::Folder(error));
        }
        _ => {}
    }
    authority::create(home, &config.publisher.audience, clock.now()).map_err(InitializeError::Keys)?;
    let root_key = authority::root_key(home).map_err(InitializeError::Keys)?;
    let algorithm = match config.tokens.algorithm {
        config::Algorithm::EdDsa => Algorithm::EdDsa,
        config::Algorithm::Hs256 => Algorithm::Hs256,
    };
    let signing_key =
        keys::create_signing_key(home, algorithm, SigningKeyState::Active).map_err(InitializeError::Keys)?;
    let now = clock.now();
    let subject = Subject { operator: OperatorId::random(), user: None };
    let (auth_key, secret) = create_auth_key::new(&subject, now.seconds());
    operators::insert(&mut write, &subject.operator, now.seconds()).await?;
    signing_keys::insert(&mut write, &signing_key, now.seconds()).await?;
    auth_keys::insert(&mut write, &auth_key).await?;
    let detail = json!({ "auth_key_id": auth_key.id.to_string(), "kid": signing_key.kid });
    audit::append(
        &mut write,
        audit::Change {
            at: now,
            actor: &Actor::Admin,
            action: "initialize",
            target: subject.operator.as_str(),
            detail,
        },
    )
    .await?;
    write.commit().await?;
    store.close().await;
    Ok(Initialized {
        operator: subject.operator,
        auth_key: auth_key.id,
        secret,
        root_key: root_key.to_string(),
    })
}
