use alloc::{format, string::String, vec::Vec};
use core::fmt;

use bundle::{Carried, PublicKey};
use serde::{Deserialize, Deserializer, de::Error as _};
use token::{api_key::Prefix, secret::Secret};

use crate::{
    Answers, ClientAddress, CredentialSource, Floor, OtherIssuer, Upstream,
    route::{Rules, Unmatched},
    strict,
};

/// The plugin configuration: JSON in which an unknown member, a wrong type or a missing value is an error that names
/// its path.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// The audience of the bundle: which environment this edge belongs to.
    pub audience: String,
    /// Whose delegations to believe; more than one while a root is being replaced.
    #[serde(deserialize_with = "root_keys")]
    pub root_keys: Vec<PublicKey>,
    /// The least epoch to believe: that of the keys that followed stolen ones.
    #[serde(default)]
    pub min_epoch: u64,
    /// The least version to believe, so that an edge that starts afresh cannot be shown an older one.
    #[serde(default)]
    pub min_version: u64,
    #[serde(default)]
    pub control_plane: Option<ControlPlane>,
    /// The bundle itself instead of where it comes from, for hosts without calls out.
    #[serde(default, deserialize_with = "carried")]
    pub bundle: Option<Carried>,
    pub tokens: Tokens,
    /// Where a credential may be.
    #[serde(default = "bearer", deserialize_with = "credential_sources")]
    pub credentials: Vec<CredentialSource>,
    /// Whether API keys are accepted, and which.
    #[serde(default)]
    pub api_keys: Option<ApiKeys>,
    /// Whose tokens are accepted besides our own.
    #[serde(default)]
    pub issuers: Vec<OtherIssuer>,
    /// What the names of the identity headers start with.
    #[serde(default = "identity_prefix", deserialize_with = "header_name")]
    pub identity_prefix: String,
    /// Other names for them, claims and an assertion.
    #[serde(default)]
    pub identity: Upstream,
    /// Whether what would be refused is, or passes and is only reported.
    #[serde(default)]
    pub mode: Mode,
    /// What access logs and other filters get to know.
    #[serde(default = "reason_only")]
    pub filter_state: Vec<StateItem>,
    /// How many authentic credentials each worker remembers; 0 for none.
    #[serde(default = "cache_entries", deserialize_with = "entries")]
    pub cache_entries: usize,
    /// Whether the upstream is spared the credential.
    #[serde(default = "yes")]
    pub strip_credential: bool,
    /// How long to go on with what is known when the control plane is silent for longer than a manifest lives.
    #[serde(default = "outage_grace")]
    pub outage_grace_seconds: u64,
    /// The `realm` of the challenge.
    #[serde(default = "keystile", deserialize_with = "realm")]
    pub realm: String,
    /// What which requests must bring. Without rules, every request needs a credential and any good one will do.
    #[serde(default)]
    pub rules: Rules,
    /// What becomes of a request that no rule matches; refused when there are rules.
    #[serde(default)]
    pub unmatched: Option<Unmatched>,
    /// Whom a request comes from, for conditions of permissions; the peer of the connection when nothing is said.
    #[serde(default)]
    pub client_address: Option<ClientAddress>,
    /// What refused clients get.
    #[serde(default)]
    pub answers: Answers,
}

/// Where the bundle comes from.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ControlPlane {
    /// The name of the Envoy cluster.
    #[serde(deserialize_with = "not_empty")]
    pub cluster: String,
    /// The `:authority` to ask for.
    #[serde(default = "keystile")]
    pub authority: String,
    /// The edge credential, as `keystile edge enroll` shows it.
    #[serde(deserialize_with = "secret")]
    pub credential: Secret,
    /// How long the control plane may hold a request while there is nothing new; shorter than a manifest lives.
    #[serde(default = "wait", deserialize_with = "wait_seconds")]
    pub wait_seconds: u64,
}

/// What a token must say.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tokens {
    #[serde(deserialize_with = "not_empty")]
    pub issuer: String,
    /// The token must be for one of them.
    #[serde(deserialize_with = "some")]
    pub audiences: Vec<String>,
    /// How far clocks may be apart.
    #[serde(default = "leeway", deserialize_with = "leeway_seconds")]
    pub leeway_seconds: u64,
    /// What may stand in front of a token of ours, such as `kauth-`.
    #[serde(default)]
    pub prefixes: Vec<String>,
}

/// API keys of ours.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKeys {
    /// What they start with.
    #[serde(default = "ks_live", deserialize_with = "key_prefixes")]
    pub prefixes: Vec<Prefix>,
    /// The header with the name of the user that a key belongs to.
    #[serde(default = "x_username", deserialize_with = "header_name")]
    pub username_header: String,
}

/// What becomes of a request that may not pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    #[default]
    Enforce,
    /// It passes, is counted and marked.
    Report,
}

/// What filter state can say of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StateItem {
    /// Why it is refused, or would be.
    Reason,
    KeyId,
    Subject,
    Operator,
    Fingerprint,
}

impl Policy {
    pub const fn floor(&self) -> Floor {
        Floor { epoch: self.min_epoch, version: self.min_version }
    }

