//! Reads JSON Web Key Sets (RFC 7517) as products publish them.
//!
//! * A key that cannot be used is left out with its reason, and all others are used: RFC 7517 section 5. A key that occurs
//!   twice is used once, and of two different keys that a token could mean by one name, neither is used.
//! * Numbers are read as the numbers they are, in any encoding. Each key has one encoding in a bundle.
//! * A set with a private or symmetric key is refused, and the last one stays in use: the issuer has a leak.

use serde::{Deserialize, Serialize};
use token::{Algorithm, InvalidKey, VerifyingKey, base64url};

use super::document::{DocumentKind, Json};
use crate::config::Issuer;

/// The limit of members. Large providers publish about ten keys.
const MAX_MEMBERS: usize = 100;

/// The limit of usable keys. All issuers share an object of 64 KiB, in which an RSA key takes 300 to 800 bytes.
const MAX_KEYS: usize = 32;

/// The longest RSA key that edges verify with.
const MAX_RSA_BITS: usize = 8192;

/// The longest RSA key whose cost needs no mention.
const TYPICAL_RSA_BITS: usize = 4096;

/// The members of private and symmetric keys: RFC 7518 sections 6.2.2, 6.3.2 and 6.4, RFC 8037 section 2, and `priv` of
/// ML-DSA keys.
const SECRET_MEMBERS: [&str; 9] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"];

/// The members that decide which key an entry is.
const READ_MEMBERS: [&str; 10] = ["kty", "kid", "alg", "use", "key_ops", "crv", "x", "y", "n", "e"];

/// The start of the reasons of keys that are left out as they should be.
const FOR_ANOTHER_PURPOSE: &str = "is not for";

/// A public key as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerKey {
    /// The `kid`; empty for a key without one.
    pub kid: String,
    /// The algorithm.
    pub alg: String,
    /// The key material in base64url, as [`VerifyingKey::foreign`] expects it.
    pub key: String,
}

impl IssuerKey {
    /// Returns the verifying key; `None` if this version no longer accepts a key that an earlier version has stored.
    pub fn verifying_key(&self, issuer: &str) -> Option<VerifyingKey> {
        VerifyingKey::foreign(issuer, &self.kid, self.algorithm()?, &self.material()?).ok()
    }

    /// Returns whether the settings of the issuer still permit the key.
    pub fn is_permitted(&self, issuer: &Issuer) -> bool {
        self.algorithm().is_some_and(|algorithm| issuer.allows(algorithm))
            && self.rsa_bits().is_none_or(|bits| bits <= max_rsa_bits(issuer))
    }

    /// Returns what an invalid signature costs an edge, for a large RSA key.
    pub fn cost(&self) -> Option<String> {
        let bits = self.rsa_bits().filter(|bits| *bits > TYPICAL_RSA_BITS)?;
        let times = bits.div_ceil(2048).pow(2);
        let name = quoted(&self.kid);
        Some(format!(
            "{name}: RSA with {bits} bits: each signature takes an edge up to {times} times as long as with 2048"
        ))
    }

    /// Returns the name for people.
    pub fn name(&self) -> String {
        match self.kid.as_str() {
            "" => format!("without `kid` ({})", self.alg),
            kid => format!("{} ({})", kid.escape_debug(), self.alg),
        }
    }

    fn algorithm(&self) -> Option<Algorithm> {
        Algorithm::from_name(&self.alg)
    }

    fn material(&self) -> Option<Vec<u8>> {
        base64url::decode(self.key.as_bytes())
    }

    fn rsa_bits(&self) -> Option<usize> {
        let modulus = self.material().filter(|_| self.alg.starts_with(['R', 'P']))?;
        Some(bits(modulus.get(4..)?))
    }
}

/// A parsed key set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedJwks {
    /// The usable keys, sorted by `kid` and algorithm, so that another order in the set is no change.
    pub keys: Vec<IssuerKey>,
    /// The keys that are left out, with the reasons.
    pub skipped: Vec<String>,
}

/// Returns whether a key was left out because it is for encryption or another purpose, so that nothing is missing.
pub fn is_for_another_purpose(skipped: &str) -> bool {
    // The name of a key may contain anything, but it is quoted.
    skipped.rsplit_once("`: ").map_or(skipped, |(_, reason)| reason).contains(FOR_ANOTHER_PURPOSE)
}

