//! Revokes API keys that have reached their end.

use super::{
    queries as api_keys,
    revocation::{DISABLED, EXPIRED, revoke_key},
};
use crate::{
    db::{StoreError, Write},
    domain::UnixMillis,
    domain::{Actor, ApiKeyId, ApiKeyState, Event, Version},
    revocation::revocations,
    service::Service,
};

/// Revokes the keys that have reached their end, and returns their number. A key of format 1 does not contain its end, and
/// an end may have been moved forward.
pub async fn expire_api_keys(service: &Service) -> Result<usize, StoreError> {
    let now = service.now();
    if api_keys::list_due(&mut service.store.reader().await?, now.seconds()).await?.is_empty() {
        return Ok(0);
    }
    let mut change = service.change(&Actor::System).await?;
    let (version, now) = (change.version(), change.now());
    // Another replica may have revoked them before this one got the version lock.
    let due = api_keys::list_due(change.db(), now.seconds()).await?;
    let mut expired = 0;
    for key in due {
        if api_keys::set_state(change.db(), key.id, key.state, ApiKeyState::Expired).await? {
            revoke_key(change.db(), &key, EXPIRED, now, version).await?;
            change.record(Event::ApiKeyExpired { id: key.id, owner: key.owner });
            expired += 1;
        }
    }
    if expired > 0 {
        change.commit_recorded().await?;
    }
    Ok(expired)
}

/// Reverts the expiry of keys whose end is in the future, which a clock ahead has caused. A key that was disabled is
/// disabled again; a key that was revoked otherwise stays revoked. Returns the keys that are valid again.
pub(crate) async fn take_back_expiry(
    write: &mut Write,
    now: UnixMillis,
    version: Version,
) -> Result<Vec<ApiKeyId>, StoreError> {
    let mut restored = Vec::new();
    for key in api_keys::list_expired_early(write, now.seconds()).await? {
        let reason = revocations::find(write, &key.fingerprint).await?.and_then(|found| found.reason);
        match reason.as_deref() {
            Some(DISABLED) => {
                api_keys::set_state(write, key.id, ApiKeyState::Expired, ApiKeyState::Disabled).await?;
            }
            Some(EXPIRED) => {
                api_keys::set_state(write, key.id, ApiKeyState::Expired, ApiKeyState::Active).await?;
                revocations::unrevoke(write, &key.fingerprint, now.seconds(), version).await?;
                restored.push(key.id);
            }
            _ => {}
        }
    }
    Ok(restored)
}
