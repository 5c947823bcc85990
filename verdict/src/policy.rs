use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::fmt;

use bundle::{Carried, PublicKey};
use token::{
    api_key::{NotAPrefix, Prefix},
    json::Json,
    secret::Secret,
};

use crate::{
    Answers, ClientAddress, CredentialSource, Environment, Floor, OtherIssuer, Upstream,
    environment::variable_name,
    route::{PathCase, Rules, Unmatched},
    strict::{self, Members, Read, Wrong, shown},
};

/// The plugin configuration: JSON in which an unknown member, a wrong type or a missing value is an error that names
/// its path.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The audience of the bundle: which environment this edge belongs to.
    pub audience: String,
    /// Whose delegations to believe; more than one while a root is being replaced.
    pub root_keys: Vec<PublicKey>,
    /// The least epoch to believe: that of the keys that followed stolen ones.
    pub min_epoch: u64,
    /// The least version to believe, so that an edge that starts afresh cannot be shown an older one.
    pub min_version: u64,
    pub control_plane: Option<ControlPlane>,
    /// The bundle itself instead of where it comes from, for hosts without calls out.
    pub bundle: Option<Carried>,
    /// How long a bundle is fresh at most, from when it was issued, whatever its manifest claims.
    pub max_manifest_lifetime_seconds: u64,
    pub tokens: Tokens,
    /// Where a credential may be.
    pub credentials: Vec<CredentialSource>,
    /// Whether API keys are accepted, and which.
    pub api_keys: Option<ApiKeys>,
    /// Whose tokens are accepted besides our own.
    pub issuers: Vec<OtherIssuer>,
    /// What the names of the identity headers start with.
    pub identity_prefix: String,
    /// Other names for them, claims and an assertion.
    pub identity: Upstream,
    /// What becomes of a credential that no base covers.
    pub uncovered: Uncovered,
    /// Whether what would be refused is, or passes and is only reported.
    pub mode: Mode,
    /// What access logs and other filters get to know.
    pub filter_state: Vec<StateItem>,
    /// How many authentic credentials each worker remembers; 0 for none.
    pub cache_entries: usize,
    /// Whether the upstream is spared the credential.
    pub strip_credential: bool,
    /// How long to go on with what is known when the control plane is silent for longer than a manifest lives.
    pub outage_grace_seconds: u64,
    /// The `realm` of the challenge.
    pub realm: String,
    /// What which requests must bring. Without rules, every request needs a credential and any good one will do.
    pub rules: Rules,
    /// What becomes of a request that no rule matches; refused when there are rules.
    pub unmatched: Option<Unmatched>,
    /// Whether a path may be read as one with other capitals.
    pub path_case: PathCase,
    /// Whom a request comes from, for conditions of permissions; the peer of the connection when nothing is said.
    pub client_address: Option<ClientAddress>,
    /// What refused clients get.
    pub answers: Answers,
    /// Whether secrets may stand in the configuration itself, which hosts show in their configuration dump.
    pub allow_inline_secrets: bool,
}

/// Where the bundle comes from.
#[derive(Debug, Clone)]
pub struct ControlPlane {
    /// The name of the Envoy cluster.
    pub cluster: String,
    /// The `:authority` to ask for.
    pub authority: String,
    /// The edge credential, where the filter has to send it. `None` where the host adds it on the way.
    pub credential: Option<Secret>,
    /// The environment variable that the credential is in, until it is read.
    credential_env: Option<String>,
    /// How long the control plane may hold a request while there is nothing new; shorter than a manifest lives.
    pub wait_seconds: u64,
}

/// What a token must say.
#[derive(Debug, Clone)]
pub struct Tokens {
    pub issuer: String,
    /// The token must be for one of them.
    pub audiences: Vec<String>,
    /// How far clocks may be apart.
    pub leeway_seconds: u64,
    /// What may stand in front of a token of ours, such as `kauth-`.
    pub prefixes: Vec<String>,
}

/// API keys of ours.
#[derive(Debug, Clone)]
pub struct ApiKeys {
    /// What they start with.
    pub prefixes: Vec<Prefix>,
    /// The header with the name of the user that a key belongs to.
    pub username_header: String,
}

/// What becomes of a request that may not pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    #[default]
    Enforce,
    /// It passes, is counted and marked.
    Report,
}

/// What becomes of a credential that no revocation is known of, and that no base covers either.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Uncovered {
    /// It is good: revocations since the base stand in the list.
    #[default]
    Admit,
    Deny,
}

/// What filter state can say of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateItem {
    /// Why it is refused, or would be.
    Reason,
    KeyId,
    Subject,
    Operator,
    Fingerprint,
}

