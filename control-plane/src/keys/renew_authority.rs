use std::path::Path;

use super::{
    keyring::KeyError,
    publisher_keys::{self, DelegatedKey, PublisherKeys},
};
use crate::{
    db::StoreError,
    domain::{Actor, Epoch, Event},
    service::Service,
};

/// Why a delegation could not be renewed.
#[derive(Debug, thiserror::Error)]
pub enum RenewAuthorityError {
    /// A key file cannot be used.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The new keys are in effect, but the audit entry could not be written.
    #[error("the delegation was renewed, but not recorded")]
    Store(#[source] StoreError),
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
        epoch: Epoch::new(epoch),
        snapshot_key: authority.snapshot.public_key().to_string(),
        tail_key: authority.tail.public_key().to_string(),
    };
    change.commit(event).await?;
    Ok(authority)
}
