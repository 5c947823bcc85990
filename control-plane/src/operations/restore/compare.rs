use std::collections::HashMap;

use token::Fingerprint;

use crate::{
    clock::Time,
    journal::{KEPT, Mark, Recorded, Refused},
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

pub(in crate::operations) async fn compare(
    lookup: &mut impl Lookup,
    recorded: &Recorded,
    now: Time,
) -> Result<Missing, StoreError> {
    let mut missing = Missing { newest: recorded.newest, ..Missing::default() };
    // Of versions that are not there, the earliest: the backup was made before it.
    let mut lacking = Vec::new();
    let mut held = HashMap::new();
    let mut from = (!recorded.revocations.is_empty()).then_some(0);
    while let Some(prefix) = from {
        let (portion, next) = revocations::portion(lookup, prefix).await?;
        let asked =
            portion.into_iter().filter(|(_, change)| recorded.revocations.contains_key(change.fingerprint()));
        held.extend(asked.map(|(version, change)| {
            (*change.fingerprint(), (version, matches!(change, RevocationChange::Revoked(_))))
        }));
        from = next;
    }
    for (fingerprint, (version, refused)) in &recorded.revocations {
        match (refused, held.get(fingerprint)) {
            (_, Some((known, _))) if known >= version => {}
            (Some(_), Some((_, true))) => lacking.push(*version),
            (Some(Refused { expires_at, reason, revoked_at }), _) if !is_over(*expires_at, now) => {
                let (expires_at, reason, revoked_at) = (*expires_at, reason.clone(), *revoked_at);
                let fingerprint = *fingerprint;
                missing.revoked.push(Revocation { fingerprint, expires_at, reason, revoked_at });
                lacking.push(*version);
            }
            (None, Some((_, true))) => {
                missing.unrevoked.push(*fingerprint);
                lacking.push(*version);
            }
            _ => {}
        }
    }
    missing.revoked.sort_by_key(|revocation| revocation.fingerprint.prefix());
    missing.unrevoked.sort_by_key(Fingerprint::prefix);
    let raised: HashMap<WatermarkScope, (u64, u64)> = watermarks::since(lookup, 0)
        .await?
        .into_iter()
        .map(|(version, Watermark { scope, instant, .. })| (scope, (version, instant)))
        .collect();
    for (version, watermark) in &recorded.watermarks {
        let is_known = raised
            .get(&watermark.scope)
            .is_some_and(|(known, instant)| known >= version || *instant >= watermark.instant);
        if !is_known && !is_over(watermark.ends_at, now) {
            missing.watermarks.push(watermark.clone());
            lacking.push(*version);
        }
    }
    let buried: HashMap<_, _> = tombstones::since(lookup, 0)
        .await?
        .into_iter()
        .map(|(version, Tombstone { gone, id, .. })| ((gone, id), version))
        .collect();
    for ((gone, id), (version, at)) in &recorded.gone {
        let is_old = *version < now.millis().saturating_sub(KEPT);
        if !is_old && buried.get(&(*gone, id.clone())).is_none_or(|known| known < version) {
            missing.gone.push(Tombstone { gone: *gone, id: id.clone(), at: *at });
            lacking.push(*version);
        }
    }
    let granted: HashMap<String, u64> = grants::changed_since(lookup, 0)
        .await?
        .into_iter()
        .map(|(version, subject)| (subject.to_string(), version))
        .collect();
    for (subject, version) in &recorded.granted {
        if granted.get(subject).is_none_or(|known| known < version) {
            missing.granted.push(subject.clone());
            lacking.push(*version);
        }
    }
    missing.went_back = went_back(lookup, recorded, lacking).await?;
    Ok(missing)
}

/// Since when the store does not know all that was issued; None if it does, or that was found before.
async fn went_back(
    lookup: &mut impl Lookup,
    recorded: &Recorded,
    lacking: Vec<u64>,
) -> Result<Option<WentBack>, StoreError> {
    let found = gaps::list(lookup).await?.iter().map(|gap| gap.found_at).max();
    let is_new = |millis: u64| found.is_none_or(|found| millis / 1000 > found);
    let (mut last_known, mut first_unknown) = (None, None);
    let marks: Vec<&Mark> = recorded.marks.iter().filter(|mark| is_new(mark.at)).collect();
    let extent = audit::extent(lookup).await?;
    // Marks were made one after another: from the end, until one is there.
    for mark in marks.iter().rev() {
        if is_there(lookup, mark, extent).await? {
            last_known = Some(mark.at);
            break;
        }
        first_unknown = Some(mark.at);
    }
    let current = versions::current(lookup).await?.number;
    let ahead = (recorded.newest > current).then_some(recorded.newest);
    let versions = lacking.into_iter().chain(ahead).filter(|version| is_new(*version));
    let Some(unknown) = versions.chain(first_unknown).min() else { return Ok(None) };
    // Lines that are later than what is unknown were written after the restoration, by somebody who did not notice.
    let last = audit::last_until(lookup, unknown).await?.or(last_known).unwrap_or_default();
    Ok(Some(WentBack { issued_after: (last / 1000).saturating_sub(UNDER_WAY) }))
}

/// Whether the store holds the line that a mark is of, or has forgotten it as lines are.
async fn is_there(
    lookup: &mut impl Lookup,
    mark: &Mark,
    (last, first): (u64, Option<u64>),
) -> Result<bool, StoreError> {
    Ok(match audit::made_at(lookup, mark.seq).await? {
        Some(at) => at == mark.at,
        None => mark.seq <= last && first.is_none_or(|first| mark.seq < first),
    })
}

/// Whether the store would have forgotten it.
const fn is_over(expires_at: u64, now: Time) -> bool {
    expires_at < now.seconds().saturating_sub(300 + 86_400)
}

/// How long a credential can be under way between its time of issue and its entry in the store, in seconds: what is
/// known of that time is listed one by one.
const UNDER_WAY: u64 = 15;
