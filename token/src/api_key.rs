//! API keys: checked at the edge without a list of keys. There are three formats.
//!
//! Format 2, the default, is signed: an edge holds the public key, which makes nothing.
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
//! The short form has the same 27 bytes with format 3, and for a proof 16 bytes of HMAC-SHA256: 43 bytes, 58 characters.
//! Whoever has the key of its generation, as every edge does, can make such API keys. So it never stands for a root user.
//!
//! The proof of both is over
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
//! where every part has a fixed length or its length in front: no two inputs read the same.
//!
//! Format 1 is no longer made; what there is stays good until it is replaced. It is 29 bytes, 39 characters: format (1),
//! generation (1), number (6), issued at (5), tag (16). The tag is HMAC-SHA256 over "keystile api key\0", the length of
//! the prefix, prefix, body and username. It names no operator and has no end.
//!
//! The length of the text tells the formats apart. A generation is of one kind: an API key of another format under it is
//! refused. The checksum is for scanners and typists: it needs no secret, and a mistyped key costs no signature.

use alloc::{format, string::String};
use core::{fmt, str::FromStr};

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use crate::{
    BadKey, Fingerprint,
    base62::{self, NotANumber},
    crc32::crc32,
    ed25519,
};

/// An API key whose spelling is checked and whose proof is not.
pub struct Unverified<'a> {
    presented: &'a [u8],
    prefix: &'a Prefix,
    body: Body,
    proof: Proof,
}

enum Proof {
    Signature([u8; SIGNATURE]),
    Tag([u8; TAG]),
}

impl<'a> Unverified<'a> {
    /// Checks prefix, length, alphabet, checksum and spelling of what a client presents. `prefixes` are those that are
    /// configured; of several that fit, the longest is meant.
    ///
    /// # Errors
    ///
    /// Returns the first defect that is found; every variant but [`Error::Tag`] and [`Error::Signature`] is possible.
    pub fn parse(presented: &'a [u8], prefixes: &'a [Prefix]) -> Result<Self, Error> {
        let fitting =
            prefixes.iter().filter_map(|prefix| Some((prefix, presented.strip_prefix(prefix.0.as_bytes())?)));
        // Of `ks_` and `ks_live_`, the longer: no digit is `_`.
        let (prefix, digits) = fitting.max_by_key(|(prefix, _)| prefix.length()).ok_or(Error::Prefix)?;
        let split = digits.len().checked_sub(CHECKSUM_DIGITS).and_then(|at| digits.split_at_checked(at));
        let (digits, checksum) = split.ok_or(Error::Length)?;
        let kind = Kind::ALL.into_iter().find(|kind| kind.digits() == digits.len()).ok_or(Error::Length)?;
        if !presented.iter().skip(prefix.0.len()).all(u8::is_ascii_alphanumeric) {
            return Err(Error::Alphabet);
        }
        let summed = presented.strip_suffix(checksum).unwrap_or_default();
        if base62::decode(checksum) != Ok(crc32(summed).to_be_bytes()) {
            return Err(Error::Checksum);
        }
        let not_canonical = |error| match error {
            NotANumber::Alphabet => Error::Alphabet,
            NotANumber::TooLarge => Error::NotCanonical,
        };
        let mut bytes = [0; LONGEST];
        let bytes = bytes.get_mut(..kind.bytes()).ok_or(Error::Length)?;
        base62::decode_into(digits, bytes).map_err(not_canonical)?;
        let (body, proof) = bytes.split_at_checked(kind.body()).ok_or(Error::Length)?;
        let body = Body::read(kind, body).ok_or(Error::Format)?;
        let proof = match kind {
            Kind::Signed => proof.try_into().map(Proof::Signature),
            Kind::Short | Kind::Format1 => proof.try_into().map(Proof::Tag),
        };
        Ok(Self { presented, prefix, body, proof: proof.map_err(|_| Error::Length)? })
    }

    /// Of the key that it was made with.
    pub const fn generation(&self) -> u8 {
        self.body.generation
    }

    /// Returns the kind that its length and format say.
    pub const fn kind(&self) -> Kind {
        self.body.kind
    }

    /// The only door to what the API key says. `username` is what the client sends beside it; empty if nothing.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Signature`] for format 2 and [`Error::Tag`] for the others, if `key` did not make this API key for
    /// this username, or if they name no subject that may have one.
    pub fn verify(&self, key: &GenerationKey, username: &str) -> Result<Authentic, Error> {
        let Self { presented, prefix, body, proof } = self;
        let refused = match proof {
            Proof::Signature(_) => Error::Signature,
            Proof::Tag(_) => Error::Tag,
        };
        // An API key of another kind than its generation fails here: no key accepts another's proof.
        if key.generation != body.generation || !key.accepts(prefix, body, proof, username) {
            return Err(refused);
        }
        let holder = match body.kind {
            Kind::Format1 => None,
            // Nobody mints what names no subject; who stole a key of the short form might.
            Kind::Signed | Kind::Short => Some(Holder::of(body.operator, username).ok_or(refused)?),
        };
        if body.kind == Kind::Short && holder.as_ref().is_none_or(Holder::is_root) {
            return Err(refused);
        }
        Ok(Authentic {
            kind: body.kind,
            number: body.number,
            issued_at: body.issued_at,
            expires_at: Some(body.expires_at).filter(|end| *end != NEVER),
            username: username.into(),
            holder,
            fingerprint: Fingerprint::of(presented),
        })
    }
}

