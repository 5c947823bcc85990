use token::{Algorithm, secret::Secret};

use super::queries::{self as installation, Installation};
use crate::{
    accounts::operators,
    config::{self, Config},
    credentials::auth_keys::{self, create::new_auth_key},
    db::{Startup, Store, StoreError, Unobserved, versions},
    domain::{Actor, AuthKeyId, Event, OperatorId, SigningKeyState, Subject},
    keys::{
        keyring::{self as keys, KeyError},
        publisher_keys, signing_keys,
    },
    platform::{
        clock::Clock,
        data_dir::{self, DataDir},
        random,
    },
};

/// Why an installation could not be initialized.
#[derive(Debug, thiserror::Error)]
pub enum InitializeError {
    /// The installation is initialized already.
    #[error("the database already has an operator, nothing was changed")]
    AlreadyInitialized,
    /// The database has an operator, but the data folder has no keys.
    #[error(
        "the database already has an operator, but `{}` has no keys, nothing was changed; restore the keys \
         from their backup, as edges accept no others",
        .data_dir.keys().display()
    )]
    KeysMissing { data_dir: DataDir },
    /// The data folder has keys, but the database has no operator.
    #[error(
        "`{}` has keys, so there was a database: restore it from its backup, or correct store.url. A new \
         database has no revocations and no AuthKeys, and edges would accept it. Nothing was changed",
        .data_dir.keys().display()
    )]
    KeysExist { data_dir: DataDir },
    /// The data folder cannot be created.
    #[error("cannot create the data folder")]
    Folder(#[source] std::io::Error),
    /// The keys cannot be created.
    #[error(transparent)]
    Keys(KeyError),
    /// The database cannot be created.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The result of an initialization.
#[derive(Debug)]
pub struct NewInstallation {
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
pub enum ExistingKeysPolicy {
    /// Existing keys are an error.
    Refused,
    /// The caller accepts that all revocations are lost.
    Accepted,
}

/// Creates the data folder, the keys, an operator and its root AuthKey. Existing keys are an error.
pub async fn initialize(data_dir: &DataDir, config: &Config) -> Result<NewInstallation, InitializeError> {
    initialize_at(data_dir, config, &Clock::System).await
}

/// Like [`initialize`], with a given clock.
pub async fn initialize_at(
    data_dir: &DataDir,
    config: &Config,
    clock: &Clock,
) -> Result<NewInstallation, InitializeError> {
    initialize_new(data_dir, config, clock, ExistingKeysPolicy::Refused).await
}

/// Like [`initialize_at`], and accepts existing keys if requested. The commit to the database comes last: before it the
/// installation does not count as initialized.
pub async fn initialize_new(
    data_dir: &DataDir,
    config: &Config,
    clock: &Clock,
    beside_keys: ExistingKeysPolicy,
) -> Result<NewInstallation, InitializeError> {
    let is_refused = || beside_keys == ExistingKeysPolicy::Refused && data_dir.has_keys();
    // This check precedes any change.
    if has_operator(data_dir, config).await? {
        return Err(already_initialized(data_dir));
    }
    if is_refused() {
        return Err(InitializeError::KeysExist { data_dir: data_dir.clone() });
    }
    data_dir.create().map_err(InitializeError::Folder)?;
    let store = Store::create(&config.store.url, data_dir.path()).await?;
    // The version lock serializes concurrent initializations. The keys are part of the bundle, so they need a version.
    let mut change = store.change(&Actor::Admin, || clock.now(), &Unobserved).await?;
    let now = change.now();
    versions::set_passed_time(change.db(), now).await?;
    if operators::exists_any(change.db()).await? {
        return Err(already_initialized(data_dir));
    }
    if is_refused() {
        return Err(InitializeError::KeysExist { data_dir: data_dir.clone() });
    }
    match data_dir::create_exclusive(&data_dir.config_file(), config::REFERENCE.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(InitializeError::Folder(error));
        }
        _ => {}
    }
    publisher_keys::create(data_dir, &config.publisher.audience, clock.now())
        .map_err(InitializeError::Keys)?;
    let root_key = publisher_keys::root_key(data_dir).map_err(InitializeError::Keys)?;
    let algorithm = match config.tokens.algorithm {
        config::Algorithm::EdDsa => Algorithm::EdDsa,
        config::Algorithm::Hs256 => Algorithm::Hs256,
    };
    let signing_key = keys::create_signing_key(data_dir, algorithm, SigningKeyState::Active)
        .map_err(InitializeError::Keys)?;
    let installation = Installation { id: random::uuid(), root_key: root_key.to_string() };
    installation::replace(change.db(), &installation).await?;
    let subject = Subject { operator: OperatorId::random(), user: None };
    let (auth_key, secret) = new_auth_key(&subject, &Actor::Admin, now.seconds());
    operators::insert(change.db(), &subject.operator, now.seconds()).await?;
    signing_keys::insert(change.db(), &signing_key, now.seconds()).await?;
    auth_keys::insert(change.db(), &auth_key).await?;
    let event = Event::Initialized {
        operator: subject.operator.clone(),
        auth_key: auth_key.id.clone(),
        kid: signing_key.kid.clone(),
    };
    change.commit(event).await?;
    store.close().await;
    Ok(NewInstallation {
        operator: subject.operator,
        auth_key: auth_key.id,
        secret,
        root_key: root_key.to_string(),
    })
}

/// Returns whether the database exists and has an operator.
async fn has_operator(data_dir: &DataDir, config: &Config) -> Result<bool, InitializeError> {
    match Store::open_any_schema(&config.store.url, data_dir.path(), Startup::IsOver).await {
        Ok((store, _)) => {
            let any = operators::exists_any(&mut store.reader().await?).await;
            store.close().await;
            Ok(any?)
        }
        Err(StoreError::Missing { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn already_initialized(data_dir: &DataDir) -> InitializeError {
    match data_dir.has_keys() {
        true => InitializeError::AlreadyInitialized,
        false => InitializeError::KeysMissing { data_dir: data_dir.clone() },
    }
}
