use super::Service;
use crate::{
    model::Edge,
    store::{StoreError, edges},
};

pub async fn list_edges(service: &Service) -> Result<Vec<Edge>, StoreError> {
    edges::list(&mut service.store.reader().await?).await
}
