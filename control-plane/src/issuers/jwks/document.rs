//! JSON documents as issuers serve them, and what a document seems to be that is not the expected one.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};

/// A JSON value that keeps duplicate members. Only what a key set needs is kept of numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Json {
    Null,
    Bool,
    /// `None` if it is negative, a fraction, or too large.
    Number(Option<u64>),
    Text(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Parses a document, with or without a byte order mark.
    pub(super) fn parse(text: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(without_byte_order_mark(text))
    }

    pub(super) fn members(&self) -> &[(String, Self)] {
        match self {
            Self::Object(members) => members,
            _ => &[],
        }
    }

    /// Returns the first member with this name that is not null: many libraries write null for what is absent.
    pub(super) fn get(&self, name: &str) -> Option<&Self> {
        let mut members =
            self.members().iter().filter(|(known, value)| known == name && *value != Self::Null);
        members.next().map(|(_, value)| value)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Returns whether the object has a member with this name more than once.
    pub(super) fn has_twice(&self, name: &str) -> bool {
        self.members().iter().filter(|(known, _)| known == name).count() > 1
    }

    /// Returns the text of a member; `None` if it is absent or of another type.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match self.get(name) {
            Some(Self::Text(text)) => Some(text),
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Values;

        impl<'de> Visitor<'de> for Values {
            type Value = Json;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }

            fn visit_unit<E>(self) -> Result<Json, E> {
                Ok(Json::Null)
            }

            fn visit_bool<E>(self, _: bool) -> Result<Json, E> {
                Ok(Json::Bool)
            }

            fn visit_u64<E>(self, number: u64) -> Result<Json, E> {
                Ok(Json::Number(Some(number)))
            }

            fn visit_i64<E>(self, _: i64) -> Result<Json, E> {
                Ok(Json::Number(None))
            }

            fn visit_f64<E>(self, _: f64) -> Result<Json, E> {
                Ok(Json::Number(None))
            }

            fn visit_str<E>(self, text: &str) -> Result<Json, E> {
                Ok(Json::Text(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Json, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = from.next_element()? {
                    items.push(item);
                }
                Ok(Json::Array(items))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Json, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = from.next_entry()? {
                    members.push(member);
                }
                Ok(Json::Object(members))
            }
        }

        from.deserialize_any(Values)
    }
}

/// What a document seems to be, by its form alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DocumentKind {
    Empty,
    Html,
    Xml,
    /// In the textual form of RFC 7468: `-----BEGIN`.
    Pem,
    /// A signed token, such as a signed key set.
    Jwt,
    NotJson {
        line: usize,
        column: usize,
    },
    /// A document of OpenID Connect Discovery or RFC 8414.
    Discovery,
    KeySet,
    /// One JSON Web Key.
    Key,
    /// An array of JSON Web Keys.
    KeyArray,
    /// Certificates or public keys by `kid`, as Google publishes them beside a key set.
    CertificateMap,
    /// The key set is in the member `jwks`.
    Nested,
    /// The member `keys` is not an array.
    KeysOfAnotherType,
    /// The member `keys` occurs twice.
    KeysTwice,
    /// The member is `Keys` or `KEYS`.
    KeysInCapitals,
    /// A description of a Keycloak realm.
    Realm,
    Error,
    EmptyObject,
    OtherObject,
    OtherJson,
}

impl DocumentKind {
    pub(super) fn of_text(text: &[u8]) -> Self {
        match Json::parse(text) {
            Ok(json) => Self::of_json(&json),
            Err(error) => Self::of_other_text(without_byte_order_mark(text), &error),
        }
    }

    pub(super) fn of_json(json: &Json) -> Self {
        match json {
            Json::Object(members) if members.is_empty() => Self::EmptyObject,
            Json::Object(_) => Self::of_object(json),
            Json::Array(items) if items.iter().any(|item| item.has("kty")) => Self::KeyArray,
            _ => Self::OtherJson,
        }
    }

    fn of_object(json: &Json) -> Self {
        let is_certificate =
            |value: &Json| matches!(value, Json::Text(text) if text.trim_start().starts_with("-----BEGIN"));
        if json.has_twice("keys") {
            return Self::KeysTwice;
        }
        match json.get("keys") {
            Some(Json::Array(_)) => return Self::KeySet,
            Some(_) => return Self::KeysOfAnotherType,
            None => {}
        }
        if json.has("jwks_uri") || json.has("issuer") && json.has("token_endpoint") {
            Self::Discovery
        } else if json.has("kty") {
            Self::Key
        } else if json.members().iter().all(|(_, value)| is_certificate(value)) {
            Self::CertificateMap
        } else if json.get("jwks").is_some_and(|jwks| jwks.has("keys")) {
            Self::Nested
        } else if json.members().iter().any(|(name, _)| name != "keys" && name.eq_ignore_ascii_case("keys")) {
            Self::KeysInCapitals
        } else if json.has("realm") && json.has("public_key") {
            Self::Realm
        } else if ["error", "errors", "error_code", "errorCode", "message", "detail", "fault", "status"]
            .iter()
            .any(|name| json.has(name))
        {
            Self::Error
        } else {
            Self::OtherObject
        }
    }

