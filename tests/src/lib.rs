//! The harness: a temporary deployment of a control plane, Envoy with the filter, and an upstream, all real.
//!
//! A [`Deployment`] lives in its own folder and on its own loopback address, so any number of them run side by side
//! on the same port numbers. Processes end with the world, or with the process that made it.

pub mod attack;
pub mod client;
pub mod control_plane;
pub mod deployment;
pub mod document_server;
pub mod envoy;
pub mod fake_control_plane;
#[cfg(feature = "host")]
pub mod host;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod scratch;
pub mod streams;
pub mod tools;
pub mod upstream;
pub mod vectors;
pub mod wait;

pub use attack::{Attack, Attackers};
pub use client::{Connection, Response, get};
pub use control_plane::{ControlPlane, EnrolledEdge, Store};
pub use deployment::{Deployment, Options};
pub use document_server::DocumentServer;
pub use envoy::Envoy;
pub use fake_control_plane::FakeControlPlane;
pub use proxy::{Fault, Proxy};
pub use scratch::Scratch;
pub use upstream::Upstream;
pub use wait::eventually;
