use alloc::{string::String, vec::Vec};

use serde::Deserialize;
use token::Authentic;

use crate::{
    Reason,
    config::{non_empty, one_or_more},
};

/// Another issuer whose tokens are accepted. Its keys come in the bundle.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct OtherIssuer {
    /// What `iss` must be, to the byte.
    #[serde(deserialize_with = "non_empty")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1)))]
    pub(crate) issuer: String,
    /// The token must be for one of them (RFC 8725 section 3.9).
    #[serde(deserialize_with = "one_or_more")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1)))]
    audiences: Vec<String>,
    #[serde(default)]
    profile: Profile,
    /// The longest that a token may live from its issue.
    #[serde(default)]
    max_lifetime_seconds: Option<u64>,
}

/// What the tokens of an issuer must be like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
enum Profile {
    /// With `sub` and `exp`. A token for another purpose, such as an ID token, differs by its audience alone.
    #[default]
    Jwt,
    /// RFC 9068: of the type `at+jwt`, with all that section 2.2 requires.
    Rfc9068,
}

impl OtherIssuer {
    /// What does not change while a token lives.
    pub(crate) fn check(&self, token: &Authentic) -> Result<(), Reason> {
        let Self { issuer: _, audiences, profile, max_lifetime_seconds } = self;
        if *profile == Profile::Rfc9068 {
            if !token.is_only_access() {
                return Err(Reason::TokenTypeWrong);
            }
            if !RFC_9068.iter().all(|name| token.members().contains_key(*name)) {
                return Err(Reason::TokenIncomplete);
            }
        }
        let Some(expires_at) = token.expires_at() else { return Err(Reason::TokenIncomplete) };
        if let Some(most) = max_lifetime_seconds {
            let issued_at = token.issued_at().ok_or(Reason::TokenIncomplete)?;
            if expires_at.saturating_sub(issued_at) > *most {
                return Err(Reason::LifetimeTooLong);
            }
        }
        if !token.audiences().any(|audience| audiences.iter().any(|known| known == audience)) {
            return Err(Reason::AudienceMismatch);
        }
        Ok(())
    }
}

const RFC_9068: [&str; 7] = ["iss", "exp", "aud", "sub", "client_id", "iat", "jti"];
