//! The events of the audit log. Names and details are part of the stored format: they never change.

use serde_json::{Value, json};
use token::{Fingerprint, api_key::Kind};

use super::{
    ApiKey, ApiKeyId, AuthKeyId, EdgeId, Epoch, ForeignName, IssuedCredential, OperatorId, RoleId, Subject,
    UnixSeconds, Version, Watermark, WatermarkScope,
};

/// What was done, for the audit log.
#[derive(Debug, Clone)]
pub enum Event {
    /// The installation was created, with its first operator.
    Initialized { operator: OperatorId, auth_key: AuthKeyId, kid: String },
    /// An operator was created.
    OperatorCreated { operator: OperatorId, description: Option<String> },
    /// An operator was deleted, with everything that belonged to it. Counts what was deleted.
    OperatorDeleted { operator: OperatorId, users: u64, auth_keys: u64, instant: UnixSeconds },
    /// A user was created.
    UserCreated { subject: Subject },
    /// A user was deleted. `created` are the keys that it created for others.
    UserDeleted {
        subject: Subject,
        auth_keys: u64,
        created: Vec<String>,
        created_deleted: bool,
        instant: UnixSeconds,
    },
    /// The permission document of a subject was set, or removed if there is none.
    PermissionSet { of: PermissionHolder, document: Option<Value>, grants: u64 },
    /// A role was created.
    RoleCreated { role: RoleName, document: Option<Value>, description: Option<String> },
    /// The document of a role was replaced.
    RoleUpdated { role: RoleName, document: Option<Value>, grants: u64 },
    /// A role was deleted.
    RoleDeleted { role: RoleName, grants: u64 },
    /// A role was attached to a subject.
    RoleAttached { role: RoleName, user: String },
    /// A role was detached from a subject.
    RoleDetached { role: RoleName, user: String },
    /// A credential was revoked by its fingerprint.
    FingerprintRevoked { fingerprint: Fingerprint, reason: Option<String> },
    /// All credentials of a scope were revoked.
    ScopeRevoked { watermark: Watermark, reason: Option<String> },
    /// The revocation of a fingerprint was taken back. `watermark`: a watermark refuses the credential still.
    FingerprintUnrevoked { fingerprint: Fingerprint, watermark: bool },
    /// The revocation of one session or token of another issuer was taken back.
    ScopeUnrevoked { scope: WatermarkScope },
    /// An AuthKey was created.
    AuthKeyCreated { auth_key: AuthKeyId, subject: Subject },
    /// An AuthKey was deleted.
    AuthKeyDeleted { auth_key: AuthKeyId, subject: Subject, instant: UnixSeconds },
    /// An API key was created.
    ApiKeyCreated { key: Box<ApiKey> },
    /// An API key was replaced by another one.
    ApiKeyRotated { id: ApiKeyId, owner: Subject, new: ApiKeyId, until: UnixSeconds },
    /// An API key was disabled.
    ApiKeyDisabled { id: ApiKeyId, owner: Subject, fingerprint: Fingerprint },
    /// A disabled API key was enabled.
    ApiKeyEnabled { id: ApiKeyId, owner: Subject, fingerprint: Fingerprint },
    /// An API key was deleted.
    ApiKeyDeleted { id: ApiKeyId, owner: Subject, fingerprint: Fingerprint },
    /// An API key has reached its end.
    ApiKeyExpired { id: ApiKeyId, owner: Subject },
    /// A generation of API keys was created.
    TagKeyRotated { kid: String, format: Kind },
    /// A token was issued.
    TokenIssued { issuance: Box<IssuedCredential> },
    /// An edge was enrolled.
    EdgeEnrolled { edge: EdgeId },
    /// An edge got another credential.
    EdgeRotated { edge: EdgeId, old_ends_at: UnixSeconds, old_ends_on_use: bool },
    /// An edge has used its new credential, which ended the earlier ones.
    EdgeRotationDone { edge: EdgeId },
    /// An edge was removed.
    EdgeRemoved { edge: EdgeId },
    /// A signing key was created.
    SigningKeyRotated { kid: String },
    /// A signing key became the active one.
    SigningKeyActivated { kid: String },
    /// A signing key was deleted, because all its tokens have expired.
    SigningKeyPruned { kid: String },
    /// A signing key or a generation of API keys was retired.
    KeyRetired { kid: String },
    /// A delegation was signed. `target` names the key that was replaced, if any.
    AuthorityRenewed { target: &'static str, epoch: Epoch, snapshot_key: String, tail_key: String },
    /// An issuer was added to the configuration.
    IssuerAdded { issuer: String },
    /// An issuer was removed from the configuration.
    IssuerRemoved { issuer: String },
    /// The keys of an issuer have changed.
    IssuerKeysChanged { issuer: String, before: Vec<String>, after: Vec<String> },
    /// Blocks of the base were built.
    BaseCompacted { blocks: usize, members: u64, revoked: u64, bytes: usize },
    /// What a clock that was ahead has left was corrected.
    ClockRepaired {
        watermarks: Vec<(WatermarkScope, UnixSeconds)>,
        revoked: u64,
        covered: Vec<String>,
        unexpired: Vec<ApiKeyId>,
    },
    /// The database was found to lack versions that were published.
    StoreRolledBack { missing_from: Version, missing_to: Version },
    /// The journal was merged into a database that was restored. Counts what it lacked.
    JournalMerged {
        revocations: usize,
        watermarks: usize,
        deletions: usize,
        issued_after: Option<UnixSeconds>,
    },
    /// A restored database was repaired.
    DatabaseRepaired { gaps: Vec<[UnixSeconds; 2]>, known: u64, unrevoked: usize },
}

/// Whose permission document it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PermissionHolder {
    /// A user, or for the root user the default document of its operator.
    Subject(Subject),
    /// A subject of another issuer.
    Foreign(ForeignName),
}

