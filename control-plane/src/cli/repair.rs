use std::fmt::Write as _;

use clap::Args;
use serde_json::{Value, json};

use super::{CliError, Global, hint, output, require_yes};
use crate::{
    domain::{Actor, IssuanceGap, UnixSeconds},
    platform::clock,
    restore::{self, DatabaseExamination, GapStart, MissingEntries, RepairOutcome, StoreRollback},
    service::Service,
};

#[derive(Debug, Args)]
pub(super) struct Restore {
    /// Repair the database after it was restored from a backup: repeat the revocations and deletions since the backup,
    /// and refuse credentials that were issued since then
    #[arg(long, required = true)]
    repair: bool,
    /// The time of the backup (Unix time in seconds). Credentials issued since then that are not in the database are
    /// refused. By default the journal determines the time
    #[arg(long, value_name = "SECONDS")]
    since: Option<UnixSeconds>,
    /// Revoke everything that was ever issued, delete every AuthKey and replace all keys that tokens and API keys are
    /// made with, because the journal is lost or was restored too
    #[arg(long, conflicts_with = "since")]
    everything: bool,
    /// Confirm the repair
    #[arg(long)]
    yes: bool,
}

impl Restore {
    pub(super) async fn run(self, global: &Global) -> Result<(), CliError> {
        let Self { repair: _, since, everything, yes } = self;
        let (data_dir, config) = (global.data_dir(), global.settings()?);
        if everything {
            require_yes(
                yes,
                "revoke every token and API key that was ever issued, including those of other issuers, delete every \
                 AuthKey, and replace all signing keys; every client then needs new credentials",
            )?;
            let service = Service::open(data_dir, config).await?;
            let (version, auth_keys) = restore::refuse_everything(&service, &Actor::Admin).await?;
            global.print(&json!({ "version": version, "auth_keys_deleted": auth_keys }), || {
                format!("everything that was issued until now is revoked; {auth_keys} AuthKeys were deleted")
            })?;
            hint("Edges that were removed since the backup exist again: see `keystile edge list`.");
            hint("Create new AuthKeys: `keystile authkey create`.");
            return Ok(());
        }
        if !yes {
            let examined = restore::examine_database(&data_dir, &config, clock::now()).await?;
            return print_plan(&examined, since);
        }
        let service = Service::open(data_dir, config).await?;
        let started = since.map_or(GapStart::AsFound, GapStart::At);
        let done = restore::repair_database(&service, &Actor::Admin, started).await?;
        print_report(global, &done)
    }
}

fn print_plan(examined: &DatabaseExamination, since: Option<UnixSeconds>) -> Result<(), CliError> {
    let DatabaseExamination { missing, gaps, known } = examined;
    let mut text = String::new();
    match missing {
        None => hint(
            "There is no journal in `keys/`, so the revocations since the backup are unknown. If the journal is lost, only \
             `keystile restore --repair --everything` is safe.",
        ),
        Some(MissingEntries { revoked, watermarks, gone, unrevoked, taken_back, granted, .. }) => {
            let counts = [
                (revoked.len(), "revocations"),
                (watermarks.len(), "watermarks"),
                (gone.len(), "deletions"),
                (unrevoked.len().saturating_add(taken_back.len()), "un-revocations"),
                (granted.len(), "users whose permissions had changed"),
            ];
            for (count, what) in counts.into_iter().filter(|(count, _)| *count > 0) {
                let _ = write!(text, "; apply {count} {what} of the journal");
            }
        }
    }
    let found = missing.as_ref().and_then(|missing| missing.rollback);
    let after = since
        .map(|since| since.saturating_sub(1))
        .or(found.map(|StoreRollback { issued_after }| issued_after))
        .or(gaps.iter().find(|gap| gap.version.is_none()).map(|gap| gap.issued_after));
    match after {
        Some(after) => {
            let after = output::format_optional_seconds(Some(after));
            let _ = write!(
                text,
                "; refuse every token and API key that was issued after {after} and is not in the database ({known} \
                 are)"
            );
        }
        None if text.is_empty() => {
            hint(
                "According to the journal, the database was not restored or is already repaired: there is nothing to do. \
                 If it was restored, pass the time of the backup: --since SECONDS.",
            );
            return Ok(());
        }
        None => {}
    }
    require_yes(false, text.trim_start_matches("; "))
}

fn print_report(global: &Global, done: &RepairOutcome) -> Result<(), CliError> {
    let RepairOutcome { version, gaps, known, unrevoked, taken_back, granted, unknown_key_files } = done;
    let spans: Vec<Value> = gaps
        .iter()
        .map(|IssuanceGap { issued_after, issued_until, .. }| {
            json!({ "issued_after": issued_after, "issued_until": issued_until })
        })
        .collect();
    let data = json!({
        "repaired": version.is_some(),
        "version": version,
        "gaps": spans,
        "known": known,
        "unrevoked": unrevoked.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "taken_back": taken_back.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "permissions_changed": granted,
        "unknown_keys": unknown_key_files,
    });
    global.print(&data, || match version {
        None => "nothing to repair".to_owned(),
        Some(version) => {
            let mut text = format!("repaired: edges apply this from version {version} on\n");
            for IssuanceGap { issued_after, issued_until, .. } in gaps {
                let (after, until) =
                    (output::format_optional_seconds(Some(*issued_after)), output::format_optional_seconds(Some(*issued_until)));
                let _ = writeln!(
                    text,
                    "refused: credentials issued after {after} until {until}, except {known} that the database contains"
                );
            }
            for fingerprint in unrevoked {
                let _ = writeln!(text, "no longer revoked, as before the restore: {fingerprint}");
            }
            for scope in taken_back {
                let _ = writeln!(text, "no longer revoked, as before the restore: {scope}");
            }
            text
        }
    })?;
    if !granted.is_empty() {
        hint(format_args!(
            "Permissions of these subjects changed after the backup and may be wider again: {}. See `keystile user permission \
             show`.",
            granted.join(", ")
        ));
    }
    if !unknown_key_files.is_empty() {
        hint(format_args!(
            "These files in keys/ belong to keys that are not in the database; remove them: {}.",
            unknown_key_files.iter().map(|kid| format!("{kid}.jwk")).collect::<Vec<_>>().join(", ")
        ));
    }
    if version.is_some() {
        hint(
            "Operators, users, AuthKeys, API keys and edges that were created since the backup are lost: create them again.",
        );
    }
    Ok(())
}
