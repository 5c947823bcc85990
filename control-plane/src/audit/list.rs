use super::queries as audit;
use crate::{db::StoreError, domain::AuditEntry, service::Service};

/// Returns the newest audit entries, newest first.
pub async fn list_audit(service: &Service, limit: u32) -> Result<Vec<AuditEntry>, StoreError> {
    audit::list_newest(&mut service.store.reader().await?, limit).await
}
