use super::queries as auth_keys;
use crate::{
    db::StoreError,
    domain::{AuthKey, AuthKeyId, OperatorId, Page, PageRequest},
    service::Service,
};

/// Returns a page of the AuthKeys of an operator, or of all.
pub async fn list_auth_keys(
    service: &Service,
    of: Option<&OperatorId>,
    page: &PageRequest,
) -> Result<Page<AuthKey>, StoreError> {
    auth_keys::page(&mut service.store.reader().await?, of, false, page).await
}

/// Returns a page of the AuthKeys of an operator's root user.
pub async fn list_root_auth_keys(
    service: &Service,
    of: &OperatorId,
    page: &PageRequest,
) -> Result<Page<AuthKey>, StoreError> {
    auth_keys::page(&mut service.store.reader().await?, Some(of), true, page).await
}

/// Finds an AuthKey.
pub async fn find_auth_key(service: &Service, id: &AuthKeyId) -> Result<Option<AuthKey>, StoreError> {
    auth_keys::find(&mut service.store.reader().await?, id).await
}
