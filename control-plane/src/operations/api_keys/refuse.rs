use crate::{
    clock::Time,
    model::{ApiKey, Revocation, WatermarkScope},
    store::{NEVER, StoreError, Write, api_keys, revocations},
};

/// Revokes the fingerprint for as long as its tag key is known: an API key has no end of its own.
pub(super) async fn refuse(
    write: &mut Write,
    key: &ApiKey,
    reason: &str,
    now: Time,
    version: u64,
) -> Result<(), StoreError> {
    let revocation = Revocation {
        fingerprint: key.fingerprint,
        expires_at: NEVER,
        reason: Some(reason.to_owned()),
        revoked_at: now.seconds(),
    };
    // Its prefix is its own since it was issued, so this can't fail; it may have been revoked before.
    revocations::insert(write, &revocation, version).await?;
    Ok(())
}

/// What a watermark covers is refused by fingerprint as well. API keys live on when the watermark is forgotten; and one
/// with a username from elsewhere is nobody's at the edge. Returns the keys.
pub(in crate::operations) async fn refuse_all(
    write: &mut Write,
    scope: &WatermarkScope,
    until: u64,
    reason: &str,
    now: Time,
    version: u64,
) -> Result<Vec<ApiKey>, StoreError> {
    let keys = api_keys::covered(write, scope, until).await?;
    for key in &keys {
        refuse(write, key, reason, now, version).await?;
    }
    Ok(keys)
}
