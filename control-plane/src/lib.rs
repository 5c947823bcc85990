//! The control plane of Keystile: issues and revokes keys, and publishes the bundle that edges verify them with.
//!
//! ```text
//! api/, cli/  ->  operations/  ->  model/, store/
//!                publisher/    ->  model/, store/
//! ```
//! `api` and `cli` never access the store, so they cannot behave differently. A test checks their `use` declarations.

pub mod api;
pub mod cli;
pub mod clock;
pub mod config;
pub mod data_dir;
pub mod import;
pub mod journal;
pub mod jwks;
pub mod keys;
pub mod listener;
mod log_throttle;
pub mod model;
pub mod operations;
pub mod publisher;
pub mod publisher_keys;
pub mod random;
mod rates;
mod redact;
pub mod server;
pub mod store;
pub mod telemetry;
