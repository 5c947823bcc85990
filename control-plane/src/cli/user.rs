use clap::Subcommand;
use serde_json::{Value, json};

use super::{
    Failure, Global, confirmed,
    paging::{Paging, more},
    permission::{Permission, parsed},
    show,
};
use crate::{
    clock::Time,
    model::{self, Actor, OperatorId, Paged, Subject},
    operations,
};

#[derive(Debug, Subcommand)]
pub(super) enum User {
    /// Create a user, who may do what the default permissions of the operator allow
    Create {
        /// OPERATOR/NAME
        user: Subject,
        /// A remark for whoever reads the list
        #[arg(long)]
        description: Option<String>,
    },
    /// List the users
    List {
        /// Those of this operator only
        #[arg(long)]
        operator: Option<OperatorId>,
        #[command(flatten)]
        paging: Paging,
    },
    /// Show a user, its roles and its own permission document
    Show {
        /// OPERATOR/NAME
        user: Subject,
    },
    /// Delete a user with its keys, and refuse all it was issued
    Delete {
        /// OPERATOR/NAME
        user: Subject,
        /// Delete without asking back
        #[arg(long)]
        yes: bool,
    },
    /// Set, show and clear what a user may do
    #[command(subcommand)]
    Permission(Permission),
}

impl User {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        match self {
            Self::Create { user, description } => {
                let service = global.service().await?;
                operations::create_user(&service, &Actor::Admin, &user, description.as_deref()).await?;
                global.print(&json!({ "subject": user.to_string() }), || format!("created {user}"))
            }
            Self::List { operator, paging } => {
                let page = paging.page()?;
                let Paged { items: users, next } =
                    operations::list_users(&global.service().await?, operator.as_ref(), &page).await?;
                let data: Vec<Value> = users.iter().map(json).collect();
                global.print(&data, || {
                    let rows = users.iter().map(|user| {
                        [
                            user.subject.to_string(),
                            show::time(Time::from_seconds(user.created_at)),
                            if user.permission.is_some() { "own" } else { "" }.to_owned(),
                            user.description.clone().unwrap_or_default(),
                        ]
                    });
                    show::table(["USER", "CREATED", "PERMISSION", "DESCRIPTION"], rows.collect())
                })?;
                more(next.as_deref());
                Ok(())
            }
            Self::Show { user } => {
                let (user, roles) = operations::find_user(&global.service().await?, &user).await?;
                let roles: Vec<&str> = roles.iter().map(model::RoleId::as_str).collect();
                let mut data = json(&user);
                data["roles"] = json!(roles);
                global.print(&data, || {
                    format!(
                        "user         {}\ncreated      {}\ndescription  {}\nroles        {}\npermission   {}",
                        user.subject,
                        show::time(Time::from_seconds(user.created_at)),
                        user.description.as_deref().unwrap_or_default(),
                        roles.join(" "),
                        user.permission.as_deref().unwrap_or("none of its own"),
                    )
                })
            }
            Self::Delete { user, yes } => {
                confirmed(yes, format_args!("delete {user} with its keys, and refuse all it was issued"))?;
                let service = global.service().await?;
                let version = operations::delete_user(&service, &Actor::Admin, &user).await?;
                let data = json!({ "subject": user.to_string(), "version": version });
                global.print(&data, || format!("deleted {user}"))
            }
            Self::Permission(permission) => match permission.subject() {
                subject if subject.is_root() => Err(Failure::Because(format!(
                    "`{subject}` is a root user, who may do everything; name a user: `{subject}/NAME`; \
                     `keystile operator permission` sets what holds for all its users"
                ))),
                _ => permission.run(global).await,
            },
        }
    }
}

fn json(user: &model::User) -> Value {
    let model::User { subject, description, permission, created_at } = user;
    json!({
        "subject": subject.to_string(),
        "operator_id": subject.operator.as_str(),
        "user_name": subject.user_name(),
        "description": description,
        "permission": parsed(permission.as_deref()),
        "created_at": created_at,
    })
}
