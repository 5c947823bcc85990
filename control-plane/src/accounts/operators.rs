pub use super::queries::operators::{count, exists, exists_any, insert, insert_user, user_exists};
use super::{AccountError, error::check_description, queries::operators};
use crate::{
    db::StoreError,
    domain::{Actor, Event, Operator, OperatorId, Page, PageRequest},
    service::Service,
};

/// Creates an operator. Its root user has no AuthKey yet.
pub async fn create_operator(
    service: &Service,
    actor: &Actor,
    description: Option<&str>,
) -> Result<OperatorId, AccountError> {
    check_description(description)?;
    let id = OperatorId::random();
    let mut draft = service.draft(actor).await?;
    let now = draft.now();
    operators::insert(draft.db(), &id, now.seconds()).await?;
    operators::set_description(draft.db(), &id, description).await?;
    let description = description.map(str::to_owned);
    draft.commit(Event::OperatorCreated { operator: id.clone(), description }).await?;
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
