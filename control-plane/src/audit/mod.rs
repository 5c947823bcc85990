//! The audit log.

pub mod list;
mod queries;

pub use list::list_audit;
pub use queries::{has_entry, latest_until, list_newest, purge};
