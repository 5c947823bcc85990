//! What edges must know, in memory: loaded once, then only what changed.

use std::collections::BTreeSet;

use bundle::{
    Scope,
    builder::{Builder, Built, Collision, TooLarge},
};
use token::Fingerprint;

use crate::{
    model::{Grant, Revocation, RevocationChange, Watermark, WatermarkScope},
    operations::Lifetime,
    store::{Store, revocations, versions, versions::Version, watermarks},
};

use super::{
    PublishError, granted,
    keyset::{self, KeySet},
};

pub(super) struct Contents {
    builder: Builder,
    keyset: KeySet,
    version: u64,
    collected_before: u64,
    /// Something expired and was forgotten since the last checkpoint.
    collected: bool,
    /// By the second they expire in.
    expiring: BTreeSet<(u64, Fingerprint)>,
}

/// What came since the last time.
struct News {
    version: Version,
    changed: Vec<RevocationChange>,
    raised: Vec<Watermark>,
    granted: Vec<Grant>,
    keys: Option<keyset::Loaded>,
}

impl Contents {
    pub(super) fn new(keyset: KeySet) -> Self {
        let builder = Builder::default();
        Self { builder, keyset, version: 0, collected_before: 0, collected: false, expiring: BTreeSet::new() }
    }

    pub(super) const fn version(&self) -> u64 {
        self.version
    }

    /// Takes up what came since the last time. Whether anything did.
    pub(super) async fn load(&mut self, store: &Store) -> Result<bool, PublishError> {
        let Some(News { version, changed, raised, granted, keys }) = self.read(store).await? else {
            return Ok(false);
        };
        for change in changed {
            let (fingerprint, expires_at) = match change {
                RevocationChange::Revoked(Revocation { fingerprint, expires_at, .. }) => {
                    (fingerprint, expires_at)
                }
                RevocationChange::Restored { fingerprint, expires_at } => {
                    self.expiring.remove(&(expires_at, fingerprint));
                    // There is no base yet that could call it revoked.
                    let restored = self.builder.restore(fingerprint);
                    self.builder.forget_restoration(&fingerprint);
                    tell(restored);
                    continue;
                }
            };
            if tell(self.builder.revoke(version.number, fingerprint)) {
                self.expiring.insert((expires_at, fingerprint));
            }
        }
        for Watermark { scope, instant } in &raised {
            self.watermark(version.number, scope, *instant);
        }
        granted::apply(granted, &mut self.builder)?;
        if let Some(keys) = keys {
            self.keyset.apply(&keys, &mut self.builder)?;
        }
        if version.collected_before > self.collected_before {
            self.forget(version.collected_before);
        }
        self.version = version.number;
        Ok(true)
    }

    /// Whether only a new checkpoint can say what is known.
    pub(super) fn needs_checkpoint(&self) -> bool {
        self.collected || self.builder.needs_checkpoint()
    }

    /// Makes what is known the content of the next checkpoint.
    pub(super) fn settle(&mut self) -> Result<(), TooLarge> {
        self.collected = false;
        self.builder.settle(self.version)
    }

    pub(super) fn build(&mut self) -> Result<Built, TooLarge> {
        self.builder.build()
    }

    pub(super) fn revoked(&self) -> usize {
        self.builder.revoked()
    }

    async fn read(&self, store: &Store) -> Result<Option<News>, PublishError> {
        // Mostly nothing has changed: one query tells.
        let now = versions::current(&mut store.reader().await?).await?;
        if now.number == self.version {
            return Ok(None);
        }
        let mut read = store.read().await?;
        let version = versions::current(&mut read).await?;
        if version.number < self.version {
            return Err(PublishError::WentBack { published: self.version, found: version.number });
        }
        let changed = revocations::since(&mut read, self.version).await?;
        let raised = watermarks::since(&mut read, self.version).await?;
        let granted = granted::load(&mut read, self.version).await?;
        let keys = self.keyset.load(&mut read, self.version).await?;
        Ok(Some(News { version, changed, raised, granted, keys }))
    }

    fn watermark(&mut self, number: u64, scope: &WatermarkScope, instant: u64) {
        let id = scope.to_string();
        let scope = match scope {
            WatermarkScope::Global => Scope::Global,
            WatermarkScope::SigningKey(_) => Scope::SigningKey(&id),
            WatermarkScope::Operator(_) => Scope::Operator(&id),
            WatermarkScope::User(..) => Scope::User(&id),
            WatermarkScope::AuthKey(_) => Scope::AuthKey(&id),
            WatermarkScope::Session(_) => Scope::Session(&id),
        };
        self.builder.watermark(number, scope, instant);
    }

    fn forget(&mut self, before: u64) {
        let later = self.expiring.split_off(&(before, Fingerprint::from([0; 32])));
        for (_, fingerprint) in std::mem::replace(&mut self.expiring, later) {
            self.builder.forget(&fingerprint);
        }
        self.builder.forget_watermarks(before.saturating_sub(Lifetime::LONGEST.seconds()));
        self.collected_before = before;
        self.collected = true;
    }
}

/// The store holds one credential for each prefix, so a collision is a damaged database; what was there first holds.
fn tell(changed: Result<bool, Collision>) -> bool {
    match changed {
        Ok(_) => true,
        Err(collision) => {
            tracing::error!(%collision, "two revocations that edges can't tell apart");
            false
        }
    }
}
