use alloc::{string::String, sync::Arc, vec::Vec};
use core::fmt;

use crate::{
    Algorithm, Claims, Error, Fingerprint, SignatureVerifier, SoftwareVerifier, VerifyingKey, base64url,
    claims::{self, TimeClaims},
    json::{self, Object, Value},
};

/// Maximum length of a token in bytes, which a caller can lower; longer tokens are refused without parsing. Envoy limits
/// all headers together to 60 KiB by default, and the reference configuration to 96 KiB.
pub const MAX_TOKEN_BYTES: usize = 96 * 1024;

/// The default of the maximum length of a token in bytes. Servers commonly limit all headers together to 8 KiB.
pub const DEFAULT_MAX_TOKEN_BYTES: usize = 8 * 1024;

/// The private header parameter with the prefix (RFC 7515 section 4.3).
pub(crate) const PREFIX_PARAMETER: &str = "prefix";

/// The header parameters that are refused for every issuer, because a verifier that ignores them verifies another
/// statement than the issuer made:
///
/// * `jwk` (RFC 7515 section 4.1.3): the token contains its own key. No issuer with a key set needs it; in a proof of
///   possession (RFC 9449) it is the key of the client.
/// * `crit` (RFC 7515 section 4.1.11): the extensions that it names must be understood, and none is.
/// * `b64` (RFC 7797): the payload is signed without base64url.
/// * `zip` (RFC 7516 section 4.1.3) and `enc` (section 4.1.2): the payload is compressed or encrypted.
///
/// Of other issuers, all other parameters are ignored, as RFC 7515 section 4 requires. Those that refer to a key (`jku`,
/// `x5u`, `x5c`, `x5t`, `x5t#S256`) have no effect: keys come from the bundle alone, by issuer, `kid` and algorithm, and
/// nothing is fetched. Tokens of this deployment have no parameters other than the ones that it writes.
const REFUSED_PARAMETERS: [&str; 5] = ["jwk", "crit", "b64", "zip", "enc"];

/// A JWT in compact serialization (RFC 7515 section 7.1) with a valid encoding whose signature has not been verified.
pub struct Unverified<'a> {
    presented: &'a [u8],
    /// The prefix before the header.
    prefix: &'a [u8],
    /// The signed part: `header.payload`.
    signed: &'a [u8],
    header: Header,
    payload: Arc<Object>,
    signature: Vec<u8>,
}

impl<'a> Unverified<'a> {
    /// Parses a token without a prefix: three segments of canonical base64url, with JSON objects that have no duplicate
    /// members.
    ///
    /// # Errors
    ///
    /// Returns [`Error::TooLong`], [`Error::NotCanonical`] or [`Error::Malformed`] if the encoding is invalid.
    pub fn parse(presented: &'a [u8]) -> Result<Self, Error> {
        Self::parse_prefixed(presented, &[], MAX_TOKEN_BYTES)
    }

    /// Parses a token of at most `max_bytes` that can have one of the prefixes, such as `kauth-`. The header names the
    /// prefix, so that the token is valid only with its own prefix. Otherwise a revoked token could be presented under
    /// another fingerprint.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`Self::parse`], and [`Error::NotCanonical`] if the prefix differs from that in the
    /// header.
    pub fn parse_prefixed(presented: &'a [u8], prefixes: &[String], max_bytes: usize) -> Result<Self, Error> {
        if presented.len() > max_bytes {
            return Err(Error::TooLong);
        }
        let matching = prefixes.iter().filter(|known| presented.starts_with(known.as_bytes()));
        // Of `k-` and `k-auth-`, the longer prefix applies.
        let length = matching.map(String::len).max().unwrap_or_default();
        let (prefix, token) = presented.split_at_checked(length).unwrap_or_default();
        // A text that is not UTF-8 is not base64url.
        let token = core::str::from_utf8(token).map_err(|_| Error::NotCanonical)?;
        let (signed, signature) = token.rsplit_once('.').ok_or(Error::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(Error::Malformed)?;
        if payload.contains('.') {
            return Err(Error::Malformed);
        }
        let (header, payload, signature) =
            (decode_segment(header)?, decode_segment(payload)?, decode_segment(signature)?);
        let header = Header::from_object(&parse_object(&header)?).ok_or(Error::Malformed)?;
        if !prefix.is_empty() && header.prefix.as_bytes() != prefix {
            return Err(Error::NotCanonical);
        }
        let payload = parse_object(&payload)?;
        if matches!(claims::optional_string(&payload, "iss"), Err(_) | Ok(Some(""))) {
            return Err(Error::Malformed);
        }
        let signed = signed.as_bytes();
        Ok(Self { presented, prefix, signed, header, payload: Arc::new(payload), signature })
    }

    /// Returns the `kid`. It is empty if the token has none.
    pub fn kid(&self) -> &str {
        &self.header.kid
    }

    /// Returns the unverified `alg`, to find the key among those of one `kid`. Other issuers may use the name `Ed25519` of
    /// RFC 9864 for `EdDSA`.
    pub fn algorithm(&self) -> &str {
        match self.header.alg.as_str() {
            "Ed25519" => Algorithm::EdDsa.name(),
            name => name,
        }
    }

    /// Returns the unverified `iss`, to find the key. Only [`Self::verify`] proves it.
    pub fn issuer(&self) -> &str {
        claims::optional_string(&self.payload, "iss").ok().flatten().unwrap_or_default()
    }

    /// Returns the name of a registered claim that has a wrong type, if any, to explain [`Error::Malformed`].
    pub fn malformed_claim(&self) -> Option<&'static str> {
        TimeClaims::from_object(&self.payload).err()
    }

