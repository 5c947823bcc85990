use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use clap::Subcommand;
use serde_json::{Value, json};

use super::{CliError, Global, require_yes};
use crate::{
    accounts,
    domain::{Actor, AnySubject, Version},
    service::Service,
};

/// The permission document of a user, or the default permissions of an operator.
#[derive(Debug, Subcommand)]
pub(super) enum Permission {
    /// Set the permission document; edges apply it from their next manifest on
    Set {
        /// A user (OP.../NAME), or a subject of another issuer (ISSUER#SUBJECT)
        subject: AnySubject,
        /// A SAM permission document in JSON, or `-` to read it from stdin
        #[arg(value_name = "FILE")]
        document: PathBuf,
    },
    /// Print the permission document
    Show {
        /// A user (OP.../NAME), or a subject of another issuer (ISSUER#SUBJECT)
        subject: AnySubject,
    },
    /// Remove the permission document
    Clear {
        /// A user (OP.../NAME), or a subject of another issuer (ISSUER#SUBJECT)
        subject: AnySubject,
        /// Confirm the removal
        #[arg(long)]
        yes: bool,
    },
}

/// The default permissions of all users of an operator.
#[derive(Debug, Subcommand)]
pub(super) enum DefaultPermission {
    /// Set the permission document that all users of the operator have; edges apply it from their next manifest on
    Set {
        /// An operator (OP...)
        #[arg(value_name = "OPERATOR")]
        subject: AnySubject,
        /// A SAM permission document in JSON, or `-` to read it from stdin
        #[arg(value_name = "FILE")]
        document: PathBuf,
    },
    /// Print the permission document that all users of the operator have
    Show {
        /// An operator (OP...)
        #[arg(value_name = "OPERATOR")]
        subject: AnySubject,
    },
    /// Remove the permission document that all users of the operator have
    Clear {
        /// An operator (OP...)
        #[arg(value_name = "OPERATOR")]
        subject: AnySubject,
        /// Confirm the removal
        #[arg(long)]
        yes: bool,
    },
}

impl From<DefaultPermission> for Permission {
    fn from(permission: DefaultPermission) -> Self {
        match permission {
            DefaultPermission::Set { subject, document } => Self::Set { subject, document },
            DefaultPermission::Show { subject } => Self::Show { subject },
            DefaultPermission::Clear { subject, yes } => Self::Clear { subject, yes },
        }
    }
}

impl Permission {
    pub(super) fn subject(&self) -> &AnySubject {
        match self {
            Self::Set { subject, .. } | Self::Show { subject } | Self::Clear { subject, .. } => subject,
        }
    }

    pub(super) async fn run(self, global: &Global) -> Result<(), CliError> {
        match self {
            Self::Set { subject, document } => {
                let document = read_document(&document)?;
                let service = global.service().await?;
                let version = set(&service, &subject, Some(&document)).await?;
                print_change(global, &subject, version)
            }
            Self::Show { subject } => {
                let service = global.service().await?;
                let document = match &subject {
                    AnySubject::Foreign(subject) => {
                        accounts::find_foreign_subject(&service, subject).await?.permission
                    }
                    AnySubject::Own(own) if own.is_root() => {
                        accounts::find_operator(&service, &own.operator).await?.default_permission
                    }
                    AnySubject::Own(own) => accounts::find_user(&service, own).await?.0.permission,
                };
                let data = json!({ "subject": subject.to_string(), "permission": parse_document(document.as_deref()) });
                global.print(&data, || document.unwrap_or_default())
            }
            Self::Clear { subject, yes } => {
                let is_root = matches!(&subject, AnySubject::Own(own) if own.is_root());
                let whose = if is_root { "every user of " } else { "" };
                require_yes(
                    yes,
                    format_args!("remove the permissions that this document grants to {whose}{subject}"),
                )?;
                let service = global.service().await?;
                let version = set(&service, &subject, None).await?;
                print_change(global, &subject, version)
            }
        }
    }
}

/// Sets or removes a permission document. Returns the first version with the change.
async fn set(service: &Service, subject: &AnySubject, document: Option<&str>) -> Result<Version, CliError> {
    Ok(match subject {
        AnySubject::Own(subject) => {
            accounts::set_permission(service, &Actor::Admin, subject, document).await?
        }
        AnySubject::Foreign(subject) => {
            accounts::set_foreign_permission(service, &Actor::Admin, subject, document).await?
        }
    })
}

fn print_change(global: &Global, subject: &AnySubject, version: Version) -> Result<(), CliError> {
    let data = json!({ "subject": subject.to_string(), "version": version });
    global.print(&data, || format!("{subject}: in effect from version {version} on"))
}

/// Reads a file, or stdin for `-`.
pub(super) fn read_document(file: &Path) -> Result<String, CliError> {
    let text = if file == Path::new("-") {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        fs::read_to_string(file)
    };
    text.map_err(|error| CliError::Message(format!("cannot read `{}`: {error}", file.display())))
}

/// Parses a stored document. Documents are validated before they are stored.
pub(super) fn parse_document(document: Option<&str>) -> Option<Value> {
    document.and_then(|document| serde_json::from_str(document).ok())
}
