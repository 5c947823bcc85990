use token::{
    Fingerprint,
    api_key::{self, Kind, Prefix},
};

use super::{ApiKeyId, InvalidId, Subject, UnixSeconds};

/// The username that a client presents with an API key. The key is bound to it. Together with the operator in the key it
/// determines the subject: the owner, or, for a key of the root user, a name in the operator that is not that of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresentedUsername(String);

impl PresentedUsername {
    /// Parses a username for a key of an owner. Without a text, returns the owner's subject.
    pub fn parse_for(owner: &Subject, text: Option<&str>) -> Result<Self, InvalidId> {
        let Some(text) = text else { return Ok(Self(owner.to_string())) };
        let subject = api_key::subject(owner.operator.as_str(), text);
        let subject = subject.and_then(|subject| subject.parse::<Subject>().ok());
        let bare = !text.contains('/');
        match (subject, &owner.user) {
            (None, _) => Err(InvalidId(
                "a username is the owner of the key, or 1 to 64 characters of A-Z a-z 0-9 . _ - @ + that are not an \
                 operator id",
            )),
            (Some(subject), _) if subject == *owner => Ok(Self(text.to_owned())),
            // Edges apply the grants and watermarks of the user that the username names.
            (Some(_), Some(_)) => Err(InvalidId(
                "the subject of a user's key is this user: its username is OPERATOR/NAME or NAME; for another name make \
                 the key that user's with --user",
            )),
            (Some(_), None) if bare => Ok(Self(text.to_owned())),
            (Some(_), None) => Err(InvalidId(
                "a username of the form of a subject must be the owner of the key; name that with --user",
            )),
        }
    }

    /// Returns a stored username, which may be of an earlier version.
    pub const fn from_stored(text: String) -> Self {
        Self(text)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the subject that edges assign to a key of this owner. With format 1 the username itself is the subject.
    pub fn subject(&self, owner: &Subject) -> Subject {
        let subject = api_key::subject(owner.operator.as_str(), &self.0);
        subject.and_then(|subject| subject.parse().ok()).unwrap_or_else(|| owner.clone())
    }
}

/// A generation of API keys. The private key is a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generation {
    /// The number.
    pub number: u8,
    /// The format of its API keys.
    pub kind: Kind,
    /// The public key; `None` for a symmetric key.
    pub public: Option<[u8; 32]>,
}

impl Generation {
    /// Returns the `kid`, which watermarks and coverage use.
    pub fn kid(&self) -> String {
        tag_kid(self.number)
    }
}

/// The stored record of an API key: the key itself is stored as a fingerprint only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    pub id: ApiKeyId,
    pub fingerprint: Fingerprint,
    pub generation: u8,
    pub kind: Kind,
    pub owner: Subject,
    pub username: PresentedUsername,
    pub prefix: Prefix,
    pub name: Option<String>,
    pub metadata: Option<serde_json::Value>,
    pub state: ApiKeyState,
    pub issued_at: UnixSeconds,
    /// The expiry in the key itself, which edges verify. `None` if the key has none, or its format does not contain it.
    pub ends_at: Option<UnixSeconds>,
    /// The expiry that applies, at or before `ends_at`.
    pub expires_at: Option<UnixSeconds>,
    pub last_used_at: Option<UnixSeconds>,
}

impl ApiKey {
    /// Returns the `kid` of its generation, which watermarks and coverage use.
    pub fn kid(&self) -> String {
        tag_kid(self.generation)
    }
}

/// The state of an API key in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiKeyState {
    /// The key was neither disabled nor has it expired.
    Active,
    /// The key is refused until it is enabled again.
    Disabled,
    /// The key has expired or was replaced.
    Expired,
}

/// Returns the `kid` of a generation of API keys.
pub fn tag_kid(generation: u8) -> String {
    format!("tag-{generation}")
}

/// Returns whether a `kid` is that of a generation of API keys. Signing keys of tokens begin with `ks-`.
pub fn is_tag_kid(kid: &str) -> bool {
    kid.starts_with("tag-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn username_inside_operator_must_match_owner() {
        let long = "x".repeat(65);
        for (text, of_alice, of_root) in [
            (None, Some("OP0123456789/alice"), Some("OP0123456789")),
            (Some(""), None, Some("OP0123456789")),
            (Some("OP0123456789"), None, Some("OP0123456789")),
            (Some("OP0123456789/alice"), Some("OP0123456789/alice"), None),
            (Some("alice"), Some("OP0123456789/alice"), Some("OP0123456789/alice")),
            (Some("alice@example.com"), None, Some("OP0123456789/alice@example.com")),
            (Some("key-1"), None, Some("OP0123456789/key-1")),
            (Some("OP0123456789/bob"), None, None),
            (Some("OP9876543210"), None, None),
            (Some("OP9876543210/alice"), None, None),
            (Some("OP9876543210/"), None, None),
            (Some("OP0123456789/"), None, None),
            (Some("OP0123456789/alice/bob"), None, None),
            (Some("alice/bob"), None, None),
            (Some("root"), None, None),
            (Some("https://idp.example#alice"), None, None),
            (Some("a b"), None, None),
            (Some("a,b"), None, None),
            (Some("é"), None, None),
            (Some(&long), None, None),
        ] {
            for (owner, expected) in [("OP0123456789/alice", of_alice), ("OP0123456789", of_root)] {
                let owner: Subject = owner.parse().unwrap();
                let subject = PresentedUsername::parse_for(&owner, text)
                    .ok()
                    .map(|username| username.subject(&owner).to_string());
                assert_eq!(subject.as_deref(), expected, "{owner} {text:?}");
            }
        }
    }

    #[test]
    fn api_key_id_has_one_spelling() {
        assert_eq!("key-17".parse(), Ok(ApiKeyId(17)));
        for bad in ["17", "key-", "key-017", "key-+1", "key--1", "KEY-1", "key-1 "] {
            assert!(bad.parse::<ApiKeyId>().is_err(), "{bad}");
        }
    }
}
