use std::collections::HashMap;

use token::Fingerprint;

use crate::{
    journal::{Mark, Recorded, Refused},
    model::{Revocation, RevocationChange, Tombstone, Watermark, WatermarkScope},
    store::{Lookup, StoreError, audit, gaps, grants, revocations, tombstones, versions, watermarks},
};

/// What the journal says that the store does not know.
#[derive(Debug, Default)]
pub struct Missing {
    pub revoked: Vec<Revocation>,
    /// Revocations that were taken back: they go on being refused until the repair.
    pub unrevoked: Vec<Fingerprint>,
    pub watermarks: Vec<Watermark>,
    pub gone: Vec<Tombstone>,
    /// Whose permissions have changed: they may be wider again than they were.
    pub granted: Vec<String>,
    /// Set where this was not found before.
    pub went_back: Option<WentBack>,
    /// The greatest version that the journal knows of.
    pub newest: u64,
    /// The version up to which the store knows all that the journal says.
    pub known: u64,
    /// True if the store holds all that the journal was written from.
    pub is_continued: bool,
}

/// The database is older than the journal: it was restored from a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WentBack {
    /// In seconds: of what was issued later than that it knows a part only.
    pub issued_after: u64,
}

impl Missing {
    /// True if the store knows all that the journal says. Changed permissions do not count: they are only reported.
    pub const fn is_nothing(&self) -> bool {
        self.refuses_nothing() && self.unrevoked.is_empty()
    }

    /// Whether there is nothing to refuse again.
    pub const fn refuses_nothing(&self) -> bool {
        self.revoked.is_empty()
            && self.watermarks.is_empty()
            && self.gone.is_empty()
            && self.went_back.is_none()
    }
}

/// Finds what the journal says that the store does not know.
///
/// The store holds everything up to the last mark of the journal that it holds, whatever came later: only what the journal
/// says after that mark is looked at. A gap that is not repaired yet is looked at again, for the repair to take up.
pub(in crate::operations) async fn compare(
    lookup: &mut impl Lookup,
    recorded: &Recorded,
) -> Result<Missing, StoreError> {
    let common = last_common(lookup, recorded).await?;
    let open = gaps::list(lookup).await?.into_iter().filter(|gap| gap.version.is_none());
    let open = open.map(|gap| gap.issued_after.saturating_mul(1000)).min();
    let known = open.unwrap_or(u64::MAX).min(match common {
        Common::Last => u64::MAX,
        Common::Earlier(mark) => mark.version,
        Common::Nothing => 0,
    });
    let is_continued = common == Common::Last;
    let mut missing = Missing { newest: recorded.newest, known, is_continued, ..Missing::default() };
    if known == u64::MAX {
        return Ok(missing);
    }
    // The versions of what the store lacks.
    let mut lacking = Vec::new();
    missing.revocations(lookup, recorded, &mut lacking).await?;
    let raised: HashMap<WatermarkScope, u64> = watermarks::since(lookup, 0)
        .await?
        .into_iter()
        .map(|(_, Watermark { scope, instant, .. })| (scope, instant))
        .collect();
    for (version, watermark) in recorded.watermarks.iter().filter(|(version, _)| *version > known) {
        if raised.get(&watermark.scope).is_none_or(|instant| *instant < watermark.instant) {
            missing.watermarks.push(watermark.clone());
            lacking.push(*version);
        }
    }
    let buried: HashMap<_, _> = tombstones::since(lookup, 0)
        .await?
        .into_iter()
        .map(|(version, Tombstone { gone, id, at })| ((gone, id), (version, at)))
        .collect();
    for ((gone, id), (version, at)) in &recorded.gone {
        let is_known = |(held, ends_at): &(u64, u64)| held >= version && (!gone.is_an_end() || ends_at <= at);
        if *version > known && !buried.get(&(*gone, id.clone())).is_some_and(is_known) {
            missing.gone.push(Tombstone { gone: *gone, id: id.clone(), at: *at });
            lacking.push(*version);
        }
    }
    missing.gone.sort_by(|a, b| (a.gone, &a.id).cmp(&(b.gone, &b.id)));
    let granted: HashMap<String, u64> = grants::changed_since(lookup, 0)
        .await?
        .into_iter()
        .map(|(version, subject)| (subject.to_string(), version))
        .collect();
    for (subject, version) in &recorded.granted {
        if *version > known && granted.get(subject).is_none_or(|held| held < version) {
            missing.granted.push(subject.clone());
            lacking.push(*version);
        }
    }
    if !is_continued {
        missing.went_back = went_back(lookup, recorded, common, lacking).await?;
    }
    Ok(missing)
}

