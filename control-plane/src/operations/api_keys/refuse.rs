use token::Fingerprint;

use crate::{
    clock::Time,
    model::{ApiKey, ApiKeyState, Revocation, WatermarkScope},
    store::{
        NEVER, StoreError, Write, api_keys,
        revocations::{self, Inserted},
    },
};

/// The reason of a revocation that enabling the key takes back.
pub(in crate::operations) const DISABLED: &str = "disabled";

/// The reason of a revocation that came with the end of the key.
pub(in crate::operations) const EXPIRED: &str = "expired";

/// The reason of a revocation that came with a new key in its place.
pub(in crate::operations) const ROTATED: &str = "rotated";

/// Whoever revokes a key can't give one of these: such a revocation could be taken for one that may be taken back.
pub(in crate::operations) const RESERVED_REASONS: [&str; 3] = [DISABLED, EXPIRED, ROTATED];

/// Revokes the fingerprint for as long as the key itself would be good. Whether it was not revoked yet.
pub(in crate::operations) async fn refuse(
    write: &mut Write,
    key: &ApiKey,
    reason: &str,
    now: Time,
    version: u64,
) -> Result<bool, StoreError> {
    let revocation = Revocation {
        fingerprint: key.fingerprint,
        expires_at: key.ends_at.unwrap_or(NEVER),
        reason: Some(reason.to_owned()),
        revoked_at: now.seconds(),
    };
    // Its prefix is its own since it was issued, so this can't fail; it may have been revoked before.
    Ok(revocations::insert(write, &revocation, version).await? == Inserted::Yes)
}

/// Makes the revocation of a disabled API key one that enabling it does not take back. Returns whether it was disabled.
pub(in crate::operations) async fn hold(
    write: &mut Write,
    fingerprint: &Fingerprint,
    reason: Option<&str>,
    now: Time,
    version: u64,
) -> Result<bool, StoreError> {
    let Some(key) = api_keys::find_by_fingerprint(write, fingerprint).await? else { return Ok(false) };
    if !api_keys::change(write, key.id, ApiKeyState::Disabled, ApiKeyState::Active).await? {
        return Ok(false);
    }
    // A change of the revocation too, or else the journal would not hear of it.
    revocations::confirm(write, fingerprint, reason, now.seconds(), version).await?;
    Ok(true)
}

/// What was refused along with its owner.
#[derive(Debug)]
pub(in crate::operations) struct Refused {
    pub(in crate::operations) keys: Vec<ApiKey>,
    /// Whether any of them was good before, or might have been enabled.
    pub(in crate::operations) changed: bool,
}

/// What a watermark covers is refused by fingerprint as well. API keys live on when the watermark is forgotten; and one
/// of format 1 with a username from elsewhere is nobody's at the edge.
pub(in crate::operations) async fn refuse_all(
    write: &mut Write,
    scope: &WatermarkScope,
    until: u64,
    reason: &str,
    now: Time,
    version: u64,
) -> Result<Refused, StoreError> {
    let keys = api_keys::covered(write, scope, until).await?;
    let mut changed = false;
    for key in &keys {
        changed |= refuse(write, key, reason, now, version).await?;
        changed |= hold(write, &key.fingerprint, Some(reason), now, version).await?;
    }
    Ok(Refused { keys, changed })
}
