//! The plugin configuration.

use alloc::{format, string::String, sync::Arc, vec::Vec};
use core::ops::Deref;

use bundle::{Incomplete, InlineBundle, PublicKey, Snapshot};
use serde::{Deserialize, Deserializer};
use token::{
    api_key::{InvalidPrefix, Prefix},
    secret::Secret,
};

use crate::{
    config::{
        self, Environment, bounded, bounded_usize, checked, environment::variable_name, non_empty,
        one_or_more,
    },
    credential::CredentialSource,
    decision::{
        ClientAddress, OpenStreamPolicy,
        route::{PathCase, Rules, UnmatchedPolicy},
    },
    identity::ForeignIssuer,
    response::{ResponseConfig, UpstreamIdentity},
    sync::{MinimumPosition, Refresh, RefreshError},
};

/// Default of `cache_entries`. An entry takes about 500 bytes plus the claims that rules use, so the cache takes 2 MB.
const DEFAULT_CACHE_ENTRIES: usize = 4096;

/// The error for a secret in the configuration itself.
const INLINE_SECRET_ERROR: &str = "secrets are not permitted here, because the host exposes its configuration. Leave the member out if the \
    host adds the credential (Envoy: `credential_injector`, as `keystile edge enroll` prints it), or name an environment \
    variable in the member with the suffix `_env`; `allow_inline_secrets: true` is for hosts that support neither";

/// Maximum of `cache_entries`. The cache takes about 32 MB, plus the claims that rules use.
const MAX_CACHE_ENTRIES: u64 = 65_536;

/// Default of `max_open_streams`.
const DEFAULT_MAX_OPEN_STREAMS: usize = 10_000;

/// Maximum of `max_open_streams`. A check takes about two microseconds, so that these checks take 20 % of a core.
const MAX_OPEN_STREAMS: u64 = 100_000;

