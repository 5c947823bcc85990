//! Revocations: of single credentials, and by watermark.

pub mod logout;
pub mod queries;
pub mod revoke;
pub mod unrevoke;
pub mod watermarks;

pub use logout::{LogoutError, logout};
pub use revoke::{AccessScope, DurableRevocation, RevocationOutcome, RevocationTarget, RevokeError, revoke};
pub use unrevoke::{Unrevocation, UnrevokeError, unrevoke, unrevoke_scope};
