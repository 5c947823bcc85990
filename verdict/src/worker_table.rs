//! The table of workers in shared data. Each worker writes the version that it enforces, and the leader reads all rows.
//!
//! ```text
//! count * (worker u64, version u64, time of the last heartbeat in milliseconds u64), big-endian
//! ```

use alloc::vec::Vec;
use core::fmt;

/// The name of the header for a [`WorkerSummary`].
pub const EDGE_STATUS_HEADER: &str = "x-keystile-edge-status";

/// Time between two heartbeats of a worker, in milliseconds.
pub const HEARTBEAT_INTERVAL_MS: u64 = 1000;

/// Time in milliseconds after which a worker without a heartbeat is removed. After five missed heartbeats the VM has
/// crashed, or its configuration has been removed.
const HEARTBEAT_TIMEOUT_MS: u64 = 5000;

/// The maximum number of rows: more than the cores of any machine, in 6 KiB.
const MAX_WORKERS: usize = 256;
const ROW_LEN: usize = 24;

/// The version that each worker of the process enforces, as stored in shared data.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkerTable(Vec<Row>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    worker: u64,
    version: u64,
    seen: u64,
}

/// The status that the leader reports to the control plane with every request, in the header [`EDGE_STATUS_HEADER`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerSummary {
    /// The version of the leader.
    pub version: u64,
    /// The number of workers.
    pub workers: usize,
    /// The lowest version that any worker enforces.
    pub oldest: u64,
    /// The number of workers with a lower version than the leader.
    pub lagging: usize,
}

impl WorkerTable {
    /// Decodes the table. A malformed table is treated as empty, since every worker writes its row again within a
    /// second.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let (rows, rest) = bytes.as_chunks::<ROW_LEN>();
        if !rest.is_empty() {
            return Self::default();
        }
        Self(rows.iter().filter_map(Row::from_bytes).collect())
    }

    /// Encodes the table for [`Self::from_bytes`].
    pub fn to_bytes(&self) -> Vec<u8> {
        let numbers = self.0.iter().flat_map(|row| [row.worker, row.version, row.seen]);
        numbers.flat_map(u64::to_be_bytes).collect()
    }

    /// Records the version that a worker enforces and removes workers without a heartbeat. `now` is in milliseconds
    /// since the Unix epoch.
    pub fn record(&mut self, worker: u64, version: u64, now: u64) {
        self.0.retain(|row| row.worker != worker && row.is_alive(now));
        self.0.truncate(MAX_WORKERS.saturating_sub(1));
        self.0.push(Row { worker, version, seen: now });
    }

    /// Returns the status as seen by the worker `leader`, which enforces `version`. `now` is in milliseconds since the
    /// Unix epoch.
    pub fn summary(&self, leader: u64, version: u64, now: u64) -> WorkerSummary {
        let others = || self.0.iter().filter(|row| row.worker != leader && row.is_alive(now));
        WorkerSummary {
            version,
            workers: others().count().saturating_add(1),
            oldest: others().map(|row| row.version).fold(version, u64::min),
            lagging: others().filter(|row| row.version < version).count(),
        }
    }
}

impl Row {
    fn from_bytes(bytes: &[u8; ROW_LEN]) -> Option<Self> {
        let (numbers, _) = bytes.as_chunks();
        let [worker, version, seen] = *numbers else { return None };
        let [worker, version, seen] = [worker, version, seen].map(u64::from_be_bytes);
        Some(Self { worker, version, seen })
    }

    /// A heartbeat further in the future than the timeout comes from another clock.
    const fn is_alive(&self, now: u64) -> bool {
        now.abs_diff(self.seen) < HEARTBEAT_TIMEOUT_MS
    }
}

impl fmt::Display for WorkerSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, workers, oldest, lagging } = self;
        write!(f, "version={version}; workers={workers}; oldest={oldest}; lagging={lagging}")
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    #[test]
    fn summary_has_the_oldest_version_and_drops_silent_workers() {
        let mut workers = WorkerTable::default();
        assert_eq!(workers.summary(1, 7, 0).to_string(), "version=7; workers=1; oldest=7; lagging=0");
        workers.record(1, 6, 10_000);
        workers.record(2, 5, 10_000);
        workers.record(3, 7, 12_000);
        let summary = |workers: &WorkerTable, now| workers.summary(1, 7, now).to_string();
        assert_eq!(summary(&workers, 12_000), "version=7; workers=3; oldest=5; lagging=1");
        assert_eq!(WorkerTable::from_bytes(&workers.to_bytes()), workers);
        workers.record(2, 7, 12_500);
        assert_eq!(summary(&workers, 12_500), "version=7; workers=3; oldest=7; lagging=0");
        assert_eq!(summary(&workers, 17_200), "version=7; workers=2; oldest=7; lagging=0");
        workers.record(4, 7, 30_000);
        assert_eq!(workers.to_bytes().len(), ROW_LEN, "workers without a heartbeat are removed");
        assert_eq!(summary(&workers, 1), "version=7; workers=1; oldest=7; lagging=0", "the clock went back");
        (0..1000).for_each(|worker| workers.record(worker, 1, 30_000));
        assert_eq!(workers.to_bytes().len(), MAX_WORKERS * ROW_LEN);
        assert_eq!(WorkerTable::from_bytes(&[0; ROW_LEN + 1]), WorkerTable::default());
    }
}
