//! The blocks of the base in memory, and the un-revocations that override them.

use std::collections::{BTreeMap, HashMap};

use bundle::builder::{Builder, BuiltBlock};
use tokio::task::spawn_blocking;

use token::Fingerprint;

use super::{PublishError, collision::log_collision, queries as blocks};
use crate::{
    db::{NEVER_EXPIRES, ReadTransaction, StoreError},
    domain::{BaseBlockRow, UnixSeconds, Version},
    revocation::revocations,
};

/// The installed blocks, and the un-revocations.
#[derive(Default)]
pub(super) struct BaseState {
    /// Blocks by the start of their expiry bucket, each with its number in the builder.
    installed: BTreeMap<UnixSeconds, (BaseBlockRow, u16)>,
    /// Un-revocations: version, and expiry in seconds. Blocks built before that version still list
    /// the fingerprint as revoked.
    unrevoked: HashMap<Fingerprint, (Version, UnixSeconds)>,
}

/// The changes of the base since the last load.
pub(super) struct BaseDelta {
    blocks: Vec<BaseBlockRow>,
    built: Vec<(BaseBlockRow, BuiltBlock)>,
    /// Fingerprints that blocks cover now, with their expiry. They can be dropped from the revocation list.
    covered: Vec<(UnixSeconds, Fingerprint)>,
}

impl BaseState {
    /// Reads the changes of the base. The first load reads no covered fingerprints, as the revocation list is empty.
    pub(super) async fn load(
        &self,
        read: &mut ReadTransaction,
        is_first: bool,
    ) -> Result<BaseDelta, PublishError> {
        let blocks = blocks::list(read).await?;
        let mut built = Vec::new();
        for row in &blocks {
            if self.installed.get(&row.expires_from).is_none_or(|(held, _)| held != row) {
                let bytes = blocks::read_bytes(read, row.expires_from).await?;
                // Hashing every shard would block this thread.
                let block = spawn_blocking(move || BuiltBlock::from_bytes(&bytes)).await;
                let block = block.ok().and_then(Result::ok).ok_or(StoreError::Corrupt { what: "bytes" })?;
                built.push((row.clone(), block));
            }
        }
        let mut covered = Vec::new();
        if !built.is_empty() && !is_first {
            let mut from = Some(0);
            while let Some(prefix) = from {
                let (page, next) = revocations::covered_by_base(read, prefix).await?;
                covered.extend(page);
                from = next;
            }
        }
        Ok(BaseDelta { blocks, built, covered })
    }

    /// Installs the changes, and returns the fingerprints that were dropped from the revocation list. The next bundle
    /// needs a checkpoint if any block has changed.
    pub(super) fn apply(
        &mut self,
        delta: BaseDelta,
        builder: &mut Builder,
    ) -> Result<Vec<(UnixSeconds, Fingerprint)>, PublishError> {
        let BaseDelta { blocks, built, covered } = delta;
        self.installed.retain(|_, (held, number)| {
            let kept = blocks.contains(held);
            if !kept {
                builder.remove_block(*number);
            }
            kept
        });
        for (row, block) in built {
            let number = builder.install_block(block)?;
            self.installed.insert(row.expires_from, (row, number));
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
        self.unrevoked.insert(fingerprint, since);
        log_collision(builder.unrevoke(fingerprint));
        self.emit_override(fingerprint, since, builder);
    }

    /// Drops the un-revocation of a fingerprint that is revoked again.
    pub(super) fn note_revoked(&mut self, fingerprint: &Fingerprint) {
        self.unrevoked.remove(fingerprint);
    }

    /// Removes the un-revocations of credentials that expired before a second.
    pub(super) fn remove_expired(&mut self, before: UnixSeconds, builder: &mut Builder) {
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
        self.installed.values().map(|(row, _)| row.revoked).sum()
    }

    /// Emits an un-revocation if an installed block lists the fingerprint as revoked, and removes it otherwise.
    fn emit_override(
        &self,
        fingerprint: Fingerprint,
        (version, expires_at): (Version, UnixSeconds),
        builder: &mut Builder,
    ) {
        let contradicts = |row: &BaseBlockRow| {
            let in_time = expires_at < row.expires_before || row.expires_before >= NEVER_EXPIRES;
            expires_at >= row.expires_from && in_time && row.as_of < version
        };
        if self.installed.values().any(|(row, _)| contradicts(row)) {
            log_collision(builder.unrevoke(fingerprint));
        } else {
            builder.remove_unrevocation(&fingerprint);
        }
    }
}
