use alloc::{collections::BTreeMap, sync::Arc, vec::Vec};
use core::fmt;

use token::{Fingerprint, VerifyingKey, api_key::TagKey};

use crate::{
    Entry, Kind, Manifest, Object, ObjectError, Scope, ScopeKey, grants, revocations, shards::Shards,
    watermarks,
};

/// Everything an edge knows at one version: a manifest and all the objects it names.
#[derive(Debug, Clone)]
pub struct Snapshot {
    manifest: Manifest,
    /// Sorted by issuer, then kid.
    keys: Vec<VerifyingKey>,
    tag_keys: Vec<TagKey>,
    revocations: Shards<revocations::Shard>,
    watermarks: Shards<watermarks::Shard>,
    /// None where nobody was granted anything.
    grants: Option<Shards<grants::Shard>>,
}

impl Snapshot {
    pub fn assemble(manifest: Manifest, objects: &Objects) -> Result<Self, Incomplete> {
        if !objects.missing(&manifest).is_empty() {
            return Err(Incomplete("an object is missing"));
        }
        let mut keys: Vec<VerifyingKey> = Vec::new();
        let mut tag_keys = Vec::new();
        let mut revocations = Vec::new();
        let mut watermarks = Vec::new();
        let mut grants = Vec::new();
        for entry in objects.all(&manifest) {
            match objects.0.get(&entry) {
                Some(Object::Keys(held)) => {
                    for key in &held.verifying {
                        match keys.binary_search_by(|known| name(known).cmp(&name(key))) {
                            Ok(_) => return Err(Incomplete("a kid stands twice")),
                            Err(at) => keys.insert(at, key.clone()),
                        }
                    }
                    tag_keys.extend(held.tags.iter().cloned());
                }
                Some(Object::Revocations(shard)) => revocations.push((entry.shard(), Arc::clone(shard))),
                Some(Object::Watermarks(shard)) => watermarks.push((entry.shard(), Arc::clone(shard))),
                Some(Object::Grants(shard)) => grants.push((entry.shard(), Arc::clone(shard))),
                Some(Object::Index(_)) | None => {}
            }
        }
        if keys.is_empty() {
            return Err(Incomplete("there are no keys"));
        }
        let grants = match grants.is_empty() {
            true => None,
            false => Some(Shards::complete(grants).ok_or(Incomplete("the shards of the grants"))?),
        };
        Ok(Self {
            manifest,
            keys,
            grants,
            tag_keys,
            revocations: Shards::complete(revocations).ok_or(Incomplete("the shards of the revocations"))?,
            watermarks: Shards::complete(watermarks).ok_or(Incomplete("the shards of the watermarks"))?,
        })
    }

    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// A key of our own.
    pub fn key(&self, kid: &str) -> Option<&VerifyingKey> {
        self.named((None, kid))
    }

    /// A key of another issuer.
    pub fn key_of(&self, issuer: &str, kid: &str) -> Option<&VerifyingKey> {
        self.named((Some(issuer), kid))
    }

    /// What the tags of API keys of this generation are checked with.
    pub fn tag_key(&self, generation: u8) -> Option<&TagKey> {
        self.tag_keys.iter().find(|key| key.generation() == generation)
    }

    fn named(&self, wanted: (Option<&str>, &str)) -> Option<&VerifyingKey> {
        let at = self.keys.binary_search_by(|key| name(key).cmp(&wanted)).ok()?;
        self.keys.get(at)
    }

    pub fn standing(&self, fingerprint: &Fingerprint) -> Standing {
        let prefix = fingerprint.prefix();
        match self.revocations.of(prefix) {
            Some(shard) if !shard.contains(prefix) => Standing::Good,
            _ => Standing::Revoked,
        }
    }

    /// The latest instant of all the scopes a credential belongs to: none may shadow another.
    pub fn watermark(&self, scopes: impl IntoIterator<Item = impl Into<ScopeKey>>) -> Option<u64> {
        let instant = |key: ScopeKey| self.watermarks.of(key.word())?.instant(key);
        scopes.into_iter().map(Into::into).filter_map(instant).max()
    }

    /// What the subject was granted, as it was handed to the builder; None when nothing was.
    pub fn grant(&self, subject: &str) -> Option<&[u8]> {
        self.grant_of(Scope::User(subject).into())
    }

    /// As [`Self::grant`], for a subject whose scope was hashed before.
    pub fn grant_of(&self, subject: ScopeKey) -> Option<&[u8]> {
        self.grants.as_ref()?.of(subject.word())?.of(subject)
    }
}

fn name(key: &VerifyingKey) -> (Option<&str>, &str) {
    (key.issuer(), key.kid())
}

/// What the edge knows of a fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Good,
    Revoked,
}

/// Objects that are opened, shared between one snapshot and the next.
#[derive(Debug, Default)]
pub struct Objects(BTreeMap<Entry, Object>);

impl Objects {
    /// What is still to be fetched before the manifest can be assembled. Opening an index may add more.
    pub fn missing(&self, manifest: &Manifest) -> Vec<Entry> {
        self.all(manifest).filter(|entry| !self.0.contains_key(entry)).collect()
    }

    pub fn holds(&self, entry: &Entry) -> bool {
        self.0.contains_key(entry)
    }

    pub fn open(&mut self, entry: Entry, bytes: Vec<u8>) -> Result<(), ObjectError> {
        self.0.insert(entry, entry.open(bytes)?);
        Ok(())
    }

    /// Lets go of everything that this manifest does not name.
    pub fn keep_only(&mut self, manifest: &Manifest) {
        let indexes: Vec<Vec<Entry>> = self.indexes(manifest).map(<[Entry]>::to_vec).collect();
        let named = |entry: &Entry| {
            let mut lists = core::iter::once(manifest.entries()).chain(indexes.iter().map(Vec::as_slice));
            // They are in order: that was checked when they were read.
            lists.any(|entries| entries.binary_search(entry).is_ok())
        };
        self.0.retain(|entry, _| named(entry));
    }

    /// The entries of the manifest, and those of the indexes that are held.
    fn all<'a>(&'a self, manifest: &'a Manifest) -> impl Iterator<Item = Entry> + 'a {
        manifest.entries().iter().chain(self.indexes(manifest).flatten()).copied()
    }

    fn indexes<'a>(&'a self, manifest: &'a Manifest) -> impl Iterator<Item = &'a [Entry]> + 'a {
        let named = manifest.entries().iter().filter(|entry| entry.kind() == Kind::Index);
        named.filter_map(|entry| match self.0.get(entry) {
            Some(Object::Index(entries)) => Some(entries.as_slice()),
            _ => None,
        })
    }
}

/// What keeps a manifest from becoming a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Incomplete(pub &'static str);

impl fmt::Display for Incomplete {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the bundle is incomplete: {}", self.0)
    }
}

impl core::error::Error for Incomplete {}
