//! The comparison of the journal with the store.

use std::collections::HashMap;

use token::Fingerprint;

use super::queries as gaps;
use crate::{
    accounts::grants,
    audit,
    db::{Executor, StoreError, versions},
    domain::{
        Revocation, RevocationChange, Tombstone, UnixMillis, UnixSeconds, Version, Watermark, WatermarkScope,
    },
    journal::{JournalContent, JournalMark, JournalRevocation, tombstones},
    revocation::{revocations, watermarks},
};

/// How long it takes at most, in seconds, until an issued credential is in the store. Credentials of that time which the
/// store has are listed one by one.
const MAX_ISSUE_DELAY_SECS: u64 = 15;

/// The journal entries that the store lacks.
#[derive(Debug, Default)]
pub struct MissingEntries {
    /// Revocations.
    pub revoked: Vec<Revocation>,
    /// Un-revocations. The credentials stay refused until the repair.
    pub unrevoked: Vec<Fingerprint>,
    /// Watermarks.
    pub watermarks: Vec<Watermark>,
    /// Sessions and tokens of other issuers whose watermarks were taken back. They stay refused until the repair.
    pub taken_back: Vec<WatermarkScope>,
    /// Deletions and ends.
    pub gone: Vec<Tombstone>,
    /// Subjects whose permissions have changed: the store may grant more than before.
    pub granted: Vec<String>,
    /// Set if a rollback of the database is found for the first time.
    pub rollback: Option<StoreRollback>,
    /// The highest version in the journal.
    pub newest: Version,
    /// The version up to which the store has all journal entries.
    pub known: Version,
    /// True if the store has everything that the journal was written from.
    pub is_continued: bool,
}

/// The database is older than the journal: it was restored from a backup, or a failover lost commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreRollback {
    /// Seconds. The store lacks some of the credentials that were issued after this.
    pub issued_after: UnixSeconds,
}

impl MissingEntries {
    /// Returns whether the store has all journal entries. Changed permissions do not count: they are only reported.
    pub const fn is_empty(&self) -> bool {
        self.has_no_refusals() && self.unrevoked.is_empty() && self.taken_back.is_empty()
    }

    /// Returns whether a merge has nothing to do.
    pub const fn has_no_refusals(&self) -> bool {
        self.revoked.is_empty()
            && self.watermarks.is_empty()
            && self.gone.is_empty()
            && self.rollback.is_none()
    }
}

/// Finds the journal entries that the store lacks.
///
/// The store has everything up to the last mark that it knows, so only later entries are compared. Entries since a gap
/// that is not repaired yet are compared again, for the repair.
pub(crate) async fn find_missing_entries(
    executor: &mut impl Executor,
    recorded: &JournalContent,
) -> Result<MissingEntries, StoreError> {
    let shared = shared_history(executor, recorded).await?;
    let open = gaps::list(executor).await?.into_iter().filter(|gap| gap.version.is_none());
    let open = open.map(|gap| Version::new(UnixMillis::from_seconds(gap.issued_after).millis())).min();
    let known = open.unwrap_or(Version::MAX).min(match shared {
        SharedHistory::Complete => Version::MAX,
        SharedHistory::UpTo(mark) => mark.version,
        SharedHistory::Nothing => Version::ZERO,
    });
    let is_continued = shared == SharedHistory::Complete;
    let mut missing =
        MissingEntries { newest: recorded.newest, known, is_continued, ..MissingEntries::default() };
    if known == Version::MAX {
        return Ok(missing);
    }
    let mut missing_versions = Vec::new();
    missing.find_revocations(executor, recorded, &mut missing_versions).await?;
    let raised: HashMap<WatermarkScope, (Version, UnixSeconds, UnixSeconds)> =
        watermarks::since(executor, Version::ZERO)
            .await?
            .into_iter()
            .map(|(version, Watermark { scope, instant, ends_at })| (scope, (version, instant, ends_at)))
            .collect();
    for (version, watermark) in recorded.watermarks.iter().filter(|(version, _)| *version > known) {
        let held = raised.get(&watermark.scope);
        if watermark.is_taken_back() {
            // If the version of the store is higher, the credential was revoked again later.
            if held.is_some_and(|(held, instant, _)| *instant > UnixSeconds::EPOCH && held < version) {
                missing.taken_back.push(watermark.scope.clone());
                missing_versions.push(*version);
            }
            continue;
        }
        let is_weaker = |(_, instant, ends_at): &(Version, UnixSeconds, UnixSeconds)| {
            *instant < watermark.instant || *ends_at < watermark.ends_at
        };
        if held.is_none_or(is_weaker) {
            missing.watermarks.push(watermark.clone());
            missing_versions.push(*version);
        }
    }
    let buried: HashMap<_, _> = tombstones::since(executor, Version::ZERO)
        .await?
        .into_iter()
        .map(|(version, Tombstone { kind: gone, id, at })| ((gone, id), (version, at)))
        .collect();
    for ((gone, id), (version, at)) in &recorded.gone {
        let is_known =
            |(held, ends_at): &(Version, UnixSeconds)| held >= version && (!gone.is_end() || ends_at <= at);
        if *version > known && !buried.get(&(*gone, id.clone())).is_some_and(is_known) {
            missing.gone.push(Tombstone { kind: *gone, id: id.clone(), at: *at });
            missing_versions.push(*version);
        }
    }
    missing.gone.sort_by(|a, b| (a.kind, &a.id).cmp(&(b.kind, &b.id)));
    let granted: HashMap<String, Version> = grants::changed_since(executor, Version::ZERO)
        .await?
        .into_iter()
        .map(|(version, subject)| (subject.to_string(), version))
        .collect();
    for (subject, version) in &recorded.granted {
        if *version > known && granted.get(subject).is_none_or(|held| held < version) {
            missing.granted.push(subject.clone());
            missing_versions.push(*version);
        }
    }
    if !is_continued {
        missing.rollback = find_rollback(executor, recorded, shared, missing_versions).await?;
    }
    Ok(missing)
}

