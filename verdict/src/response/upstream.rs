//! The headers that the upstream receives. Identity headers from the client are removed first, in any spelling.

use alloc::{
    borrow::Cow,
    format,
    string::{String, ToString},
    vec::Vec,
};

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use token::{
    base64url,
    json::{Object, Value},
    upstream_assertion::AssertionSigner,
};
use zeroize::Zeroizing;

use crate::{
    config::{
        Environment, bounded, checked,
        environment::variable_name,
        non_empty, pairs,
        policy::{HeaderName, PolicyError, header_name},
    },
    credential::{
        self, CredentialSource, NameLengths, Stripped, eq_ignore_case, eq_normalized, name_has_prefix,
    },
    decision::{Decision, Gate, Headers, Stripping},
    identity::{
        Identity,
        claim::{self, ClaimName},
    },
};

/// The permitted connection options. None of them is the name of an identity header.
const CONNECTION_OPTIONS: [&[u8]; 5] = [b"upgrade", b"keep-alive", b"close", b"te", b"http2-settings"];

/// The headers that list hop-by-hop headers, which the next hop removes (RFC 9110 section 7.6.1). Some servers treat
/// `proxy-connection` alike.
const CONNECTION_HEADERS: [&str; 2] = ["connection", "proxy-connection"];

/// The bytes of ASCII that are encoded in a claim header. A value must not be parsed as several: commas separate list
/// members, and parameters follow a semicolon (RFC 8941 section 3.1). With `%`, decoding is unambiguous.
const NOT_IN_CLAIMS: &AsciiSet = &CONTROLS.add(b'%').add(b',').add(b';');

/// The same for a value with spaces at its ends, which a parser would remove.
const NOT_IN_UNTRIMMED_CLAIMS: &AsciiSet = &NOT_IN_CLAIMS.add(b' ');

/// The default lifetime of an assertion, in seconds.
const DEFAULT_ASSERTION_LIFETIME_SECONDS: u64 = 60;

/// The maximum lifetime of an assertion, in seconds. An assertion is for a single request.
const MAX_ASSERTION_LIFETIME_SECONDS: u64 = 300;

/// The maximum number of removed names before all headers are replaced instead. A regular request has one credential
/// and its companion headers.
const MAX_REMOVED: usize = 4;

/// The typical number of added headers: subject, operator, AuthKey, session and fingerprint.
const TYPICAL_ADDITIONS: usize = 5;

/// A header of the forwarded request: (name, value).
pub type ForwardedHeader<'a> = (&'a str, Cow<'a, [u8]>);

/// How the host has to change the headers of a forwarded request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forward<'a> {
    /// The headers stay unchanged.
    Unchanged,
    /// Removes all headers with the names in `removed`, then adds `added`. This needs only a few host calls, however
    /// many headers there are.
    Edited {
        /// The names of the headers to remove.
        removed: Vec<&'a str>,
        /// The headers to add.
        added: Vec<ForwardedHeader<'a>>,
    },
    /// Replaces all headers with these.
    ReplaceAll(Vec<ForwardedHeader<'a>>),
}

/// Which identity headers the upstream receives.
#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct UpstreamIdentity {
    /// Names that replace the default names, which start with `identity_prefix`; `null` omits the header.
    #[serde(default, deserialize_with = "field_headers")]
    #[cfg_attr(
        feature = "schema",
        schemars(
            with = "alloc::collections::BTreeMap<IdentityField, crate::config::schema::HeaderOrNull>",
            skip_serializing_if = "Vec::is_empty"
        )
    )]
    headers: Vec<(IdentityField, Option<String>)>,
    /// Headers for claims of tokens.
    #[serde(default, deserialize_with = "claim_headers")]
    #[cfg_attr(
        feature = "schema",
        schemars(
            with = "alloc::collections::BTreeMap<HeaderName, String>",
            skip_serializing_if = "Vec::is_empty"
        )
    )]
    pub(crate) claims: Vec<(String, String)>,
    /// How claims are encoded in headers.
    #[serde(default)]
    claim_encoding: ClaimEncoding,
    /// A signed assertion for the upstream.
    #[serde(default)]
    assertion: Option<Assertion>,
}

