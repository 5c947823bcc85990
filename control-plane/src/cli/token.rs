use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};
use serde_json::json;

use super::{CliError, Global, hint, output, read_credential};
use crate::{
    credentials::tokens::{self, Lifetime, TokenRecipient},
    domain::{AuthKeyId, OperatorId, Subject, UnixMillis, UnixSeconds, UserName},
};

#[derive(Debug, Subcommand)]
pub(super) enum Token {
    /// Issue a token, which is shown once
    Issue(Issue),
    /// Show the claims of a token and whether it is valid
    Inspect {
        /// `-` or nothing: the token is read from stdin or prompted for on a terminal
        token: Option<String>,
        /// Read the token from this file
        #[arg(long, value_name = "FILE", conflicts_with = "token")]
        token_file: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("bearer").required(true).args(["auth_key_id", "operator"])))]
pub(super) struct Issue {
    /// Issue the token for the subject of this AuthKey; it is revoked with the AuthKey
    #[arg(long, value_name = "ID", conflicts_with = "user")]
    auth_key_id: Option<AuthKeyId>,
    /// Issue the token for this operator
    #[arg(long, value_name = "OPERATOR")]
    operator: Option<OperatorId>,
    /// The user of the operator; the root user by default
    #[arg(long, requires = "operator")]
    user: Option<UserName>,
    /// The lifetime, such as 30m or 24h, at most 48h; with `never` the token is valid until it is revoked
    #[arg(long, visible_alias = "lifetime", default_value = "24h")]
    ttl: Lifetime,
}

impl Token {
    pub(super) async fn run(self, global: &Global) -> Result<(), CliError> {
        match self {
            Self::Issue(issue) => issue.run(global).await,
            Self::Inspect { token, token_file } => {
                inspect(global, read_credential(token, token_file.as_deref())?).await
            }
        }
    }
}

impl Issue {
    async fn run(self, global: &Global) -> Result<(), CliError> {
        let Self { auth_key_id, operator, user, ttl } = self;
        let recipient = match (auth_key_id, operator) {
            (Some(id), _) => TokenRecipient::AuthKey(id),
            (None, Some(operator)) => TokenRecipient::Subject(Subject { operator, user }),
            (None, None) => return Err(CliError::Message("expected --auth-key-id or --operator".to_owned())),
        };
        let service = global.service().await?;
        let issued = tokens::issue_token(&service, recipient, ttl).await?;
        let data = json!({
            "token": issued.token.expose(),
            "api_key": issued.session.as_str(),
            "operator_id": issued.subject.operator.as_str(),
            "subject": issued.subject.to_string(),
            "fingerprint": issued.fingerprint.to_string(),
            "expires_at": issued.expires_at,
        });
        global.print(&data, || issued.token.expose().to_owned())?;
        if !global.json {
            let until = issued
                .expires_at
                .map_or("it is revoked".to_owned(), |end| output::format_time(UnixMillis::from_seconds(end)));
            hint(format_args!("{} until {until}, fingerprint {}", issued.subject, issued.fingerprint));
        }
        Ok(())
    }
}

async fn inspect(global: &Global, token: String) -> Result<(), CliError> {
    let service = global.service().await?;
    let inspected = tokens::inspect_token(&service, &token).await?;
    let claims = serde_json::to_value(&inspected.claims)?;
    let data = json!({
        "fingerprint": inspected.fingerprint.to_string(),
        "kid": inspected.kid,
        "standing": inspected.status.code(),
        "claims": claims,
    });
    global.print(&data, || {
        let claims = &inspected.claims;
        let time = |seconds| output::format_time(UnixMillis::from_seconds(UnixSeconds::new(seconds)));
        let (issued, expires) = (time(claims.iat), claims.exp.map_or("never".to_owned(), time));
        format!(
            "standing     {}\nfingerprint  {}\nkey          {}\nsubject      {}\naudience     {}\nissued       {issued}\nexpires      {expires}",
            inspected.status.code(),
            inspected.fingerprint,
            inspected.kid,
            claims.sub,
            claims.aud.join(" "),
        )
    })
}
