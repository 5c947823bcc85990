//! How an edge keeps up with the control plane: what it fetches, which worker fetches, and how fresh the bundle is.

pub(crate) mod freshness;
mod lease;
mod refresh;
mod worker_table;

pub use freshness::{Freshness, LogLine, StalePolicy, StalenessWatch};
pub use lease::{LEASE_RENEWAL_MS, LeaderRole, Lease};
pub use refresh::{
    FetchRequest, FetchStep, MinimumPosition, ProblemDocument, Progress, ProxyResponse, Refresh,
    RefreshError, SignedPart, failure_hint,
};
pub use worker_table::{
    EDGE_STATUS_HEADER, Enforcement, HEARTBEAT_INTERVAL_MS, MISSING_KEYS_HEADER, MISSING_KEYS_INTERVAL_MS,
    WorkerSummary, WorkerTable,
};
