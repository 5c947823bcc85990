//! What the upstream gets to know: headers of identity, always cleared first, whatever a client sent and however it
//! spelled it.

use alloc::{
    borrow::Cow,
    format,
    string::{String, ToString},
    vec::Vec,
};

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use token::{
    assertion::Signer,
    base64url,
    json::{Object, Value},
};
use zeroize::Zeroizing;

use crate::{
    Environment, Gate, Headers, Identity, Verdict, claim,
    config::{bounded, checked, non_empty, pairs},
    credential::{self, Left, is_like, is_same, starts_like},
    environment::variable_name,
    policy::{HeaderName, PolicyError, header_name},
};

/// A header of a request that goes on.
pub type Forwarded<'a> = (&'a str, Cow<'a, [u8]>);

/// What becomes of the headers of a request that goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forward<'a> {
    /// Nothing changes.
    AsTheyCame,
    /// Every header with one of these names goes, then these come: a few calls to a host, however many headers there are.
    Edited {
        /// The names of the headers that go.
        removed: Vec<&'a str>,
        /// The headers that come.
        added: Vec<Forwarded<'a>>,
    },
    /// These instead of all.
    Instead(Vec<Forwarded<'a>>),
}

/// Under which names the upstream gets an identity, and what more.
#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// Names instead of the usual ones, which start with `identity_prefix`; null: not at all.
    #[serde(default, deserialize_with = "part_headers")]
    #[cfg_attr(
        feature = "schema",
        schemars(
            with = "alloc::collections::BTreeMap<Part, crate::schema::HeaderOrNull>",
            skip_serializing_if = "Vec::is_empty"
        )
    )]
    headers: Vec<(Part, Option<String>)>,
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
    #[serde(default)]
    assertion: Option<Assertion>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
enum Part {
    Subject,
    Operator,
    AuthKey,
    Session,
    Fingerprint,
    Issuer,
}

impl Part {
    const ALL: [(Self, &'static str); 6] = [
        (Self::Subject, "subject"),
        (Self::Operator, "operator"),
        (Self::AuthKey, "authkey"),
        (Self::Session, "session"),
        (Self::Fingerprint, "fingerprint"),
        (Self::Issuer, "issuer"),
    ];

    fn of(self, identity: &Identity) -> Option<&str> {
        match self {
            Self::Subject => Some(identity.subject()),
            Self::Operator => identity.operator(),
            Self::AuthKey => identity.key_id(),
            Self::Session => identity.session(),
            Self::Fingerprint => Some(identity.fingerprint_text()),
            Self::Issuer => identity.issuer(),
        }
    }
}

/// A token of the edge's own, by which the upstream can tell that a request came through it.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct Assertion {
    /// The header that the token is sent in.
    #[serde(deserialize_with = "header_name")]
    #[cfg_attr(feature = "schema", schemars(extend("pattern" = "^[a-z0-9_-]+$")))]
    header: String,
    /// What the upstream checks the token with: base64url of at least 32 bytes.
    #[serde(default, deserialize_with = "signer")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    secret: Option<Signer>,
    /// The environment variable that the secret is in.
    #[serde(default, deserialize_with = "variable_name")]
    secret_env: Option<String>,
    /// The `aud` of the token.
    #[serde(deserialize_with = "non_empty")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1)))]
    audience: String,
    /// The `iss` of the token.
    #[serde(default = "default_issuer", deserialize_with = "non_empty")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1)))]
    issuer: String,
    #[serde(default = "default_lifetime", deserialize_with = "bounded::<1, MAX_LIFETIME_SECONDS, _>")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = MAX_LIFETIME_SECONDS)))]
    lifetime_seconds: u64,
}

/// What the upstream reads in the token of the edge.
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
    /// Returns the token, or `None` while the secret is not read. `now` in seconds. It does not outlive the credential.
    fn of(&self, identity: &Identity, now: u64) -> Option<String> {
        let end = now.saturating_add(self.lifetime_seconds);
        let claims = AssertionClaims {
            iat: now,
            exp: identity.expires_at().map_or(end, |expires_at| expires_at.min(end)),
            iss: &self.issuer,
            aud: &self.audience,
            sub: identity.subject(),
            jti: identity.fingerprint_text(),
            operator: identity.operator(),
        };
        Some(self.secret.as_ref()?.sign(&serde_json::to_string(&claims).ok()?))
    }
}

