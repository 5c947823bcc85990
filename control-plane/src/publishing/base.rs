//! The blocks of the base in memory, and the un-revocations that override them.

use std::collections::{BTreeMap, HashMap};

use bundle::{
    Coverage,
    builder::{Builder, BuiltBlock},
};
use tokio::task::spawn_blocking;

use token::Fingerprint;

use super::{PublishError, collision::log_collision, queries as blocks};
use crate::{
    db::{NEVER_EXPIRES, ReadTransaction, StoreError},
    domain::{BaseBlockRow, Issuance, UnixSeconds, Version},
};

/// The installed blocks, and the un-revocations.
#[derive(Default)]
pub(super) struct BaseState {
    /// Blocks by the start of their expiry bucket.
    installed: BTreeMap<UnixSeconds, InstalledBlock>,
    /// The revocations of the list that a later block may cover.
    coverable: HashMap<Fingerprint, Coverable>,
    /// Un-revocations: version, and expiry in seconds. Blocks built before that version still list
    /// the fingerprint as revoked.
    unrevoked: HashMap<Fingerprint, (Version, UnixSeconds)>,
}

/// A block in the builder.
struct InstalledBlock {
    row: BaseBlockRow,
    /// Its number in the builder.
    number: u16,
    coverage: Vec<Coverage>,
}

impl InstalledBlock {
    /// Returns whether the block covers the credential of a revocation, and was built after the revocation. This is the
    /// condition of [`revocations::since`](crate::revocation::revocations::since).
    fn covers(&self, revocation: &Coverable) -> bool {
        let Coverable { version, issuance: Issuance { kid, issued_at, expires_at }, .. } = revocation;
        *version <= self.row.as_of
            && self.spans(*expires_at)
            && self
                .coverage
                .iter()
                .any(|range| range.kid == *kid && (range.iat_low..=range.iat_high).contains(&issued_at.get()))
    }

    /// Returns whether the block is the one for credentials with this expiry.
    fn spans(&self, expires_at: UnixSeconds) -> bool {
        let BaseBlockRow { expires_from, expires_before, .. } = self.row;
        expires_at >= expires_from && (expires_at < expires_before || expires_before >= NEVER_EXPIRES)
    }
}

/// A revocation of a credential in the issuance log.
struct Coverable {
    version: Version,
    /// The expiry in the revocation.
    expires_at: UnixSeconds,
    issuance: Issuance,
}

/// The changes of the base since the last load.
pub(super) struct BaseDelta {
    blocks: Vec<BaseBlockRow>,
    built: Vec<(BaseBlockRow, BuiltBlock)>,
}

impl BaseState {
    /// Reads the changes of the base.
    pub(super) async fn load(&self, read: &mut ReadTransaction) -> Result<BaseDelta, PublishError> {
        let blocks = blocks::list(read).await?;
        let mut built = Vec::new();
        for row in &blocks {
            if self.installed.get(&row.expires_from).is_none_or(|held| held.row != *row) {
                let bytes = blocks::read_bytes(read, row.expires_from).await?;
                // Hashing every shard would block this thread.
                let block = spawn_blocking(move || BuiltBlock::from_bytes(&bytes)).await;
                let block = block.ok().and_then(Result::ok).ok_or(StoreError::Corrupt { what: "bytes" })?;
                built.push((row.clone(), block));
            }
        }
        Ok(BaseDelta { blocks, built })
    }

    /// Installs the changes, and returns the fingerprints that were dropped from the revocation list. The next bundle
    /// needs a checkpoint if any block has changed.
    pub(super) fn apply(
        &mut self,
        delta: BaseDelta,
        builder: &mut Builder,
    ) -> Result<Vec<(UnixSeconds, Fingerprint)>, PublishError> {
        let BaseDelta { blocks, built } = delta;
        self.installed.retain(|_, held| {
            let kept = blocks.contains(&held.row);
            if !kept {
                builder.remove_block(held.number);
            }
            kept
        });
        let mut covered = Vec::new();
        for (row, block) in built {
            let coverage = block.coverage().to_vec();
            let installed = InstalledBlock { row, number: builder.install_block(block)?, coverage };
            let newly = self.coverable.extract_if(|_, revocation| installed.covers(revocation));
            covered.extend(newly.map(|(fingerprint, revocation)| (revocation.expires_at, fingerprint)));
            self.installed.insert(installed.row.expires_from, installed);
        }
        if !covered.is_empty() {
            self.coverable.shrink_to_fit();
        }
        for (_, fingerprint) in &covered {
            builder.remove_revocation(fingerprint);
        }
        for (fingerprint, since) in &self.unrevoked {
            self.emit_override(*fingerprint, *since, builder);
        }
        Ok(covered)
    }

    /// Applies an un-revocation: `since` is its version and the expiry of the credential.
    pub(super) fn note_unrevoked(
        &mut self,
        fingerprint: Fingerprint,
        since: (Version, UnixSeconds),
        builder: &mut Builder,
    ) {
        self.coverable.remove(&fingerprint);
        self.unrevoked.insert(fingerprint, since);
        log_collision(builder.unrevoke(fingerprint));
        self.emit_override(fingerprint, since, builder);
    }

    /// Notes a revocation: its version and the expiry that it states. Drops the un-revocation of the fingerprint.
    pub(super) fn note_revoked(
        &mut self,
        fingerprint: Fingerprint,
        (version, expires_at): (Version, UnixSeconds),
        issuance: Option<Issuance>,
    ) {
        self.unrevoked.remove(&fingerprint);
        if let Some(issuance) = issuance {
            self.coverable.insert(fingerprint, Coverable { version, expires_at, issuance });
        }
    }

    /// Forgets the revocations and un-revocations of credentials that expired before a second.
    pub(super) fn remove_expired(&mut self, before: UnixSeconds, builder: &mut Builder) {
        self.coverable.retain(|_, revocation| revocation.expires_at >= before);
        self.unrevoked.retain(|fingerprint, (_, expires_at)| {
            let kept = *expires_at >= before;
            if !kept {
                builder.remove_unrevocation(fingerprint);
            }
            kept
        });
    }

    /// Returns the number of revocations in the blocks.
    pub(super) fn revocation_count(&self) -> u64 {
        self.installed.values().map(|held| held.row.revoked).sum()
    }

    /// Emits an un-revocation if an installed block lists the fingerprint as revoked, and removes it otherwise.
    fn emit_override(
        &self,
        fingerprint: Fingerprint,
        (version, expires_at): (Version, UnixSeconds),
        builder: &mut Builder,
    ) {
        let contradicts = |held: &InstalledBlock| held.spans(expires_at) && held.row.as_of < version;
        if self.installed.values().any(contradicts) {
            log_collision(builder.unrevoke(fingerprint));
        } else {
            builder.remove_unrevocation(&fingerprint);
        }
    }
}
