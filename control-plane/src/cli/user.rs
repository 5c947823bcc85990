use clap::Subcommand;
use serde_json::{Value, json};

use super::{
    CliError, Global, hint, output,
    paging::{Paging, print_next_page_hint},
    permission::{Permission, parse_document},
    require_yes,
};
use crate::{
    accounts::{self, CreatedKeys, CreatedKeysPolicy},
    domain::UnixMillis,
    domain::{self as model, Actor, AnySubject, OperatorId, Page, Subject},
    maintenance,
};

#[derive(Debug, Subcommand)]
pub(super) enum User {
    /// Create a user with the default permissions of the operator
    Create {
        /// OPERATOR/NAME
        user: Subject,
        /// A description
        #[arg(long)]
        description: Option<String>,
    },
    /// List the users
    List {
        /// List the users of this operator only
        #[arg(long)]
        operator: Option<OperatorId>,
        /// List the subjects of other issuers that have permissions or roles
        #[arg(long, conflicts_with = "operator")]
        foreign: bool,
        #[command(flatten)]
        paging: Paging,
    },
    /// Show a user, or a subject of another issuer, with its roles and its own permission document
    Show {
        /// OPERATOR/NAME, or ISSUER#SUBJECT
        user: AnySubject,
    },
    /// Delete a user with its keys, and revoke all its credentials
    ///
    /// AuthKeys and API keys that the user created for others are listed, and stay valid without --with-created.
    Delete {
        /// OPERATOR/NAME
        user: Subject,
        /// Also delete the keys that the user created for others
        #[arg(long)]
        with_created: bool,
        /// Confirm the deletion
        #[arg(long)]
        yes: bool,
        /// Delete even if the clock of this machine differs from the database server's or a live edge's
        #[arg(long)]
        force: bool,
    },
    /// Manage the permissions of a user, or of a subject of another issuer (ISSUER#SUBJECT)
    #[command(subcommand)]
    Permission(Permission),
}

impl User {
    pub(super) async fn run(self, global: &Global) -> Result<(), CliError> {
        match self {
            Self::Create { user, description } => {
                let service = global.service().await?;
                accounts::create_user(&service, &Actor::Admin, &user, description.as_deref()).await?;
                global.print(&json!({ "subject": user.to_string() }), || format!("created {user}"))
            }
            Self::List { operator: _, foreign: true, paging } => list_foreign(global, paging).await,
            Self::List { operator, foreign: false, paging } => {
                let page = paging.page()?;
                let Page { items: users, next } =
                    accounts::list_users(&global.service().await?, operator.as_ref(), &page).await?;
                let data: Vec<Value> = users.iter().map(user_json).collect();
                global.print(&data, || {
                    let rows = users.iter().map(|user| {
                        [
                            user.subject.to_string(),
                            output::format_time(UnixMillis::from_seconds(user.created_at)),
                            if user.permission.is_some() { "own" } else { "" }.to_owned(),
                            user.description.clone().unwrap_or_default(),
                        ]
                    });
                    output::table(["USER", "CREATED", "PERMISSION", "DESCRIPTION"], rows.collect())
                })?;
                print_next_page_hint(next.as_deref());
                Ok(())
            }
            Self::Show { user: AnySubject::Foreign(subject) } => {
                let found = accounts::find_foreign_subject(&global.service().await?, &subject).await?;
                global.print(&foreign_json(&found), || {
                    format!(
                        "subject      {}\nroles        {}\npermission   {}",
                        found.subject,
                        role_names(&found).join(" "),
                        found.permission.as_deref().unwrap_or("none"),
                    )
                })
            }
            Self::Show { user: AnySubject::Own(user) } => {
                let (user, roles) = accounts::find_user(&global.service().await?, &user).await?;
                let roles: Vec<&str> = roles.iter().map(model::RoleId::as_str).collect();
                let mut data = user_json(&user);
                data["roles"] = json!(roles);
                global.print(&data, || {
                    format!(
                        "user         {}\ncreated      {}\ndescription  {}\nroles        {}\npermission   {}",
                        user.subject,
                        output::format_time(UnixMillis::from_seconds(user.created_at)),
                        user.description.as_deref().unwrap_or_default(),
                        roles.join(" "),
                        user.permission.as_deref().unwrap_or("none"),
                    )
                })
            }
            Self::Delete { user, with_created, yes, force } => {
                delete(global, &user, with_created, yes, force).await
            }
            Self::Permission(permission) => match permission.subject() {
                AnySubject::Own(subject) if subject.is_root() => Err(CliError::Message(format!(
                    "`{subject}` is a root user, which may do everything; name a user, `{subject}/NAME`, or use `keystile \
                     operator permission` for the default permissions of all users"
                ))),
                _ => permission.run(global).await,
            },
        }
    }
}

