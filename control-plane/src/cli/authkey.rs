use clap::Subcommand;
use serde_json::{Value, json};

use super::{
    CliError, Global, hint, output,
    paging::{Paging, print_next_page_hint},
    require_yes,
};
use crate::{
    credentials::auth_keys,
    domain::UnixMillis,
    domain::{Actor, AuthKeyId, OperatorId, Page, Subject, UserName},
    revocation::AccessScope,
};

#[derive(Debug, Subcommand)]
pub(super) enum Authkey {
    /// List AuthKeys
    List {
        /// List the AuthKeys of this operator only
        #[arg(long)]
        operator: Option<OperatorId>,
        #[command(flatten)]
        paging: Paging,
    },
    /// Create an AuthKey, which is shown once
    Create {
        /// The operator of the AuthKey
        #[arg(long)]
        operator: OperatorId,
        /// The user of the AuthKey; the root user by default
        #[arg(long)]
        user: Option<UserName>,
    },
    /// Delete an AuthKey and revoke all credentials it was exchanged for
    Delete {
        id: AuthKeyId,
        /// Confirm the deletion
        #[arg(long)]
        yes: bool,
    },
}

impl Authkey {
    pub(super) async fn run(self, global: &Global) -> Result<(), CliError> {
        match self {
            Self::List { operator, paging } => list(global, operator, paging).await,
            Self::Create { operator, user } => create(global, Subject { operator, user }).await,
            Self::Delete { id, yes } => {
                require_yes(
                    yes,
                    format_args!("delete {id} and revoke all credentials it was exchanged for"),
                )?;
                delete(global, id).await
            }
        }
    }
}

async fn list(global: &Global, operator: Option<OperatorId>, paging: Paging) -> Result<(), CliError> {
    let page = paging.page()?;
    let Page { items: keys, next } =
        auth_keys::list_auth_keys(&global.service().await?, operator.as_ref(), &page).await?;
    let data: Vec<Value> = keys
        .iter()
        .map(|key| {
            json!({
                "auth_key_id": key.id.as_str(),
                "subject": key.subject.to_string(),
                "created_by": key.created_by,
                "created_at": key.created_at,
                "last_used_at": key.last_used_at,
            })
        })
        .collect();
    global.print(&data, || {
        let rows = keys.iter().map(|key| {
            [
                key.id.to_string(),
                key.subject.to_string(),
                output::format_time(UnixMillis::from_seconds(key.created_at)),
                output::format_optional_seconds(key.last_used_at),
            ]
        });
        output::table(["ID", "SUBJECT", "CREATED", "LAST USED"], rows.collect())
    })?;
    print_next_page_hint(next.as_deref());
    Ok(())
}

async fn create(global: &Global, subject: Subject) -> Result<(), CliError> {
    let service = global.service().await?;
    let created = auth_keys::create_auth_key(&service, &Actor::Admin, &subject).await?;
    let data = json!({ "auth_key_id": created.id.as_str(), "auth_key": created.secret.expose() });
    global.print(&data, || format!("AuthKey id  {}\nAuthKey     {}", created.id, created.secret.expose()))?;
    hint("The AuthKey is shown only once: store it.");
    Ok(())
}

async fn delete(global: &Global, id: AuthKeyId) -> Result<(), CliError> {
    let service = global.service().await?;
    let version = auth_keys::delete_auth_key(&service, &Actor::Admin, &AccessScope::Everything, &id).await?;
    global.print(&json!({ "auth_key_id": id.as_str(), "version": version }), || format!("deleted {id}"))
}
