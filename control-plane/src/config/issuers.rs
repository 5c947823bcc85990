use serde::{Deserialize, Serialize};

/// The error for a URL that must not be fetched.
const NOT_ALLOWED: &str =
    "expected an https URL without user, password and fragment; http is for loopback only";

/// The maximum length of an issuer name: its length is one byte in a bundle.
const MAX_ISSUER_BYTES: usize = 255;

/// Another issuer whose tokens edges accept: where its keys are, and for which algorithms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// The exact value of `iss`.
    pub issuer: String,
    /// The URL of the key set. Without it, OpenID Connect Discovery finds the keys.
    #[serde(default)]
    pub jwks_url: Option<String>,
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
            _ => Err("expected EdDSA, ES256, ES384, RS256, RS384, RS512, PS256, PS384 or PS512"),
        }
    }
}

impl From<SignatureAlgorithm> for String {
    fn from(algorithm: SignatureAlgorithm) -> Self {
        algorithm.0.name().to_owned()
    }
}

impl Issuer {
    /// Returns the first URL to fetch: the key set, or the discovery document that names it.
    pub fn keys_or_discovery_url(&self) -> String {
        match &self.jwks_url {
            Some(url) => url.clone(),
            // OpenID Connect Discovery 1.0 section 4.1: a terminating slash is removed first.
            None => self.issuer.trim_end_matches('/').to_owned() + "/.well-known/openid-configuration",
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
        let Self { issuer, jwks_url: _, algorithms, default_algorithm } = self;
        if issuer.is_empty() || issuer.len() > MAX_ISSUER_BYTES {
            return Err(("issuer", "expected 1 to 255 bytes"));
        }
        if issuer == own {
            return Err(("issuer", "is the same as tokens.issuer, whose keys are local"));
        }
        if others.iter().any(|other| other.issuer == *issuer) {
            return Err(("issuer", "duplicate issuer"));
        }
        if !crate::jwks::is_allowed(&self.keys_or_discovery_url()) {
            return Err(match self.jwks_url {
                Some(_) => ("jwks_url", NOT_ALLOWED),
                None => ("issuer", NOT_ALLOWED),
            });
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
