//! The harness: a temporary world with a control plane, Envoy with the filter, and an upstream, all real.
//!
//! A [`World`] lives in its own folder and on its own loopback address, so any number of them run side by side
//! on the same port numbers. Processes end with the world, or with the process that made it.

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
pub mod streams;
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
