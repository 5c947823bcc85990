//! Recovery of a database that was restored from a backup: revoked credentials never become valid again.
//!
//! ```text
//! compare   finds the journal entries that the store lacks; if there are any, the database was restored
//! merge     by each server before it publishes: applies the revocations and deletions. It only refuses credentials
//! repair    by an admin: refuses the credentials that were issued after the backup and are not in the store, and
//!           applies the un-revocations
//! ```
//! The store knows nothing of the credentials that were issued after the backup but the time: from the backup until the
//! rollback was found. This interval is a gap. Edges refuse credentials that were issued in a gap unless the store has
//! them. Edges check gaps before the base, whose result is undefined for credentials that it does not cover. No credential
//! is issued in a gap later.

mod compact_journal;
mod compare;
pub mod gaps;
mod merge;
mod queries;
mod repair;

pub use compact_journal::{compact_journal, compact_journal_if_due};
pub(crate) use compare::find_missing_entries;
pub use compare::{MissingEntries, StoreRollback};
pub(crate) use merge::{Merged, merge_journal, refuse_after_restore, repeat_deletion};

pub use repair::{
    DatabaseExamination, GapStart, RepairError, RepairOutcome, examine_database, examine_service,
    refuse_everything, repair_database,
};