impl Read for Policy {
    fn read(json: &Json) -> Result<Self, Wrong> {
        let members = Members::of(json, &MEMBERS)?;
        let bundle = members.optional_by("bundle", carried)?;
        let usual_lifetime = if bundle.is_some() { USUAL_CARRIED_LIFETIME } else { USUAL_LIFETIME };
        let max_lifetime = members.optional_by("max_manifest_lifetime_seconds", manifest_lifetime)?;
        Ok(Self {
            audience: members.required("audience")?,
            root_keys: members
                .required_by("root_keys", |json| one_or_more(strict::items(json, root_key)?))?,
            min_epoch: members.optional("min_epoch")?.unwrap_or_default(),
            min_version: members.optional("min_version")?.unwrap_or_default(),
            control_plane: members.optional("control_plane")?,
            bundle,
            max_manifest_lifetime_seconds: max_lifetime.unwrap_or(usual_lifetime),
            tokens: members.required("tokens")?,
            credentials: members
                .optional_by("credentials", some)?
                .unwrap_or_else(|| Vec::from([CredentialSource::bearer()])),
            api_keys: members.optional("api_keys")?,
            issuers: members.optional("issuers")?.unwrap_or_default(),
            identity_prefix: members
                .optional_by("identity_prefix", header_name)?
                .unwrap_or_else(|| "x-keystile-".into()),
            identity: members.optional("identity")?.unwrap_or_default(),
            uncovered: members.optional("uncovered")?.unwrap_or_default(),
            mode: members.optional("mode")?.unwrap_or_default(),
            filter_state: members.optional("filter_state")?.unwrap_or_else(|| Vec::from([StateItem::Reason])),
            cache_entries: members.optional_by("cache_entries", entries)?.unwrap_or(USUAL_CACHE_ENTRIES),
            strip_credential: members.optional("strip_credential")?.unwrap_or(true),
            outage_grace_seconds: members.optional("outage_grace_seconds")?.unwrap_or(15 * 60),
            realm: members.optional_by("realm", realm)?.unwrap_or_else(|| "keystile".into()),
            rules: members.optional("rules")?.unwrap_or_default(),
            unmatched: members.optional("unmatched")?,
            path_case: members.optional("path_case")?.unwrap_or_default(),
            client_address: members.optional("client_address")?,
            answers: members.optional("answers")?.unwrap_or_default(),
            allow_inline_secrets: members.optional("allow_inline_secrets")?.unwrap_or_default(),
        })
    }
}

impl Read for ControlPlane {
    fn read(json: &Json) -> Result<Self, Wrong> {
        let known = ["cluster", "authority", "credential", "credential_env", "wait_seconds"];
        let members = Members::of(json, &known)?;
        Ok(Self {
            cluster: members.required_by("cluster", not_empty)?,
            authority: members.optional("authority")?.unwrap_or_else(|| "keystile".into()),
            credential: members.optional_by("credential", |json| not_empty(json).map(Secret::from))?,
            credential_env: members.optional_by("credential_env", variable_name)?,
            wait_seconds: members.optional_by("wait_seconds", wait)?.unwrap_or(USUAL_WAIT_SECONDS),
        })
    }
}

impl Read for Tokens {
    fn read(json: &Json) -> Result<Self, Wrong> {
        let members = Members::of(json, &["issuer", "audiences", "leeway_seconds", "prefixes"])?;
        Ok(Self {
            issuer: members.required_by("issuer", not_empty)?,
            audiences: members.required_by("audiences", some)?,
            leeway_seconds: members.optional_by("leeway_seconds", leeway)?.unwrap_or(5),
            prefixes: members.optional("prefixes")?.unwrap_or_default(),
        })
    }
}

impl Read for ApiKeys {
    fn read(json: &Json) -> Result<Self, Wrong> {
        let members = Members::of(json, &["prefixes", "username_header"])?;
        let prefixes = members.optional_by("prefixes", |json| one_or_more(strict::items(json, prefix)?))?;
        let username_header = members.optional_by("username_header", header_name)?;
        Ok(Self {
            prefixes: prefixes.unwrap_or_else(|| Vec::from([Prefix::default()])),
            username_header: username_header.unwrap_or_else(|| "x-username".into()),
        })
    }
}

impl Read for Mode {
    fn read(json: &Json) -> Result<Self, Wrong> {
        strict::variant(json, &[("enforce", Self::Enforce), ("report", Self::Report)])
    }
}

impl Read for Uncovered {
    fn read(json: &Json) -> Result<Self, Wrong> {
        strict::variant(json, &[("admit", Self::Admit), ("deny", Self::Deny)])
    }
}

