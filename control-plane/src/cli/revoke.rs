use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use token::Fingerprint;

use super::{Failure, Global, UNENFORCED, confirmed, credential, hint, show};
use crate::{
    config::Period,
    model::{Actor, EdgeId, KeyId, Subject},
    operations::{self, Authority, Reached, Target, What},
};

#[derive(Debug, Args)]
pub(super) struct Revoke {
    #[command(flatten)]
    what: Selected,
    /// With --subject: only what was issued up to this second (Unix time); now without it
    #[arg(long, value_name = "SECONDS", requires = "subject")]
    at: Option<u64>,
    /// Kept with the revocation and in the audit log
    #[arg(long)]
    reason: Option<String>,
    /// Revoke a whole subject, a signing key, or everything, without asking back
    #[arg(long)]
    yes: bool,
    /// Although another clock (the database server's, those of live edges) says that this machine's is wrong
    #[arg(long)]
    force: bool,
    /// Return when every edge that may still admit it enforces it; fail (exit code 4) and name those that do not
    #[arg(long)]
    wait: bool,
    /// With --wait: how long at most
    #[arg(long, value_name = "DURATION", default_value = "10s", requires = "wait")]
    timeout: Period,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Selected {
    /// The SHA-256 of a credential as presented, in hex
    #[arg(long, value_name = "HEX")]
    fingerprint: Option<Fingerprint>,
    /// A token or an API key: it is read from stdin, or asked for on a terminal, and never an argument
    #[arg(long, num_args = 0..=1, value_name = "-")]
    token: Option<Option<String>>,
    /// A token or an API key, read from a file
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// All that an AuthKey (keyId-...) was exchanged for, a session (api-...), or an API key (key-NUMBER)
    #[arg(long, value_name = "ID")]
    key_id: Option<KeyId>,
    /// All that an operator (OP...) or a user of it (OP.../NAME) was issued
    #[arg(long)]
    subject: Option<Subject>,
    /// All that a key signed: the `kid` of a signing key, or tag-NUMBER for the API keys made with it
    #[arg(long, value_name = "KID")]
    signing_key: Option<String>,
    /// All that was ever issued
    #[arg(long)]
    everything: bool,
}

impl Revoke {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        let Self { what, at, reason, yes, force, wait, timeout } = self;
        let Selected { fingerprint, token, token_file, key_id, subject, signing_key, everything } = what;
        let target =
            match (fingerprint, token.or(token_file.is_some().then_some(None)), key_id, subject, signing_key)
            {
                (Some(fingerprint), ..) => Target::Fingerprint(fingerprint),
                (_, Some(token), ..) => Target::Token(credential(token, token_file.as_deref())?),
                (_, _, Some(id), ..) => Target::Key(id),
                (_, _, _, Some(subject), _) => {
                    let whose = if subject.is_root() { " and all its users" } else { "" };
                    let until = at.map_or("now".to_owned(), |at| format!("second {at}"));
                    confirmed(
                        yes,
                        format_args!("refuse all that {subject}{whose} was issued up to {until}"),
                    )?;
                    Target::Subject { subject, instant: at }
                }
                (.., Some(kid)) => {
                    confirmed(yes, format_args!("refuse all that {kid} has signed"))?;
                    Target::SigningKey(kid)
                }
                _ if everything => {
                    confirmed(yes, format_args!("refuse all that was ever issued"))?;
                    Target::Everything
                }
                _ => return Err(Failure::Because("say what to revoke".to_owned())),
            };
        let auth_key = match &target {
            Target::Key(KeyId::AuthKey(id)) => Some(id.clone()),
            _ => None,
        };
        let service = global.service().await?;
        if target.is_up_to_now() && !force {
            operations::check_clock(&service).await?;
        }
        let revoked =
            operations::revoke(&service, &Actor::Admin, &Authority::Everything, target, reason.as_deref())
                .await?;
        let version = revoked.version;
        let reached = match wait {
            true => Some(operations::await_everywhere(&service, version, timeout.get()).await?),
            false => None,
        };
        let (mut data, what) = match revoked.what {
            What::Fingerprint(fingerprint) => (
                json!({ "version": version, "fingerprint": fingerprint.to_string() }),
                fingerprint.to_string(),
            ),
            What::Scope(watermark) => {
                let scope = watermark.scope.to_string();
                (json!({ "version": version, "scope": scope, "instant": watermark.instant }), scope)
            }
        };
        if let (Some(reached), Some(members)) = (&reached, data.as_object_mut()) {
            members.insert("edges".to_owned(), show::reached(reached));
        }
        let auth_key = match auth_key {
            Some(id) => operations::find_auth_key(&service, &id).await?,
            None => None,
        };
        if let Some(key) = &auth_key {
            data["auth_key"] = json!({ "still_issues": true, "last_used_at": key.last_used_at });
        }
        global.print(&data, || format!("revoked {what}"))?;
        if let Some(key) = auth_key {
            hint(format_args!(
                "What {0} was exchanged for is refused; {0} itself still buys new credentials (last used: {1}). \
                 `keystile authkey delete {0}` ends that.",
                key.id,
                show::optional_seconds(key.last_used_at)
            ));
        }
        match reached {
            // The promise of an edge comes when a server has published it.
            None => Ok(()),
            Some(reached) => told(&reached, version, timeout),
        }
    }
}

/// What the waiting came to.
fn told(reached: &Reached, version: u64, timeout: Period) -> Result<(), Failure> {
    let names = |edges: &[EdgeId]| edges.iter().map(EdgeId::as_str).collect::<Vec<_>>().join(", ");
    if !reached.silent.is_empty() {
        hint(format_args!("Not heard of for longer than a manifest is fresh: {}.", names(&reached.silent)));
    }
    if !reached.unseen.is_empty() {
        hint(format_args!("Never heard of: {}.", names(&reached.unseen)));
    }
    if reached.everywhere() {
        hint(format_args!("All {} live edges enforce version {version}.", reached.enforcing.len()));
        return Ok(());
    }
    let mut but = Vec::new();
    if !reached.lagging.is_empty() {
        let names = names(&reached.lagging);
        but.push(format!("after {timeout} these live edges do not enforce version {version} yet: {names}"));
    }
    if !reached.may_admit.is_empty() {
        let names = names(&reached.may_admit);
        but.push(format!(
            "these were heard of within publisher.outage_grace and are silent, so that they may still admit it: {names}"
        ));
    }
    if reached.enforcing.is_empty() && but.is_empty() {
        but.push(format!("no live edge enforces version {version}"));
    }
    Err(Failure::Done { code: UNENFORCED, but: format!("it is revoked, but {}", but.join("; and ")) })
}
