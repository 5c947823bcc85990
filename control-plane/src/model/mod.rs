//! The words of the control plane as types: each is parsed once and then true.

mod ids;
mod records;

pub use ids::{AuthKeyId, BadId, EdgeId, KeyId, OperatorId, SessionId, Subject, UserName};
pub use records::{
    Actor, AuditLine, AuthKey, Edge, EdgeReport, EdgeWorkers, Issuance, Revocation, RevocationChange,
    SigningKeyRecord, SigningKeyState, Watermark, WatermarkScope,
};