impl Read for StateItem {
    fn read(json: &Json) -> Result<Self, Wrong> {
        strict::variant(
            json,
            &[
                ("reason", Self::Reason),
                ("key_id", Self::KeyId),
                ("subject", Self::Subject),
                ("operator", Self::Operator),
                ("fingerprint", Self::Fingerprint),
            ],
        )
    }
}

impl Policy {
    pub const fn floor(&self) -> Floor {
        Floor { epoch: self.min_epoch, version: self.min_version }
    }

    /// Reads a configuration on a host that gives the filter no environment variables.
    pub fn from_json(json: &[u8]) -> Result<Self, PolicyError> {
        Self::from_json_in(json, &Environment::default())
    }

    /// Reads a configuration, and the secrets that it names from the environment.
    pub fn from_json_in(json: &[u8], environment: &Environment) -> Result<Self, PolicyError> {
        let mut policy: Self = strict::read(json)?;
        policy.take_secrets(environment)?;
        if policy.control_plane.is_some() == policy.bundle.is_some() {
            return Err(PolicyError {
                path: "control_plane".into(),
                message: "either this or a `bundle` must be there".into(),
            });
        }
        let known = |name: &str| policy.credentials.iter().any(|source| source.name() == name);
        let stranger = policy.rules.credentials().find(|(_, name)| !known(name));
        if let Some((rule, name)) = stranger {
            return Err(PolicyError {
                path: format!("rules[{rule}].credentials"),
                message: format!("`{}` is not among the `credentials` of the policy", shown(name)),
            });
        }
        if let Some(name) = policy.identity.written_twice(&policy.identity_prefix) {
            return Err(PolicyError {
                path: "identity".into(),
                message: format!("writes the header `{name}` twice, or one that is read alike"),
            });
        }
        for (at, other) in policy.issuers.iter().enumerate() {
            let mut before = policy.issuers.iter().take(at).map(|before| &before.issuer);
            if other.issuer == policy.tokens.issuer || before.any(|before| *before == other.issuer) {
                return Err(PolicyError {
                    path: format!("issuers[{at}].issuer"),
                    message: "is named before".into(),
                });
            }
        }
        Ok(policy)
    }

    /// Whether a secret stands in the configuration itself.
    pub fn has_inline_secrets(&self) -> bool {
        self.allow_inline_secrets && self.inline_secret().is_some()
    }

    /// Reads the secrets that are named, and refuses those that stand in the configuration itself unless that is allowed.
    fn take_secrets(&mut self, environment: &Environment) -> Result<(), PolicyError> {
        if let (Some(path), false) = (self.inline_secret(), self.allow_inline_secrets) {
            return Err(PolicyError { path: path.into(), message: INLINE_SECRET.into() });
        }
        let wrong = |path: &str, message| PolicyError { path: path.into(), message };
        if let Some(ControlPlane { credential, credential_env: Some(name), .. }) = &mut self.control_plane {
            let path = "control_plane.credential_env";
            if credential.is_some() {
                return Err(wrong(path, "either this or `credential`".into()));
            }
            let secret = environment.secret(name).map_err(|message| wrong(path, message))?;
            // The file for Envoy's `credential_injector` holds a whole header.
            *credential = Some(match secret.expose().strip_prefix("Bearer ") {
                Some(bare) => Secret::from(String::from(bare)),
                None => secret,
            });
        }
        self.identity
            .take_secrets(environment)
            .map_err(|message| wrong("identity.assertion.secret_env", message))
    }

    /// The path of a secret that stands in the configuration itself, as it was before the environment was read.
    fn inline_secret(&self) -> Option<&'static str> {
        let named = |from: &ControlPlane| from.credential.is_some() && from.credential_env.is_none();
        if self.control_plane.as_ref().is_some_and(named) {
            return Some("control_plane.credential");
        }
        self.identity.has_inline_secret().then_some("identity.assertion.secret")
    }
}

/// What is wrong with a configuration, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyError {
    pub(crate) path: String,
    pub(crate) message: String,
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.path, self.message)
    }
}

impl core::error::Error for PolicyError {}

fn root_key(json: &Json) -> Result<PublicKey, Wrong> {
    let key = strict::text(json)?.parse();
    key.map_err(|_| Wrong::new("must be an Ed25519 public key in base64url"))
}

/// The text itself is not told: there may be secrets in it.
fn carried(json: &Json) -> Result<Carried, Wrong> {
    Carried::read(strict::text(json)?)
        .ok_or_else(|| Wrong::new("must be as `keystile bundle export` prints it"))
}

pub(crate) fn some<T: Read>(json: &Json) -> Result<Vec<T>, Wrong> {
    one_or_more(Vec::read(json)?)
}

