//! Keys of other issuers: the configuration lists the issuers, each issuer serves its keys, and the store keeps the last
//! valid ones.

use token::Fingerprint;

use super::{
    IssuerRecord,
    jwks::{self, FetchError, FetchOutcome, Fetcher, IssuerKey, JwksError, ParsedJwks},
    queries as issuers,
};
use crate::{
    config,
    db::{Change, NEVER_EXPIRES, StoreError},
    domain::{Actor, Event, UnixSeconds, Version},
    keys::key_set,
    platform::random,
    service::Service,
};

/// The limit of the keys of all issuers in a bundle object of 64 KiB; the rest is for own keys.
const MAX_KEY_BYTES: usize = 56 * 1024;

/// How long an attempt excludes other replicas, in seconds.
const FETCH_LEASE_SECS: u64 = 60;

/// The first and the longest delay after a failure, in seconds.
const MIN_RETRY_DELAY_SECS: u64 = 5;
const MAX_RETRY_DELAY_SECS: u64 = 900;

/// Why the keys of an issuer could not be refreshed.
#[derive(Debug, thiserror::Error)]
pub enum RefreshError {
    /// The issuer is not in the configuration.
    #[error("unknown issuer `{}`; add it to [[issuers]] in the configuration", .0.escape_debug())]
    NotConfigured(String),
    /// The last attempt was this number of seconds ago.
    #[error("the keys were requested {seconds} seconds ago; retry later (`min_refresh` of the issuer)")]
    TooSoon { seconds: u64 },
    /// The keys cannot be fetched.
    #[error("{0}")]
    Fetch(FetchError),
    /// The response is not a valid key set.
    #[error("{0}")]
    Jwks(JwksError),
    /// The keys of all issuers together exceed the limit of a bundle.
    #[error("the keys of all issuers together exceed {max} bytes", max = MAX_KEY_BYTES)]
    TooLarge,
    /// The store cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// When to fetch the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefreshMode {
    /// If a refresh is due, and no other replica is doing it.
    IfDue,
    /// Immediately, because a command asks for it, subject to `min_refresh` of the issuer.
    Immediately,
    /// Immediately, because edges lack a key, subject to `min_refresh` of the issuer. Clients can cause this.
    MissingKey,
    /// Immediately, because the file with the keys has changed.
    FileChanged,
}

impl Service {
    /// Records that edges lack a key of an issuer, by the SHA-256 of its name. An unknown one is ignored.
    pub fn report_missing_key(&self, issuer: &Fingerprint) {
        if let Some(signal) = self.missing_keys.signal(issuer) {
            signal.notify_one();
        }
    }

    /// Waits until edges lack a key of an issuer. Never returns for an unknown one.
    pub async fn wait_missing_key(&self, issuer: &str) {
        let issuer = Fingerprint::digest(issuer.as_bytes());
        match self.missing_keys.signal(&issuer) {
            Some(signal) => signal.notified().await,
            None => std::future::pending().await,
        }
    }
}

/// The outcome of a refresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefreshOutcome {
    /// No refresh was due.
    NotDue,
    /// The keys have not changed.
    Same,
    /// The keys have changed. This is the first version with the new keys.
    Changed(Version),
}

/// Synchronizes the store with the configuration: a new issuer is due immediately, and the keys of removed issuers and
/// removed algorithms are deleted.
pub async fn sync_issuers(service: &Service) -> Result<(), StoreError> {
    let mut change = service.change(&Actor::System).await?;
    let (version, now) = (change.version(), change.now());
    let mut changed = false;
    for mut record in issuers::list(change.db()).await? {
        let Some(issuer) = service.config.issuers.iter().find(|issuer| issuer.issuer == record.issuer) else {
            issuers::remove(change.db(), &record.issuer).await?;
            changed |= !record.keys.is_empty();
            change.record(Event::IssuerRemoved { issuer: record.issuer });
            continue;
        };
        let before = record.keys.len();
        record.keys.retain(|key| key.is_permitted(issuer));
        changed |= record.keys.len() != before;
        // The configuration of the issuer may have changed, so all keys are fetched again.
        (record.tag, record.due_at) = (None, now.seconds());
        issuers::update(change.db(), &record).await?;
    }
    for issuer in &service.config.issuers {
        if issuers::add(change.db(), &issuer.issuer, now.seconds()).await? {
            change.record(Event::IssuerAdded { issuer: issuer.issuer.clone() });
        }
    }
    if changed {
        key_set::set_version(change.db(), version).await?;
    }
    change.commit_recorded().await?;
    Ok(())
}

