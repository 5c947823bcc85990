//! The keys that verify credentials.
//!
//! ```text
//!  2  number of keys
//!     each: 1  algorithm: 1 EdDSA, 2 HS256, 3 HS384, 4 HS512, 5 ES256, 6 ES384, 7 RS256, 8 RS384, 9 RS512,
//!              10 PS256, 11 PS384, 12 PS512, 13 ES512; keys of an API key generation: 64 format 1, 65 format 2,
//!              66 short form
//!           1  n, length of the issuer
//!           n  issuer; empty: this deployment
//!           1  n, length of the kid
//!           n  kid; for API keys, the generation in one byte
//!           2  m, length of the key
//!           m  key: the public key or the secret, in the format of `token::VerifyingKey`
//! ```
//! A symmetric key can sign too, so symmetric keys, which include 64 and 66, have an object of their own. 65 is an Ed25519
//! public key and belongs to the object of public keys.
//!
//! Another issuer may have several keys of one `kid`, with different algorithms (RFC 7517 section 4.5). Edges of versions
//! before code 13, keys of one `kid`, and RSA keys above 4096 bits refuse a bundle that has any of them, and keep the last
//! one.

use alloc::vec::Vec;

use token::{
    Algorithm, VerifyingKey,
    api_key::{GenerationKey, Kind},
};

use crate::codec::{Malformed, Reader};

/// The codes of token keys in the format.
const ALGORITHM_CODES: [(Algorithm, u8); 13] = [
    (Algorithm::EdDsa, 1),
    (Algorithm::Hs256, 2),
    (Algorithm::Hs384, 3),
    (Algorithm::Hs512, 4),
    (Algorithm::Es256, 5),
    (Algorithm::Es384, 6),
    (Algorithm::Rs256, 7),
    (Algorithm::Rs384, 8),
    (Algorithm::Rs512, 9),
    (Algorithm::Ps256, 10),
    (Algorithm::Ps384, 11),
    (Algorithm::Ps512, 12),
    (Algorithm::Es512, 13),
];

/// The codes of API key generations in the format.
const GENERATION_CODES: [(Kind, u8); 3] = [(Kind::Format1, 64), (Kind::Signed, 65), (Kind::Short, 66)];

/// The keys of one object.
#[derive(Debug, Clone, Default)]
pub struct Keys {
    pub(crate) verifying: Vec<VerifyingKey>,
    pub(crate) generations: Vec<GenerationKey>,
}

/// Decodes the object of public keys.
pub(crate) fn decode_public(bytes: &[u8]) -> Result<Keys, Malformed> {
    decode(bytes, false)
}

/// Decodes the object of symmetric keys.
pub(crate) fn decode_secret(bytes: &[u8]) -> Result<Keys, Malformed> {
    decode(bytes, true)
}

fn decode(bytes: &[u8], secret: bool) -> Result<Keys, Malformed> {
    let mut rest = Reader(bytes);
    let mut keys = Keys::default();
    for _ in 0..rest.u16("number of keys")? {
        let code = rest.u8("algorithm of a key")?;
        let issuer = rest.text("issuer of a key")?;
        let kid = rest.u8("kid")?;
        let kid = rest.bytes(kid.into(), "kid")?;
        let length = rest.u16("length of a key")?;
        let key = rest.bytes(length.into(), "key")?;
        let algorithm = ALGORITHM_CODES.into_iter().find(|(_, known)| *known == code);
        match algorithm {
            Some((algorithm, _)) if algorithm.is_symmetric() == secret => {
                let kid = core::str::from_utf8(kid).map_err(|_| Malformed("kid"))?;
                let key = match issuer {
                    "" => VerifyingKey::local(kid, algorithm, key),
                    issuer => VerifyingKey::foreign(issuer, kid, algorithm, key),
                };
                let key = key.map_err(|_| Malformed("key"))?;
                if keys.verifying.iter().any(|known| is_ambiguous(known, &key)) {
                    return Err(Malformed("duplicate kid"));
                }
                keys.verifying.push(key);
            }
            None => {
                let kind =
                    GENERATION_CODES.into_iter().find(|(_, known)| *known == code).map(|(kind, _)| kind);
                let kind = kind.filter(|kind| kind.is_symmetric() == secret && issuer.is_empty());
                let kind = kind.ok_or(Malformed("algorithm of a key"))?;
                let (Ok(key), [generation]) = (key.try_into(), kid) else {
                    return Err(Malformed("key of a generation"));
                };
                if keys.generations.iter().any(|known| known.generation() == *generation) {
                    return Err(Malformed("duplicate generation"));
                }
                let key = GenerationKey::new(*generation, kind, key);
                keys.generations.push(key.map_err(|_| Malformed("key of a generation"))?);
            }
            Some(_) => return Err(Malformed("algorithm of a key")),
        }
    }
    rest.finish()?;
    Ok(keys)
}