impl fmt::Debug for Unverified<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "api_key::Unverified({:?})", Fingerprint::of(self.presented))
    }
}

/// An API key that was issued for this audience and this username. Whether it is still good is the verdict's business.
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
    /// Returns the kind of the generation that made it.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns the number of the API key.
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// Seconds since the Unix epoch.
    pub const fn issued_at(&self) -> u64 {
        self.issued_at
    }

    /// Seconds since the Unix epoch; None if it has no end, or is of format 1, which does not say.
    pub const fn expires_at(&self) -> Option<u64> {
        self.expires_at
    }

    /// What the client sent beside it, and was bound to when it was made.
    pub fn username(&self) -> &str {
        &self.username
    }

    /// Whom it stands for; None for format 1, which does not say.
    pub const fn holder(&self) -> Option<&Holder> {
        self.holder.as_ref()
    }

    /// Returns the SHA-256 of the API key as it was presented.
    pub const fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }
}

/// Whom an API key stands for: the root user of an operator, `OP0123456789`, or a user of it, `OP0123456789/alice`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    operator: String,
    subject: String,
}

impl Holder {
    /// The operator is in the API key, the username beside it; both are under the proof.
    ///
    /// ```text
    /// username              of an API key of OP0123456789
    /// "" OP0123456789       OP0123456789, the root user
    /// alice                 OP0123456789/alice
    /// OP0123456789/alice    OP0123456789/alice
    /// anything else         nobody
    /// ```
    /// So no username reaches beyond the operator, and only its own id, or none, is its root user.
    fn of(operator: u64, username: &str) -> Option<Self> {
        let operator = format!("OP{operator:010}");
        let name = match username.strip_prefix(&operator) {
            Some("") => "",
            Some(rest) if rest.starts_with('/') => {
                rest.strip_prefix('/').filter(|name| is_user_name(name))?
            }
            _ if username.is_empty() => "",
            // A user may be called like an operator, but then only its whole subject says so.
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

    /// Returns whether it is the root user of its operator.
    pub fn is_root(&self) -> bool {
        self.operator == self.subject
    }
}

/// The subject of an API key of `operator` that is presented with `username`; None for a username that no API key can
/// have. Of formats 2 and short.
pub fn subject(operator: &str, username: &str) -> Option<String> {
    Holder::of(operator_number(operator)?, username).map(|holder| holder.subject)
}

/// As the control plane names users: nothing that a header, a path or a list could read as more than one name.
fn is_user_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'@' | b'+');
    (1..=64).contains(&text.len())
        && text.bytes().all(allowed)
        && !["root", "default_permissions"].contains(&text)
}

/// `OP0123456789`
fn operator_number(text: &str) -> Option<u64> {
    let digits = text.strip_prefix("OP").filter(|digits| digits.len() == 10)?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// The format of the API keys of a generation, and with it what they are proved by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Format 2.
    Signed,
    /// The same content under a tag.
    Short,
    /// No longer made.
    Format1,
}

impl Kind {
    /// All of them, each once.
    pub const ALL: [Self; 3] = [Self::Signed, Self::Short, Self::Format1];

