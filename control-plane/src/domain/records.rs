use std::fmt;

use token::{Algorithm, Fingerprint, secret::SecretHash};

use super::{
    AnySubject, AuthKeyId, EdgeId, ForeignName, IssuerName, OperatorId, SessionId, Subject, UnixSeconds,
    UserName, Version,
};

/// The stored record of an AuthKey. Of the secret only the hash is stored.
#[derive(Debug, Clone)]
pub struct AuthKey {
    pub id: AuthKeyId,
    pub subject: Subject,
    pub secret_hash: SecretHash,
    /// The creator as named in the audit log; `None` if unknown.
    pub created_by: Option<String>,
    pub created_at: UnixSeconds,
    pub last_used_at: Option<UnixSeconds>,
}

/// An entry of the issuance log: an issued credential without the credential itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedCredential {
    pub fingerprint: Fingerprint,
    pub kid: String,
    pub subject: Subject,
    pub auth_key: Option<AuthKeyId>,
    pub session: Option<SessionId>,
    pub issued_at: UnixSeconds,
    pub expires_at: UnixSeconds,
}

/// When a credential was issued, and with which key: it decides which block of the base covers the credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuance {
    pub kid: String,
    pub issued_at: UnixSeconds,
    pub expires_at: UnixSeconds,
}

/// A revocation of a fingerprint, kept until the credential expires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    pub fingerprint: Fingerprint,
    pub expires_at: UnixSeconds,
    pub reason: Option<String>,
    pub revoked_at: UnixSeconds,
}

/// The latest change of a fingerprint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RevocationChange {
    /// The fingerprint was revoked.
    Revoked(Revocation),
    /// The revocation was undone.
    Restored { fingerprint: Fingerprint, expires_at: UnixSeconds },
}

impl RevocationChange {
    /// Returns the fingerprint.
    pub const fn fingerprint(&self) -> &Fingerprint {
        match self {
            Self::Revoked(Revocation { fingerprint, .. }) | Self::Restored { fingerprint, .. } => fingerprint,
        }
    }
}

/// A change of the revocation list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedChange {
    pub version: Version,
    pub change: RevocationChange,
    /// `None` if the credential is not in the issuance log.
    pub issuance: Option<Issuance>,
}

/// The status of a fingerprint by its latest change, for building the base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FingerprintStatus {
    pub fingerprint: Fingerprint,
    /// The expiry that the revocation states.
    pub expires_at: UnixSeconds,
    /// False if the revocation was undone.
    pub is_revoked: bool,
}

/// The record of a block of the base: it covers the credentials that expire from `expires_from` until before
/// `expires_before`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseBlockRow {
    pub expires_from: UnixSeconds,
    pub expires_before: UnixSeconds,
    /// The version whose revocations the block contains.
    pub as_of: Version,
    /// The version in which the block was installed.
    pub version: Version,
    pub built_at: UnixSeconds,
    pub members: u64,
    pub revoked: u64,
}

/// A watermark: every credential of `scope` that was issued at or before `instant` is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watermark {
    pub scope: WatermarkScope,
    pub instant: UnixSeconds,
    /// The last second in which any covered credential can be valid; the largest instant if there is no limit.
    pub ends_at: UnixSeconds,
}

impl Watermark {
    /// Returns whether it was taken back and refuses nothing. Its record lets publishers and the journal learn of it.
    pub const fn is_taken_back(&self) -> bool {
        self.scope.is_one_credential() && self.instant.get() == 0
    }

    /// Returns the instant, or `None` if credentials of any date are refused.
    pub fn finite_instant(&self) -> Option<UnixSeconds> {
        Some(self.instant)
            .filter(|instant| i64::try_from(instant.get()).is_ok_and(|instant| instant < i64::MAX))
    }
}

/// The record of an item that was deleted, or whose end was set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tombstone {
    pub kind: TombstoneKind,
    /// The id of the item: for an edge the hash of its credential, for an API key its fingerprint, for a tag key its
    /// generation.
    pub id: String,
    /// When the item was created, or the end that was set. Seconds.
    pub at: UnixSeconds,
}

/// The kind of item that a [`Tombstone`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TombstoneKind {
    Operator,
    User,
    AuthKey,
    ApiKey,
    /// An API key whose end was moved.
    ApiKeyEnd,
    /// A credential of an edge that was removed.
    Edge,
    /// A credential of an edge that was rotated: `at` is when it ends.
    EdgeCredentialEnd,
    SigningKey,
    TagKey,
}

impl TombstoneKind {
    const ALL: [Self; 9] = [
        Self::Operator,
        Self::User,
        Self::AuthKey,
        Self::ApiKey,
        Self::ApiKeyEnd,
        Self::Edge,
        Self::EdgeCredentialEnd,
        Self::SigningKey,
        Self::TagKey,
    ];

