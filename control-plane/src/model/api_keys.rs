use std::{fmt, str::FromStr};

use token::{Fingerprint, api_key::Prefix};

use super::{BadId, Subject};

/// The number of an API key, as edges and logs name it: `key-17`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApiKeyId(pub u64);

impl fmt::Display for ApiKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key-{}", self.0)
    }
}

impl FromStr for ApiKeyId {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        let number = text.strip_prefix("key-").and_then(|digits| digits.parse().ok());
        match number.map(Self) {
            // One spelling: no sign, no leading zero.
            Some(id) if id.to_string() == text => Ok(id),
            _ => Err(BadId("an API key is named by `key-` and its number, such as key-17")),
        }
    }
}

/// What the tag of an API key is bound to, and what edges take for its subject: the owner itself, or a name from
/// elsewhere; empty for a key that belongs to no particular user, whose subject is then `key-NUMBER`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Username(String);

impl Username {
    pub fn of(owner: &Subject, text: Option<&str>) -> Result<Self, BadId> {
        let Some(text) = text else { return Ok(Self(owner.to_string())) };
        let visible = text.bytes().all(|byte| byte.is_ascii_graphic());
        if text.len() > LONGEST_USERNAME || !visible {
            return Err(BadId("a username is at most 128 visible ASCII characters, without spaces"));
        }
        // Edges read an operator, a key or another issuer out of a subject of this form.
        let operator = text.split('/').next().unwrap_or_default();
        let taken = operator.parse::<super::OperatorId>().is_ok()
            || text.strip_prefix("key-").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))
            || text.contains('#');
        if taken && *text != owner.to_string() {
            return Err(BadId("a username of the form of a subject must be the owner of the key"));
        }
        Ok(Self(text.to_owned()))
    }

    pub(crate) const fn stored(text: String) -> Self {
        Self(text)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// An API key as it is kept: of the key only the fingerprint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    pub id: ApiKeyId,
    pub fingerprint: Fingerprint,
    pub generation: u8,
    pub owner: Subject,
    pub username: Username,
    pub prefix: Prefix,
    pub name: Option<String>,
    pub metadata: Option<serde_json::Value>,
    pub state: ApiKeyState,
    pub issued_at: u64,
    pub expires_at: Option<u64>,
    pub last_used_at: Option<u64>,
}

impl ApiKey {
    /// The name of its tag key, as watermarks and coverage know it.
    pub fn kid(&self) -> String {
        format!("tag-{}", self.generation)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiKeyState {
    Active,
    /// Refused until it is enabled again.
    Disabled,
    Expired,
}

const LONGEST_USERNAME: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_names_a_key_after_somebody_else() {
        let owner: Subject = "OP0123456789/alice".parse().unwrap();
        for (text, good) in [
            (None, true),
            (Some("OP0123456789/alice"), true),
            (Some("alice@example.com"), true),
            (Some(""), true),
            (Some("OP0123456789"), false),
            (Some("OP0123456789/bob"), false),
            (Some("OP9876543210/alice"), false),
            (Some("OP9876543210/"), false),
            (Some("key-1"), false),
            (Some("key-01"), false),
            (Some("https://idp.example#alice"), false),
            (Some("a b"), false),
            (Some("é"), false),
        ] {
            assert_eq!(Username::of(&owner, text).is_ok(), good, "{text:?}");
        }
        assert!(Username::of(&owner, Some(&"x".repeat(129))).is_err());
    }

    #[test]
    fn numbers_have_one_spelling() {
        assert_eq!("key-17".parse(), Ok(ApiKeyId(17)));
        for bad in ["17", "key-", "key-017", "key-+1", "key--1", "KEY-1", "key-1 "] {
            assert!(bad.parse::<ApiKeyId>().is_err(), "{bad}");
        }
    }
}
