//! The gaps in the bundle, with the known credentials that were issued in them.

use bundle::{
    Gap,
    builder::{Builder, TooLarge},
};
use token::Fingerprint;

use crate::{
    db::{ReadTransaction, StoreError},
    domain::Version,
    restore::gaps,
};

/// The repaired gaps, and the credentials in them that stay valid.
pub(super) struct ClosedGaps {
    gaps: Vec<Gap>,
    known: Vec<Fingerprint>,
}

/// Reads the gaps. Returns `None` if they have not changed since a version and no expired rows were purged.
pub(super) async fn load(
    read: &mut ReadTransaction,
    since: Version,
    was_purged: bool,
) -> Result<Option<ClosedGaps>, StoreError> {
    // Most databases have no gap.
    let Some(version) = gaps::latest_version(read).await? else { return Ok(None) };
    if version <= since && !was_purged {
        return Ok(None);
    }
    let gaps = gaps::list(read).await?.into_iter().filter(|gap| gap.version.is_some());
    let gaps = gaps
        .map(|gap| Gap { issued_after: gap.issued_after.get(), issued_until: gap.issued_until.get() })
        .collect();
    Ok(Some(ClosedGaps { gaps, known: gaps::known_credentials(read).await? }))
}

pub(super) fn apply(gaps: ClosedGaps, builder: &mut Builder) -> Result<(), TooLarge> {
    builder.set_gaps(&gaps.gaps, gaps.known)
}