    /// Verifies the signature, which is the only way to the claims.
    ///
    /// A token of another issuer with a symmetric key:
    ///
    /// ```
    /// use token::{Algorithm, Error, Unverified, VerifyingKey};
    ///
    /// // RFC 7515 appendix A.1; its header has no `kid`.
    /// let secret = token::base64url::decode(
    ///     b"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow",
    /// )
    /// .unwrap();
    /// let key = VerifyingKey::foreign("joe", "", Algorithm::Hs256, &secret)?;
    /// let presented = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.\
    ///     eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.\
    ///     dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    ///
    /// let unverified = Unverified::parse(presented.as_bytes())?;
    /// // Enough to find the key by, and nothing else.
    /// assert_eq!((unverified.issuer(), unverified.kid()), ("joe", ""));
    /// let authentic = unverified.verify(&key)?;
    /// // Seconds since the Unix epoch. The caller compares it with its clock.
    /// assert_eq!(authentic.expires_at(), Some(1_300_819_380));
    ///
    /// let other = VerifyingKey::foreign("joe", "", Algorithm::Hs256, &[7; 32])?;
    /// assert_eq!(unverified.verify(&other), Err(Error::SignatureInvalid));
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`Error::AlgorithmMismatch`] if `alg` differs from the algorithm of the key, [`Error::SignatureInvalid`]
    /// if issuer, `kid` or signature do not match the key, [`Error::AlgorithmUnsupported`] if only a host can verify the
    /// signature, and [`Error::Malformed`] if the claims are not those of a token of this issuer. Key or token of another
    /// issuer may have no `kid`; the caller then has to choose the only key of the algorithm.
    pub fn verify(&self, key: &VerifyingKey) -> Result<Authentic, Error> {
        self.verify_with(key, &SoftwareVerifier)
    }

    /// Verifies the signature like [`Self::verify`], with signature verification by the host.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`Self::verify`].
    pub fn verify_with(
        &self,
        key: &VerifyingKey,
        verifier: &dyn SignatureVerifier,
    ) -> Result<Authentic, Error> {
        self.verify_for(key, self.issuer(), verifier)
    }

    /// Verifies the signature like [`Self::verify_with`], with a key that is known under the name `key_issuer`. The
    /// caller has to ensure that tokens with this `iss` belong to that name, because it is a pattern that matches.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`Self::verify`], and [`Error::NotCanonical`] if a prefix is not that of the token.
    pub fn verify_for(
        &self,
        key: &VerifyingKey,
        key_issuer: &str,
        verifier: &dyn SignatureVerifier,
    ) -> Result<Authentic, Error> {
        let Header { alg, kid, prefix, typ, has_only_own_parameters } = &self.header;
        // To another issuer, `prefix` is an unknown parameter, which is ignored: its tokens have no prefix.
        let expected_prefix = if key.issuer().is_some() { "" } else { prefix };
        if expected_prefix.as_bytes() != self.prefix {
            return Err(Error::NotCanonical);
        }
        let alg = if key.issuer().is_some() { self.algorithm() } else { alg };
        if alg != key.algorithm().name() {
            return Err(Error::AlgorithmMismatch);
        }
        let same_issuer = key.issuer().is_none_or(|issuer| issuer == key_issuer);
        if !key.is_for_kid(kid) || !same_issuer {
            return Err(Error::SignatureInvalid);
        }
        match key.verify(self.signed, &self.signature, verifier) {
            Some(true) => {}
            Some(false) => return Err(Error::SignatureInvalid),
            None => return Err(Error::AlgorithmUnsupported),
        }
        let instants = TimeClaims::from_object(&self.payload).map_err(|_| Error::Malformed)?;
        let local_claims = match key.issuer() {
            Some(_) => None,
            None if *has_only_own_parameters => {
                Some(Claims::from_object(&self.payload).ok_or(Error::Malformed)?)
            }
            None => return Err(Error::Malformed),
        };
        let alternate_fingerprint = key.algorithm().malleated_signature(&self.signature).map(|signature| {
            Fingerprint::digest(
                &[self.prefix, self.signed, b".", base64url::encode(&signature).as_bytes()].concat(),
            )
        });
        Ok(Authentic {
            typ: typ.clone(),
            members: Arc::clone(&self.payload),
            instants,
            local_claims,
            fingerprint: Fingerprint::digest(self.presented),
            alternate_fingerprint,
        })
    }
}