    /// Returns the name in the store and in the journal.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::User => "user",
            Self::AuthKey => "auth_key",
            Self::ApiKey => "api_key",
            Self::ApiKeyEnd => "api_key_end",
            Self::Edge => "edge",
            Self::EdgeCredentialEnd => "edge_credential_end",
            Self::SigningKey => "signing_key",
            Self::TagKey => "tag_key",
        }
    }

    /// Returns whether the tombstone records an end, which may be set again.
    pub const fn is_end(self) -> bool {
        matches!(self, Self::ApiKeyEnd | Self::EdgeCredentialEnd)
    }

    /// Returns the kind of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|gone| gone.name() == name)
    }
}

/// An interval of issue, in seconds, for which the store lacks credentials, as it was restored from a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IssuanceGap {
    /// The second before the first one of the gap.
    pub issued_after: UnixSeconds,
    /// The last second of the gap.
    pub issued_until: UnixSeconds,
    /// When the gap was found.
    pub found_at: UnixSeconds,
    /// The version from which on edges refuse unknown credentials of the gap; `None` until it is repaired.
    pub version: Option<Version>,
}

/// The scope of a watermark.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum WatermarkScope {
    Global,
    SigningKey(String),
    Operator(OperatorId),
    User(OperatorId, UserName),
    AuthKey(AuthKeyId),
    Session(SessionId),
    /// A subject of another issuer.
    ForeignUser(ForeignName),
    /// All tokens of another issuer.
    Issuer(IssuerName),
    /// The tokens of a client of another issuer.
    Client(ForeignName),
    /// The tokens of a session of another issuer.
    IssuerSession(ForeignName),
    /// One token of another issuer.
    TokenId(ForeignName),
}

impl WatermarkScope {
    /// Returns whether the scope contains tokens of another issuer only, which are never in the issuance log.
    pub fn is_foreign(&self) -> bool {
        self.issuer().is_some()
    }

    /// Returns the `iss` of the tokens of a scope of another issuer.
    pub fn issuer(&self) -> Option<&str> {
        match self {
            Self::Issuer(issuer) => Some(issuer.as_str()),
            Self::ForeignUser(name)
            | Self::Client(name)
            | Self::IssuerSession(name)
            | Self::TokenId(name) => Some(name.issuer()),
            Self::Global
            | Self::SigningKey(_)
            | Self::Operator(_)
            | Self::User(..)
            | Self::AuthKey(_)
            | Self::Session(_) => None,
        }
    }

    /// Returns whether the scope of another issuer is one token, or a session that is used like one. Its watermark refuses
    /// credentials of any date, and can be taken back.
    pub const fn is_one_credential(&self) -> bool {
        matches!(self, Self::IssuerSession(_) | Self::TokenId(_))
    }

    /// Returns the id without the kind, as in the store and in the scopes of edges.
    pub fn id(&self) -> String {
        match self {
            Self::Global => String::new(),
            Self::Issuer(issuer) => issuer.to_string(),
            Self::ForeignUser(name)
            | Self::Client(name)
            | Self::IssuerSession(name)
            | Self::TokenId(name) => name.to_string(),
            Self::SigningKey(_)
            | Self::Operator(_)
            | Self::User(..)
            | Self::AuthKey(_)
            | Self::Session(_) => self.to_string(),
        }
    }

    /// Returns the scope as edges have it. `id` is the [`id`](Self::id).
    pub const fn at_edges<'a>(&self, id: &'a str) -> bundle::Scope<'a> {
        match self {
            Self::Global => bundle::Scope::Global,
            Self::SigningKey(_) => bundle::Scope::SigningKey(id),
            Self::Operator(_) => bundle::Scope::Operator(id),
            Self::User(..) | Self::ForeignUser(_) => bundle::Scope::User(id),
            Self::AuthKey(_) => bundle::Scope::AuthKey(id),
            Self::Session(_) => bundle::Scope::Session(id),
            Self::Issuer(_) => bundle::Scope::Issuer(id),
            Self::Client(_) => bundle::Scope::Client(id),
            Self::IssuerSession(_) => bundle::Scope::IssuerSession(id),
            Self::TokenId(_) => bundle::Scope::TokenId(id),
        }
    }

    /// Returns the kind as in the store and in the scopes of edges.
    pub const fn kind(&self) -> &'static str {
        self.at_edges("").kind_and_id().0
    }
}

impl From<AnySubject> for WatermarkScope {
    fn from(subject: AnySubject) -> Self {
        match subject {
            AnySubject::Own(subject) => subject.into(),
            AnySubject::Foreign(subject) => Self::ForeignUser(subject),
        }
    }
}

