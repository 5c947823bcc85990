//! The filter for Envoy and every other proxy-wasm host.
//!
//! The crate is a thin adapter: `verdict` decides, and this crate hands it the headers of a request, carries out the
//! decision, and fetches what [`verdict::Refresh`] asks for. Exports, life cycle and callbacks come from the
//! `proxy-wasm` SDK: the host creates a [`PluginContext`] for each plugin configuration, which creates an
//! [`filter::HttpFilter`] for each stream. Several plugin configurations can share a VM: two while one replaces the
//! other, and those of all filters with the same `vm_id`.
//!
//! # Host calls
//!
//! Calls to the host go through [`hostcalls`], which contains all unsafe code of the filter. Its functions return a
//! [`Result`] for every status, and the filter admits a request only if all of its changes were carried out.
//!
//! # Exports
//!
//! The SDK exports every callback of the ABI, and a host pays for each exported one: Envoy calls each of them for
//! every request, and with `proxy_on_request_body` or `proxy_on_response_body` for every chunk of a body. `build.sh`
//! therefore removes the exports that the filter does not need. The imports remain: the SDK's traits reach every
//! function of the ABI 0.2.1, all of which a host must define, even if only to return 12 (Unimplemented).
//!
//! # Traps
//!
//! The filter's own code does not panic, and lints keep it so. The SDK panics in the cases below, all of which are
//! faults of the host: no client can cause them. A panic is a trap, and the host's failure policy decides about the
//! current request and all other streams of the VM. Envoy's `FAIL_CLOSED` and `FAIL_RELOAD` refuse them, and with
//! `FAIL_RELOAD` a new VM reads the bundle from shared data; `FAIL_OPEN` must never be used. The panic hook logs
//! where the code panicked.
//!
//! | Where | When |
//! |---|---|
//! | `proxy_http_call` | The host returns a status other than 0 (Ok), 2 (BadArgument) and 10 (InternalFailure), or a call ID that is still in use. |
//! | `proxy_on_http_call_response` | The call ID is unknown, has been answered already, or is answered before `proxy_http_call` returns; or `proxy_set_effective_context` returns a status other than 0. |
//! | `proxy_on_context_create` | The ID is in use, or the plugin context of the stream is unknown. |
//! | `proxy_on_queue_ready` | The context is not a plugin context. Envoy remembers only its ID, and this can be that of a stream in the VM that replaces one that crashed, if the plugin configuration had been replaced before. The queue is not used again five seconds after the crash. |
//! | Other callbacks | The context is unknown or has been deleted. |
//! | Callbacks within a host call | The host enters the VM again, other than with a callback of a stream during one of a plugin context, or with `proxy_on_tick` or `proxy_on_configure` during one of a stream. |
//! | `malloc` | The VM has no memory left. |
//!
//! Where the SDK lets the host enter the VM again, the filter refuses the request or the configuration, or skips the
//! tick.
#![deny(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

mod bundle_fetcher;
mod filter;
mod header_map;
mod host_verifier;
mod hostcalls;
mod log;
mod metrics;
mod plugin_context;
mod shared_store;
mod tick_period;
mod wake_queue;
mod worker;

use crate::plugin_context::PluginContext;

proxy_wasm::main! {{
    std::panic::set_hook(Box::new(log::log_panic));
    proxy_wasm::set_root_context(|id| Box::new(PluginContext::new(id)));
}}