// Implemented by hand so that the credential is not printed.
impl fmt::Debug for Unverified<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Unverified({:?})", Fingerprint::digest(self.presented))
    }
}

/// A token with a valid signature. It can still be expired, revoked or for another audience.
#[derive(Debug, Clone, PartialEq)]
pub struct Authentic {
    typ: Option<String>,
    members: Arc<Object>,
    instants: TimeClaims,
    local_claims: Option<Claims>,
    fingerprint: Fingerprint,
    alternate_fingerprint: Option<Fingerprint>,
}

impl Authentic {
    /// Returns the claims of a token of this deployment, or `None` for a token of another issuer.
    pub const fn claims(&self) -> Option<&Claims> {
        self.local_claims.as_ref()
    }

    /// Returns the type that the header declares (RFC 7515 section 4.1.9). The caller has to refuse a type that is for
    /// another purpose (RFC 8725 section 3.11). A token of this deployment has `JWT` or none.
    pub fn typ(&self) -> Option<&str> {
        self.typ.as_deref()
    }

    /// Returns all claims.
    pub const fn members(&self) -> &Arc<Object> {
        &self.members
    }

    /// Returns the claim `iss` (RFC 7519 section 4.1.1).
    pub fn issuer(&self) -> Option<&str> {
        claims::optional_string(&self.members, "iss").ok().flatten()
    }

    /// Returns the claim `sub` (RFC 7519 section 4.1.2).
    pub fn subject(&self) -> Option<&str> {
        claims::optional_string(&self.members, "sub").ok().flatten()
    }

    /// Returns the claim `jti` (RFC 7519 section 4.1.7).
    pub fn id(&self) -> Option<&str> {
        claims::optional_string(&self.members, "jti").ok().flatten()
    }

    /// Returns the values of the claim `aud` (RFC 7519 section 4.1.3), be it a string or an array.
    pub fn audiences(&self) -> impl Iterator<Item = &str> {
        claims::audiences(&self.members).flatten().into_iter().flatten()
    }

    /// Returns the claim `exp`, in seconds since the Unix epoch.
    pub const fn expires_at(&self) -> Option<u64> {
        self.instants.exp
    }

    /// Returns the claim `nbf`, in seconds since the Unix epoch.
    pub const fn not_before(&self) -> Option<u64> {
        self.instants.nbf
    }

    /// Returns the claim `iat`, in seconds since the Unix epoch.
    pub const fn issued_at(&self) -> Option<u64> {
        self.instants.iat
    }

    /// Returns the fingerprint of the token as presented.
    pub const fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Returns all fingerprints under which this token can be presented. If (r, s) is a valid ECDSA signature, so is
    /// (r, n - s), and anyone can compute one from the other. Revoking either must revoke both.
    pub fn fingerprints(&self) -> impl Iterator<Item = Fingerprint> {
        core::iter::once(self.fingerprint).chain(self.alternate_fingerprint)
    }
}

struct Header {
    alg: String,
    kid: String,
    /// The prefix of a token of this deployment, usually empty.
    prefix: String,
    typ: Option<String>,
    /// Whether the header has only parameters that this deployment writes.
    has_only_own_parameters: bool,
}

impl Header {
    /// Parses a header. Parameters that change what is verified are refused for every issuer.
    fn from_object(from: &Object) -> Option<Self> {
        if REFUSED_PARAMETERS.iter().any(|name| from.contains_key(*name)) {
            return None;
        }
        let typ = claims::optional_string(from, "typ").ok()?;
        let alg = from.get("alg")?.as_str()?.into();
        let kid = claims::optional_string(from, "kid").ok()?;
        if kid.is_some_and(str::is_empty) {
            return None;
        }
        let prefix = claims::optional_string(from, PREFIX_PARAMETER);
        let is_own_parameter =
            |name: &String| matches!(name.as_str(), "alg" | "kid" | "typ" | PREFIX_PARAMETER);
        let has_only_own_parameters =
            from.keys().all(is_own_parameter) && prefix.is_ok() && matches!(typ, None | Some("JWT"));
        Some(Self {
            alg,
            kid: kid.unwrap_or_default().into(),
            prefix: prefix.ok().flatten().unwrap_or_default().into(),
            typ: typ.map(String::from),
            has_only_own_parameters,
        })
    }
}

/// Parses the JSON of a decoded segment, which must be an object.
fn parse_object(text: &[u8]) -> Result<Object, Error> {
    match json::parse(text) {
        Ok(Value::Object(object)) => Ok(object),
        _ => Err(Error::Malformed),
    }
}

/// Decodes the base64url of a segment.
fn decode_segment(segment: &str) -> Result<Vec<u8>, Error> {
    base64url::decode(segment.as_bytes()).ok_or(Error::NotCanonical)
}
