//! API keys that an edge verifies without a list of keys. There are three formats.
//!
//! Format 2, the default, is signed. An edge has only the public key, which cannot create API keys.
//!
//! ```text
//! ks_live_0c9yGf...123 characters base62...Bm2JUey8
//! |       |                                   |
//! prefix  91 bytes:  1  format, 2             CRC-32 of all before, 6 characters base62
//!                    1  generation of the key that it is signed with
//!                    5  operator: the ten digits of `OP0123456789` as a number
//!                    6  number of the API key
//!                    5  issued at, seconds since the Unix epoch
//!                    5  expires at, the same; 0: never
//!                    4  random
//!                   64  proof: Ed25519 signature
//! ```
//! The short form has the same 27 bytes with format 3, and 16 bytes of HMAC-SHA256 as its proof: 43 bytes, 58
//! characters. The generation key, which every edge has, can create such API keys. Therefore the short form
//! is never valid for a root user.
//!
//! The proof of both formats covers
//!
//! ```text
//! 19  "keystile api key 2\0", or 3
//!  1  p, length of the prefix
//!  p  prefix
//!  1  27, length of the body
//! 27  body: all before the proof
//!  1  u, length of the username
//!  u  username
//! ```
//! where every part has a fixed length or a length prefix, so that the encoding is injective.
//!
//! Format 1 is no longer issued; existing API keys stay valid until they are replaced. It has 29 bytes, 39 characters:
//! format (1), generation (1), number (6), issued at (5), tag (16). The tag is HMAC-SHA256 over "keystile api key\0",
//! the length of the prefix, prefix, body and username. It contains neither operator nor expiry.
//!
//! The length of the text determines the format. A generation has one format: an API key of another format is refused.
//! The checksum is for secret scanners and typing errors. It needs no secret, and saves the verification of a mistyped
//! API key.

use alloc::{format, string::String};
use core::{fmt, str::FromStr};

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use crate::{
    Fingerprint, InvalidKey,
    base62::{self, DecodeError},
    crc32::crc32,
    ed25519,
};

/// Domain separation strings, one for each format, so that a proof is not valid for another format or another use of
/// the same key.
const FORMAT1_DOMAIN: &[u8] = b"keystile api key\0";
const SIGNED_DOMAIN: &[u8] = b"keystile api key 2\0";
const SHORT_DOMAIN: &[u8] = b"keystile api key 3\0";

/// Length of a tag in bytes. With 128 bits and a million online guesses per second, an attacker has a chance of 1 in
/// 10^25 per year.
const TAG_LEN: usize = 16;

/// Length of an Ed25519 signature in bytes (RFC 8032 section 5.1.6).
const SIGNATURE_LEN: usize = 64;
const MAX_BODY_LEN: usize = 27;
const MAX_LEN: usize = MAX_BODY_LEN + SIGNATURE_LEN;

/// Number of operator numbers, which have ten digits.
const OPERATOR_COUNT: u64 = 10_000_000_000;

/// Value of the expiry field of an API key that does not expire.
const NEVER_EXPIRES: u64 = 0;

/// Number of digits of the checksum: 62^6 > 2^32.
const CHECKSUM_DIGITS: usize = 6;

/// Maximum length of a prefix in bytes.
const MAX_PREFIX_LEN: usize = 24;

/// An API key with a valid encoding whose proof has not been verified.
pub struct Unverified<'a> {
    presented: &'a [u8],
    prefix: &'a Prefix,
    body: KeyBody,
    proof: Proof,
}

/// The proof of an API key.
enum Proof {
    Signature([u8; SIGNATURE_LEN]),
    Tag([u8; TAG_LEN]),
}

impl<'a> Unverified<'a> {
    /// Parses an API key: checks prefix, length, alphabet, checksum and canonical encoding. If several of the
    /// configured `prefixes` match, the longest one applies.
    ///
    /// # Errors
    ///
    /// Returns the first error that is found: any variant except [`Error::Tag`] and [`Error::Signature`].
    pub fn parse(presented: &'a [u8], prefixes: &'a [Prefix]) -> Result<Self, Error> {
        let matching =
            prefixes.iter().filter_map(|prefix| Some((prefix, presented.strip_prefix(prefix.0.as_bytes())?)));
        // Of `ks_` and `ks_live_`, the longer prefix applies. Digits do not include `_`.
        let (prefix, digits) = matching.max_by_key(|(prefix, _)| prefix.length()).ok_or(Error::Prefix)?;
        let split = digits.len().checked_sub(CHECKSUM_DIGITS).and_then(|at| digits.split_at_checked(at));
        let (digits, checksum) = split.ok_or(Error::Length)?;
        let kind =
            Kind::ALL.into_iter().find(|kind| kind.digit_len() == digits.len()).ok_or(Error::Length)?;
        if !presented.iter().skip(prefix.0.len()).all(u8::is_ascii_alphanumeric) {
            return Err(Error::Alphabet);
        }
        let checksummed = presented.strip_suffix(checksum).unwrap_or_default();
        if base62::decode(checksum) != Ok(crc32(checksummed).to_be_bytes()) {
            return Err(Error::Checksum);
        }
        let not_canonical = |error| match error {
            DecodeError::Alphabet => Error::Alphabet,
            DecodeError::TooLarge => Error::NotCanonical,
        };
        let mut bytes = [0; MAX_LEN];
        let bytes = bytes.get_mut(..kind.byte_len()).ok_or(Error::Length)?;
        base62::decode_into(digits, bytes).map_err(not_canonical)?;
        let (body, proof) = bytes.split_at_checked(kind.body_len()).ok_or(Error::Length)?;
        let body = KeyBody::decode(kind, body).ok_or(Error::Format)?;
        let proof = match kind {
            Kind::Signed => proof.try_into().map(Proof::Signature),
            Kind::Short | Kind::Format1 => proof.try_into().map(Proof::Tag),
        };
        Ok(Self { presented, prefix, body, proof: proof.map_err(|_| Error::Length)? })
    }

    /// Returns the generation of the key that created the API key.
    pub const fn generation(&self) -> u8 {
        self.body.generation
    }

    /// Returns the format, as determined by the length.
    pub const fn kind(&self) -> Kind {
        self.body.kind
    }