    /// How people and the store call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Signed => "2",
            Self::Short => "short",
            Self::Format1 => "1",
        }
    }

    /// Whether whoever checks them can make them too.
    pub const fn is_symmetric(self) -> bool {
        !matches!(self, Self::Signed)
    }

    const fn format(self) -> u8 {
        match self {
            Self::Format1 => 1,
            Self::Signed => 2,
            Self::Short => 3,
        }
    }

    const fn body(self) -> usize {
        match self {
            Self::Signed | Self::Short => 27,
            Self::Format1 => 13,
        }
    }

    const fn bytes(self) -> usize {
        self.body().saturating_add(match self {
            Self::Signed => SIGNATURE,
            Self::Short | Self::Format1 => TAG,
        })
    }

    /// As few as hold so many bytes.
    const fn digits(self) -> usize {
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

/// What the API keys of a generation are checked with. Generations follow each other, and several are known while the
/// API keys of older ones are being replaced.
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
    /// `bytes`: of [`Kind::Signed`] the public key (RFC 8032 section 5.1.5), else the secret.
    ///
    /// # Errors
    ///
    /// Returns [`BadKey::NotAPoint`] for a public key that is none, or of small order.
    pub fn new(generation: u8, kind: Kind, bytes: &[u8; 32]) -> Result<Self, BadKey> {
        let mac = |domain| {
            Hmac::new_from_slice(bytes)
                .map(|mac: Hmac<Sha256>| mac.chain_update(domain))
                .map_err(|_| BadKey::Weak)
        };
        let proof = match kind {
            Kind::Signed => ProofKey::Signed(ed25519::PublicKey::from_bytes(bytes).ok_or(BadKey::NotAPoint)?),
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

    /// Returns the kind of the API keys of this generation.
    pub const fn kind(&self) -> Kind {
        match self.proof {
            ProofKey::Signed(_) => Kind::Signed,
            ProofKey::Short(_) => Kind::Short,
            ProofKey::Format1(_) => Kind::Format1,
        }
    }

    /// The public key; None for a secret.
    pub fn public_bytes(&self) -> Option<&[u8; 32]> {
        match &self.proof {
            ProofKey::Signed(key) => Some(key.as_bytes()),
            ProofKey::Short(_) | ProofKey::Format1(_) => None,
        }
    }

    /// Tells a key from another of the same generation. Of a secret, too, it says nothing: that has as many bits.
    pub const fn thumbprint(&self) -> &[u8; 32] {
        &self.thumbprint
    }

    fn accepts(&self, prefix: &Prefix, body: &Body, proof: &Proof, username: &str) -> bool {
        let (written, lengths) = (body.write(), Lengths::of(prefix, body, username));
        let written = written.get(..body.kind.body()).unwrap_or_default();
        match (&self.proof, proof, body.kind) {
            (ProofKey::Signed(key), Proof::Signature(signature), Kind::Signed) => {
                lengths.is_some_and(|lengths| {
                    key.accepts(&lengths.message(SIGNED_DOMAIN, prefix, written, username), signature)
                })
            }
            // Takes the same time wherever the two differ.
            (ProofKey::Short(mac), Proof::Tag(tag), Kind::Short) => lengths.is_some_and(|lengths| {
                let message = lengths.message(&[], prefix, written, username);
                message
                    .iter()
                    .fold(mac.clone(), |mac, part| mac.chain_update(part))
                    .verify_truncated_left(tag)
                    .is_ok()
            }),
            (ProofKey::Format1(mac), Proof::Tag(tag), Kind::Format1) => {
                format1(mac, prefix, written, username).verify_truncated_left(tag).is_ok()
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

/// Of the parts of what is proved, each in one byte.
struct Lengths([[u8; 1]; 3]);

impl Lengths {
    /// None if the username is longer than any that an API key is made for.
    fn of(prefix: &Prefix, body: &Body, username: &str) -> Option<Self> {
        let body = u8::try_from(body.kind.body()).ok()?;
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

/// Every part but the last has a fixed length or its length in front, so no two inputs read the same.
fn format1(mac: &Hmac<Sha256>, prefix: &Prefix, body: &[u8], username: &str) -> Hmac<Sha256> {
    let mac = mac.clone().chain_update([prefix.length()]).chain_update(&prefix.0);
    mac.chain_update(body).chain_update(username)
}

#[cfg(feature = "mint")]
pub use minting::{Contents, MintingKey};

#[cfg(feature = "mint")]
mod minting {
    use alloc::{vec, vec::Vec};

    use ed25519_dalek::Signer as _;
    use zeroize::Zeroizing;

    use super::*;
    use crate::secret::Secret;

    /// What the API keys of a generation are made with.
    pub struct MintingKey {
        secret: Zeroizing<[u8; 32]>,
        checking: GenerationKey,
    }

    /// What a new API key is to say.
    #[derive(Debug, Clone, Copy)]
    pub struct Contents<'a> {
        /// The text in front of the digits.
        pub prefix: &'a Prefix,
        /// `OP0123456789`. Format 1 leaves it out, as it does the end and what is random.
        pub operator: &'a str,
        /// Below 2^48.
        pub number: u64,
        /// Seconds since the Unix epoch, below 2^40.
        pub issued_at: u64,
        /// Seconds since the Unix epoch, from 1 and below 2^40; None: it has no end.
        pub expires_at: Option<u64>,
        /// So that two of the same number and second still differ.
        pub random: [u8; 4],
        /// What the client is to send beside it.
        pub username: &'a str,
    }

    impl MintingKey {
        /// `secret`: of [`Kind::Signed`] the seed (RFC 8032 section 5.1.5).
        ///
        /// # Errors
        ///
        /// Returns what [`GenerationKey::new`] does; no secret is refused.
        pub fn new(generation: u8, kind: Kind, secret: &[u8; 32]) -> Result<Self, BadKey> {
            let checking = match kind {
                Kind::Signed => {
                    let key = ed25519_dalek::SigningKey::from_bytes(secret);
                    GenerationKey::new(generation, kind, key.verifying_key().as_bytes())
                }
                Kind::Short | Kind::Format1 => GenerationKey::new(generation, kind, secret),
            };
            Ok(Self { secret: Zeroizing::new(*secret), checking: checking? })
        }

        /// Returns the key that checks what this one makes.
        pub const fn checking(&self) -> &GenerationKey {
            &self.checking
        }

        /// The API key, to be shown once. None if a part is larger than its field, or the username names nobody; or the
        /// root user in the short form.
        pub fn mint(&self, contents: &Contents<'_>) -> Option<Secret> {
            let Contents { prefix, operator, number, issued_at, expires_at, random, username } = *contents;
            let kind = self.checking.kind();
            let operator = if kind == Kind::Format1 { 0 } else { operator_number(operator)? };
            let fits = number >> 48 == 0 && issued_at >> 40 == 0 && expires_at.unwrap_or(1) >> 40 == 0;
            if !fits || expires_at == Some(NEVER) {
                return None;
            }
            if kind != Kind::Format1 {
                let holder = Holder::of(operator, username)?;
                if kind == Kind::Short && holder.is_root() {
                    return None;
                }
            }
            let generation = self.checking.generation;
            let expires_at = expires_at.unwrap_or(NEVER);
            self.seal(
                prefix,
                &Body { kind, generation, operator, number, issued_at, expires_at, random },
                username,
            )
        }

        /// Whatever the body says.
        pub(super) fn seal(&self, prefix: &Prefix, body: &Body, username: &str) -> Option<Secret> {
            let written = body.write();
            let written = written.get(..body.kind.body())?;
            let mut bytes = Vec::from(written);
            let lengths = Lengths::of(prefix, body, username);
            match &self.checking.proof {
                ProofKey::Signed(_) => {
                    let message = lengths?.message(SIGNED_DOMAIN, prefix, written, username).concat();
                    let key = ed25519_dalek::SigningKey::from_bytes(&self.secret);
                    bytes.extend(key.sign(&message).to_bytes());
                }
                ProofKey::Short(mac) => {
                    let lengths = lengths?;
                    let message = lengths.message(&[], prefix, written, username);
                    let mac = message.iter().fold(mac.clone(), |mac, part| mac.chain_update(part));
                    bytes.extend(mac.finalize().into_bytes().get(..TAG)?);
                }
                ProofKey::Format1(mac) => {
                    let mac = format1(mac, prefix, written, username);
                    bytes.extend(mac.finalize().into_bytes().get(..TAG)?);
                }
            }
            Some(spell(prefix, body.kind, bytes))
        }
    }

    /// The text of these bytes.
    pub(super) fn spell(prefix: &Prefix, kind: Kind, mut bytes: Vec<u8>) -> Secret {
        let mut digits = vec![0; kind.digits()];
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
            let (generation, kind) = (self.checking.generation, self.checking.kind().name());
            write!(f, "MintingKey({generation}, format {kind})")
        }
    }
}
/// What API keys start with: `ks_live_` unless configured otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix(String);

impl Prefix {
    /// Returns the prefix, its last `_` included.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// At most [`MAX_PREFIX`].
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
    type Err = NotAPrefix;

    fn from_str(text: &str) -> Result<Self, NotAPrefix> {
        let usual = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        let good = text.len() <= MAX_PREFIX
            && text.starts_with(|first: char| first.is_ascii_lowercase())
            && text.ends_with('_')
            && text.bytes().all(usual);
        if good { Ok(Self(text.into())) } else { Err(NotAPrefix) }
    }
}

/// The text is no prefix of API keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAPrefix;

impl fmt::Display for NotAPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a prefix is up to 24 characters out of a-z 0-9 _, a letter first and _ last")
    }
}

impl core::error::Error for NotAPrefix {}

/// Why an API key is refused. Each has one stable code, used in responses, metrics and logs alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Error {
    /// None of the configured prefixes.
    Prefix,
    /// None of the lengths that API keys with this prefix have.
    Length,
    /// A character outside `0-9 A-Z a-z`.
    Alphabet,
    /// The CRC-32 at the end is another than that of the text.
    Checksum,
    /// Digits that stand for more than the bytes of a key: another spelling of some key, never accepted.
    NotCanonical,
    /// A body that is none of the format that its length says.
    Format,
    /// Of format 1 and the short form: not made with the key of its generation, or for another username.
    Tag,
    /// The same of format 2.
    Signature,
}

impl Error {
    /// All of them, each once.
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

    /// Returns the stable code, as responses, metrics and logs have it.
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
            Self::Prefix => "the API key has another prefix",
            Self::Length => "the API key has another length",
            Self::Alphabet => "the API key has a character outside 0-9 A-Z a-z",
            Self::Checksum => "the checksum of the API key is wrong: mistyped or cut",
            Self::NotCanonical => "the API key is not in its canonical spelling",
            Self::Format => "the API key has an unknown format",
            Self::Tag | Self::Signature => "the API key was not issued here, or not for this user",
        })
    }
}

