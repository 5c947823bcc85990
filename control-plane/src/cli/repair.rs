use std::fmt::Write as _;

use clap::Args;
use serde_json::{Value, json};

use super::{Failure, Global, confirmed, hint, show};
use crate::{
    clock,
    model::{Actor, FoundGap},
    operations::{self, Examined, Missing, Repaired, Service, Started, WentBack},
};

#[derive(Debug, Args)]
pub(super) struct Restore {
    /// Repair the database of this installation after it was restored from a backup: refuse again what was revoked and
    /// deleted since the backup, and refuse what was issued since then
    #[arg(long, required = true)]
    repair: bool,
    /// When the backup was made (Unix time in seconds): what was issued since then and is not in the database is
    /// refused. Without it the journal tells
    #[arg(long, value_name = "SECONDS")]
    since: Option<u64>,
    /// There is no journal, or it was restored too: refuse everything that was ever issued, delete every AuthKey and
    /// replace all keys that tokens and API keys are made with
    #[arg(long, conflicts_with = "since")]
    everything: bool,
    /// Do it without asking back
    #[arg(long)]
    yes: bool,
}

impl Restore {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        let Self { repair: _, since, everything, yes } = self;
        let (home, config) = (global.home(), global.settings()?);
        if everything {
            confirmed(
                yes,
                "refuse every token and API key that was ever issued, those of other issuers too, delete every AuthKey, \
                 and replace all signing keys; each customer then needs new ones",
            )?;
            let service = Service::open(home, config).await?;
            let (version, auth_keys) = operations::refuse_everything(&service, &Actor::Admin).await?;
            global.print(&json!({ "version": version, "auth_keys_deleted": auth_keys }), || {
                format!("everything is refused that was issued until now; {auth_keys} AuthKeys were deleted")
            })?;
            hint("Edges that were removed since the backup are there again: see `keystile edge list`.");
            hint("Make new AuthKeys: `keystile authkey create`.");
            return Ok(());
        }
        if !yes {
            let examined = operations::examine(&home, &config, clock::now()).await?;
            return plan(&examined, since);
        }
        let service = Service::open(home, config).await?;
        let started = since.map_or(Started::Found, Started::At);
        let done = operations::repair(&service, &Actor::Admin, started).await?;
        report(global, &done)
    }
}

fn plan(examined: &Examined, since: Option<u64>) -> Result<(), Failure> {
    let Examined { missing, gaps, known } = examined;
    let mut text = String::new();
    match missing {
        None => hint(
            "There is no journal beside the keys: nothing tells what was revoked since the backup. If the journal is \
             lost, `keystile restore --repair --everything` is the way to be sure.",
        ),
        Some(Missing { revoked, watermarks, gone, unrevoked, granted, .. }) => {
            let counts = [
                (revoked.len(), "revocations"),
                (watermarks.len(), "watermarks"),
                (gone.len(), "deletions"),
                (unrevoked.len(), "revocations that had been taken back"),
                (granted.len(), "users whose permissions had changed"),
            ];
            for (count, what) in counts.into_iter().filter(|(count, _)| *count > 0) {
                let _ = write!(text, "; take up {count} {what} of the journal");
            }
        }
    }
    let found = missing.as_ref().and_then(|missing| missing.went_back);
    let after = since
        .map(|since| since.saturating_sub(1))
        .or(found.map(|WentBack { issued_after }| issued_after))
        .or(gaps.iter().find(|gap| gap.version.is_none()).map(|gap| gap.issued_after));
    match after {
        Some(after) => {
            let after = show::optional_seconds(Some(after));
            let _ = write!(
                text,
                "; refuse every token and API key that was issued after {after} and is not in the database \
                 ({known} are)"
            );
        }
        None if text.is_empty() => {
            hint(
                "As far as the journal tells the database was not restored, or was repaired before: there is nothing \
                 to do. If it was restored, name when the backup was made: --since SECONDS.",
            );
            return Ok(());
        }
        None => {}
    }
    confirmed(false, text.trim_start_matches("; "))
}

fn report(global: &Global, done: &Repaired) -> Result<(), Failure> {
    let Repaired { version, gaps, known, unrevoked, granted, strange_keys } = done;
    let spans: Vec<Value> = gaps
        .iter()
        .map(|FoundGap { issued_after, issued_until, .. }| {
            json!({ "issued_after": issued_after, "issued_until": issued_until })
        })
        .collect();
    let data = json!({
        "repaired": version.is_some(),
        "version": version,
        "gaps": spans,
        "known": known,
        "unrevoked": unrevoked.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "permissions_changed": granted,
        "unknown_keys": strange_keys,
    });
    global.print(&data, || match version {
        None => "nothing is left to repair".to_owned(),
        Some(version) => {
            let mut text = format!("repaired: edges know it from version {version} on\n");
            for FoundGap { issued_after, issued_until, .. } in gaps {
                let (after, until) =
                    (show::optional_seconds(Some(*issued_after)), show::optional_seconds(Some(*issued_until)));
                let _ = writeln!(
                    text,
                    "refused: what was issued after {after} until {until}, but for {known} that the database knows"
                );
            }
            for fingerprint in unrevoked {
                let _ = writeln!(text, "no longer revoked, as before the loss: {fingerprint}");
            }
            text
        }
    })?;
    if !granted.is_empty() {
        hint(format_args!(
            "Permissions had changed since the backup, and may be wider again: {}. See `keystile permission show`.",
            granted.join(", ")
        ));
    }
    if !strange_keys.is_empty() {
        hint(format_args!(
            "These files in keys/ belong to keys that the database does not know; remove them: {}.",
            strange_keys.iter().map(|kid| format!("{kid}.jwk")).collect::<Vec<_>>().join(", ")
        ));
    }
    if version.is_some() {
        hint(
            "Operators, users, AuthKeys, API keys and edges that were made since the backup are gone: make them anew.",
        );
    }
    Ok(())
}
