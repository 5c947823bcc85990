//! Tokens of other issuers.

use alloc::{string::String, vec::Vec};

use serde::Deserialize;
use token::Authentic;

use crate::{
    Reason,
    config::{non_empty, one_or_more},
};

/// The claims that RFC 9068 section 2.2 requires.
const REQUIRED_CLAIMS: [&str; 7] = ["iss", "exp", "aud", "sub", "client_id", "iat", "jti"];

/// Another issuer whose tokens are accepted. The bundle contains its keys.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ForeignIssuer {
    /// The required `iss`, compared byte by byte.
    #[serde(deserialize_with = "non_empty")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1)))]
    pub(crate) issuer: String,
    /// The accepted audiences: a token must have at least one of them (RFC 8725 section 3.9).
    #[serde(deserialize_with = "one_or_more")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1)))]
    pub(crate) audiences: Vec<String>,
    /// The requirements on the tokens.
    #[serde(default)]
    profile: Profile,
    /// The maximum time from `iat` to `exp`, in seconds.
    #[serde(default)]
    max_lifetime_seconds: Option<u64>,
}

/// The requirements on the tokens of an issuer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
enum Profile {
    /// A JWT with `sub` and `exp`. Only its audience distinguishes it from a token for another purpose, such as an ID token.
    #[default]
    Jwt,
    /// An access token by RFC 9068: of the type `at+jwt`, with all claims that section 2.2 requires.
    Rfc9068,
}

impl ForeignIssuer {
    /// Checks the requirements that do not depend on the current time.
    pub(crate) fn check(&self, token: &Authentic) -> Result<(), Reason> {
        let Self { issuer: _, audiences, profile, max_lifetime_seconds } = self;
        if *profile == Profile::Rfc9068 {
            if !token.is_access_token_typ() {
                return Err(Reason::TokenTypeWrong);
            }
            if !REQUIRED_CLAIMS.iter().all(|name| token.members().contains_key(*name)) {
                return Err(Reason::TokenIncomplete);
            }
        }
        let Some(expires_at) = token.expires_at() else { return Err(Reason::TokenIncomplete) };
        if let Some(max_lifetime) = max_lifetime_seconds {
            let issued_at = token.issued_at().ok_or(Reason::TokenIncomplete)?;
            if expires_at.saturating_sub(issued_at) > *max_lifetime {
                return Err(Reason::LifetimeTooLong);
            }
        }
        if !token.audiences().any(|audience| audiences.iter().any(|known| known == audience)) {
            return Err(Reason::AudienceMismatch);
        }
        Ok(())
    }
}
