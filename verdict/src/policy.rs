use alloc::{format, string::String, vec::Vec};

use bundle::{InlineBundle, PublicKey};
use serde::{Deserialize, Deserializer};
use token::{
    api_key::{NotAPrefix, Prefix},
    secret::Secret,
};

use crate::{
    Answers, ClientAddress, CredentialSource, Environment, Floor, OtherIssuer, Upstream,
    config::{self, bounded, bounded_usize, checked, non_empty, one_or_more},
    environment::variable_name,
    route::{PathCase, Rules, Unmatched},
};

/// The plugin configuration: JSON in which an unknown member, a wrong type or a missing value is an error that names
/// its path.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// The audience of the bundle: which environment this edge belongs to.
    pub audience: String,
    /// Whose delegations to believe; more than one while a root is being replaced.
    #[serde(deserialize_with = "root_keys")]
    #[cfg_attr(feature = "schema", schemars(with = "Vec<String>", length(min = 1)))]
    pub root_keys: Vec<PublicKey>,
    /// The least epoch to believe: that of the keys that followed stolen ones.
    #[serde(default)]
    pub min_epoch: u64,
    /// The least version to believe, so that an edge that starts afresh cannot be shown an older one.
    #[serde(default)]
    pub min_version: u64,
    /// Where the bundle comes from; required without `bundle`.
    #[serde(default)]
    pub control_plane: Option<ControlPlane>,
    /// The bundle itself instead of where it comes from, for hosts without calls out.
    #[serde(default, deserialize_with = "inline_bundle")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    pub bundle: Option<InlineBundle>,
    /// How long a bundle is fresh at most, from when it was issued, whatever its manifest claims.
    #[serde(default, deserialize_with = "bounded::<1, MAX_LIFETIME, _>")]
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "is_unset", range(min = 1, max = MAX_LIFETIME)))]
    pub max_manifest_lifetime_seconds: u64,
    /// What our own tokens must say.
    pub tokens: Tokens,
    /// Where a credential may be.
    #[serde(default = "default_credentials", deserialize_with = "one_or_more")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1)))]
    pub credentials: Vec<CredentialSource>,
    /// Whether API keys are accepted, and which.
    #[serde(default)]
    pub api_keys: Option<ApiKeys>,
    /// Whose tokens are accepted besides our own.
    #[serde(default)]
    pub issuers: Vec<OtherIssuer>,
    /// What the names of the identity headers start with.
    #[serde(default = "default_identity_prefix", deserialize_with = "header_name")]
    #[cfg_attr(feature = "schema", schemars(extend("pattern" = "^[a-z0-9_-]+$")))]
    pub identity_prefix: String,
    /// Other names for them, claims and an assertion.
    #[serde(default)]
    pub identity: Upstream,
    /// What becomes of a credential that no base covers.
    #[serde(default)]
    pub uncovered: Uncovered,
    /// Whether what would be refused is, or passes and is only reported.
    #[serde(default)]
    pub mode: Mode,
    /// What access logs and other filters get to know.
    #[serde(default = "default_filter_state")]
    pub filter_state: Vec<StateItem>,
    /// How many authentic credentials each worker remembers; 0 for none.
    #[serde(
        default = "default_cache_entries",
        deserialize_with = "bounded_usize::<0, MAX_CACHE_ENTRIES, _>"
    )]
    #[cfg_attr(feature = "schema", schemars(range(max = MAX_CACHE_ENTRIES)))]
    pub cache_entries: usize,
    /// Whether the upstream is spared the credential.
    #[serde(default = "default_strip_credential")]
    pub strip_credential: bool,
    /// How long to go on with what is known when the control plane is silent for longer than a manifest lives.
    #[serde(default = "default_outage_grace")]
    pub outage_grace_seconds: u64,
    /// The `realm` of the challenge.
    #[serde(default = "default_realm", deserialize_with = "realm")]
    pub realm: String,
    /// What which requests must bring. Without rules, every request needs a credential and any good one will do.
    #[serde(default)]
    pub rules: Rules,
    /// What becomes of a request that no rule matches; refused when there are rules.
    #[serde(default)]
    pub unmatched: Option<Unmatched>,
    /// Whether a path may be read as one with other capitals.
    #[serde(default)]
    pub path_case: PathCase,
    /// Whom a request comes from, for conditions of permissions; the peer of the connection when nothing is said.
    #[serde(default)]
    pub client_address: Option<ClientAddress>,
    /// What refused clients get.
    #[serde(default)]
    pub answers: Answers,
    /// Whether secrets may stand in the configuration itself, which hosts show in their configuration dump.
    #[serde(default)]
    pub allow_inline_secrets: bool,
}

