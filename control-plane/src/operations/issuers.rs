//! Other issuers: which there are, the settings say; what their keys are, they say themselves; what holds, the store.

use std::fmt;

use serde_json::json;

use super::Service;
use crate::{
    config,
    jwks::{self, FetchError, Fetched, Fetcher, IssuerKey, JwksError, Parsed},
    model::{Actor, IssuerRecord},
    random,
    store::{StoreError, Write, audit, issuers, key_set, versions},
};

#[derive(Debug)]
pub enum RefreshError {
    NotConfigured(String),
    /// Somebody tried a moment ago.
    TooSoon {
        seconds: u64,
    },
    Fetch(FetchError),
    Jwks(JwksError),
    /// With it, the keys of all issuers together are more than a bundle takes.
    TooLarge,
    Store(StoreError),
}

impl fmt::Display for RefreshError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotConfigured(issuer) => {
                write!(f, "`{}` is no issuer of the settings; see [[issuers]] there", issuer.escape_debug())
            }
            Self::TooSoon { seconds } => {
                write!(f, "its keys were asked for {seconds} seconds ago; wait a moment")
            }
            Self::Fetch(error) => error.fmt(f),
            Self::Jwks(error) => error.fmt(f),
            Self::TooLarge => write!(f, "the keys of all issuers together take more than {MOST_BYTES} bytes"),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for RefreshError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Store(error) => error.source(),
            _ => None,
        }
    }
}

impl From<StoreError> for RefreshError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// When a fetch is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// When it is due, by whichever replica comes first.
    Due,
    /// Now, though not again and again.
    Now,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refreshed {
    NotDue,
    /// The keys are those that were known.
    Same,
    /// Edges know other keys from this version on.
    Changed(u64),
}

/// Takes up what the settings say: a new issuer is due at once; of one that is gone, or of an algorithm that is, edges
/// keep no key.
pub async fn adopt_issuers(service: &Service) -> Result<(), StoreError> {
    let now = service.now();
    let mut write = service.store.write().await?;
    let version = versions::next(&mut write, now).await?;
    let (mut changed, mut lines) = (false, Vec::new());
    for mut record in issuers::list(&mut write).await? {
        let Some(issuer) = service.config.issuers.iter().find(|issuer| issuer.issuer == record.issuer) else {
            issuers::remove(&mut write, &record.issuer).await?;
            changed |= !record.keys.is_empty();
            lines.push(("issuer.remove", record.issuer));
            continue;
        };
        let before = record.keys.len();
        let allowed =
            |key: &IssuerKey| issuer.algorithms.iter().any(|algorithm| algorithm.0.name() == key.alg);
        record.keys.retain(allowed);
        changed |= record.keys.len() != before;
        // Its settings may be others now, so the whole set is fetched again.
        (record.tag, record.due_at) = (None, now.seconds());
        issuers::update(&mut write, &record).await?;
    }
    for issuer in &service.config.issuers {
        if issuers::add(&mut write, &issuer.issuer, now.seconds()).await? {
            lines.push(("issuer.add", issuer.issuer.clone()));
        }
    }
    if changed {
        key_set::changed(&mut write, version).await?;
    }
    let changes = lines.iter().map(|(action, target)| audit::Change {
        at: now,
        actor: &Actor::System,
        action,
        target,
        detail: json!({ "version": version }),
    });
    audit::append_all(&mut write, &changes.collect::<Vec<_>>()).await?;
    write.commit().await?;
    service.settle(version).await;
    Ok(())
}

/// Fetches the keys of an issuer. Whatever fails, the last good ones hold.
pub async fn refresh_issuer(
    service: &Service,
    fetcher: &Fetcher,
    actor: &Actor,
    name: &str,
    wanted: Wanted,
) -> Result<Refreshed, RefreshError> {
    let issuer = service.config.issuers.iter().find(|issuer| issuer.issuer == name);
    let issuer = issuer.ok_or_else(|| RefreshError::NotConfigured(name.to_owned()))?;
    let Some(record) = claim(service, name, wanted).await? else { return Ok(Refreshed::NotDue) };
    match fetch(fetcher, issuer, &record).await {
        Ok(outcome) => accept(service, actor, name, outcome).await,
        Err(error) => {
            fail(service, name, &error).await?;
            Err(error)
        }
    }
}

/// What is known of each issuer of the settings.
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

/// None where nothing is due.
async fn claim(service: &Service, name: &str, wanted: Wanted) -> Result<Option<IssuerRecord>, RefreshError> {
    let now = service.now().seconds();
    let found = issuers::find(&mut service.store.reader().await?, name).await?;
    if wanted == Wanted::Due && found.as_ref().is_some_and(|record| record.due_at > now) {
        return Ok(None);
    }
    let mut write = service.store.write().await?;
    // A command may come before the server that adopts the issuer.
    issuers::add(&mut write, name, now).await?;
    let (tried_before, due_before) = match wanted {
        Wanted::Due => (now, now),
        Wanted::Now => (now.saturating_sub(BETWEEN), u64::MAX),
    };
    let claimed =
        issuers::claim(&mut write, name, now, tried_before, due_before, now.saturating_add(CLAIM)).await?;
    let record = issuers::find(&mut write, name).await?;
    if claimed {
        write.commit().await?;
        return Ok(record);
    }
    match (wanted, record.and_then(|record| record.tried_at)) {
        (Wanted::Now, Some(tried)) => Err(RefreshError::TooSoon { seconds: now.saturating_sub(tried) }),
        _ => Ok(None),
    }
}

