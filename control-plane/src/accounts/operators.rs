use serde_json::json;

use super::{AccountError, error::check_description, queries::operators};
use crate::{
    audit::queries as audit,
    db::StoreError,
    domain::{Actor, Operator, OperatorId, Page, PageRequest},
    service::Service,
};

/// Creates an operator. Its root user has no AuthKey yet.
pub async fn create_operator(
    service: &Service,
    actor: &Actor,
    description: Option<&str>,
) -> Result<OperatorId, AccountError> {
    check_description(description)?;
    let now = service.now();
    let id = OperatorId::random();
    let mut write = service.store.write().await?;
    operators::insert(&mut write, &id, now.seconds()).await?;
    operators::set_description(&mut write, &id, description).await?;
    let detail = json!({ "description": description });
    audit::append(
        &mut write,
        audit::NewAuditEntry { at: now, actor, action: "operator.create", target: id.as_str(), detail },
    )
    .await?;
    write.commit().await?;
    Ok(id)
}

/// Returns a page of the operators.
pub async fn list_operators(service: &Service, page: &PageRequest) -> Result<Page<Operator>, StoreError> {
    operators::page(&mut service.store.reader().await?, page).await
}

/// Finds an operator.
pub async fn find_operator(service: &Service, id: &OperatorId) -> Result<Operator, AccountError> {
    operators::find(&mut service.store.reader().await?, id).await?.ok_or(AccountError::OperatorUnknown)
}
