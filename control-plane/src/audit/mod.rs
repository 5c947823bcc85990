//! The audit log.

pub mod list;
pub mod queries;

pub use list::list_audit;
