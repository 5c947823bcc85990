//! One leader per process fetches; the others read what it shares.

/// Who fetches, until when. 16 bytes in shared data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    holder: u64,
    until: u64,
}

/// What a worker does about the bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Lead, provided that this lease replaces the one that was read.
    Lead(Lease),
    /// Read what the leader shares.
    Follow,
}

impl Lease {
    /// Reads what [`Self::bytes`] wrote; returns `None` for anything else.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let (holder, until) = bytes.split_first_chunk()?;
        Some(Self { holder: u64::from_be_bytes(*holder), until: u64::from_be_bytes(until.try_into().ok()?) })
    }

    /// Returns the bytes for shared data.
    pub fn bytes(self) -> [u8; 16] {
        (u128::from(self.holder) << 64 | u128::from(self.until)).to_be_bytes()
    }
}

impl Role {
    /// What `me` is to do about the lease that was read. `now` in milliseconds.
    pub fn of(held: Option<Lease>, me: u64, now: u64) -> Self {
        match held {
            // A lease further off than any that is ever taken comes from another clock: it binds nobody.
            Some(Lease { holder, until })
                if holder != me && now < until && until <= now.saturating_add(LEASE_MS) =>
            {
                Self::Follow
            }
            _ => Self::Lead(Lease { holder: me, until: now.saturating_add(LEASE_MS) }),
        }
    }
}

/// How often a worker looks at the lease, milliseconds.
pub const LEASE_RENEWAL_MS: u64 = 250;

/// Four renewals: when a leader's VM dies, another worker fetches within a second.
const LEASE_MS: u64 = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_leads_and_another_takes_over_when_it_falls_silent() {
        let Role::Lead(first) = Role::of(None, 1, 10_000) else { panic!("nobody leads") };
        assert_eq!(Lease::read(&first.bytes()), Some(first));
        assert_eq!(Role::of(Some(first), 2, 10_999), Role::Follow);
        assert!(matches!(Role::of(Some(first), 1, 10_250), Role::Lead(_)));
        assert!(matches!(Role::of(Some(first), 2, 11_000), Role::Lead(Lease { holder: 2, .. })));
        assert!(matches!(Role::of(Some(first), 2, 1), Role::Lead(_)), "the clock went back");
        assert_eq!(Lease::read(&[0; 15]), None);
        assert_eq!(Lease::read(&[0; 17]), None);
    }
}
