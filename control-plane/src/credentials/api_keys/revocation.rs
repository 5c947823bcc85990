//! Revocations of API keys by fingerprint.

use token::Fingerprint;

use super::queries as api_keys;
use crate::{
    db::{NEVER_EXPIRES, StoreError, Write},
    domain::{ApiKey, ApiKeyState, Revocation, UnixMillis, UnixSeconds, Version, WatermarkScope},
    revocation::revocations::{self, RevokeOutcome},
};

/// The reason of a disabled key. Enabling the key undoes the revocation.
pub(crate) const DISABLED: &str = "disabled";

/// The reason of a key that has expired.
pub(crate) const EXPIRED: &str = "expired";

/// The reason of a key that was replaced.
pub(crate) const ROTATED: &str = "rotated";

/// Callers cannot give one of these reasons, because Keystile undoes such revocations itself.
pub(crate) const RESERVED_REASONS: [&str; 3] = [DISABLED, EXPIRED, ROTATED];

/// Revokes the fingerprint of a key until the key expires. Returns whether it was not revoked yet.
pub(crate) async fn revoke_key(
    write: &mut Write,
    key: &ApiKey,
    reason: &str,
    now: UnixMillis,
    version: Version,
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
pub(crate) async fn make_revocation_permanent(
    write: &mut Write,
    fingerprint: &Fingerprint,
    reason: Option<&str>,
    now: UnixMillis,
    version: Version,
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
pub(crate) struct RevokedKeys {
    /// All keys in the scope.
    pub(crate) keys: Vec<ApiKey>,
    /// True if any of them was valid or disabled before.
    pub(crate) changed: bool,
}

/// Revokes the API keys that a watermark covers by fingerprint too. API keys outlive the retention of the watermark, and a
/// key of format 1 with an external username has no subject that an edge could match against the watermark.
pub(crate) async fn revoke_keys_in_scope(
    write: &mut Write,
    scope: &WatermarkScope,
    until: UnixSeconds,
    reason: &str,
    now: UnixMillis,
    version: Version,
) -> Result<RevokedKeys, StoreError> {
    let keys = api_keys::list_in_scope(write, scope, until).await?;
    let mut changed = false;
    for key in &keys {
        changed |= revoke_key(write, key, reason, now, version).await?;
        changed |= make_revocation_permanent(write, &key.fingerprint, Some(reason), now, version).await?;
    }
    Ok(RevokedKeys { keys, changed })
}