    /// Verifies the proof, which is the only way to the fields. `username` is the username that the client sent with
    /// the API key, or empty.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Signature`] for format 2, and [`Error::Tag`] for the other formats, if `key` did not create
    /// this API key for this username, or if operator and username do not name a permitted subject.
    pub fn verify(&self, key: &GenerationKey, username: &str) -> Result<Authentic, Error> {
        let Self { presented, prefix, body, proof } = self;
        let refused = match proof {
            Proof::Signature(_) => Error::Signature,
            Proof::Tag(_) => Error::Tag,
        };
        // An API key whose format differs from its generation fails here: no key verifies the proof of another format.
        if key.generation != body.generation || !key.verify_proof(prefix, body, proof, username) {
            return Err(refused);
        }
        let holder = match body.kind {
            Kind::Format1 => None,
            // API keys without a valid subject are never issued, but a stolen short-form key could create them.
            Kind::Signed | Kind::Short => Some(Holder::resolve(body.operator, username).ok_or(refused)?),
        };
        if body.kind == Kind::Short && holder.as_ref().is_none_or(Holder::is_root) {
            return Err(refused);
        }
        Ok(Authentic {
            kind: body.kind,
            number: body.number,
            issued_at: body.issued_at,
            expires_at: Some(body.expires_at).filter(|end| *end != NEVER_EXPIRES),
            username: username.into(),
            holder,
            fingerprint: Fingerprint::digest(presented),
        })
    }
}

impl fmt::Debug for Unverified<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "api_key::Unverified({:?})", Fingerprint::digest(self.presented))
    }
}

/// An API key that was issued for this audience and username. It can still be revoked or expired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authentic {
    kind: Kind,
    number: u64,
    issued_at: u64,
    expires_at: Option<u64>,
    username: String,
    holder: Option<Holder>,
    fingerprint: Fingerprint,
}

impl Authentic {
    /// Returns the format.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns the number of the API key.
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// Returns when the API key was issued, in seconds since the Unix epoch.
    pub const fn issued_at(&self) -> u64 {
        self.issued_at
    }

    /// Returns when the API key expires, in seconds since the Unix epoch. `None`: it does not expire, or is of format
    /// 1, which has no expiry.
    pub const fn expires_at(&self) -> Option<u64> {
        self.expires_at
    }

    /// Returns the username that the API key was issued for and that the client sent with it.
    pub fn username(&self) -> &str {
        &self.username
    }

    /// Returns the subject. `None` for format 1, which contains no operator.
    pub const fn holder(&self) -> Option<&Holder> {
        self.holder.as_ref()
    }

    /// Returns the SHA-256 of the API key as it was presented.
    pub const fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }
}

/// The subject of an API key: the root user of an operator (`OP0123456789`), or a user of it (`OP0123456789/alice`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    operator: String,
    subject: String,
}

impl Holder {
    /// The subject of `username` under `operator`. Both are covered by the proof.
    ///
    /// ```text
    /// username              of an API key of OP0123456789
    /// "" OP0123456789       OP0123456789, the root user
    /// alice                 OP0123456789/alice
    /// OP0123456789/alice    OP0123456789/alice
    /// anything else         none
    /// ```
    /// Returns `None` if the username names another operator or is not valid. The root user is named by the operator id
    /// or an empty username.
    fn resolve(operator: u64, username: &str) -> Option<Self> {
        let operator = format!("OP{operator:010}");
        let name = match username.strip_prefix(&operator) {
            Some("") => "",
            Some(rest) if rest.starts_with('/') => {
                rest.strip_prefix('/').filter(|name| is_user_name(name))?
            }
            _ if username.is_empty() => "",
            // A user can have the name of an operator id; only its full subject names it.
            _ if operator_number(username).is_some() => return None,
            _ => Some(username).filter(|name| is_user_name(name))?,
        };
        let subject = if name.is_empty() { operator.clone() } else { format!("{operator}/{name}") };
        Some(Self { operator, subject })
    }

    /// Returns the operator id, `OP0123456789`.
    pub fn operator(&self) -> &str {
        &self.operator
    }

    /// Returns the subject, `OP0123456789` or `OP0123456789/alice`.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Returns whether the subject is the root user of its operator.
    pub fn is_root(&self) -> bool {
        self.operator == self.subject
    }
}

/// Returns the subject of an API key of `operator` with `username`, or `None` if no API key can have this username. For
/// format 2 and the short form.
pub fn subject(operator: &str, username: &str) -> Option<String> {
    Holder::resolve(operator_number(operator)?, username).map(|holder| holder.subject)
}

/// Returns whether a text is a valid user name of the control plane. Such a name is unambiguous in headers, paths and
/// lists.
fn is_user_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'@' | b'+');
    (1..=64).contains(&text.len())
        && text.bytes().all(allowed)
        && !["root", "default_permissions"].contains(&text)
}

/// Returns the number of an operator id such as `OP0123456789`.
fn operator_number(text: &str) -> Option<u64> {
    let digits = text.strip_prefix("OP").filter(|digits| digits.len() == 10)?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// The format of the API keys of a generation, which determines their proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Format 2: an Ed25519 signature.
    Signed,
    /// The short form: the fields of format 2 with an HMAC tag.
    Short,
    /// Format 1, which is no longer issued.
    Format1,
}

impl Kind {
    /// All formats.
    pub const ALL: [Self; 3] = [Self::Signed, Self::Short, Self::Format1];

    /// Returns the name of the format for users and in the database.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Signed => "2",
            Self::Short => "short",
            Self::Format1 => "1",
        }
    }

    /// Returns whether the key that verifies the API keys can also create them.
    pub const fn is_symmetric(self) -> bool {
        !matches!(self, Self::Signed)
    }

    /// Returns the first byte of the body.
    const fn format(self) -> u8 {
        match self {
            Self::Format1 => 1,
            Self::Signed => 2,
            Self::Short => 3,
        }
    }

    /// Returns the length of the body in bytes.
    const fn body_len(self) -> usize {
        match self {
            Self::Signed | Self::Short => 27,
            Self::Format1 => 13,
        }
    }

    /// Returns the length of body and proof in bytes.
    const fn byte_len(self) -> usize {
        self.body_len().saturating_add(match self {
            Self::Signed => SIGNATURE_LEN,
            Self::Short | Self::Format1 => TAG_LEN,
        })
    }

    /// Returns the number of base62 digits: the fewest that can encode [`Self::byte_len`] bytes.
    const fn digit_len(self) -> usize {
        match self {
            // 62^123 > 2^728 = 256^91
            Self::Signed => 123,
            // 62^58 > 2^344 = 256^43
            Self::Short => 58,
            // 62^39 > 2^232 = 256^29
            Self::Format1 => 39,
        }
    }
}

