//! Revocations of different credentials that edges cannot distinguish.

use bundle::builder::Collision;

/// Returns the result, or logs a collision and returns `None`. The store has one credential for each prefix, so a
/// collision is a damaged database; the first entry stays in effect.
pub(super) fn log_collision(changed: Result<bool, Collision>) -> Option<bool> {
    match changed {
        Ok(changed) => Some(changed),
        Err(collision) => {
            tracing::error!(%collision, "two revocations have the same fingerprint prefix; the second is ignored");
            None
        }
    }
}
