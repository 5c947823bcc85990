//! The native module, whose hook panics for a request with the header `x-keystile-test-panic`. Tests load it into Envoy.

pub use keystile_envoy_module::abi;
