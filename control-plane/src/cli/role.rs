use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    CliError, Global, output,
    paging::{Paging, print_next_page_hint},
    permission::{parse_document, read_document},
    require_yes,
};
use crate::{
    accounts,
    domain::UnixMillis,
    domain::{self as model, Actor, AnySubject, OperatorId, Page, RoleId},
};

#[derive(Debug, Subcommand)]
pub(super) enum Role {
    /// Create a role with a permission document
    Create(Document),
    /// Replace the permission document of a role, for all users with this role
    Update(Document),
    /// List the roles of an operator
    List {
        operator: OperatorId,
        #[command(flatten)]
        paging: Paging,
    },
    /// Show a role and its users
    Show { operator: OperatorId, role: RoleId },
    /// Delete a role and detach it from all users
    Delete {
        operator: OperatorId,
        role: RoleId,
        /// Confirm the deletion
        #[arg(long)]
        yes: bool,
    },
    /// Attach a role to a user, or to a subject of another issuer
    Attach(Attachment),
    /// Detach a role from a user, or from a subject of another issuer
    Detach(Attachment),
}

#[derive(Debug, Args)]
pub(super) struct Attachment {
    /// OPERATOR/NAME, or ISSUER#SUBJECT
    user: AnySubject,
    role: RoleId,
    /// The operator of the role. Required for a subject of another issuer, which has none itself
    #[arg(long)]
    operator: Option<OperatorId>,
}

impl Attachment {
    /// Returns the operator of the role.
    fn operator(&self) -> Result<OperatorId, CliError> {
        match (&self.user, &self.operator) {
            (AnySubject::Own(subject), Some(operator)) if subject.operator != *operator => {
                Err(CliError::Message(format!(
                    "`{subject}` has roles of its own operator only, not of {operator}"
                )))
            }
            (AnySubject::Own(subject), _) => Ok(subject.operator.clone()),
            (AnySubject::Foreign(_), Some(operator)) => Ok(operator.clone()),
            (AnySubject::Foreign(subject), None) => Err(CliError::Message(format!(
                "`{subject}` has no operator: name the operator of the role with --operator"
            ))),
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct Document {
    operator: OperatorId,
    role: RoleId,
    /// A SAM permission document in JSON, or `-` to read it from stdin
    #[arg(value_name = "FILE")]
    document: PathBuf,
    /// A description
    #[arg(long)]
    description: Option<String>,
}

impl Role {
    pub(super) async fn run(self, global: &Global) -> Result<(), CliError> {
        match self {
            Self::Create(Document { operator, role, document, description }) => {
                let document = read_document(&document)?;
                let service = global.service().await?;
                let description = description.as_deref();
                accounts::create_role(&service, &Actor::Admin, &operator, &role, &document, description)
                    .await?;
                print_change(global, &operator, &role, "created")
            }
            Self::Update(Document { operator, role, document, description }) => {
                let document = read_document(&document)?;
                let service = global.service().await?;
                let description = description.as_deref();
                accounts::update_role(&service, &Actor::Admin, &operator, &role, &document, description)
                    .await?;
                print_change(global, &operator, &role, "updated")
            }
            Self::List { operator, paging } => list(global, &operator, paging).await,
            Self::Show { operator, role } => show(global, &operator, &role).await,
            Self::Delete { operator, role, yes } => {
                require_yes(yes, format_args!("delete role {role} and detach it from all users"))?;
                let service = global.service().await?;
                accounts::delete_role(&service, &Actor::Admin, &operator, &role).await?;
                print_change(global, &operator, &role, "deleted")
            }
            Self::Attach(attachment) => {
                let operator = attachment.operator()?;
                let Attachment { user, role, .. } = attachment;
                let (service, actor) = (global.service().await?, Actor::Admin);
                match user {
                    AnySubject::Own(user) => accounts::attach_role(&service, &actor, &user, &role).await?,
                    AnySubject::Foreign(subject) => {
                        accounts::attach_foreign_role(&service, &actor, &subject, &operator, &role).await?;
                    }
                }
                print_change(global, &operator, &role, "attached")
            }
            Self::Detach(attachment) => {
                let operator = attachment.operator()?;
                let Attachment { user, role, .. } = attachment;
                let (service, actor) = (global.service().await?, Actor::Admin);
                match user {
                    AnySubject::Own(user) => accounts::detach_role(&service, &actor, &user, &role).await?,
                    AnySubject::Foreign(subject) => {
                        accounts::detach_foreign_role(&service, &actor, &subject, &operator, &role).await?;
                    }
                }
                print_change(global, &operator, &role, "detached")
            }
        }
    }
}

async fn list(global: &Global, operator: &OperatorId, paging: Paging) -> Result<(), CliError> {
    let page = paging.page()?;
    let Page { items: roles, next } = accounts::list_roles(&global.service().await?, operator, &page).await?;
    let data: Vec<Value> = roles.iter().map(role_json).collect();
    global.print(&data, || {
        let rows = roles.iter().map(|role| {
            [
                role.id.to_string(),
                output::format_time(UnixMillis::from_seconds(role.created_at)),
                output::format_time(UnixMillis::from_seconds(role.updated_at)),
                role.description.clone().unwrap_or_default(),
            ]
        });
        output::table(["ROLE", "CREATED", "UPDATED", "DESCRIPTION"], rows.collect())
    })?;
    print_next_page_hint(next.as_deref());
    Ok(())
}

async fn show(global: &Global, operator: &OperatorId, role: &RoleId) -> Result<(), CliError> {
    let (role, users, foreign) = accounts::find_role(&global.service().await?, operator, role).await?;
    let users: Vec<&str> = users.iter().map(model::UserName::as_str).collect();
    let mut data = role_json(&role);
    data["users"] = json!(users);
    let foreign: Vec<&str> = foreign.iter().map(model::ForeignName::as_str).collect();
    data["foreign_subjects"] = json!(foreign);
    global.print(&data, || {
        format!(
            "role         {}\nupdated      {}\ndescription  {}\nusers        {}\nforeign      {}\npermission   {}",
            role.id,
            output::format_time(UnixMillis::from_seconds(role.updated_at)),
            role.description.as_deref().unwrap_or_default(),
            users.join(" "),
            foreign.join(" "),
            role.permission,
        )
    })
}

fn print_change(global: &Global, operator: &OperatorId, role: &RoleId, what: &str) -> Result<(), CliError> {
    let data = json!({ "operator_id": operator.as_str(), "role_id": role.as_str() });
    global.print(&data, || format!("{what} {role}"))
}

fn role_json(role: &model::Role) -> Value {
    let model::Role { operator, id, description, permission, created_at, updated_at } = role;
    json!({
        "operator_id": operator.as_str(),
        "role_id": id.as_str(),
        "description": description,
        "permission": parse_document(Some(permission)),
        "created_at": created_at,
        "updated_at": updated_at,
    })
}