impl From<Subject> for WatermarkScope {
    /// Returns the scope of a subject. The scope of the root user is its operator.
    fn from(subject: Subject) -> Self {
        match subject.user {
            None => Self::Operator(subject.operator),
            Some(user) => Self::User(subject.operator, user),
        }
    }
}

impl fmt::Display for WatermarkScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Global => f.write_str("everything"),
            Self::SigningKey(kid) => f.write_str(kid),
            Self::Operator(operator) => operator.fmt(f),
            Self::User(operator, user) => write!(f, "{operator}/{user}"),
            Self::AuthKey(id) => id.fmt(f),
            Self::Session(id) => id.fmt(f),
            Self::ForeignUser(subject) => subject.fmt(f),
            Self::Issuer(issuer) => write!(f, "issuer {issuer}"),
            Self::Client(id) => write!(f, "client {id}"),
            Self::IssuerSession(id) => write!(f, "session {id}"),
            Self::TokenId(id) => write!(f, "token {id}"),
        }
    }
}

/// The record of a signing key of tokens. The private key is a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningKeyRecord {
    pub kid: String,
    pub algorithm: Algorithm,
    pub public: Option<[u8; 32]>,
    pub state: SigningKeyState,
}

/// The state of a signing key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SigningKeyState {
    /// The key signs new tokens.
    Active,
    /// The key only verifies tokens.
    Verifying,
}

/// The record of an edge.
#[derive(Debug, Clone)]
pub struct Edge {
    pub id: EdgeId,
    pub enrolled_at: UnixSeconds,
    pub last_seen_at: Option<UnixSeconds>,
    /// When its credential was last rotated.
    pub rotated_at: Option<UnixSeconds>,
    /// When the last of its earlier credentials ends; `None` if all have ended.
    pub old_credential_ends_at: Option<UnixSeconds>,
    /// Its last report.
    pub report: Option<EdgeReport>,
}

/// The status that an edge reports when it requests a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EdgeReport {
    /// The version of its bundle.
    pub version: Version,
    /// When the manifest of its bundle was signed, in milliseconds.
    pub issued_at: Option<u64>,
    /// Its workers; `None` if the edge does not report them.
    pub workers: Option<EdgeWorkers>,
}

/// The workers of an edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EdgeWorkers {
    /// The number of workers.
    pub count: u64,
    /// The lowest version that any worker enforces.
    pub oldest: Version,
    /// The number of workers that enforce a lower version than the edge has.
    pub lagging: u64,
    /// The number of open streams that a rule keeps although their credential is refused.
    pub kept_streams: u64,
}

impl EdgeReport {
    /// Returns the plausible part of the report: a version above `latest` was not published here, so it does not count.
    #[must_use]
    pub fn credible(self, latest: Version) -> Self {
        let Self { version, issued_at, workers } = self;
        if version > latest {
            return Self { version: Version::ZERO, issued_at: None, workers: None };
        }
        let issued_at = issued_at.filter(|issued_at| *issued_at <= latest.get());
        Self { version, issued_at, workers: workers.filter(|workers| workers.oldest <= latest) }
    }

    /// Returns the version that all workers enforce.
    pub fn enforces(&self) -> Version {
        self.workers.map_or(self.version, |workers| workers.oldest.min(self.version))
    }
}

/// The actor of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// The bearer of a token.
    Token { subject: Subject, fingerprint: Fingerprint },
    /// The holder of an AuthKey.
    AuthKey(AuthKeyId),
    /// Someone with a shell beside the data folder.
    Admin,
    /// The control plane itself.
    System,
}

impl Actor {
    /// Returns whether the actor may create, delete or revoke credentials of this owner. Permissions do not matter: only the
    /// root user manages the credentials of the root user. Otherwise the permission to create keys or to revoke credentials
    /// would give the power of the root user, which no deny can restrict.
    pub fn may_manage(&self, owner: &Subject) -> bool {
        match self {
            Self::Token { subject, .. } => !owner.is_root() || subject == owner,
            Self::AuthKey(_) => !owner.is_root(),
            Self::Admin | Self::System => true,
        }
    }

    /// Returns the name of a subject as an actor, as stored with the keys that it creates.
    pub fn name_of_subject(subject: &Subject) -> String {
        format!("subject:{subject}")
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token { subject, .. } => f.write_str(&Self::name_of_subject(subject)),
            Self::AuthKey(id) => write!(f, "authkey:{id}"),
            Self::Admin => f.write_str("admin"),
            Self::System => f.write_str("system"),
        }
    }
}

/// An entry of the audit log, which is kept for `audit.retention`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    pub seq: u64,
    /// Milliseconds since the Unix epoch.
    pub at: u64,
    pub actor: String,
    pub action: String,
    pub target: String,
    pub detail: serde_json::Value,
}
