use alloc::{string::String, sync::Arc, vec::Vec};
use core::fmt;

use crate::{
    Claims, Error, Fingerprint, SignatureVerifier, Unaided, VerifyingKey, base64url,
    claims::{self, Instants},
    json::{self, Object, Value},
};

/// Longer tokens are refused before they are looked at. Common limits of servers for all headers together are 8 KiB.
pub const MAX_TOKEN_BYTES: usize = 8192;

/// A JWT in compact serialisation (RFC 7515 section 7.1) whose spelling is checked and whose signature is not.
pub struct Unverified<'a> {
    presented: &'a [u8],
    /// What stands in front of the header.
    prefix: &'a [u8],
    /// `header.payload`
    signed: &'a [u8],
    header: Header,
    payload: Arc<Object>,
    signature: Vec<u8>,
}

impl<'a> Unverified<'a> {
    /// Checks the spelling of a token that has no prefix: three segments of canonical base64url, and JSON objects that name
    /// no member twice.
    ///
    /// # Errors
    ///
    /// Returns [`Error::TooLong`], [`Error::NotCanonical`] or [`Error::Malformed`]: the spelling is wrong, whatever the
    /// signature is.
    pub fn parse(presented: &'a [u8]) -> Result<Self, Error> {
        Self::parse_prefixed(presented, &[])
    }

    /// A token may start with one of the prefixes, such as `kauth-`, and then its header says so: it is good with
    /// that prefix and no other, nor without. Else a revoked one would come back under another fingerprint.
    ///
    /// # Errors
    ///
    /// Returns what [`Self::parse`] does, and [`Error::NotCanonical`] for a token with another prefix than its header says.
    pub fn parse_prefixed(presented: &'a [u8], prefixes: &[String]) -> Result<Self, Error> {
        if presented.len() > MAX_TOKEN_BYTES {
            return Err(Error::TooLong);
        }
        let fitting = prefixes.iter().filter(|known| presented.starts_with(known.as_bytes()));
        // Of `k-` and `k-auth-`, the longer.
        let length = fitting.map(String::len).max().unwrap_or_default();
        let (prefix, token) = presented.split_at_checked(length).unwrap_or_default();
        // What is not UTF-8 is not base64url.
        let token = core::str::from_utf8(token).map_err(|_| Error::NotCanonical)?;
        let (signed, signature) = token.rsplit_once('.').ok_or(Error::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(Error::Malformed)?;
        if payload.contains('.') {
            return Err(Error::Malformed);
        }
        let (header, payload, signature) = (decode(header)?, decode(payload)?, decode(signature)?);
        let header = Header::read(&object(&header)?).ok_or(Error::Malformed)?;
        if header.prefix.as_bytes() != prefix {
            return Err(Error::NotCanonical);
        }
        let payload = object(&payload)?;
        if matches!(claims::text(&payload, "iss"), None | Some(Some(""))) {
            return Err(Error::Malformed);
        }
        let signed = signed.as_bytes();
        Ok(Self { presented, prefix, signed, header, payload: Arc::new(payload), signature })
    }

    /// Empty if the token names none: then only a key without a name can be meant.
    pub fn kid(&self) -> &str {
        &self.header.kid
    }

    /// Who the token says issued it, to find the key by; empty if it does not say. To believe it takes
    /// [`Self::verify`].
    pub fn issuer(&self) -> &str {
        claims::text(&self.payload, "iss").flatten().unwrap_or_default()
    }

    /// The only door to the claims.
    ///
    /// A token of another issuer, whose key is symmetric:
    ///
    /// ```
    /// use token::{Algorithm, Error, Unverified, VerifyingKey};
    ///
    /// // RFC 7515 appendix A.1; its header has no `kid`.
    /// let secret = token::base64url::decode(
    ///     b"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow",
    /// )
    /// .unwrap();
    /// let key = VerifyingKey::of_issuer("joe", "", Algorithm::Hs256, &secret)?;
    /// let presented = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.\
    ///     eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.\
    ///     dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    ///
    /// let unverified = Unverified::parse(presented.as_bytes())?;
    /// // Enough to find the key by, and nothing else.
    /// assert_eq!((unverified.issuer(), unverified.kid()), ("joe", ""));
    /// let authentic = unverified.verify(&key)?;
    /// // Seconds since the Unix epoch. Whether that is past is for the caller to say, who has a clock.
    /// assert_eq!(authentic.expires_at(), Some(1_300_819_380));
    ///
    /// let other = VerifyingKey::of_issuer("joe", "", Algorithm::Hs256, &[7; 32])?;
    /// assert_eq!(unverified.verify(&other), Err(Error::SignatureInvalid));
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`Error::AlgorithmMismatch`] where the header names another algorithm than the key has,
    /// [`Error::SignatureInvalid`] where issuer, `kid` or signature are not the key's, and [`Error::Malformed`] where the claims
    /// are not those that a token of this issuer must have.
    pub fn verify(&self, key: &VerifyingKey) -> Result<Authentic, Error> {
        self.verify_by(key, &Unaided)
    }

