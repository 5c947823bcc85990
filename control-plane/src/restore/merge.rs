//! Applies the journal to a store that was rolled back.

use super::{
    compare::{MissingEntries, find_missing_entries},
    queries as gaps,
};
use crate::{
    accounts::{
        delete_operator::delete_operator,
        delete_user::{CreatedKeysPolicy, delete_user},
        operators, users,
    },
    credentials::{
        api_keys::{self, DISABLED, EXPIRED, ROTATED},
        auth_keys, coverage,
        tokens::mint::MAX_ISSUE_SKEW_SECS,
    },
    db::{NEVER_EXPIRES, Store, Write},
    domain::{
        Actor, ApiKeyState, Event, IssuanceGap, Revocation, SigningKeyState, Subject, Tombstone,
        TombstoneKind, UnixMillis, Version,
    },
    edges,
    journal::{Journal, tombstones},
    keys::{
        key_set, keyring as keys,
        signing::{SigningKeyError, retire_key},
        signing_keys, tag_keys,
    },
    platform::data_dir::DataDir,
    revocation::{
        revocations::{self, RevokeOutcome},
        watermarks,
    },
    service::{OpenError, Service},
};

/// The result of a merge.
#[derive(Debug)]
pub(crate) struct Merged {
    /// Accounts and keys that remain to be deleted, each in a transaction of its own: see [`repeat_deletion`].
    pub(crate) pending: Vec<Tombstone>,
}

/// Applies the revocations and deletions of the journal that the store lacks. A merge only refuses credentials, so each
/// server does it before it publishes. A second merge changes nothing.
pub(crate) async fn merge_journal(
    store: &Store,
    data_dir: &DataDir,
    journal: &Journal,
    now: UnixMillis,
) -> Result<Merged, OpenError> {
    let nothing = Merged { pending: Vec::new() };
    let Some(recorded) = journal.read().await.map_err(OpenError::Journal)? else { return Ok(nothing) };
    let missing = find_missing_entries(&mut store.read().await?, &recorded).await?;
    if missing.has_no_refusals() {
        resume_journal_after(journal, &missing);
        return Ok(nothing);
    }
    let mut draft = store.draft_unanchored(&Actor::System, || now).await?;
    // Another server may have merged the journal before this one got the lock.
    let missing = find_missing_entries(draft.db(), &recorded).await?;
    if missing.has_no_refusals() {
        resume_journal_after(journal, &missing);
        return Ok(nothing);
    }
    // The version is above every version in a journal, so later revocations have versions that no journal contains.
    let above = UnixMillis::from_millis(now.millis().max(missing.newest.next().get()));
    let version = draft.version_above(missing.newest).await?;
    let MissingEntries { revoked, watermarks, gone, rollback, known, is_continued, .. } = missing;
    for revocation in &revoked {
        let Revocation { fingerprint, reason, revoked_at, .. } = revocation;
        match revocations::insert(draft.db(), revocation, version).await? {
            RevokeOutcome::Revoked => {}
            RevokeOutcome::AlreadyRevoked => {
                revocations::update_reason(draft.db(), fingerprint, reason.as_deref(), *revoked_at, version)
                    .await?;
            }
            RevokeOutcome::PrefixTaken => tracing::error!(
                %fingerprint,
                "a revocation in the journal has the same fingerprint prefix as another credential; it is ignored"
            ),
        }
        // The state of an API key follows the reason: a disabled key can be enabled again, a revoked one cannot.
        if let Some(key) = api_keys::find_by_fingerprint(draft.db(), fingerprint).await? {
            let state = match reason.as_deref() {
                Some(DISABLED) => ApiKeyState::Disabled,
                Some(EXPIRED | ROTATED) => ApiKeyState::Expired,
                _ => ApiKeyState::Active,
            };
            api_keys::set_state(draft.db(), key.id, key.state, state).await?;
        }
    }
    for watermark in &watermarks {
        watermarks::raise(draft.db(), watermark, version).await?;
    }
    let pending = apply_tombstones(draft.db(), data_dir, &gone, version, above).await?;
    if let Some(rollback) = rollback {
        let gap = IssuanceGap {
            issued_after: rollback.issued_after,
            issued_until: now.seconds().saturating_add(MAX_ISSUE_SKEW_SECS),
            found_at: now.seconds(),
            version: None,
        };
        gaps::insert(draft.db(), &gap).await?;
    }
    let event = Event::JournalMerged {
        revocations: revoked.len(),
        watermarks: watermarks.len(),
        deletions: gone.len(),
        issued_after: rollback.map(|rollback| rollback.issued_after),
    };
    draft.commit(event).await?;
    if !is_continued {
        journal.resume_after(known);
    }
    tracing::error!(
        bundle.version = version.get(),
        merged.revocations = revoked.len(),
        merged.watermarks = watermarks.len(),
        merged.deletions = gone.len(),
        "the database is older than the journal: it was restored from a backup. The revocations since the backup were \
         applied again; run `keystile restore --repair` to refuse the credentials that were issued since"
    );
    Ok(Merged { pending })
}

/// Merges the journal into a store that was rolled back under a running server. Deleted accounts that the store has again
/// are deleted when a server starts; their credentials are refused already.
pub(crate) async fn refuse_after_restore(
    store: &Store,
    data_dir: &DataDir,
    journal: &Journal,
    now: UnixMillis,
) -> Result<(), OpenError> {
    merge_journal(store, data_dir, journal, now).await.map(drop)
}

