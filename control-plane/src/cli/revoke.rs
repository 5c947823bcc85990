use clap::Args;
use serde_json::json;
use token::Fingerprint;

use super::{Failure, Global, argument_or_stdin, confirmed, hint};
use crate::{
    model::{Actor, KeyId, Subject},
    operations::{self, Authority, Target, What},
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
    /// Revoke a whole subject without asking back
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Selected {
    /// The SHA-256 of a credential as presented, in hex
    #[arg(long, value_name = "HEX")]
    fingerprint: Option<Fingerprint>,
    /// A token, or `-` to read it from stdin
    #[arg(long)]
    token: Option<String>,
    /// All that an AuthKey (keyId-...) was exchanged for, or a session (api-...)
    #[arg(long, value_name = "ID")]
    key_id: Option<KeyId>,
    /// All that an operator (OP...) or a user of it (OP.../NAME) was issued
    #[arg(long)]
    subject: Option<Subject>,
}

impl Revoke {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        let Self { what: Selected { fingerprint, token, key_id, subject }, at, reason, yes } = self;
        let target = match (fingerprint, token, key_id, subject) {
            (Some(fingerprint), ..) => Target::Fingerprint(fingerprint),
            (_, Some(token), ..) => Target::Token(argument_or_stdin(token)?),
            (_, _, Some(id), _) => Target::Key(id),
            (_, _, _, Some(subject)) => {
                let whose = if subject.is_root() { " and all its users" } else { "" };
                let until = at.map_or("now".to_owned(), |at| format!("second {at}"));
                confirmed(yes, format_args!("refuse all that {subject}{whose} was issued up to {until}"))?;
                Target::Subject { subject, instant: at }
            }
            (None, None, None, None) => return Err(Failure::Because("say what to revoke".to_owned())),
        };
        let service = global.service().await?;
        let revoked =
            operations::revoke(&service, &Actor::Admin, &Authority::Everything, target, reason.as_deref())
                .await?;
        let (data, what) = match revoked.what {
            What::Fingerprint(fingerprint) => (
                json!({ "version": revoked.version, "fingerprint": fingerprint.to_string() }),
                fingerprint.to_string(),
            ),
            What::Scope(watermark) => {
                let scope = watermark.scope.to_string();
                (json!({ "version": revoked.version, "scope": scope, "instant": watermark.instant }), scope)
            }
        };
        global.print(&data, || format!("revoked {what}"))?;
        hint(format_args!("Edges refuse it from version {} on.", revoked.version));
        Ok(())
    }
}
