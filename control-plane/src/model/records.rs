use std::fmt;

use token::{Algorithm, Fingerprint, secret::SecretHash};

use crate::jwks::IssuerKey;

use super::{AuthKeyId, EdgeId, OperatorId, SessionId, Subject, UserName};

/// An AuthKey as it is kept: of the secret only the hash.
#[derive(Debug, Clone)]
pub struct AuthKey {
    pub id: AuthKeyId,
    pub subject: Subject,
    pub secret_hash: SecretHash,
    /// As the audit log names it; none where that is not known.
    pub created_by: Option<String>,
    pub created_at: u64,
    pub last_used_at: Option<u64>,
}

/// A token that was issued, without the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuance {
    pub fingerprint: Fingerprint,
    pub kid: String,
    pub subject: Subject,
    pub auth_key: Option<AuthKeyId>,
    pub session: Option<SessionId>,
    pub issued_at: u64,
    pub expires_at: u64,
}

/// What the base is built over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UniverseMember {
    pub fingerprint: Fingerprint,
    pub kid: String,
    pub issued_at: u64,
    pub expires_at: u64,
    pub revoked: bool,
}

/// A fingerprint that is refused until it would have expired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    pub fingerprint: Fingerprint,
    pub expires_at: u64,
    pub reason: Option<String>,
    pub revoked_at: u64,
}

/// What became of a fingerprint last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RevocationChange {
    Revoked(Revocation),
    /// A revocation was taken back.
    Restored {
        fingerprint: Fingerprint,
        expires_at: u64,
    },
}

impl RevocationChange {
    pub const fn fingerprint(&self) -> &Fingerprint {
        match self {
            Self::Revoked(Revocation { fingerprint, .. }) | Self::Restored { fingerprint, .. } => fingerprint,
        }
    }
}

/// What the base says of the credentials that expire in one span of time (`expires_before` is not included).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseBlock {
    pub expires_from: u64,
    pub expires_before: u64,
    /// The version that it speaks of.
    pub as_of: u64,
    /// The version in which it was installed.
    pub version: u64,
    pub built_at: u64,
    pub members: u64,
    pub revoked: u64,
}

/// Everything of `scope` issued at or before `instant` is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watermark {
    pub scope: WatermarkScope,
    pub instant: u64,
    /// The last second in which anything that it refuses may live; the largest instant where nothing tells.
    pub ends_at: u64,
}

/// What was deleted for ever, or has got an end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tombstone {
    pub gone: Gone,
    /// Of an edge the hash of its credential, of an API key its fingerprint, of a tag key its generation.
    pub id: String,
    /// When it had been made, in seconds. Of an end: the end.
    pub at: u64,
}

/// What kind of thing a [`Tombstone`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Gone {
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

impl Gone {
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

    /// In the store and in the journal.
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

    /// True if the thing ends at the time of the tombstone, which may move.
    pub const fn is_an_end(self) -> bool {
        matches!(self, Self::ApiKeyEnd | Self::EdgeCredentialEnd)
    }

    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|gone| gone.name() == name)
    }
}

/// A span of issue of which the store knows a part only: it was restored from a backup. In seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundGap {
    /// Not part of it.
    pub issued_after: u64,
    /// Part of it.
    pub issued_until: u64,
    pub found_at: u64,
    /// From which on edges refuse what is not known of it; none until it is repaired.
    pub version: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum WatermarkScope {
    Global,
    SigningKey(String),
    Operator(OperatorId),
    User(OperatorId, UserName),
    AuthKey(AuthKeyId),
    Session(SessionId),
}

impl From<Subject> for WatermarkScope {
    /// The root user stands for the whole operator.
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
        }
    }
}

/// The public part of a key that tokens are signed with; the private part is a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningKeyRecord {
    pub kid: String,
    pub algorithm: Algorithm,
    pub public: Option<[u8; 32]>,
    pub state: SigningKeyState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SigningKeyState {
    /// Signs new tokens.
    Active,
    /// Signs no more, still verifies.
    Verifying,
}

#[derive(Debug, Clone)]
pub struct Edge {
    pub id: EdgeId,
    pub enrolled_at: u64,
    pub last_seen_at: Option<u64>,
    /// When it was last given another credential.
    pub rotated_at: Option<u64>,
    /// When the last of its earlier credentials ends, if there is any that was not ended by the use of the newest.
    pub old_credential_ends_at: Option<u64>,
    /// What it said of itself then.
    pub report: Option<EdgeReport>,
}

/// What an edge tells of itself when it asks for a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EdgeReport {
    /// Of the bundle that it holds.
    pub version: u64,
    /// When that bundle's manifest was signed, milliseconds.
    pub issued_at: Option<u64>,
    /// None of an edge that does not tell.
    pub workers: Option<EdgeWorkers>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EdgeWorkers {
    pub count: u64,
    /// The lowest version that any of them enforces.
    pub oldest: u64,
    /// How many enforce less than what the edge holds.
    pub lagging: u64,
}

impl EdgeReport {
    /// As far as it can be true: of a version above `latest` nothing is known, so nothing is believed to be enforced.
    #[must_use]
    pub fn credible(self, latest: u64) -> Self {
        let Self { version, issued_at, workers } = self;
        if version > latest {
            return Self { version: 0, issued_at: None, workers: None };
        }
        let issued_at = issued_at.filter(|issued_at| *issued_at <= latest);
        Self { version, issued_at, workers: workers.filter(|workers| workers.oldest <= latest) }
    }

    /// What every worker refuses that this version names.
    pub fn enforces(&self) -> u64 {
        self.workers.map_or(self.version, |workers| workers.oldest.min(self.version))
    }
}

/// Who does something, as the audit log names it.
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
    /// Whether it may make, take away or refuse credentials of this owner, whatever it was granted: only the root user
    /// itself manages those of a root user. Else whoever may make keys, or refuse credentials, would have the power of the
    /// root user, which no deny takes away.
    pub fn may_manage(&self, owner: &Subject) -> bool {
        match self {
            Self::Token { subject, .. } => !owner.is_root() || subject == owner,
            Self::AuthKey(_) => !owner.is_root(),
            Self::Admin | Self::System => true,
        }
    }

    /// Who made a key, as the store keeps it.
    pub fn of_subject(subject: &Subject) -> String {
        format!("subject:{subject}")
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token { subject, .. } => f.write_str(&Self::of_subject(subject)),
            Self::AuthKey(id) => write!(f, "authkey:{id}"),
            Self::Admin => f.write_str("admin"),
            Self::System => f.write_str("system"),
        }
    }
}

/// One change, as it is kept for ever or for as long as `audit.retention` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditLine {
    pub seq: u64,
    /// Milliseconds since the Unix epoch.
    pub at: u64,
    pub actor: String,
    pub action: String,
    pub target: String,
    pub detail: serde_json::Value,
}

/// What is known of another issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerRecord {
    pub issuer: String,
    /// The last good set.
    pub keys: Vec<IssuerKey>,
    /// What of it was left out, and why.
    pub skipped: Vec<String>,
    /// The entity tag of the set, after its URL.
    pub tag: Option<String>,
    pub fetched_at: Option<u64>,
    pub tried_at: Option<u64>,
    pub due_at: u64,
    /// In a row.
    pub failures: u64,
    pub error: Option<String>,
}
