//! The keys that edges verify with: signing keys of tokens, generations of API keys, and keys of other issuers.

use std::{fmt, sync::Arc};

use bundle::builder::{Builder, SecretKey, TooLarge};
use token::{
    VerifyingKey,
    api_key::{GenerationKey, Kind},
};
use zeroize::Zeroizing;

use super::PublishError;
use crate::{
    db::{ReadTransaction, StoreError},
    domain::{Generation, Version},
    issuers,
    keys::{
        key_set,
        keyring::{self as keys, Keyring, SharedKeyring},
        signing_keys, tag_keys,
    },
    platform::data_dir::DataDir,
};

#[derive(Debug, Clone)]
pub(super) struct KeySet {
    keys: Arc<SharedKeyring>,
    data_dir: DataDir,
}

/// The keys as of one version of the store.
pub(super) struct LoadedKeys {
    keyring: Arc<Keyring>,
    /// Generations with a public key.
    generations: Vec<GenerationKey>,
    /// Generations with a symmetric key.
    tags: Vec<(Generation, Zeroizing<[u8; 32]>)>,
    /// Keys of other issuers.
    foreign: Vec<VerifyingKey>,
}

impl fmt::Debug for LoadedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (tags, foreign) = (self.tags.len(), self.foreign.len());
        write!(
            f,
            "Loaded({:?}, {:?}, {tags} tag keys, {foreign} of other issuers)",
            self.keyring, self.generations
        )
    }
}

impl KeySet {
    pub(super) const fn new(keys: Arc<SharedKeyring>, data_dir: DataDir) -> Self {
        Self { keys, data_dir }
    }

    /// Reads the keys, or returns `None` if they have not changed since a version. A new signing key is published before
    /// it signs tokens.
    pub(super) async fn load(
        &self,
        read: &mut ReadTransaction,
        since: Version,
    ) -> Result<Option<LoadedKeys>, PublishError> {
        if since > Version::ZERO && key_set::version(read).await? <= since {
            return Ok(None);
        }
        let records = signing_keys::list(read).await?;
        let keyring = self.keys.reload_available(&records).map_err(PublishError::Keys)?;
        let (mut generations, mut tags) = (Vec::new(), Vec::new());
        for generation in tag_keys::list(read).await? {
            if let Some(public) = &generation.public {
                let key = GenerationKey::new(generation.number, generation.kind, public);
                generations.push(key.map_err(|_| StoreError::Corrupt { what: "public" })?);
                continue;
            }
            // A missing key file must not delay a revocation.
            match keys::open_tag_secret(&self.data_dir, &generation) {
                Ok(secret) => tags.push((generation, secret)),
                Err(error) => tracing::error!(
                    key.id = generation.kid(),
                    error.code = error.code(),
                    error = %error,
                    "cannot read the key of this generation: edges refuse its API keys, everything else is published"
                ),
            }
        }
        let mut foreign = Vec::new();
        for record in issuers::list(read).await? {
            foreign.extend(record.keys.iter().filter_map(|key| key.verifying_key(&record.issuer)));
        }
        Ok(Some(LoadedKeys { keyring, generations, tags, foreign }))
    }

    pub(super) fn apply(loaded: &LoadedKeys, builder: &mut Builder) -> Result<(), TooLarge> {
        builder.set_public_keys(
            loaded.keyring.verifying_keys().iter().chain(&loaded.foreign),
            &loaded.generations,
        )?;
        let tokens = loaded.keyring.secrets().map(SecretKey::from);
        let tags = loaded.tags.iter().map(|(generation, secret)| {
            let number = generation.number;
            match generation.kind {
                Kind::Short => SecretKey::ShortTag { generation: number, secret },
                Kind::Format1 | Kind::Signed => SecretKey::Tag { generation: number, secret },
            }
        });
        let mut secrets = tokens.chain(tags).peekable();
        match secrets.peek() {
            Some(_) => builder.set_secret_keys(secrets),
            // Without symmetric keys the bundle has no object for them.
            None => {
                builder.remove_secret_keys();
                Ok(())
            }
        }
    }
}
