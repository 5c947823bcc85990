//! What everything else uses: the clock, randomness, files, the log and metrics.

pub mod clock;
pub mod data_dir;
pub(crate) mod log_throttle;
pub mod random;
pub(crate) mod rates;
pub(crate) mod redact;
pub(crate) mod suggestion;
pub mod telemetry;
