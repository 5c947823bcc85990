//! The types of the domain. Each value is validated when it is parsed.

mod accounts;
mod api_keys;
mod ids;
mod page;
mod records;

pub use accounts::{Grant, Operator, Role, User};
pub use api_keys::{ApiKey, ApiKeyId, ApiKeyState, Generation, Username};
pub use ids::{AuthKeyId, EdgeId, InvalidId, KeyId, OperatorId, RoleId, SessionId, Subject, UserName};
pub use page::{BadPage, Page, Paged};
pub use records::{
    Actor, AuditEntry, AuthKey, BaseBlockRow, Edge, EdgeReport, EdgeWorkers, FoundGap, Gone, Issuance,
    IssuedFingerprint, IssuerRecord, Revocation, RevocationChange, SigningKeyRecord, SigningKeyState,
    Tombstone, Watermark, WatermarkScope,
};
