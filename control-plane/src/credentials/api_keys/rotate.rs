//! Replaces API keys and their generations.

use token::api_key::Kind;

use super::{
    ApiKeyError, CreatedApiKey,
    change::find_owned,
    create::{MintOutcome, NewApiKey, create_tag_key_generation, mint_and_insert, wait_for_watermark},
    queries as api_keys,
    revocation::{ROTATED, revoke_key},
};
use crate::{
    credentials::tokens::mint::IssueBackoff,
    domain::{Actor, ApiKey, ApiKeyId, ApiKeyState, Event, Generation, PresentedUsername},
    revocation::AccessScope,
    service::Service,
};

/// Creates a key with the attributes of an existing one, except for the username if one is given. The old key stays valid
/// for `grace` seconds, but no longer than before.
///
/// The old key does not contain its new end, so edges refuse it by a revocation.
pub async fn rotate_api_key(
    service: &Service,
    actor: &Actor,
    authority: &AccessScope,
    id: ApiKeyId,
    username: Option<&str>,
    grace: u64,
) -> Result<CreatedApiKey, ApiKeyError> {
    let mut backoff = IssueBackoff::default();
    loop {
        let mut change = service.change(actor).await?;
        let (version, now) = (change.version(), change.now());
        let old = find_owned(change.db(), actor, authority, id).await?;
        if old.state != ApiKeyState::Active || old.expires_at.is_some_and(|end| end <= now.seconds()) {
            return Err(ApiKeyError::NotActive(id));
        }
        let username = match username {
            Some(username) => {
                PresentedUsername::parse_for(&old.owner, Some(username)).map_err(ApiKeyError::Username)?
            }
            None => inherited_username(&old)?,
        };
        let new = NewApiKey {
            owner: &old.owner,
            username: &username,
            prefix: &old.prefix,
            name: old.name.as_deref(),
            metadata: old.metadata.as_ref(),
            expires_at: old.expires_at,
        };
        let (key, secret) = match mint_and_insert(service, change.as_draft(), &new).await? {
            MintOutcome::Minted(minted) => *minted,
            MintOutcome::Blocked(watermark) => {
                drop(change);
                wait_for_watermark(&watermark, now, &mut backoff).await?;
                continue;
            }
        };
        api_keys::set_creator(change.db(), key.id, &actor.to_string()).await?;
        let end = now.seconds().saturating_add(grace);
        api_keys::expire_at(change.db(), id, end).await?;
        if grace == 0 {
            api_keys::set_state(change.db(), id, ApiKeyState::Active, ApiKeyState::Expired).await?;
            revoke_key(change.db(), &old, ROTATED, now, version).await?;
        }
        change.commit(Event::ApiKeyRotated { id, owner: old.owner, new: key.id, until: end }).await?;
        return Ok(CreatedApiKey { key, secret });
    }
}

/// Returns the username of the old key if it has the same meaning with the new key.
fn inherited_username(old: &ApiKey) -> Result<PresentedUsername, ApiKeyError> {
    // A key of format 1 without a username has no subject, while one of format 2 is the root user's.
    if old.kind == Kind::Format1 && old.username.as_str().is_empty() {
        return Err(ApiKeyError::UsernameNotInherited(old.id));
    }
    PresentedUsername::parse_for(&old.owner, Some(old.username.as_str()))
        .map_err(|_| ApiKeyError::UsernameNotInherited(old.id))
}

/// Creates a generation for new API keys, and returns it. Keys of older generations stay valid.
pub async fn rotate_tag_key(service: &Service, actor: &Actor, kind: Kind) -> Result<Generation, ApiKeyError> {
    let mut change = service.change(actor).await?;
    let (version, now) = (change.version(), change.now());
    let next = create_tag_key_generation(service, change.db(), kind, version, now).await?;
    change.commit(Event::TagKeyRotated { kid: next.kid(), format: kind }).await?;
    Ok(next)
}