async fn list_foreign(global: &Global, paging: Paging) -> Result<(), CliError> {
    let page = paging.page()?;
    let Page { items: subjects, next } =
        accounts::list_foreign_subjects(&global.service().await?, &page).await?;
    let data: Vec<Value> = subjects.iter().map(foreign_json).collect();
    global.print(&data, || {
        let rows = subjects.iter().map(|subject| {
            let permission = if subject.permission.is_some() { "own" } else { "" };
            [subject.subject.to_string(), permission.to_owned(), role_names(subject).join(" ")]
        });
        output::table(["SUBJECT", "PERMISSION", "ROLES"], rows.collect())
    })?;
    print_next_page_hint(next.as_deref());
    Ok(())
}

async fn delete(
    global: &Global,
    user: &Subject,
    with_created: bool,
    yes: bool,
    force: bool,
) -> Result<(), CliError> {
    let service = global.service().await?;
    if !force {
        maintenance::check_clock(&service).await?;
    }
    if !yes {
        let created = accounts::keys_created_by(&service, user).await?;
        let others = match (created.ids(), with_created) {
            (ids, _) if ids.is_empty() => String::new(),
            (ids, true) => format!(", and the keys it created for others: {}", ids.join(", ")),
            (ids, false) => {
                format!(
                    "; the keys it created for others stay valid without --with-created: {}",
                    ids.join(", ")
                )
            }
        };
        require_yes(
            yes,
            format_args!("delete {user} with its keys, and revoke all its credentials{others}"),
        )?;
    }
    let created_by_user = if with_created { CreatedKeysPolicy::Delete } else { CreatedKeysPolicy::Keep };
    let deleted = accounts::delete_user(&service, &Actor::Admin, user, created_by_user).await?;
    let CreatedKeys { auth_keys, api_keys } = &deleted.created;
    let auth_keys = auth_keys.iter().map(|key| (key.id.to_string(), key.subject.to_string()));
    let created: Vec<_> =
        auth_keys.chain(api_keys.iter().map(|key| (key.id.to_string(), key.owner.to_string()))).collect();
    let data = json!({
        "subject": user.to_string(),
        "version": deleted.version,
        "created_for_others": created
            .iter()
            .map(|(id, subject)| json!({ "id": id, "subject": subject, "deleted": with_created }))
            .collect::<Vec<_>>(),
    });
    global.print(&data, || {
        let what = if with_created { "deleted with it" } else { "created by it, still valid" };
        let others = created.iter().map(|(id, subject)| format!("\n{what}: {id} of {subject}"));
        format!("deleted {user}{}", others.collect::<String>())
    })?;
    if !created.is_empty() && !with_created {
        hint("`keystile authkey delete` and `keystile key delete` delete the keys it created for others.");
    }
    Ok(())
}

/// Returns the roles of a subject of another issuer as OPERATOR:ROLE.
fn role_names(subject: &model::ForeignSubject) -> Vec<String> {
    subject.roles.iter().map(|(operator, role)| format!("{operator}:{role}")).collect()
}

fn foreign_json(subject: &model::ForeignSubject) -> Value {
    json!({
        "subject": subject.subject.as_str(),
        "issuer": subject.subject.issuer(),
        "permission": parse_document(subject.permission.as_deref()),
        "roles": role_names(subject),
    })
}

fn user_json(user: &model::User) -> Value {
    let model::User { subject, description, permission, created_at } = user;
    json!({
        "subject": subject.to_string(),
        "operator_id": subject.operator.as_str(),
        "user_name": subject.user_name(),
        "description": description,
        "permission": parse_document(permission.as_deref()),
        "created_at": created_at,
    })
}
