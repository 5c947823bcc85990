//! The store: SQLite or PostgreSQL, through one set of queries.
//!
//! Lookups return `Option`, writes return what they have changed, time and ids are arguments, and row types are private. The
//! caller must commit the [`Change`] that it has begun; committed means durable. Nothing else writes.

mod change;
mod engine;
mod error;
mod file;
mod migrations;
mod notify;
mod pool;
mod postgres_url;
pub(crate) mod prefix_paging;
pub(crate) mod row;
mod transaction;
pub mod versions;

pub use change::{AfterCommit, AuditLine, Change, Draft, PublishedVersions, Unobserved, Upkeep};
pub use engine::Engine;
pub use error::StoreError;
pub use file::DatabaseFiles;
pub use notify::CommitListener;
pub use pool::{SchemaAge, Startup, Store, with_timeout};
pub use postgres_url::PostgresUrlError;
pub use row::NEVER_EXPIRES;
pub use transaction::{Executor, ReadConnection, ReadTransaction, Write};
