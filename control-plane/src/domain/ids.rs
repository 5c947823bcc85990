use std::{fmt, str::FromStr};

use crate::platform::random;

/// The id of an operator: `OP` and ten digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OperatorId(String);

impl OperatorId {
    pub fn random() -> Self {
        Self(format!("OP{}", random::from_alphabet(random::DIGITS, 10)))
    }
}

impl FromStr for OperatorId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        match text.strip_prefix("OP") {
            Some(digits) if digits.len() == 10 && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                Ok(Self(text.to_owned()))
            }
            _ => Err(InvalidId("an operator id is `OP` and ten digits")),
        }
    }
}

/// The name of a user in its operator. The root user has none.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UserName(String);

impl FromStr for UserName {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        if text == ROOT_NAME {
            return Err(InvalidId("the user name `root` is reserved: leave the user out"));
        }
        if text == DEFAULT_PERMISSIONS_NAME {
            return Err(InvalidId(
                "the user name `default_permissions` is reserved: it is a path of the API",
            ));
        }
        let allowed =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'@' | b'+');
        if (1..=64).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidId("a user name is 1 to 64 characters out of A-Z a-z 0-9 . _ - @ +"))
        }
    }
}

/// The subject of a credential: `OP0123456789` is a root user, `OP0123456789/alice` another user.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Subject {
    pub operator: OperatorId,
    pub user: Option<UserName>,
}

impl Subject {
    pub fn is_root(&self) -> bool {
        self.user.is_none()
    }

    /// Returns the name that Soracom's clients show.
    pub fn user_name(&self) -> &str {
        self.user.as_ref().map_or(ROOT_NAME, UserName::as_str)
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.user {
            None => write!(f, "{}", self.operator),
            Some(user) => write!(f, "{}/{user}", self.operator),
        }
    }
}

impl FromStr for Subject {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        match text.split_once('/') {
            None => Ok(Self { operator: text.parse()?, user: None }),
            Some((operator, user)) => Ok(Self { operator: operator.parse()?, user: Some(user.parse()?) }),
        }
    }
}

/// The id of an AuthKey: `keyId-` and letters and digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AuthKeyId(String);

impl AuthKeyId {
    pub fn random() -> Self {
        Self(format!("keyId-{}", random::from_alphabet(random::ALPHANUMERIC, 32)))
    }
}

impl FromStr for AuthKeyId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        match text.strip_prefix("keyId-") {
            Some(rest)
                if (1..=64).contains(&rest.len()) && rest.bytes().all(|b| b.is_ascii_alphanumeric()) =>
            {
                Ok(Self(text.to_owned()))
            }
            _ => Err(InvalidId("an AuthKey id is `keyId-` and 1 to 64 letters and digits")),
        }
    }
}

/// The id of a session: `api-` and a UUID. Soracom calls it `apiKey`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SessionId(String);

impl SessionId {
    pub fn random() -> Self {
        Self(format!("api-{}", random::uuid()))
    }
}

impl FromStr for SessionId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let allowed = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f' | b'-');
        match text.strip_prefix("api-") {
            Some(uuid) if uuid.len() == 36 && uuid.bytes().all(allowed) => Ok(Self(text.to_owned())),
            _ => Err(InvalidId("a session id is `api-` and a lower-case UUID")),
        }
    }
}

/// The number of an API key, as edges and logs name it: `key-17`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApiKeyId(pub u64);

impl fmt::Display for ApiKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key-{}", self.0)
    }
}

impl FromStr for ApiKeyId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let number = text.strip_prefix("key-").and_then(|digits| digits.parse().ok());
        match number.map(Self) {
            // One spelling: no sign, no leading zero.
            Some(id) if id.to_string() == text => Ok(id),
            _ => Err(InvalidId("an API key is named by `key-` and its number, such as key-17")),
        }
    }
}

/// The id of a key that can be revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RevocableKeyId {
    AuthKey(AuthKeyId),
    Session(SessionId),
    ApiKey(ApiKeyId),
}

impl FromStr for RevocableKeyId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        if text.starts_with("keyId-") {
            text.parse().map(Self::AuthKey)
        } else if text.starts_with("api-") {
            text.parse().map(Self::Session)
        } else if text.starts_with("key-") {
            text.parse().map(Self::ApiKey)
        } else {
            Err(InvalidId("a key id begins with `keyId-` (AuthKey), `api-` (session) or `key-` (API key)"))
        }
    }
}

impl fmt::Display for RevocableKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AuthKey(id) => id.fmt(f),
            Self::Session(id) => id.fmt(f),
            Self::ApiKey(id) => id.fmt(f),
        }
    }
}

/// The name of a role in its operator.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RoleId(String);

impl FromStr for RoleId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if (1..=64).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidId("a role is 1 to 64 characters out of A-Z a-z 0-9 . _ -"))
        }
    }
}

/// The name of an edge: a proxy instance, or several that share a credential.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EdgeId(String);

impl FromStr for EdgeId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if (1..=64).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidId("an edge name is 1 to 64 characters out of A-Z a-z 0-9 . _ -"))
        }
    }
}

/// An id has the wrong form. The text describes the right one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidId(pub(super) &'static str);

macro_rules! string_id {
    ($($id:ident),*) => {$(
        impl $id {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

string_id!(OperatorId, UserName, RoleId, AuthKeyId, SessionId, EdgeId);

const ROOT_NAME: &str = "root";

/// Reserved, as `/operators/{id}/users/default_permissions` is another resource of the API.
const DEFAULT_PERMISSIONS_NAME: &str = "default_permissions";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_ids_are_parsed() {
        assert!(OperatorId::random().as_str().parse::<OperatorId>().is_ok());
        assert!(matches!(AuthKeyId::random().as_str().parse(), Ok(RevocableKeyId::AuthKey(_))));
        assert!(matches!(SessionId::random().as_str().parse(), Ok(RevocableKeyId::Session(_))));
    }

    #[test]
    fn subjects_have_one_spelling() {
        for good in ["OP0123456789", "OP0123456789/alice"] {
            assert_eq!(good.parse::<Subject>().map(|subject| subject.to_string()), Ok(good.to_owned()));
        }
        for bad in [
            "",
            "OP1",
            "op0123456789",
            "OP0123456789/",
            "OP0123456789/root",
            "OP0123456789/default_permissions",
            "OP0123456789/a/b",
            "OP01234567890",
        ] {
            assert!(bad.parse::<Subject>().is_err(), "{bad}");
        }
    }
}
