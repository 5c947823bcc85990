//! The unit of work: the only way to write.
//!
//! ```text
//! change    transaction -> version lock -> clock -> version -> writes -> audit entries -> commit -> wait until published
//! draft     the same, but takes a version only if the bundle turns out to change
//! upkeep    a transaction without an entry in the audit log, for leases, reports and the purge
//! ```
//! The order matters. The version lock orders versions by commit. The time is taken after the wait for the lock, so what
//! was issued in between is covered. The audit log comes last, because its sequence is a lock that all writers share.

use std::{fmt::Debug, future::Future, pin::Pin};

use sqlx::query;

use super::{Store, StoreError, Write, row, versions};
use crate::{
    domain::UnixMillis,
    domain::{Actor, Event, Version},
};

/// What follows a durable change.
pub trait AfterCommit: Debug + Send + Sync {
    /// Counts the event.
    fn count(&self, event: &Event);

    /// Waits until the version is published, for a while: the change is durable already.
    fn wait_published(&self, version: Version) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// Waits for publications of the own server.
pub trait PublishedVersions: Debug + Send + Sync {
    /// Requests a publication, and waits until the version or a later one is published.
    fn wait_for(&self, version: Version) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// Nothing follows: the publisher that watches the database publishes the change.
#[derive(Debug, Clone, Copy)]
pub struct Unobserved;

impl AfterCommit for Unobserved {
    fn count(&self, _: &Event) {}

    fn wait_published(&self, _: Version) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::ready(()))
    }
}

/// A change with a version: the bundle changes, or the journal must record it. It is rolled back unless it is committed.
#[derive(Debug)]
pub struct Change<'a> {
    draft: Draft<'a>,
    version: Version,
}

/// A change that gets a version when it needs one. It is rolled back unless it is committed.
#[derive(Debug)]
pub struct Draft<'a> {
    write: Write,
    version: Option<Version>,
    now: UnixMillis,
    actor: &'a Actor,
    after: &'a dyn AfterCommit,
    /// The events before the one that [`commit`](Self::commit) gets.
    events: Vec<Event>,
}

impl Store {
    /// Begins a change. `now` is called once the version lock is held.
    pub async fn change<'a>(
        &self,
        actor: &'a Actor,
        now: impl FnOnce() -> UnixMillis,
        after: &'a dyn AfterCommit,
    ) -> Result<Change<'a>, StoreError> {
        let mut draft = self.draft(actor, now, after).await?;
        let version = draft.version().await?;
        Ok(Change { draft, version })
    }

    /// Begins a change that may not need a version.
    pub async fn draft<'a>(
        &self,
        actor: &'a Actor,
        now: impl FnOnce() -> UnixMillis,
        after: &'a dyn AfterCommit,
    ) -> Result<Draft<'a>, StoreError> {
        Draft::begin(self.write().await?, actor, now, after).await
    }

    /// Begins a change without observer, in a database that may have been rolled back.
    pub async fn draft_unanchored<'a>(
        &self,
        actor: &'a Actor,
        now: impl FnOnce() -> UnixMillis,
    ) -> Result<Draft<'a>, StoreError> {
        Draft::begin(self.write_unanchored().await?, actor, now, &Unobserved).await
    }

    /// Begins a transaction without an entry in the audit log.
    pub async fn upkeep(&self) -> Result<Upkeep, StoreError> {
        Ok(Upkeep(self.write().await?))
    }
}

impl<'a> Draft<'a> {
    async fn begin(
        mut write: Write,
        actor: &'a Actor,
        now: impl FnOnce() -> UnixMillis,
        after: &'a dyn AfterCommit,
    ) -> Result<Self, StoreError> {
        versions::lock_version(&mut write).await?;
        Ok(Self { write, version: None, now: now(), actor, after, events: Vec::new() })
    }

    /// Returns the transaction, for queries.
    pub const fn db(&mut self) -> &mut Write {
        &mut self.write
    }

    /// Returns the time of the change.
    pub const fn now(&self) -> UnixMillis {
        self.now
    }

