use clap::Subcommand;
use serde_json::{Value, json};

use super::{
    CliError, Global, hint, output,
    paging::{Paging, print_next_page_hint},
    permission::{DefaultPermission, Permission, parse_document},
    require_yes,
};
use crate::{
    accounts,
    domain::UnixMillis,
    domain::{self as model, Actor, AnySubject, OperatorId, Page},
};

#[derive(Debug, Subcommand)]
pub(super) enum Operator {
    /// Create an operator
    Create {
        /// A description
        #[arg(long)]
        description: Option<String>,
    },
    /// List the operators
    List(Paging),
    /// Show an operator
    Show { operator: OperatorId },
    /// Delete an operator with its users, roles and keys, and revoke all its credentials
    Delete {
        operator: OperatorId,
        /// Confirm the deletion
        #[arg(long)]
        yes: bool,
    },
    /// Manage the default permissions of all users of an operator
    #[command(subcommand)]
    Permission(DefaultPermission),
}

impl Operator {
    pub(super) async fn run(self, global: &Global) -> Result<(), CliError> {
        match self {
            Self::Create { description } => {
                let service = global.service().await?;
                let id = accounts::create_operator(&service, &Actor::Admin, description.as_deref()).await?;
                global.print(&json!({ "operator_id": id.as_str() }), || id.to_string())?;
                hint(format_args!("Next: `keystile authkey create --operator {id}` for its root user."));
                Ok(())
            }
            Self::List(paging) => {
                let page = paging.page()?;
                let Page { items: operators, next } =
                    accounts::list_operators(&global.service().await?, &page).await?;
                let data: Vec<Value> = operators.iter().map(operator_json).collect();
                global.print(&data, || {
                    let rows = operators.iter().map(|operator| {
                        [
                            operator.id.to_string(),
                            output::format_time(UnixMillis::from_seconds(operator.created_at)),
                            operator.description.clone().unwrap_or_default(),
                        ]
                    });
                    output::table(["ID", "CREATED", "DESCRIPTION"], rows.collect())
                })?;
                print_next_page_hint(next.as_deref());
                Ok(())
            }
            Self::Show { operator } => {
                let operator = accounts::find_operator(&global.service().await?, &operator).await?;
                global.print(&operator_json(&operator), || {
                    format!(
                        "operator             {}\ncreated              {}\ndescription          {}\ndefault permissions  {}",
                        operator.id,
                        output::format_time(UnixMillis::from_seconds(operator.created_at)),
                        operator.description.as_deref().unwrap_or_default(),
                        operator.default_permission.as_deref().unwrap_or("none"),
                    )
                })
            }
            Self::Delete { operator, yes } => {
                let what = "with its users, roles and keys, and revoke all its credentials";
                require_yes(yes, format_args!("delete {operator} {what}"))?;
                let service = global.service().await?;
                let version = accounts::delete_operator(&service, &Actor::Admin, &operator).await?;
                let data = json!({ "operator_id": operator.as_str(), "version": version });
                global.print(&data, || format!("deleted {operator}"))
            }
            Self::Permission(permission) => {
                let permission = Permission::from(permission);
                match permission.subject() {
                    AnySubject::Own(subject) if subject.is_root() => permission.run(global).await,
                    subject => Err(CliError::Message(format!(
                        "`{subject}` is a user; use `keystile user permission`"
                    ))),
                }
            }
        }
    }
}

fn operator_json(operator: &model::Operator) -> Value {
    let model::Operator { id, description, default_permission, created_at } = operator;
    json!({
        "operator_id": id.as_str(),
        "description": description,
        "default_permission": parse_document(default_permission.as_deref()),
        "created_at": created_at,
    })
}
