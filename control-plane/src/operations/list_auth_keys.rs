use super::Service;
use crate::{
    model::{AuthKey, OperatorId},
    store::{StoreError, auth_keys},
};

/// Those of an operator, or all.
pub async fn list_auth_keys(service: &Service, of: Option<&OperatorId>) -> Result<Vec<AuthKey>, StoreError> {
    auth_keys::list(&mut service.store.reader().await?, of).await
}