    /// Returns who makes the change.
    pub const fn actor(&self) -> &'a Actor {
        self.actor
    }

    /// Returns the version of the change. The first call allocates it.
    pub async fn version(&mut self) -> Result<Version, StoreError> {
        self.version_above(Version::ZERO).await
    }

    /// Returns the version of the change, which the first call allocates above `floor`: edges have that version, and this
    /// database has lost it.
    pub async fn version_above(&mut self, floor: Version) -> Result<Version, StoreError> {
        match self.version {
            Some(version) => Ok(version),
            None => {
                let version = versions::allocate_above(&mut self.write, self.now, floor).await?;
                self.version = Some(version);
                Ok(version)
            }
        }
    }

    /// Adds an event that precedes the one of [`commit`](Self::commit).
    pub fn record(&mut self, event: Event) {
        self.events.push(event);
    }

    /// Commits the change with its audit entries, and returns when it is durable and published.
    pub async fn commit(mut self, event: Event) -> Result<(), StoreError> {
        self.record(event);
        self.commit_recorded().await
    }

    /// Commits the change with the entries of [`record`](Self::record).
    pub async fn commit_recorded(self) -> Result<(), StoreError> {
        let Self { mut write, version, now, actor, after, events } = self;
        let entries: Vec<_> = events.iter().map(|event| AuditLine { at: now, actor, event }).collect();
        append_audit(&mut write, version, &entries).await?;
        write.commit().await?;
        events.iter().for_each(|event| after.count(event));
        if let Some(version) = version {
            after.wait_published(version).await;
        }
        Ok(())
    }
}

impl<'a> Change<'a> {
    /// Returns the transaction, for queries.
    pub const fn db(&mut self) -> &mut Write {
        self.draft.db()
    }

    /// Returns the version of the change.
    pub const fn version(&self) -> Version {
        self.version
    }

    /// Returns the time of the change.
    pub const fn now(&self) -> UnixMillis {
        self.draft.now()
    }

    /// Returns who makes the change.
    pub const fn actor(&self) -> &'a Actor {
        self.draft.actor()
    }

    /// Returns this as a change that may not need a version, for what both kinds share.
    pub const fn as_draft(&mut self) -> &mut Draft<'a> {
        &mut self.draft
    }

    /// Adds an event that precedes the one of [`commit`](Self::commit).
    pub fn record(&mut self, event: Event) {
        self.draft.record(event);
    }

    /// Commits the change with its audit entries, and returns its version when it is durable and published.
    pub async fn commit(self, event: Event) -> Result<Version, StoreError> {
        let Self { draft, version } = self;
        draft.commit(event).await?;
        Ok(version)
    }

    /// Commits the change with the entries of [`record`](Self::record), like [`commit`](Self::commit).
    pub async fn commit_recorded(self) -> Result<Version, StoreError> {
        let Self { draft, version } = self;
        draft.commit_recorded().await?;
        Ok(version)
    }
}

/// A transaction without an entry in the audit log. It is rolled back unless it is committed.
#[derive(Debug)]
pub struct Upkeep(Write);

impl Upkeep {
    /// Returns the transaction, for queries.
    pub const fn db(&mut self) -> &mut Write {
        &mut self.0
    }

    /// Locks the version until the end of the transaction. Must come first.
    pub async fn lock_version(&mut self) -> Result<(), StoreError> {
        versions::lock_version(&mut self.0).await
    }

    /// Allocates a version. Must be the first write.
    pub async fn allocate_version(&mut self, now: UnixMillis) -> Result<Version, StoreError> {
        versions::allocate_above(&mut self.0, now, Version::ZERO).await
    }

    /// Commits, and returns when the writes are durable.
    pub async fn commit(self) -> Result<(), StoreError> {
        self.0.commit().await
    }

    /// Commits with audit entries of several actors: for a transaction that they share.
    pub async fn commit_with(mut self, entries: &[AuditLine<'_>]) -> Result<(), StoreError> {
        append_audit(&mut self.0, None, entries).await?;
        self.0.commit().await
    }
}

/// A line to append to the audit log.
#[derive(Debug)]
pub struct AuditLine<'a> {
    /// When the change was made.
    pub at: UnixMillis,
    /// Who made it.
    pub actor: &'a Actor,
    /// What was done.
    pub event: &'a Event,
}

/// Appends lines to the audit log. Must be the last write of the transaction, as it locks the sequence.
async fn append_audit(
    write: &mut Write,
    version: Option<Version>,
    lines: &[AuditLine<'_>],
) -> Result<(), StoreError> {
    let count = u64::try_from(lines.len()).unwrap_or(u64::MAX);
    let last = query("UPDATE audit_state SET seq = seq + $1 WHERE id = 1 RETURNING seq")
        .bind(row::to_column(count))
        .fetch_one(write.connection())
        .await?;
    let first = row::from_column::<u64>(&last, "seq")? - count + 1;
    for (seq, AuditLine { at, actor, event }) in (first..).zip(lines) {
        query("INSERT INTO audit (seq, at, actor, action, target, detail) VALUES ($1, $2, $3, $4, $5, $6)")
            .bind(row::to_column(seq))
            .bind(row::to_column(at.millis()))
            .bind(actor.to_string())
            .bind(event.action())
            .bind(event.target())
            .bind(event.detail(version).to_string())
            .execute(write.connection())
            .await?;
    }
    Ok(())
}
