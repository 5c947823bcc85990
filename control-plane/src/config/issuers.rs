use serde::{Deserialize, Serialize};

/// Somebody else whose tokens edges may take: where its keys are, and what they may be used for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// What `iss` must be, to the byte.
    pub issuer: String,
    /// Where the keys are; found by OpenID Connect Discovery when it is not said.
    #[serde(default)]
    pub jwks_url: Option<String>,
    /// What its keys may be used for; keys for anything else are left out.
    #[serde(default = "asymmetric")]
    pub algorithms: Vec<SignatureAlgorithm>,
    /// For RSA keys that do not say theirs.
    #[serde(default)]
    pub default_algorithm: Option<SignatureAlgorithm>,
}

/// An algorithm with a public key.
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
    /// Where to begin: the keys themselves, or the document that says where they are.
    pub fn start(&self) -> String {
        match &self.jwks_url {
            Some(url) => url.clone(),
            // OpenID Connect Discovery 1.0 section 4.1: a terminating slash is removed first.
            None => self.issuer.trim_end_matches('/').to_owned() + "/.well-known/openid-configuration",
        }
    }

    pub fn allows(&self, algorithm: token::Algorithm) -> bool {
        self.algorithms.contains(&SignatureAlgorithm(algorithm))
    }

    /// What is wrong, and with which member.
    pub(super) fn check(&self, own: &str, others: &[Self]) -> Result<(), (&'static str, &'static str)> {
        let Self { issuer, jwks_url: _, algorithms, default_algorithm } = self;
        if issuer.is_empty() || issuer.len() > LONGEST_NAME {
            return Err(("issuer", "expected 1 to 255 bytes"));
        }
        if issuer == own {
            return Err(("issuer", "is tokens.issuer, whose keys are our own"));
        }
        if others.iter().any(|other| other.issuer == *issuer) {
            return Err(("issuer", "stands twice"));
        }
        if !crate::jwks::is_allowed(&self.start()) {
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

const NOT_ALLOWED: &str =
    "expected an https URL without user, password and fragment; http is for loopback only";

/// What one byte of length can say in a bundle.
const LONGEST_NAME: usize = 255;
