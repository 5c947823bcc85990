//! What edges must know, in memory: loaded once, then only what changed.

use std::collections::{BTreeSet, HashMap};

use bundle::{
    Scope, ScopeKey,
    builder::{Builder, BuiltBundle, Collision, TooLarge},
};
use token::Fingerprint;

use crate::{
    model::{Grant, Revocation, RevocationChange, Watermark, WatermarkScope},
    store::{NEVER, Store, revocations, versions, versions::Version, watermarks},
};

use super::{
    PublishError,
    base::{Base, BaseNews},
    granted,
    keyset::{self, KeySet},
    lost::{self, Lost},
};

pub(super) struct Contents {
    builder: Builder,
    keyset: KeySet,
    base: Base,
    version: u64,
    mark: i64,
    /// The version in which the content was last settled; none before the first load.
    checkpoint: Option<u64>,
    collected_before: u64,
    /// By the second they expire in.
    expiring: BTreeSet<(u64, Fingerprint)>,
    /// The watermarks that refuse nothing after a second.
    ending: HashMap<ScopeKey, u64>,
}

/// What came since the last time.
struct News {
    version: Version,
    changed: Vec<(u64, RevocationChange)>,
    raised: Vec<(u64, Watermark)>,
    granted: Vec<Grant>,
    keys: Option<keyset::Loaded>,
    base: BaseNews,
    lost: Option<Lost>,
}

/// In the order of their versions, which is the order of the tail: every publisher makes the same of it.
enum Change {
    Fingerprint(RevocationChange),
    Watermark(Watermark),
}

impl Contents {
    pub(super) fn new(keyset: KeySet) -> Self {
        Self {
            builder: Builder::default(),
            keyset,
            base: Base::default(),
            version: 0,
            mark: 0,
            checkpoint: None,
            collected_before: 0,
            expiring: BTreeSet::new(),
            ending: HashMap::new(),
        }
    }

    pub(super) const fn version(&self) -> u64 {
        self.version
    }

    /// The version of the checkpoint that its content belongs to.
    pub(super) fn checkpoint(&self) -> u64 {
        self.checkpoint.unwrap_or_default()
    }

    /// Takes up what came since the last time. Whether anything did.
    pub(super) async fn load(&mut self, store: &Store) -> Result<bool, PublishError> {
        let Some(News { version, changed, raised, granted, keys, base, lost }) = self.read(store).await?
        else {
            return Ok(false);
        };
        let fingerprints = changed.into_iter().map(|(number, change)| (number, Change::Fingerprint(change)));
        let watermarks = raised.into_iter().map(|(number, raised)| (number, Change::Watermark(raised)));
        let mut changes: Vec<(u64, Change)> = fingerprints.chain(watermarks).collect();
        changes.sort_by_key(|(number, _)| *number);
        // What came up to the checkpoint belongs into it, what came later into the tail.
        let later = changes.split_off(changes.partition_point(|(number, _)| *number <= version.checkpoint));
        self.apply(changes);
        for told in self.base.apply(base, &mut self.builder)? {
            self.expiring.remove(&told);
        }
        granted::apply(granted, &mut self.builder)?;
        if let Some(keys) = keys {
            KeySet::apply(&keys, &mut self.builder)?;
        }
        if let Some(lost) = lost {
            lost::apply(lost, &mut self.builder)?;
        }
        if version.collected_before > self.collected_before {
            self.forget(version.collected_before);
        }
        if self.checkpoint.is_none_or(|held| held < version.checkpoint) {
            self.builder.checkpoint(version.checkpoint)?;
            self.checkpoint = Some(version.checkpoint);
        }
        self.apply(later);
        (self.version, self.mark) = (version.number, version.mark);
        Ok(true)
    }

    /// From now on the store takes changes only while it knows the version that was loaded last.
    pub(super) fn anchor(&self, store: &Store) {
        store.anchor(self.version, self.mark);
    }

    /// Forgets all of it: the next load begins from nothing.
    pub(super) fn begin_anew(&mut self) {
        let keyset = self.keyset.clone();
        *self = Self::new(keyset);
    }

    /// Whether only a new checkpoint can say what is known.
    pub(super) fn needs_checkpoint(&self) -> bool {
        self.builder.needs_checkpoint()
    }

    /// Makes what is known the content of a checkpoint that nobody else hears of.
    pub(super) fn settle_here(&mut self) -> Result<(), TooLarge> {
        self.checkpoint = Some(self.version);
        self.builder.checkpoint(self.version)
    }