    fn of_other_text(text: &[u8], error: &serde_json::Error) -> Self {
        let start = text.trim_ascii_start();
        let begins_with =
            |prefix: &[u8]| start.get(..prefix.len()).is_some_and(|found| found.eq_ignore_ascii_case(prefix));
        let is_html = |text: &[u8]| {
            let lower = text.to_ascii_lowercase();
            [b"<html".as_slice(), b"<!doctype html", b"<head", b"<body"]
                .iter()
                .any(|tag| lower.windows(tag.len()).any(|part| part == *tag))
        };
        let parts = start.trim_ascii_end().split(|byte| *byte == b'.');
        if start.is_empty() {
            Self::Empty
        } else if begins_with(b"<") && is_html(start) {
            Self::Html
        } else if begins_with(b"<") {
            Self::Xml
        } else if begins_with(b"-----begin") {
            Self::Pem
        } else if begins_with(b"eyJ") && parts.count() == 3 {
            Self::Jwt
        } else {
            Self::NotJson { line: error.line(), column: error.column() }
        }
    }

    /// Returns what to do where a key set is expected.
    pub(super) const fn advice_for_key_set(self) -> &'static str {
        match self {
            Self::Discovery => {
                "set `jwks_url` to its `jwks_uri`, or leave `jwks_url` out, so that discovery finds it"
            }
            Self::Key => {
                "put it into an array: {\"keys\": [...]}, or set `jwks_url` to the URL of the whole set"
            }
            Self::KeyArray => "put it into an object: {\"keys\": [...]}",
            Self::CertificateMap => {
                "set `jwks_url` to the URL of the same keys as a JSON Web Key Set (of Google: \
                 https://www.googleapis.com/oauth2/v3/certs, of Firebase: \
                 https://www.googleapis.com/service_accounts/v1/jwk/securetoken@system.gserviceaccount.com)"
            }
            Self::Nested => "publish the content of `jwks` itself",
            Self::KeysOfAnotherType => "`keys` must be an array of JSON Web Keys",
            Self::KeysTwice => "publish one array `keys`",
            Self::KeysInCapitals => "the member must be `keys`, in lower case",
            Self::Realm => "set `jwks_url` to REALM/protocol/openid-connect/certs",
            Self::Pem => "publish the keys as a JSON Web Key Set (RFC 7517)",
            Self::Jwt => "signed key sets are not supported: set `jwks_url` to the plain one",
            Self::Html | Self::Xml => {
                "check `jwks_url`, and whether a sign-in page or a proxy answers in place of the issuer"
            }
            Self::Error => "check `jwks_url` and what the issuer permits",
            Self::Empty | Self::EmptyObject | Self::OtherObject | Self::OtherJson | Self::NotJson { .. } => {
                "check `jwks_url`: a key set is {\"keys\": [...]}"
            }
            Self::KeySet => "remove `jwks_url`",
        }
    }

    /// Returns what to do where a discovery document is expected.
    pub(super) const fn advice_for_discovery(self) -> &'static str {
        match self {
            Self::KeySet | Self::Key | Self::CertificateMap | Self::KeyArray => {
                "set `jwks_url` to this URL, so that no discovery is needed"
            }
            Self::Discovery => "it lacks `issuer` or `jwks_uri`; set `jwks_url` to the URL of the keys",
            _ => "set `jwks_url` to the URL of the keys if the issuer has no discovery",
        }
    }
}

impl fmt::Display for DocumentKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "an empty document",
            Self::Html => "an HTML page",
            Self::Xml => "XML",
            Self::Pem => "a key or certificate in PEM",
            Self::Jwt => "a signed token",
            Self::NotJson { line, column } => {
                return write!(f, "invalid JSON at line {line} column {column}");
            }
            Self::Discovery => "a discovery document",
            Self::KeySet => "a key set",
            Self::Key => "one JSON Web Key",
            Self::KeyArray => "an array of JSON Web Keys",
            Self::CertificateMap => "a map of certificates by `kid`",
            Self::Nested => "an object whose member `jwks` is a key set",
            Self::KeysOfAnotherType => "an object whose member `keys` is not an array",
            Self::KeysTwice => "an object with a duplicate member `keys`",
            Self::KeysInCapitals => "an object whose member `keys` is in capitals",
            Self::Realm => "the description of a Keycloak realm",
            Self::Error => "an error message",
            Self::EmptyObject => "an empty object",
            Self::OtherObject => "an object without `keys`",
            Self::OtherJson => "JSON, but not an object",
        })
    }
}

fn without_byte_order_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)
}
