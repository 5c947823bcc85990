//! A database that was restored from a backup never makes good again what was revoked after it.
//!
//! ```text
//! compare   what the journal says that the store does not know: then it was restored
//! merge     by each server before it publishes anything: all that was taken back is taken back again. It only refuses
//! repair    by an admin: what was issued after the backup, and so is not known, is refused; revocations that had been
//!           taken back are taken back again
//! ```
//! Of what was issued after the backup nothing is left but the time: since when the store does not know all of it, and
//! until when it was found out. That is a gap. Edges refuse what was issued in one, but for what the store knows of it,
//! and before they ask any base, whose answers for what it does not know are random. Nothing is issued into a gap later.

mod compare;
mod merge;
mod repair;

use super::OpenError;
use crate::{clock::Time, home::Home, journal::Journal, store::Store};
pub(super) use compare::compare;
pub use compare::{Missing, WentBack};
pub(super) use merge::{Merged, delete_again, merge};

/// Takes back again what the journal says was taken back, in a store that went back under a running server. Accounts
/// that had been deleted are deleted again when a server starts; what they were issued is refused already.
pub(crate) async fn refuse_again(
    store: &Store,
    home: &Home,
    journal: &Journal,
    now: Time,
) -> Result<(), OpenError> {
    merge(store, home, journal, now).await.map(drop)
}

pub use repair::{Examined, RepairError, Repaired, Started, examine, refuse_everything, repair, standing};