/// The key that verifies the API keys of a generation. Several generations are valid while API keys of older ones are
/// being replaced.
#[derive(Clone)]
pub struct GenerationKey {
    generation: u8,
    proof: ProofKey,
    thumbprint: [u8; 32],
}

#[derive(Clone)]
enum ProofKey {
    Signed(ed25519::PublicKey),
    Short(Hmac<Sha256>),
    Format1(Hmac<Sha256>),
}

impl GenerationKey {
    /// Creates a key. `bytes` is the public key (RFC 8032 section 5.1.5) for [`Kind::Signed`], and the secret for other
    /// formats.
    ///
    /// # Errors
    ///
    /// Returns [`InvalidKey::InvalidPoint`] if the public key is not a valid point or has small order.
    pub fn new(generation: u8, kind: Kind, bytes: &[u8; 32]) -> Result<Self, InvalidKey> {
        let mac = |domain| {
            Hmac::new_from_slice(bytes)
                .map(|mac: Hmac<Sha256>| mac.chain_update(domain))
                .map_err(|_| InvalidKey::Weak)
        };
        let proof = match kind {
            Kind::Signed => {
                ProofKey::Signed(ed25519::PublicKey::from_bytes(bytes).ok_or(InvalidKey::InvalidPoint)?)
            }
            Kind::Short => ProofKey::Short(mac(SHORT_DOMAIN)?),
            Kind::Format1 => ProofKey::Format1(mac(FORMAT1_DOMAIN)?),
        };
        let thumbprint = Sha256::new().chain_update([kind.format()]).chain_update(bytes).finalize().into();
        Ok(Self { generation, proof, thumbprint })
    }

    /// Returns the number of the generation.
    pub const fn generation(&self) -> u8 {
        self.generation
    }

    /// Returns the format of the API keys of this generation.
    pub const fn kind(&self) -> Kind {
        match self.proof {
            ProofKey::Signed(_) => Kind::Signed,
            ProofKey::Short(_) => Kind::Short,
            ProofKey::Format1(_) => Kind::Format1,
        }
    }

    /// Returns the public key, or `None` if the key is a secret.
    pub fn public_bytes(&self) -> Option<&[u8; 32]> {
        match &self.proof {
            ProofKey::Signed(key) => Some(key.as_bytes()),
            ProofKey::Short(_) | ProofKey::Format1(_) => None,
        }
    }

    /// Returns a hash that identifies the key. It does not reveal a secret, which has 256 bits of entropy.
    pub const fn thumbprint(&self) -> &[u8; 32] {
        &self.thumbprint
    }

    fn verify_proof(&self, prefix: &Prefix, body: &KeyBody, proof: &Proof, username: &str) -> bool {
        let (encoded, lengths) = (body.encode(), Lengths::new(prefix, body, username));
        let encoded = encoded.get(..body.kind.body_len()).unwrap_or_default();
        match (&self.proof, proof, body.kind) {
            (ProofKey::Signed(key), Proof::Signature(signature), Kind::Signed) => {
                lengths.is_some_and(|lengths| {
                    key.verify(&lengths.message(SIGNED_DOMAIN, prefix, encoded, username), signature)
                })
            }
            // Compares in constant time.
            (ProofKey::Short(mac), Proof::Tag(tag), Kind::Short) => lengths.is_some_and(|lengths| {
                let message = lengths.message(&[], prefix, encoded, username);
                message
                    .iter()
                    .fold(mac.clone(), |mac, part| mac.chain_update(part))
                    .verify_truncated_left(tag)
                    .is_ok()
            }),
            (ProofKey::Format1(mac), Proof::Tag(tag), Kind::Format1) => {
                format1_mac(mac, prefix, encoded, username).verify_truncated_left(tag).is_ok()
            }
            _ => false,
        }
    }
}

impl fmt::Debug for GenerationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GenerationKey({}, format {})", self.generation, self.kind().name())
    }
}

/// The one-byte lengths of the parts that the proof covers.
struct Lengths([[u8; 1]; 3]);

impl Lengths {
    /// Returns `None` if the username is longer than that of any API key.
    fn new(prefix: &Prefix, body: &KeyBody, username: &str) -> Option<Self> {
        let body = u8::try_from(body.kind.body_len()).ok()?;
        Some(Self([[prefix.length()], [body], [u8::try_from(username.len()).ok()?]]))
    }

    fn message<'a>(
        &'a self,
        domain: &'a [u8],
        prefix: &'a Prefix,
        body: &'a [u8],
        username: &'a str,
    ) -> [&'a [u8]; 7] {
        let Self([of_prefix, of_body, of_username]) = self;
        [domain, of_prefix, prefix.0.as_bytes(), of_body, body, of_username, username.as_bytes()]
    }
}

/// Returns the message that the proof covers. Every part but the last has a fixed length or a length prefix, so that
/// the encoding is injective.
fn format1_mac(mac: &Hmac<Sha256>, prefix: &Prefix, body: &[u8], username: &str) -> Hmac<Sha256> {
    let mac = mac.clone().chain_update([prefix.length()]).chain_update(&prefix.0);
    mac.chain_update(body).chain_update(username)
}

#[cfg(feature = "mint")]
pub use minting::{ApiKeyFields, MintingKey};

#[cfg(feature = "mint")]
mod minting {
    use alloc::{vec, vec::Vec};

    use ed25519_dalek::Signer as _;
    use zeroize::Zeroizing;

    use super::*;
    use crate::secret::Secret;

    /// The key that creates the API keys of a generation.
    pub struct MintingKey {
        secret: Zeroizing<[u8; 32]>,
        generation_key: GenerationKey,
    }

