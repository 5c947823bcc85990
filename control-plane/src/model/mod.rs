//! The words of the control plane as types: each is parsed once and then true.

mod accounts;
mod api_keys;
mod ids;
mod page;
mod records;

pub use accounts::{Grant, Operator, Role, User};
pub use api_keys::{ApiKey, ApiKeyId, ApiKeyState, Generation, Username};
pub use ids::{AuthKeyId, BadId, EdgeId, KeyId, OperatorId, RoleId, SessionId, Subject, UserName};
pub use page::{BadPage, Page, Paged};
pub use records::{
    Actor, AuditLine, AuthKey, BaseBlock, Edge, EdgeReport, EdgeWorkers, FoundGap, Gone, Issuance,
    IssuerRecord, Revocation, RevocationChange, SigningKeyRecord, SigningKeyState, Tombstone, UniverseMember,
    Watermark, WatermarkScope,
};