/// The names of one policy, put together once.
#[derive(Debug)]
pub(crate) struct Names {
    parts: Vec<(Part, String)>,
    report: String,
    /// What is cleared besides everything that starts with the prefix.
    others: Vec<String>,
}

impl Names {
    pub(crate) fn new(prefix: &str, upstream: &Upstream) -> Self {
        let parts = Part::ALL.into_iter().filter_map(|(part, usual)| {
            match upstream.headers.iter().find(|(named, _)| *named == part) {
                None => Some((part, [prefix, usual].concat())),
                Some((_, name)) => name.clone().map(|name| (part, name)),
            }
        });
        let parts: Vec<_> = parts.collect();
        let own = parts.iter().map(|(_, name)| name.as_str());
        let claims = upstream.claims.iter().map(|(name, _)| name.as_str());
        let assertion = upstream.assertion.iter().map(|assertion| assertion.header.as_str());
        let others = own.chain(claims).chain(assertion).filter(|name| !starts_like(name, prefix));
        let others = others.map(String::from).collect();
        Self { parts, report: [prefix, "report"].concat(), others }
    }
}

impl Upstream {
    pub(crate) fn has_inline_secret(&self) -> bool {
        self.assertion.as_ref().is_some_and(|it| it.secret.is_some() && it.secret_env.is_none())
    }

    /// Reads the secret of the assertion, where an environment variable holds it.
    pub(crate) fn take_secrets(&mut self, environment: &Environment) -> Result<(), PolicyError> {
        let Some(Assertion { secret, secret_env, .. }) = &mut self.assertion else { return Ok(()) };
        let wrong = |message: String| PolicyError { path: "identity.assertion.secret_env".into(), message };
        match (&secret, secret_env) {
            (Some(_), None) => Ok(()),
            (Some(_), Some(_)) => Err(wrong("either this or `secret`".into())),
            (None, None) => Err(PolicyError {
                path: "identity.assertion".into(),
                message: "missing field `secret_env` (or `secret`)".into(),
            }),
            (None, Some(name)) => {
                let text = environment.secret(name).map_err(wrong)?;
                let signer = signer_of(text.expose()).ok_or_else(|| {
                    wrong(format!(
                        "the environment variable `{name}` must hold at least 32 bytes in base64url"
                    ))
                })?;
                *secret = Some(signer);
                Ok(())
            }
        }
    }

    /// A header with two sources, if there is one: an upstream would read both, or the wrong one.
    pub(crate) fn written_twice(&self, prefix: &str) -> Option<String> {
        let Names { parts, report, .. } = Names::new(prefix, self);
        let claims = self.claims.iter().map(|(name, _)| name.clone());
        let assertion = self.assertion.iter().map(|assertion| assertion.header.clone());
        let all = parts.into_iter().map(|(_, name)| name).chain([report]).chain(claims).chain(assertion);
        let mut before: Vec<String> = Vec::new();
        for name in all {
            if before.iter().any(|before| is_like(before, &name)) {
                return Some(name);
            }
            before.push(name);
        }
        None
    }

    /// The claims that it gets, as they stand in headers.
    pub(crate) fn claims(&self, members: &Object) -> Vec<Option<String>> {
        self.claims.iter().map(|(_, name)| claim::at(members, name).and_then(text)).collect()
    }
}