struct Outcome {
    /// None: those that are known.
    parsed: Option<Parsed>,
    tag: Option<String>,
    fresh_for: u64,
}

async fn fetch(
    fetcher: &Fetcher,
    issuer: &config::Issuer,
    known: &IssuerRecord,
) -> Result<Outcome, RefreshError> {
    match fetcher.fetch(issuer, known.tag.as_deref()).await.map_err(RefreshError::Fetch)? {
        Fetched::NotModified { fresh_for } => {
            Ok(Outcome { parsed: None, tag: known.tag.clone(), fresh_for: fresh_for.as_secs() })
        }
        Fetched::Keys { body, tag, fresh_for } => {
            let parsed = jwks::parse(&body, issuer).map_err(RefreshError::Jwks)?;
            Ok(Outcome { parsed: Some(parsed), tag, fresh_for: fresh_for.as_secs() })
        }
    }
}

async fn accept(
    service: &Service,
    actor: &Actor,
    name: &str,
    outcome: Outcome,
) -> Result<Refreshed, RefreshError> {
    let Outcome { parsed, tag, fresh_for } = outcome;
    let now = service.now();
    let mut write = service.store.write().await?;
    let version = versions::next(&mut write, now).await?;
    let all = issuers::list(&mut write).await?;
    // The settings may have dropped it meanwhile.
    let Some(mut record) = all.iter().find(|record| record.issuer == name).cloned() else {
        return Ok(Refreshed::Same);
    };
    let Parsed { keys, skipped } =
        parsed.unwrap_or_else(|| Parsed { keys: record.keys.clone(), skipped: record.skipped.clone() });
    let others = all.iter().filter(|other| other.issuer != name);
    if others.map(|other| size(&other.issuer, &other.keys)).sum::<usize>() + size(name, &keys) > MOST_BYTES {
        drop(write);
        let error = RefreshError::TooLarge;
        fail(service, name, &error).await?;
        return Err(error);
    }
    let changed = keys != record.keys;
    let before: Vec<_> = record.keys.iter().map(|key| key.kid.clone()).collect();
    record.keys = keys;
    (record.skipped, record.tag, record.fetched_at) = (skipped, tag, Some(now.seconds()));
    record.due_at = now.seconds().saturating_add(fresh_for);
    (record.failures, record.error) = (0, None);
    issuers::update(&mut write, &record).await?;
    if changed {
        key_set::changed(&mut write, version).await?;
        let after: Vec<_> = record.keys.iter().map(|key| key.kid.as_str()).collect();
        let detail = json!({ "before": before, "after": after, "version": version });
        let action = "issuer.keys";
        audit::append(&mut write, audit::Change { at: now, actor, action, target: name, detail }).await?;
        write.commit().await?;
        service.settle(version).await;
        return Ok(Refreshed::Changed(version));
    }
    unversioned(service, write, &record).await?;
    Ok(Refreshed::Same)
}

/// Nothing that edges need know: the version that was taken is given back.
async fn unversioned(service: &Service, write: Write, record: &IssuerRecord) -> Result<(), StoreError> {
    drop(write);
    let mut write = service.store.write().await?;
    issuers::update(&mut write, record).await?;
    write.commit().await
}

async fn fail(service: &Service, name: &str, error: &RefreshError) -> Result<(), StoreError> {
    let now = service.now().seconds();
    let mut write = service.store.write().await?;
    let Some(mut record) = issuers::find(&mut write, name).await? else { return Ok(()) };
    record.failures = record.failures.saturating_add(1);
    record.error = Some(error.to_string());
    record.due_at = now.saturating_add(backoff(record.failures));
    issuers::update(&mut write, &record).await?;
    write.commit().await
}

/// Twice as long after each failure, spread by a quarter so that many do not come back together.
fn backoff(failures: u64) -> u64 {
    let doublings = u32::try_from(failures.saturating_sub(1)).unwrap_or(u32::MAX).min(16);
    let usual = FIRST_RETRY.saturating_mul(1 << doublings).min(LAST_RETRY);
    let [spread] = *random::bytes::<1>();
    usual + usual * u64::from(spread) / 1024
}

/// In a bundle: lengths, names and key, the names once for each key.
fn size(issuer: &str, keys: &[IssuerKey]) -> usize {
    keys.iter().map(|key| 5 + issuer.len() + key.kid.len() + key.key.len() * 3 / 4).sum()
}

/// Of the 64 KiB of an object; the rest is for our own keys.
const MOST_BYTES: usize = 56 * 1024;

/// How long one attempt may take until another replica may try.
const CLAIM: u64 = 60;

/// An unknown `kid` must not make us ask an issuer more often.
const BETWEEN: u64 = 10;

const FIRST_RETRY: u64 = 5;
const LAST_RETRY: u64 = 900;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_space_out() {
        for (failures, least) in [(1, 5), (2, 10), (3, 20), (8, 640), (9, 900), (1_000_000, 900)] {
            for _ in 0..50 {
                let pause = backoff(failures);
                assert!((least..=least + least / 4).contains(&pause), "{failures}: {pause}");
            }
        }
    }
}
