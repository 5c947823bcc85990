//! Names of other issuers, and of what they name in their tokens.

use std::{fmt, str::FromStr};

use bundle::{MAX_FOREIGN_NAME_BYTES, split_foreign_name};

use super::{InvalidId, Subject};

/// The `iss` of another issuer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IssuerName(String);

impl IssuerName {
    /// Returns the value of `iss`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for IssuerName {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let is_valid = (1..=MAX_FOREIGN_NAME_BYTES).contains(&text.len()) && !text.contains(char::is_control);
        match is_valid {
            true => Ok(Self(text.to_owned())),
            false => Err(InvalidId("an issuer is 1 to 2,048 bytes without control characters")),
        }
    }
}

impl fmt::Display for IssuerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A subject, client, session or token of another issuer, as [`bundle::foreign_name`] writes it: `ISSUER#NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ForeignName {
    text: String,
    issuer: String,
}

impl ForeignName {
    /// Returns the text `ISSUER#NAME`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the `iss` of the tokens.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }
}

impl FromStr for ForeignName {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        if text.len() > MAX_FOREIGN_NAME_BYTES || text.contains(char::is_control) {
            return Err(InvalidId(
                "a name of another issuer has at most 2,048 bytes and no control characters",
            ));
        }
        match split_foreign_name(text) {
            Some((issuer, name)) if !issuer.is_empty() && !name.is_empty() => {
                Ok(Self { text: text.to_owned(), issuer })
            }
            _ => Err(InvalidId(
                "expected ISSUER#NAME, for example https://idp.example#u-1; in the issuer, `#` is written `%23`",
            )),
        }
    }
}

impl fmt::Display for ForeignName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A subject of this deployment or of another issuer. Only the latter contains `#`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum AnySubject {
    /// An operator or a user.
    Own(Subject),
    /// A subject of another issuer.
    Foreign(ForeignName),
}

impl FromStr for AnySubject {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        if text.contains('#') {
            return text.parse().map(Self::Foreign);
        }
        text.parse().map(Self::Own).map_err(|_: InvalidId| {
            InvalidId(
                "a subject is an operator (`OP` and ten digits), a user (OPERATOR/NAME), or a subject of another \
                 issuer (ISSUER#SUBJECT)",
            )
        })
    }
}

impl fmt::Display for AnySubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(subject) => subject.fmt(f),
            Self::Foreign(subject) => subject.fmt(f),
        }
    }
}

impl From<ForeignName> for AnySubject {
    fn from(subject: ForeignName) -> Self {
        Self::Foreign(subject)
    }
}

impl From<Subject> for AnySubject {
    fn from(subject: Subject) -> Self {
        Self::Own(subject)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_of_other_issuers_are_never_own_subjects() {
        for (text, issuer) in [
            ("https://idp.example#u-1", "https://idp.example"),
            ("https://idp.example#OP0123456789", "https://idp.example"),
            ("https://idp.example#OP0123456789/alice", "https://idp.example"),
            ("https://idp.example#https://other.example#u-1", "https://idp.example"),
            ("a%23b#c", "a#b"),
            ("OP0123456789#x", "OP0123456789"),
            ("idp#Jane Doe", "idp"),
            ("idp#CN=svc,O=Example Inc", "idp"),
            ("idp#J\u{fc}rgen", "idp"),
        ] {
            let Ok(AnySubject::Foreign(subject)) = text.parse() else { panic!("{text}") };
            assert_eq!((subject.as_str(), subject.issuer()), (text, issuer));
            assert!(text.parse::<Subject>().is_err(), "{text}");
        }
        for own in ["OP0123456789", "OP0123456789/alice"] {
            assert_eq!(own.parse(), Ok(AnySubject::Own(own.parse().unwrap())));
        }
        let long = format!("idp#{}", "x".repeat(MAX_FOREIGN_NAME_BYTES));
        for bad in ["", "#", "idp#", "#u-1", "u-1", "idp#a\nb", "idp#a\u{7f}", "a%2523", &*long] {
            assert!(bad.parse::<AnySubject>().is_err(), "{bad}");
        }
    }
}