    /// The fields of a new API key.
    #[derive(Debug, Clone, Copy)]
    pub struct ApiKeyFields<'a> {
        /// The prefix of the text.
        pub prefix: &'a Prefix,
        /// The operator id, such as `OP0123456789`. Format 1 contains neither operator nor expiry nor random bytes.
        pub operator: &'a str,
        /// The number of the API key, below 2^48.
        pub number: u64,
        /// When it is issued, in seconds since the Unix epoch, below 2^40.
        pub issued_at: u64,
        /// When it expires, in seconds since the Unix epoch, from 1 and below 2^40. `None`: it does not expire.
        pub expires_at: Option<u64>,
        /// Random bytes that distinguish two API keys of the same number and second.
        pub random: [u8; 4],
        /// The username that the client has to send with the API key.
        pub username: &'a str,
    }

    impl MintingKey {
        /// Creates a key. `secret` is the seed (RFC 8032 section 5.1.5) for [`Kind::Signed`].
        ///
        /// # Errors
        ///
        /// Returns the errors of [`GenerationKey::new`], which accepts every secret.
        pub fn new(generation: u8, kind: Kind, secret: &[u8; 32]) -> Result<Self, InvalidKey> {
            let generation_key = match kind {
                Kind::Signed => {
                    let key = ed25519_dalek::SigningKey::from_bytes(secret);
                    GenerationKey::new(generation, kind, key.verifying_key().as_bytes())
                }
                Kind::Short | Kind::Format1 => GenerationKey::new(generation, kind, secret),
            };
            Ok(Self { secret: Zeroizing::new(*secret), generation_key: generation_key? })
        }

        /// Returns the key that verifies the API keys of this one.
        pub const fn generation_key(&self) -> &GenerationKey {
            &self.generation_key
        }

        /// Creates an API key, which must be shown only once. Returns `None` if a value exceeds its field, if operator
        /// and username do not name a subject, or for a root user in the short form.
        pub fn mint(&self, fields: &ApiKeyFields<'_>) -> Option<Secret> {
            let ApiKeyFields { prefix, operator, number, issued_at, expires_at, random, username } = *fields;
            let kind = self.generation_key.kind();
            let operator = if kind == Kind::Format1 { 0 } else { operator_number(operator)? };
            let is_in_range = number >> 48 == 0 && issued_at >> 40 == 0 && expires_at.unwrap_or(1) >> 40 == 0;
            if !is_in_range || expires_at == Some(NEVER_EXPIRES) {
                return None;
            }
            if kind != Kind::Format1 {
                let holder = Holder::resolve(operator, username)?;
                if kind == Kind::Short && holder.is_root() {
                    return None;
                }
            }
            let generation = self.generation_key.generation;
            let expires_at = expires_at.unwrap_or(NEVER_EXPIRES);
            self.sign_body(
                prefix,
                &KeyBody { kind, generation, operator, number, issued_at, expires_at, random },
                username,
            )
        }

        /// Creates an API key with any body.
        pub(super) fn sign_body(&self, prefix: &Prefix, body: &KeyBody, username: &str) -> Option<Secret> {
            let encoded = body.encode();
            let encoded = encoded.get(..body.kind.body_len())?;
            let mut bytes = Vec::from(encoded);
            let lengths = Lengths::new(prefix, body, username);
            match &self.generation_key.proof {
                ProofKey::Signed(_) => {
                    let message = lengths?.message(SIGNED_DOMAIN, prefix, encoded, username).concat();
                    let key = ed25519_dalek::SigningKey::from_bytes(&self.secret);
                    bytes.extend(key.sign(&message).to_bytes());
                }
                ProofKey::Short(mac) => {
                    let lengths = lengths?;
                    let message = lengths.message(&[], prefix, encoded, username);
                    let mac = message.iter().fold(mac.clone(), |mac, part| mac.chain_update(part));
                    bytes.extend(mac.finalize().into_bytes().get(..TAG_LEN)?);
                }
                ProofKey::Format1(mac) => {
                    let mac = format1_mac(mac, prefix, encoded, username);
                    bytes.extend(mac.finalize().into_bytes().get(..TAG_LEN)?);
                }
            }
            Some(encode_text(prefix, body.kind, bytes))
        }
    }

    /// Encodes the bytes as text with a prefix and a checksum.
    pub(super) fn encode_text(prefix: &Prefix, kind: Kind, mut bytes: Vec<u8>) -> Secret {
        let mut digits = vec![0; kind.digit_len()];
        base62::encode_from(&mut bytes, &mut digits);
        let mut text: String = prefix.0.clone();
        text.extend(digits.into_iter().map(char::from));
        let mut checksum = [0; CHECKSUM_DIGITS];
        base62::encode(crc32(text.as_bytes()).to_be_bytes(), &mut checksum);
        text.extend(checksum.map(char::from));
        text.into()
    }

    impl fmt::Debug for MintingKey {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let (generation, kind) = (self.generation_key.generation, self.generation_key.kind().name());
            write!(f, "MintingKey({generation}, format {kind})")
        }
    }
}
/// The prefix of API keys: `ks_live_` by default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix(String);

impl Prefix {
    /// Returns the prefix, including its last `_`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the length in bytes, at most [`MAX_PREFIX_LEN`].
    fn length(&self) -> u8 {
        u8::try_from(self.0.len()).unwrap_or(u8::MAX)
    }
}

impl Default for Prefix {
    fn default() -> Self {
        Self("ks_live_".into())
    }
}

impl FromStr for Prefix {
    type Err = InvalidPrefix;

    fn from_str(text: &str) -> Result<Self, InvalidPrefix> {
        let is_permitted = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        let is_valid = text.len() <= MAX_PREFIX_LEN
            && text.starts_with(|first: char| first.is_ascii_lowercase())
            && text.ends_with('_')
            && text.bytes().all(is_permitted);
        if is_valid { Ok(Self(text.into())) } else { Err(InvalidPrefix) }
    }
}

/// The error for a text that is not a valid prefix of API keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidPrefix;

impl fmt::Display for InvalidPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a prefix has at most 24 characters of a-z 0-9 _, starts with a letter and ends with _")
    }
}

