//! The table of workers in shared data. Each worker writes what it enforces, and the leader reads all rows.
//!
//! ```text
//! count * (worker u64, version u64, kept streams u64, time of the last heartbeat in milliseconds u64), big-endian
//! ```
//! A worker keeps its row, whose index also names the queue by which others wake it. The row of a worker that has ended is
//! given to the next new one.

use alloc::vec::Vec;
use core::fmt;

/// The name of the header for a [`WorkerSummary`].
pub const EDGE_STATUS_HEADER: &str = "x-keystile-edge-status";

/// The name of the header with an issuer whose tokens named a key that the bundle lacks: its SHA-256 in hexadecimal. The
/// control plane fetches its keys.
pub const MISSING_KEYS_HEADER: &str = "x-keystile-missing-keys";

/// Minimum time between two reports of missing keys of one issuer by one process, in milliseconds. Clients can cause them.
pub const MISSING_KEYS_INTERVAL_MS: u64 = 5000;

/// Time between two heartbeats of a worker, in milliseconds.
pub const HEARTBEAT_INTERVAL_MS: u64 = 1000;

/// Time in milliseconds after which a worker without a heartbeat is removed. After five missed heartbeats the VM has
/// crashed, or its configuration has been removed.
const HEARTBEAT_TIMEOUT_MS: u64 = 5000;

/// The maximum number of rows: more than the cores of any machine, in 8 KiB.
const MAX_WORKERS: usize = 256;
const ROW_LEN: usize = 32;

/// What a worker enforces.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Enforcement {
    /// The version of the bundle by which requests are decided and open streams have been checked.
    pub version: u64,
    /// The number of open streams that a rule keeps although their credential is refused.
    pub kept_streams: u64,
}

/// What each worker of the process enforces, as stored in shared data.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkerTable(Vec<Row>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    worker: u64,
    enforcement: Enforcement,
    seen: u64,
}

/// The status that the leader reports to the control plane with every request, in the header [`EDGE_STATUS_HEADER`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerSummary {
    /// The version that the leader has.
    pub version: u64,
    /// The number of workers.
    pub workers: usize,
    /// The lowest version that any worker enforces for requests and open streams.
    pub oldest: u64,
    /// The number of workers that enforce a lower version than the leader has.
    pub lagging: usize,
    /// The number of open streams of all workers that a rule keeps although their credential is refused.
    pub kept_streams: u64,
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
        let numbers = self.0.iter().flat_map(|row| {
            let Enforcement { version, kept_streams } = row.enforcement;
            [row.worker, version, kept_streams, row.seen]
        });
        numbers.flat_map(u64::to_be_bytes).collect()
    }

    /// Records what a worker enforces: in its row, otherwise in that of a worker without a heartbeat, otherwise in a new
    /// one. Returns the index of the row, below 256. `now` is in milliseconds since the Unix epoch.
    pub fn record(&mut self, worker: u64, enforcement: Enforcement, now: u64) -> usize {
        self.0.truncate(MAX_WORKERS);
        let row = Row { worker, enforcement, seen: now };
        let free = || self.0.iter().position(|row| !row.is_alive(now));
        let next = self.0.len().min(MAX_WORKERS.saturating_sub(1));
        let index = self.row_of(worker).or_else(free).unwrap_or(next);
        match self.0.get_mut(index) {
            Some(held) => *held = row,
            None => self.0.push(row),
        }
        while self.0.pop_if(|last| !last.is_alive(now)).is_some() {}
        index
    }

    /// Returns the index of the row of a worker.
    pub fn row_of(&self, worker: u64) -> Option<usize> {
        self.0.iter().position(|row| row.worker == worker)
    }

    /// Returns the indices of the rows of workers with a heartbeat. `now` is in milliseconds since the Unix epoch.
    pub fn live_rows(&self, now: u64) -> impl Iterator<Item = usize> {
        self.0.iter().enumerate().filter(move |(_, row)| row.is_alive(now)).map(|(index, _)| index)
    }

    /// Returns the summary as seen by the worker `leader`, which has `version` and enforces `own`. `now` is in
    /// milliseconds since the Unix epoch.
    pub fn summary(&self, leader: u64, version: u64, own: Enforcement, now: u64) -> WorkerSummary {
        let others = self.0.iter().filter(|row| row.worker != leader && row.is_alive(now));
        let enforcements = || others.clone().map(|row| row.enforcement).chain([own]);
        WorkerSummary {
            version,
            workers: enforcements().count(),
            oldest: enforcements().map(|worker| worker.version).fold(version, u64::min),
            lagging: enforcements().filter(|worker| worker.version < version).count(),
            kept_streams: enforcements().map(|worker| worker.kept_streams).fold(0, u64::saturating_add),
        }
    }
}

