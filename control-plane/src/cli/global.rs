//! What all commands share: the data folder, the settings, and the output.

use std::{
    env,
    path::PathBuf,
    sync::{Mutex, OnceLock, PoisonError},
};

use serde::Serialize;
use serde_json::{Value, json};

use super::{
    CliError,
    exit_code::EXIT_UNPUBLISHED,
    output::{self, hint, write_stdout},
};
use crate::{
    config::{self, Config, ConfigError},
    domain::Version,
    platform::data_dir::DataDir,
    publishing::{PublicationStatus, RecordedPublications},
    service::Service,
};

#[derive(Debug, clap::Args)]
pub(super) struct Global {
    /// The data folder, with database, keys and settings
    #[arg(long, global = true, env = "KEYSTILE_DATA", default_value = ".keystile", value_name = "FOLDER")]
    data: PathBuf,
    /// The settings file; by default keystile.toml in the data folder, if it exists
    #[arg(long, global = true, env = "KEYSTILE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print data as JSON
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// Set when the command opens the store.
    #[arg(skip)]
    attached: OnceLock<Attached>,
    /// With --json: the output, which is printed when the command ends.
    #[arg(skip)]
    answer: Mutex<Option<Value>>,
}

#[derive(Debug)]
struct Attached {
    publishing: RecordedPublications,
    /// The latest version before the command.
    version: Version,
}

impl Global {
    pub(super) fn data_dir(&self) -> DataDir {
        DataDir::new(self.data.clone())
    }

    pub(super) fn settings(&self) -> Result<Config, ConfigError> {
        let default = self.data_dir().config_file();
        let file = self.config.clone().or_else(|| default.exists().then_some(default));
        // Keystile's variables are UTF-8; ignore all others.
        let environment = env::vars_os()
            .filter_map(|(name, text)| Some((name.into_string().ok()?, text.into_string().ok()?)));
        config::load(file.as_deref(), environment)
    }

    pub(super) async fn service(&self) -> Result<Service, CliError> {
        let service = Service::attach(self.data_dir(), self.settings()?).await?;
        let publishing = RecordedPublications::new(&service);
        let version = publishing.latest_version().await?;
        let _ = self.attached.set(Attached { publishing, version });
        Ok(service)
    }

    /// Prints the output of a command: `data` as JSON when the command ends, or `text` at once.
    pub(super) fn print(&self, data: &impl Serialize, text: impl FnOnce() -> String) -> Result<(), CliError> {
        if !self.json {
            return write_stdout(&text());
        }
        let data = serde_json::to_value(data)?;
        let before = self.answer.lock().unwrap_or_else(PoisonError::into_inner).replace(data);
        before.map_or(Ok(()), |before| write_stdout(&before.to_string()))
    }

    /// Ends a command. If it has changed the bundle, reports whether a server has published the change.
    pub(super) async fn finish(
        &self,
        done: Result<(), CliError>,
        report: PublicationReport,
    ) -> Result<(), CliError> {
        let published = match &done {
            Ok(()) => self.publication(report).await,
            Err(_) => Ok(None),
        };
        let answer = self.answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut answer) = answer {
            if let (Ok(Some((publication, _))), Some(members)) = (&published, answer.as_object_mut()) {
                members.insert("published".to_owned(), json!(*publication == PublicationStatus::Published));
            }
            write_stdout(&answer.to_string())?;
        }
        done?;
        match published? {
            Some((PublicationStatus::Published, version)) if report == PublicationReport::Always => {
                hint(format_args!("Edges refuse it from version {version} on."));
                Ok(())
            }
            None | Some((PublicationStatus::Published, _)) => Ok(()),
            Some((PublicationStatus::Pending { last, edges }, version)) => {
                let last = last.map_or("no server ever has".to_owned(), |last| {
                    format!("the last publication was at {}", output::format_time(last))
                });
                let message = format!(
                    "The change is durable as version {version}, but no server has published it from this database yet \
                     ({last}). Edges get it as soon as a server publishes it; see `keystile doctor`."
                );
                if edges > 0 {
                    return Err(CliError::Incomplete { code: EXIT_UNPUBLISHED, message });
                }
                hint(message);
                Ok(())
            }
        }
    }

    /// Returns the state of publication and the version, or `None` if the command did not change the bundle.
    async fn publication(
        &self,
        report: PublicationReport,
    ) -> Result<Option<(PublicationStatus, Version)>, CliError> {
        let Some(Attached { publishing, version: before }) = self.attached.get() else { return Ok(None) };
        let version = publishing.latest_version().await?;
        if version == *before && report == PublicationReport::IfChanged {
            return Ok(None);
        }
        Ok(Some((publishing.wait_for_version(version).await?, version)))
    }
}

/// When a command reports the state of publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PublicationReport {
    Always,
    /// Only if the command has changed the bundle.
    IfChanged,
}