/// Headers of HTTP framing and connection management. Changing them would break the request.
const RESERVED_HEADERS: [&str; 11] = [
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

/// Default of `outage_grace_seconds`: 15 minutes.
const DEFAULT_OUTAGE_GRACE_SECONDS: u64 = 15 * 60;

/// Default of `max_manifest_lifetime_seconds`: five times the default lifetime of a manifest.
const DEFAULT_LIFETIME_SECONDS: u64 = 300;

/// Default of `max_manifest_lifetime_seconds` for an inline bundle: the maximum lifetime that `keystile bundle export`
/// signs, since a configuration changes less often.
const DEFAULT_INLINE_LIFETIME_SECONDS: u64 = 3600;

/// Maximum of `max_manifest_lifetime_seconds`: one day, the lifetime of a checkpoint.
const MAX_LIFETIME_SECONDS: u64 = 86_400;

/// Default of `wait_seconds`. It is below the 15 s timeout that Envoy's routes and many proxies have.
const DEFAULT_WAIT_SECONDS: u64 = 10;

/// Maximum of `wait_seconds`: half the lifetime of a manifest. The control plane never holds a request for longer.
const MAX_WAIT_SECONDS: u64 = 30;

/// Default of `leeway_seconds`.
const DEFAULT_LEEWAY_SECONDS: u64 = 5;

/// Maximum of `leeway_seconds`. RFC 7519 section 4.1.4: "usually no more than a few minutes".
const MAX_LEEWAY_SECONDS: u64 = 300;

/// Minimum of `tokens.max_bytes`. No useful token of another issuer is shorter.
const MIN_MAX_BYTES: u64 = 1024;

/// Maximum of `tokens.max_bytes`.
const MAX_TOKEN_BYTES: u64 = token::MAX_TOKEN_BYTES as u64;

/// A valid plugin configuration, which dereferences to its members.
///
/// Only [`Self::from_json`] and [`Self::from_json_with_env`] create one, because deserialization of
/// [`PolicyMembers`] does not check the constraints between members and does not read secrets from the environment.
#[derive(Debug, Clone)]
pub struct Policy(PolicyMembers);

/// The members of the plugin configuration, a JSON object. Unknown members, wrong types and missing values are errors
/// that name the path.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "Policy"))]
#[serde(deny_unknown_fields)]
pub struct PolicyMembers {
    /// The audience of the bundle: the environment that this edge belongs to.
    pub audience: String,
    /// The root keys whose delegations are accepted. More than one is needed only while a root key is being replaced.
    #[serde(deserialize_with = "root_keys")]
    #[cfg_attr(feature = "schema", schemars(with = "Vec<String>", length(min = 1)))]
    pub root_keys: Vec<PublicKey>,
    /// The minimum epoch of a delegation. Raising it after a key theft rejects the stolen keys.
    #[serde(default)]
    pub min_epoch: u64,
    /// The minimum version of a bundle, so that an edge without state rejects replayed older versions.
    #[serde(default)]
    pub min_version: u64,
    /// The control plane from which the bundle is fetched. Required unless `bundle` is set.
    #[serde(default)]
    pub control_plane: Option<ControlPlane>,
    /// The bundle itself, for hosts that cannot make calls.
    #[serde(default, deserialize_with = "inline_bundle")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    pub bundle: Option<InlineBundle>,
    /// The maximum age of a bundle that counts as fresh, in seconds since its manifest was issued, even if the manifest
    /// permits more.
    #[serde(default, deserialize_with = "bounded::<1, MAX_LIFETIME_SECONDS, _>")]
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "is_unset", range(min = 1, max = MAX_LIFETIME_SECONDS)))]
    pub max_manifest_lifetime_seconds: u64,
    /// The requirements on tokens of this deployment.
    pub tokens: Tokens,
    /// The locations of credentials.
    #[serde(default = "default_credentials", deserialize_with = "one_or_more")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1)))]
    pub credentials: Vec<CredentialSource>,
    /// The accepted API keys. Without it no API key is accepted.
    #[serde(default)]
    pub api_keys: Option<ApiKeys>,
    /// The other issuers whose tokens are accepted.
    #[serde(default)]
    pub issuers: Vec<ForeignIssuer>,
    /// The prefix of the identity headers.
    #[serde(default = "default_identity_prefix", deserialize_with = "header_name")]
    #[cfg_attr(feature = "schema", schemars(extend("pattern" = "^[a-z0-9_-]+$")))]
    pub identity_prefix: String,
    /// Names of identity headers, claim headers and an assertion for the upstream.
    #[serde(default)]
    pub identity: UpstreamIdentity,
    /// How to treat a credential that no base covers.
    #[serde(default)]
    pub uncovered: UncoveredPolicy,
    /// Whether requests are refused, or only reported as refused.
    #[serde(default)]
    pub mode: Mode,
    /// The items of filter state, for access logs and other filters.
    #[serde(default = "default_filter_state")]
    pub filter_state: Vec<FilterStateItem>,
    /// The number of authenticated credentials that each worker caches; 0 disables the cache.
    #[serde(
        default = "default_cache_entries",
        deserialize_with = "bounded_usize::<0, MAX_CACHE_ENTRIES, _>"
    )]
    #[cfg_attr(feature = "schema", schemars(range(max = MAX_CACHE_ENTRIES)))]
    pub cache_entries: usize,
    /// What happens to an open stream, such as a WebSocket, whose credential would be refused now.
    #[serde(default)]
    pub open_streams: OpenStreamPolicy,
    /// The number of open streams of each worker that are checked every second. Streams that were opened before these
    /// are checked less often.
    #[serde(
        default = "default_max_open_streams",
        deserialize_with = "bounded_usize::<1, MAX_OPEN_STREAMS, _>"
    )]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = MAX_OPEN_STREAMS)))]
    pub max_open_streams: usize,
    /// Whether to remove the credential before the request is forwarded.
    #[serde(default = "default_strip_credential")]
    pub strip_credential: bool,
    /// How long a stale bundle is used while the control plane is unreachable, in seconds.
    #[serde(default = "default_outage_grace")]
    pub outage_grace_seconds: u64,
    /// The `realm` of the challenge (RFC 9110 section 11.5).
    #[serde(default = "default_realm", deserialize_with = "realm")]
    pub realm: String,
    /// The rules, in order of precedence. Without rules, every request requires a valid credential, and any valid one
    /// is sufficient.
    #[serde(default)]
    pub rules: Rules,
    /// How to treat a request that no rule matches. The default is `refuse` with rules and `required` without.
    #[serde(default)]
    pub unmatched: Option<UnmatchedPolicy>,
    /// Whether paths that differ only in case, or in spaces and dots at the ends of segments, are treated as ambiguous.
    #[serde(default)]
    pub path_case: PathCase,
    /// The header with the client address, for conditions of permissions. Without it the peer of the connection is
    /// used.
    #[serde(default)]
    pub client_address: Option<ClientAddress>,
    /// The format and status codes of responses to refused requests.
    #[serde(default)]
    pub answers: ResponseConfig,
    /// Whether the configuration itself may contain secrets. Hosts expose it in their configuration dump.
    #[serde(default)]
    pub allow_inline_secrets: bool,
}

