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
    random,
    store::{
        Store, StoreError, audit, auth_keys,
        installation::{self, Installation},
        operators, signing_keys, versions,
    },
};

#[derive(Debug)]
pub enum InitializeError {
    Before,
    /// An operator in the database, and no keys beside it.
    KeysAway {
        home: Home,
    },
    /// Keys in the folder, and no operator in the database.
    BesideKeys {
        home: Home,
    },
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
            Self::KeysAway { home } => write!(
                f,
                "there is an operator in the database already, but `{}` has no keys: restore them from their backup; \
                 edges believe no others, and nothing was changed",
                home.keys().display()
            ),
            Self::BesideKeys { home } => write!(
                f,
                "`{}` has keys, so there was a database: restore it from its backup, or correct store.url; a new one \
                 knows neither what was revoked nor any AuthKey, and edges would believe it. Nothing was changed; add \
                 --yes to begin anew with these keys",
                home.keys().display()
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
            Self::Before | Self::KeysAway { .. } | Self::BesideKeys { .. } => None,
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

/// Whether a new database may be made beside keys that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BesideKeys {
    Refused,
    /// Whoever asks knows that what was revoked is forgotten.
    Accepted,
}

/// Makes the data folder, the keys, an operator and its root AuthKey; refuses to begin anew beside keys.
pub async fn initialize(home: &Home, config: &Config) -> Result<Initialized, InitializeError> {
    initialize_at(home, config, &Clock::System).await
}

/// As [`initialize`], by another clock than that of the system.
pub async fn initialize_at(
    home: &Home,
    config: &Config,
    clock: &Clock,
) -> Result<Initialized, InitializeError> {
    initialize_anew(home, config, clock, BesideKeys::Refused).await
}

/// The database comes last: until its commit nothing counts as initialised.
pub async fn initialize_anew(
    home: &Home,
    config: &Config,
    clock: &Clock,
    beside_keys: BesideKeys,
) -> Result<Initialized, InitializeError> {
    let is_refused = || beside_keys == BesideKeys::Refused && home.has_keys();
    // Before anything is made.
    if has_operator(home, config).await? {
        return Err(before(home));
    }
    if is_refused() {
        return Err(InitializeError::BesideKeys { home: home.clone() });
    }
    home.create().map_err(InitializeError::Folder)?;
    let store = Store::create(&config.store.url, home.folder()).await?;
    let mut write = store.write().await?;
    // The keys are for the edges; and of two that initialise at once the second waits here, and finds the first.
    versions::next(&mut write, clock.now()).await?;
    versions::has_passed(&mut write, clock.now()).await?;
    if operators::any(&mut write).await? {
        return Err(before(home));
    }
    if is_refused() {
        return Err(InitializeError::BesideKeys { home: home.clone() });
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
    let installation = Installation { id: random::uuid(), root_key: root_key.to_string() };
    installation::replace(&mut write, &installation).await?;
    let now = clock.now();
    let subject = Subject { operator: OperatorId::random(), user: None };
    let (auth_key, secret) = create_auth_key::new(&subject, &Actor::Admin, now.seconds());
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

async fn has_operator(home: &Home, config: &Config) -> Result<bool, InitializeError> {
    match Store::open_any(&config.store.url, home.folder()).await {
        Ok((store, _)) => {
            let any = operators::any(&mut store.reader().await?).await;
            store.close().await;
            Ok(any?)
        }
        Err(StoreError::Missing { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn before(home: &Home) -> InitializeError {
    match home.has_keys() {
        true => InitializeError::Before,
        false => InitializeError::KeysAway { home: home.clone() },
    }
}
