use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    Failure, Global, confirmed,
    paging::{Paging, more},
    permission::{parsed, read},
    show,
};
use crate::{
    clock::Time,
    model::{self, Actor, OperatorId, Paged, RoleId, Subject},
    operations,
};

#[derive(Debug, Subcommand)]
pub(super) enum Role {
    /// Create a role out of a permission document
    Create(Document),
    /// Replace the permission document of a role, for everybody who has it
    Update(Document),
    /// List the roles of an operator
    List {
        operator: OperatorId,
        #[command(flatten)]
        paging: Paging,
    },
    /// Show a role and who has it
    Show { operator: OperatorId, role: RoleId },
    /// Delete a role, and take it from everybody who has it
    Delete {
        operator: OperatorId,
        role: RoleId,
        /// Delete without asking back
        #[arg(long)]
        yes: bool,
    },
    /// Give a user a role
    Attach {
        /// OPERATOR/NAME
        user: Subject,
        role: RoleId,
    },
    /// Take a role from a user
    Detach {
        /// OPERATOR/NAME
        user: Subject,
        role: RoleId,
    },
}

#[derive(Debug, Args)]
pub(super) struct Document {
    operator: OperatorId,
    role: RoleId,
    /// A SAM permission document in JSON, or `-` to read it from stdin
    #[arg(value_name = "FILE")]
    document: PathBuf,
    /// A remark for whoever reads the list
    #[arg(long)]
    description: Option<String>,
}

impl Role {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        match self {
            Self::Create(Document { operator, role, document, description }) => {
                let document = read(&document)?;
                let service = global.service().await?;
                let description = description.as_deref();
                operations::create_role(&service, &Actor::Admin, &operator, &role, &document, description)
                    .await?;
                done(global, &operator, &role, "created")
            }
            Self::Update(Document { operator, role, document, description }) => {
                let document = read(&document)?;
                let service = global.service().await?;
                let description = description.as_deref();
                operations::update_role(&service, &Actor::Admin, &operator, &role, &document, description)
                    .await?;
                done(global, &operator, &role, "updated")
            }
            Self::List { operator, paging } => list(global, &operator, paging).await,
            Self::Show { operator, role } => show(global, &operator, &role).await,
            Self::Delete { operator, role, yes } => {
                confirmed(yes, format_args!("delete role {role} and take it from everybody who has it"))?;
                let service = global.service().await?;
                operations::delete_role(&service, &Actor::Admin, &operator, &role).await?;
                done(global, &operator, &role, "deleted")
            }
            Self::Attach { user, role } => {
                let service = global.service().await?;
                operations::attach_role(&service, &Actor::Admin, &user, &role).await?;
                done(global, &user.operator, &role, "attached")
            }
            Self::Detach { user, role } => {
                let service = global.service().await?;
                operations::detach_role(&service, &Actor::Admin, &user, &role).await?;
                done(global, &user.operator, &role, "detached")
            }
        }
    }
}

async fn list(global: &Global, operator: &OperatorId, paging: Paging) -> Result<(), Failure> {
    let page = paging.page()?;
    let Paged { items: roles, next } =
        operations::list_roles(&global.service().await?, operator, &page).await?;
    let data: Vec<Value> = roles.iter().map(json).collect();
    global.print(&data, || {
        let rows = roles.iter().map(|role| {
            [
                role.id.to_string(),
                show::time(Time::from_seconds(role.created_at)),
                show::time(Time::from_seconds(role.updated_at)),
                role.description.clone().unwrap_or_default(),
            ]
        });
        show::table(["ROLE", "CREATED", "UPDATED", "DESCRIPTION"], rows.collect())
    })?;
    more(next.as_deref());
    Ok(())
}

async fn show(global: &Global, operator: &OperatorId, role: &RoleId) -> Result<(), Failure> {
    let (role, users) = operations::find_role(&global.service().await?, operator, role).await?;
    let users: Vec<&str> = users.iter().map(model::UserName::as_str).collect();
    let mut data = json(&role);
    data["users"] = json!(users);
    global.print(&data, || {
        format!(
            "role         {}\nupdated      {}\ndescription  {}\nusers        {}\npermission   {}",
            role.id,
            show::time(Time::from_seconds(role.updated_at)),
            role.description.as_deref().unwrap_or_default(),
            users.join(" "),
            role.permission,
        )
    })
}

fn done(global: &Global, operator: &OperatorId, role: &RoleId, what: &str) -> Result<(), Failure> {
    let data = json!({ "operator_id": operator.as_str(), "role_id": role.as_str() });
    global.print(&data, || format!("{what} {role}"))
}

fn json(role: &model::Role) -> Value {
    let model::Role { operator, id, description, permission, created_at, updated_at } = role;
    json!({
        "operator_id": operator.as_str(),
        "role_id": id.as_str(),
        "description": description,
        "permission": parsed(Some(permission)),
        "created_at": created_at,
        "updated_at": updated_at,
    })
}