    /// As [`Self::verify`], with the help of a host.
    ///
    /// # Errors
    ///
    /// Returns what [`Self::verify`] does.
    pub fn verify_by(
        &self,
        key: &VerifyingKey,
        verifier: &dyn SignatureVerifier,
    ) -> Result<Authentic, Error> {
        let Header { alg, kid, only_ours, .. } = &self.header;
        if alg != key.algorithm().name() {
            return Err(Error::AlgorithmMismatch);
        }
        let same_issuer = key.issuer().is_none_or(|issuer| issuer == self.issuer());
        if kid != key.kid() || !same_issuer || !key.accepts(self.signed, &self.signature, verifier) {
            return Err(Error::SignatureInvalid);
        }
        let instants = Instants::read(&self.payload).ok_or(Error::Malformed)?;
        let own = match key.issuer() {
            Some(_) => None,
            None if *only_ours => Some(Claims::read(&self.payload).ok_or(Error::Malformed)?),
            None => return Err(Error::Malformed),
        };
        let twin = key.algorithm().twin(&self.signature).map(|signature| {
            Fingerprint::of(
                &[self.prefix, self.signed, b".", base64url::encode(&signature).as_bytes()].concat(),
            )
        });
        Ok(Authentic {
            only_access: self.header.only_access,
            members: Arc::clone(&self.payload),
            instants,
            own,
            fingerprint: Fingerprint::of(self.presented),
            twin,
        })
    }
}

// By hand: what is presented is a credential, and it is not printed.
impl fmt::Debug for Unverified<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Unverified({:?})", Fingerprint::of(self.presented))
    }
}

/// A token whose signature holds. Whether it is in time, for us and still good is the verdict's business.
#[derive(Debug, Clone, PartialEq)]
pub struct Authentic {
    only_access: bool,
    members: Arc<Object>,
    instants: Instants,
    own: Option<Claims>,
    fingerprint: Fingerprint,
    twin: Option<Fingerprint>,
}

impl Authentic {
    /// The claims of a token of our own; None if another issuer's key opened it.
    pub const fn claims(&self) -> Option<&Claims> {
        self.own.as_ref()
    }

    /// Whether its header says that it is an access token and nothing else (RFC 9068 section 2.1).
    pub const fn is_only_access(&self) -> bool {
        self.only_access
    }

    /// Everything the token says.
    pub const fn members(&self) -> &Arc<Object> {
        &self.members
    }

    /// Returns the claim `iss` (RFC 7519 section 4.1.1).
    pub fn issuer(&self) -> Option<&str> {
        claims::text(&self.members, "iss").flatten()
    }

    /// Returns the claim `sub` (RFC 7519 section 4.1.2).
    pub fn subject(&self) -> Option<&str> {
        claims::text(&self.members, "sub").flatten()
    }

    /// Returns the claim `jti` (RFC 7519 section 4.1.7).
    pub fn id(&self) -> Option<&str> {
        claims::text(&self.members, "jti").flatten()
    }

    /// Returns the values of the claim `aud` (RFC 7519 section 4.1.3), be it a string or an array.
    pub fn audiences(&self) -> impl Iterator<Item = &str> {
        claims::audiences(&self.members).flatten().into_iter().flatten()
    }

    /// Seconds since the Unix epoch, as all instants here.
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

    /// Of the token as it was presented.
    pub const fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Every fingerprint that this token can be presented under. A signature (r, s) of ECDSA holds as (r, n - s) too,
    /// and anybody can turn one into the other: revoking either must stop both.
    pub fn fingerprints(&self) -> impl Iterator<Item = Fingerprint> {
        core::iter::once(self.fingerprint).chain(self.twin)
    }
}

struct Header {
    alg: String,
    kid: String,
    /// What stands in front of the token; nearly always nothing.
    prefix: String,
    only_access: bool,
    /// Whether there is nothing in it but what we write ourselves.
    only_ours: bool,
}

impl Header {
    /// Members that talk a verifier into another key or another reading are refused, whoever issued the token; so are
    /// types of token that are for something else than access (RFC 8725 section 3.11).
    fn read(from: &Object) -> Option<Self> {
        if FORBIDDEN.iter().any(|name| from.contains_key(*name)) {
            return None;
        }
        let typ = claims::text(from, "typ")?;
        if typ.is_some_and(|typ| !ACCESS.iter().any(|known| typ.eq_ignore_ascii_case(known))) {
            return None;
        }
        let alg = from.get("alg")?.as_str()?.into();
        let kid = claims::text(from, "kid")?;
        if kid.is_some_and(str::is_empty) {
            return None;
        }
        let prefix = claims::text(from, PREFIX)?.unwrap_or_default().into();
        let only_access = typ.is_some_and(|typ| !typ.eq_ignore_ascii_case("JWT"));
        let known = |name: &String| matches!(name.as_str(), "alg" | "kid" | "typ" | PREFIX);
        let only_ours = from.keys().all(known) && matches!(typ, None | Some("JWT"));
        Some(Self { alg, kid: kid.unwrap_or_default().into(), prefix, only_access, only_ours })
    }
}

fn object(text: &[u8]) -> Result<Object, Error> {
    match json::parse(text) {
        Ok(Value::Object(object)) => Ok(object),
        _ => Err(Error::Malformed),
    }
}

fn decode(segment: &str) -> Result<Vec<u8>, Error> {
    base64url::decode(segment.as_bytes()).ok_or(Error::NotCanonical)
}

/// A header parameter of our own (RFC 7515 section 4.3).
pub(crate) const PREFIX: &str = "prefix";

/// Keys brought along (RFC 7515 sections 4.1.2, 4.1.3, 4.1.5, 4.1.6), extensions that must be understood (4.1.11),
/// payloads that are not base64url (RFC 7797) or compressed.
const FORBIDDEN: [&str; 7] = ["jwk", "jku", "x5u", "x5c", "crit", "b64", "zip"];

/// RFC 7519 section 5.1, RFC 9068 section 2.1. Media types are the same in upper and lower case.
const ACCESS: [&str; 3] = ["JWT", "at+jwt", "application/at+jwt"];
