//! Revocations: of single credentials, and by watermark.

pub mod logout;
mod queries;
pub mod revocations;
pub mod revoke;
pub mod unrevoke;
pub mod watermarks;

/// For how long a revocation is kept after its credential has expired, in seconds: the maximum clock leeway of edges, and
/// a day in which a clock that is ahead can be noticed and corrected, as purged rows are lost.
pub(crate) const EXPIRED_RETENTION_SECS: u64 = 300 + 86_400;

pub use logout::{LogoutError, logout};
pub use revoke::{AccessScope, DurableRevocation, RevocationOutcome, RevocationTarget, RevokeError, revoke};
pub use unrevoke::{Unrevocation, UnrevokeError, unrevoke, unrevoke_scope};