impl Gate {
    /// What the upstream gets. Every header that could be taken for an identity is gone; the credential is too, unless
    /// configured otherwise.
    ///
    /// A request that is only reported keeps its credential: nothing is to break while nothing is enforced.
    pub fn forward<'a>(&'a self, headers: &Headers<'a>, verdict: &'a Verdict, now: u64) -> Forward<'a> {
        let strips = self.policy().strip_credential && !verdict.is_reported();
        let mut added = Vec::with_capacity(USUAL_ADDITIONS);
        self.add(verdict, now, &mut added);
        let mut removed = Vec::new();
        for (name, value) in headers {
            match self.keep(name, value, strips) {
                Left::All => {}
                // A host removes all of one name, whatever letters it is in.
                Left::Nothing if removed.len() < MOST_REMOVED && stands_once(name, headers) => {
                    removed.push(*name)
                }
                Left::Nothing | Left::Some(_) => {
                    let mut instead = Vec::with_capacity(headers.len().saturating_add(added.len()));
                    self.kept(headers, strips, &mut instead);
                    instead.append(&mut added);
                    return Forward::Instead(instead);
                }
            }
        }
        if removed.is_empty() && added.is_empty() {
            return Forward::AsTheyCame;
        }
        Forward::Edited { removed, added }
    }

    /// Who it is, or what would have been refused.
    fn add<'a>(&'a self, verdict: &'a Verdict, now: u64, to: &mut Vec<Forwarded<'a>>) {
        let names = self.names();
        if let Verdict::Admit(admission) = verdict {
            let Upstream { claims, assertion, .. } = &self.policy().identity;
            let identity = admission.identity();
            let parts =
                names.parts.iter().filter_map(|(part, name)| Some((name.as_str(), part.of(identity)?)));
            let claims = claims.iter().zip(&identity.claims);
            let claims = claims.filter_map(|((name, _), value)| Some((name.as_str(), value.as_deref()?)));
            to.extend(parts.chain(claims).map(|(name, value)| (name, Cow::Borrowed(value.as_bytes()))));
            if let Some(assertion) = assertion {
                let token = assertion.of(identity, now / 1000);
                to.extend(token.map(|token| (assertion.header.as_str(), Cow::Owned(token.into_bytes()))));
            }
        }
        if let Some(reason) = verdict.reason().filter(|_| verdict.is_reported()) {
            to.push((&names.report, Cow::Borrowed(reason.code().as_bytes())));
        }
    }

    /// Whether any of them is not as it came.
    fn kept<'a>(&self, headers: &Headers<'a>, strips: bool, to: &mut Vec<Forwarded<'a>>) -> bool {
        let mut changed = false;
        for (name, value) in headers {
            match self.keep(name, value, strips) {
                Left::All => to.push((*name, Cow::Borrowed(*value))),
                Left::Some(value) => {
                    changed = true;
                    to.push((*name, value));
                }
                Left::Nothing => changed = true,
            }
        }
        changed
    }

    /// The trailers that the upstream gets, where some were sent that look like an identity or a credential; else none
    /// need be changed. HTTP lets a server take trailers for headers (RFC 9110 section 6.5).
    pub fn forward_trailers<'a>(&self, trailers: &Headers<'a>) -> Option<Vec<Forwarded<'a>>> {
        let mut kept = Vec::with_capacity(trailers.len());
        self.kept(trailers, self.policy().strip_credential, &mut kept).then_some(kept)
    }

    fn keep<'a>(&self, name: &str, value: &'a [u8], strips: bool) -> Left<'a> {
        let crate::Policy { identity_prefix, credentials, api_keys, .. } = self.policy();
        // A request needs these, and none of them is like a header.
        let is_pseudo = name.starts_with(':');
        if is_connection(name) {
            return connection(value);
        }
        let is_other = || self.names().others.iter().any(|other| is_like(name, other));
        if !is_pseudo && (starts_like(name, identity_prefix) || is_other()) {
            return Left::Nothing;
        }
        // What goes with a credential goes with it.
        let pairs = credentials.iter().filter_map(|source| source.pair());
        let mut along = pairs.chain(api_keys.iter().map(|api_keys| api_keys.username_header.as_str()));
        if strips && !is_pseudo && along.any(|along| is_like(name, along)) {
            return Left::Nothing;
        }
        if strips { credential::strip(credentials, name, value) } else { Left::All }
    }
}

