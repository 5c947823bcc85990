//! Decides: request + bundle + now -> verdict.
//!
//! * [`Policy`] is the plugin configuration, parsed strictly.
//! * [`Gate::decide_with`] gives a [`Verdict`]; [`Gate::forward`], [`Gate::answer`] and [`Gate::filter_state`] say what
//!   the host is to do with it. A [`Cache`] spares it signatures, a [`SignatureVerifier`] of the host makes them cheaper.
//! * [`permission`] says what a subject may do, [`route`] what a request must bring.
//! * [`Refresh`] says what to fetch when, and what to keep.
//!
//! Nothing here does anything: time and randomness are arguments, effects are return values, so a test is an equality.
#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs, clippy::missing_errors_doc)]
// This runs inside the proxy, where a panic takes a worker down.
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
pub use fleet::{FLEET_STATUS, Fleet, FleetStatus, SIGN_OF_LIFE_MS};
pub use freshness::{Freshness, Line, StalePolicy, Watch};
pub use gate::{Gate, Headers, Request};
pub use identity::Identity;
pub use issuer::OtherIssuer;
pub use lease::{LEASE_RENEWAL_MS, Lease, Role};
pub use policy::{ApiKeys, ControlPlane, Mode, Policy, PolicyError, StateItem, Tokens, Uncovered};
pub use reason::Reason;
pub use refresh::{Call, Failure, Floor, Problem, Progress, Refresh, Signed, Step, Substitute};
pub use token::{Algorithm, SignatureVerifier, Unaided};
pub use upstream::{Forward, Forwarded, Upstream};
pub use verdict::{Admission, Passage, Refusal, Verdict};
