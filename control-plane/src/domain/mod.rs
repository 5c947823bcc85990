//! The types of the domain. Each value is validated when it is parsed.

mod accounts;
mod api_keys;
mod epoch;
mod error;
mod event;
mod foreign;
mod ids;
mod page;
mod records;
mod time;
mod version;

pub use accounts::{ForeignSubject, Grant, Operator, Role, User};
pub use api_keys::{ApiKey, ApiKeyState, Generation, PresentedUsername, is_tag_kid, tag_kid};
pub use epoch::Epoch;
pub use error::{CoreError, ErrorKind};
pub use event::{Event, PermissionHolder, RoleName};
pub use foreign::{AnySubject, ForeignName, IssuerName};
pub use ids::{
    ApiKeyId, AuthKeyId, EdgeId, InvalidId, OperatorId, RevocableKeyId, RoleId, SessionId, Subject, UserName,
};
pub use page::{InvalidPageRequest, Page, PageRequest};
pub use records::{
    Actor, AuditEntry, AuthKey, BaseBlockRow, Edge, EdgeReport, EdgeWorkers, IssuanceGap, IssuedCredential,
    IssuedFingerprint, Revocation, RevocationChange, SigningKeyRecord, SigningKeyState, Tombstone,
    TombstoneKind, Watermark, WatermarkScope,
};
pub use time::{UnixMillis, UnixSeconds};
pub use version::Version;
