//! The promises, each held against the real Envoy with the filter that ships; one file per promise.

mod access_log;
mod admits;
mod bad_configuration;
mod benchmark;
mod carried_bundle;
mod control_plane_down;
mod costs;
mod edge;
mod filter_crash;
mod fleet;
mod forged_identity;
mod forged_manifest;
mod hostile_headers;
mod kill_nine;
mod native_signatures;
mod never_down;
mod refuses;
mod restart;
mod revoked;
mod same_policy;