impl core::error::Error for InvalidPrefix {}

/// Why an API key is refused. Each reason has one stable code, which responses, metrics and logs use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Error {
    /// The API key has none of the configured prefixes.
    Prefix,
    /// The API key has a length that no format has.
    Length,
    /// The API key has a character outside `0-9 A-Z a-z`.
    Alphabet,
    /// The checksum (CRC-32) does not match.
    Checksum,
    /// The digits encode a number that exceeds the bytes of the format, so they are a second encoding of another API
    /// key.
    NotCanonical,
    /// The body does not have the format that the length implies.
    Format,
    /// Format 1 and the short form: the tag is not that of the generation key for this username.
    Tag,
    /// Format 2: the signature is not that of the generation key for this username.
    Signature,
}

impl Error {
    /// All errors.
    pub const ALL: [Self; 8] = [
        Self::Prefix,
        Self::Length,
        Self::Alphabet,
        Self::Checksum,
        Self::NotCanonical,
        Self::Format,
        Self::Tag,
        Self::Signature,
    ];

    /// Returns the stable code for responses, metrics and logs.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Prefix => "api_key_prefix_unknown",
            Self::Length => "api_key_length_wrong",
            Self::Alphabet => "api_key_alphabet_wrong",
            Self::Checksum => "api_key_checksum_wrong",
            Self::NotCanonical => "api_key_not_canonical",
            Self::Format => "api_key_format_unknown",
            Self::Tag => "api_key_tag_invalid",
            Self::Signature => "api_key_signature_invalid",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prefix => "the API key has an unknown prefix",
            Self::Length => "the API key has a wrong length: it is not complete, or has more characters",
            Self::Alphabet => "the API key has a character outside 0-9 A-Z a-z",
            Self::Checksum => "the checksum of the API key is wrong: it was mistyped or truncated",
            Self::NotCanonical => "the API key is not spelled as it was issued: send it unchanged",
            Self::Format => "the API key has an unknown format",
            Self::Tag | Self::Signature => "the API key was not issued here, or not for this user",
        })
    }
}

impl core::error::Error for Error {}

/// The body of an API key.
#[derive(Clone, Copy)]
struct KeyBody {
    kind: Kind,
    generation: u8,
    /// Random bytes; zero in format 1.
    operator: u64,
    number: u64,
    issued_at: u64,
    expires_at: u64,
    random: [u8; 4],
}

impl KeyBody {
    fn decode(kind: Kind, bytes: &[u8]) -> Option<Self> {
        let (body, rest) = match (kind, bytes) {
            (Kind::Format1, [format, generation, rest @ ..]) if *format == kind.format() => {
                let (number, rest) = rest.split_first_chunk::<6>()?;
                let (issued_at, rest) = rest.split_first_chunk::<5>()?;
                let body = Self {
                    kind,
                    generation: *generation,
                    operator: 0,
                    number: decode_number(*number),
                    issued_at: decode_number(*issued_at),
                    expires_at: NEVER_EXPIRES,
                    random: [0; 4],
                };
                (body, rest)
            }
            (Kind::Signed | Kind::Short, [format, generation, rest @ ..]) if *format == kind.format() => {
                let (operator, rest) = rest.split_first_chunk::<5>()?;
                let (number, rest) = rest.split_first_chunk::<6>()?;
                let (issued_at, rest) = rest.split_first_chunk::<5>()?;
                let (expires_at, rest) = rest.split_first_chunk::<5>()?;
                let (random, rest) = rest.split_first_chunk::<4>()?;
                let body = Self {
                    kind,
                    generation: *generation,
                    operator: decode_number(*operator),
                    number: decode_number(*number),
                    issued_at: decode_number(*issued_at),
                    expires_at: decode_number(*expires_at),
                    random: *random,
                };
                (body, rest)
            }
            _ => return None,
        };
        // Operator numbers have ten digits.
        (rest.is_empty() && body.operator < OPERATOR_COUNT).then_some(body)
    }

    /// Encodes the body. It has [`Kind::body_len`] bytes, followed by zeros.
    fn encode(&self) -> [u8; MAX_BODY_LEN] {
        let Self { kind, generation, operator, number, issued_at, expires_at, random } = self;
        let [_, _, n5, n4, n3, n2, n1, n0] = number.to_be_bytes();
        let [_, _, _, i4, i3, i2, i1, i0] = issued_at.to_be_bytes();
        let (format, g) = (kind.format(), *generation);
        if *kind == Kind::Format1 {
            let mut encoded = [0; MAX_BODY_LEN];
            let body = [format, g, n5, n4, n3, n2, n1, n0, i4, i3, i2, i1, i0];
            encoded.iter_mut().zip(body).for_each(|(to, from)| *to = from);
            return encoded;
        }
        let [_, _, _, o4, o3, o2, o1, o0] = operator.to_be_bytes();
        let [_, _, _, e4, e3, e2, e1, e0] = expires_at.to_be_bytes();
        let [r3, r2, r1, r0] = *random;
        [
            format, g, o4, o3, o2, o1, o0, n5, n4, n3, n2, n1, n0, i4, i3, i2, i1, i0, e4, e3, e2, e1, e0,
            r3, r2, r1, r0,
        ]
    }
}

/// Decodes a big-endian integer of at most eight bytes.
fn decode_number<const N: usize>(bytes: [u8; N]) -> u64 {
    bytes.into_iter().fold(0, |number, byte| number << 8 | u64::from(byte))
}

#[cfg(all(test, feature = "mint"))]
mod tests {
    use proptest::prelude::*;
    use std::{format, string::ToString, vec, vec::Vec};

    use super::{minting::encode_text, *};
    use crate::secret::Secret;

    const OPERATOR: &str = "OP0123456789";

    /// API keys of an independent implementation.
    const SIGNED: &str = "ks_live_01SSiHzFhP5dBWS6a3eV9qWMfBSq0j0GCP0s5V5U3HqgSHgZI2iws9HUgz9ezqGLYJeal38zShWRGk2geVfYQzxyiGtgZ3TQF3DPa7zKbmbIakTuveXs8JsnK521pxAw7";

