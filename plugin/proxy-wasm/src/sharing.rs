//! What the workers of one process share: the lease of the leader, and the bundle it fetched.
//!
//! ```text
//! PREFIX/lease       who fetches, until when
//! PREFIX/stamp       version and issue time of the manifest below: all that is read at every tick
//! PREFIX/members     how many workers have started: no two have the same number
//! PREFIX/workers     which version each worker enforces
//! PREFIX/manifest    signed bytes
//! PREFIX/SLOT        the bytes of an object; each worker verifies them again through the manifest
//! ```
//! The prefix is made of whom the bundle comes from and for whom it is, so that two filters in one process do not mix.

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};

use verdict::{Entry, Fleet, Lease, Manifest, Policy, Role};

use crate::abi::{self, HostError};

pub(crate) struct Sharing {
    prefix: String,
}

pub(crate) type Stamp = [u8; 16];

pub(crate) fn stamp_of(manifest: &Manifest) -> Stamp {
    (u128::from(manifest.version()) << 64 | u128::from(manifest.issued_at())).to_be_bytes()
}

impl Sharing {
    pub(crate) fn new(policy: &Policy, cluster: &str) -> Self {
        let keys: Vec<String> = policy.root_keys.iter().map(ToString::to_string).collect();
        Self { prefix: format!("keystile/{}/{}/{}", cluster, policy.audience, keys.join(",")) }
    }

    /// Tells a worker from the others, also from one that started in the same nanosecond.
    pub(crate) fn member(&self, started: u64) -> u64 {
        let key = self.key("members");
        for _ in 0..ATTEMPTS {
            let (held, version) = abi::shared_data(&key).unwrap_or_default();
            let number = held.try_into().map_or(0, u64::from_be_bytes).wrapping_add(1);
            if abi::set_shared_data(&key, &number.to_be_bytes(), version) != Err(HostError::MISMATCH) {
                return started ^ number.rotate_right(16);
            }
        }
        started
    }

    /// Whether this worker leads now. When two take the lease at once, one of them finds out here next time. On a host
    /// without shared data every worker leads, and fetches for itself.
    pub(crate) fn lead(&self, me: u64, now: u64) -> bool {
        let key = self.key("lease");
        let (held, version) = match abi::shared_data(&key) {
            Ok(held) => held,
            // Nobody has led yet: there is no version to compare with.
            Err(HostError::NOT_FOUND) => Default::default(),
            Err(_) => return true,
        };
        match Role::of(Lease::read(&held), me, now) {
            Role::Lead(lease) => {
                abi::set_shared_data(&key, &lease.bytes(), version) != Err(HostError::MISMATCH)
            }
            Role::Follow => false,
        }
    }

    /// Takes the lease whoever has it: what the others share can't be read. Whether this worker leads now.
    pub(crate) fn seize(&self, me: u64, now: u64) -> bool {
        let key = self.key("lease");
        let (_, version) = abi::shared_data(&key).unwrap_or_default();
        match Role::of(None, me, now) {
            Role::Lead(lease) => {
                abi::set_shared_data(&key, &lease.bytes(), version) != Err(HostError::MISMATCH)
            }
            Role::Follow => false,
        }
    }

    /// Whether the others can read now that this worker enforces that version.
    pub(crate) fn tell(&self, me: u64, version: u64, now: u64) -> bool {
        let key = self.key("workers");
        let (held, at) = abi::shared_data(&key).unwrap_or_default();
        let mut fleet = Fleet::read(&held);
        fleet.note(me, version, now);
        // Another worker may have told something meanwhile: then again at the next tick.
        abi::set_shared_data(&key, &fleet.bytes(), at) != Err(HostError::MISMATCH)
    }

    pub(crate) fn fleet(&self) -> Fleet {
        Fleet::read(&self.read("workers").unwrap_or_default())
    }

    pub(crate) fn stamp(&self) -> Option<Stamp> {
        self.read("stamp")?.try_into().ok()
    }

    pub(crate) fn manifest(&self) -> Option<Vec<u8>> {
        self.read("manifest")
    }

    pub(crate) fn object(&self, entry: &Entry) -> Option<Vec<u8>> {
        self.read(&entry.slot())
    }

    pub(crate) fn put(&self, objects: &[(Entry, Vec<u8>)]) {
        for (entry, bytes) in objects {
            self.write(&entry.slot(), bytes);
        }
    }

    /// Objects first and the stamp last: who sees the stamp finds all the rest.
    pub(crate) fn publish(&self, manifest: &Manifest, objects: &[(Entry, Vec<u8>)]) -> Stamp {
        self.put(objects);
        self.write("manifest", manifest.bytes());
        let stamp = stamp_of(manifest);
        self.write("stamp", &stamp);
        stamp
    }

    fn key(&self, name: &str) -> String {
        [&self.prefix, "/", name].concat()
    }

    fn read(&self, name: &str) -> Option<Vec<u8>> {
        Some(abi::shared_data(&self.key(name)).ok()?.0)
    }

    fn write(&self, name: &str, value: &[u8]) {
        // Without a version to compare with, nothing can fail but a host without shared data: every worker of such a
        // host fetches for itself.
        let _ = abi::set_shared_data(&self.key(name), value, 0);
    }
}

/// More than workers start at once.
const ATTEMPTS: usize = 1024;