/// Parses the key set of an issuer.
pub fn parse(text: &[u8], issuer: &Issuer) -> Result<ParsedJwks, JwksError> {
    let json = Json::parse(text).map_err(|_| JwksError::Document(DocumentKind::of_text(text)))?;
    let entries = match json.get("keys") {
        Some(Json::Array(entries)) if !json.has_twice("keys") => entries.as_slice(),
        _ => &[],
    };
    let names = entries.iter().enumerate().map(|(at, entry)| name(entry, at));
    let named: Vec<(String, &Json)> = names.zip(entries).collect();
    for (name, entry) in &named {
        refuse_secret(entry, name)?;
    }
    refuse_secret_anywhere(&json)?;
    match DocumentKind::of_json(&json) {
        DocumentKind::KeySet => {}
        other => return Err(JwksError::Document(other)),
    }
    if named.len() > MAX_MEMBERS {
        return Err(JwksError::TooMany);
    }
    let (mut keys, mut skipped) = (Vec::<(String, IssuerKey)>::new(), Vec::new());
    let mut skip = |name: &str, reason: &str| skipped.push(format!("{name}: {reason}"));
    for (name, entry) in named {
        match to_issuer_key(entry, issuer) {
            Ok(key) if keys.iter().any(|(_, known)| *known == key) => {
                skip(&name, "is the same key as an earlier one");
            }
            Ok(key) => keys.push((name, key)),
            Err(reason) => skip(&name, &reason),
        }
    }
    let all = keys.clone();
    keys.retain(|(name, key)| {
        let mut others = all.iter().filter(|(_, other)| other != key && other.alg == key.alg);
        if others.clone().any(|(_, other)| other.kid == key.kid) {
            let reason = match key.kid.as_str() {
                "" => "another key without `kid` has the same algorithm, and a token cannot name either",
                _ => "another key has the same `kid` and algorithm",
            };
            skip(name, reason);
            return false;
        }
        if key.kid.is_empty() && others.any(|(_, other)| other.key == key.key) {
            skip(name, "is the same key as one with a `kid`");
            return false;
        }
        true
    });
    let mut keys: Vec<IssuerKey> = keys.into_iter().map(|(_, key)| key).collect();
    if keys.is_empty() {
        return Err(JwksError::NoneUsable(skipped));
    }
    if keys.len() > MAX_KEYS {
        return Err(JwksError::TooMany);
    }
    keys.sort_by(|a, b| (&a.kid, &a.alg).cmp(&(&b.kid, &b.alg)));
    Ok(ParsedJwks { keys, skipped })
}

/// Why a set is refused. The error contains nothing of the set but the `kid`s.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwksError {
    /// The document is something else.
    #[error("expected a key set, got {}; {}", .0, .0.advice_for_key_set())]
    Document(DocumentKind),
    /// The set exceeds a limit.
    #[error(
        "the key set has more than {members} keys, or more than {keys} usable ones",
        members = MAX_MEMBERS,
        keys = MAX_KEYS
    )]
    TooMany,
    /// The set contains a symmetric key.
    #[error("the key set publishes a symmetric key ({0}), which is no longer secret")]
    Symmetric(String),
    /// The set contains a private key.
    #[error("the key set publishes a private key ({0}): the issuer must replace it")]
    Private(String),
    /// The set has no usable key. The reasons are given for each key.
    #[error("{}", none_usable(.0))]
    NoneUsable(Vec<String>),
}

/// Returns the text of [`JwksError::NoneUsable`].
fn none_usable(skipped: &[String]) -> String {
    match skipped {
        [] => "the key set is empty".to_owned(),
        _ => format!("the key set has no usable key: {}", skipped.join("; ")),
    }
}

/// Returns the name of an entry for people.
fn name(entry: &Json, at: usize) -> String {
    match entry.get("kid") {
        Some(Json::Text(kid)) if !kid.is_empty() => quoted(kid),
        Some(Json::Text(_)) | None => format!("key {} without `kid`", at.saturating_add(1)),
        Some(_) => format!("key {}", at.saturating_add(1)),
    }
}

fn quoted(kid: &str) -> String {
    format!("`{}`", kid.chars().take(80).collect::<String>().escape_debug())
}

/// Refuses an entry with a secret, of any kind. A library that writes null or an empty text has none to write.
fn refuse_secret(entry: &Json, name: &str) -> Result<(), JwksError> {
    let is_secret = |(member, value): &&(String, Json)| {
        SECRET_MEMBERS.contains(&member.as_str())
            && *value != Json::Null
            && !matches!(value, Json::Text(text) if text.is_empty())
    };
    match entry.members().iter().find(is_secret) {
        Some((member, _)) if member == "k" => Err(JwksError::Symmetric(name.to_owned())),
        Some(_) => Err(JwksError::Private(name.to_owned())),
        None => Ok(()),
    }
}

/// Refuses a document with a secret anywhere else: in another member, or in PEM.
fn refuse_secret_anywhere(json: &Json) -> Result<(), JwksError> {
    match json {
        Json::Text(text) if text.contains("PRIVATE KEY-----") => Err(JwksError::Private("in PEM".to_owned())),
        Json::Array(items) => items.iter().try_for_each(refuse_secret_anywhere),
        Json::Object(members) => {
            if json.has("kty") {
                refuse_secret(json, &name(json, 0))?;
            }
            members.iter().try_for_each(|(_, value)| refuse_secret_anywhere(value))
        }
        _ => Ok(()),
    }
}