/// The control plane from which the bundle is fetched.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ControlPlane {
    /// The name of the Envoy cluster.
    #[serde(deserialize_with = "non_empty")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1)))]
    pub cluster: String,
    /// The `:authority` of requests to the control plane.
    #[serde(default = "default_authority")]
    pub authority: String,
    /// The credential of this edge, if the filter has to send it. Leave it out if the host adds it.
    #[serde(default, deserialize_with = "credential")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    pub credential: Option<Secret>,
    /// The name of the environment variable that contains the credential.
    #[serde(default, deserialize_with = "variable_name")]
    credential_env: Option<String>,
    /// How long the control plane may hold a request while there is no newer bundle, in seconds. It must be shorter
    /// than the lifetime of a manifest.
    #[serde(default = "default_wait", deserialize_with = "bounded::<0, MAX_WAIT_SECONDS, _>")]
    #[cfg_attr(feature = "schema", schemars(range(max = MAX_WAIT_SECONDS)))]
    pub wait_seconds: u64,
}

/// The requirements on tokens of this deployment.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Tokens {
    /// The required `iss`.
    #[serde(deserialize_with = "non_empty")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1)))]
    pub issuer: String,
    /// The accepted audiences: a token must have at least one of them.
    #[serde(deserialize_with = "one_or_more")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1)))]
    pub audiences: Vec<String>,
    /// The permitted clock skew, in seconds.
    #[serde(default = "default_leeway", deserialize_with = "bounded::<0, MAX_LEEWAY_SECONDS, _>")]
    #[cfg_attr(feature = "schema", schemars(range(max = MAX_LEEWAY_SECONDS)))]
    pub leeway_seconds: u64,
    /// The prefixes that a token may have, such as `kauth-`.
    #[serde(default)]
    pub prefixes: Vec<String>,
    /// The maximum length of a token of any issuer, in bytes.
    #[serde(default = "default_max_bytes")]
    #[cfg_attr(feature = "schema", schemars(range(min = MIN_MAX_BYTES, max = MAX_TOKEN_BYTES)))]
    pub max_bytes: u64,
}

/// The API keys of this deployment.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ApiKeys {
    /// The accepted prefixes.
    #[serde(default = "default_prefixes", deserialize_with = "prefixes")]
    #[cfg_attr(feature = "schema", schemars(with = "Vec<String>", length(min = 1)))]
    pub prefixes: Vec<Prefix>,
    /// The name of the header with the user that the key belongs to.
    #[serde(default = "default_username_header", deserialize_with = "header_name")]
    #[cfg_attr(feature = "schema", schemars(extend("pattern" = "^[a-z0-9_-]+$")))]
    pub username_header: String,
}

/// What happens to a request that is not admitted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// The request is refused.
    #[default]
    Enforce,
    /// The request passes. It is counted and marked.
    Report,
}

/// How to treat a credential without a known revocation that no base covers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum UncoveredPolicy {
    /// Admits the credential: the list of revocations since the base is sufficient.
    #[default]
    Admit,
    /// Refuses the credential.
    Deny,
}

/// An item of filter state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum FilterStateItem {
    /// The reason why the request is refused, or would be.
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

impl Deref for Policy {
    type Target = PolicyMembers;

    fn deref(&self) -> &PolicyMembers {
        &self.0
    }
}

impl Policy {
    /// Returns the minimum epoch and version of a bundle.
    pub const fn minimum_position(&self) -> MinimumPosition {
        MinimumPosition { epoch: self.0.min_epoch, version: self.0.min_version }
    }

    /// Verifies a bundle like one that was fetched. `now` is in milliseconds since the Unix epoch.
    ///
    /// # Errors
    ///
    /// Returns why the bundle was rejected.
    pub fn open_bundle(&self, bundle: &InlineBundle, now: u64) -> Result<Arc<Snapshot>, RefreshError> {
        let (roots, audience) = (self.root_keys.clone(), self.audience.clone());
        let lifetime = self.max_manifest_lifetime_seconds;
        let mut refresh = Refresh::new(roots, audience, 0, lifetime, self.minimum_position());
        refresh.load_inline(bundle, now)?;
        refresh.current().cloned().ok_or(RefreshError::Incomplete(Incomplete("no bundle was loaded")))
    }

    /// Takes the inline bundle out of the configuration, if it has one.
    pub const fn take_bundle(&mut self) -> Option<InlineBundle> {
        self.0.bundle.take()
    }

