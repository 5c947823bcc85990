//! The keys that edges verify with: our own, those of other issuers, and what the tags of API keys are checked with.

use std::{fmt, sync::Arc};

use bundle::builder::{Builder, SecretKey, TooLarge};
use token::VerifyingKey;
use zeroize::Zeroizing;

use super::PublishError;
use crate::{
    home::Home,
    keys::{self, Keyring, Keys},
    store::{Read, issuers, key_set, signing_keys, tag_keys},
};

#[derive(Debug)]
pub(super) struct KeySet {
    keys: Arc<Keys>,
    home: Home,
}

/// What changes while the server runs.
pub(super) struct Loaded {
    keyring: Arc<Keyring>,
    tags: Vec<(u8, Zeroizing<[u8; 32]>)>,
    foreign: Vec<VerifyingKey>,
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (tags, foreign) = (self.tags.len(), self.foreign.len());
        write!(f, "Loaded({:?}, {tags} tag keys, {foreign} of other issuers)", self.keyring)
    }
}

impl KeySet {
    pub(super) const fn new(keys: Arc<Keys>, home: Home) -> Self {
        Self { keys, home }
    }

    /// None if nothing changed since a version. What tokens are signed with from now on is published first.
    pub(super) async fn load(&self, read: &mut Read, since: u64) -> Result<Option<Loaded>, PublishError> {
        if since > 0 && key_set::version(read).await? <= since {
            return Ok(None);
        }
        let records = signing_keys::list(read).await?;
        let keyring = self.keys.take_up_what_is_here(&records).map_err(PublishError::Keys)?;
        let mut tags = Vec::new();
        for generation in tag_keys::list(read).await? {
            let secret = keys::open_tag_key(&self.home, generation).map_err(PublishError::Keys)?;
            tags.push((generation, secret));
        }
        let mut foreign = Vec::new();
        for record in issuers::list(read).await? {
            foreign.extend(record.keys.iter().filter_map(|key| key.verifying(&record.issuer)));
        }
        Ok(Some(Loaded { keyring, tags, foreign }))
    }

    pub(super) fn apply(loaded: &Loaded, builder: &mut Builder) -> Result<(), TooLarge> {
        builder.keys(loaded.keyring.verifying().iter().chain(&loaded.foreign))?;
        let tokens = loaded.keyring.secrets().map(SecretKey::from);
        let tags =
            loaded.tags.iter().map(|(generation, secret)| SecretKey::Tag { generation: *generation, secret });
        let mut secrets = tokens.chain(tags).peekable();
        match secrets.peek() {
            Some(_) => builder.secret_keys(secrets),
            // Edges fetch no object that would be empty. Where there were some before, there are others now: whoever
            // takes a key away has put another in its place.
            None => Ok(()),
        }
    }
}
