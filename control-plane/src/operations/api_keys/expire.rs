use serde_json::json;

use super::refuse::refuse;
use crate::{
    model::{Actor, ApiKeyState},
    operations::Service,
    store::{StoreError, api_keys, audit, versions},
};

/// Refuses the keys that have come to their end: those of format 1 do not say it themselves, and an end may have been moved
/// up. Returns how many.
pub async fn expire_api_keys(service: &Service) -> Result<usize, StoreError> {
    let now = service.now();
    if api_keys::due(&mut service.store.reader().await?, now.seconds()).await?.is_empty() {
        return Ok(0);
    }
    let mut write = service.store.write().await?;
    let version = versions::next(&mut write, now).await?;
    // Again: another replica may have been first.
    let due = api_keys::due(&mut write, now.seconds()).await?;
    let mut lines = Vec::with_capacity(due.len());
    for key in &due {
        if api_keys::change(&mut write, key.id, key.state, ApiKeyState::Expired).await? {
            refuse(&mut write, key, "expired", now, version).await?;
            lines.push((key.id.to_string(), json!({ "owner": key.owner.to_string(), "version": version })));
        }
    }
    if lines.is_empty() {
        return Ok(0);
    }
    let changes = lines.iter().map(|(target, detail)| audit::Change {
        at: now,
        actor: &Actor::System,
        action: "api_key.expire",
        target,
        detail: detail.clone(),
    });
    audit::append_all(&mut write, &changes.collect::<Vec<_>>()).await?;
    write.commit().await?;
    service.settle(version).await;
    Ok(lines.len())
}
