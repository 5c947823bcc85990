use super::Service;
use crate::{
    model::AuditEntry,
    store::{StoreError, audit},
};

/// Returns the newest audit entries, newest first.
pub async fn list_audit(service: &Service, limit: u32) -> Result<Vec<AuditEntry>, StoreError> {
    audit::list_newest(&mut service.store.reader().await?, limit).await
}
