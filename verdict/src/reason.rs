use core::fmt;

/// Why a request is refused. Each has one stable code, used in responses, metrics and logs alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    TooManyHeaders,
    CredentialMissing,
    CredentialAmbiguous,
    Token(token::Error),
    KeyUnknown,
    IssuerUnknown,
    AudienceMismatch,
    Expired,
    NotYetValid,
    IssuedInFuture,
    Watermark,
    Revoked,
    BundleMissing,
    BundleStale,
}

impl Reason {
    /// Every reason there is, for whoever counts them.
    pub const ALL: [Self; 18] = [
        Self::TooManyHeaders,
        Self::CredentialMissing,
        Self::CredentialAmbiguous,
        Self::Token(token::Error::TooLong),
        Self::Token(token::Error::Malformed),
        Self::Token(token::Error::NotCanonical),
        Self::Token(token::Error::AlgorithmMismatch),
        Self::Token(token::Error::SignatureInvalid),
        Self::KeyUnknown,
        Self::IssuerUnknown,
        Self::AudienceMismatch,
        Self::Expired,
        Self::NotYetValid,
        Self::IssuedInFuture,
        Self::Watermark,
        Self::Revoked,
        Self::BundleMissing,
        Self::BundleStale,
    ];

    pub const fn code(self) -> &'static str {
        match self {
            Self::TooManyHeaders => "headers_too_many",
            Self::CredentialMissing => "credential_missing",
            Self::CredentialAmbiguous => "credential_ambiguous",
            Self::Token(error) => error.code(),
            Self::KeyUnknown => "token_key_unknown",
            Self::IssuerUnknown => "token_issuer_unknown",
            Self::AudienceMismatch => "token_audience_mismatch",
            Self::Expired => "token_expired",
            Self::NotYetValid => "token_not_yet_valid",
            Self::IssuedInFuture => "token_issued_in_future",
            Self::Watermark => "watermark",
            Self::Revoked => "revoked",
            Self::BundleMissing => "bundle_missing",
            Self::BundleStale => "bundle_stale",
        }
    }

    /// 403 is for a good credential that is for something else, as in Envoy's `jwt_authn`.
    pub const fn status(self) -> u16 {
        match self {
            Self::AudienceMismatch => 403,
            Self::TooManyHeaders => 431,
            Self::BundleMissing | Self::BundleStale => 503,
            _ => 401,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooManyHeaders => "the request has too many headers",
            Self::CredentialMissing => "the request carries no credential",
            Self::CredentialAmbiguous => "the request carries more than one credential",
            Self::Token(error) => return error.fmt(f),
            Self::KeyUnknown => "the key that the token names is unknown",
            Self::IssuerUnknown => "the issuer of the token is unknown",
            Self::AudienceMismatch => "the token is for another audience",
            Self::Expired => "the token has expired",
            Self::NotYetValid => "the token is not valid yet",
            Self::IssuedInFuture => "the token was issued in the future",
            Self::Watermark | Self::Revoked => "the credential is revoked",
            Self::BundleMissing => "this edge has no revocation list yet",
            Self::BundleStale => "the revocation list of this edge is out of date",
        })
    }
}
