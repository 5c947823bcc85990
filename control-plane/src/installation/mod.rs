//! The installation: how it is created, and its identity.

pub mod initialize;
mod queries;

pub use initialize::{
    ExistingKeysPolicy, InitializeError, NewInstallation, initialize, initialize_at, initialize_new,
};
pub use queries::{
    Installation, PublicationState, find, insert_if_absent, publication_state, record_publication,
};