impl core::error::Error for Error {}

/// What an API key says of itself.
#[derive(Clone, Copy)]
struct Body {
    kind: Kind,
    generation: u8,
    /// The last four: zero in format 1.
    operator: u64,
    number: u64,
    issued_at: u64,
    expires_at: u64,
    random: [u8; 4],
}

impl Body {
    fn read(kind: Kind, bytes: &[u8]) -> Option<Self> {
        let (body, rest) = match (kind, bytes) {
            (Kind::Format1, [format, generation, rest @ ..]) if *format == kind.format() => {
                let (of_key, rest) = rest.split_first_chunk::<6>()?;
                let (issued_at, rest) = rest.split_first_chunk::<5>()?;
                let body = Self {
                    kind,
                    generation: *generation,
                    operator: 0,
                    number: number(*of_key),
                    issued_at: number(*issued_at),
                    expires_at: NEVER,
                    random: [0; 4],
                };
                (body, rest)
            }
            (Kind::Signed | Kind::Short, [format, generation, rest @ ..]) if *format == kind.format() => {
                let (operator, rest) = rest.split_first_chunk::<5>()?;
                let (of_key, rest) = rest.split_first_chunk::<6>()?;
                let (issued_at, rest) = rest.split_first_chunk::<5>()?;
                let (expires_at, rest) = rest.split_first_chunk::<5>()?;
                let (random, rest) = rest.split_first_chunk::<4>()?;
                let body = Self {
                    kind,
                    generation: *generation,
                    operator: number(*operator),
                    number: number(*of_key),
                    issued_at: number(*issued_at),
                    expires_at: number(*expires_at),
                    random: *random,
                };
                (body, rest)
            }
            _ => return None,
        };
        // One operator has one number, of ten digits.
        (rest.is_empty() && body.operator < OPERATORS).then_some(body)
    }

