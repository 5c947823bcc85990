//! The harness: a temporary deployment of a control plane, Envoy with the filter, and an upstream, all real.
//!
//! Each [`World`] has its own folder and its own loopback address, so that several can run at the same time with the same
//! port numbers. Its processes end when it is dropped, and when the test process ends.

pub mod attack;
pub mod client;
pub mod control_plane;
pub mod envoy;
pub mod forge;
#[cfg(feature = "host")]
pub mod host;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod scratch;
pub mod tools;
pub mod upstream;
pub mod wait;
pub mod world;

pub use attack::{Attack, Attackers};
pub use client::{Connection, Response, get};
pub use control_plane::{ControlPlane, Enrolled, Store};
pub use envoy::Envoy;
pub use forge::Forge;
pub use proxy::{Fault, Proxy};
pub use scratch::Scratch;
pub use upstream::Upstream;
pub use wait::eventually;
pub use world::{Options, World};