    pub(super) fn build(&mut self) -> Result<BuiltBundle, TooLarge> {
        self.builder.build()
    }

    pub(super) fn revoked(&self) -> usize {
        self.builder
            .revocation_count()
            .saturating_add(usize::try_from(self.base.revocations()).unwrap_or(usize::MAX))
    }

    async fn read(&self, store: &Store) -> Result<Option<News>, PublishError> {
        // Mostly nothing has changed: one query tells.
        let now = versions::current(&mut store.reader().await?).await?;
        if self.checkpoint.is_some() && (now.number, now.mark) == (self.version, self.mark) {
            return Ok(None);
        }
        let mut read = store.read().await?;
        let version = versions::current(&mut read).await?;
        // What was loaded is the past of what is there now, or the database was restored, or failed over to a copy that
        // lacks a commit: then its version may well be higher again.
        if self.checkpoint.is_some()
            && (version.number < self.version
                || !versions::is_known(&mut read, self.version, self.mark).await?)
        {
            let kept = versions::latest_until(&mut read, self.version.saturating_sub(1)).await?;
            let kept = kept.unwrap_or(version.number).min(version.number);
            return Err(PublishError::WentBack { published: self.version, kept });
        }
        let changed = revocations::since(&mut read, self.version).await?;
        let raised = watermarks::since(&mut read, self.version).await?;
        let granted = granted::load(&mut read, self.version).await?;
        let keys = self.keyset.load(&mut read, self.version).await?;
        let base = self.base.load(&mut read, self.checkpoint.is_none()).await?;
        let forgotten = version.collected_before > self.collected_before;
        let lost = lost::load(&mut read, self.version, forgotten).await?;
        Ok(Some(News { version, changed, raised, granted, keys, base, lost }))
    }

    fn apply(&mut self, changes: Vec<(u64, Change)>) {
        for (number, change) in changes {
            match change {
                Change::Fingerprint(RevocationChange::Revoked(Revocation {
                    fingerprint,
                    expires_at,
                    ..
                })) => {
                    self.base.revoked(&fingerprint);
                    let Some(new) = told(self.builder.revoke(number, fingerprint)) else { continue };
                    if !new {
                        // Taken back and revoked again meanwhile, and now it may be kept for longer.
                        self.expiring.retain(|(_, held)| *held != fingerprint);
                    }
                    self.expiring.insert((expires_at, fingerprint));
                }
                Change::Fingerprint(RevocationChange::Restored { fingerprint, expires_at }) => {
                    self.expiring.remove(&(expires_at, fingerprint));
                    self.base.restored(fingerprint, (number, expires_at), &mut self.builder);
                }
                Change::Watermark(watermark) => self.watermark(number, &watermark),
            }
        }
    }

    fn watermark(&mut self, number: u64, Watermark { scope, instant, ends_at }: &Watermark) {
        let id = scope.to_string();
        let scope = match scope {
            WatermarkScope::Global => Scope::Global,
            WatermarkScope::SigningKey(_) => Scope::SigningKey(&id),
            WatermarkScope::Operator(_) => Scope::Operator(&id),
            WatermarkScope::User(..) => Scope::User(&id),
            WatermarkScope::AuthKey(_) => Scope::AuthKey(&id),
            WatermarkScope::Session(_) => Scope::Session(&id),
        };
        // Lower than it was: the clock was ahead then.
        if !self.builder.lower_watermark(scope, *instant) {
            self.builder.raise_watermark(number, scope, *instant);
        }
        if *ends_at < NEVER {
            self.ending.insert(scope.into(), *ends_at);
        } else {
            self.ending.remove(&scope.into());
        }
    }

    fn forget(&mut self, before: u64) {
        let later = self.expiring.split_off(&(before, Fingerprint::from([0; 32])));
        for (_, fingerprint) in std::mem::replace(&mut self.expiring, later) {
            self.builder.remove_revocation(&fingerprint);
        }
        self.base.forget(before, &mut self.builder);
        for (scope, _) in self.ending.extract_if(|_, ends_at| *ends_at < before) {
            self.builder.remove_expired_watermark(scope);
        }
        self.collected_before = before;
    }
}

/// The store holds one credential for each prefix, so a collision is a damaged database; what was there first holds.
pub(super) fn told(changed: Result<bool, Collision>) -> Option<bool> {
    match changed {
        Ok(changed) => Some(changed),
        Err(collision) => {
            tracing::error!(%collision, "two revocations that edges can't tell apart");
            None
        }
    }
}