/// Fetches the keys of an issuer. After a failure the last valid keys stay in use.
pub async fn refresh_issuer(
    service: &Service,
    fetcher: &Fetcher,
    actor: &Actor,
    name: &str,
    mode: RefreshMode,
) -> Result<RefreshOutcome, RefreshError> {
    let issuer = service.config.issuers.iter().find(|issuer| issuer.issuer == name);
    let issuer = issuer.ok_or_else(|| RefreshError::NotConfigured(name.to_owned()))?;
    let min_refresh = issuer.min_refresh.get().as_secs();
    let Some(record) = claim_refresh(service, name, mode, min_refresh).await? else {
        return Ok(RefreshOutcome::NotDue);
    };
    match fetch_keys(service, fetcher, issuer, &record).await {
        Ok(outcome) => accept_keys(service, actor, name, outcome).await,
        Err(error) => {
            record_failure(service, name, &error).await?;
            Err(error)
        }
    }
}

/// Returns each issuer of the configuration with its record.
pub async fn list_issuers(
    service: &Service,
) -> Result<Vec<(config::Issuer, Option<IssuerRecord>)>, StoreError> {
    let mut known = issuers::list(&mut service.store.reader().await?).await?;
    let configured = service.config.issuers.iter().map(|issuer| {
        let at = known.iter().position(|record| record.issuer == issuer.issuer);
        (issuer.clone(), at.map(|at| known.swap_remove(at)))
    });
    Ok(configured.collect())
}

/// Reserves the fetch for this replica. Returns `None` if no refresh is due.
async fn claim_refresh(
    service: &Service,
    name: &str,
    mode: RefreshMode,
    min_refresh: u64,
) -> Result<Option<IssuerRecord>, RefreshError> {
    let now = service.now().seconds();
    let found = issuers::find(&mut service.store.reader().await?, name).await?;
    if mode == RefreshMode::IfDue && found.as_ref().is_some_and(|record| record.due_at > now) {
        return Ok(None);
    }
    let tried = found.and_then(|record| record.tried_at).unwrap_or_default();
    let seconds = now.since(tried);
    // Checked without a transaction that writes, because clients can cause this.
    if mode == RefreshMode::MissingKey && tried > UnixSeconds::EPOCH && seconds < min_refresh {
        return Err(RefreshError::TooSoon { seconds });
    }
    let mut upkeep = service.upkeep().await?;
    // A command may refresh an issuer before a server has added it.
    issuers::add(upkeep.db(), name, now).await?;
    let (tried_before, due_before) = match mode {
        RefreshMode::IfDue => (now, now),
        RefreshMode::Immediately | RefreshMode::MissingKey => {
            (now.saturating_sub(min_refresh), NEVER_EXPIRES)
        }
        RefreshMode::FileChanged => (now, NEVER_EXPIRES),
    };
    let claimed = issuers::claim(
        upkeep.db(),
        name,
        now,
        tried_before,
        due_before,
        now.saturating_add(FETCH_LEASE_SECS),
    )
    .await?;
    let record = issuers::find(upkeep.db(), name).await?;
    if claimed {
        upkeep.commit().await?;
        return Ok(record);
    }
    match (mode, record.and_then(|record| record.tried_at)) {
        (RefreshMode::Immediately | RefreshMode::MissingKey, Some(tried)) => {
            Err(RefreshError::TooSoon { seconds: now.since(tried) })
        }
        _ => Ok(None),
    }
}

/// The result of a fetch.
struct FetchedKeys {
    /// The keys; `None` if they have not changed.
    parsed: Option<ParsedJwks>,
    tag: Option<String>,
    fresh_for: u64,
}

async fn fetch_keys(
    service: &Service,
    fetcher: &Fetcher,
    issuer: &config::Issuer,
    known: &IssuerRecord,
) -> Result<FetchedKeys, RefreshError> {
    let folder = service.data_dir.path();
    match fetcher.fetch(issuer, folder, known.tag.as_deref()).await.map_err(RefreshError::Fetch)? {
        FetchOutcome::NotModified { fresh_for } => {
            Ok(FetchedKeys { parsed: None, tag: known.tag.clone(), fresh_for: fresh_for.as_secs() })
        }
        FetchOutcome::Keys { body, tag, fresh_for } => {
            let parsed = jwks::parse(&body, issuer).map_err(RefreshError::Jwks)?;
            Ok(FetchedKeys { parsed: Some(parsed), tag, fresh_for: fresh_for.as_secs() })
        }
    }
}

