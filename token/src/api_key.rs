//! API keys: short, and checked at the edge without a list of keys.
//!
//! ```text
//! ks_live_0CzxH5...39 characters base62...Bm2JUey8
//! |       |                                  |
//! prefix  29 bytes:  1  format, 1             CRC-32 of all before, 6 characters base62
//!                    1  generation of the tag key
//!                    6  number of the key
//!                    5  issued at, seconds since the Unix epoch
//!                   16  tag
//! ```
//! The tag is HMAC-SHA256, cut to 128 bits, over everything before it and the user's name, under a key that belongs to
//! one audience. So nobody can make up a number, move a key to another user or prefix, or use it where it was not
//! issued for; and watermarks hold, because the time of issue is in it. A stolen tag key makes keys for its own
//! audience alone, until its generation is withdrawn.
//!
//! The checksum is for scanners and typists: it needs no secret, and a mistyped key costs no HMAC.

use alloc::string::String;
use core::{fmt, str::FromStr};

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use crate::{
    BadKey, Fingerprint,
    base62::{self, NotANumber},
    crc32::crc32,
};

/// An API key whose spelling is checked and whose tag is not.
pub struct Unverified<'a> {
    presented: &'a [u8],
    prefix: &'a Prefix,
    body: Body,
    tag: [u8; TAG],
}

impl<'a> Unverified<'a> {
    pub fn parse(presented: &'a [u8], prefixes: &'a [Prefix]) -> Result<Self, Error> {
        let fitting =
            prefixes.iter().filter_map(|prefix| Some((prefix, presented.strip_prefix(prefix.0.as_bytes())?)));
        // Of `ks_` and `ks_live_`, the longer: no digit is `_`.
        let (prefix, digits) = fitting.max_by_key(|(prefix, _)| prefix.length()).ok_or(Error::Prefix)?;
        let (digits, checksum) = match digits.split_at_checked(DIGITS) {
            Some((digits, checksum)) if checksum.len() == CHECKSUM_DIGITS => (digits, checksum),
            _ => return Err(Error::Length),
        };
        if !presented.iter().skip(prefix.0.len()).all(u8::is_ascii_alphanumeric) {
            return Err(Error::Alphabet);
        }
        let summed = presented.strip_suffix(checksum).unwrap_or_default();
        if base62::decode(checksum) != Ok(crc32(summed).to_be_bytes()) {
            return Err(Error::Checksum);
        }
        let bytes: [u8; BODY + TAG] = base62::decode(digits).map_err(|error| match error {
            NotANumber::Alphabet => Error::Alphabet,
            NotANumber::TooLarge => Error::NotCanonical,
        })?;
        let (Some((body, _)), Some((_, tag))) = (bytes.split_first_chunk(), bytes.split_last_chunk()) else {
            return Err(Error::Length);
        };
        let body = Body::read(*body).ok_or(Error::Format)?;
        Ok(Self { presented, prefix, body, tag: *tag })
    }

    /// Which tag key it was made with.
    pub const fn generation(&self) -> u8 {
        self.body.generation
    }

    /// The only door to what the key says. `username` is empty for a key that belongs to no particular user.
    pub fn verify(&self, key: &TagKey, username: &str) -> Result<Authentic, Error> {
        let Self { presented, prefix, body, tag } = self;
        let mac = key.tag(prefix, body, username);
        // Takes the same time wherever the two differ.
        if key.generation != body.generation || mac.verify_truncated_left(tag).is_err() {
            return Err(Error::Tag);
        }
        let Body { generation: _, number, issued_at } = *body;
        Ok(Authentic {
            number,
            issued_at,
            username: username.into(),
            fingerprint: Fingerprint::of(presented),
        })
    }
}

impl fmt::Debug for Unverified<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "api_key::Unverified({:?})", Fingerprint::of(self.presented))
    }
}

/// An API key that was issued for this audience and this user. Whether it is still good is the verdict's business.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authentic {
    number: u64,
    issued_at: u64,
    username: String,
    fingerprint: Fingerprint,
}

impl Authentic {
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// Seconds since the Unix epoch.
    pub const fn issued_at(&self) -> u64 {
        self.issued_at
    }

    /// Empty if the key belongs to no particular user.
    pub fn username(&self) -> &str {
        &self.username
    }

