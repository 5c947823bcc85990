//! Decides about requests: request + bundle + current time -> decision.
//!
//! * [`Policy`] is the plugin configuration, parsed strictly.
//! * [`Gate::decide_with`] returns a [`Decision`]. [`Gate::forward_headers`], [`Gate::refusal_response`] and
//!   [`Gate::filter_state`] return what the host has to do with the request. A [`Cache`] saves signature verifications,
//!   and a host can provide a faster [`SignatureVerifier`].
//! * [`permission`] evaluates what a subject may do, and [`route`] finds the rule for a request.
//! * [`Refresh`] decides what to fetch and when, and has the current bundle.
//!
//! This crate performs no input or output: time and randomness are arguments, and effects are return values, so that
//! tests compare values.
#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs, clippy::missing_errors_doc)]
// This code runs in the proxy, where a panic crashes a worker.
#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::unwrap_used
    )
)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod cache;
mod claim;
mod client;
mod config;
mod credential;
mod decision;
mod environment;
mod freshness;
mod gate;
mod identity;
mod issuer;
mod lease;
mod open_stream;
mod open_streams;
pub mod permission;
mod policy;
mod reason;
mod refresh;
mod response;
pub mod route;
#[cfg(feature = "schema")]
mod schema;
mod upstream;
mod worker_table;

pub use bundle::{Entry, InlineBundle, Manifest, Snapshot};
pub use cache::Cache;
pub use client::ClientAddress;
pub use credential::CredentialSource;
pub use decision::{Admission, Decision, PassReason, Refusal, Stripping};
pub use environment::Environment;
pub use freshness::{Freshness, LogLine, StalePolicy, StalenessWatch};
pub use gate::{Gate, Headers, Request};
pub use identity::Identity;
pub use issuer::ForeignIssuer;
pub use lease::{LEASE_RENEWAL_MS, LeaderRole, Lease};
pub use open_stream::{OpenStream, OpenStreamPolicy};
pub use open_streams::{Admitted, Checked, Ended, OpenStreams};
pub use policy::{
    ApiKeys, ControlPlane, FilterStateItem, Mode, Policy, PolicyError, PolicyMembers, Tokens,
    UncoveredPolicy, is_header_name,
};
pub use reason::{AmbiguousCredential, Reason};
pub use refresh::{
    FetchRequest, FetchStep, MinimumPosition, ProblemDocument, Progress, ProxyResponse, Refresh,
    RefreshError, SignedPart,
};
pub use response::{Response, ResponseConfig, ResponseStyle, is_grpc};
pub use token::{Algorithm, Fingerprint, SignatureVerifier, SoftwareVerifier};
pub use upstream::{Forward, ForwardedHeader, UpstreamIdentity};
pub use worker_table::{
    EDGE_STATUS_HEADER, Enforcement, HEARTBEAT_INTERVAL_MS, MISSING_KEYS_HEADER, MISSING_KEYS_INTERVAL_MS,
    WorkerSummary, WorkerTable,
};
