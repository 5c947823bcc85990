//! The filter for Envoy and every other proxy-wasm host: as thin as it gets. What is decided is decided in `verdict`;
//! here headers go in and out, and what [`verdict::Refresh`] asks for is fetched.
#![deny(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

mod filter;
mod metrics;
mod root;
mod sharing;
mod worker;

use proxy_wasm::types::LogLevel;

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(root::Root::default()));
}}
