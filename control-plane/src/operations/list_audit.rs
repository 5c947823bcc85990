use super::Service;
use crate::{
    model::AuditLine,
    store::{StoreError, audit},
};

/// The newest lines, newest first.
pub async fn list_audit(service: &Service, limit: u32) -> Result<Vec<AuditLine>, StoreError> {
    audit::newest(&mut service.store.reader().await?, limit).await
}
