use clap::Subcommand;
use serde_json::{Value, json};

use super::{
    Failure, Global, confirmed, hint,
    paging::{Paging, more},
    show,
};
use crate::{
    clock::Time,
    model::{Actor, AuthKeyId, OperatorId, Paged, Subject, UserName},
    operations::{self, Authority},
};

#[derive(Debug, Subcommand)]
pub(super) enum Authkey {
    /// List AuthKeys
    List {
        /// Those of this operator only
        #[arg(long)]
        operator: Option<OperatorId>,
        #[command(flatten)]
        paging: Paging,
    },
    /// Create an AuthKey, which is shown once
    Create {
        #[arg(long)]
        operator: OperatorId,
        /// For this user; for the root user without it
        #[arg(long)]
        user: Option<UserName>,
    },
    /// Delete an AuthKey and refuse all it was exchanged for
    Delete {
        id: AuthKeyId,
        /// Delete without asking back
        #[arg(long)]
        yes: bool,
    },
}

impl Authkey {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        match self {
            Self::List { operator, paging } => list(global, operator, paging).await,
            Self::Create { operator, user } => create(global, Subject { operator, user }).await,
            Self::Delete { id, yes } => {
                confirmed(yes, format_args!("delete {id} and refuse all it was exchanged for"))?;
                delete(global, id).await
            }
        }
    }
}

async fn list(global: &Global, operator: Option<OperatorId>, paging: Paging) -> Result<(), Failure> {
    let page = paging.page()?;
    let Paged { items: keys, next } =
        operations::list_auth_keys(&global.service().await?, operator.as_ref(), &page).await?;
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
                show::time(Time::from_seconds(key.created_at)),
                show::optional_seconds(key.last_used_at),
            ]
        });
        show::table(["ID", "SUBJECT", "CREATED", "LAST USED"], rows.collect())
    })?;
    more(next.as_deref());
    Ok(())
}

async fn create(global: &Global, subject: Subject) -> Result<(), Failure> {
    let service = global.service().await?;
    let created = operations::create_auth_key(&service, &Actor::Admin, &subject).await?;
    let data = json!({ "auth_key_id": created.id.as_str(), "auth_key": created.secret.expose() });
    global.print(&data, || format!("AuthKey id  {}\nAuthKey     {}", created.id, created.secret.expose()))?;
    hint("The AuthKey is shown this once: keep it.");
    Ok(())
}

async fn delete(global: &Global, id: AuthKeyId) -> Result<(), Failure> {
    let service = global.service().await?;
    let version = operations::delete_auth_key(&service, &Actor::Admin, &Authority::Everything, &id).await?;
    global.print(&json!({ "auth_key_id": id.as_str(), "version": version }), || format!("deleted {id}"))
}