/// How the text of a claim is encoded in a header.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
enum ClaimEncoding {
    /// Percent-encoding of every byte except visible ASCII other than `%`, `,` and `;`, and except inner spaces.
    #[default]
    Percent,
    /// base64url of each value, without padding.
    Base64url,
    /// UTF-8 as it is, without encoding.
    Utf8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
enum IdentityField {
    Subject,
    Operator,
    AuthKey,
    Session,
    Fingerprint,
    Issuer,
}

impl IdentityField {
    const ALL: [(Self, &'static str); 6] = [
        (Self::Subject, "subject"),
        (Self::Operator, "operator"),
        (Self::AuthKey, "authkey"),
        (Self::Session, "session"),
        (Self::Fingerprint, "fingerprint"),
        (Self::Issuer, "issuer"),
    ];

    fn value(self, identity: &Identity) -> Option<&str> {
        match self {
            Self::Subject => Some(identity.header_subject()),
            Self::Operator => identity.operator(),
            Self::AuthKey => identity.key_id(),
            Self::Session => identity.session(),
            Self::Fingerprint => Some(identity.fingerprint_hex()),
            Self::Issuer => identity.issuer(),
        }
    }
}

/// A token that this edge signs, so that the upstream can verify that a request passed through it.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct Assertion {
    /// The header for the assertion.
    #[serde(deserialize_with = "header_name")]
    #[cfg_attr(feature = "schema", schemars(extend("pattern" = "^[a-z0-9_-]+$")))]
    header: String,
    /// The HMAC key that the edge shares with the upstream: base64url of at least 32 bytes.
    #[serde(default, deserialize_with = "signer")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    secret: Option<AssertionSigner>,
    /// The name of the environment variable that contains the secret.
    #[serde(default, deserialize_with = "variable_name")]
    secret_env: Option<String>,
    /// The `aud` claim.
    #[serde(deserialize_with = "non_empty")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1)))]
    audience: String,
    /// The `iss` claim.
    #[serde(default = "default_issuer", deserialize_with = "non_empty")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1)))]
    issuer: String,
    /// The lifetime of an assertion, in seconds.
    #[serde(
        default = "default_lifetime",
        deserialize_with = "bounded::<1, MAX_ASSERTION_LIFETIME_SECONDS, _>"
    )]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = MAX_ASSERTION_LIFETIME_SECONDS)))]
    lifetime_seconds: u64,
}

/// The claims of the assertion.
#[derive(Serialize)]
struct AssertionClaims<'a> {
    iat: u64,
    exp: u64,
    iss: &'a str,
    aud: &'a str,
    sub: &'a str,
    jti: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    operator: Option<&'a str>,
}

impl Assertion {
    /// Returns a signed assertion, or `None` if the secret has not been read yet. `now` is in seconds since the Unix
    /// epoch. The assertion expires no later than the credential.
    fn sign(&self, identity: &Identity, now: u64) -> Option<String> {
        let end = now.saturating_add(self.lifetime_seconds);
        let claims = AssertionClaims {
            iat: now,
            exp: identity.expires_at().map_or(end, |expires_at| expires_at.min(end)),
            iss: &self.issuer,
            aud: &self.audience,
            sub: identity.subject(),
            jti: identity.fingerprint_hex(),
            operator: identity.operator(),
        };
        Some(self.secret.as_ref()?.sign(&serde_json::to_string(&claims).ok()?))
    }
}

/// The header names of one policy, computed once.
#[derive(Debug)]
pub(crate) struct HeaderNames {
    fields: Vec<(IdentityField, String)>,
    report: String,
    /// The headers to remove besides those that start with the prefix.
    others: Vec<String>,
    /// The lengths of these, and of the headers that list hop-by-hop headers.
    lengths: NameLengths,
}

/// The headers to remove from a request or its trailers.
#[derive(Clone, Copy)]
struct Stripper<'g> {
    gate: &'g Gate,
    /// The locations whose credentials are removed, or `None` if none are.
    sources: Option<&'g [CredentialSource]>,
    /// The lengths of all names that do not start with the prefix.
    lengths: NameLengths,
}

impl HeaderNames {
    pub(crate) fn new(prefix: &str, upstream: &UpstreamIdentity) -> Self {
        let fields = IdentityField::ALL.into_iter().filter_map(|(field, default)| {
            match upstream.headers.iter().find(|(named, _)| *named == field) {
                None => Some((field, [prefix, default].concat())),
                Some((_, name)) => name.clone().map(|name| (field, name)),
            }
        });
        let fields: Vec<_> = fields.collect();
        let own = fields.iter().map(|(_, name)| name.as_str());
        let claims = upstream.claims.iter().map(|(name, _)| name.as_str());
        let assertion = upstream.assertion.iter().map(|assertion| assertion.header.as_str());
        let others = own.chain(claims).chain(assertion).filter(|name| !name_has_prefix(name, prefix));
        let others: Vec<String> = others.map(String::from).collect();
        let lengths = NameLengths::of(others.iter().map(String::as_str).chain(CONNECTION_HEADERS));
        Self { fields, report: [prefix, "report"].concat(), others, lengths }
    }
}

