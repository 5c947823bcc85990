use std::fmt;

use token::{Claims, Fingerprint, Unverified};

use super::Service;
use crate::{
    model::{AuthKeyId, Subject},
    store::{StoreError, revocations, watermarks},
};

/// Why a token could not be inspected.
#[derive(Debug)]
pub enum InspectTokenError {
    /// The text is not a valid token.
    Token(token::Error),
    /// The token is signed with a key of another installation.
    KeyUnknown,
    /// The token is signed with an own key, but has claims that this version does not issue.
    Foreign,
    /// The store cannot be read.
    Store(StoreError),
}

impl fmt::Display for InspectTokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(error) => error.fmt(f),
            Self::KeyUnknown => f.write_str("the token is signed with an unknown key"),
            Self::Foreign => f.write_str("the token has claims that this control plane does not issue"),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for InspectTokenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Store(error) => error.source(),
            Self::Token(_) | Self::KeyUnknown | Self::Foreign => None,
        }
    }
}

impl From<StoreError> for InspectTokenError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// A token and its present status.
#[derive(Debug, Clone)]
pub struct InspectedToken {
    /// The fingerprint.
    pub fingerprint: Fingerprint,
    /// The `kid` of the signing key.
    pub kid: String,
    /// The claims.
    pub claims: Claims,
    /// The status.
    pub standing: TokenStanding,
}

/// The status of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenStanding {
    /// The token is valid.
    Good,
    /// The token has expired.
    Expired,
    /// The fingerprint is revoked.
    Revoked,
    /// A watermark covers the token.
    Watermark,
}

impl TokenStanding {
    /// Returns the name in JSON and on the command line.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Watermark => "watermark",
        }
    }
}

/// Verifies a token, and determines its status.
pub async fn inspect_token(service: &Service, text: &str) -> Result<InspectedToken, InspectTokenError> {
    let token = Unverified::parse(text.as_bytes()).map_err(InspectTokenError::Token)?;
    let keyring = service.keys.current();
    let key = keyring.verifying().iter().find(|key| key.kid() == token.kid());
    let authentic =
        token.verify(key.ok_or(InspectTokenError::KeyUnknown)?).map_err(InspectTokenError::Token)?;
    let (claims, fingerprint) =
        (authentic.claims().ok_or(InspectTokenError::Foreign)?.clone(), authentic.fingerprint());
    let subject: Subject = claims.sub.parse().map_err(|_| InspectTokenError::Foreign)?;
    let auth_key: Option<AuthKeyId> =
        claims.akid.as_deref().map(str::parse).transpose().map_err(|_| InspectTokenError::Foreign)?;
    let mut read = service.store.read().await?;
    let revoked = revocations::find(&mut read, &fingerprint).await?.is_some();
    let session = claims.sid.as_deref();
    let watermark =
        watermarks::highest_applicable(&mut read, token.kid(), &subject, auth_key.as_ref(), session).await?;
    let standing = if revoked {
        TokenStanding::Revoked
    } else if watermark.is_some_and(|instant| claims.iat <= instant) {
        TokenStanding::Watermark
    } else if claims.exp.is_some_and(|exp| service.now().seconds() >= exp) {
        TokenStanding::Expired
    } else {
        TokenStanding::Good
    };
    Ok(InspectedToken { fingerprint, kid: token.kid().to_owned(), claims, standing })
}
