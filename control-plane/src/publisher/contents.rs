//! What edges must know, in memory: loaded once, then only what changed.

use std::collections::BTreeSet;

use bundle::{
    Scope,
    builder::{Builder, Built, TooLarge},
};
use token::Fingerprint;

use crate::{
    keys::Keyring,
    model::{Grant, Revocation, RevocationChange, Watermark, WatermarkScope},
    operations::Lifetime,
    store::{Store, revocations, versions, versions::Version, watermarks},
};

use super::{PublishError, granted};

pub(super) struct Contents {
    builder: Builder,
    version: u64,
    collected_before: u64,
    /// By the second they expire in.
    expiring: BTreeSet<(u64, Fingerprint)>,
}

/// What came since the last time.
struct News {
    version: Version,
    changed: Vec<RevocationChange>,
    raised: Vec<Watermark>,
    granted: Vec<Grant>,
}

impl Contents {
    pub(super) fn new(keyring: &Keyring) -> Result<Self, TooLarge> {
        let mut builder = Builder::default();
        builder.keys(keyring.verifying())?;
        let mut secrets = keyring.secrets().peekable();
        if secrets.peek().is_some() {
            builder.secret_keys(secrets)?;
        }
        Ok(Self { builder, version: 0, collected_before: 0, expiring: BTreeSet::new() })
    }

    pub(super) const fn version(&self) -> u64 {
        self.version
    }

    /// Takes up what came since the last time. Whether anything did.
    pub(super) async fn load(&mut self, store: &Store) -> Result<bool, PublishError> {
        let Some(News { version, changed, raised, granted }) = self.read(store).await? else {
            return Ok(false);
        };
        for change in changed {
            let (fingerprint, expires_at) = match change {
                RevocationChange::Revoked(Revocation { fingerprint, expires_at, .. }) => {
                    (fingerprint, expires_at)
                }
                RevocationChange::Restored { fingerprint, expires_at } => {
                    self.expiring.remove(&(expires_at, fingerprint));
                    self.builder.forget(&fingerprint);
                    continue;
                }
            };
            match self.builder.revoke(fingerprint) {
                Ok(_) => {
                    self.expiring.insert((expires_at, fingerprint));
                }
                // The store holds one credential for each prefix, so this is a damaged database; both are refused.
                Err(collision) => tracing::error!(%collision, "two revocations that edges can't tell apart"),
            }
        }
        for Watermark { scope, instant } in &raised {
            self.watermark(scope, *instant);
        }
        granted::apply(granted, &mut self.builder)?;
        if version.collected_before > self.collected_before {
            self.forget(version.collected_before);
        }
        self.version = version.number;
        Ok(true)
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
        Ok(Some(News { version, changed, raised, granted }))
    }

    fn watermark(&mut self, scope: &WatermarkScope, instant: u64) {
        let id = scope.to_string();
        let scope = match scope {
            WatermarkScope::Global => Scope::Global,
            WatermarkScope::SigningKey(_) => Scope::SigningKey(&id),
            WatermarkScope::Operator(_) => Scope::Operator(&id),
            WatermarkScope::User(..) => Scope::User(&id),
            WatermarkScope::AuthKey(_) => Scope::AuthKey(&id),
            WatermarkScope::Session(_) => Scope::Session(&id),
        };
        self.builder.watermark(scope, instant);
    }

    fn forget(&mut self, before: u64) {
        let later = self.expiring.split_off(&(before, Fingerprint::from([0; 32])));
        for (_, fingerprint) in std::mem::replace(&mut self.expiring, later) {
            self.builder.forget(&fingerprint);
        }
        self.builder.forget_watermarks(before.saturating_sub(Lifetime::LONGEST.seconds()));
        self.collected_before = before;
    }
}