    pub const fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }
}

/// What tags are made and checked with: a secret of one audience. Its generations follow each other, and two are known
/// while the older one's keys are being replaced.
#[derive(Clone)]
pub struct TagKey {
    generation: u8,
    mac: Hmac<Sha256>,
    thumbprint: [u8; 32],
}

impl TagKey {
    pub fn new(generation: u8, secret: &[u8; 32]) -> Result<Self, BadKey> {
        let mac = Hmac::new_from_slice(secret).map_err(|_| BadKey::Weak)?;
        let thumbprint = Sha256::digest(secret).into();
        Ok(Self { generation, mac: mac.chain_update(DOMAIN), thumbprint })
    }

    pub const fn generation(&self) -> u8 {
        self.generation
    }

    /// Tells a key from another of the same generation, and nothing else: the secret has as many bits.
    pub const fn thumbprint(&self) -> &[u8; 32] {
        &self.thumbprint
    }

    /// Every part but the last has a fixed length or its length in front, so no two inputs read the same.
    fn tag(&self, prefix: &Prefix, body: &Body, username: &str) -> Hmac<Sha256> {
        let mac = self.mac.clone().chain_update([prefix.length()]).chain_update(&prefix.0);
        mac.chain_update(body.write()).chain_update(username)
    }

    /// The API key, to be shown once. None if the number or the time is larger than its field.
    #[cfg(feature = "mint")]
    pub fn mint(
        &self,
        prefix: &Prefix,
        number: u64,
        issued_at: u64,
        username: &str,
    ) -> Option<crate::secret::Secret> {
        let body = Body { generation: self.generation, number, issued_at };
        if number >> 48 != 0 || issued_at >> 40 != 0 {
            return None;
        }
        let tag = self.tag(prefix, &body, username).finalize().into_bytes();
        let (tag, _) = tag.split_first_chunk::<TAG>()?;
        let mut bytes = [0; BODY + TAG];
        bytes.iter_mut().zip(body.write().iter().chain(tag)).for_each(|(byte, from)| *byte = *from);
        let (mut digits, mut checksum) = ([0; DIGITS], [0; CHECKSUM_DIGITS]);
        base62::encode(bytes, &mut digits);
        let mut text: String = prefix.0.clone();
        text.extend(digits.map(char::from));
        base62::encode(crc32(text.as_bytes()).to_be_bytes(), &mut checksum);
        text.extend(checksum.map(char::from));
        Some(text.into())
    }
}

impl fmt::Debug for TagKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TagKey(generation {})", self.generation)
    }
}

/// What API keys start with: `ks_live_` unless configured otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix(String);

impl Prefix {
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
    Length,
    /// A character outside `0-9 A-Z a-z`.
    Alphabet,
    Checksum,
    /// Digits that stand for more than the bytes of a key: another spelling of some key, never accepted.
    NotCanonical,
    /// A format that comes after this one.
    Format,
    /// Not made with this tag key, or for another user.
    Tag,
}

impl Error {
    pub const ALL: [Self; 7] = [
        Self::Prefix,
        Self::Length,
        Self::Alphabet,
        Self::Checksum,
        Self::NotCanonical,
        Self::Format,
        Self::Tag,
    ];

    pub const fn code(self) -> &'static str {
        match self {
            Self::Prefix => "api_key_prefix_unknown",
            Self::Length => "api_key_length_wrong",
            Self::Alphabet => "api_key_alphabet_wrong",
            Self::Checksum => "api_key_checksum_wrong",
            Self::NotCanonical => "api_key_not_canonical",
            Self::Format => "api_key_format_unknown",
            Self::Tag => "api_key_tag_invalid",
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
            Self::Tag => "the API key was not issued here, or not for this user",
        })
    }
}

impl core::error::Error for Error {}

/// What a key says of itself.
#[derive(Clone, Copy)]
struct Body {
    generation: u8,
    number: u64,
    issued_at: u64,
}

impl Body {
    fn read([format, generation, n5, n4, n3, n2, n1, n0, t4, t3, t2, t1, t0]: [u8; BODY]) -> Option<Self> {
        (format == FORMAT).then_some(Self {
            generation,
            number: u64::from_be_bytes([0, 0, n5, n4, n3, n2, n1, n0]),
            issued_at: u64::from_be_bytes([0, 0, 0, t4, t3, t2, t1, t0]),
        })
    }

