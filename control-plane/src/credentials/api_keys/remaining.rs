//! Counts the API keys of each format, for the migration from older formats.

use token::api_key::Kind;

use super::{ApiKeyStatus, list_api_keys};
use crate::{
    db::StoreError,
    domain::{Generation, Page, PageRequest},
    keys::{keyring as keys, tag_keys},
    service::Service,
};

/// The number of API keys that are active or disabled, by format.
#[derive(Debug, Clone)]
pub struct RemainingApiKeys {
    counts: Vec<(Kind, usize)>,
    /// All generations, newest first.
    pub generations: Vec<Generation>,
    /// Whether the key file for new API keys is in this data folder; `None` if there is no generation for new keys.
    pub made_here: Option<bool>,
}

impl RemainingApiKeys {
    /// Returns the number of keys of a format.
    pub fn count_of_kind(&self, kind: Kind) -> usize {
        self.counts.iter().find(|(counted, _)| *counted == kind).map_or(0, |(_, count)| *count)
    }

    /// Returns the generations with a symmetric key, with which every edge could create API keys.
    pub fn symmetric(&self) -> impl Iterator<Item = &Generation> {
        self.generations.iter().filter(|generation| generation.kind.is_symmetric())
    }
}

/// Counts the active and disabled API keys of each format.
pub async fn remaining_api_keys(service: &Service) -> Result<RemainingApiKeys, StoreError> {
    let mut keys = Vec::new();
    let mut page = PageRequest::with_max_limit(None);
    loop {
        let Page { items, next } = list_api_keys(service, None, None, &page).await?;
        keys.extend(items);
        match next {
            None => break,
            next => page = PageRequest::with_max_limit(next),
        }
    }
    let good = |status| matches!(status, ApiKeyStatus::Active | ApiKeyStatus::Disabled);
    let count = |kind| keys.iter().filter(|(key, status)| key.kind == kind && good(*status)).count();
    let counts = Kind::ALL.map(|kind| (kind, count(kind))).to_vec();
    let generations = tag_keys::list(&mut service.store.reader().await?).await?;
    let newest = generations.first().filter(|newest| newest.kind != Kind::Format1);
    let made_here = newest.map(|newest| keys::open_generation(&service.data_dir, newest).is_ok());
    Ok(RemainingApiKeys { counts, generations, made_here })
}
