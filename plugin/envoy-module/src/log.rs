//! Envoy's log, under the component `dynamic_modules`.

use std::panic::PanicHookInfo;

use crate::abi::{self, LogLevel};

/// The interval of a [`LogThrottle`].
const INTERVAL_MS: u64 = 60_000;

pub(crate) fn info(message: &str) {
    write(LogLevel::Info, message);
}

pub(crate) fn warn(message: &str) {
    write(LogLevel::Warn, message);
}

pub(crate) fn error(message: &str) {
    write(LogLevel::Error, message);
}

/// Logs where the code panicked, but not the message of the panic: it may quote a credential.
pub(crate) fn log_panic(info: &PanicHookInfo<'_>) {
    if let Some(location) = info.location() {
        write(LogLevel::Critical, &format!("panicked at {location}"));
    }
}

fn write(level: LogLevel, message: &str) {
    abi::log(level, &format!("keystile: {message}"));
}

/// Limits how often a line is logged: once a minute.
#[derive(Debug, Default)]
pub(crate) struct LogThrottle {
    last_at: u64,
}

impl LogThrottle {
    /// Returns true, and starts the interval again, if the last line was logged a minute or more before `now`.
    pub(crate) fn allow(&mut self, now: u64) -> bool {
        let is_due = now.abs_diff(self.last_at) >= INTERVAL_MS;
        if is_due {
            self.last_at = now;
        }
        is_due
    }
}
