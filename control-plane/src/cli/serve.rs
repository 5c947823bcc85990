use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::{CliError, Global, write_stdout};
use crate::{platform::telemetry, server};

/// Runs the server. Prints one line to stdout, the address; logs go to stderr.
pub(super) async fn run(global: &Global) -> Result<(), CliError> {
    let config = global.settings()?;
    telemetry::start_logging(&config.log);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let on_listening = |address| {
        let line = if global.json {
            json!({ "address": address }).to_string()
        } else {
            format!("listening on http://{address}")
        };
        // The parent process may not read stdout.
        let _ = write_stdout(&line);
    };
    server::serve(global.data_dir(), config, on_listening, stop).await?;
    Ok(())
}
