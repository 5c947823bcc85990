//! Counts the API keys of each format, for the migration from older formats.

use token::api_key::Kind;

use super::{ApiKeyStanding, list_api_keys};
use crate::{
    keys,
    model::{Generation, Page, Paged},
    operations::Service,
    store::{StoreError, tag_keys},
};

/// The number of API keys that are active or disabled, by format.
#[derive(Debug, Clone)]
pub struct Remaining {
    counts: Vec<(Kind, usize)>,
    /// All generations, newest first.
    pub generations: Vec<Generation>,
    /// Whether the key file for new API keys is in this data folder; `None` if there is no generation for new keys.
    pub made_here: Option<bool>,
}

impl Remaining {
    /// Returns the number of keys of a format.
    pub fn of(&self, kind: Kind) -> usize {
        self.counts.iter().find(|(counted, _)| *counted == kind).map_or(0, |(_, count)| *count)
    }

    /// Returns the generations with a symmetric key, with which every edge could create API keys.
    pub fn symmetric(&self) -> impl Iterator<Item = &Generation> {
        self.generations.iter().filter(|generation| generation.kind.is_symmetric())
    }
}

/// Counts the active and disabled API keys of each format.
pub async fn remaining_api_keys(service: &Service) -> Result<Remaining, StoreError> {
    let mut keys = Vec::new();
    let mut page = Page::longest(None);
    loop {
        let Paged { items, next } = list_api_keys(service, None, None, &page).await?;
        keys.extend(items);
        match next {
            None => break,
            next => page = Page::longest(next),
        }
    }
    let good = |standing| matches!(standing, ApiKeyStanding::Active | ApiKeyStanding::Disabled);
    let count = |kind| keys.iter().filter(|(key, standing)| key.kind == kind && good(*standing)).count();
    let counts = Kind::ALL.map(|kind| (kind, count(kind))).to_vec();
    let generations = tag_keys::list(&mut service.store.reader().await?).await?;
    let newest = generations.first().filter(|newest| newest.kind != Kind::Format1);
    let made_here = newest.map(|newest| keys::open_generation(&service.home, newest).is_ok());
    Ok(Remaining { counts, generations, made_here })
}
