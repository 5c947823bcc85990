use super::queries::{signing_keys, tag_keys};
use crate::{db::StoreError, domain::tag_kid, service::Service};

/// Returns the `kid`s of the symmetric keys that edges have: for HS256 tokens, and for API keys of format 1 or the short
/// form. With each of them a stolen edge can create credentials until the key is retired.
pub async fn symmetric_keys(service: &Service) -> Result<Vec<String>, StoreError> {
    let mut read = service.store.read().await?;
    let signing = signing_keys::list(&mut read).await?;
    let tags = tag_keys::list(&mut read).await?;
    let signing = signing.into_iter().filter(|key| key.public.is_none()).map(|key| key.kid);
    let tags = tags.into_iter().filter(|generation| generation.kind.is_symmetric());
    Ok(signing.chain(tags.map(|generation| tag_kid(generation.number))).collect())
}
