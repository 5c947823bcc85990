use super::Service;
use crate::{
    keys::tag_kid,
    store::{StoreError, signing_keys, tag_keys},
};

/// Returns the names of the keys that edges hold and that make credentials: of tokens with HS256, and of API keys of
/// format 1 or the short form. The thief of an edge can make credentials with each until it is retired.
pub async fn symmetric_keys(service: &Service) -> Result<Vec<String>, StoreError> {
    let mut read = service.store.read().await?;
    let signing = signing_keys::list(&mut read).await?;
    let tags = tag_keys::list(&mut read).await?;
    let signing = signing.into_iter().filter(|key| key.public.is_none()).map(|key| key.kid);
    let tags = tags.into_iter().filter(|generation| generation.kind.is_symmetric());
    Ok(signing.chain(tags.map(|generation| tag_kid(generation.number))).collect())
}