    const SHORT: &str = "ks_live_0Hm6MhansovGIzNUtVZm0HwbCsQoahGS6u4OWudOVQ46PlWKRZRhf4lTwd0JNd5A";

    fn key(kind: Kind) -> MintingKey {
        MintingKey::new(1, kind, &[7; 32]).unwrap()
    }

    fn kinds() -> impl Strategy<Value = Kind> {
        prop::sample::select(Kind::ALL.to_vec())
    }

    fn prefixes() -> Vec<Prefix> {
        vec![Prefix::default(), "sk_live_".parse().unwrap()]
    }

    fn parse_and_verify(kind: Kind, text: &[u8], username: &str) -> Result<Authentic, Error> {
        Unverified::parse(text, &prefixes())?.verify(key(kind).generation_key(), username)
    }

    fn proof_error(kind: Kind) -> Error {
        if kind == Kind::Signed { Error::Signature } else { Error::Tag }
    }

    fn fields<'a>(prefix: &'a Prefix, username: &'a str) -> ApiKeyFields<'a> {
        let (number, issued_at, random) = (1, 1_700_000_000, [1, 2, 3, 4]);
        ApiKeyFields { prefix, operator: OPERATOR, number, issued_at, expires_at: None, random, username }
    }

    fn mint_key(kind: Kind, username: &str) -> Secret {
        key(kind).mint(&fields(&Prefix::default(), username)).unwrap()
    }

    /// Returns body and proof.
    fn decode_digits(kind: Kind, text: &str) -> Vec<u8> {
        let mut bytes = vec![0; kind.byte_len()];
        base62::decode_into(&text.as_bytes()[8..8 + kind.digit_len()], &mut bytes).unwrap();
        bytes
    }

    /// Encodes bytes as an API key with a valid checksum.
    fn encode_key(kind: Kind, bytes: Vec<u8>) -> Secret {
        encode_text(&Prefix::default(), kind, bytes)
    }

    fn with_checksum(text: &str) -> String {
        let mut checksum = [0; CHECKSUM_DIGITS];
        base62::encode(crc32(text.as_bytes()).to_be_bytes(), &mut checksum);
        format!("{text}{}", str::from_utf8(&checksum).unwrap())
    }

