//! The keys that edges verify with: our own, and what the tags of API keys are checked with.

use std::{fmt, sync::Arc};

use bundle::builder::{Builder, SecretKey, TooLarge};
use zeroize::Zeroizing;

use super::PublishError;
use crate::{
    home::Home,
    keys::{self, Keyring},
    store::{Read, key_set, tag_keys},
};

#[derive(Debug)]
pub(super) struct KeySet {
    keyring: Arc<Keyring>,
    home: Home,
}

/// What changes while the server runs.
pub(super) struct Loaded {
    tags: Vec<(u8, Zeroizing<[u8; 32]>)>,
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Loaded({} tag keys)", self.tags.len())
    }
}

impl KeySet {
    pub(super) const fn new(keyring: Arc<Keyring>, home: Home) -> Self {
        Self { keyring, home }
    }

    /// None if nothing changed since a version.
    pub(super) async fn load(&self, read: &mut Read, since: u64) -> Result<Option<Loaded>, PublishError> {
        if since > 0 && key_set::version(read).await? <= since {
            return Ok(None);
        }
        let mut tags = Vec::new();
        for generation in tag_keys::list(read).await? {
            let secret = keys::open_tag_key(&self.home, generation).map_err(PublishError::Keys)?;
            tags.push((generation, secret));
        }
        Ok(Some(Loaded { tags }))
    }

    pub(super) fn apply(&self, loaded: &Loaded, builder: &mut Builder) -> Result<(), TooLarge> {
        builder.keys(self.keyring.verifying())?;
        let tokens = self.keyring.secrets().map(SecretKey::from);
        let tags =
            loaded.tags.iter().map(|(generation, secret)| SecretKey::Tag { generation: *generation, secret });
        let mut secrets = tokens.chain(tags).peekable();
        match secrets.peek() {
            Some(_) => builder.secret_keys(secrets),
            // Edges fetch no object that would be empty.
            None => Ok(()),
        }
    }
}
