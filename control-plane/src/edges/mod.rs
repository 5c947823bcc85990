//! Edges: their enrollment, and what they report.

pub mod authenticate;
pub mod enroll;
pub mod last_seen;
pub mod list;
mod queries;
pub mod remove;
pub mod rollout;
pub mod rotate;

pub use authenticate::{AuthenticateEdgeError, authenticate_edge};
pub use enroll::{CredentialSource, EnrollEdgeError, EnrolledEdge, enroll_edge};
pub(crate) use last_seen::LastSeenRecorder;
pub use list::{EdgeList, EdgeState, EdgeStatus, bundle_time, list_all_edges, list_edges};
pub use queries::{
    CredentialHolder, clamp_to_now, delete, end_credentials_on_use, find, find_by_hash, list, purge,
    record_report, repeat_end,
};
pub use remove::{RemoveEdgeError, remove_edge};
pub use rollout::{RolloutStatus, await_all_edges, await_live_edges};
pub use rotate::{OldCredentialEnd, RotateEdgeError, RotatedEdge, rotate_edge};
