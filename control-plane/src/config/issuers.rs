use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use reqwest::Url;
use serde::{Deserialize, Serialize};

use super::ConfigDuration;

/// The error for a URL that must not be fetched.
const NOT_ALLOWED: &str = "expected an https URL without user, password and fragment; http is for loopback only, and \
    elsewhere with `allow_http = true`";

/// The maximum length of an issuer name: its length is one byte in a bundle.
const MAX_ISSUER_BYTES: usize = 255;

/// The bounds of `max_rsa_bits`.
const MIN_RSA_BITS: u32 = 2048;
const MAX_RSA_BITS: u32 = 8192;

/// Another issuer whose tokens edges accept: where its keys are, and for which algorithms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// The exact value of `iss`, or the pattern for it, as in the policies of edges.
    pub issuer: String,
    /// The URL of the key set. Without it, OpenID Connect Discovery finds the keys.
    #[serde(default)]
    pub jwks_url: Option<String>,
    /// A file with the key set, which is read again when it changes.
    #[serde(default)]
    pub jwks_file: Option<PathBuf>,
    /// The key set itself, as JSON.
    #[serde(default)]
    pub jwks: Option<String>,
    /// A file with the certificate authorities that the server of the issuer is verified with, instead of those of the
    /// system.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Permits http without TLS from other hosts than this one: an attacker who controls the network chooses the keys.
    #[serde(default)]
    pub allow_http: bool,
    /// The shortest and the longest time until the keys are fetched again, regardless of the response. A shorter `max_age`
    /// has precedence.
    #[serde(default = "default_min_age")]
    pub min_age: ConfigDuration,
    #[serde(default = "default_max_age")]
    pub max_age: ConfigDuration,
    /// The shortest time between two fetches that edges or commands ask for.
    #[serde(default = "default_min_refresh")]
    pub min_refresh: ConfigDuration,
    /// The longest RSA key.
    #[serde(default = "default_max_rsa_bits")]
    pub max_rsa_bits: u32,
    /// The algorithms that its keys may be used for. Keys for other algorithms are skipped.
    #[serde(default = "asymmetric")]
    pub algorithms: Vec<SignatureAlgorithm>,
    /// The algorithm of RSA keys without `alg`.
    #[serde(default)]
    pub default_algorithm: Option<SignatureAlgorithm>,
}

/// A signature algorithm with a public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SignatureAlgorithm(pub token::Algorithm);

impl TryFrom<String> for SignatureAlgorithm {
    type Error = &'static str;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        match token::Algorithm::from_name(&name) {
            Some(algorithm) if !algorithm.is_symmetric() => Ok(Self(algorithm)),
            _ => Err("expected EdDSA, ES256, ES384, ES512, RS256, RS384, RS512, PS256, PS384 or PS512"),
        }
    }
}

impl From<SignatureAlgorithm> for String {
    fn from(algorithm: SignatureAlgorithm) -> Self {
        algorithm.0.name().to_owned()
    }
}