    /// Takes the control plane out of the configuration, if it has one.
    pub const fn take_control_plane(&mut self) -> Option<ControlPlane> {
        self.0.control_plane.take()
    }

    /// Parses a configuration without environment variables.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`Self::from_json_with_env`]. Every secret that is in an environment variable is missing.
    pub fn from_json(json: &[u8]) -> Result<Self, PolicyError> {
        Self::from_json_with_env(json, &Environment::default())
    }

    /// Parses and validates a configuration, and reads secrets from `environment`.
    ///
    /// # Errors
    ///
    /// Returns an error with the path, and never a value, if the text is not JSON, has an unknown or duplicate member,
    /// or has a value of the wrong type or out of range; if members contradict each other; if a secret is not in the
    /// environment; or if the configuration contains a secret without `allow_inline_secrets`.
    pub fn from_json_with_env(json: &[u8], environment: &Environment) -> Result<Self, PolicyError> {
        let mut policy: PolicyMembers = config::from_json(json)?;
        if policy.max_manifest_lifetime_seconds == 0 {
            policy.max_manifest_lifetime_seconds = if policy.bundle.is_some() {
                DEFAULT_INLINE_LIFETIME_SECONDS
            } else {
                DEFAULT_LIFETIME_SECONDS
            };
        }
        policy.read_secrets(environment)?;
        if policy.control_plane.is_some() == policy.bundle.is_some() {
            return Err(PolicyError {
                path: "control_plane".into(),
                message: "exactly one of `control_plane` and `bundle` is required".into(),
            });
        }
        if let Err((rule, name)) = policy.rules.resolve_sources(&policy.credentials) {
            return Err(PolicyError {
                path: format!("rules[{rule}].credentials"),
                message: format!(
                    "`{}` is not among the `credentials` of the policy",
                    config::printable(name)
                ),
            });
        }
        policy.refuse_patterns()?;
        if let Some(name) = policy.identity.duplicate_header(&policy.identity_prefix) {
            return Err(PolicyError {
                path: "identity".into(),
                message: format!(
                    "two values would have the header `{name}`, or headers that upstreams do not distinguish from it, as `x-a` and `x_a`"
                ),
            });
        }
        if !(MIN_MAX_BYTES..=MAX_TOKEN_BYTES).contains(&policy.tokens.max_bytes) {
            return Err(PolicyError {
                path: "tokens.max_bytes".into(),
                message: "must be from 1024 to 98304".into(),
            });
        }
        for (at, other) in policy.issuers.iter().enumerate() {
            let mut before = policy.issuers.iter().take(at).map(|before| &before.issuer);
            if other.issuer == policy.tokens.issuer || before.any(|before| *before == other.issuer) {
                return Err(PolicyError {
                    path: format!("issuers[{at}].issuer"),
                    message: "duplicate issuer".into(),
                });
            }
            if let Some((member, message)) = other.contradiction() {
                return Err(PolicyError { path: format!("issuers[{at}].{member}"), message: message.into() });
            }
        }
        Ok(Self(policy))
    }

    /// Returns whether the configuration itself contains a secret.
    pub fn has_inline_secrets(&self) -> bool {
        self.allow_inline_secrets && self.inline_secret().is_some()
    }
}

impl PolicyMembers {
    /// Reads secrets from the environment, and refuses inline secrets unless they are permitted.
    fn read_secrets(&mut self, environment: &Environment) -> Result<(), PolicyError> {
        if let (Some(path), false) = (self.inline_secret(), self.allow_inline_secrets) {
            return Err(PolicyError { path: path.into(), message: INLINE_SECRET_ERROR.into() });
        }
        let error = |path: &str, message| PolicyError { path: path.into(), message };
        if let Some(ControlPlane { credential, credential_env: Some(name), .. }) = &mut self.control_plane {
            let path = "control_plane.credential_env";
            if credential.is_some() {
                return Err(error(path, "`credential` and `credential_env` are mutually exclusive".into()));
            }
            let secret = environment.secret(name).map_err(|message| error(path, message))?;
            // The file for Envoy's `credential_injector` contains the whole header value.
            *credential = Some(match secret.expose().strip_prefix("Bearer ") {
                Some(bare) => Secret::from(String::from(bare)),
                None => secret,
            });
        }
        self.identity.read_secrets(environment)
    }