    fn write(&self) -> [u8; BODY] {
        let [_, _, n5, n4, n3, n2, n1, n0] = self.number.to_be_bytes();
        let [_, _, _, t4, t3, t2, t1, t0] = self.issued_at.to_be_bytes();
        [FORMAT, self.generation, n5, n4, n3, n2, n1, n0, t4, t3, t2, t1, t0]
    }
}

/// No other use of the same secret could ever say this.
const DOMAIN: &[u8] = b"keystile api key\0";

const FORMAT: u8 = 1;

/// 128 bits: a guess has to be made online, and at a million guesses a second the odds are 1 in 10^25 a year.
const TAG: usize = 16;

const BODY: usize = 13;

/// 62^39 > 2^232 = 256^29.
const DIGITS: usize = 39;

/// 62^6 > 2^32.
const CHECKSUM_DIGITS: usize = 6;

/// As long as anybody wants to read aloud.
const MAX_PREFIX: usize = 24;

#[cfg(all(test, feature = "mint"))]
mod tests {
    use proptest::prelude::*;
    use std::{format, string::ToString, vec, vec::Vec};

    use super::*;

    fn key() -> TagKey {
        TagKey::new(1, &[7; 32]).unwrap()
    }

    fn prefixes() -> Vec<Prefix> {
        vec![Prefix::default(), "sk_live_".parse().unwrap()]
    }

    fn open(text: &[u8], username: &str) -> Result<Authentic, Error> {
        Unverified::parse(text, &prefixes())?.verify(&key(), username)
    }

    /// A key with this body and tag, its checksum right.
    fn forged(bytes: [u8; BODY + TAG]) -> String {
        let mut digits = [0; DIGITS];
        base62::encode(bytes, &mut digits);
        summed(&format!("ks_live_{}", str::from_utf8(&digits).unwrap()))
    }

    fn summed(text: &str) -> String {
        let mut checksum = [0; CHECKSUM_DIGITS];
        base62::encode(crc32(text.as_bytes()).to_be_bytes(), &mut checksum);
        format!("{text}{}", str::from_utf8(&checksum).unwrap())
    }

    proptest! {
        #[test]
        fn what_is_minted_opens_for_its_user_only(
            number in 0..1_u64 << 48,
            issued_at in 0..1_u64 << 40,
            username in "\\PC{0,40}",
            other in "\\PC{0,40}",
        ) {
            let minted = key().mint(&Prefix::default(), number, issued_at, &username).unwrap();
            let opened = open(minted.expose().as_bytes(), &username).unwrap();
            prop_assert_eq!((opened.number(), opened.issued_at(), opened.username()), (number, issued_at, &*username));
            prop_assert_eq!(opened.fingerprint(), Fingerprint::of(minted.expose().as_bytes()));
            if other != username {
                prop_assert_eq!(open(minted.expose().as_bytes(), &other), Err(Error::Tag));
            }
        }

        #[test]
        fn no_byte_of_it_can_be_changed(at in 0..53_usize, byte: u8) {
            let minted = key().mint(&Prefix::default(), 1, 2, "alice").unwrap();
            let mut bytes = minted.expose().as_bytes().to_vec();
            prop_assume!(bytes[at] != byte);
            bytes[at] = byte;
            prop_assert!(Unverified::parse(&bytes, &prefixes()).is_err(), "not even its checksum fits");
        }

        #[test]
        fn no_bit_of_it_can_be_forged(bit in 0..8 * (BODY + TAG)) {
            let minted = key().mint(&Prefix::default(), 1, 2, "alice").unwrap();
            let digits = &minted.expose().as_bytes()[8..8 + DIGITS];
            let mut bytes: [u8; BODY + TAG] = base62::decode(digits).unwrap();
            prop_assert_eq!(forged(bytes), minted.expose());
            bytes[bit / 8] ^= 1 << (bit % 8);
            let reason = if bit < 8 { Error::Format } else { Error::Tag };
            prop_assert_eq!(open(forged(bytes).as_bytes(), "alice"), Err(reason));
        }

        #[test]
        fn any_bytes_are_parsed_without_a_panic(rest in prop::collection::vec(any::<u8>(), 0..80)) {
            prop_assert!(open(&rest, "").is_err());
            prop_assert!(open(&[b"ks_live_", &rest[..]].concat(), "").is_err());
        }
    }

