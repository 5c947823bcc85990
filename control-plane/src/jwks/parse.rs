//! Strict parsing of JSON Web Key Sets (RFC 7517). A set with private key material or duplicate `kid`s is rejected entirely,
//! and the last valid set stays in use. A key for another purpose or of an unknown kind is skipped and reported: RFC 7517
//! section 5.

use serde::{Deserialize, Serialize, de::IgnoredAny};
use token::{Algorithm, VerifyingKey, base64url};

use crate::config::Issuer;

/// The limit of members. Large providers publish about ten keys.
const MAX_MEMBERS: usize = 100;

/// The limit of usable keys. All issuers share an object of 64 KiB, in which an RSA key takes 300 to 800 bytes.
const MAX_KEYS: usize = 32;

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
        let algorithm = Algorithm::from_name(&self.alg)?;
        VerifyingKey::foreign(issuer, &self.kid, algorithm, &base64url::decode(self.key.as_bytes())?).ok()
    }
}

/// A parsed key set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedJwks {
    /// The usable keys, sorted by `kid`, so that another order in the set is no change.
    pub keys: Vec<IssuerKey>,
    /// The skipped keys with the reasons.
    pub skipped: Vec<String>,
}

/// Parses the key set of an issuer.
pub fn parse(json: &[u8], issuer: &Issuer) -> Result<ParsedJwks, JwksError> {
    let set: JwkSet = serde_json::from_slice(json).map_err(|error| JwksError::Malformed {
        line: error.line(),
        column: error.column(),
        data: error.is_data(),
    })?;
    if set.keys.len() > MAX_MEMBERS {
        return Err(JwksError::TooMany);
    }
    let (mut keys, mut skipped) = (Vec::<IssuerKey>::new(), Vec::new());
    for jwk in &set.keys {
        if jwk.kty == "oct" || jwk.k.is_some() {
            return Err(JwksError::Symmetric(jwk.name()));
        }
        if jwk.d.is_some() {
            return Err(JwksError::Private(jwk.name()));
        }
        match jwk.to_issuer_key(issuer) {
            Ok(key) if keys.iter().any(|known| known.kid == key.kid) => {
                return Err(JwksError::Duplicate(jwk.name()));
            }
            Ok(key) => keys.push(key),
            Err(why) => skipped.push(format!("{}: {why}", jwk.name())),
        }
    }
    if keys.is_empty() {
        return Err(JwksError::NoneUsable(skipped));
    }
    if keys.len() > MAX_KEYS {
        return Err(JwksError::TooMany);
    }
    keys.sort_by(|a, b| a.kid.cmp(&b.kid));
    Ok(ParsedJwks { keys, skipped })
}

/// Why a set is rejected. The error contains nothing of the set but the `kid`s.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwksError {
    /// The document is invalid JSON, or does not have the form of a key set (`data`).
    #[error("the key set is malformed at line {line} column {column}: {}", malformation(*.data))]
    Malformed { line: usize, column: usize, data: bool },
    /// The set exceeds a limit.
    #[error(
        "the key set has more than {members} keys, or more than {keys} usable ones",
        members = MAX_MEMBERS,
        keys = MAX_KEYS
    )]
    TooMany,
    /// The set contains a symmetric key.
    #[error("the key set publishes the symmetric key {0}, which is no longer secret")]
    Symmetric(String),
    /// The set contains a private key.
    #[error("the key set publishes the private key {0}")]
    Private(String),
    /// Two usable keys have the same `kid`.
    #[error("the key set has two usable keys {0}")]
    Duplicate(String),
    /// The set has no usable key. The reasons are given for each key.
    #[error("{}", none_usable(.0))]
    NoneUsable(Vec<String>),
}

/// Returns the description of [`JwksError::Malformed`].
const fn malformation(data: bool) -> &'static str {
    if data { "a member is missing, duplicated, or of another type" } else { "invalid JSON" }
}

/// Returns the text of [`JwksError::NoneUsable`].
fn none_usable(skipped: &[String]) -> String {
    match skipped {
        [] => "the key set is empty".to_owned(),
        _ => format!("the key set has no usable key: {}", skipped.join("; ")),
    }
}

/// A key set. Unknown members are ignored (RFC 7517 section 4); a duplicate known member is an error.
#[derive(Deserialize)]
struct JwkSet {
    keys: Vec<Jwk>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
    /// The private key.
    d: Option<IgnoredAny>,
    /// The symmetric key.
    k: Option<IgnoredAny>,
}

