//! The filter for Envoy and every other proxy-wasm host: as thin as it gets. What is decided is decided in `verdict`;
//! here headers go in and out, and what [`verdict::Refresh`] asks for is fetched.
// Without the standard library, nothing formats a panic that never comes. A build for the machine that checks it has one.
#![cfg_attr(target_family = "wasm", no_std)]
#![deny(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

extern crate alloc;

mod abi;
mod feed;
mod filter;
mod log;
mod metrics;
mod pairs;
mod root;
mod sharing;
mod verifier;
mod vm;
mod worker;