    /// Refuses issuers and audiences that look like patterns: they are compared as they are, and would never match.
    fn refuse_patterns(&self) -> Result<(), PolicyError> {
        let is_pattern = |name: &String| config::looks_like_pattern(name);
        let mut path = self.rules.pattern().map(|(at, member)| format!("rules[{at}].{member}"));
        for (at, other) in self.issuers.iter().enumerate() {
            if (is_pattern(&other.issuer) && !other.has_parts()) || other.audiences.iter().any(is_pattern) {
                path = Some(format!("issuers[{at}]"));
            }
        }
        if is_pattern(&self.tokens.issuer) || self.tokens.audiences.iter().any(is_pattern) {
            path = Some("tokens".into());
        }
        let message = "an issuer or audience looks like a pattern, but is compared as it is: list each value. In a rule, leave \
                       the member out for any value; an issuer in `issuers` can have named parts (`issuer_parts`)";
        path.map_or(Ok(()), |path| Err(PolicyError { path, message: message.into() }))
    }

    /// Returns the path of a secret in the configuration itself, if any. It must be called before the environment is
    /// read.
    fn inline_secret(&self) -> Option<&'static str> {
        let has_inline_credential = |control_plane: &ControlPlane| {
            control_plane.credential.is_some() && control_plane.credential_env.is_none()
        };
        if self.control_plane.as_ref().is_some_and(has_inline_credential) {
            return Some("control_plane.credential");
        }
        self.identity.has_inline_secret().then_some("identity.assertion.secret")
    }
}

/// A configuration error with its path.
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
        type Error = InvalidPrefix;

        fn try_from(text: String) -> Result<Self, InvalidPrefix> {
            text.parse().map(Self)
        }
    }

    let prefixes = one_or_more(deserializer)?;
    Ok(prefixes.into_iter().map(|KeyPrefix(prefix)| prefix).collect())
}

fn inline_bundle<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<InlineBundle>, D::Error> {
    checked(deserializer, |text| {
        InlineBundle::decode(text).map(Some).ok_or("must be the output of `keystile bundle export`")
    })
}

fn credential<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Secret>, D::Error> {
    non_empty(deserializer).map(|text| Some(Secret::from(text)))
}

/// The name of a header in lower case, as HTTP/2 requires (RFC 9113 section 8.2.1), and not a pseudo-header.
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
            Err(
                "must consist of a-z 0-9 - _ (lower case), and must not be a header of HTTP framing such as `host`",
            )
        }
    }
}

/// Deserializes a header name in lower case. Refuses headers of HTTP framing.
pub(crate) fn header_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    HeaderName::deserialize(deserializer).map(|HeaderName(name)| name)
}

/// Like [`header_name`], for an optional member.
pub(crate) fn optional_header_name<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    header_name(deserializer).map(Some)
}

/// Returns whether the policy permits this name of a header: in lower case, and not of HTTP framing.
pub fn is_header_name(name: &str) -> bool {
    let is_permitted =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    !name.is_empty() && name.bytes().all(is_permitted) && !RESERVED_HEADERS.contains(&name)
}

/// Returns whether a text is a token (RFC 9110 section 5.6.2).
pub(crate) fn is_token(text: &str) -> bool {
    let is_permitted = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_permitted)
}

/// Deserializes the realm. It is sent as a quoted string (RFC 9110 section 11.5), so it must not contain characters
/// that need escaping.
fn realm<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    checked(deserializer, |realm| {
        let is_permitted =
            |byte: u8| (byte == b' ' || byte.is_ascii_graphic()) && !matches!(byte, b'"' | b'\\');
        if realm.bytes().all(is_permitted) {
            Ok(realm.into())
        } else {
            Err("must be printable ASCII without \" and \\")
        }
    })
}

/// Returns whether the member was left out. Its default depends on where the bundle comes from.
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

fn default_filter_state() -> Vec<FilterStateItem> {
    Vec::from([FilterStateItem::Reason])
}

const fn default_cache_entries() -> usize {
    DEFAULT_CACHE_ENTRIES
}

const fn default_max_open_streams() -> usize {
    DEFAULT_MAX_OPEN_STREAMS
}

const fn default_strip_credential() -> bool {
    true
}

const fn default_outage_grace() -> u64 {
    DEFAULT_OUTAGE_GRACE_SECONDS
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
    DEFAULT_LEEWAY_SECONDS
}

const fn default_max_bytes() -> u64 {
    token::DEFAULT_MAX_TOKEN_BYTES as u64
}

fn default_prefixes() -> Vec<Prefix> {
    Vec::from([Prefix::default()])
}

fn default_username_header() -> String {
    "x-username".into()
}