/// A role within its operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleName {
    pub operator: OperatorId,
    pub id: RoleId,
}

impl Event {
    /// Returns the name of the action.
    pub fn action(&self) -> &'static str {
        match self {
            Self::Initialized { .. } => "initialize",
            Self::OperatorCreated { .. } => "operator.create",
            Self::OperatorDeleted { .. } => "operator.delete",
            Self::UserCreated { .. } => "user.create",
            Self::UserDeleted { .. } => "user.delete",
            Self::PermissionSet { of, document, .. } => match (of.is_operator(), document.is_some()) {
                (false, true) => "user.permission.set",
                (false, false) => "user.permission.clear",
                (true, true) => "operator.permission.set",
                (true, false) => "operator.permission.clear",
            },
            Self::RoleCreated { .. } => "role.create",
            Self::RoleUpdated { .. } => "role.update",
            Self::RoleDeleted { .. } => "role.delete",
            Self::RoleAttached { .. } => "role.attach",
            Self::RoleDetached { .. } => "role.detach",
            Self::FingerprintRevoked { .. } | Self::ScopeRevoked { .. } => "revoke",
            Self::FingerprintUnrevoked { .. } | Self::ScopeUnrevoked { .. } => "unrevoke",
            Self::AuthKeyCreated { .. } => "auth_key.create",
            Self::AuthKeyDeleted { .. } => "auth_key.delete",
            Self::ApiKeyCreated { .. } => "api_key.create",
            Self::ApiKeyRotated { .. } => "api_key.rotate",
            Self::ApiKeyDisabled { .. } => "api_key.disable",
            Self::ApiKeyEnabled { .. } => "api_key.enable",
            Self::ApiKeyDeleted { .. } => "api_key.delete",
            Self::ApiKeyExpired { .. } => "api_key.expire",
            Self::TagKeyRotated { .. } => "tag_key.rotate",
            Self::TokenIssued { .. } => "token.issue",
            Self::EdgeEnrolled { .. } => "edge.enroll",
            Self::EdgeRotated { .. } => "edge.rotate",
            Self::EdgeRotationDone { .. } => "edge.rotate.done",
            Self::EdgeRemoved { .. } => "edge.remove",
            Self::SigningKeyRotated { .. } => "signing_key.rotate",
            Self::SigningKeyActivated { .. } => "signing_key.promote",
            Self::SigningKeyPruned { .. } => "signing_key.forget",
            Self::KeyRetired { .. } => "key.retire",
            Self::AuthorityRenewed { .. } => "authority.renew",
            Self::IssuerAdded { .. } => "issuer.add",
            Self::IssuerRemoved { .. } => "issuer.remove",
            Self::IssuerKeysChanged { .. } => "issuer.keys",
            Self::BaseCompacted { .. } => "bundle.rebase",
            Self::ClockRepaired { .. } => "clock.repair",
            Self::StoreRolledBack { .. } => "store.went_back",
            Self::JournalMerged { .. } => "restore.merge",
            Self::DatabaseRepaired { .. } => "restore.repair",
        }
    }

    /// Returns the name of what was changed.
    pub fn target(&self) -> String {
        match self {
            Self::Initialized { operator, .. }
            | Self::OperatorCreated { operator, .. }
            | Self::OperatorDeleted { operator, .. } => operator.to_string(),
            Self::UserCreated { subject } | Self::UserDeleted { subject, .. } => subject.to_string(),
            Self::PermissionSet { of: PermissionHolder::Subject(subject), .. } => subject.to_string(),
            Self::PermissionSet { of: PermissionHolder::Foreign(subject), .. } => subject.to_string(),
            Self::RoleCreated { role: RoleName { operator, id }, .. }
            | Self::RoleUpdated { role: RoleName { operator, id }, .. }
            | Self::RoleDeleted { role: RoleName { operator, id }, .. }
            | Self::RoleAttached { role: RoleName { operator, id }, .. }
            | Self::RoleDetached { role: RoleName { operator, id }, .. } => format!("{operator}:{id}"),
            Self::FingerprintRevoked { fingerprint, .. } | Self::FingerprintUnrevoked { fingerprint, .. } => {
                fingerprint.to_string()
            }
            Self::ScopeRevoked { watermark, .. } => watermark.scope.to_string(),
            Self::ScopeUnrevoked { scope } => scope.to_string(),
            Self::AuthKeyCreated { auth_key, .. } | Self::AuthKeyDeleted { auth_key, .. } => {
                auth_key.to_string()
            }
            Self::ApiKeyCreated { key } => key.id.to_string(),
            Self::ApiKeyRotated { id, .. }
            | Self::ApiKeyDisabled { id, .. }
            | Self::ApiKeyEnabled { id, .. }
            | Self::ApiKeyDeleted { id, .. }
            | Self::ApiKeyExpired { id, .. } => id.to_string(),
            Self::TokenIssued { issuance } => issuance.fingerprint.to_string(),
            Self::EdgeEnrolled { edge }
            | Self::EdgeRotated { edge, .. }
            | Self::EdgeRotationDone { edge }
            | Self::EdgeRemoved { edge } => edge.to_string(),
            Self::TagKeyRotated { kid, .. }
            | Self::SigningKeyRotated { kid }
            | Self::SigningKeyActivated { kid }
            | Self::SigningKeyPruned { kid }
            | Self::KeyRetired { kid } => kid.clone(),
            Self::AuthorityRenewed { target, .. } => (*target).to_owned(),
            Self::IssuerAdded { issuer }
            | Self::IssuerRemoved { issuer }
            | Self::IssuerKeysChanged { issuer, .. } => issuer.clone(),
            Self::BaseCompacted { blocks, .. } => blocks.to_string(),
            Self::ClockRepaired { .. } => "clock".to_owned(),
            Self::StoreRolledBack { .. } | Self::DatabaseRepaired { .. } => "database".to_owned(),
            Self::JournalMerged { .. } => "journal".to_owned(),
        }
    }

    /// Returns the further details as a JSON object. `version` is that of the change; events that need none ignore it.
    pub fn detail(&self, version: Option<Version>) -> Value {
        match self {
            Self::Initialized { auth_key, kid, .. } => {
                json!({ "auth_key_id": auth_key.to_string(), "kid": kid })
            }
            Self::OperatorCreated { description, .. } => json!({ "description": description }),
            Self::OperatorDeleted { users, auth_keys, instant, .. } => {
                json!({ "users": users, "auth_keys": auth_keys, "version": version, "instant": instant })
            }
            Self::UserCreated { .. } | Self::EdgeEnrolled { .. } | Self::EdgeRotationDone { .. } => json!({}),
            Self::UserDeleted { auth_keys, created, created_deleted, instant, .. } => json!({
                "auth_keys": auth_keys,
                "created": created,
                "created_deleted": created_deleted,
                "version": version,
                "instant": instant,
            }),
            Self::PermissionSet { document, grants, .. } | Self::RoleUpdated { document, grants, .. } => {
                json!({ "permission": document, "grants": grants, "version": version })
            }
            Self::RoleCreated { document, description, .. } => {
                json!({ "permission": document, "description": description })
            }
            Self::RoleDeleted { grants, .. } => json!({ "grants": grants, "version": version }),
            Self::RoleAttached { user, .. } | Self::RoleDetached { user, .. } => {
                json!({ "user": user, "version": version })
            }
            Self::FingerprintRevoked { reason, .. } => {
                json!({ "version": version, "instant": null, "reason": reason })
            }
            Self::ScopeRevoked { watermark, reason } => {
                let instant = watermark.finite_instant();
                let mut detail = json!({ "version": version, "instant": instant, "reason": reason });
                if watermark.scope.is_foreign() {
                    // The target alone could be read in two ways, because an issuer chooses the names.
                    detail["scope"] = scope_json(&watermark.scope);
                }
                detail
            }
            Self::FingerprintUnrevoked { watermark, .. } => {
                json!({ "version": version, "watermark": watermark })
            }
            Self::ScopeUnrevoked { scope } => json!({ "version": version, "scope": scope_json(scope) }),
            Self::AuthKeyCreated { subject, .. } => json!({ "subject": subject.to_string() }),
            Self::AuthKeyDeleted { subject, instant, .. } => {
                json!({ "subject": subject.to_string(), "version": version, "instant": instant })
            }
            Self::ApiKeyCreated { key } => json!({
                "owner": key.owner.to_string(),
                "username": key.username.as_str(),
                "name": key.name,
                "fingerprint": key.fingerprint.to_string(),
                "expires_at": key.expires_at,
            }),
            Self::ApiKeyRotated { owner, new, until, .. } => json!({
                "owner": owner.to_string(),
                "new": new.to_string(),
                "until": until,
                "version": version,
            }),
            Self::ApiKeyDisabled { owner, fingerprint, .. }
            | Self::ApiKeyEnabled { owner, fingerprint, .. }
            | Self::ApiKeyDeleted { owner, fingerprint, .. } => json!({
                "owner": owner.to_string(),
                "fingerprint": fingerprint.to_string(),
                "version": version,
            }),
            Self::ApiKeyExpired { owner, .. } => json!({ "owner": owner.to_string(), "version": version }),
            Self::TagKeyRotated { format, .. } => json!({ "format": format.name(), "version": version }),
            Self::TokenIssued { issuance } => json!({
                "subject": issuance.subject.to_string(),
                "auth_key_id": issuance.auth_key.as_ref().map(ToString::to_string),
                "session": issuance.session.as_ref().map(ToString::to_string),
                "expires_at": issuance.expires_at,
            }),
            Self::EdgeRotated { old_ends_at, old_ends_on_use, .. } => {
                json!({ "old_ends_at": old_ends_at, "old_ends_on_use": old_ends_on_use })
            }
            Self::EdgeRemoved { .. }
            | Self::SigningKeyRotated { .. }
            | Self::SigningKeyActivated { .. }
            | Self::SigningKeyPruned { .. }
            | Self::KeyRetired { .. }
            | Self::IssuerAdded { .. }
            | Self::IssuerRemoved { .. } => json!({ "version": version }),
            Self::AuthorityRenewed { epoch, snapshot_key, tail_key, .. } => {
                json!({ "epoch": epoch, "snapshot_key": snapshot_key, "tail_key": tail_key })
            }
            Self::IssuerKeysChanged { before, after, .. } => {
                json!({ "before": before, "after": after, "version": version })
            }
            Self::BaseCompacted { members, revoked, bytes, .. } => {
                json!({ "version": version, "members": members, "revoked": revoked, "bytes": bytes })
            }
            Self::ClockRepaired { watermarks, revoked, covered, unexpired } => {
                let lowered =
                    |(scope, instant): &(WatermarkScope, UnixSeconds)| json!([scope.to_string(), instant]);
                json!({
                    "version": version,
                    "watermarks": watermarks.iter().map(lowered).collect::<Vec<_>>(),
                    "revoked": revoked,
                    "covered": covered,
                    "unexpired": unexpired.iter().map(ToString::to_string).collect::<Vec<_>>(),
                })
            }
            Self::StoreRolledBack { missing_from, missing_to } => {
                json!({ "version": version, "missing_from": missing_from, "missing_to": missing_to })
            }
            Self::JournalMerged { revocations, watermarks, deletions, issued_after } => json!({
                "version": version,
                "revocations": revocations,
                "watermarks": watermarks,
                "deletions": deletions,
                "issued_after": issued_after,
            }),
            Self::DatabaseRepaired { gaps, known, unrevoked } => {
                json!({ "version": version, "gaps": gaps, "known": known, "unrevoked": unrevoked })
            }
        }
    }

    /// Returns whether a caller has revoked something by this, which the metric `keystile_revocations` counts.
    pub const fn is_revocation(&self) -> bool {
        matches!(
            self,
            Self::FingerprintRevoked { .. }
                | Self::ScopeRevoked { .. }
                | Self::AuthKeyDeleted { .. }
                | Self::ApiKeyDisabled { .. }
                | Self::ApiKeyDeleted { .. }
                | Self::UserDeleted { .. }
                | Self::OperatorDeleted { .. }
                | Self::KeyRetired { .. }
        )
    }
}

impl PermissionHolder {
    const fn is_operator(&self) -> bool {
        matches!(self, Self::Subject(Subject { user: None, .. }))
    }
}

fn scope_json(scope: &WatermarkScope) -> Value {
    json!([scope.kind(), scope.id()])
}
