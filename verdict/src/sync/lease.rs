//! Leader election among the workers of a process: one worker fetches the bundle, and the others load it from shared
//! data.

/// Minimum time between two reads of the lease, in milliseconds. It is below the period of slow ticks, so that each of
/// these reads the lease even if it comes early.
pub const LEASE_RENEWAL_MS: u64 = 200;

/// The duration of a lease, in milliseconds: four slow ticks. If the VM of the leader crashes, another worker fetches
/// after about a second.
const LEASE_MS: u64 = 1000;

/// The lease of the leader: its holder and its expiry. It takes 16 bytes in shared data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    holder: u64,
    until: u64,
}

/// The role of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaderRole {
    /// The worker becomes or stays leader if it replaces the lease that it read with this one.
    Leader(Lease),
    /// The worker loads the bundle that the leader shares.
    Follower,
}

impl Lease {
    /// Decodes a lease, or returns `None` for malformed bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (holder, until) = bytes.split_first_chunk()?;
        Some(Self { holder: u64::from_be_bytes(*holder), until: u64::from_be_bytes(until.try_into().ok()?) })
    }

    /// Returns the worker that holds the lease.
    pub const fn holder(self) -> u64 {
        self.holder
    }

    /// Encodes the lease for shared data.
    pub fn to_bytes(self) -> [u8; 16] {
        (u128::from(self.holder) << 64 | u128::from(self.until)).to_be_bytes()
    }
}

impl LeaderRole {
    /// Returns the role of a worker, given the lease that it read. `now` is in milliseconds since the Unix epoch.
    pub fn decide(held: Option<Lease>, worker: u64, now: u64) -> Self {
        match held {
            // A lease that ends later than a new one would comes from another clock and is ignored.
            Some(Lease { holder, until })
                if holder != worker && now < until && until <= now.saturating_add(LEASE_MS) =>
            {
                Self::Follower
            }
            _ => Self::Leader(Lease { holder: worker, until: now.saturating_add(LEASE_MS) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lease_passes_to_another_worker_after_it_expires() {
        let LeaderRole::Leader(first) = LeaderRole::decide(None, 1, 10_000) else { panic!("no leader") };
        assert_eq!(Lease::from_bytes(&first.to_bytes()), Some(first));
        assert_eq!(LeaderRole::decide(Some(first), 2, 10_999), LeaderRole::Follower);
        assert!(matches!(LeaderRole::decide(Some(first), 1, 10_250), LeaderRole::Leader(_)));
        assert!(matches!(
            LeaderRole::decide(Some(first), 2, 11_000),
            LeaderRole::Leader(Lease { holder: 2, .. })
        ));
        assert!(
            matches!(LeaderRole::decide(Some(first), 2, 1), LeaderRole::Leader(_)),
            "the clock went back"
        );
        assert_eq!(Lease::from_bytes(&[0; 15]), None);
        assert_eq!(Lease::from_bytes(&[0; 17]), None);
    }
}
