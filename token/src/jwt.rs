use alloc::{string::String, vec::Vec};

use serde::Deserialize;

use crate::{Claims, Error, Fingerprint, VerifyingKey, base64url};

/// Longer tokens are refused before they are looked at. Common limits of servers for all headers together are 8 KiB.
pub const MAX_TOKEN_BYTES: usize = 8192;

/// A JWT in compact serialisation (RFC 7515 section 7.1) whose spelling is checked and whose signature is not.
#[derive(Debug)]
pub struct Unverified<'a> {
    presented: &'a [u8],
    /// `header.payload`
    signed: &'a [u8],
    header: Header,
    payload: Vec<u8>,
    signature: Vec<u8>,
}

impl<'a> Unverified<'a> {
    pub fn parse(presented: &'a [u8]) -> Result<Self, Error> {
        if presented.len() > MAX_TOKEN_BYTES {
            return Err(Error::TooLong);
        }
        let mut dots = presented.iter().enumerate().filter(|(_, byte)| **byte == b'.').map(|(at, _)| at);
        let (Some(first), Some(second), None) = (dots.next(), dots.next(), dots.next()) else {
            return Err(Error::Malformed);
        };
        let (signed, signature) = split_at_dot(presented, second)?;
        let (header, payload) = split_at_dot(signed, first)?;
        let (header, payload, signature) = (decode(header)?, decode(payload)?, decode(signature)?);
        let header = serde_json::from_slice::<Header>(&header).map_err(|_| Error::Malformed)?;
        match header.typ.as_deref() {
            None | Some("JWT") => Ok(Self { presented, signed, header, payload, signature }),
            Some(_) => Err(Error::Malformed),
        }
    }

    pub fn kid(&self) -> &str {
        &self.header.kid
    }

    /// The only door to the claims.
    pub fn verify(&self, key: &VerifyingKey) -> Result<Authentic, Error> {
        if self.header.alg != key.algorithm().name() {
            return Err(Error::AlgorithmMismatch);
        }
        if self.header.kid != key.kid() || !key.accepts(self.signed, &self.signature) {
            return Err(Error::SignatureInvalid);
        }
        let claims = serde_json::from_slice(&self.payload).map_err(|_| Error::Malformed)?;
        Ok(Authentic { claims, fingerprint: Fingerprint::of(self.presented) })
    }
}

/// A token whose signature holds. Whether it is in time, for us and still good is the verdict's business.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authentic {
    claims: Claims,
    fingerprint: Fingerprint,
}

impl Authentic {
    pub const fn claims(&self) -> &Claims {
        &self.claims
    }

    pub const fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }
}

/// Nothing else may stand in it: `jwk`, `jku`, `x5u`, `crit` are ways to talk a verifier into another key.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    kid: String,
    typ: Option<String>,
}

fn split_at_dot(bytes: &[u8], dot: usize) -> Result<(&[u8], &[u8]), Error> {
    match (bytes.get(..dot), bytes.get(dot.saturating_add(1)..)) {
        (Some(before), Some(after)) => Ok((before, after)),
        _ => Err(Error::Malformed),
    }
}

fn decode(segment: &[u8]) -> Result<Vec<u8>, Error> {
    base64url::decode(segment).ok_or(Error::NotCanonical)
}
