//! The control plane of Keystile: issues and revokes keys, and publishes the bundle that edges verify them with.
//!
//! ```text
//! api/, cli/  ->  operations/  ->  model/, store/
//!                publisher/    ->  model/, store/
//! ```
//! `api` and `cli` never access the store, so they cannot behave differently. A test checks their `use` declarations.

pub mod accounts;
pub mod api;
pub mod audit;
pub mod cli;
pub mod config;
pub mod credentials;
pub mod db;
pub mod domain;
pub mod edges;
pub mod import;
pub mod installation;
pub mod issuers;
pub mod journal;
pub mod keys;
pub mod limits;
pub mod maintenance;
pub mod platform;
pub mod publishing;
pub mod restore;
pub mod revocation;
pub mod server;
pub mod service;
