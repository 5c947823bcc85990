use clap::Args;
use serde_json::json;
use token::Fingerprint;

use super::{CliError, Global, hint, require_yes};
use crate::{
    domain::{Actor, ForeignName, WatermarkScope},
    revocation,
};

#[derive(Debug, Args)]
pub(super) struct Unrevoke {
    #[command(flatten)]
    what: Selector,
    /// Confirm the command
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Selector {
    /// The SHA-256 of the credential as presented, in hex
    #[arg(long, value_name = "HEX")]
    fingerprint: Option<Fingerprint>,
    /// A session of another issuer
    #[arg(long, value_name = "ISSUER#SESSION")]
    session: Option<ForeignName>,
    /// A token of another issuer, by its id
    #[arg(long, value_name = "ISSUER#ID")]
    token_id: Option<ForeignName>,
}

impl Unrevoke {
    pub(super) async fn run(self, global: &Global) -> Result<(), CliError> {
        let Self { what: Selector { fingerprint, session, token_id }, yes } = self;
        let scope = session.map(WatermarkScope::IssuerSession).or(token_id.map(WatermarkScope::TokenId));
        match (fingerprint, scope) {
            (Some(fingerprint), _) => unrevoke_fingerprint(global, &fingerprint, yes).await,
            (None, Some(scope)) => unrevoke_scope(global, &scope, yes).await,
            (None, None) => Err(CliError::Message("no credential selected".to_owned())),
        }
    }
}

async fn unrevoke_fingerprint(global: &Global, fingerprint: &Fingerprint, yes: bool) -> Result<(), CliError> {
    require_yes(yes, format_args!("undo the revocation of the credential with fingerprint {fingerprint}"))?;
    let done = revocation::unrevoke(&global.service().await?, &Actor::Admin, fingerprint).await?;
    let data = json!({
        "version": done.version,
        "fingerprint": fingerprint.to_string(),
        "refused_by_watermark": done.watermark,
    });
    global.print(&data, || format!("no longer revoked: {fingerprint}"))?;
    if done.watermark {
        hint("A watermark of its subject, AuthKey, session or signing key still refuses it.");
    }
    Ok(())
}

async fn unrevoke_scope(global: &Global, scope: &WatermarkScope, yes: bool) -> Result<(), CliError> {
    require_yes(yes, format_args!("undo the revocation of {scope}"))?;
    let version = revocation::unrevoke_scope(&global.service().await?, &Actor::Admin, scope).await?;
    let data = json!({ "version": version, "scope": scope.id(), "kind": scope.kind() });
    global.print(&data, || format!("no longer revoked: {scope}"))
}
