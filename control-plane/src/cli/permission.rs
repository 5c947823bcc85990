use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use clap::Subcommand;
use serde_json::{Value, json};

use super::{Failure, Global, confirmed};
use crate::{
    model::{Actor, Subject},
    operations,
};

/// The permission document of a user, or what holds for all users of an operator.
#[derive(Debug, Subcommand)]
pub(super) enum Permission {
    /// Set the permission document; edges hold it from their next manifest on
    Set {
        subject: Subject,
        /// A SAM permission document in JSON, or `-` to read it from stdin
        #[arg(value_name = "FILE")]
        document: PathBuf,
    },
    /// Print the permission document
    Show { subject: Subject },
    /// Take the permission document back
    Clear {
        subject: Subject,
        /// Take it back without asking back
        #[arg(long)]
        yes: bool,
    },
}

impl Permission {
    pub(super) fn subject(&self) -> &Subject {
        match self {
            Self::Set { subject, .. } | Self::Show { subject } | Self::Clear { subject, .. } => subject,
        }
    }

    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        match self {
            Self::Set { subject, document } => {
                let document = read(&document)?;
                let service = global.service().await?;
                let version = operations::permit(&service, &Actor::Admin, &subject, Some(&document)).await?;
                changed(global, &subject, version)
            }
            Self::Show { subject } => {
                let service = global.service().await?;
                let document = match subject.user {
                    Some(_) => operations::find_user(&service, &subject).await?.0.permission,
                    None => operations::find_operator(&service, &subject.operator).await?.default_permission,
                };
                let data =
                    json!({ "subject": subject.to_string(), "permission": parsed(document.as_deref()) });
                global.print(&data, || document.unwrap_or_default())
            }
            Self::Clear { subject, yes } => {
                let whose = if subject.is_root() { "every user of " } else { "" };
                confirmed(yes, format_args!("take from {whose}{subject} what this document allows"))?;
                let service = global.service().await?;
                let version = operations::permit(&service, &Actor::Admin, &subject, None).await?;
                changed(global, &subject, version)
            }
        }
    }
}

fn changed(global: &Global, subject: &Subject, version: u64) -> Result<(), Failure> {
    let data = json!({ "subject": subject.to_string(), "version": version });
    global.print(&data, || format!("{subject}: holds from version {version} on"))
}

/// A file, or stdin for `-`.
pub(super) fn read(file: &Path) -> Result<String, Failure> {
    let text = if file == Path::new("-") {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        fs::read_to_string(file)
    };
    text.map_err(|error| Failure::Because(format!("`{}` can't be read: {error}", file.display())))
}

/// Stored documents were checked, so this is their JSON.
pub(super) fn parsed(document: Option<&str>) -> Option<Value> {
    document.and_then(|document| serde_json::from_str(document).ok())
}
