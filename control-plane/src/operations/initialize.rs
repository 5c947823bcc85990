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

/// Why an installation could not be initialized.
#[derive(Debug)]
pub enum InitializeError {
    /// The installation is initialized already.
    AlreadyInitialized,
    /// The database has an operator, but the data folder has no keys.
    KeysMissing { home: Home },
    /// The data folder has keys, but the database has no operator.
    BesideKeys { home: Home },
    /// The data folder cannot be created.
    Folder(std::io::Error),
    /// The keys cannot be created.
    Keys(KeyError),
    /// The database cannot be created.
    Store(StoreError),
}

impl fmt::Display for InitializeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlreadyInitialized => f.write_str(
                "the database already has an operator, nothing was changed; create another AuthKey with \
                 `keystile authkey create`, or give another folder with --data",
            ),
            Self::KeysMissing { home } => write!(
                f,
                "the database already has an operator, but `{}` has no keys, nothing was changed; restore the keys from \
                 their backup, as edges accept no others",
                home.keys().display()
            ),
            Self::BesideKeys { home } => write!(
                f,
                "`{}` has keys, so there was a database: restore it from its backup, or correct store.url. A new database \
                 has no revocations and no AuthKeys, and edges would accept it. Nothing was changed; add --yes to create \
                 a new database for these keys",
                home.keys().display()
            ),
            Self::Folder(_) => f.write_str("cannot create the data folder"),
            Self::Keys(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for InitializeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::AlreadyInitialized | Self::KeysMissing { .. } | Self::BesideKeys { .. } => None,
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

/// The result of an initialization.
#[derive(Debug)]
pub struct Initialized {
    /// The first operator.
    pub operator: OperatorId,
    /// The id of the root user's AuthKey.
    pub auth_key: AuthKeyId,
    /// The secret of the AuthKey. It is shown once.
    pub secret: Secret,
    /// The root key, which edges pin.
    pub root_key: String,
}

/// Whether a new database may be created for existing keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BesideKeys {
    /// Existing keys are an error.
    Refused,
    /// The caller accepts that all revocations are lost.
    Accepted,
}

/// Creates the data folder, the keys, an operator and its root AuthKey. Existing keys are an error.
pub async fn initialize(home: &Home, config: &Config) -> Result<Initialized, InitializeError> {
    initialize_at(home, config, &Clock::System).await
}

/// Like [`initialize`], with a given clock.
pub async fn initialize_at(
    home: &Home,
    config: &Config,
    clock: &Clock,
) -> Result<Initialized, InitializeError> {
    initialize_anew(home, config, clock, BesideKeys::Refused).await
}

/// Like [`initialize_at`], and accepts existing keys if requested. The commit to the database comes last: before it the
/// installation does not count as initialized.
pub async fn initialize_anew(
    home: &Home,
    config: &Config,
    clock: &Clock,
    beside_keys: BesideKeys,
) -> Result<Initialized, InitializeError> {
    let is_refused = || beside_keys == BesideKeys::Refused && home.has_keys();
    // This check precedes any change.
    if has_operator(home, config).await? {
        return Err(already_initialized(home));
    }
    if is_refused() {
        return Err(InitializeError::BesideKeys { home: home.clone() });
    }
    home.create().map_err(InitializeError::Folder)?;
    let store = Store::create(&config.store.url, home.folder()).await?;
    let mut write = store.write().await?;
    // The version lock serializes concurrent initializations. The keys are part of the bundle, so they need a version.
    versions::allocate(&mut write, clock.now()).await?;
    versions::has_passed(&mut write, clock.now()).await?;
    if operators::any(&mut write).await? {
        return Err(already_initialized(home));
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

/// Returns whether the database exists and has an operator.
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

fn already_initialized(home: &Home) -> InitializeError {
    match home.has_keys() {
        true => InitializeError::AlreadyInitialized,
        false => InitializeError::KeysMissing { home: home.clone() },
    }
}