    #[test]
    fn is_as_written_down() {
        // Every edge and every scanner reads this: a change is a new format.
        let minted = key().mint(&Prefix::default(), 1, 1_700_000_000, "alice").unwrap();
        assert_eq!(minted.expose(), "ks_live_0CzxH5jnbVmSwncNorhI12096SFFw5tgY634cBm2JUey8");
        assert_eq!(minted.expose().len(), 53);
    }

    #[test]
    fn each_defect_has_its_name() {
        let minted = key().mint(&Prefix::default(), 1, 2, "").unwrap();
        let text = minted.expose();
        let too_large = summed(&format!("ks_live_{}", "z".repeat(DIGITS)));
        for (bad, reason) in [
            (text.replacen("ks_live_", "kt_live_", 1), Error::Prefix),
            (text.to_uppercase(), Error::Prefix),
            (format!(" {text}"), Error::Prefix),
            (text[..text.len() - 1].to_string(), Error::Length),
            (format!("{text}0"), Error::Length),
            (format!("{text} "), Error::Length),
            ("ks_live_".to_string(), Error::Length),
            (text.replacen("ks_live_0", "ks_live_-", 1), Error::Alphabet),
            (format!("{}_", &text[..text.len() - 1]), Error::Alphabet),
            (format!("{}zzzzzz", &text[..text.len() - 6]), Error::Checksum),
            (summed(&text[..text.len() - 6]).replacen("ks_live_0", "ks_live_1", 1), Error::Checksum),
            (too_large, Error::NotCanonical),
            (forged([2; BODY + TAG]), Error::Format),
            (forged([1; BODY + TAG]), Error::Tag),
            // The prefix is under the tag too.
            (summed(&text[..text.len() - 6].replacen("ks_live_", "sk_live_", 1)), Error::Tag),
        ] {
            assert_eq!(open(bad.as_bytes(), ""), Err(reason), "{bad}");
        }
    }

    #[test]
    fn of_several_prefixes_that_fit_the_longest_is_meant() {
        let prefixes: Vec<Prefix> =
            ["ks_", "ks_live_", "ks_live_eu_"].map(|prefix| prefix.parse().unwrap()).into();
        for mut known in [prefixes.clone(), prefixes.iter().rev().cloned().collect()] {
            for prefix in &prefixes {
                let minted = key().mint(prefix, 1, 2, "").unwrap();
                let presented = Unverified::parse(minted.expose().as_bytes(), &known).unwrap();
                assert!(presented.verify(&key(), "").is_ok(), "{prefix:?}");
            }
            known.retain(|prefix| prefix.as_str() != "ks_live_");
            let minted = key().mint(&Prefix::default(), 1, 2, "").unwrap();
            assert!(Unverified::parse(minted.expose().as_bytes(), &known).is_err());
        }
    }

    #[test]
    fn another_key_does_not_open() {
        let minted = key().mint(&Prefix::default(), 1, 2, "").unwrap();
        let prefixes = prefixes();
        let key_presented = Unverified::parse(minted.expose().as_bytes(), &prefixes).unwrap();
        assert_eq!(key_presented.generation(), 1);
        for stranger in [TagKey::new(1, &[8; 32]), TagKey::new(2, &[7; 32])] {
            assert_eq!(key_presented.verify(&stranger.unwrap(), ""), Err(Error::Tag));
        }
    }

    #[test]
    fn what_does_not_fit_is_not_minted() {
        assert!(key().mint(&Prefix::default(), 1 << 48, 0, "").is_none());
        assert!(key().mint(&Prefix::default(), 0, 1 << 40, "").is_none());
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
        let minted = key().mint(&Prefix::default(), 1, 2, "").unwrap();
        let prefixes = prefixes();
        let printed =
            format!("{:?} {:?}", key(), Unverified::parse(minted.expose().as_bytes(), &prefixes).unwrap());
        assert!(!printed.contains(minted.expose()) && !printed.contains('7'.to_string().repeat(4).as_str()));
    }
}
