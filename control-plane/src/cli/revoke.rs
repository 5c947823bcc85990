use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use token::Fingerprint;

use super::{CliError, EXIT_NOT_ENFORCED, Global, hint, output, read_credential, require_yes};
use crate::{
    config::ConfigDuration,
    credentials::auth_keys,
    domain::{
        Actor, AnySubject, EdgeId, ForeignName, IssuerName, RevocableKeyId, UnixSeconds, Version,
        WatermarkScope,
    },
    edges::{self, RolloutStatus},
    maintenance,
    revocation::{self, AccessScope, RevocationOutcome, RevocationTarget, RevokeError},
    service::Service,
};

/// What is revoked regardless of its date, or up to now only.
const NOT_UP_TO_A_TIME: [&str; 8] =
    ["fingerprint", "token", "token_file", "key_id", "session", "token_id", "signing_key", "everything"];

#[derive(Debug, Args)]
pub(super) struct Revoke {
    #[command(flatten)]
    what: RevocationSelector,
    /// With --subject, --client or --issuer: revoke only what was issued up to this time (Unix time in seconds); by default
    /// now
    #[arg(long, value_name = "SECONDS", conflicts_with_all = NOT_UP_TO_A_TIME)]
    at: Option<UnixSeconds>,
    /// The reason, stored with the revocation and in the audit log
    #[arg(long)]
    reason: Option<String>,
    /// Confirm the revocation of a subject, a client, an issuer, a signing key, or everything
    #[arg(long)]
    yes: bool,
    /// Revoke even if another clock (the database server's or a live edge's) contradicts the clock of this machine
    #[arg(long)]
    force: bool,
    /// Wait until every edge that may still admit the credential enforces the revocation; else fail (exit code 4) and
    /// name the other edges
    #[arg(long)]
    wait: bool,
    /// With --wait: the maximum time to wait
    #[arg(long, value_name = "DURATION", default_value = "10s", requires = "wait")]
    timeout: ConfigDuration,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct RevocationSelector {
    /// The SHA-256 of a credential as presented, in hex
    #[arg(long, value_name = "HEX")]
    fingerprint: Option<Fingerprint>,
    /// A token or an API key, read from stdin or prompted for on a terminal; never an argument. `Bearer` in front of it is
    /// left out
    #[arg(long, num_args = 0..=1, value_name = "-")]
    token: Option<Option<String>>,
    /// A token or an API key, read from a file
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// All credentials that an AuthKey (keyId-...) was exchanged for, a session (api-...), or an API key (key-NUMBER)
    #[arg(long, value_name = "ID")]
    key_id: Option<RevocableKeyId>,
    /// All credentials of an operator (OP...), a user (OP.../NAME), or a subject of another issuer (ISSUER#SUBJECT)
    #[arg(long)]
    subject: Option<AnySubject>,
    /// All tokens of a session of another issuer, of any date: ISSUER#SESSION, by the claim `sid` or `session_state`
    #[arg(long, value_name = "ISSUER#SESSION")]
    session: Option<ForeignName>,
    /// One token of another issuer: ISSUER#ID, by the claim `jti` or `uti`
    #[arg(long, value_name = "ISSUER#ID")]
    token_id: Option<ForeignName>,
    /// All tokens of a client of another issuer: ISSUER#CLIENT, by the claim `client_id`, `azp`, `cid` or `appid`
    #[arg(long, value_name = "ISSUER#CLIENT")]
    client: Option<ForeignName>,
    /// All tokens of another issuer, by the claim `iss` or, with named parts, by the issuer as in the policy
    #[arg(long)]
    issuer: Option<IssuerName>,
    /// All credentials of a key: the `kid` of a signing key, or tag-NUMBER for the API keys made with it
    #[arg(long, value_name = "KID")]
    signing_key: Option<String>,
    /// All credentials that were ever issued
    #[arg(long)]
    everything: bool,
}

impl Revoke {
    pub(super) async fn run(self, global: &Global) -> Result<(), CliError> {
        let Self { what, at, reason, yes, force, wait, timeout } = self;
        let target = what.target(at, yes)?;
        let auth_key = match &target {
            RevocationTarget::Key(RevocableKeyId::AuthKey(id)) => Some(id.clone()),
            _ => None,
        };
        let presented = match &target {
            RevocationTarget::Token(text) => Some(Fingerprint::digest(text.as_bytes())),
            _ => None,
        };
        let service = global.service().await?;
        if target.is_up_to_now() && !force {
            maintenance::check_clock(&service).await?;
        }
        if let RevocationTarget::Foreign { scope, .. } = &target {
            hint_at_unknown_issuer(&service, scope);
        }
        let everything = AccessScope::Everything;
        let revoked =
            revocation::revoke(&service, &Actor::Admin, &everything, target, reason.as_deref()).await;
        let revoked = match (revoked, presented) {
            (Err(error @ RevokeError::TokenKeyUnknown), Some(fingerprint)) => {
                return Err(CliError::Message(format!(
                    "{error}; if it is a token of another issuer, revoke it by its id (--token-id) or by its fingerprint: \
                     --fingerprint {fingerprint}"
                )));
            }
            (revoked, _) => revoked?,
        };
        let version = revoked.version;
        let reached = match wait {
            true => Some(edges::await_all_edges(&service, version, timeout.get()).await?),
            false => None,
        };
        let (mut data, what) = match revoked.outcome {
            RevocationOutcome::Fingerprint(fingerprint) => (
                json!({ "version": version, "fingerprint": fingerprint.to_string() }),
                fingerprint.to_string(),
            ),
            RevocationOutcome::Scope(watermark) => {
                let (scope, instant) = (&watermark.scope, watermark.finite_instant());
                let mut data = json!({ "version": version, "scope": scope.to_string(), "instant": instant });
                if scope.is_foreign() {
                    data["scope"] = json!(scope.id());
                    data["kind"] = json!(scope.kind());
                }
                (data, scope.to_string())
            }
        };
        if let (Some(reached), Some(members)) = (&reached, data.as_object_mut()) {
            members.insert("edges".to_owned(), output::rollout_json(reached));
        }
        let auth_key = match auth_key {
            Some(id) => auth_keys::find_auth_key(&service, &id).await?,
            None => None,
        };
        if let Some(key) = &auth_key {
            data["auth_key"] = json!({ "still_issues": true, "last_used_at": key.last_used_at });
        }
        global.print(&data, || format!("revoked {what}"))?;
        if let Some(key) = auth_key {
            hint(format_args!(
                "All credentials that {0} was exchanged for are revoked; {0} itself can still be exchanged for new ones (last \
                 used: {1}). `keystile authkey delete {0}` prevents that.",
                key.id,
                output::format_optional_seconds(key.last_used_at)
            ));
        }
        match reached {
            // The state of publication is reported when the command ends.
            None => Ok(()),
            Some(reached) => print_rollout(&reached, version, timeout),
        }
    }
}

impl RevocationSelector {
    /// Returns what is selected. `at` and `yes` are the options of the command.
    fn target(self, at: Option<UnixSeconds>, yes: bool) -> Result<RevocationTarget, CliError> {
        let Self {
            fingerprint,
            token,
            token_file,
            key_id,
            subject,
            session,
            token_id,
            client,
            issuer,
            signing_key,
            everything,
        } = self;
        if let Some(fingerprint) = fingerprint {
            return Ok(RevocationTarget::Fingerprint(fingerprint));
        }
        if let Some(token) = token.or(token_file.is_some().then_some(None)) {
            return Ok(RevocationTarget::Token(read_credential(token, token_file.as_deref())?));
        }
        if let Some(id) = key_id {
            return Ok(RevocationTarget::Key(id));
        }
        let until = at.map_or("now".to_owned(), |at| format!("second {at}"));
        if let Some(AnySubject::Own(subject)) = subject {
            let whose = if subject.is_root() { " and all its users" } else { "" };
            let what = format_args!("revoke all credentials of {subject}{whose} issued up to {until}");
            require_yes(yes, what)?;
            return Ok(RevocationTarget::Subject { subject, instant: at });
        }
        let one = session.map(WatermarkScope::IssuerSession).or(token_id.map(WatermarkScope::TokenId));
        if let Some(scope) = one {
            return Ok(RevocationTarget::Foreign { scope, instant: None });
        }
        let several = subject.map(WatermarkScope::from);
        let several = several.or(client.map(WatermarkScope::Client)).or(issuer.map(WatermarkScope::Issuer));
        if let Some(scope) = several {
            require_yes(yes, format_args!("revoke all tokens of {scope} issued up to {until}"))?;
            return Ok(RevocationTarget::Foreign { scope, instant: at });
        }
        if let Some(kid) = signing_key {
            require_yes(yes, format_args!("revoke all credentials signed by {kid}"))?;
            return Ok(RevocationTarget::SigningKey(kid));
        }
        if everything {
            require_yes(yes, format_args!("revoke all credentials that were ever issued"))?;
            return Ok(RevocationTarget::Everything);
        }
        Err(CliError::Message("no credential selected".to_owned()))
    }
}

/// Hints at a misspelled issuer. The revocation is in effect all the same: the issuer may be configured later.
pub(super) fn hint_at_unknown_issuer(service: &Service, scope: &WatermarkScope) {
    let Some(issuer) = scope.issuer() else { return };
    // An issuer with named parts such as `{tenant}` represents many.
    let is_known = |known: &str| known == issuer || known.contains('{');
    if !service.config().issuers.iter().any(|known| is_known(&known.issuer)) {
        hint(format_args!(
            "The issuer `{issuer}` is not configured here, so edges accept no token of it; see `keystile issuer list`."
        ));
    }
}

/// Prints the rollout, and fails if an edge may still admit the credential.
fn print_rollout(reached: &RolloutStatus, version: Version, timeout: ConfigDuration) -> Result<(), CliError> {
    let names = |edges: &[EdgeId]| edges.iter().map(EdgeId::as_str).collect::<Vec<_>>().join(", ");
    if !reached.silent.is_empty() {
        hint(format_args!("Silent for longer than the lifetime of a manifest: {}.", names(&reached.silent)));
    }
    if !reached.never_seen.is_empty() {
        hint(format_args!("Never seen: {}.", names(&reached.never_seen)));
    }
    if reached.kept_streams > 0 {
        hint(format_args!(
            "Open streams that a rule keeps (`open_streams`) although their credential is refused: {}.",
            reached.kept_streams
        ));
    }
    if reached.is_enforced_everywhere() {
        hint(format_args!("All {} live edges enforce version {version}.", reached.enforcing.len()));
        return Ok(());
    }
    let mut problems = Vec::new();
    if !reached.lagging.is_empty() {
        let names = names(&reached.lagging);
        problems
            .push(format!("after {timeout} these live edges do not enforce version {version} yet: {names}"));
    }
    if !reached.may_admit.is_empty() {
        let names = names(&reached.may_admit);
        problems.push(format!(
            "these silent edges reported within publisher.outage_grace, so they may still admit it: {names}"
        ));
    }
    if reached.enforcing.is_empty() && problems.is_empty() {
        problems.push(format!("no live edge enforces version {version}"));
    }
    Err(CliError::Incomplete {
        code: EXIT_NOT_ENFORCED,
        message: format!("the credential is revoked, but {}", problems.join("; and ")),
    })
}