/// Where the bundle comes from.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ControlPlane {
    /// The name of the Envoy cluster.
    #[serde(deserialize_with = "non_empty")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1)))]
    pub cluster: String,
    /// The `:authority` to ask for.
    #[serde(default = "default_authority")]
    pub authority: String,
    /// The edge credential, where the filter has to send it. `None` where the host adds it on the way.
    #[serde(default, deserialize_with = "credential")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    pub credential: Option<Secret>,
    /// The environment variable that the credential is in, until it is read.
    #[serde(default, deserialize_with = "variable_name")]
    credential_env: Option<String>,
    /// How long the control plane may hold a request while there is nothing new; shorter than a manifest lives.
    #[serde(default = "default_wait", deserialize_with = "bounded::<0, MAX_WAIT_SECONDS, _>")]
    #[cfg_attr(feature = "schema", schemars(range(max = MAX_WAIT_SECONDS)))]
    pub wait_seconds: u64,
}

/// What a token must say.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Tokens {
    /// The `iss` of our own tokens.
    #[serde(deserialize_with = "non_empty")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1)))]
    pub issuer: String,
    /// The token must be for one of them.
    #[serde(deserialize_with = "one_or_more")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1)))]
    pub audiences: Vec<String>,
    /// How far clocks may be apart.
    #[serde(default = "default_leeway", deserialize_with = "bounded::<0, MAX_LEEWAY_SECONDS, _>")]
    #[cfg_attr(feature = "schema", schemars(range(max = MAX_LEEWAY_SECONDS)))]
    pub leeway_seconds: u64,
    /// What may stand in front of a token of ours, such as `kauth-`.
    #[serde(default)]
    pub prefixes: Vec<String>,
}

/// API keys of ours.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ApiKeys {
    /// What they start with.
    #[serde(default = "default_prefixes", deserialize_with = "prefixes")]
    #[cfg_attr(feature = "schema", schemars(with = "Vec<String>", length(min = 1)))]
    pub prefixes: Vec<Prefix>,
    /// The header with the name of the user that a key belongs to.
    #[serde(default = "default_username_header", deserialize_with = "header_name")]
    #[cfg_attr(feature = "schema", schemars(extend("pattern" = "^[a-z0-9_-]+$")))]
    pub username_header: String,
}

/// What becomes of a request that may not pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// It is refused.
    #[default]
    Enforce,
    /// It passes, is counted and marked.
    Report,
}

/// What becomes of a credential that no revocation is known of, and that no base covers either.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Uncovered {
    /// It is good: revocations since the base stand in the list.
    #[default]
    Admit,
    /// It is refused.
    Deny,
}

/// What filter state can say of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum StateItem {
    /// Why it is refused, or would be.
    Reason,
    /// The id of the AuthKey or the API key.
    KeyId,
    /// The subject of the credential.
    Subject,
    /// The operator that the subject belongs to.
    Operator,
    /// The fingerprint of the credential.
    Fingerprint,
}

impl Policy {
    /// Returns what a bundle must be at least to be believed.
    pub const fn floor(&self) -> Floor {
        Floor { epoch: self.min_epoch, version: self.min_version }
    }

    /// Reads a configuration on a host that gives the filter no environment variables.
    ///
    /// # Errors
    ///
    /// Returns an error where [`Self::from_json_in`] does; every secret that is named by its variable is missing here.
    pub fn from_json(json: &[u8]) -> Result<Self, PolicyError> {
        Self::from_json_in(json, &Environment::default())
    }