impl UpstreamIdentity {
    pub(crate) fn has_inline_secret(&self) -> bool {
        self.assertion
            .as_ref()
            .is_some_and(|assertion| assertion.secret.is_some() && assertion.secret_env.is_none())
    }

    /// Reads the secret of the assertion from the environment, if the configuration names a variable.
    pub(crate) fn read_secrets(&mut self, environment: &Environment) -> Result<(), PolicyError> {
        let Some(Assertion { secret, secret_env, .. }) = &mut self.assertion else { return Ok(()) };
        let wrong = |message: String| PolicyError { path: "identity.assertion.secret_env".into(), message };
        match (&secret, secret_env) {
            (Some(_), None) => Ok(()),
            (Some(_), Some(_)) => Err(wrong("`secret` and `secret_env` are mutually exclusive".into())),
            (None, None) => Err(PolicyError {
                path: "identity.assertion".into(),
                message: "missing field `secret_env` (or `secret`)".into(),
            }),
            (None, Some(name)) => {
                let text = environment.secret(name).map_err(wrong)?;
                let signer = parse_signer(text.expose()).ok_or_else(|| {
                    wrong(format!(
                        "the environment variable `{name}` must contain base64url of at least 32 bytes"
                    ))
                })?;
                *secret = Some(signer);
                Ok(())
            }
        }
    }

    /// Returns a header name that has two sources, if any. An upstream could read either value.
    pub(crate) fn duplicate_header(&self, prefix: &str) -> Option<String> {
        let HeaderNames { fields, report, .. } = HeaderNames::new(prefix, self);
        let claims = self.claims.iter().map(|(name, _)| name.clone());
        let assertion = self.assertion.iter().map(|assertion| assertion.header.clone());
        let all = fields.into_iter().map(|(_, name)| name).chain([report]).chain(claims).chain(assertion);
        let mut before: Vec<String> = Vec::new();
        for name in all {
            if before.iter().any(|before| eq_normalized(before, &name)) {
                return Some(name);
            }
            before.push(name);
        }
        None
    }

    /// Returns the values of the claim headers, and the number of claims that a header cannot represent.
    pub(crate) fn claim_values(&self, members: &Object) -> (Vec<Option<String>>, u8) {
        let mut omitted: u8 = 0;
        let value_of = |name: &String| {
            let claim = claim::get(members, name).filter(|claim| !claim.is_null())?;
            let value = header_value(claim, self.claim_encoding);
            omitted = omitted.saturating_add(value.is_none().into());
            value
        };
        let values = self.claims.iter().map(|(_, name)| name).map(value_of).collect();
        (values, omitted)
    }
}

