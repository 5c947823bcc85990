use bundle::Manifest;

/// How old what the edge knows is, and what follows. A manifest younger than its lifetime is fresh; past it the edge
/// goes on for `outage_grace`, then denies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    Fresh,
    /// The control plane has not been heard of for longer than a manifest lives.
    Stale,
    /// Nor for the grace after that: nothing is admitted.
    Expired,
}

impl Freshness {
    /// `now` and `outage_grace` in milliseconds.
    pub fn of(manifest: &Manifest, outage_grace: u64, now: u64) -> Self {
        if now < manifest.expires_at() {
            Self::Fresh
        } else if now < manifest.expires_at().saturating_add(outage_grace) {
            Self::Stale
        } else {
            Self::Expired
        }
    }
}