impl Jwk {
    fn name(&self) -> String {
        match &self.kid {
            Some(kid) => format!("`{}`", kid.chars().take(80).collect::<String>().escape_debug()),
            None => "without `kid`".to_owned(),
        }
    }

    fn to_issuer_key(&self, issuer: &Issuer) -> Result<IssuerKey, String> {
        if self.purpose.as_deref().is_some_and(|purpose| purpose != "sig") {
            return Err("is not for signatures (`use`)".to_owned());
        }
        if self.key_ops.as_ref().is_some_and(|operations| !operations.iter().any(|one| one == "verify")) {
            return Err("is not for verifying (`key_ops`)".to_owned());
        }
        let algorithm = self.algorithm(issuer)?;
        if !issuer.allows(algorithm) {
            return Err(format!("{} is not among `algorithms`", algorithm.name()));
        }
        let material = self.public_key_bytes(algorithm).ok_or("has malformed key material")?;
        let kid = self.kid.clone().unwrap_or_default();
        VerifyingKey::foreign(&issuer.issuer, &kid, algorithm, &material)
            .map_err(|error| error.to_string())?;
        Ok(IssuerKey { kid, alg: algorithm.name().to_owned(), key: base64url::encode(&material) })
    }

    /// Returns the algorithm that the key names if it fits its kind, or else the one that its kind determines.
    fn algorithm(&self, issuer: &Issuer) -> Result<Algorithm, String> {
        let fitting: &[Algorithm] = match (self.kty.as_str(), self.crv.as_deref()) {
            ("OKP", Some("Ed25519")) => &[Algorithm::EdDsa],
            ("EC", Some("P-256")) => &[Algorithm::Es256],
            ("EC", Some("P-384")) => &[Algorithm::Es384],
            ("RSA", None) => &RSA_ALGORITHMS,
            _ => return Err("is of an unknown kind (`kty`, `crv`)".to_owned()),
        };
        match &self.alg {
            Some(name) => Algorithm::from_name(name)
                .filter(|algorithm| fitting.contains(algorithm))
                .ok_or_else(|| "has an `alg` that is unknown or does not fit its kind".to_owned()),
            None if fitting.len() == 1 => Ok(fitting[0]),
            None => {
                let default = issuer.default_algorithm.map(|algorithm| algorithm.0);
                let only = || {
                    let mut allowed = fitting.iter().copied().filter(|algorithm| issuer.allows(*algorithm));
                    allowed.next().filter(|_| allowed.next().is_none())
                };
                default
                    .filter(|algorithm| fitting.contains(algorithm))
                    .or_else(only)
                    .ok_or_else(|| "has no `alg`; set `default_algorithm` of the issuer".to_owned())
            }
        }
    }

