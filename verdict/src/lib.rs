//! Decides: request + bundle + now -> verdict.
//!
//! * [`Policy`] is the plugin configuration, parsed strictly.
//! * [`Gate::decide`] gives a [`Verdict`]; [`Gate::forward`] and [`Gate::answer`] say what the host is to do with it.
//! * [`permission`] says what a subject may do, [`route`] what a request must bring.
//! * [`Refresh`] says what to fetch when, and what to keep.
//!
//! Nothing here does anything: time and randomness are arguments, effects are return values, so a test is an equality.
#![no_std]
#![forbid(unsafe_code)]
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
mod claim;
mod client;
mod credential;
mod freshness;
mod gate;
mod lease;
pub mod permission;
mod policy;
mod reason;
mod refresh;
pub mod route;
mod strict;

pub use answer::{Answer, Answers, Style};
pub use bundle::{Entry, Manifest, Snapshot};
pub use client::ClientAddress;
pub use freshness::Freshness;
pub use gate::{Admission, Gate, Passage, Verdict};
pub use lease::{LEASE_RENEWAL_MS, Lease, Role};
pub use policy::{ControlPlane, CredentialSource, Policy, PolicyError, Tokens};
pub use reason::Reason;
pub use refresh::{Call, Failure, Refresh, Step};