async fn accept_keys(
    service: &Service,
    actor: &Actor,
    name: &str,
    outcome: FetchedKeys,
) -> Result<RefreshOutcome, RefreshError> {
    let FetchedKeys { parsed, tag, fresh_for } = outcome;
    let mut change = service.change(actor).await?;
    let (version, now) = (change.version(), change.now());
    let all = issuers::list(change.db()).await?;
    // A server with a newer configuration may have removed the issuer in between.
    let Some(mut record) = all.iter().find(|record| record.issuer == name).cloned() else {
        return Ok(RefreshOutcome::Same);
    };
    let ParsedJwks { keys, skipped } =
        parsed.unwrap_or_else(|| ParsedJwks { keys: record.keys.clone(), skipped: record.skipped.clone() });
    let others = all.iter().filter(|other| other.issuer != name);
    if others.map(|other| encoded_size(&other.issuer, &other.keys)).sum::<usize>() + encoded_size(name, &keys)
        > MAX_KEY_BYTES
    {
        drop(change);
        let error = RefreshError::TooLarge;
        record_failure(service, name, &error).await?;
        return Err(error);
    }
    let changed = keys != record.keys;
    log_keys(name, &keys, &skipped, &record);
    let before: Vec<_> = record.keys.iter().map(|key| key.kid.clone()).collect();
    record.keys = keys;
    (record.skipped, record.tag, record.fetched_at) = (skipped, tag, Some(now.seconds()));
    record.due_at = now.seconds().saturating_add(fresh_for);
    (record.failures, record.error) = (0, None);
    issuers::update(change.db(), &record).await?;
    if changed {
        key_set::set_version(change.db(), version).await?;
        let after = record.keys.iter().map(|key| key.kid.clone()).collect();
        let version =
            change.commit(Event::IssuerKeysChanged { issuer: name.to_owned(), before, after }).await?;
        return Ok(RefreshOutcome::Changed(version));
    }
    save_without_new_version(service, change, &record).await?;
    Ok(RefreshOutcome::Same)
}

/// Logs the keys that are left out, and what large keys cost, if either is new.
fn log_keys(issuer: &str, keys: &[IssuerKey], skipped: &[String], before: &IssuerRecord) {
    if skipped != before.skipped {
        for key in skipped {
            match jwks::is_for_another_purpose(key) {
                true => tracing::debug!(issuer.name = issuer, key.reason = key, "a key is left out"),
                false => tracing::warn!(issuer.name = issuer, key.reason = key, "a key is left out"),
            }
        }
    }
    for cost in keys.iter().filter(|key| !before.keys.contains(key)).filter_map(IssuerKey::cost) {
        tracing::warn!(issuer.name = issuer, key.cost = cost, "a large key is used");
    }
}

/// Saves a record that does not change the bundle: the transaction with the new version is rolled back first.
async fn save_without_new_version(
    service: &Service,
    change: Change<'_>,
    record: &IssuerRecord,
) -> Result<(), StoreError> {
    drop(change);
    let mut upkeep = service.upkeep().await?;
    issuers::update(upkeep.db(), record).await?;
    upkeep.commit().await
}

/// Records a failure.
async fn record_failure(service: &Service, name: &str, error: &RefreshError) -> Result<(), StoreError> {
    let now = service.now().seconds();
    let mut upkeep = service.upkeep().await?;
    let Some(mut record) = issuers::find(upkeep.db(), name).await? else { return Ok(()) };
    record.failures = record.failures.saturating_add(1);
    record.error = Some(error.to_string());
    record.due_at = now.saturating_add(backoff(record.failures));
    issuers::update(upkeep.db(), &record).await?;
    upkeep.commit().await
}

/// Returns the delay after a number of failures, in seconds: it doubles with each failure, with a jitter of a quarter.
fn backoff(failures: u64) -> u64 {
    let doublings = u32::try_from(failures.saturating_sub(1)).unwrap_or(u32::MAX).min(16);
    let usual = MIN_RETRY_DELAY_SECS.saturating_mul(1 << doublings).min(MAX_RETRY_DELAY_SECS);
    let [spread] = *random::bytes::<1>();
    usual + usual * u64::from(spread) / 1024
}

/// Returns the size of keys in a bundle: lengths, names and key material, where each key repeats the issuer.
fn encoded_size(issuer: &str, keys: &[IssuerKey]) -> usize {
    keys.iter().map(|key| 5 + issuer.len() + key.kid.len() + key.key.len() * 3 / 4).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_grows_with_failures() {
        for (failures, least) in [(1, 5), (2, 10), (3, 20), (8, 640), (9, 900), (1_000_000, 900)] {
            for _ in 0..50 {
                let pause = backoff(failures);
                assert!((least..=least + least / 4).contains(&pause), "{failures}: {pause}");
            }
        }
    }
}
