use std::{fmt, path::Path};

use super::{
    keyring::KeyError,
    publisher_keys::{self, DelegatedKey, PublisherKeys},
};
use crate::{
    db::StoreError,
    domain::{Actor, Event},
    service::Service,
};

/// Why a delegation could not be renewed.
#[derive(Debug)]
pub enum RenewAuthorityError {
    /// A key file cannot be used.
    Keys(KeyError),
    /// The new keys are in effect, but the audit entry could not be written.
    Store(StoreError),
}

impl fmt::Display for RenewAuthorityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keys(error) => error.fmt(f),
            Self::Store(error) => write!(f, "the delegation was renewed, but not recorded: {error}"),
        }
    }
}

impl std::error::Error for RenewAuthorityError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Keys(error) => error.source(),
            Self::Store(error) => error.source(),
        }
    }
}

impl From<KeyError> for RenewAuthorityError {
    fn from(error: KeyError) -> Self {
        Self::Keys(error)
    }
}

impl From<StoreError> for RenewAuthorityError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Signs a new delegation with the root key, to a new snapshot key or tail key if one must be replaced. Running servers use
/// it from the next manifest on. An edge that has seen it rejects everything that the replaced key signs.
pub async fn renew_authority(
    service: &Service,
    actor: &Actor,
    replace: Option<DelegatedKey>,
    root_key: Option<&Path>,
) -> Result<PublisherKeys, RenewAuthorityError> {
    let now = service.now();
    let audience = &service.config.publisher.audience;
    let epoch = publisher_keys::renew(&service.data_dir, root_key, audience, replace, now)?;
    let authority = PublisherKeys::open(&service.data_dir, audience)?;
    // The new version wakes the servers.
    let change = service.change(actor).await?;
    let event = Event::AuthorityRenewed {
        target: replace.map_or("delegation", DelegatedKey::name),
        epoch,
        snapshot_key: authority.snapshot.public_key().to_string(),
        tail_key: authority.tail.public_key().to_string(),
    };
    change.commit(event).await?;
    Ok(authority)
}