impl Missing {
    async fn revocations(
        &mut self,
        lookup: &mut impl Lookup,
        recorded: &Recorded,
        lacking: &mut Vec<u64>,
    ) -> Result<(), StoreError> {
        let is_wanted = |fingerprint: &Fingerprint| {
            recorded.revocations.get(fingerprint).is_some_and(|(version, _)| *version > self.known)
        };
        let mut held = HashMap::new();
        let mut from = recorded.revocations.keys().any(is_wanted).then_some(0);
        while let Some(prefix) = from {
            let (portion, next) = revocations::portion(lookup, prefix).await?;
            let asked = portion.into_iter().filter(|(_, change)| is_wanted(change.fingerprint()));
            held.extend(asked.map(|(version, change)| (*change.fingerprint(), (version, change))));
            from = next;
        }
        for (fingerprint, (version, refused)) in &recorded.revocations {
            if *version <= self.known {
                continue;
            }
            match (refused, held.get(fingerprint)) {
                // Revoked in both. If the store knows it as one that can be taken back, the journal may say more.
                (Some(Refused { reason, .. }), Some((known, RevocationChange::Revoked(same))))
                    if same.reason == *reason || known >= version => {}
                // Collected whenever time has really passed: no clock is asked here.
                (Some(Refused { expires_at, reason, revoked_at }), _) => {
                    self.revoked.push(Revocation {
                        fingerprint: *fingerprint,
                        expires_at: *expires_at,
                        reason: reason.clone(),
                        revoked_at: *revoked_at,
                    });
                    lacking.push(*version);
                }
                // Revoked again since, if the store's version is later.
                (None, Some((known, RevocationChange::Revoked(_)))) if known < version => {
                    self.unrevoked.push(*fingerprint);
                    lacking.push(*version);
                }
                (None, _) => {}
            }
        }
        self.revoked.sort_by_key(|revocation| revocation.fingerprint.prefix());
        self.unrevoked.sort_by_key(Fingerprint::prefix);
        Ok(())
    }
}

/// How much of the journal the store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Common {
    /// All of it: its last mark is there.
    Last,
    Earlier(Mark),
    Nothing,
}

async fn last_common(lookup: &mut impl Lookup, recorded: &Recorded) -> Result<Common, StoreError> {
    // After a restoration marks of the lost history stay in the journal, so the last one that is there counts.
    for (number, mark) in recorded.marks.iter().rev().enumerate() {
        if mark.is_in(lookup).await? {
            let is_whole = number == 0 && recorded.newest <= mark.version;
            return Ok(if is_whole { Common::Last } else { Common::Earlier(*mark) });
        }
    }
    // A journal without lines says nothing.
    Ok(if recorded.newest == 0 { Common::Last } else { Common::Nothing })
}

/// Since when the store does not know all that was issued; `None` if it does, or if that was found before.
async fn went_back(
    lookup: &mut impl Lookup,
    recorded: &Recorded,
    common: Common,
    lacking: Vec<u64>,
) -> Result<Option<WentBack>, StoreError> {
    let found = gaps::list(lookup).await?.iter().map(|gap| gap.found_at).max();
    let is_new = |millis: u64| found.is_none_or(|found| millis / 1000 > found);
    let last_known = match common {
        Common::Earlier(mark) => Some(mark.at),
        Common::Last | Common::Nothing => None,
    };
    let marks = recorded.marks.iter().rev();
    let first_unknown = marks.take_while(|mark| Common::Earlier(**mark) != common).last().map(|mark| mark.at);
    let current = versions::current(lookup).await?.number;
    let ahead = (recorded.newest > current).then_some(recorded.newest);
    let unknown = lacking.into_iter().chain(ahead).chain(first_unknown).filter(|millis| is_new(*millis));
    let Some(unknown) = unknown.min() else { return Ok(None) };
    // Lines that are later than what is unknown were written after the restoration, by somebody who did not notice.
    let last = audit::last_until(lookup, unknown).await?.or(last_known).unwrap_or_default();
    Ok(Some(WentBack { issued_after: (last / 1000).saturating_sub(UNDER_WAY) }))
}

/// How long a credential can be under way between its time of issue and its entry in the store, in seconds: what is
/// known of that time is listed one by one.
const UNDER_WAY: u64 = 15;