impl Row {
    fn from_bytes(bytes: &[u8; ROW_LEN]) -> Option<Self> {
        let (numbers, _) = bytes.as_chunks();
        let [worker, version, kept_streams, seen] = *numbers else { return None };
        let [worker, version, kept_streams, seen] =
            [worker, version, kept_streams, seen].map(u64::from_be_bytes);
        Some(Self { worker, enforcement: Enforcement { version, kept_streams }, seen })
    }

    /// A heartbeat further in the future than the timeout comes from another clock.
    const fn is_alive(&self, now: u64) -> bool {
        now.abs_diff(self.seen) < HEARTBEAT_TIMEOUT_MS
    }
}

impl fmt::Display for WorkerSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, workers, oldest, lagging, kept_streams } = self;
        write!(f, "version={version}; workers={workers}; oldest={oldest}; lagging={lagging}")?;
        if *kept_streams > 0 {
            write!(f, "; kept={kept_streams}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    #[test]
    fn status_reports_the_oldest_version_and_drops_silent_workers() {
        let enforces = |version| Enforcement { version, kept_streams: 0 };
        let mut table = WorkerTable::default();
        let status = |table: &WorkerTable, now| table.summary(1, 7, enforces(7), now).to_string();
        assert_eq!(status(&table, 0), "version=7; workers=1; oldest=7; lagging=0");
        table.record(1, enforces(6), 10_000);
        table.record(2, enforces(5), 10_000);
        table.record(3, enforces(7), 12_000);
        assert_eq!(status(&table, 12_000), "version=7; workers=3; oldest=5; lagging=1");
        assert_eq!(WorkerTable::from_bytes(&table.to_bytes()), table);
        table.record(2, enforces(7), 12_500);
        assert_eq!(status(&table, 12_500), "version=7; workers=3; oldest=7; lagging=0");
        assert_eq!(status(&table, 17_200), "version=7; workers=2; oldest=7; lagging=0");
        table.record(4, enforces(7), 30_000);
        assert_eq!(table.to_bytes().len(), ROW_LEN, "workers without a heartbeat are removed");
        assert_eq!(status(&table, 1), "version=7; workers=1; oldest=7; lagging=0", "the clock went back");
        for worker in 0..1000 {
            assert!(table.record(worker, enforces(1), 30_000) < MAX_WORKERS);
        }
        assert_eq!(table.to_bytes().len(), MAX_WORKERS * ROW_LEN);
        assert_eq!(WorkerTable::from_bytes(&[0; ROW_LEN + 1]), WorkerTable::default());
    }

    #[test]
    fn worker_keeps_its_row_and_a_new_one_takes_the_row_of_one_that_ended() {
        let enforcement = Enforcement::default();
        let mut table = WorkerTable::default();
        let mut record =
            |worker, now| (table.record(worker, enforcement, now), table.live_rows(now).collect::<Vec<_>>());
        assert_eq!(record(10, 1_000), (0, Vec::from([0])));
        assert_eq!(record(11, 1_000), (1, Vec::from([0, 1])));
        assert_eq!(record(12, 1_000), (2, Vec::from([0, 1, 2])));
        assert_eq!(record(10, 5_000), (0, Vec::from([0, 1, 2])));
        assert_eq!(record(12, 5_000), (2, Vec::from([0, 1, 2])));
        assert_eq!(record(12, 6_000), (2, Vec::from([0, 2])), "11 has no heartbeat");
        assert_eq!(record(13, 6_000), (1, Vec::from([0, 1, 2])));
        assert_eq!(record(11, 6_000), (3, Vec::from([0, 1, 2, 3])), "11 was only suspended");
        assert_eq!(table.row_of(11), Some(3));
        assert_eq!(table.row_of(14), None);
        assert_eq!(table.live_rows(60_000).count(), 0);
    }

    #[test]
    fn status_counts_a_leader_with_unchecked_streams_and_the_streams_of_all_workers() {
        let mut table = WorkerTable::default();
        table.record(2, Enforcement { version: 7, kept_streams: 2 }, 10_000);
        let own = Enforcement { version: 6, kept_streams: 1 };
        assert_eq!(
            table.summary(1, 7, own, 10_000).to_string(),
            "version=7; workers=2; oldest=6; lagging=1; kept=3"
        );
    }
}
