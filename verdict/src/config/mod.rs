//! The plugin configuration: its members, how they are read, and the secrets that it takes from the environment.

pub(crate) mod environment;
pub(crate) mod policy;
mod reader;
#[cfg(feature = "schema")]
pub(crate) mod schema;

pub use environment::Environment;
pub use policy::{
    ApiKeys, ControlPlane, FilterStateItem, Mode, Policy, PolicyError, PolicyMembers, Tokens,
    UncoveredPolicy, is_header_name,
};
pub(crate) use reader::*;
