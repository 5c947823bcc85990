use token::api_key::Kind;

use super::{ApiKeyStanding, list_api_keys};
use crate::{
    keys,
    model::{Generation, Page, Paged},
    operations::Service,
    store::{StoreError, tag_keys},
};

/// How many API keys there are that may be good, by what they are made with.
#[derive(Debug, Clone)]
pub struct Remaining {
    counts: Vec<(Kind, usize)>,
    pub generations: Vec<Generation>,
    /// Whether what new ones are made with is here; none where there is no generation yet.
    pub made_here: Option<bool>,
}

impl Remaining {
    pub fn of(&self, kind: Kind) -> usize {
        self.counts.iter().find(|(counted, _)| *counted == kind).map_or(0, |(_, count)| *count)
    }

    /// Generations whose keys every edge could make.
    pub fn symmetric(&self) -> impl Iterator<Item = &Generation> {
        self.generations.iter().filter(|generation| generation.kind.is_symmetric())
    }
}

/// What is left of older formats, until all of it is rotated and what it was made with retired.
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
