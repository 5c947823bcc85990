//! The content of the bundle in memory: loaded once, then kept up to date with the changes of the store.

use std::collections::{BTreeSet, HashMap};

use bundle::{
    ScopeKey,
    builder::{Builder, BuiltBundle, TooLarge},
};
use token::Fingerprint;

use super::{
    PublishError,
    base::{BaseDelta, BaseState},
    collision::log_collision,
    gaps::{self, ClosedGaps},
    grants,
    keyset::{self, KeySet},
};
use crate::{
    db::{
        NEVER_EXPIRES, Store,
        versions::{self, BundleVersion},
    },
    domain::{Grant, Issuance, ListedChange, Revocation, RevocationChange, UnixSeconds, Version, Watermark},
    revocation::{revocations, watermarks},
};

/// The content of the bundle, as of one version of the store.
pub(super) struct BundleState {
    builder: Builder,
    keyset: KeySet,
    base: BaseState,
    version: Version,
    mark: i64,
    /// The version of the last checkpoint; `None` before the first load.
    checkpoint: Option<Version>,
    /// The second before which expired rows were purged from the store.
    purged_before: UnixSeconds,
    /// The revocations of the list, by expiry in seconds.
    expiring: BTreeSet<(UnixSeconds, Fingerprint)>,
    /// The watermarks that refuse nothing after a second.
    ending: HashMap<ScopeKey, UnixSeconds>,
}

/// The changes of the store since the last load.
struct Delta {
    version: BundleVersion,
    changed: Vec<ListedChange>,
    raised: Vec<(Version, Watermark)>,
    granted: Vec<Grant>,
    keys: Option<keyset::LoadedKeys>,
    base: BaseDelta,
    gaps: Option<ClosedGaps>,
}

/// A change of the tail. Changes are applied in the order of their versions, so every publisher builds the same tail.
enum TailChange {
    Fingerprint(RevocationChange, Option<Issuance>),
    Watermark(Watermark),
}

impl BundleState {
    pub(super) fn new(keyset: KeySet) -> Self {
        Self {
            builder: Builder::default(),
            keyset,
            base: BaseState::default(),
            version: Version::ZERO,
            mark: 0,
            checkpoint: None,
            purged_before: UnixSeconds::EPOCH,
            expiring: BTreeSet::new(),
            ending: HashMap::new(),
        }
    }

    /// Returns the version of the store that was loaded last.
    pub(super) const fn version(&self) -> Version {
        self.version
    }

    /// Returns the version of the checkpoint that the state belongs to.
    pub(super) fn checkpoint(&self) -> Version {
        self.checkpoint.unwrap_or_default()
    }

    /// Loads the changes of the store since the last load. Returns whether there were any.
    pub(super) async fn load(&mut self, store: &Store) -> Result<bool, PublishError> {
        let Some(delta) = self.read(store).await? else { return Ok(false) };
        let Delta { version, changed, raised, granted, keys, base, gaps } = delta;
        let fingerprints = changed.into_iter().map(|ListedChange { version, change, issuance }| {
            (version, TailChange::Fingerprint(change, issuance))
        });
        let watermarks = raised.into_iter().map(|(number, raised)| (number, TailChange::Watermark(raised)));
        let mut changes: Vec<(Version, TailChange)> = fingerprints.chain(watermarks).collect();
        changes.sort_by_key(|(number, _)| *number);
        // Changes up to the checkpoint belong to it, later ones to the tail.
        let later = changes.split_off(changes.partition_point(|(number, _)| *number <= version.checkpoint));
        self.apply(changes);
        for covered in self.base.apply(base, &mut self.builder)? {
            self.expiring.remove(&covered);
        }
        grants::apply(granted, &mut self.builder)?;
        if let Some(keys) = keys {
            KeySet::apply(&keys, &mut self.builder)?;
        }
        if let Some(gaps) = gaps {
            gaps::apply(gaps, &mut self.builder)?;
        }
        if version.collected_before > self.purged_before {
            self.remove_expired(version.collected_before);
        }
        if self.checkpoint.is_none_or(|held| held < version.checkpoint) {
            self.builder.checkpoint(version.checkpoint.get())?;
            self.checkpoint = Some(version.checkpoint);
        }
        self.apply(later);
        (self.version, self.mark) = (version.number, version.mark);
        Ok(true)
    }

    /// Makes the store refuse changes from now on unless the database has the version that was loaded last.
    pub(super) fn anchor_store(&self, store: &Store) {
        store.set_anchor(self.version, self.mark);
    }

    /// Empties the state: the next load reads the whole store.
    pub(super) fn reset(&mut self) {
        let keyset = self.keyset.clone();
        *self = Self::new(keyset);
    }