/// Converts an entry, or returns why it cannot be used.
fn to_issuer_key(entry: &Json, issuer: &Issuer) -> Result<IssuerKey, String> {
    if !matches!(entry, Json::Object(_)) {
        return Err("is not an object".to_owned());
    }
    if let Some(member) = READ_MEMBERS.iter().find(|member| entry.has_twice(member)) {
        return Err(format!("has a duplicate member `{member}`"));
    }
    let text = |member: &str| match entry.get(member) {
        None => Ok(None),
        Some(Json::Text(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(format!("has a `{member}` that is not text")),
    };
    let kid = text("kid")?.unwrap_or_default();
    let kty = text("kty")?.ok_or("lacks `kty`")?;
    // `jwt-svid`: SPIFFE Trust Domain and Bundle, section 4.2.2, for keys that sign tokens.
    if text("use")?.is_some_and(|purpose| !matches!(purpose, "" | "sig" | "jwt-svid")) {
        return Err(format!("{FOR_ANOTHER_PURPOSE} signatures (`use`)"));
    }
    match entry.get("key_ops") {
        None => {}
        Some(Json::Array(operations)) => {
            let is_verify = |operation: &Json| matches!(operation, Json::Text(name) if name == "verify");
            if !operations.is_empty() && !operations.iter().any(is_verify) {
                return Err(format!("{FOR_ANOTHER_PURPOSE} verifying (`key_ops`)"));
            }
        }
        Some(_) => return Err("has `key_ops` that are not an array".to_owned()),
    }
    let algorithm = algorithm(kty, text("crv")?, text("alg")?.filter(|alg| !alg.is_empty()), issuer)?;
    if !issuer.allows(algorithm) {
        return Err(format!("{} is not among `algorithms`", algorithm.name()));
    }
    let material = public_key_bytes(entry, algorithm, issuer)?;
    VerifyingKey::foreign(&issuer.issuer, kid, algorithm, &material).map_err(|error| match error {
        InvalidKey::InvalidKid => "has a `kid` of more than 255 bytes".to_owned(),
        other => other.to_string(),
    })?;
    Ok(IssuerKey { kid: kid.to_owned(), alg: algorithm.name().to_owned(), key: base64url::encode(&material) })
}

/// Returns the algorithm that the key names if it fits its kind, or else the one that its kind determines.
fn algorithm(kty: &str, crv: Option<&str>, alg: Option<&str>, issuer: &Issuer) -> Result<Algorithm, String> {
    let fitting: &[Algorithm] = match (kty, crv) {
        ("OKP", Some("Ed25519")) => &[Algorithm::EdDsa],
        ("EC", Some("P-256")) => &[Algorithm::Es256],
        ("EC", Some("P-384")) => &[Algorithm::Es384],
        ("EC", Some("P-521")) => &[Algorithm::Es512],
        ("RSA", _) => &RSA_ALGORITHMS,
        ("oct", _) => return Err("is a symmetric key, without its secret".to_owned()),
        ("OKP", Some("X25519" | "X448")) => return Err(format!("{FOR_ANOTHER_PURPOSE} signatures (`crv`)")),
        _ => return Err("is of an unknown kind (`kty`, `crv`)".to_owned()),
    };
    match alg {
        // RFC 9864 section 2.2 has another name for EdDSA with this curve.
        Some("Ed25519") if fitting == [Algorithm::EdDsa] => Ok(Algorithm::EdDsa),
        Some(name) => match Algorithm::from_name(name) {
            Some(algorithm) if fitting.contains(&algorithm) => Ok(algorithm),
            _ if is_encryption(name) => Err(format!("{FOR_ANOTHER_PURPOSE} signatures (`alg`)")),
            _ => Err("has an `alg` that is unknown or does not fit its kind".to_owned()),
        },
        None if fitting.len() == 1 => Ok(fitting[0]),
        None => {
            let default = issuer.default_algorithm.map(|algorithm| algorithm.0);
            let default = default.filter(|algorithm| fitting.contains(algorithm));
            let mut allowed = fitting.iter().copied().filter(|algorithm| issuer.allows(*algorithm));
            // OpenID Connect Core 1.0 section 3.1.3.7: "The `alg` value SHOULD be the default of RS256".
            let usual = || issuer.allows(Algorithm::Rs256).then_some(Algorithm::Rs256);
            default
                .or_else(usual)
                .or_else(|| allowed.next().filter(|_| allowed.next().is_none()))
                .ok_or_else(|| "has no `alg`; set `default_algorithm` of the issuer".to_owned())
        }
    }
}

/// Returns whether an `alg` is one of RFC 7518 section 4.1.
fn is_encryption(alg: &str) -> bool {
    alg == "dir"
        || ["RSA-OAEP", "RSA1_5", "ECDH-ES", "PBES2-", "HPKE-"].iter().any(|start| alg.starts_with(start))
}

/// Returns the key material in the form of [`VerifyingKey::foreign`], or why it cannot be used.
fn public_key_bytes(entry: &Json, algorithm: Algorithm, issuer: &Issuer) -> Result<Vec<u8>, String> {
    let coordinates = |size: usize| -> Result<Vec<u8>, String> {
        Ok([padded(number(entry, "x")?, size, "x")?, padded(number(entry, "y")?, size, "y")?].concat())
    };
    match algorithm {
        // A text of 32 bytes, not a number.
        Algorithm::EdDsa => bytes(entry, "x"),
        Algorithm::Es256 => coordinates(32),
        Algorithm::Es384 => coordinates(48),
        Algorithm::Es512 => {
            let material = coordinates(66)?;
            // Edges do not check the point, because only their host has code for this curve.
            let point = [&[4], material.as_slice()].concat();
            p521::PublicKey::from_sec1_bytes(&point).map_err(|_| InvalidKey::InvalidPoint.to_string())?;
            Ok(material)
        }
        _ => {
            let exponent = match entry.get("e") {
                Some(Json::Number(Some(exponent))) => exponent.to_be_bytes().to_vec(),
                _ => bytes(entry, "e")?,
            };
            let exponent = padded(without_zeros(exponent), 4, "e")?;
            let modulus = number(entry, "n")?;
            let bits = bits(&modulus);
            if bits > MAX_RSA_BITS {
                return Err(format!("RSA with {bits} bits is too large: at most {MAX_RSA_BITS}"));
            }
            if bits > max_rsa_bits(issuer) {
                return Err(format!("has {bits} bits: to use it, set `max_rsa_bits` of the issuer"));
            }
            if bits < 2048 {
                return Err(format!("RSA with {bits} bits is too weak: at least 2048"));
            }
            Ok([exponent, modulus].concat())
        }
    }
}

/// Reads a member as a number, without leading zeros.
fn number(entry: &Json, member: &str) -> Result<Vec<u8>, String> {
    bytes(entry, member).map(without_zeros)
}

/// Decodes a member in base64 of either alphabet, with or without padding and line ends.
fn bytes(entry: &Json, member: &str) -> Result<Vec<u8>, String> {
    let text = match entry.get(member) {
        Some(Json::Text(text)) if !text.is_empty() => text,
        Some(Json::Text(_)) | None => return Err(format!("lacks `{member}`")),
        Some(_) => return Err(format!("has a `{member}` that is not text")),
    };
    let text: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let end = text.iter().rposition(|byte| *byte != b'=').map_or(0, |last| last.saturating_add(1));
    let plain = text[..end].iter().map(|byte| match byte {
        b'+' => b'-',
        b'/' => b'_',
        other => *other,
    });
    lenient_base64url(&plain.collect::<Vec<_>>())
        .ok_or_else(|| format!("has a `{member}` that is not base64url"))
}

/// Decodes base64url without padding, and ignores stray bits at the end.
fn lenient_base64url(text: &[u8]) -> Option<Vec<u8>> {
    base64url::decode(text).or_else(|| {
        // The last character has two or four bits of the last byte. The rest of it must be zero in base64url.
        let (last, rest) = text.split_last()?;
        let at = ALPHABET.iter().position(|known| known == last)?;
        let kept = match text.len() % 4 {
            2 => at & 0x30,
            3 => at & 0x3c,
            _ => return None,
        };
        base64url::decode(&[rest, &ALPHABET[kept..=kept]].concat())
    })
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

fn without_zeros(number: Vec<u8>) -> Vec<u8> {
    number.into_iter().skip_while(|byte| *byte == 0).collect()
}

/// Fills a number with leading zeros.
fn padded(number: Vec<u8>, size: usize, member: &str) -> Result<Vec<u8>, String> {
    match size.checked_sub(number.len()) {
        Some(zeros) => Ok([vec![0; zeros], number].concat()),
        None => Err(format!("has a `{member}` that is too large")),
    }
}

/// Returns the length of a number without leading zero bytes.
fn bits(number: &[u8]) -> usize {
    number.first().map_or(0, |first| 8 * number.len() - first.leading_zeros() as usize)
}

fn max_rsa_bits(issuer: &Issuer) -> usize {
    usize::try_from(issuer.max_rsa_bits).unwrap_or_default()
}

const RSA_ALGORITHMS: [Algorithm; 6] = [
    Algorithm::Rs256,
    Algorithm::Rs384,
    Algorithm::Rs512,
    Algorithm::Ps256,
    Algorithm::Ps384,
    Algorithm::Ps512,
];

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn issuer(more: &Value) -> Issuer {
        let mut source = json!({ "issuer": "https://idp.example" });
        source.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(source).unwrap()
    }

    /// RFC 8037 appendix A.2.
    fn ed25519(kid: &str) -> Value {
        json!({ "kty": "OKP", "crv": "Ed25519", "kid": kid, "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" })
    }

    /// RFC 7517 appendix A.1.
    fn p256() -> Value {
        json!({
            "kty": "EC", "crv": "P-256", "kid": "ec",
            "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
            "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
        })
    }

    fn rsa(bytes: usize) -> Value {
        rsa_with(bytes, 0xc1)
    }

    /// An RSA key whose modulus is mostly this byte.
    fn rsa_with(bytes: usize, byte: u8) -> Value {
        let modulus: Vec<u8> = (0..bytes).map(|at| if at + 1 == bytes { 0xab } else { byte }).collect();
        json!({ "kty": "RSA", "kid": "rsa", "n": base64url::encode(&modulus), "e": "AQAB" })
    }

    /// The base point of P-521.
    fn p521() -> Value {
        let secret = [&[0; 65], &[1][..]].concat();
        let key = p521::ecdsa::SigningKey::from_slice(&secret).unwrap();
        let point = key.verifying_key().to_sec1_point(false);
        let (x, y) = point.as_bytes()[1..].split_at(66);
        json!({
            "kty": "EC", "crv": "P-521", "kid": "p521", "x": base64url::encode(x), "y": base64url::encode(y),
        })
    }

    fn parse_keys(keys: &[Value], more: &Value) -> Result<ParsedJwks, String> {
        parse(json!({ "keys": keys }).to_string().as_bytes(), &issuer(more))
            .map_err(|error| error.to_string())
    }

    fn with(mut key: Value, member: &str, value: Value) -> Value {
        key[member] = value;
        key
    }

    fn without(mut key: Value, member: &str) -> Value {
        key.as_object_mut().unwrap().remove(member);
        key
    }

    fn names(parsed: &ParsedJwks) -> Vec<(&str, &str)> {
        parsed.keys.iter().map(|key| (key.kid.as_str(), key.alg.as_str())).collect()
    }

    #[test]
    fn usable_keys_are_parsed_beside_unusable_ones() {
        let keys = [
            rsa(256),
            p256(),
            with(ed25519("ed"), "alg", json!("EdDSA")),
            with(ed25519("enc"), "use", json!("enc")),
            with(ed25519("x509"), "use", json!("x509-svid")),
            with(ed25519("svid"), "use", json!("jwt-svid")),
            with(ed25519("ops"), "key_ops", json!(["sign"])),
            with(ed25519("alg"), "alg", json!("ES256")),
            with(ed25519("new"), "crv", json!("Ed448")),
            with(ed25519("long"), "x", json!("AAAA")),
            with(with(rsa(128), "kid", json!("weak")), "alg", json!("RS256")),
            with(with(rsa(256), "kid", json!("oaep")), "alg", json!("RSA-OAEP")),
            with(ed25519("more"), "x5t", json!("ignored")),
            with(with(ed25519("name"), "alg", json!("Ed25519")), "x5c", json!(7)),
        ];
        let parsed = parse_keys(&keys, &json!({})).unwrap();
        let expected = [
            ("ec", "ES256"),
            ("ed", "EdDSA"),
            ("more", "EdDSA"),
            ("name", "EdDSA"),
            ("rsa", "RS256"),
            ("svid", "EdDSA"),
        ];
        assert_eq!(names(&parsed), expected);
        assert!(parsed.keys.iter().all(|key| key.verifying_key("https://idp.example").is_some()));
        let left: Vec<_> = parsed.skipped.iter().map(|line| line.split(':').next().unwrap()).collect();
        assert_eq!(left, ["`enc`", "`x509`", "`ops`", "`alg`", "`new`", "`long`", "`weak`", "`oaep`"]);
        let expected: Vec<_> = parsed.skipped.iter().filter(|line| is_for_another_purpose(line)).collect();
        assert_eq!(expected.len(), 4, "{expected:?}");
        assert!(!is_for_another_purpose("`is not for signatures`: has a `kid` of more than 255 bytes"));
    }

    #[test]
    fn algorithm_comes_from_key_or_settings() {
        let alg = |more: &Value| Ok::<_, String>(parse_keys(&[rsa(256)], more)?.keys[0].alg.clone());
        assert_eq!(alg(&json!({})).unwrap(), "RS256", "the default of OpenID Connect");
        assert_eq!(alg(&json!({ "default_algorithm": "PS256" })).unwrap(), "PS256");
        assert_eq!(alg(&json!({ "algorithms": ["RS512", "ES256"] })).unwrap(), "RS512");
        assert!(
            alg(&json!({ "algorithms": ["RS512", "PS512"] }))
                .unwrap_err()
                .contains("set `default_algorithm`")
        );
        assert!(alg(&json!({ "algorithms": ["ES256"] })).unwrap_err().contains("no usable key"));
        let said = parse_keys(&[with(rsa(256), "alg", json!("RS384"))], &json!({ "algorithms": ["RS256"] }));
        assert!(said.unwrap_err().contains("RS384 is not among `algorithms`"));
    }

    #[test]
    fn c1_one_kid_serves_several_algorithms_and_types() {
        let keys = [
            with(rsa(256), "alg", json!("RS256")),
            with(rsa(256), "alg", json!("RS384")),
            with(rsa_with(256, 0xd1), "alg", json!("RS512")),
            with(ed25519("rsa"), "use", json!("sig")),
            with(p256(), "kid", json!("rsa")),
        ];
        let parsed = parse_keys(&keys, &json!({})).unwrap();
        assert_eq!(
            names(&parsed).iter().map(|(_, alg)| *alg).collect::<Vec<_>>(),
            ["ES256", "EdDSA", "RS256", "RS384", "RS512"]
        );
        assert_eq!(parsed.skipped, [""; 0]);
        let mut reversed = keys;
        reversed.reverse();
        assert_eq!(parse_keys(&reversed, &json!({})).unwrap(), parsed, "the order does not matter");
    }

    /// Each row: entries, the keys that are used, and the reasons of the others.
    #[test]
    fn c2_unusable_entries_are_left_out_or_merged_by_name() {
        let good = ed25519("good");
        let nameless = without(rsa(256), "kid");
        let other = without(rsa_with(256, 0xd1), "kid");
        type Row = (Vec<Value>, &'static [(&'static str, &'static str)], &'static [&'static str]);
        let table: [Row; 24] = [
            (vec![good.clone(), good.clone()], &[("good", "EdDSA")], &["`good`: is the same key"]),
            (
                vec![good.clone(), with(with(good.clone(), "alg", json!("EdDSA")), "use", json!("sig"))],
                &[("good", "EdDSA")],
                &["`good`: is the same key"],
            ),
            (
                vec![good.clone(), without(good.clone(), "kid")],
                &[("good", "EdDSA")],
                &["key 2 without `kid`: is the same key as one with a `kid`"],
            ),
            (vec![nameless.clone(), without(p256(), "kid")], &[("", "ES256"), ("", "RS256")], &[]),
            (
                vec![good.clone(), nameless.clone(), other.clone(), nameless.clone()],
                &[("good", "EdDSA")],
                &["key 4", "key 2 without `kid`: another key", "key 3 without `kid`: another key"],
            ),
            (
                vec![good.clone(), rsa(256), rsa_with(256, 0xd1), rsa_with(256, 0xe1)],
                &[("good", "EdDSA")],
                &["`rsa`: another key has the same", "`rsa`", "`rsa`"],
            ),
            (
                vec![good.clone(), json!({ "kty": "oct", "alg": "HS256" })],
                &[("good", "EdDSA")],
                &["key 2 without"],
            ),
            (
                vec![good.clone(), json!({ "kty": "oct", "kid": "s", "k": null })],
                &[("good", "EdDSA")],
                &["`s`: is a symmetric key"],
            ),
            (vec![good.clone(), with(p256(), "d", json!(""))], &[("ec", "ES256"), ("good", "EdDSA")], &[]),
            (
                vec![good.clone(), with(p256(), "kid", json!(7))],
                &[("good", "EdDSA")],
                &["key 2: has a `kid` that"],
            ),
            (
                vec![good.clone(), with(p256(), "kid", json!(["x"]))],
                &[("good", "EdDSA")],
                &["key 2: has a `kid`"],
            ),
            (vec![with(p256(), "kid", json!(null))], &[("", "ES256")], &[]),
            (vec![with(p256(), "kid", json!(""))], &[("", "ES256")], &[]),
            (
                vec![good.clone(), with(p256(), "kid", json!("k".repeat(256)))],
                &[("good", "EdDSA")],
                &["`kkk"],
            ),
            (vec![good.clone(), json!({ "kid": "x" })], &[("good", "EdDSA")], &["`x`: lacks `kty`"]),
            (
                vec![good.clone(), json!(null)],
                &[("good", "EdDSA")],
                &["key 2 without `kid`: is not an object"],
            ),
            (
                vec![good.clone(), json!("text")],
                &[("good", "EdDSA")],
                &["key 2 without `kid`: is not an object"],
            ),
            (vec![good.clone(), with(p256(), "kty", json!(1))], &[("good", "EdDSA")], &["`ec`: has a `kty`"]),
            (
                vec![good.clone(), with(p256(), "use", json!(["sig"]))],
                &[("good", "EdDSA")],
                &["`ec`: has a `use`"],
            ),
            (
                vec![good.clone(), with(p256(), "key_ops", json!("verify"))],
                &[("good", "EdDSA")],
                &["`ec`: has `key"],
            ),
            (vec![with(with(p256(), "key_ops", json!([])), "use", json!(null))], &[("ec", "ES256")], &[]),
            (vec![with(with(p256(), "alg", json!(null)), "x5c", json!(null))], &[("ec", "ES256")], &[]),
            (vec![good.clone(), without(p256(), "y")], &[("good", "EdDSA")], &["`ec`: lacks `y`"]),
            (
                vec![good.clone(), json!({ "kty": "AKP", "alg": "ML-DSA-44", "kid": "pq", "pub": "AAAA" })],
                &[("good", "EdDSA")],
                &["`pq`: is of an unknown kind"],
            ),
        ];
        for (keys, used, left_out) in table {
            let parsed = parse_keys(&keys, &json!({})).unwrap();
            assert_eq!(names(&parsed), used, "{keys:?}");
            let reasons = &parsed.skipped;
            assert_eq!(reasons.len(), left_out.len(), "{reasons:?}");
            for (reason, expected) in reasons.iter().zip(left_out) {
                assert!(reason.starts_with(expected), "{reason}: {expected}");
            }
        }
        // Which of two members another parser would read is unknown.
        let text = br#"{"keys":[{"kty":"OKP","kty":"EC","kid":"two"},
            {"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","use":"sig","x5u":1,"x5u":2}]}"#;
        let parsed = parse(text, &issuer(&json!({}))).unwrap();
        assert_eq!(names(&parsed), [("", "EdDSA")]);
        assert_eq!(parsed.skipped, ["`two`: has a duplicate member `kty`"]);
    }

    #[test]
    fn c2_sets_with_secrets_are_refused() {
        let good = ed25519("good");
        for (entry, expected) in [
            (json!({ "kty": "oct", "kid": "s", "k": "AAAA" }), "symmetric key (`s`)"),
            (json!({ "kid": "s", "k": 7 }), "symmetric key (`s`)"),
            (with(with(p256(), "k", json!("AAAA")), "use", json!("enc")), "symmetric key (`ec`)"),
            (with(p256(), "d", json!("AAAA")), "private key (`ec`)"),
            (with(with(p256(), "d", json!("AAAA")), "use", json!("enc")), "private key (`ec`)"),
            (with(without(p256(), "kid"), "d", json!("AAAA")), "private key (key 2 without `kid`)"),
            (with(rsa(256), "p", json!("AAAA")), "private key (`rsa`)"),
            (with(rsa(256), "qi", json!("AAAA")), "private key (`rsa`)"),
            (with(rsa(256), "oth", json!([{ "d": "AAAA" }])), "private key (`rsa`)"),
            (json!({ "kty": "AKP", "kid": "pq", "priv": "AAAA" }), "private key (`pq`)"),
            (with(p256(), "pem", json!("-----BEGIN PRIVATE KEY-----\nAAAA")), "private key (in PEM)"),
            (with(p256(), "more", json!({ "jwk": with(rsa(256), "d", json!("AA")) })), "private key (`rsa`)"),
        ] {
            let refused = parse_keys(&[good.clone(), entry.clone()], &json!({})).unwrap_err();
            assert!(refused.contains(expected), "{refused}");
            assert!(!refused.contains("AAAA"), "{refused}");
        }
        let twice = br#"{"keys":[{"kty":"EC","kid":"x","d":null,"d":"AAAA"}]}"#;
        assert!(matches!(parse(twice, &issuer(&json!({}))), Err(JwksError::Private(_))));
        let elsewhere = json!({ "keys": [good], "old": [with(p256(), "d", json!("AAAA"))] }).to_string();
        assert!(matches!(parse(elsewhere.as_bytes(), &issuer(&json!({}))), Err(JwksError::Private(_))));
    }

    /// Every encoding of a number gives the same key.
    #[test]
    fn c3_numbers_are_read_in_every_encoding() {
        // Bytes whose base64 has `-`, `_` and padding.
        let modulus: Vec<u8> = (0..256).map(|at| if at % 2 == 0 { 0xfb } else { 0xff }).collect();
        let encode = |number: &[u8]| base64url::encode(number);
        let standard = |text: &str| text.replace('-', "+").replace('_', "/");
        let n = encode(&modulus);
        let stray = n[..n.len() - 1].to_owned() + "x";
        assert!(n.contains(['-', '_']) && n.ends_with('w'), "{n}");
        let key = |n: Value, e: Value| json!({ "kty": "RSA", "kid": "rsa", "n": n, "e": e });
        let plain = parse_keys(&[key(json!(n), json!("AQAB"))], &json!({})).unwrap();
        for (n, e) in [
            (json!(encode(&[&[0], &modulus[..]].concat())), json!("AAEAAQ")),
            (json!(encode(&[&[0; 9], &modulus[..]].concat())), json!("AAAAAQAB")),
            (json!(n.clone() + "=="), json!("AQAB====")),
            (json!(standard(&n)), json!("AQAB")),
            (json!(standard(&n) + "=="), json!("AQAB\n")),
            (json!(format!("{}\r\n{}", &n[..64], &n[64..])), json!(65537)),
            (json!(stray), json!("AQAB")),
        ] {
            assert_eq!(parse_keys(&[key(n.clone(), e)], &json!({})).unwrap(), plain, "{n}");
        }
        // Coordinates of the length of the field, without leading zeros, and with one more.
        let p521 = p521();
        let plain = parse_keys(std::slice::from_ref(&p521), &json!({})).unwrap();
        assert_eq!(names(&plain), [("p521", "ES512")]);
        for member in ["x", "y"] {
            let number = base64url::decode(p521[member].as_str().unwrap().as_bytes()).unwrap();
            let trimmed = without_zeros(number.clone());
            for spelling in [trimmed, [&[0], &number[..]].concat()] {
                let key = with(p521.clone(), member, json!(encode(&spelling)));
                assert_eq!(parse_keys(&[key], &json!({})).unwrap(), plain);
            }
        }
        let ed = with(ed25519("ed"), "x", json!("11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="));
        assert_eq!(parse_keys(&[ed], &json!({})).unwrap(), parse_keys(&[ed25519("ed")], &json!({})).unwrap());

        for (key, member, value, expected) in [
            (p256(), "x", json!("AA"), "not a point"),
            (p256(), "x", json!("A"), "not base64url"),
            (p256(), "x", json!("MKBCTNIc KUSD*"), "not base64url"),
            (p256(), "x", json!(encode(&[1; 33])), "`x` that is too large"),
            (p521, "y", json!(encode(&[1; 66])), "not a point"),
            (rsa(256), "e", json!("AQABAAAB"), "`e` that is too large"),
            (rsa(256), "e", json!("AA"), "too weak"),
            (rsa(256), "e", json!(-3), "not text"),
            (rsa(256), "n", json!(65537), "not text"),
            (rsa(256), "n", json!("AAAA"), "too weak"),
            (ed25519("ed"), "x", json!(encode(&[&[0], &[7; 32][..]].concat())), "not a point"),
        ] {
            let refused = parse_keys(&[with(key, member, value)], &json!({})).unwrap_err();
            assert!(refused.contains(expected), "{refused}: {expected}");
        }
    }

    #[test]
    fn c4_large_rsa_keys_are_used_by_choice() {
        let choice = json!({ "max_rsa_bits": 8192 });
        for (bytes, more, expected) in [
            (512, json!({}), Ok(None)),
            (513, json!({}), Err("has 4104 bits: to use it, set `max_rsa_bits`")),
            (768, choice.clone(), Ok(Some("6144 bits: each signature takes an edge up to 9 times"))),
            (1024, choice.clone(), Ok(Some("8192 bits: each signature takes an edge up to 16 times"))),
            (1024, json!({ "max_rsa_bits": 8191 }), Err("has 8192 bits: to use it, set")),
            (1025, choice.clone(), Err("RSA with 8200 bits is too large: at most 8192")),
            (2048, json!({}), Err("is too large")),
            (255, choice, Err("RSA with 2040 bits is too weak")),
        ] {
            match (parse_keys(&[rsa(bytes)], &more), expected) {
                (Ok(parsed), Ok(cost)) => {
                    let found = parsed.keys[0].cost();
                    assert_eq!(found.is_some(), cost.is_some());
                    assert!(found.unwrap_or_default().contains(cost.unwrap_or_default()));
                    assert!(parsed.keys[0].is_permitted(&issuer(&more)));
                    assert_eq!(parsed.keys[0].is_permitted(&issuer(&json!({}))), bytes <= 512);
                }
                (Err(refused), Err(expected)) => assert!(refused.contains(expected), "{refused}"),
                (got, _) => panic!("{bytes}: {got:?}"),
            }
        }
        let large_exponent = with(rsa(1024), "e", json!("AQAD"));
        let refused = parse_keys(&[large_exponent], &json!({ "max_rsa_bits": 8192 })).unwrap_err();
        assert!(refused.contains("too large"), "{refused}");
    }

    #[test]
    fn c7_errors_name_what_the_document_seems_to_be() {
        let jwk = p256();
        let certificate = "-----BEGIN CERTIFICATE-----\nMIIC";
        for (text, expected) in [
            (
                json!({ "issuer": "https://a", "jwks_uri": "https://a/k" }).to_string(),
                "discovery document; set `jwks_url`",
            ),
            (
                json!({ "issuer": "https://a", "token_endpoint": "https://a/t" }).to_string(),
                "discovery document",
            ),
            (
                json!({ "a1": certificate, "b2": certificate }).to_string(),
                "map of certificates by `kid`; set",
            ),
            (json!({ "a1": "-----BEGIN PUBLIC KEY-----" }).to_string(), "map of certificates"),
            (jwk.to_string(), "one JSON Web Key; put it into an array"),
            (json!([jwk]).to_string(), "an array of JSON Web Keys; put it into an object"),
            (json!({ "jwks": { "keys": [jwk] } }).to_string(), "member `jwks` is a key set"),
            (json!({ "Keys": [jwk] }).to_string(), "`keys` is in capitals"),
            (json!({ "keys": { "ec": jwk } }).to_string(), "`keys` is not an array"),
            (json!({ "keys": null }).to_string(), "without `keys`"),
            (r#"{"keys":[],"keys":[]}"#.to_owned(), "duplicate member `keys`"),
            (json!({ "realm": "r", "public_key": "MII" }).to_string(), "description of a Keycloak realm"),
            (json!({ "error": "not_found" }).to_string(), "an error message"),
            (json!({ "status": 404, "title": "x" }).to_string(), "an error message"),
            (json!({ "errors": [] }).to_string(), "an error message"),
            ("{}".to_owned(), "an empty object"),
            (json!({ "x": 1 }).to_string(), "an object without `keys`; check `jwks_url`"),
            ("[]".to_owned(), "JSON, but not an object"),
            ("\"x\"".to_owned(), "JSON, but not an object"),
            (String::new(), "an empty document"),
            (" \n".to_owned(), "an empty document"),
            ("<!DOCTYPE html><html>".to_owned(), "an HTML page"),
            ("\n<HTML lang=en>".to_owned(), "an HTML page"),
            ("<?xml version=\"1.0\"?><md:EntityDescriptor/>".to_owned(), "XML"),
            (certificate.to_owned(), "PEM"),
            ("eyJhbGciOiJSUzI1NiJ9.e30.c2ln".to_owned(), "a signed token"),
            ("{\n\"keys\": [".to_owned(), "invalid JSON at line 2 column 9"),
            ("Not Found".to_owned(), "invalid JSON at line 1"),
        ] {
            let refused = parse(text.as_bytes(), &issuer(&json!({}))).unwrap_err().to_string();
            assert!(
                refused.starts_with("expected a key set, got ") && refused.contains(expected),
                "{text}: {refused}"
            );
        }
        let marked = format!("\u{feff}{}", json!({ "keys": [jwk] }));
        assert!(parse(marked.as_bytes(), &issuer(&json!({}))).is_ok(), "with a byte order mark");
    }

    #[test]
    fn sets_without_usable_keys_and_large_sets_are_refused() {
        for (keys, expected) in [
            (vec![], "the key set is empty"),
            (vec![with(p256(), "kid", json!(5))], "no usable key: key 1: has a `kid` that is not text"),
            (vec![ed25519("good"); 101], "more than 100"),
        ] {
            let refused = parse_keys(&keys, &json!({})).unwrap_err();
            assert!(refused.contains(expected), "{refused}");
        }
        let many: Vec<_> = (0..33).map(|number| ed25519(&number.to_string())).collect();
        assert!(parse_keys(&many, &json!({})).unwrap_err().contains("32 usable"));
    }
}