impl Gate {
    /// Returns how to change the headers for the upstream. Headers that could be taken for identity headers are
    /// removed. The credential is removed too, as [`Decision::stripping`] requires. `now` is in milliseconds since the
    /// Unix epoch.
    pub fn forward_headers<'a>(
        &'a self,
        headers: &Headers<'a>,
        decision: &'a Decision,
        now: u64,
    ) -> Forward<'a> {
        let stripper = Stripper::new(self, decision.stripping());
        let mut added = Vec::with_capacity(TYPICAL_ADDITIONS);
        self.add_identity(decision, now, &mut added);
        let mut removed = Vec::new();
        for (name, value) in headers.iter().filter(|(name, _)| stripper.concerns(name)) {
            match stripper.strip(name, value) {
                Stripped::Unchanged => {}
                // A host removes all headers of a name, in any case.
                Stripped::Removed if removed.len() < MAX_REMOVED && occurs_once(name, headers) => {
                    if removed.is_empty() {
                        removed.reserve_exact(MAX_REMOVED);
                    }
                    removed.push(*name)
                }
                Stripped::Removed | Stripped::Changed(_) => {
                    let mut replacement = Vec::with_capacity(headers.len().saturating_add(added.len()));
                    stripper.copy_kept(headers, &mut replacement);
                    replacement.append(&mut added);
                    return Forward::ReplaceAll(replacement);
                }
            }
        }
        if removed.is_empty() && added.is_empty() {
            return Forward::Unchanged;
        }
        Forward::Edited { removed, added }
    }

    /// Appends the identity headers and the report header to `to`.
    fn add_identity<'a>(&'a self, decision: &'a Decision, now: u64, to: &mut Vec<ForwardedHeader<'a>>) {
        let names = self.names();
        if let Decision::Admit(admission) = decision {
            let UpstreamIdentity { claims, assertion, .. } = &self.policy().identity;
            let identity = admission.identity();
            let fields =
                names.fields.iter().filter_map(|(field, name)| Some((name.as_str(), field.value(identity)?)));
            let claims = claims.iter().zip(&identity.claims);
            let claims = claims.filter_map(|((name, _), value)| Some((name.as_str(), value.as_deref()?)));
            to.extend(fields.chain(claims).map(|(name, value)| (name, Cow::Borrowed(value.as_bytes()))));
            if let Some(assertion) = assertion {
                let token = assertion.sign(identity, now / 1000);
                to.extend(token.map(|token| (assertion.header.as_str(), Cow::Owned(token.into_bytes()))));
            }
        }
        if let Some(reason) = decision.reason().filter(|_| decision.is_reported()) {
            to.push((&names.report, Cow::Borrowed(reason.code().as_bytes())));
        }
    }

    /// Returns the trailers for the upstream if any must be changed or removed, else `None`. HTTP permits a server to
    /// merge trailers into headers (RFC 9110 section 6.5). `stripping` is [`Self::trailer_stripping`] of the decision.
    pub fn forward_trailers<'a>(
        &self,
        trailers: &Headers<'a>,
        stripping: Stripping,
    ) -> Option<Vec<ForwardedHeader<'a>>> {
        let mut kept = Vec::with_capacity(trailers.len());
        Stripper::new(self, stripping).copy_kept(trailers, &mut kept).then_some(kept)
    }

    /// Returns which credentials are removed from the trailers. Report mode removes them too, because a filter never
    /// accepts a credential there.
    pub fn trailer_stripping(&self, decision: &Decision) -> Stripping {
        match decision.stripping() {
            Stripping::Nothing if decision.is_reported() && self.policy().strip_credential => {
                Stripping::Credentials(None)
            }
            stripping => stripping,
        }
    }

    /// Returns whether an upstream could take a header of this name for an identity header. A request of a client never keeps
    /// one.
    pub fn is_identity_header(&self, name: &str) -> bool {
        let is_other = || self.names().others.iter().any(|other| eq_normalized(name, other));
        // No identity header has the form of a pseudo-header.
        !name.starts_with(':') && (name_has_prefix(name, &self.policy().identity_prefix) || is_other())
    }
}

impl<'g> Stripper<'g> {
    fn new(gate: &'g Gate, stripping: Stripping) -> Self {
        let mut lengths = gate.names().lengths;
        let sources = match stripping {
            Stripping::Nothing => None,
            Stripping::Credentials(rule) => Some(gate.sources(rule)),
        };
        if let Some(sources) = sources {
            let of_sources = sources.iter().map(CredentialSource::header_name);
            lengths = lengths.union(NameLengths::of(of_sources.chain(companions(gate, sources))));
        }
        Self { gate, sources, lengths }
    }

    /// Returns whether [`Self::strip`] can change a header of this name.
    fn concerns(&self, name: &str) -> bool {
        self.lengths.contains(name) || name_has_prefix(name, &self.gate.policy().identity_prefix)
    }

    /// Appends the headers that are kept to `to`. Returns whether any header was changed or removed.
    fn copy_kept<'a>(&self, headers: &Headers<'a>, to: &mut Vec<ForwardedHeader<'a>>) -> bool {
        let mut changed = false;
        for (name, value) in headers {
            match self.strip(name, value) {
                Stripped::Unchanged => to.push((*name, Cow::Borrowed(*value))),
                Stripped::Changed(value) => {
                    changed = true;
                    to.push((*name, value));
                }
                Stripped::Removed => changed = true,
            }
        }
        changed
    }

    fn strip<'a>(&self, name: &str, value: &'a [u8]) -> Stripped<'a> {
        if !self.concerns(name) {
            return Stripped::Unchanged;
        }
        if CONNECTION_HEADERS.iter().any(|connection| eq_normalized(name, connection)) {
            return strip_connection_options(value);
        }
        if self.gate.is_identity_header(name) {
            return Stripped::Removed;
        }
        let Some(sources) = self.sources else { return Stripped::Unchanged };
        // The paired header and the username are removed together with the credential. Pseudo-headers are required.
        let is_pseudo = name.starts_with(':');
        if !is_pseudo && companions(self.gate, sources).any(|companion| eq_normalized(name, companion)) {
            return Stripped::Removed;
        }
        credential::strip(sources, name, value)
    }
}

