//! Decides about requests: request + bundle + current time -> verdict.
//!
//! * [`Policy`] is the plugin configuration, parsed strictly.
//! * [`Gate::decide_with`] returns a [`Verdict`]. [`Gate::forward`], [`Gate::answer`] and [`Gate::filter_state`] return
//!   what the host has to do with the request. A [`Cache`] saves signature verifications, and a host can provide a
//!   faster [`SignatureVerifier`].
//! * [`permission`] evaluates what a subject may do, and [`route`] finds the rule for a request.
//! * [`Refresh`] decides what to fetch and when, and holds the current bundle.
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

mod answer;
mod cache;
mod claim;
mod client;
mod config;
mod credential;
mod environment;
mod fleet;
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
pub mod route;
#[cfg(feature = "schema")]
mod schema;
mod upstream;
mod verdict;

pub use answer::{Answer, Answers, Style};
pub use bundle::{Entry, InlineBundle, Manifest, Snapshot};
pub use cache::Cache;
pub use client::ClientAddress;
pub use credential::CredentialSource;
pub use environment::Environment;
pub use fleet::{Enforcement, FLEET_STATUS, Fleet, FleetStatus, SIGN_OF_LIFE_MS};
pub use freshness::{Freshness, Line, StalePolicy, Watch};
pub use gate::{Gate, Headers, Request};
pub use identity::Identity;
pub use issuer::OtherIssuer;
pub use lease::{LEASE_RENEWAL_MS, Lease, Role};
pub use open_stream::{OpenStream, OpenStreamPolicy};
pub use open_streams::{Admitted, Checked, Ended, OpenStreams};
pub use policy::{
    ApiKeys, ControlPlane, Mode, Policy, PolicyError, PolicyMembers, StateItem, Tokens, Uncovered,
};
pub use reason::Reason;
pub use refresh::{Call, Failure, Floor, Problem, Progress, Refresh, Signed, Step, Substitute};
pub use token::{Algorithm, SignatureVerifier, Unaided};
pub use upstream::{Forward, Forwarded, Upstream};
pub use verdict::{Admission, Passage, Refusal, Verdict};
