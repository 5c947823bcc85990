//! The gaps that edges are told of, and what is known of what was issued in them.

use bundle::{
    Gap,
    builder::{Builder, TooLarge},
};
use token::Fingerprint;

use crate::store::{Read, StoreError, gaps};

pub(super) struct Lost {
    gaps: Vec<Gap>,
    known: Vec<Fingerprint>,
}

/// None if nothing changed since a version, and nothing that is known has been forgotten.
pub(super) async fn load(read: &mut Read, since: u64, forgotten: bool) -> Result<Option<Lost>, StoreError> {
    // Mostly there is none.
    let Some(version) = gaps::version(read).await? else { return Ok(None) };
    if version <= since && !forgotten {
        return Ok(None);
    }
    let gaps = gaps::list(read).await?.into_iter().filter(|gap| gap.version.is_some());
    let gaps =
        gaps.map(|gap| Gap { issued_after: gap.issued_after, issued_until: gap.issued_until }).collect();
    Ok(Some(Lost { gaps, known: gaps::known(read).await? }))
}

pub(super) fn apply(lost: Lost, builder: &mut Builder) -> Result<(), TooLarge> {
    builder.set_gaps(&lost.gaps, lost.known)
}