    fn public_key_bytes(&self, algorithm: Algorithm) -> Option<Vec<u8>> {
        let number = |member: &Option<String>| base64url::decode(member.as_ref()?.as_bytes());
        match algorithm {
            Algorithm::EdDsa => number(&self.x),
            // RFC 7518 section 6.2.1.2: as long as the field, leading zeros included.
            Algorithm::Es256 | Algorithm::Es384 => {
                let size = if algorithm == Algorithm::Es256 { 32 } else { 48 };
                let (x, y) = (number(&self.x)?, number(&self.y)?);
                (x.len() == size && y.len() == size).then(|| [x, y].concat())
            }
            _ => {
                let (modulus, exponent) = (number(&self.n)?, number(&self.e)?);
                // RFC 7518 section 2, Base64urlUInt: no leading zeros.
                if exponent.len() > 4 || exponent.first() == Some(&0) || modulus.first() == Some(&0) {
                    return None;
                }
                let padding = vec![0; 4 - exponent.len()];
                Some([padding, exponent, modulus].concat())
            }
        }
    }
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
        let modulus: Vec<u8> = (0..bytes).map(|at| if at + 1 == bytes { 0xab } else { 0xc1 }).collect();
        json!({ "kty": "RSA", "kid": "rsa", "n": base64url::encode(&modulus), "e": "AQAB" })
    }

    fn read(keys: &[Value], more: &Value) -> Result<ParsedJwks, String> {
        parse(json!({ "keys": keys }).to_string().as_bytes(), &issuer(more))
            .map_err(|error| error.to_string())
    }

    fn with(mut key: Value, member: &str, value: Value) -> Value {
        key[member] = value;
        key
    }

    #[test]
    fn usable_keys_are_parsed_beside_unusable_ones() {
        let keys = [
            rsa(256),
            p256(),
            with(ed25519("ed"), "alg", json!("EdDSA")),
            with(ed25519("enc"), "use", json!("enc")),
            with(ed25519("ops"), "key_ops", json!(["sign"])),
            with(ed25519("alg"), "alg", json!("ES256")),
            with(ed25519("new"), "crv", json!("Ed448")),
            with(ed25519("long"), "x", json!("AAAA")),
            with(with(rsa(128), "kid", json!("weak")), "alg", json!("RS256")),
            with(ed25519("more"), "x5t", json!("ignored")),
        ];
        let ParsedJwks { keys, skipped } = read(&keys, &json!({ "default_algorithm": "RS256" })).unwrap();
        let names: Vec<_> = keys.iter().map(|key| (key.kid.as_str(), key.alg.as_str())).collect();
        assert_eq!(names, [("ec", "ES256"), ("ed", "EdDSA"), ("more", "EdDSA"), ("rsa", "RS256")]);
        assert!(keys.iter().all(|key| key.verifying_key("https://idp.example").is_some()));
        let left: Vec<_> = skipped.iter().map(|line| line.split(':').next().unwrap()).collect();
        assert_eq!(left, ["`enc`", "`ops`", "`alg`", "`new`", "`long`", "`weak`"]);
    }

    #[test]
    fn algorithm_comes_from_key_or_settings() {
        let alg = |more: &Value| Ok::<_, String>(read(&[rsa(256)], more)?.keys[0].alg.clone());
        assert!(alg(&json!({})).unwrap_err().contains("set `default_algorithm`"));
        assert_eq!(alg(&json!({ "default_algorithm": "PS256" })).unwrap(), "PS256");
        assert_eq!(alg(&json!({ "algorithms": ["RS512", "ES256"] })).unwrap(), "RS512");
        assert!(alg(&json!({ "algorithms": ["ES256"] })).unwrap_err().contains("no usable key"));
        let said = read(&[with(rsa(256), "alg", json!("RS384"))], &json!({ "algorithms": ["RS256"] }));
        assert!(said.unwrap_err().contains("RS384 is not among `algorithms`"));
    }

    #[test]
    fn ambiguous_key_sets_are_rejected() {
        let good = ed25519("good");
        for (keys, expected) in [
            (vec![], "the key set is empty"),
            (vec![good.clone(), json!({ "kty": "oct", "kid": "s", "k": "AAAA" })], "symmetric key `s`"),
            (vec![good.clone(), with(p256(), "d", json!("AAAA"))], "private key `ec`"),
            (vec![good.clone(), good.clone()], "two usable keys `good`"),
            (vec![good.clone(), json!({ "kid": "x" })], "a member is missing"),
            (vec![good.clone(), with(p256(), "kid", json!(5))], "of another type"),
            (vec![good.clone(); 101], "more than 100"),
        ] {
            let refused = read(&keys, &json!({})).unwrap_err();
            assert!(refused.contains(expected), "{refused}");
        }
        let many: Vec<_> = (0..33).map(|number| ed25519(&number.to_string())).collect();
        assert!(read(&many, &json!({})).unwrap_err().contains("32 usable"));
        for (text, expected) in [
            ("<html>", "invalid JSON"),
            ("[]", "a member is missing"),
            (r#"{"keys":[{"kty":"OKP","kty":"EC"}]}"#, "duplicated"),
            (r#"{"keys":[],"keys":[]}"#, "duplicated"),
        ] {
            let refused = parse(text.as_bytes(), &issuer(&json!({}))).unwrap_err().to_string();
            assert!(refused.contains(expected), "{text}: {refused}");
        }
    }

    #[test]
    fn key_coordinates_have_fixed_length() {
        for (key, member, value) in [
            (p256(), "x", json!("AA")),
            (rsa(256), "e", json!("AAEAAQ")),
            (rsa(256), "e", json!("AQABAAAB")),
            (rsa(256), "n", json!("AAAA")),
            (rsa(513), "kid", json!("large")),
        ] {
            let refused = read(&[with(key, member, value)], &json!({ "default_algorithm": "RS256" }));
            assert!(refused.unwrap_err().contains("no usable key"), "{member}");
        }
        // 4096 bits are the most that edges take.
        assert!(read(&[rsa(512)], &json!({ "default_algorithm": "RS256" })).is_ok());
    }
}
