//! What the workers of one process share through the host's shared data: the lease of the leader, and the bundle it
//! fetched.
//!
//! ```text
//! PREFIX/lease       the holder of the lease, and its end
//! PREFIX/stamp       version and issue time of the manifest below: the only value that is read at every tick
//! PREFIX/members     the number of workers that have started, so that no two have the same number
//! PREFIX/workers     what each worker enforces
//! PREFIX/wake/ROW    no value, but the shared queue of the worker in this row of the table
//! PREFIX/missing/ID  when keys of an issuer were last reported as missing, in milliseconds; its ID is a hash
//! PREFIX/manifest    the signed bytes
//! PREFIX/SLOT        the bytes of an object; each worker verifies them again by the manifest
//! ```
//! The prefix names the control plane, the audience and the root keys, so that two filters in one process do not mix.

use proxy_wasm::types::Bytes;
use verdict::{
    Enforcement, Entry, LeaderRole, Lease, MISSING_KEYS_INTERVAL_MS, Manifest, Policy, WorkerTable,
};

use crate::{
    hostcalls::{self, HostError},
    wake_queue::WakeQueue,
};

/// More than the number of workers that start at once, or report at once.
const MAX_ATTEMPTS: usize = 1024;

/// The version and the issue time of a manifest.
pub(crate) type Stamp = [u8; 16];

pub(crate) fn manifest_stamp(manifest: &Manifest) -> Stamp {
    (u128::from(manifest.version()) << 64 | u128::from(manifest.issued_at())).to_be_bytes()
}

pub(crate) struct SharedStore {
    prefix: String,
}

impl SharedStore {
    pub(crate) fn new(policy: &Policy, cluster: &str) -> Self {
        let keys: Vec<String> = policy.root_keys.iter().map(ToString::to_string).collect();
        Self { prefix: format!("keystile/{}/{}/{}", cluster, policy.audience, keys.join(",")) }
    }

    /// Returns an ID that no other worker has, even one that started in the same nanosecond.
    pub(crate) fn register_worker(&self, started_at: u64) -> u64 {
        let key = self.key("members");
        for _ in 0..MAX_ATTEMPTS {
            let (held, version) = hostcalls::shared_data(&key).unwrap_or_default();
            let number = held.try_into().map_or(0, u64::from_be_bytes).wrapping_add(1);
            if set_if_unchanged(&key, &number.to_be_bytes(), version) {
                return started_at ^ number.rotate_right(16);
            }
        }
        started_at
    }

    /// Acquires or renews the lease unless another worker holds it. Returns true if this worker leads. The first
    /// write has no version to compare with: of two workers that both acquire the lease, one is refused at its next
    /// renewal. On a host without shared data every worker leads, and fetches for itself.
    pub(crate) fn acquire_lease(&self, worker: u64, now: u64) -> bool {
        let key = self.key("lease");
        match hostcalls::shared_data(&key) {
            Ok((held, version)) => {
                write_lease(&key, LeaderRole::decide(Lease::from_bytes(&held), worker, now), version)
            }
            Err(HostError::NOT_FOUND) => write_lease(&key, LeaderRole::decide(None, worker, now), 0),
            Err(_) => true,
        }
    }

    /// Acquires the lease even if another worker holds it, because the other workers cannot load what is shared.
    /// Returns true if this worker leads.
    pub(crate) fn force_lease(&self, worker: u64, now: u64) -> bool {
        let key = self.key("lease");
        let (_, version) = hostcalls::shared_data(&key).unwrap_or_default();
        write_lease(&key, LeaderRole::decide(None, worker, now), version)
    }

    /// Returns the worker that held the lease last.
    pub(crate) fn leader(&self) -> Option<u64> {
        Lease::from_bytes(&self.read("lease")?).map(Lease::holder)
    }

    /// Reports what a worker enforces. Returns the row of the worker and the table. Workers that load a bundle at the same
    /// time also report at the same time.
    pub(crate) fn report(
        &self,
        worker: u64,
        enforcement: Enforcement,
        now: u64,
    ) -> Option<(usize, WorkerTable)> {
        let key = self.key("workers");
        (0..MAX_ATTEMPTS).find_map(|_| {
            let (held, version) = hostcalls::shared_data(&key).unwrap_or_default();
            let mut table = WorkerTable::from_bytes(&held);
            let row = table.record(worker, enforcement, now);
            set_if_unchanged(&key, &table.to_bytes(), version).then_some((row, table))
        })
    }

    pub(crate) fn wake_queue(&self) -> WakeQueue {
        WakeQueue::new(self.key("wake"))
    }

    pub(crate) fn worker_table(&self) -> WorkerTable {
        WorkerTable::from_bytes(&self.read("workers").unwrap_or_default())
    }

    /// Returns whether keys of an issuer may be reported as missing, and remembers that they are. Only the first two
    /// workers that start at once can both report.
    pub(crate) fn claim_missing_keys_report(&self, issuer: &str, now: u64) -> bool {
        let key = self.key(&["missing/", issuer].concat());
        let (held, version) = hostcalls::shared_data(&key).unwrap_or_default();
        let last = held.try_into().map_or(0, u64::from_be_bytes);
        now.abs_diff(last) >= MISSING_KEYS_INTERVAL_MS && set_if_unchanged(&key, &now.to_be_bytes(), version)
    }

    pub(crate) fn stamp(&self) -> Option<Stamp> {
        self.read("stamp")?.try_into().ok()
    }

    pub(crate) fn manifest(&self) -> Option<Bytes> {
        self.read("manifest")
    }

    pub(crate) fn object(&self, entry: &Entry) -> Option<Bytes> {
        self.read(&entry.slot())
    }

    pub(crate) fn write_objects(&self, objects: &[(Entry, Bytes)]) {
        for (entry, bytes) in objects {
            self.write(&entry.slot(), bytes);
        }
    }

    /// Writes the objects first and the stamp last: a worker that sees the stamp finds everything else.
    pub(crate) fn publish(&self, manifest: &Manifest, objects: &[(Entry, Bytes)]) -> Stamp {
        self.write_objects(objects);
        self.write("manifest", manifest.bytes());
        let stamp = manifest_stamp(manifest);
        self.write("stamp", &stamp);
        stamp
    }

    fn key(&self, name: &str) -> String {
        [&self.prefix, "/", name].concat()
    }

    fn read(&self, name: &str) -> Option<Bytes> {
        Some(hostcalls::shared_data(&self.key(name)).ok()?.0)
    }

    fn write(&self, name: &str, value: &[u8]) {
        // An unconditional write fails only on a host without shared data, where every worker fetches for itself.
        let _ = hostcalls::set_shared_data(&self.key(name), value, 0);
    }
}

fn write_lease(key: &str, role: LeaderRole, version: u32) -> bool {
    match role {
        LeaderRole::Leader(lease) => set_if_unchanged(key, &lease.to_bytes(), version),
        LeaderRole::Follower => false,
    }
}

/// Returns false if the value has another version. Any other failure counts as success: the host has no shared data, so
/// that no other worker can interfere.
fn set_if_unchanged(key: &str, value: &[u8], version: u32) -> bool {
    hostcalls::set_shared_data(key, value, version) != Err(HostError::CAS_MISMATCH)
}
