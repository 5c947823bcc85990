//! The filter as a native dynamic module of Envoy.
//!
//! The crate is a thin adapter, as is the filter for proxy-wasm hosts: `verdict` decides, and this crate hands it the
//! headers of a request, carries out the decision, and fetches what [`verdict::Refresh`] asks for.
//!
//! # Threads
//!
//! ```text
//! main thread     plugin.rs   configurations; source.rs: one fetch per process and bundle; metrics.rs
//! worker threads  filter.rs   one stream; worker.rs: what the streams of one thread share
//! own thread      timer.rs    wakes the others, because Envoy has no timers for modules
//! ```
//! The main thread publishes each bundle by an atomic exchange of a pointer. All workers decide their next request by
//! it, and none of them ever waits for it.
//!
//! # Safety
//!
//! [`abi`] contains all unsafe code: the declarations of the functions that this crate uses, safe types over them, and
//! the hooks that Envoy calls. A hook catches panics. A request is then answered with 503, the metric `keystile_panics`
//! counts it, and the worker empties its caches. What cannot be caught ends the proxy: a stack overflow, and memory that
//! is exhausted. The lints below keep this crate free of code that panics.
//!
//! # Compatibility
//!
//! The module uses functions of Envoy's ABI "v0.2.0" (Envoy 1.40), which Envoy keeps for at least four releases.
#![deny(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

pub mod abi;
mod edit;
mod filter;
mod log;
mod metrics;
mod plugin;
mod route;
mod source;
mod timer;
mod verifier;
mod worker;

pub use verifier::NativeVerifier;