impl Issuer {
    /// Returns where the keys are.
    pub fn key_source(&self) -> KeySource<'_> {
        match (&self.jwks, &self.jwks_file, &self.jwks_url) {
            (Some(jwks), ..) => KeySource::Settings(jwks),
            (_, Some(file), _) => KeySource::File(file),
            (.., Some(url)) => KeySource::Url(url),
            // OpenID Connect Discovery 1.0 section 4.1: a terminating slash is removed first.
            _ => KeySource::Discovery(
                self.issuer.trim_end_matches('/').to_owned() + "/.well-known/openid-configuration",
            ),
        }
    }

    pub fn allows(&self, algorithm: token::Algorithm) -> bool {
        self.algorithms.contains(&SignatureAlgorithm(algorithm))
    }

    /// Validates the section.
    ///
    /// # Errors
    ///
    /// The name of the invalid member and what is wrong with it.
    pub(super) fn validate(&self, own: &str, others: &[Self]) -> Result<(), (&'static str, &'static str)> {
        let Self {
            issuer,
            jwks_url,
            jwks_file,
            jwks,
            ca_file,
            allow_http,
            min_age,
            max_age,
            min_refresh,
            max_rsa_bits,
            algorithms,
            default_algorithm,
        } = self;
        if issuer.is_empty() || issuer.len() > MAX_ISSUER_BYTES {
            return Err(("issuer", "expected 1 to 255 bytes"));
        }
        if issuer == own {
            return Err(("issuer", "is the same as tokens.issuer, whose keys are local"));
        }
        if others.iter().any(|other| other.issuer == *issuer) {
            return Err(("issuer", "duplicate issuer"));
        }
        let (has_file, has_keys) = (jwks_file.is_some(), jwks.is_some());
        if has_file && (jwks_url.is_some() || has_keys) {
            return Err(("jwks_file", "expected only one of `jwks_url`, `jwks_file` and `jwks`"));
        }
        if has_keys && jwks_url.is_some() {
            return Err(("jwks", "expected only one of `jwks_url`, `jwks_file` and `jwks`"));
        }
        let local = "is for keys that are fetched, not for `jwks_file` and `jwks`";
        if (has_file || has_keys) && ca_file.is_some() {
            return Err(("ca_file", local));
        }
        if (has_file || has_keys) && *allow_http {
            return Err(("allow_http", local));
        }
        match self.key_source() {
            KeySource::File(_) | KeySource::Settings(_) => {}
            KeySource::Url(url) if !is_allowed_url(url, *allow_http) => {
                return Err(("jwks_url", NOT_ALLOWED));
            }
            KeySource::Discovery(_) if issuer.contains('{') => {
                return Err((
                    "issuer",
                    "is a pattern, so discovery cannot find its keys: set `jwks_url`, `jwks_file` or `jwks`",
                ));
            }
            KeySource::Discovery(url) if !is_allowed_url(&url, *allow_http) => {
                return Err(("issuer", NOT_ALLOWED));
            }
            KeySource::Url(_) | KeySource::Discovery(_) => {}
        }
        for (member, period) in [("min_age", min_age), ("max_age", max_age), ("min_refresh", min_refresh)] {
            if period.get().as_secs() == 0 {
                return Err((member, "expected at least `1s`"));
            }
        }
        if !(MIN_RSA_BITS..=MAX_RSA_BITS).contains(max_rsa_bits) {
            return Err(("max_rsa_bits", "expected 2048 to 8192"));
        }
        if algorithms.is_empty() {
            return Err(("algorithms", "expected at least one"));
        }
        match default_algorithm {
            Some(algorithm) if !algorithms.contains(algorithm) => {
                Err(("default_algorithm", "is not among `algorithms`"))
            }
            _ => Ok(()),
        }
    }
}

fn asymmetric() -> Vec<SignatureAlgorithm> {
    let all = token::Algorithm::ALL.into_iter();
    all.filter(|algorithm| !algorithm.is_symmetric()).map(SignatureAlgorithm).collect()
}

/// Where the keys of an issuer are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource<'a> {
    /// The key set is in the settings.
    Settings(&'a str),
    File(&'a Path),
    Url(&'a str),
    /// The URL of the discovery document, which names that of the key set.
    Discovery(String),
}

impl std::fmt::Display for KeySource<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Settings(_) => f.write_str("`jwks` in the settings"),
            Self::File(path) => path.display().fmt(f),
            Self::Url(url) => f.write_str(url),
            Self::Discovery(url) => f.write_str(url),
        }
    }
}

fn default_min_age() -> ConfigDuration {
    ConfigDuration::from_secs(60)
}

fn default_max_age() -> ConfigDuration {
    ConfigDuration::from_secs(24 * 3600)
}

fn default_min_refresh() -> ConfigDuration {
    ConfigDuration::from_secs(10)
}

const fn default_max_rsa_bits() -> u32 {
    4096
}

/// Returns whether keys may be fetched from a URL: with https, or with http from the loopback interface or if it is allowed.
pub fn is_allowed_url(url: &str, allow_http: bool) -> bool {
    let Ok(url) = Url::parse(url) else { return false };
    let loopback = || {
        let host = url.host_str().unwrap_or_default();
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    };
    let plain = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    plain
        && url.host_str().is_some()
        && (url.scheme() == "https" || url.scheme() == "http" && (allow_http || loopback()))
}
