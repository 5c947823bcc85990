use token::{Claims, Fingerprint, Unverified};

use crate::{
    db::StoreError,
    domain::{AuthKeyId, Subject, UnixSeconds},
    revocation::{revocations, watermarks},
    service::Service,
};

/// Why a token could not be inspected.
#[derive(Debug, thiserror::Error)]
pub enum InspectTokenError {
    /// The text is not a valid token.
    #[error("{0}")]
    Token(token::Error),
    /// The token is signed with a key of another installation.
    #[error("the token is signed with an unknown key")]
    KeyUnknown,
    /// The token is signed with an own key, but has claims that this version does not issue.
    #[error("the token has claims that this control plane does not issue")]
    ForeignClaims,
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
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
    pub status: TokenStatus,
}

/// The status of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenStatus {
    /// The token is valid.
    Good,
    /// The token has expired.
    Expired,
    /// The fingerprint is revoked.
    Revoked,
    /// A watermark covers the token.
    Watermark,
}

impl TokenStatus {
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
    let key = keyring.verifying_keys().iter().find(|key| key.kid() == token.kid());
    let authentic =
        token.verify(key.ok_or(InspectTokenError::KeyUnknown)?).map_err(InspectTokenError::Token)?;
    let (claims, fingerprint) =
        (authentic.claims().ok_or(InspectTokenError::ForeignClaims)?.clone(), authentic.fingerprint());
    let subject: Subject = claims.sub.parse().map_err(|_| InspectTokenError::ForeignClaims)?;
    let auth_key: Option<AuthKeyId> =
        claims.akid.as_deref().map(str::parse).transpose().map_err(|_| InspectTokenError::ForeignClaims)?;
    let mut read = service.store.read().await?;
    let revoked = revocations::find(&mut read, &fingerprint).await?.is_some();
    let session = claims.sid.as_deref();
    let watermark =
        watermarks::highest_applicable(&mut read, token.kid(), &subject, auth_key.as_ref(), session).await?;
    let status = if revoked {
        TokenStatus::Revoked
    } else if watermark.is_some_and(|instant| UnixSeconds::new(claims.iat) <= instant) {
        TokenStatus::Watermark
    } else if claims.exp.is_some_and(|exp| service.now().seconds() >= UnixSeconds::new(exp)) {
        TokenStatus::Expired
    } else {
        TokenStatus::Good
    };
    Ok(InspectedToken { fingerprint, kid: token.kid().to_owned(), claims, status })
}