    /// Reads a configuration, and the secrets that it names from the environment.
    ///
    /// # Errors
    ///
    /// Returns an error that names the path and quotes no value, if the text is not JSON, has an unknown or a duplicate
    /// member, a value of another type or out of its range, or contradicts itself; if a secret is missing in the environment;
    /// and if one is in the configuration without `allow_inline_secrets`.
    pub fn from_json_in(json: &[u8], environment: &Environment) -> Result<Self, PolicyError> {
        let mut policy: Self = config::from_json(json)?;
        if policy.max_manifest_lifetime_seconds == 0 {
            policy.max_manifest_lifetime_seconds =
                if policy.bundle.is_some() { DEFAULT_INLINE_LIFETIME } else { DEFAULT_LIFETIME };
        }
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
                message: format!(
                    "`{}` is not among the `credentials` of the policy",
                    config::printable(name)
                ),
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
        self.identity.take_secrets(environment)
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
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{path}`: {message}")]
pub struct PolicyError {
    pub(crate) path: String,
    pub(crate) message: String,
}

fn root_keys<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PublicKey>, D::Error> {
    #[derive(Deserialize)]
    #[serde(try_from = "String")]
    struct RootKey(PublicKey);

    impl TryFrom<String> for RootKey {
        type Error = &'static str;

        fn try_from(text: String) -> Result<Self, Self::Error> {
            text.parse().map(Self).map_err(|_| "must be an Ed25519 public key in base64url")
        }
    }

    let keys = one_or_more(deserializer)?;
    Ok(keys.into_iter().map(|RootKey(key)| key).collect())
}

fn prefixes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Prefix>, D::Error> {
    #[derive(Deserialize)]
    #[serde(try_from = "String")]
    struct KeyPrefix(Prefix);

    impl TryFrom<String> for KeyPrefix {
        type Error = NotAPrefix;

        fn try_from(text: String) -> Result<Self, NotAPrefix> {
            text.parse().map(Self)
        }
    }

    let prefixes = one_or_more(deserializer)?;
    Ok(prefixes.into_iter().map(|KeyPrefix(prefix)| prefix).collect())
}

fn inline_bundle<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<InlineBundle>, D::Error> {
    checked(deserializer, |text| {
        InlineBundle::decode(text).map(Some).ok_or("must be as `keystile bundle export` prints it")
    })
}

fn credential<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Secret>, D::Error> {
    non_empty(deserializer).map(|text| Some(Secret::from(text)))
}

/// The name of a header in lower case, as HTTP/2 has it (RFC 9110 section 5.1); no pseudo-header.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, PartialEq, Eq, PartialOrd, Ord))]
#[serde(try_from = "String")]
pub(crate) struct HeaderName(
    #[cfg_attr(feature = "schema", schemars(extend("pattern" = "^[a-z0-9_-]+$")))] pub(crate) String,
);

impl TryFrom<String> for HeaderName {
    type Error = &'static str;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        if name.is_empty() {
            Err("must not be empty")
        } else if is_header_name(&name) {
            Ok(Self(name))
        } else {
            Err("must be of a-z 0-9 - _ only, and none that HTTP itself needs")
        }
    }
}

pub(crate) fn header_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    HeaderName::deserialize(deserializer).map(|HeaderName(name)| name)
}

pub(crate) fn optional_header_name<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    header_name(deserializer).map(Some)
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
fn realm<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    checked(deserializer, |realm| {
        let plain = |byte: u8| (byte == b' ' || byte.is_ascii_graphic()) && !matches!(byte, b'"' | b'\\');
        if realm.bytes().all(plain) { Ok(realm.into()) } else { Err("must be printable, without \" and \\") }
    })
}

/// The default depends on where the bundle comes from.
#[cfg(feature = "schema")]
const fn is_unset(lifetime: &u64) -> bool {
    *lifetime == 0
}

fn default_credentials() -> Vec<CredentialSource> {
    Vec::from([CredentialSource::bearer()])
}

fn default_identity_prefix() -> String {
    "x-keystile-".into()
}

fn default_filter_state() -> Vec<StateItem> {
    Vec::from([StateItem::Reason])
}

const fn default_cache_entries() -> usize {
    DEFAULT_CACHE_ENTRIES
}

const fn default_strip_credential() -> bool {
    true
}

const fn default_outage_grace() -> u64 {
    15 * 60
}

fn default_realm() -> String {
    "keystile".into()
}

fn default_authority() -> String {
    "keystile".into()
}

const fn default_wait() -> u64 {
    DEFAULT_WAIT_SECONDS
}

const fn default_leeway() -> u64 {
    5
}

fn default_prefixes() -> Vec<Prefix> {
    Vec::from([Prefix::default()])
}

fn default_username_header() -> String {
    "x-username".into()
}

/// At some 500 bytes each, 2 MB, and the claims that rules look at.
const DEFAULT_CACHE_ENTRIES: usize = 4096;

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
const DEFAULT_LIFETIME: u64 = 300;

/// Seconds: what `keystile bundle export` signs at most, as a configuration is not replaced every minute.
const DEFAULT_INLINE_LIFETIME: u64 = 3600;

/// Seconds: a day, as long as a checkpoint is good.
const MAX_LIFETIME: u64 = 86_400;

/// Below the 15 s that Envoy's routes, and many a proxy, wait for an answer.
const DEFAULT_WAIT_SECONDS: u64 = 10;

/// What the control plane holds a request for at most: half of the lifetime of a manifest.
const MAX_WAIT_SECONDS: u64 = 30;

/// RFC 7519 section 4.1.4: "usually no more than a few minutes".
const MAX_LEEWAY_SECONDS: u64 = 300;