/// Returns whether a token that names one of the keys could mean the other. Different issuers may use the same kid, and
/// another issuer may use one for several algorithms, but not for a public and a symmetric key.
pub(crate) fn is_ambiguous(a: &VerifyingKey, b: &VerifyingKey) -> bool {
    (a.issuer(), a.kid()) == (b.issuer(), b.kid())
        && (a.issuer().is_none()
            || a.algorithm() == b.algorithm()
            || a.algorithm().is_symmetric() != b.algorithm().is_symmetric())
}

#[cfg(feature = "builder")]
pub use encoding::SecretKey;
#[cfg(feature = "builder")]
pub(crate) use encoding::{encode_public, encode_secret};

#[cfg(feature = "builder")]
mod encoding {
    use core::fmt;

    use super::{ALGORITHM_CODES, Algorithm, GENERATION_CODES, GenerationKey, Kind, Vec, VerifyingKey};

    /// A symmetric key for edges.
    #[derive(Clone, Copy)]
    pub enum SecretKey<'a> {
        /// Verifies tokens.
        Token {
            /// The issuer; empty for this deployment.
            issuer: &'a str,
            /// The key id.
            kid: &'a str,
            /// HS256, HS384 or HS512.
            algorithm: Algorithm,
            /// The HMAC key.
            secret: &'a [u8],
        },
        /// Verifies API keys of format 1, and can create them.
        Tag {
            /// The generation of the API keys.
            generation: u8,
            /// The HMAC key.
            secret: &'a [u8; 32],
        },
        /// Verifies API keys of the short form, and can create them.
        ShortTag {
            /// The generation of the API keys.
            generation: u8,
            /// The HMAC key.
            secret: &'a [u8; 32],
        },
    }

    /// Converts `kid` and secret of an HS256 key of this deployment.
    impl<'a> From<(&'a str, &'a [u8])> for SecretKey<'a> {
        fn from((kid, secret): (&'a str, &'a [u8])) -> Self {
            Self::Token { issuer: "", kid, algorithm: Algorithm::Hs256, secret }
        }
    }

    impl fmt::Debug for SecretKey<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            match self {
                Self::Token { issuer, kid, algorithm, .. } => {
                    write!(f, "SecretKey({} `{kid}` of `{issuer}`)", algorithm.name())
                }
                Self::Tag { generation, .. } => write!(f, "SecretKey(tags, generation {generation})"),
                Self::ShortTag { generation, .. } => write!(f, "SecretKey(short, generation {generation})"),
            }
        }
    }

    /// Encodes the public keys; symmetric ones are skipped. Returns `None` if a length does not fit its field.
    pub(crate) fn encode_public<'a>(
        keys: impl Iterator<Item = &'a VerifyingKey>,
        generations: impl Iterator<Item = &'a GenerationKey>,
    ) -> Option<Vec<u8>> {
        let public: Vec<_> = keys.filter_map(|key| Some((key, key.public_material()?))).collect();
        let signed: Vec<_> = generations.filter_map(|key| Some((key, key.public_bytes()?))).collect();
        let mut out = Vec::from(u16::try_from(public.len().saturating_add(signed.len())).ok()?.to_be_bytes());
        for (key, material) in &public {
            let issuer = key.issuer().unwrap_or_default();
            encode_key(&mut out, algorithm_code(key.algorithm())?, issuer, key.kid().as_bytes(), material)?;
        }
        for (key, public) in &signed {
            encode_key(&mut out, generation_code(key.kind())?, "", &[key.generation()], *public)?;
        }
        Some(out)
    }

    /// Encodes the symmetric keys. Returns `None` if a length does not fit its field.
    pub(crate) fn encode_secret(keys: &[SecretKey<'_>]) -> Option<Vec<u8>> {
        let mut out = Vec::from(u16::try_from(keys.len()).ok()?.to_be_bytes());
        for key in keys {
            match *key {
                SecretKey::Token { issuer, kid, algorithm, secret } => {
                    encode_key(&mut out, algorithm_code(algorithm)?, issuer, kid.as_bytes(), secret)?;
                }
                SecretKey::Tag { generation, secret } => {
                    encode_key(&mut out, generation_code(Kind::Format1)?, "", &[generation], secret)?;
                }
                SecretKey::ShortTag { generation, secret } => {
                    encode_key(&mut out, generation_code(Kind::Short)?, "", &[generation], secret)?;
                }
            }
        }
        Some(out)
    }

    fn encode_key(out: &mut Vec<u8>, code: u8, issuer: &str, kid: &[u8], key: &[u8]) -> Option<()> {
        out.push(code);
        for part in [issuer.as_bytes(), kid] {
            out.push(u8::try_from(part.len()).ok()?);
            out.extend(part);
        }
        out.extend(u16::try_from(key.len()).ok()?.to_be_bytes());
        out.extend(key);
        Some(())
    }

    fn generation_code(kind: Kind) -> Option<u8> {
        GENERATION_CODES.into_iter().find(|(known, _)| *known == kind).map(|(_, code)| code)
    }

    fn algorithm_code(algorithm: Algorithm) -> Option<u8> {
        ALGORITHM_CODES.into_iter().find(|(known, _)| *known == algorithm).map(|(_, code)| code)
    }
}