    /// Returns whether the state has changes that the tail cannot express.
    pub(super) fn needs_checkpoint(&self) -> bool {
        self.builder.needs_checkpoint()
    }

    /// Makes a checkpoint of the state that is not recorded in the store, for a bundle that is not published.
    pub(super) fn checkpoint_now(&mut self) -> Result<(), TooLarge> {
        self.checkpoint = Some(self.version);
        self.builder.checkpoint(self.version.get())
    }

    /// Builds the bundle.
    pub(super) fn build(&mut self) -> Result<BuiltBundle, TooLarge> {
        self.builder.build()
    }

    /// Returns the number of revocations in the bundle.
    pub(super) fn revocation_count(&self) -> usize {
        self.builder
            .revocation_count()
            .saturating_add(usize::try_from(self.base.revocation_count()).unwrap_or(usize::MAX))
    }

    /// Reads the changes of the store; `None` if there are none. Fails with [`PublishError::RolledBack`] if the database
    /// does not have the version that was loaded last.
    async fn read(&self, store: &Store) -> Result<Option<Delta>, PublishError> {
        // Usually nothing has changed, which one query shows.
        let now = versions::current(&mut store.reader().await?).await?;
        if self.checkpoint.is_some() && (now.number, now.mark) == (self.version, self.mark) {
            return Ok(None);
        }
        let mut read = store.read().await?;
        let version = versions::current(&mut read).await?;
        // A database that was restored, or failed over to a copy that lacks a commit, does not have the loaded version in
        // its history, even if its current version is higher.
        if self.checkpoint.is_some()
            && (version.number < self.version
                || !versions::is_logged(&mut read, self.version, self.mark).await?)
        {
            let kept = versions::latest_until(&mut read, self.version.previous()).await?;
            let kept = kept.unwrap_or(version.number).min(version.number);
            return Err(PublishError::RolledBack { published: self.version, kept });
        }
        let changed = revocations::since(&mut read, self.version).await?;
        let raised = watermarks::since(&mut read, self.version).await?;
        let granted = grants::load(&mut read, self.version).await?;
        let keys = self.keyset.load(&mut read, self.version).await?;
        let base = self.base.load(&mut read).await?;
        let was_purged = version.collected_before > self.purged_before;
        let gaps = gaps::load(&mut read, self.version, was_purged).await?;
        Ok(Some(Delta { version, changed, raised, granted, keys, base, gaps }))
    }

    fn apply(&mut self, changes: Vec<(Version, TailChange)>) {
        for (number, change) in changes {
            match change {
                TailChange::Fingerprint(
                    RevocationChange::Revoked(Revocation { fingerprint, expires_at, .. }),
                    issuance,
                ) => {
                    self.base.note_revoked(fingerprint, (number, expires_at), issuance);
                    let Some(is_new) = log_collision(self.builder.revoke(number.get(), fingerprint)) else {
                        continue;
                    };
                    if !is_new {
                        // The credential was un-revoked and revoked again in between, possibly with another expiry.
                        self.expiring.retain(|(_, held)| *held != fingerprint);
                    }
                    self.expiring.insert((expires_at, fingerprint));
                }
                TailChange::Fingerprint(RevocationChange::Restored { fingerprint, expires_at }, _) => {
                    self.expiring.remove(&(expires_at, fingerprint));
                    self.base.note_unrevoked(fingerprint, (number, expires_at), &mut self.builder);
                }
                TailChange::Watermark(watermark) => self.set_watermark(number, &watermark),
            }
        }
    }

    fn set_watermark(&mut self, number: Version, watermark: &Watermark) {
        let Watermark { scope, instant, ends_at } = watermark;
        let id = scope.id();
        let scope = scope.at_edges(&id);
        if watermark.is_taken_back() {
            self.builder.remove_watermark(scope);
            self.ending.remove(&scope.into());
            return;
        }
        // A watermark is lowered only after a clock that was ahead has raised it.
        if !self.builder.lower_watermark(scope, instant.get()) {
            self.builder.raise_watermark(number.get(), scope, instant.get());
        }
        if *ends_at < NEVER_EXPIRES {
            self.ending.insert(scope.into(), *ends_at);
        } else {
            self.ending.remove(&scope.into());
        }
    }

    /// Removes everything that expired before a second.
    fn remove_expired(&mut self, before: UnixSeconds) {
        let later = self.expiring.split_off(&(before, Fingerprint::from([0; 32])));
        for (_, fingerprint) in std::mem::replace(&mut self.expiring, later) {
            self.builder.remove_revocation(&fingerprint);
        }
        self.base.remove_expired(before, &mut self.builder);
        for (scope, _) in self.ending.extract_if(|_, ends_at| *ends_at < before) {
            self.builder.remove_expired_watermark(scope);
        }
        self.purged_before = before;
    }
}
