//! The blocks of the base, as the builder holds them, and what has to be said beside them.

use std::collections::{BTreeMap, HashMap};

use bundle::builder::{Builder, BuiltBlock};
use tokio::task::spawn_blocking;

use token::Fingerprint;

use super::PublishError;
use crate::{
    model::BaseBlock,
    store::{NEVER, Read, StoreError, blocks, revocations},
};

#[derive(Default)]
pub(super) struct Base {
    /// By the beginning of their bucket, with the number that the builder gave.
    installed: BTreeMap<u64, (BaseBlock, u16)>,
    /// Taken back, in which version, and when it expires: a block that was built before calls it revoked.
    restored: HashMap<Fingerprint, (u64, u64)>,
}

/// What changed of the base.
pub(super) struct BaseNews {
    blocks: Vec<BaseBlock>,
    built: Vec<(BaseBlock, BuiltBlock)>,
    /// What the blocks say now, with its expiry: it need not be said elsewhere.
    taken_in: Vec<(u64, Fingerprint)>,
}

impl Base {
    /// On the first load nothing was said elsewhere yet.
    pub(super) async fn load(&self, read: &mut Read, is_first: bool) -> Result<BaseNews, PublishError> {
        let blocks = blocks::list(read).await?;
        let mut built = Vec::new();
        for row in &blocks {
            if self.installed.get(&row.expires_from).is_none_or(|(held, _)| held != row) {
                let bytes = blocks::bytes(read, row.expires_from).await?;
                // Every shard is hashed.
                let block = spawn_blocking(move || BuiltBlock::from_bytes(&bytes)).await;
                let block = block.ok().and_then(Result::ok).ok_or(StoreError::Corrupt { what: "bytes" })?;
                built.push((row.clone(), block));
            }
        }
        let mut taken_in = Vec::new();
        if !built.is_empty() && !is_first {
            let mut from = Some(0);
            while let Some(prefix) = from {
                let (portion, next) = revocations::in_the_base(read, prefix).await?;
                taken_in.extend(portion);
                from = next;
            }
        }
        Ok(BaseNews { blocks, built, taken_in })
    }

    /// Returns what need not be said elsewhere any more. A checkpoint is to follow.
    pub(super) fn apply(
        &mut self,
        news: BaseNews,
        builder: &mut Builder,
    ) -> Result<Vec<(u64, Fingerprint)>, PublishError> {
        let BaseNews { blocks, built, taken_in } = news;
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
        for (_, fingerprint) in &taken_in {
            builder.remove_revocation(fingerprint);
        }
        for (fingerprint, known) in &self.restored {
            self.tell(*fingerprint, *known, builder);
        }
        Ok(taken_in)
    }

    pub(super) fn restored(&mut self, fingerprint: Fingerprint, known: (u64, u64), builder: &mut Builder) {
        self.restored.insert(fingerprint, known);
        super::contents::told(builder.unrevoke(fingerprint));
        self.tell(fingerprint, known, builder);
    }

    pub(super) fn revoked(&mut self, fingerprint: &Fingerprint) {
        self.restored.remove(fingerprint);
    }

    /// What expired before this second is good or bad for nobody.
    pub(super) fn forget(&mut self, before: u64, builder: &mut Builder) {
        self.restored.retain(|fingerprint, (_, expires_at)| {
            let kept = *expires_at >= before;
            if !kept {
                builder.remove_unrevocation(fingerprint);
            }
            kept
        });
    }

    /// How many revocations the blocks hold.
    pub(super) fn revocations(&self) -> u64 {
        self.installed.values().map(|(row, _)| row.revoked).sum()
    }

    /// Says so beside the base where a block calls it revoked, and there alone.
    fn tell(&self, fingerprint: Fingerprint, (version, expires_at): (u64, u64), builder: &mut Builder) {
        let contradicts = |row: &BaseBlock| {
            let in_time = expires_at < row.expires_before || row.expires_before >= NEVER;
            expires_at >= row.expires_from && in_time && row.as_of < version
        };
        if self.installed.values().any(|(row, _)| contradicts(row)) {
            super::contents::told(builder.unrevoke(fingerprint));
        } else {
            builder.remove_unrevocation(&fingerprint);
        }
    }
}
