//! The control plane of Keystile: issues and revokes keys, and publishes the bundle that edges verify them with.
//!
//! ```text
//! api, cli, server  ->  contexts (a folder for each noun)  ->  db  ->  platform, config  ->  domain
//! ```
//! A context owns its types, rules, SQL and errors. Interfaces translate, so they cannot behave differently. `publishing`
//! reads what contexts have changed, and no context names it. Tests check the names that each file uses.

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