/// Continues the journal in the merged store.
fn resume_journal_after(journal: &Journal, missing: &MissingEntries) {
    if !missing.is_continued {
        journal.resume_after(missing.known);
    }
}

/// Deletes the items of tombstones that the store has again. Returns those that need a transaction of their own.
async fn apply_tombstones(
    write: &mut Write,
    data_dir: &DataDir,
    gone: &[Tombstone],
    version: Version,
    now: UnixMillis,
) -> Result<Vec<Tombstone>, OpenError> {
    let mut pending = Vec::new();
    for tombstone in gone {
        let Tombstone { kind: gone, id, at } = tombstone;
        let is_pending = match gone {
            TombstoneKind::Operator => match id.parse() {
                Ok(operator) => operators::exists(write, &operator).await?,
                Err(_) => false,
            },
            TombstoneKind::User => match id.parse() {
                Ok(Subject { operator, user: Some(user) }) => {
                    users::find(write, &operator, &user).await?.is_some_and(|user| user.created_at <= *at)
                }
                _ => false,
            },
            TombstoneKind::TagKey => {
                tag_keys::list(write).await?.iter().any(|generation| generation.number.to_string() == *id)
            }
            TombstoneKind::AuthKey => {
                if let Ok(id) = id.parse() {
                    auth_keys::delete(write, &id).await?;
                }
                false
            }
            TombstoneKind::Edge => {
                if let Some(edge) = edges::find_by_hash(write, id).await? {
                    edges::delete(write, &edge).await?;
                }
                false
            }
            TombstoneKind::EdgeCredentialEnd => {
                edges::repeat_end(write, id, *at, now.seconds()).await?;
                false
            }
            TombstoneKind::ApiKey | TombstoneKind::ApiKeyEnd => {
                let found = match id.parse() {
                    Ok(fingerprint) => api_keys::find_by_fingerprint(write, &fingerprint).await?,
                    Err(_) => None,
                };
                match found {
                    Some(key) if *gone == TombstoneKind::ApiKey => {
                        api_keys::delete(write, key.id).await?;
                    }
                    Some(key) => api_keys::expire_at(write, key.id, *at).await?,
                    None => {}
                }
                false
            }
            TombstoneKind::SigningKey => {
                retire_signing_key(write, data_dir, id, version, now).await?;
                false
            }
        };
        if is_pending {
            pending.push(tombstone.clone());
        } else {
            tombstones::insert_from_journal(write, tombstone).await?;
        }
    }
    Ok(pending)
}

/// Retires a signing key again, before any key file is opened: the file of a retired key does not exist any more. Creates
/// a new active key if none is left.
async fn retire_signing_key(
    write: &mut Write,
    data_dir: &DataDir,
    kid: &str,
    version: Version,
    now: UnixMillis,
) -> Result<(), OpenError> {
    let records = signing_keys::list(write).await?;
    let Some(retired) = records.iter().find(|record| record.kid == kid) else { return Ok(()) };
    coverage::raise_floor(write, &[kid.to_owned()], NEVER_EXPIRES).await?;
    let others = records.iter().any(|other| other.kid != kid && other.state == SigningKeyState::Active);
    if !others {
        let key = keys::create_signing_key(data_dir, retired.algorithm, SigningKeyState::Active)
            .map_err(OpenError::Keys)?;
        let newest = signing_keys::newest_created_at(write).await?.unwrap_or_default();
        signing_keys::insert(write, &key, now.seconds().max(newest.saturating_add(1))).await?;
        signing_keys::activate(write, &key.kid).await?;
        let replaced: Vec<String> = records.iter().map(|record| record.kid.clone()).collect();
        coverage::raise_floor(write, &replaced, NEVER_EXPIRES).await?;
    }
    signing_keys::delete(write, kid).await?;
    key_set::set_version(write, version).await?;
    Ok(())
}

/// Deletes users and operators, and retires tag keys, that the store has again.
pub(crate) async fn repeat_deletion(service: &Service, pending: &[Tombstone]) -> Result<(), OpenError> {
    for Tombstone { kind: gone, id, .. } in pending {
        let failed = |error: String| OpenError::Merge { what: id.clone(), error };
        match gone {
            TombstoneKind::Operator => {
                if let Ok(operator) = id.parse() {
                    delete_operator(service, &Actor::System, &operator)
                        .await
                        .map_err(|error| failed(error.to_string()))?;
                }
            }
            TombstoneKind::User => {
                if let Ok(subject) = id.parse() {
                    // The user may have been deleted with its operator.
                    match delete_user(service, &Actor::System, &subject, CreatedKeysPolicy::Keep).await {
                        Ok(_) | Err(crate::accounts::AccountError::UserUnknown(_)) => {}
                        Err(error) => return Err(failed(error.to_string())),
                    }
                }
            }
            TombstoneKind::TagKey => match retire_key(service, &Actor::System, &format!("tag-{id}")).await {
                Ok(_) | Err(SigningKeyError::Unknown(_)) => {}
                Err(error) => return Err(failed(error.to_string())),
            },
            TombstoneKind::AuthKey
            | TombstoneKind::ApiKey
            | TombstoneKind::ApiKeyEnd
            | TombstoneKind::Edge
            | TombstoneKind::EdgeCredentialEnd
            | TombstoneKind::SigningKey => {}
        }
    }
    Ok(())
}