fn one_or_more<T>(items: Vec<T>) -> Result<Vec<T>, Wrong> {
    if items.is_empty() { Err(Wrong::new("there must be at least one")) } else { Ok(items) }
}

pub(crate) fn not_empty(json: &Json) -> Result<String, Wrong> {
    let text = strict::text(json)?;
    if text.is_empty() { Err(Wrong::new("must not be empty")) } else { Ok(text.into()) }
}

fn prefix(json: &Json) -> Result<Prefix, Wrong> {
    strict::text(json)?.parse().map_err(|error: NotAPrefix| Wrong::new(error.to_string()))
}

/// RFC 9110 section 5.1, in lower case as HTTP/2 has it; a pseudo-header is none.
pub(crate) fn header_name(json: &Json) -> Result<String, Wrong> {
    let name = not_empty(json)?;
    if is_header_name(&name) {
        Ok(name)
    } else {
        Err(Wrong::new("must be of a-z 0-9 - _ only, and none that HTTP itself needs"))
    }
}

fn is_header_name(name: &str) -> bool {
    let usual = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    !name.is_empty() && name.bytes().all(usual) && !FRAMING.contains(&name)
}

/// RFC 9110 section 5.6.2.
pub(crate) fn is_token(text: &str) -> bool {
    let usual = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(usual)
}

/// A quoted string in the challenge (RFC 9110 section 11.2): nothing that would need escaping.
fn realm(json: &Json) -> Result<String, Wrong> {
    let realm = strict::text(json)?;
    let plain = |byte: u8| (byte == b' ' || byte.is_ascii_graphic()) && !matches!(byte, b'"' | b'\\');
    if realm.bytes().all(plain) {
        Ok(realm.into())
    } else {
        Err(Wrong::new("must be printable, without \" and \\"))
    }
}

fn entries(json: &Json) -> Result<usize, Wrong> {
    let entries = strict::bounded(json, 0, MAX_CACHE_ENTRIES)?;
    usize::try_from(entries).map_err(|_| Wrong::new("too many"))
}

fn manifest_lifetime(json: &Json) -> Result<u64, Wrong> {
    strict::bounded(json, 1, MAX_LIFETIME)
}

fn leeway(json: &Json) -> Result<u64, Wrong> {
    strict::bounded(json, 0, MAX_LEEWAY_SECONDS)
}

fn wait(json: &Json) -> Result<u64, Wrong> {
    strict::bounded(json, 0, MAX_WAIT_SECONDS)
}

/// At some 500 bytes each, 2 MB, and the claims that rules look at.
const USUAL_CACHE_ENTRIES: usize = 4096;

const MEMBERS: [&str; 26] = [
    "audience",
    "root_keys",
    "min_epoch",
    "min_version",
    "control_plane",
    "bundle",
    "max_manifest_lifetime_seconds",
    "tokens",
    "credentials",
    "api_keys",
    "issuers",
    "identity_prefix",
    "identity",
    "uncovered",
    "mode",
    "filter_state",
    "cache_entries",
    "strip_credential",
    "outage_grace_seconds",
    "realm",
    "rules",
    "unmatched",
    "path_case",
    "client_address",
    "answers",
    "allow_inline_secrets",
];

const INLINE_SECRET: &str = "a secret here can be read in the host's configuration dump. Leave it out where the host adds \
    it on the way (Envoy: `credential_injector`, as `keystile edge enroll` prints it), or name an environment variable \
    (the same member with `_env`); `allow_inline_secrets: true` is for hosts that can do neither";

/// Some 32 MB, and the claims that rules look at.
const MAX_CACHE_ENTRIES: u64 = 65_536;

/// What HTTP itself needs: clearing or setting it breaks the request, or a connection may have it as an option.
const FRAMING: [&str; 11] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "proxy-connection",
    "keep-alive",
    "close",
    "te",
    "trailer",
    "upgrade",
    "http2-settings",
];

/// Seconds: five lifetimes of a manifest as the control plane signs them by default.
const USUAL_LIFETIME: u64 = 300;

/// Seconds: what `keystile bundle export` signs at most, as a configuration is not replaced every minute.
const USUAL_CARRIED_LIFETIME: u64 = 3600;

/// Seconds: a day, as long as a checkpoint is good.
const MAX_LIFETIME: u64 = 86_400;

/// Below the 15 s that Envoy's routes, and many a proxy, wait for an answer.
const USUAL_WAIT_SECONDS: u64 = 10;

/// What the control plane holds a request for at most: half of the lifetime of a manifest.
const MAX_WAIT_SECONDS: u64 = 30;

/// RFC 7519 section 4.1.4: "usually no more than a few minutes".
const MAX_LEEWAY_SECONDS: u64 = 300;
