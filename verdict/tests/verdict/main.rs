//! Tests of decisions without a proxy: requests, bundles and times are values.

mod caches;
mod credentials;
mod fixtures;
mod foreign_tokens;
mod gate;
mod issuers;
mod messages;
mod model;
mod open_streams;
mod permissions;
mod permissions_model;
mod places;
mod policy_docs;
mod policy_schema;
mod policy_validation;
mod refresh;
mod report_mode;
mod responses;
mod route_forms;
mod route_requirements;
mod routes;
mod rule_validation;
mod stale_log;
mod stolen_keys;
mod upstreams;