/// Returns the headers that accompany credentials.
fn companions<'g>(gate: &'g Gate, sources: &'g [CredentialSource]) -> impl Iterator<Item = &'g str> {
    let api_keys = gate.policy().api_keys.iter().map(|api_keys| api_keys.username_header.as_str());
    sources.iter().filter_map(CredentialSource::pair_header).chain(api_keys)
}

/// Removes the options that name other headers. Envoy forwards the `connection` header of an upgrade unchanged; an
/// option that names an identity header would make the next hop remove it.
fn strip_connection_options(value: &[u8]) -> Stripped<'_> {
    let options = || value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    let is_kept = |option: &[u8]| CONNECTION_OPTIONS.iter().any(|kept| option.eq_ignore_ascii_case(kept));
    if options().all(is_kept) {
        return Stripped::Unchanged;
    }
    let mut kept: Vec<u8> = Vec::with_capacity(value.len());
    for option in options().filter(|option| is_kept(option)) {
        if !kept.is_empty() {
            kept.extend(b", ");
        }
        kept.extend(option);
    }
    if kept.is_empty() { Stripped::Removed } else { Stripped::Changed(Cow::Owned(kept)) }
}

fn occurs_once(name: &str, headers: &Headers<'_>) -> bool {
    let is_same = |other: &str| other.len() == name.len() && eq_ignore_case(other, name);
    headers.iter().filter(|(other, _)| is_same(other)).nth(1).is_none()
}

/// Returns a claim as a header value, with the members of an array separated by commas. Returns `None` for values that
/// cannot be represented unambiguously.
fn header_value(claim: &Value, encoding: ClaimEncoding) -> Option<String> {
    match claim {
        Value::Array(claims) => {
            let texts: Option<Vec<String>> =
                claims.iter().map(|claim| scalar_value(claim, encoding)).collect();
            texts.filter(|texts| !texts.is_empty()).map(|texts| texts.join(","))
        }
        claim => scalar_value(claim, encoding),
    }
}

fn scalar_value(claim: &Value, encoding: ClaimEncoding) -> Option<String> {
    let text = match claim {
        Value::Bool(is) => &is.to_string(),
        // A fraction would be formatted differently from the token.
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => &number.to_string(),
            (None, number) => &number?.to_string(),
        },
        // A value that is decoded must not add a line to a log, or another header.
        Value::String(text) if !text.is_empty() && !text.chars().any(char::is_control) => text,
        _ => return None,
    };
    let is_trimmed = text.trim() == text;
    match encoding {
        ClaimEncoding::Percent => {
            let encoded = if is_trimmed { NOT_IN_CLAIMS } else { NOT_IN_UNTRIMMED_CLAIMS };
            Some(utf8_percent_encode(text, encoded).to_string())
        }
        ClaimEncoding::Base64url => Some(base64url::encode(text.as_bytes())),
        ClaimEncoding::Utf8 => (is_trimmed && !text.contains([',', ';'])).then(|| text.into()),
    }
}

fn signer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<AssertionSigner>, D::Error> {
    checked(deserializer, |text| {
        parse_signer(text).map(Some).ok_or("must be base64url of at least 32 bytes, without padding")
    })
}

fn parse_signer(text: &str) -> Option<AssertionSigner> {
    let secret = Zeroizing::new(base64url::decode(text.as_bytes())?);
    AssertionSigner::new(&secret).ok()
}

fn field_headers<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<(IdentityField, Option<String>)>, D::Error> {
    /// The name of a header, or `null` to omit it.
    struct NameOrNull(Option<String>);

    impl<'de> Deserialize<'de> for NameOrNull {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            match Value::deserialize(deserializer)? {
                Value::Null => Ok(Self(None)),
                Value::String(name) => HeaderName::try_from(name)
                    .map(|HeaderName(name)| Self(Some(name)))
                    .map_err(D::Error::custom),
                _ => Err(D::Error::custom("expected the name of a header, or null")),
            }
        }
    }

    let named = pairs::<D, IdentityField, NameOrNull>(deserializer)?;
    Ok(named.into_iter().map(|(field, NameOrNull(name))| (field, name)).collect())
}

fn claim_headers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(String, String)>, D::Error> {
    let named = pairs::<D, HeaderName, ClaimName>(deserializer)?;
    Ok(named.into_iter().map(|(HeaderName(header), ClaimName(claim))| (header, claim)).collect())
}

fn default_issuer() -> String {
    "keystile".into()
}

const fn default_lifetime() -> u64 {
    DEFAULT_ASSERTION_LIFETIME_SECONDS
}
