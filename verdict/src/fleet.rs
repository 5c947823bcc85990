//! Which version each worker of a process enforces: a table in shared data that all write and the leader reads.
//!
//! ```text
//! count * (worker u64, version u64, time of last sign of life in milliseconds u64), big-endian
//! ```

use alloc::vec::Vec;
use core::fmt;

/// Which version each worker of the process enforces, in shared data.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fleet(Vec<Row>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    worker: u64,
    version: u64,
    seen: u64,
}

/// What the leader tells the control plane with every request, as the header [`FLEET_STATUS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FleetStatus {
    /// That the leader holds.
    pub version: u64,
    /// How many workers there are.
    pub workers: usize,
    /// The lowest that any worker enforces.
    pub oldest: u64,
    /// How many workers enforce a lower one than the leader.
    pub lagging: usize,
}

impl Fleet {
    /// What is malformed is forgotten: every worker writes its row again within a second.
    pub fn read(bytes: &[u8]) -> Self {
        let (rows, rest) = bytes.as_chunks::<ROW>();
        if !rest.is_empty() {
            return Self::default();
        }
        Self(rows.iter().filter_map(Row::read).collect())
    }

    /// Returns the bytes for shared data, as [`Self::read`] takes them.
    pub fn bytes(&self) -> Vec<u8> {
        let numbers = self.0.iter().flat_map(|row| [row.worker, row.version, row.seen]);
        numbers.flat_map(u64::to_be_bytes).collect()
    }

    /// Notes that a worker enforces a version, and forgets those that have fallen silent. `now` in milliseconds.
    pub fn note(&mut self, worker: u64, version: u64, now: u64) {
        self.0.retain(|row| row.worker != worker && row.is_alive(now));
        self.0.truncate(MAX_WORKERS.saturating_sub(1));
        self.0.push(Row { worker, version, seen: now });
    }

    /// As the leader sees it, which holds `version`.
    pub fn status(&self, leader: u64, version: u64, now: u64) -> FleetStatus {
        let others = || self.0.iter().filter(|row| row.worker != leader && row.is_alive(now));
        FleetStatus {
            version,
            workers: others().count().saturating_add(1),
            oldest: others().map(|row| row.version).fold(version, u64::min),
            lagging: others().filter(|row| row.version < version).count(),
        }
    }
}

impl Row {
    fn read(bytes: &[u8; ROW]) -> Option<Self> {
        let (numbers, _) = bytes.as_chunks();
        let [worker, version, seen] = *numbers else { return None };
        let [worker, version, seen] = [worker, version, seen].map(u64::from_be_bytes);
        Some(Self { worker, version, seen })
    }

    /// A time further ahead than a worker is silent comes from another clock.
    const fn is_alive(&self, now: u64) -> bool {
        now.abs_diff(self.seen) < GONE_MS
    }
}

impl fmt::Display for FleetStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, workers, oldest, lagging } = self;
        write!(f, "version={version}; workers={workers}; oldest={oldest}; lagging={lagging}")
    }
}

/// The header of a [`FleetStatus`].
pub const FLEET_STATUS: &str = "x-keystile-edge-status";

/// How often a worker gives a sign of life, milliseconds.
pub const SIGN_OF_LIFE_MS: u64 = 1000;

/// Five signs missed: the VM has crashed, or its configuration is gone.
const GONE_MS: u64 = 5000;

/// More than any machine has cores; 6 KiB.
const MAX_WORKERS: usize = 256;

const ROW: usize = 24;

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    #[test]
    fn tells_the_oldest_and_forgets_the_silent() {
        let mut fleet = Fleet::default();
        assert_eq!(fleet.status(1, 7, 0).to_string(), "version=7; workers=1; oldest=7; lagging=0");
        fleet.note(1, 6, 10_000);
        fleet.note(2, 5, 10_000);
        fleet.note(3, 7, 12_000);
        let told = |fleet: &Fleet, now| fleet.status(1, 7, now).to_string();
        assert_eq!(told(&fleet, 12_000), "version=7; workers=3; oldest=5; lagging=1");
        assert_eq!(Fleet::read(&fleet.bytes()), fleet);
        fleet.note(2, 7, 12_500);
        assert_eq!(told(&fleet, 12_500), "version=7; workers=3; oldest=7; lagging=0");
        assert_eq!(told(&fleet, 17_200), "version=7; workers=2; oldest=7; lagging=0");
        fleet.note(4, 7, 30_000);
        assert_eq!(fleet.bytes().len(), ROW, "the others are gone");
        assert_eq!(told(&fleet, 1), "version=7; workers=1; oldest=7; lagging=0", "the clock went back");
        (0..1000).for_each(|worker| fleet.note(worker, 1, 30_000));
        assert_eq!(fleet.bytes().len(), MAX_WORKERS * ROW);
        assert_eq!(Fleet::read(&[0; ROW + 1]), Fleet::default());
    }
}