    /// As many bytes as its kind has; zeros behind.
    fn write(&self) -> [u8; LONGEST_BODY] {
        let Self { kind, generation, operator, number, issued_at, expires_at, random } = self;
        let [_, _, n5, n4, n3, n2, n1, n0] = number.to_be_bytes();
        let [_, _, _, i4, i3, i2, i1, i0] = issued_at.to_be_bytes();
        let (format, g) = (kind.format(), *generation);
        if *kind == Kind::Format1 {
            let mut written = [0; LONGEST_BODY];
            let body = [format, g, n5, n4, n3, n2, n1, n0, i4, i3, i2, i1, i0];
            written.iter_mut().zip(body).for_each(|(to, from)| *to = from);
            return written;
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

/// Big-endian, of at most eight bytes.
fn number<const N: usize>(bytes: [u8; N]) -> u64 {
    bytes.into_iter().fold(0, |number, byte| number << 8 | u64::from(byte))
}

/// No other use of the same key could ever say this. One per format: no proof of one is a proof of another.
const FORMAT1_DOMAIN: &[u8] = b"keystile api key\0";
const SIGNED_DOMAIN: &[u8] = b"keystile api key 2\0";
const SHORT_DOMAIN: &[u8] = b"keystile api key 3\0";

/// 128 bits: a guess has to be made online, and at a million guesses a second the odds are 1 in 10^25 a year.
const TAG: usize = 16;

/// Of Ed25519 (RFC 8032 section 5.1.6).
const SIGNATURE: usize = 64;

const LONGEST_BODY: usize = 27;
const LONGEST: usize = LONGEST_BODY + SIGNATURE;

/// What ten digits can count.
const OPERATORS: u64 = 10_000_000_000;

/// In the field of an end.
const NEVER: u64 = 0;

/// 62^6 > 2^32.
const CHECKSUM_DIGITS: usize = 6;

/// As long as anybody wants to read aloud.
const MAX_PREFIX: usize = 24;

#[cfg(all(test, feature = "mint"))]
mod tests {
    use proptest::prelude::*;
    use std::{format, string::ToString, vec, vec::Vec};

    use super::{minting::spell, *};
    use crate::secret::Secret;

    fn key(kind: Kind) -> MintingKey {
        MintingKey::new(1, kind, &[7; 32]).unwrap()
    }

    fn kinds() -> impl Strategy<Value = Kind> {
        prop::sample::select(Kind::ALL.to_vec())
    }

    fn prefixes() -> Vec<Prefix> {
        vec![Prefix::default(), "sk_live_".parse().unwrap()]
    }

    fn open(kind: Kind, text: &[u8], username: &str) -> Result<Authentic, Error> {
        Unverified::parse(text, &prefixes())?.verify(key(kind).checking(), username)
    }

    fn refused(kind: Kind) -> Error {
        if kind == Kind::Signed { Error::Signature } else { Error::Tag }
    }

    const OPERATOR: &str = "OP0123456789";

    fn contents<'a>(prefix: &'a Prefix, username: &'a str) -> Contents<'a> {
        let (number, issued_at, random) = (1, 1_700_000_000, [1, 2, 3, 4]);
        Contents { prefix, operator: OPERATOR, number, issued_at, expires_at: None, random, username }
    }

    fn minted(kind: Kind, username: &str) -> Secret {
        key(kind).mint(&contents(&Prefix::default(), username)).unwrap()
    }

    /// Body and proof.
    fn bytes_of(kind: Kind, text: &str) -> Vec<u8> {
        let mut bytes = vec![0; kind.bytes()];
        base62::decode_into(&text.as_bytes()[8..8 + kind.digits()], &mut bytes).unwrap();
        bytes
    }

    /// An API key of these bytes, its checksum right.
    fn forged(kind: Kind, bytes: Vec<u8>) -> Secret {
        spell(&Prefix::default(), kind, bytes)
    }

    fn summed(text: &str) -> String {
        let mut checksum = [0; CHECKSUM_DIGITS];
        base62::encode(crc32(text.as_bytes()).to_be_bytes(), &mut checksum);
        format!("{text}{}", str::from_utf8(&checksum).unwrap())
    }

    proptest! {
        #[test]
        fn what_is_minted_opens_for_its_username_only(
            kind in kinds(),
            number in 0..1_u64 << 48,
            issued_at in 0..1_u64 << 40,
            expires_at in prop::option::of(1..1_u64 << 40),
            operator in 0..OPERATORS,
            random: [u8; 4],
            name in "[a-zA-Z0-9._@+-]{2,64}",
            other in "\\PC{0,40}",
        ) {
            let operator = format!("OP{operator:010}");
            prop_assume!(is_user_name(&name) && operator_number(&name).is_none());
            let prefix = Prefix::default();
            for username in [name.clone(), format!("{operator}/{name}")] {
                let contents =
                    Contents { prefix: &prefix, operator: &operator, number, issued_at, expires_at, random, username: &username };
                let minted = key(kind).mint(&contents).unwrap();
                prop_assert_eq!(minted.expose().len(), 8 + kind.digits() + CHECKSUM_DIGITS);
                let opened = open(kind, minted.expose().as_bytes(), &username).unwrap();
                prop_assert_eq!((opened.number(), opened.issued_at(), opened.username()), (number, issued_at, &*username));
                prop_assert_eq!(opened.fingerprint(), Fingerprint::of(minted.expose().as_bytes()));
                if kind != Kind::Format1 {
                    let holder = opened.holder().unwrap();
                    let subject = format!("{operator}/{name}");
                    prop_assert_eq!((holder.operator(), holder.subject(), holder.is_root()), (&*operator, &*subject, false));
                    prop_assert_eq!(opened.expires_at(), expires_at);
                }
                for other in [&*other, "", &operator, &username.to_uppercase(), &format!("{username} ")] {
                    if other != username {
                        prop_assert_eq!(open(kind, minted.expose().as_bytes(), other), Err(refused(kind)));
                    }
                }
            }
        }

        #[test]
        fn no_byte_of_it_can_be_changed(kind in kinds(), at: prop::sample::Index, byte: u8) {
            let minted = minted(kind, "alice");
            let mut bytes = minted.expose().as_bytes().to_vec();
            let at = at.index(bytes.len());
            prop_assume!(bytes[at] != byte);
            bytes[at] = byte;
            prop_assert!(Unverified::parse(&bytes, &prefixes()).is_err(), "not even its checksum fits");
        }

        #[test]
        fn no_bit_of_it_can_be_forged(kind in kinds(), bit: prop::sample::Index) {
            let minted = minted(kind, "alice");
            let mut bytes = bytes_of(kind, minted.expose());
            let again = forged(kind, bytes.clone());
            prop_assert_eq!(again.expose(), minted.expose());
            let bit = bit.index(8 * bytes.len());
            bytes[bit / 8] ^= 1 << (bit % 8);
            let refused = open(kind, forged(kind, bytes).expose().as_bytes(), "alice").unwrap_err();
            // The format; or an operator of eleven digits.
            let in_body = bit < 8 || (kind != Kind::Format1 && (16..56).contains(&bit));
            prop_assert!(refused == super::tests::refused(kind) || (refused == Error::Format && in_body), "{refused:?}");
        }

        #[test]
        fn any_bytes_are_parsed_without_a_panic(
            rest in prop::collection::vec(any::<u8>(), 0..200),
            digits in "[0-9A-Za-z]{0,140}",
        ) {
            for kind in Kind::ALL {
                prop_assert!(open(kind, &rest, "").is_err());
                prop_assert!(open(kind, &[b"ks_live_", &rest[..]].concat(), "").is_err());
                let digits = digits.get(..kind.digits()).unwrap_or(&digits);
                let text = summed(&format!("ks_live_{digits}"));
                prop_assert!(open(kind, text.as_bytes(), "").is_err());
            }
        }

        /// The library signs and verifies what we say is signed: nothing else is.
        #[test]
        fn the_signature_is_over_prefix_body_and_username(name in "[a-z]{1,64}", random: [u8; 4]) {
            let prefix = Prefix::default();
            let minted = key(Kind::Signed).mint(&Contents { random, ..contents(&prefix, &name) }).unwrap();
            let bytes = bytes_of(Kind::Signed, minted.expose());
            let length = [u8::try_from(name.len()).unwrap()];
            let message = [b"keystile api key 2\0\x08ks_live_\x1b", &bytes[..27], &length, name.as_bytes()].concat();
            let public = ed25519_dalek::SigningKey::from_bytes(&[7; 32]).verifying_key();
            let signature = ed25519_dalek::Signature::from_slice(&bytes[27..]).unwrap();
            prop_assert!(public.verify_strict(&message, &signature).is_ok());
        }
    }

    #[test]
    fn is_as_written_down() {
        // Every edge and every scanner reads this: a change is a new format.
        for (kind, length, text) in [
            (Kind::Format1, 53, "ks_live_0CzxH5jnbVmSwncNorhI12096SFFw5tgY634cBm2JUey8"),
            (Kind::Signed, 137, SIGNED),
            (Kind::Short, 72, SHORT),
        ] {
            let minted = minted(kind, "alice");
            assert_eq!(minted.expose(), text);
            assert_eq!(minted.expose().len(), length);
        }
    }

    /// As another implementation makes them.
    const SIGNED: &str = "ks_live_01SSiHzFhP5dBWS6a3eV9qWMfBSq0j0GCP0s5V5U3HqgSHgZI2iws9HUgz9ezqGLYJeal38zShWRGk2geVfYQzxyiGtgZ3TQF3DPa7zKbmbIakTuveXs8JsnK521pxAw7";
    const SHORT: &str = "ks_live_0Hm6MhansovGIzNUtVZm0HwbCsQoahGS6u4OWudOVQ46PlWKRZRhf4lTwd0JNd5A";

    /// A username never makes an API key somebody else's, another operator's least of all.
    #[test]
    fn a_username_names_one_subject_or_none() {
        let long = "x".repeat(64);
        for (username, subject) in [
            ("", Some("OP0123456789")),
            ("OP0123456789", Some("OP0123456789")),
            ("alice", Some("OP0123456789/alice")),
            ("OP0123456789/alice", Some("OP0123456789/alice")),
            ("alice@example.com", Some("OP0123456789/alice@example.com")),
            (&long, Some(&*format!("OP0123456789/{long}"))),
            // A user that is called like an operator: by its whole subject only.
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
                let contents = contents(&prefix, username);
                let subject = subject.filter(|subject| kind == Kind::Signed || subject.contains('/'));
                let opened = key(kind).mint(&contents).map(|minted| {
                    open(kind, minted.expose().as_bytes(), username).unwrap().holder().unwrap().clone()
                });
                assert_eq!(opened.as_ref().map(Holder::subject), subject, "{kind:?} {username}");
                assert!(opened.is_none_or(|opened| opened.operator() == OPERATOR));
                // Not even whoever has the key gets one in.
                let (number, issued_at, random) = (1, 2, [0; 4]);
                let body = Body {
                    kind,
                    generation: 1,
                    operator: 123_456_789,
                    number,
                    issued_at,
                    expires_at: NEVER,
                    random,
                };
                if let Some(sealed) = key(kind).seal(&prefix, &body, username) {
                    let opened = open(kind, sealed.expose().as_bytes(), username);
                    assert_eq!(opened.is_ok(), subject.is_some(), "{kind:?} {username}");
                }
            }
        }
        assert_eq!(super::subject("OP1", "alice"), None);
    }

    #[test]
    fn each_defect_has_its_name() {
        for kind in Kind::ALL {
            let minted = minted(kind, "alice");
            let text = minted.expose();
            let too_large = summed(&format!("ks_live_{}", "z".repeat(kind.digits())));
            let with = |at: usize, byte: u8| {
                let mut bytes = bytes_of(kind, text);
                bytes[at] = byte;
                forged(kind, bytes).expose().to_string()
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
                (summed(&text[..text.len() - 6]).replacen("ks_live_0", "ks_live_1", 1), Error::Checksum),
                (too_large, Error::NotCanonical),
                (with(0, 0), Error::Format),
                (with(0, 4), Error::Format),
                (with(0, if kind == Kind::Short { 2 } else { 3 }), Error::Format),
                (with(1, 2), refused(kind)),
                (with(12, 77), refused(kind)),
                // The prefix is under the proof too.
                (summed(&text[..text.len() - 6].replacen("ks_live_", "sk_live_", 1)), refused(kind)),
            ] {
                assert_eq!(open(kind, bad.as_bytes(), "alice"), Err(reason), "{kind:?} {bad}");
            }
            // More than ten digits: 2^40 - 1.
            if kind != Kind::Format1 {
                let mut bytes = bytes_of(kind, text);
                bytes[2..7].fill(0xff);
                let text = forged(kind, bytes);
                assert_eq!(open(kind, text.expose().as_bytes(), "alice"), Err(Error::Format));
            }
        }
    }

    #[test]
    fn of_several_prefixes_that_fit_the_longest_is_meant() {
        let prefixes: Vec<Prefix> =
            ["ks_", "ks_live_", "ks_live_eu_"].map(|prefix| prefix.parse().unwrap()).into();
        for kind in Kind::ALL {
            for mut known in [prefixes.clone(), prefixes.iter().rev().cloned().collect()] {
                for prefix in &prefixes {
                    let minted = key(kind).mint(&contents(prefix, "alice")).unwrap();
                    let presented = Unverified::parse(minted.expose().as_bytes(), &known).unwrap();
                    assert!(presented.verify(key(kind).checking(), "alice").is_ok(), "{prefix:?}");
                }
                known.retain(|prefix| prefix.as_str() != "ks_live_");
                let minted = minted(kind, "alice");
                assert!(Unverified::parse(minted.expose().as_bytes(), &known).is_err());
            }
        }
    }

    /// Not of another secret, generation or kind, whatever bytes those share.
    #[test]
    fn another_key_does_not_open() {
        let prefixes = prefixes();
        for kind in Kind::ALL {
            let minted = minted(kind, "alice");
            let presented = Unverified::parse(minted.expose().as_bytes(), &prefixes).unwrap();
            assert_eq!((presented.generation(), presented.kind()), (1, kind));
            let public = ed25519_dalek::SigningKey::from_bytes(&[7; 32]).verifying_key().to_bytes();
            let mut strangers = vec![
                MintingKey::new(1, kind, &[8; 32]).unwrap().checking().clone(),
                MintingKey::new(2, kind, &[7; 32]).unwrap().checking().clone(),
            ];
            for other in Kind::ALL.into_iter().filter(|other| *other != kind) {
                strangers.push(key(other).checking().clone());
                // The public key taken for a secret, as in RFC 8725 section 2.1.
                strangers.extend(
                    GenerationKey::new(1, other, &public).ok().filter(|key| key.kind() != Kind::Signed),
                );
            }
            for stranger in &strangers {
                assert_eq!(presented.verify(stranger, "alice"), Err(refused(kind)), "{kind:?} {stranger:?}");
            }
        }
        let thumbprints = Kind::ALL.map(|kind| *key(kind).checking().thumbprint());
        assert!(thumbprints[0] != thumbprints[1] && thumbprints[1] != thumbprints[2]);
    }

    #[test]
    fn a_public_key_is_a_point_and_makes_nothing() {
        // y = 0, of order 4, and y = 1, the identity.
        for weak in [0, 1].map(|y| {
            let mut point = [0; 32];
            point[0] = y;
            point
        }) {
            assert!(matches!(GenerationKey::new(1, Kind::Signed, &weak), Err(BadKey::NotAPoint)));
        }
        let key = key(Kind::Signed);
        let public = key.checking().public_bytes().unwrap();
        // Whoever has it and takes it for a seed or a secret makes API keys that nobody takes.
        for kind in Kind::ALL {
            let thief = MintingKey::new(1, kind, public).unwrap();
            let made = thief.mint(&contents(&Prefix::default(), "alice")).unwrap();
            assert_eq!(open(Kind::Signed, made.expose().as_bytes(), "alice"), Err(refused(kind)));
        }
    }

    #[test]
    fn what_does_not_fit_is_not_minted() {
        let prefix = Prefix::default();
        let good = contents(&prefix, "alice");
        for kind in Kind::ALL {
            assert!(key(kind).mint(&good).is_some());
            assert!(key(kind).mint(&Contents { number: 1 << 48, ..good }).is_none());
            assert!(key(kind).mint(&Contents { issued_at: 1 << 40, ..good }).is_none());
            assert!(key(kind).mint(&Contents { expires_at: Some(1 << 40), ..good }).is_none());
            assert!(key(kind).mint(&Contents { expires_at: Some(0), ..good }).is_none(), "that says never");
        }
        for operator in ["", "OP1", "OP01234567890", "op0123456789", "OP012345678x"] {
            assert!(key(Kind::Signed).mint(&Contents { operator, ..good }).is_none(), "{operator}");
        }
    }

    /// Of the same number, second and username.
    #[test]
    fn what_is_random_tells_two_apart() {
        let prefix = Prefix::default();
        for kind in [Kind::Signed, Kind::Short] {
            let of = |random| key(kind).mint(&Contents { random, ..contents(&prefix, "alice") }).unwrap();
            assert_ne!(of([0; 4]).expose(), of([0, 0, 0, 1]).expose());
        }
    }

    #[test]
    fn a_prefix_needs_no_escaping_and_ends_visibly() {
        for bad in
            ["", "_", "ks", "KS_", "ks-live_", "1_", "ks_live_\0_", "ks_ _", &format!("k{}_", "s".repeat(23))]
        {
            assert_eq!(bad.parse::<Prefix>(), Err(NotAPrefix), "{bad}");
        }
        assert_eq!("sk_live_".parse::<Prefix>().unwrap().as_str(), "sk_live_");
    }

    #[test]
    fn is_never_printed() {
        let prefixes = prefixes();
        for kind in Kind::ALL {
            let (key, minted) = (key(kind), minted(kind, "alice"));
            let unverified = Unverified::parse(minted.expose().as_bytes(), &prefixes).unwrap();
            let printed = format!("{key:?} {:?} {unverified:?}", key.checking());
            assert!(!printed.contains(minted.expose()) && !printed.contains("7, 7"));
        }
    }
}