impl MissingEntries {
    /// Finds the revocations and un-revocations that the store lacks.
    async fn find_revocations(
        &mut self,
        executor: &mut impl Executor,
        recorded: &JournalContent,
        missing_versions: &mut Vec<Version>,
    ) -> Result<(), StoreError> {
        let is_wanted = |fingerprint: &Fingerprint| {
            recorded.revocations.get(fingerprint).is_some_and(|(version, _)| *version > self.known)
        };
        let mut held = HashMap::new();
        let mut from = recorded.revocations.keys().any(is_wanted).then_some(0);
        while let Some(prefix) = from {
            let (page, next) = revocations::page_by_prefix(executor, prefix).await?;
            let asked = page.into_iter().filter(|(_, change)| is_wanted(change.fingerprint()));
            held.extend(asked.map(|(version, change)| (*change.fingerprint(), (version, change))));
            from = next;
        }
        for (fingerprint, (version, refused)) in &recorded.revocations {
            if *version <= self.known {
                continue;
            }
            match (refused, held.get(fingerprint)) {
                // Revoked in both. The journal entry counts if its reason differs: the store's may be reversible.
                (Some(JournalRevocation { reason, .. }), Some((known, RevocationChange::Revoked(same))))
                    if same.reason == *reason || known >= version => {}
                // An expired revocation is purged later: the comparison depends on no clock.
                (Some(JournalRevocation { expires_at, reason, revoked_at }), _) => {
                    self.revoked.push(Revocation {
                        fingerprint: *fingerprint,
                        expires_at: *expires_at,
                        reason: reason.clone(),
                        revoked_at: *revoked_at,
                    });
                    missing_versions.push(*version);
                }
                // If the version of the store is higher, the credential was revoked again later.
                (None, Some((known, RevocationChange::Revoked(_)))) if known < version => {
                    self.unrevoked.push(*fingerprint);
                    missing_versions.push(*version);
                }
                (None, _) => {}
            }
        }
        self.revoked.sort_by_key(|revocation| revocation.fingerprint.prefix());
        self.unrevoked.sort_by_key(Fingerprint::prefix);
        Ok(())
    }
}

/// How much of the journal is in the history of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SharedHistory {
    /// Everything: the store has the last mark.
    Complete,
    /// Everything up to this mark.
    UpTo(JournalMark),
    /// Nothing.
    Nothing,
}

/// Finds the last mark that the store has.
async fn shared_history(
    executor: &mut impl Executor,
    recorded: &JournalContent,
) -> Result<SharedHistory, StoreError> {
    // Marks of the lost history stay in the journal, so the last mark that the store has counts.
    for (number, mark) in recorded.marks.iter().rev().enumerate() {
        if mark.exists_in(executor).await? {
            let is_complete = number == 0 && recorded.newest <= mark.version;
            return Ok(if is_complete { SharedHistory::Complete } else { SharedHistory::UpTo(*mark) });
        }
    }
    Ok(if recorded.newest == Version::ZERO { SharedHistory::Complete } else { SharedHistory::Nothing })
}

/// Determines since when the store lacks issued credentials. Returns `None` if it lacks none, or if the rollback was found
/// before.
async fn find_rollback(
    executor: &mut impl Executor,
    recorded: &JournalContent,
    shared: SharedHistory,
    missing_versions: Vec<Version>,
) -> Result<Option<StoreRollback>, StoreError> {
    let found = gaps::list(executor).await?.iter().map(|gap| gap.found_at).max();
    let is_new = |millis: u64| found.is_none_or(|found| UnixSeconds::new(millis / 1000) > found);
    let last_known = match shared {
        SharedHistory::UpTo(mark) => Some(mark.at),
        SharedHistory::Complete | SharedHistory::Nothing => None,
    };
    let marks = recorded.marks.iter().rev();
    let first_unknown =
        marks.take_while(|mark| SharedHistory::UpTo(**mark) != shared).last().map(|mark| mark.at);
    let current = versions::current(executor).await?.number;
    let ahead = (recorded.newest > current).then_some(recorded.newest);
    let unknown = missing_versions
        .into_iter()
        .chain(ahead)
        .map(Version::get)
        .chain(first_unknown)
        .filter(|millis| is_new(*millis));
    let Some(unknown) = unknown.min() else { return Ok(None) };
    // Audit entries after that were written by a process that did not notice the rollback.
    let last = audit::latest_until(executor, unknown).await?.or(last_known).unwrap_or_default();
    Ok(Some(StoreRollback {
        issued_after: UnixSeconds::new(last / 1000).saturating_sub(MAX_ISSUE_DELAY_SECS),
    }))
}
