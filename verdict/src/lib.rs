//! Decides about requests: request + bundle + current time -> decision.
//!
//! * `config`: [`Policy`] is the plugin configuration, parsed strictly.
//! * `credential` finds the credential in a request, and `identity` names its subject. A [`Cache`] saves signature
//!   verifications, and a host can provide a faster [`SignatureVerifier`].
//! * `decision`: [`Gate::decide_with`] returns a [`Decision`]; [`route`] finds the rule for a request, and
//!   [`OpenStreams`] are asked again while they last.
//! * [`permission`] evaluates what a subject may do.
//! * `response`: [`Gate::forward_headers`], [`Gate::refusal_response`] and [`Gate::filter_state`] return what the host has
//!   to do with the request.
//! * `sync`: [`Refresh`] decides what to fetch and when, and has the current bundle.
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

mod config;
mod credential;
mod decision;
mod identity;
pub mod permission;
mod response;
mod sync;

pub use bundle::{Entry, InlineBundle, Manifest, Snapshot};
pub use config::{
    ApiKeys, ControlPlane, Environment, FilterStateItem, Mode, Policy, PolicyError, PolicyMembers, Tokens,
    UncoveredPolicy, is_header_name,
};
pub use credential::CredentialSource;
pub use decision::{
    Admission, Admitted, AmbiguousCredential, BareCredential, Checked, ClientAddress, Decision, Ended, Gate,
    Headers, OpenStream, OpenStreamPolicy, OpenStreams, PassReason, Reason, Refusal, Request, Stripping,
    route,
};
pub use identity::{Cache, ForeignIssuer, Identity};
pub use response::{
    Forward, ForwardedHeader, Response, ResponseConfig, ResponseStyle, UpstreamIdentity, is_grpc,
};
pub use sync::{
    EDGE_STATUS_HEADER, Enforcement, FetchRequest, FetchStep, Freshness, HEARTBEAT_INTERVAL_MS,
    LEASE_RENEWAL_MS, LeaderRole, Lease, LogLine, MISSING_KEYS_HEADER, MISSING_KEYS_INTERVAL_MS,
    MinimumPosition, ProblemDocument, Progress, ProxyResponse, Refresh, RefreshError, SignedPart,
    StalePolicy, StalenessWatch, WorkerSummary, WorkerTable, failure_hint,
};
pub use token::{Algorithm, Fingerprint, SignatureVerifier, SoftwareVerifier};