    pub fn from_json(json: &[u8]) -> Result<Self, PolicyError> {
        let policy: Self = strict::read(json)?;
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
                message: format!("`{}` is not among the `credentials` of the policy", name.escape_debug()),
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

fn root_keys<'de, D: Deserializer<'de>>(source: D) -> Result<Vec<PublicKey>, D::Error> {
    struct Key(PublicKey);

    impl<'de> Deserialize<'de> for Key {
        fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
            let text = String::deserialize(source)?;
            text.parse().map(Key).map_err(D::Error::custom)
        }
    }

    let keys: Vec<Key> = some(source)?;
    Ok(keys.into_iter().map(|Key(key)| key).collect())
}

/// The text itself is not told: there may be secrets in it.
fn carried<'de, D: Deserializer<'de>>(source: D) -> Result<Option<Carried>, D::Error> {
    let text = String::deserialize(source)?;
    Carried::read(&text)
        .map(Some)
        .ok_or_else(|| D::Error::custom("must be as `keystile bundle export` prints it"))
}

fn credential_sources<'de, D: Deserializer<'de>>(source: D) -> Result<Vec<CredentialSource>, D::Error> {
    some(source)
}

pub(crate) fn some<'de, D: Deserializer<'de>, T: Deserialize<'de>>(source: D) -> Result<Vec<T>, D::Error> {
    let items = Vec::deserialize(source)?;
    if items.is_empty() { Err(D::Error::custom("there must be at least one")) } else { Ok(items) }
}

pub(crate) fn not_empty<'de, D: Deserializer<'de>>(source: D) -> Result<String, D::Error> {
    let text = String::deserialize(source)?;
    if text.is_empty() { Err(D::Error::custom("must not be empty")) } else { Ok(text) }
}

fn key_prefixes<'de, D: Deserializer<'de>>(source: D) -> Result<Vec<Prefix>, D::Error> {
    let texts: Vec<String> = some(source)?;
    let prefixes = texts.iter().map(|text| text.parse().map_err(D::Error::custom));
    prefixes.collect()
}

fn secret<'de, D: Deserializer<'de>>(source: D) -> Result<Secret, D::Error> {
    not_empty(source).map(Secret::from)
}

/// RFC 9110 section 5.1, in lower case as HTTP/2 has it; a pseudo-header is none.
pub(crate) fn header_name<'de, D: Deserializer<'de>>(source: D) -> Result<String, D::Error> {
    let name = not_empty(source)?;
    if is_header_name(&name) {
        Ok(name)
    } else {
        Err(D::Error::custom("must be of a-z 0-9 - _ only, and none that HTTP itself needs"))
    }
}

pub(crate) fn some_header_name<'de, D: Deserializer<'de>>(source: D) -> Result<Option<String>, D::Error> {
    header_name(source).map(Some)
}

pub(crate) fn is_header_name(name: &str) -> bool {
    let usual = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    !name.is_empty() && name.bytes().all(usual) && !FRAMING.contains(&name)
}

/// RFC 9110 section 5.6.2.
pub(crate) fn is_token(text: &str) -> bool {
    let usual = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(usual)
}

/// A quoted string in the challenge (RFC 9110 section 11.2): nothing that would need escaping.
fn realm<'de, D: Deserializer<'de>>(source: D) -> Result<String, D::Error> {
    let realm = String::deserialize(source)?;
    let plain = |byte: u8| (byte == b' ' || byte.is_ascii_graphic()) && !matches!(byte, b'"' | b'\\');
    if realm.bytes().all(plain) {
        Ok(realm)
    } else {
        Err(D::Error::custom("must be printable, without \" and \\"))
    }
}

fn wait_seconds<'de, D: Deserializer<'de>>(source: D) -> Result<u64, D::Error> {
    bounded(source, 0, MAX_WAIT_SECONDS)
}

fn leeway_seconds<'de, D: Deserializer<'de>>(source: D) -> Result<u64, D::Error> {
    bounded(source, 0, MAX_LEEWAY_SECONDS)
}

fn entries<'de, D: Deserializer<'de>>(source: D) -> Result<usize, D::Error> {
    bounded(source, 0, MAX_CACHE_ENTRIES).and_then(|entries| entries.try_into().map_err(D::Error::custom))
}

pub(crate) fn bounded<'de, D: Deserializer<'de>>(source: D, least: u64, most: u64) -> Result<u64, D::Error> {
    match u64::deserialize(source)? {
        number if (least..=most).contains(&number) => Ok(number),
        _ => Err(D::Error::custom(format_args!("must be from {least} to {most}"))),
    }
}

fn bearer() -> Vec<CredentialSource> {
    Vec::from([CredentialSource::bearer()])
}

fn ks_live() -> Vec<Prefix> {
    Vec::from([Prefix::default()])
}

fn x_username() -> String {
    "x-username".into()
}

fn reason_only() -> Vec<StateItem> {
    Vec::from([StateItem::Reason])
}

/// At some 500 bytes each, 2 MB.
const fn cache_entries() -> usize {
    4096
}

fn identity_prefix() -> String {
    "x-keystile-".into()
}

fn keystile() -> String {
    "keystile".into()
}

const fn yes() -> bool {
    true
}

const fn outage_grace() -> u64 {
    15 * 60
}

const fn wait() -> u64 {
    15
}

const fn leeway() -> u64 {
    5
}

/// Some 32 MB.
const MAX_CACHE_ENTRIES: u64 = 65_536;

/// What HTTP itself needs: clearing or setting it breaks the request.
const FRAMING: [&str; 6] = ["host", "content-length", "transfer-encoding", "connection", "te", "upgrade"];

/// What the control plane holds a request for at most: half of the lifetime of a manifest.
const MAX_WAIT_SECONDS: u64 = 30;

/// RFC 7519 section 4.1.4: "usually no more than a few minutes".
const MAX_LEEWAY_SECONDS: u64 = 300;
