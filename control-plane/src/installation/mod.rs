//! The installation: how it is created, and its identity.

pub mod initialize;
pub mod queries;

pub use initialize::{
    ExistingKeysPolicy, InitializeError, NewInstallation, initialize, initialize_at, initialize_new,
};
