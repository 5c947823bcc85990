//! Revocations of API keys by fingerprint.

use token::Fingerprint;

use crate::{
    clock::Time,
    model::{ApiKey, ApiKeyState, Revocation, WatermarkScope},
    store::{
        NEVER_EXPIRES, StoreError, Write, api_keys,
        revocations::{self, RevokeOutcome},
    },
};

/// The reason of a disabled key. Enabling the key undoes the revocation.
pub(in crate::operations) const DISABLED: &str = "disabled";

/// The reason of a key that has expired.
pub(in crate::operations) const EXPIRED: &str = "expired";

/// The reason of a key that was replaced.
pub(in crate::operations) const ROTATED: &str = "rotated";

/// Callers cannot give one of these reasons, because Keystile undoes such revocations itself.
pub(in crate::operations) const RESERVED_REASONS: [&str; 3] = [DISABLED, EXPIRED, ROTATED];

/// Revokes the fingerprint of a key until the key expires. Returns whether it was not revoked yet.
pub(in crate::operations) async fn revoke_key(
    write: &mut Write,
    key: &ApiKey,
    reason: &str,
    now: Time,
    version: u64,
) -> Result<bool, StoreError> {
    let revocation = Revocation {
        fingerprint: key.fingerprint,
        expires_at: key.ends_at.unwrap_or(NEVER_EXPIRES),
        reason: Some(reason.to_owned()),
        revoked_at: now.seconds(),
    };
    // The prefix was reserved when the key was issued, so any other outcome means that the key is revoked already.
    Ok(revocations::insert(write, &revocation, version).await? == RevokeOutcome::Revoked)
}

/// Changes the revocation of a disabled API key so that enabling the key does not take it back. Returns whether the key was
/// disabled.
pub(in crate::operations) async fn make_revocation_permanent(
    write: &mut Write,
    fingerprint: &Fingerprint,
    reason: Option<&str>,
    now: Time,
    version: u64,
) -> Result<bool, StoreError> {
    let Some(key) = api_keys::find_by_fingerprint(write, fingerprint).await? else { return Ok(false) };
    if !api_keys::set_state(write, key.id, ApiKeyState::Disabled, ApiKeyState::Active).await? {
        return Ok(false);
    }
    // The revocation gets a new version, so that the journal records the change.
    revocations::update_reason(write, fingerprint, reason, now.seconds(), version).await?;
    Ok(true)
}

/// The result of [`revoke_keys_in_scope`].
#[derive(Debug)]
pub(in crate::operations) struct RevokedKeys {
    /// All keys in the scope.
    pub(in crate::operations) keys: Vec<ApiKey>,
    /// True if any of them was valid or disabled before.
    pub(in crate::operations) changed: bool,
}

/// Revokes the API keys that a watermark covers by fingerprint too. API keys outlive the retention of the watermark, and a
/// key of format 1 with an external username has no subject that an edge could match against the watermark.
pub(in crate::operations) async fn revoke_keys_in_scope(
    write: &mut Write,
    scope: &WatermarkScope,
    until: u64,
    reason: &str,
    now: Time,
    version: u64,
) -> Result<RevokedKeys, StoreError> {
    let keys = api_keys::list_in_scope(write, scope, until).await?;
    let mut changed = false;
    for key in &keys {
        changed |= revoke_key(write, key, reason, now, version).await?;
        changed |= make_revocation_permanent(write, &key.fingerprint, Some(reason), now, version).await?;
    }
    Ok(RevokedKeys { keys, changed })
}