    proptest! {
        #[test]
        fn minted_keys_verify_for_their_username_only(
            kind in kinds(),
            number in 0..1_u64 << 48,
            issued_at in 0..1_u64 << 40,
            expires_at in prop::option::of(1..1_u64 << 40),
            operator in 0..OPERATOR_COUNT,
            random: [u8; 4],
            name in "[a-zA-Z0-9._@+-]{2,64}",
            other in "\\PC{0,40}",
        ) {
            let operator = format!("OP{operator:010}");
            prop_assume!(is_user_name(&name) && operator_number(&name).is_none());
            let prefix = Prefix::default();
            for username in [name.clone(), format!("{operator}/{name}")] {
                let fields =
                    ApiKeyFields { prefix: &prefix, operator: &operator, number, issued_at, expires_at, random, username: &username };
                let minted = key(kind).mint(&fields).unwrap();
                prop_assert_eq!(minted.expose().len(), 8 + kind.digit_len() + CHECKSUM_DIGITS);
                let opened = parse_and_verify(kind, minted.expose().as_bytes(), &username).unwrap();
                prop_assert_eq!((opened.number(), opened.issued_at(), opened.username()), (number, issued_at, &*username));
                prop_assert_eq!(opened.fingerprint(), Fingerprint::digest(minted.expose().as_bytes()));
                if kind != Kind::Format1 {
                    let holder = opened.holder().unwrap();
                    let subject = format!("{operator}/{name}");
                    prop_assert_eq!((holder.operator(), holder.subject(), holder.is_root()), (&*operator, &*subject, false));
                    prop_assert_eq!(opened.expires_at(), expires_at);
                }
                for other in [&*other, "", &operator, &username.to_uppercase(), &format!("{username} ")] {
                    if other != username {
                        prop_assert_eq!(parse_and_verify(kind, minted.expose().as_bytes(), other), Err(proof_error(kind)));
                    }
                }
            }
        }

        #[test]
        fn changed_characters_are_refused(kind in kinds(), at: prop::sample::Index, byte: u8) {
            let minted = mint_key(kind, "alice");
            let mut bytes = minted.expose().as_bytes().to_vec();
            let at = at.index(bytes.len());
            prop_assume!(bytes[at] != byte);
            bytes[at] = byte;
            prop_assert!(Unverified::parse(&bytes, &prefixes()).is_err(), "not even its checksum fits");
        }

        #[test]
        fn changed_bits_are_refused(kind in kinds(), bit: prop::sample::Index) {
            let minted = mint_key(kind, "alice");
            let mut bytes = decode_digits(kind, minted.expose());
            let again = encode_key(kind, bytes.clone());
            prop_assert_eq!(again.expose(), minted.expose());
            let bit = bit.index(8 * bytes.len());
            bytes[bit / 8] ^= 1 << (bit % 8);
            let refused = parse_and_verify(kind, encode_key(kind, bytes).expose().as_bytes(), "alice").unwrap_err();
            // The format, or an operator number of eleven digits.
            let in_body = bit < 8 || (kind != Kind::Format1 && (16..56).contains(&bit));
            prop_assert!(refused == proof_error(kind) || (refused == Error::Format && in_body), "{refused:?}");
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(
            rest in prop::collection::vec(any::<u8>(), 0..200),
            digits in "[0-9A-Za-z]{0,140}",
        ) {
            for kind in Kind::ALL {
                prop_assert!(parse_and_verify(kind, &rest, "").is_err());
                prop_assert!(parse_and_verify(kind, &[b"ks_live_", &rest[..]].concat(), "").is_err());
                let digits = digits.get(..kind.digit_len()).unwrap_or(&digits);
                let text = with_checksum(&format!("ks_live_{digits}"));
                prop_assert!(parse_and_verify(kind, text.as_bytes(), "").is_err());
            }
        }

        /// Verifies the signature independently over the documented message.
        #[test]
        fn signature_covers_prefix_body_and_username(name in "[a-z]{1,64}", random: [u8; 4]) {
            let prefix = Prefix::default();
            let minted = key(Kind::Signed).mint(&ApiKeyFields { random, ..fields(&prefix, &name) }).unwrap();
            let bytes = decode_digits(Kind::Signed, minted.expose());
            let length = [u8::try_from(name.len()).unwrap()];
            let message = [b"keystile api key 2\0\x08ks_live_\x1b", &bytes[..27], &length, name.as_bytes()].concat();
            let public = ed25519_dalek::SigningKey::from_bytes(&[7; 32]).verifying_key();
            let signature = ed25519_dalek::Signature::from_slice(&bytes[27..]).unwrap();
            prop_assert!(public.verify_strict(&message, &signature).is_ok());
        }
    }

    #[test]
    fn minted_keys_match_fixed_vectors() {
        // Edges and secret scanners depend on these texts: any change is a new format.
        for (kind, length, text) in [
            (Kind::Format1, 53, "ks_live_0CzxH5jnbVmSwncNorhI12096SFFw5tgY634cBm2JUey8"),
            (Kind::Signed, 137, SIGNED),
            (Kind::Short, 72, SHORT),
        ] {
            let minted = mint_key(kind, "alice");
            assert_eq!(minted.expose(), text);
            assert_eq!(minted.expose().len(), length);
        }
    }

    /// A username never assigns an API key to another subject, in particular not to another operator.
    #[test]
    fn username_resolves_to_at_most_one_subject() {
        let long = "x".repeat(64);
        for (username, subject) in [
            ("", Some("OP0123456789")),
            ("OP0123456789", Some("OP0123456789")),
            ("alice", Some("OP0123456789/alice")),
            ("OP0123456789/alice", Some("OP0123456789/alice")),
            ("alice@example.com", Some("OP0123456789/alice@example.com")),
            (&long, Some(&*format!("OP0123456789/{long}"))),
            // A user with the name of an operator id: named by its full subject only.
            ("OP0123456789/OP9876543210", Some("OP0123456789/OP9876543210")),
            ("OP9876543210", None),
            ("OP9876543210/alice", None),
            ("OP9876543210/", None),
            ("OP0123456789/", None),
            ("OP0123456789//", None),
            ("OP0123456789/alice/bob", None),
            ("OP0123456789/OP0123456789/alice", None),
            ("OP0123456789#alice", None),
            ("OP0123456789/root", None),
            ("root", None),
            ("default_permissions", None),
            ("alice/bob", None),
            ("/alice", None),
            ("../OP9876543210", None),
            ("https://idp.example#alice", None),
            ("alice,admin", None),
            ("alice bob", None),
            (" alice", None),
            ("alice%2fbob", None),
            ("älice", None),
            ("alice\0", None),
            (&"x".repeat(65), None),
            (&"x".repeat(300), None),
            ("op0123456789", Some("OP0123456789/op0123456789")),
            ("OP01234567890", Some("OP0123456789/OP01234567890")),
            ("key-1", Some("OP0123456789/key-1")),
        ] {
            assert_eq!(super::subject(OPERATOR, username).as_deref(), subject, "{username}");
            for kind in [Kind::Signed, Kind::Short] {
                let prefix = Prefix::default();
                let fields = fields(&prefix, username);
                let subject = subject.filter(|subject| kind == Kind::Signed || subject.contains('/'));
                let opened = key(kind).mint(&fields).map(|minted| {
                    parse_and_verify(kind, minted.expose().as_bytes(), username)
                        .unwrap()
                        .holder()
                        .unwrap()
                        .clone()
                });
                assert_eq!(opened.as_ref().map(Holder::subject), subject, "{kind:?} {username}");
                assert!(opened.is_none_or(|opened| opened.operator() == OPERATOR));
                // A stolen key cannot create such an API key either.
                let (number, issued_at, random) = (1, 2, [0; 4]);
                let body = KeyBody {
                    kind,
                    generation: 1,
                    operator: 123_456_789,
                    number,
                    issued_at,
                    expires_at: NEVER_EXPIRES,
                    random,
                };
                if let Some(sealed) = key(kind).sign_body(&prefix, &body, username) {
                    let opened = parse_and_verify(kind, sealed.expose().as_bytes(), username);
                    assert_eq!(opened.is_ok(), subject.is_some(), "{kind:?} {username}");
                }
            }
        }
        assert_eq!(super::subject("OP1", "alice"), None);
    }

    #[test]
    fn invalid_keys_have_their_own_error() {
        for kind in Kind::ALL {
            let minted = mint_key(kind, "alice");
            let text = minted.expose();
            let too_large = with_checksum(&format!("ks_live_{}", "z".repeat(kind.digit_len())));
            let with = |at: usize, byte: u8| {
                let mut bytes = decode_digits(kind, text);
                bytes[at] = byte;
                encode_key(kind, bytes).expose().to_string()
            };
            for (bad, reason) in [
                (text.replacen("ks_live_", "kt_live_", 1), Error::Prefix),
                (text.to_uppercase(), Error::Prefix),
                (format!(" {text}"), Error::Prefix),
                (text[..text.len() - 1].to_string(), Error::Length),
                (format!("{text}0"), Error::Length),
                (format!("{text} "), Error::Length),
                ("ks_live_".to_string(), Error::Length),
                ("ks_live_00000".to_string(), Error::Length),
                ("ks_live_000000".to_string(), Error::Length),
                (text.replacen("ks_live_0", "ks_live_-", 1), Error::Alphabet),
                (format!("{}_", &text[..text.len() - 1]), Error::Alphabet),
                (format!("{}zzzzzz", &text[..text.len() - 6]), Error::Checksum),
                (
                    with_checksum(&text[..text.len() - 6]).replacen("ks_live_0", "ks_live_1", 1),
                    Error::Checksum,
                ),
                (too_large, Error::NotCanonical),
                (with(0, 0), Error::Format),
                (with(0, 4), Error::Format),
                (with(0, if kind == Kind::Short { 2 } else { 3 }), Error::Format),
                (with(1, 2), proof_error(kind)),
                (with(12, 77), proof_error(kind)),
                // The proof covers the prefix.
                (
                    with_checksum(&text[..text.len() - 6].replacen("ks_live_", "sk_live_", 1)),
                    proof_error(kind),
                ),
            ] {
                assert_eq!(parse_and_verify(kind, bad.as_bytes(), "alice"), Err(reason), "{kind:?} {bad}");
            }
            // Eleven and more digits: 2^40 - 1.
            if kind != Kind::Format1 {
                let mut bytes = decode_digits(kind, text);
                bytes[2..7].fill(0xff);
                let text = encode_key(kind, bytes);
                assert_eq!(parse_and_verify(kind, text.expose().as_bytes(), "alice"), Err(Error::Format));
            }
        }
    }

    #[test]
    fn parse_uses_the_longest_matching_prefix() {
        let prefixes: Vec<Prefix> =
            ["ks_", "ks_live_", "ks_live_eu_"].map(|prefix| prefix.parse().unwrap()).into();
        for kind in Kind::ALL {
            for mut known in [prefixes.clone(), prefixes.iter().rev().cloned().collect()] {
                for prefix in &prefixes {
                    let minted = key(kind).mint(&fields(prefix, "alice")).unwrap();
                    let presented = Unverified::parse(minted.expose().as_bytes(), &known).unwrap();
                    assert!(presented.verify(key(kind).generation_key(), "alice").is_ok(), "{prefix:?}");
                }
                known.retain(|prefix| prefix.as_str() != "ks_live_");
                let minted = mint_key(kind, "alice");
                assert!(Unverified::parse(minted.expose().as_bytes(), &known).is_err());
            }
        }
    }

    /// Keys with another secret, generation or format never verify, even if they share bytes.
    #[test]
    fn verify_rejects_other_generation_keys() {
        let prefixes = prefixes();
        for kind in Kind::ALL {
            let minted = mint_key(kind, "alice");
            let presented = Unverified::parse(minted.expose().as_bytes(), &prefixes).unwrap();
            assert_eq!((presented.generation(), presented.kind()), (1, kind));
            let public = ed25519_dalek::SigningKey::from_bytes(&[7; 32]).verifying_key().to_bytes();
            let mut other_keys = vec![
                MintingKey::new(1, kind, &[8; 32]).unwrap().generation_key().clone(),
                MintingKey::new(2, kind, &[7; 32]).unwrap().generation_key().clone(),
            ];
            for other in Kind::ALL.into_iter().filter(|other| *other != kind) {
                other_keys.push(key(other).generation_key().clone());
                // The public key used as a secret (RFC 8725 section 2.1).
                other_keys.extend(
                    GenerationKey::new(1, other, &public).ok().filter(|key| key.kind() != Kind::Signed),
                );
            }
            for other_key in &other_keys {
                assert_eq!(
                    presented.verify(other_key, "alice"),
                    Err(proof_error(kind)),
                    "{kind:?} {other_key:?}"
                );
            }
        }
        let thumbprints = Kind::ALL.map(|kind| *key(kind).generation_key().thumbprint());
        assert!(thumbprints[0] != thumbprints[1] && thumbprints[1] != thumbprints[2]);
    }

    #[test]
    fn generation_key_rejects_weak_points_and_cannot_mint() {
        // y = 0, of order 4, and y = 1, the identity.
        for weak in [0, 1].map(|y| {
            let mut point = [0; 32];
            point[0] = y;
            point
        }) {
            assert!(matches!(GenerationKey::new(1, Kind::Signed, &weak), Err(InvalidKey::InvalidPoint)));
        }
        let key = key(Kind::Signed);
        let public = key.generation_key().public_bytes().unwrap();
        // The public key used as a seed or secret creates API keys that are refused.
        for kind in Kind::ALL {
            let attacker_key = MintingKey::new(1, kind, public).unwrap();
            let forged = attacker_key.mint(&fields(&Prefix::default(), "alice")).unwrap();
            assert_eq!(
                parse_and_verify(Kind::Signed, forged.expose().as_bytes(), "alice"),
                Err(proof_error(kind))
            );
        }
    }

    #[test]
    fn mint_rejects_values_out_of_range() {
        let prefix = Prefix::default();
        let valid = fields(&prefix, "alice");
        for kind in Kind::ALL {
            assert!(key(kind).mint(&valid).is_some());
            assert!(key(kind).mint(&ApiKeyFields { number: 1 << 48, ..valid }).is_none());
            assert!(key(kind).mint(&ApiKeyFields { issued_at: 1 << 40, ..valid }).is_none());
            assert!(key(kind).mint(&ApiKeyFields { expires_at: Some(1 << 40), ..valid }).is_none());
            assert!(
                key(kind).mint(&ApiKeyFields { expires_at: Some(0), ..valid }).is_none(),
                "0 means never"
            );
        }
        for operator in ["", "OP1", "OP01234567890", "op0123456789", "OP012345678x"] {
            assert!(key(Kind::Signed).mint(&ApiKeyFields { operator, ..valid }).is_none(), "{operator}");
        }
    }

    /// Two API keys of the same number, second and username.
    #[test]
    fn random_bytes_distinguish_keys() {
        let prefix = Prefix::default();
        for kind in [Kind::Signed, Kind::Short] {
            let mint_with =
                |random| key(kind).mint(&ApiKeyFields { random, ..fields(&prefix, "alice") }).unwrap();
            assert_ne!(mint_with([0; 4]).expose(), mint_with([0, 0, 0, 1]).expose());
        }
    }

    #[test]
    fn prefix_rejects_invalid_text() {
        for bad in
            ["", "_", "ks", "KS_", "ks-live_", "1_", "ks_live_\0_", "ks_ _", &format!("k{}_", "s".repeat(23))]
        {
            assert_eq!(bad.parse::<Prefix>(), Err(InvalidPrefix), "{bad}");
        }
        assert_eq!("sk_live_".parse::<Prefix>().unwrap().as_str(), "sk_live_");
    }

    #[test]
    fn debug_does_not_print_keys() {
        let prefixes = prefixes();
        for kind in Kind::ALL {
            let (key, minted) = (key(kind), mint_key(kind, "alice"));
            let unverified = Unverified::parse(minted.expose().as_bytes(), &prefixes).unwrap();
            let printed = format!("{key:?} {:?} {unverified:?}", key.generation_key());
            assert!(!printed.contains(minted.expose()) && !printed.contains("7, 7"));
        }
    }
}
