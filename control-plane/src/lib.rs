//! The control plane of Keystile: issues and revokes keys, and publishes the bundle that edges check them with.
//!
//! ```text
//! api/, cli/  ->  operations/  ->  model/, store/
//!                publisher/    ->  model/, store/
//! ```
//! Interfaces never touch the store, so they cannot behave differently; a test reads their `use` lines.

pub mod api;
pub mod authority;
pub mod cli;
pub mod clock;
pub mod config;
pub mod home;
pub mod journal;
pub mod jwks;
pub mod keys;
pub mod listener;
pub mod model;
pub mod operations;
pub mod publisher;
pub mod random;
mod rates;
mod redact;
mod seldom;
pub mod server;
pub mod store;
pub mod telemetry;
