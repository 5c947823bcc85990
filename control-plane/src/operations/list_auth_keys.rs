use super::Service;
use crate::{
    model::{AuthKey, AuthKeyId, OperatorId},
    store::{StoreError, auth_keys},
};

/// Those of an operator, or all.
pub async fn list_auth_keys(service: &Service, of: Option<&OperatorId>) -> Result<Vec<AuthKey>, StoreError> {
    auth_keys::list(&mut service.store.reader().await?, of).await
}

pub async fn find_auth_key(service: &Service, id: &AuthKeyId) -> Result<Option<AuthKey>, StoreError> {
    auth_keys::find(&mut service.store.reader().await?, id).await
}