/// Whether the values of this header are names of headers that end at the next hop (RFC 9110 section 7.6.1). Servers that
/// are written for HTTP/1.0 proxies read `proxy-connection` alike.
fn is_connection(name: &str) -> bool {
    match name.len() {
        10 => name.eq_ignore_ascii_case("connection"),
        16 => is_like(name, "proxy-connection"),
        _ => false,
    }
}

/// What may be left of it. Envoy forwards the header of an upgrade as it came: one that names an identity header would
/// have the next hop drop it, and make the request one of nobody.
fn connection(value: &[u8]) -> Left<'_> {
    let options = || value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    let is_kept = |option: &[u8]| CONNECTION_OPTIONS.iter().any(|kept| option.eq_ignore_ascii_case(kept));
    if options().all(is_kept) {
        return Left::All;
    }
    let mut kept: Vec<u8> = Vec::with_capacity(value.len());
    for option in options().filter(|option| is_kept(option)) {
        if !kept.is_empty() {
            kept.extend(b", ");
        }
        kept.extend(option);
    }
    if kept.is_empty() { Left::Nothing } else { Left::Some(Cow::Owned(kept)) }
}

/// What is about the connection itself, and no header that anybody reads an identity from.
const CONNECTION_OPTIONS: [&[u8]; 5] = [b"upgrade", b"keep-alive", b"close", b"te", b"http2-settings"];

fn stands_once(name: &str, headers: &Headers<'_>) -> bool {
    headers.iter().filter(|(other, _)| is_same(other, name)).nth(1).is_none()
}

/// A claim as the value of a header: visible ASCII and spaces within; several are separated by commas. None for what
/// would arrive as something else.
fn text(claim: &Value) -> Option<String> {
    match claim {
        Value::Array(claims) => {
            let texts: Option<Vec<String>> = claims.iter().map(scalar).collect();
            texts.filter(|texts| !texts.is_empty()).map(|texts| texts.join(","))
        }
        claim => scalar(claim),
    }
}

fn scalar(claim: &Value) -> Option<String> {
    match claim {
        Value::Bool(is) => Some(is.to_string()),
        // A float would arrive in another spelling.
        Value::Number(number) => number
            .as_u64()
            .map(|number| number.to_string())
            .or(number.as_i64().map(|number| number.to_string())),
        Value::String(text) => {
            // One value must not be read as several: a list is separated by commas, and its members have parameters
            // after a semicolon (RFC 8941 section 3.1).
            let is_one = |byte: u8| (byte.is_ascii_graphic() || byte == b' ') && !matches!(byte, b',' | b';');
            let visible = text.bytes().all(is_one);
            (visible && !text.is_empty() && text.trim() == text).then(|| text.clone())
        }
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn signer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Signer>, D::Error> {
    checked(deserializer, |text| {
        signer_of(text).map(Some).ok_or("must be base64url of at least 32 bytes, without padding")
    })
}

fn signer_of(text: &str) -> Option<Signer> {
    let secret = Zeroizing::new(base64url::decode(text.as_bytes())?);
    Signer::new(&secret).ok()
}

fn part_headers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(Part, Option<String>)>, D::Error> {
    /// `null`: the upstream does not get it.
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

    let named = pairs::<D, Part, NameOrNull>(deserializer)?;
    Ok(named.into_iter().map(|(part, NameOrNull(name))| (part, name)).collect())
}

fn claim_headers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(String, String)>, D::Error> {
    let named = pairs::<D, HeaderName, String>(deserializer)?;
    Ok(named.into_iter().map(|(HeaderName(header), claim)| (header, claim)).collect())
}

fn default_issuer() -> String {
    "keystile".into()
}

const fn default_lifetime() -> u64 {
    60
}

/// It is made for one request.
const MAX_LIFETIME_SECONDS: u64 = 300;

/// The credential, and what goes with it; a client that sends more is up to something.
const MOST_REMOVED: usize = 4;

/// Subject, operator, AuthKey, session and fingerprint.
const USUAL_ADDITIONS: usize = 5;
