use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::{Failure, Global, write};
use crate::{server, telemetry};

/// The only line on stdout is the address; logs go to stderr.
pub(super) async fn run(global: &Global) -> Result<(), Failure> {
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
    let bound = |address| {
        let line = if global.json {
            json!({ "address": address }).to_string()
        } else {
            format!("listening on http://{address}")
        };
        // Whoever started it may not read stdout.
        let _ = write(&line);
    };
    server::serve(global.home(), config, bound, stop).await?;
    Ok(())
}
