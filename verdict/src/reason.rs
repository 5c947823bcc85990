use core::fmt;

use token::api_key;

use crate::route::Unroutable;

/// Why a request is refused. Each has one stable code, used in responses, metrics and logs alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The request has more headers than a host keeps.
    TooManyHeaders,
    /// The request carries no credential, and one is required.
    CredentialMissing,
    /// The request carries more than one credential, or one in two readings.
    CredentialAmbiguous,
    /// It is in a place that the rule does not accept.
    CredentialMisplaced,
    /// The token is malformed, or its signature does not verify.
    Token(token::Error),
    /// The API key is malformed, or its proof does not verify.
    ApiKey(api_key::Error),
    /// The API key is of a generation whose key is not known here.
    GenerationUnknown,
    /// The end that stands in the API key is over.
    ApiKeyExpired,
    /// The token says that it is something else than an access token.
    TokenTypeWrong,
    /// A claim is missing, or none that can be used, that every token of its issuer must have.
    TokenIncomplete,
    /// The token lives longer than the policy lets its issuer say.
    LifetimeTooLong,
    /// Of a pair, the API key is missing or not the one that the token names.
    PairMismatch,
    /// The bundle has no key of that `kid`.
    KeyUnknown,
    /// The policy accepts no such issuer.
    IssuerUnknown,
    /// The token names none of the accepted audiences.
    AudienceMismatch,
    /// The `exp` of the token has passed.
    Expired,
    /// The `nbf` of the token is ahead.
    NotYetValid,
    /// The `iat` of the token is ahead.
    IssuedInFuture,
    /// A watermark covers the credential.
    Watermark,
    /// It was issued in a gap of what the control plane knows, and is not known.
    IssuanceUnknown,
    /// The credential is revoked by its fingerprint.
    Revoked,
    /// No base says whether it is good, and the policy takes that for no.
    NotCovered,
    /// No bundle is loaded yet.
    BundleMissing,
    /// By `outage_grace_seconds`, which has ended.
    BundleStale,
    /// By `deny`.
    BundleStaleDenied,
    /// By `issued_within_seconds`.
    BundleStaleIssuedEarlier,
    /// The request cannot be read in one way only.
    Unroutable(Unroutable),
    /// No rule matches the request.
    RouteUnmatched,
    /// The rule does not accept the issuer of the token.
    IssuerNotAccepted,
    /// The token lacks a claim that the rule demands.
    ClaimMissing,
    /// The token lacks a scope that the rule demands.
    ScopeMissing,
    /// The permissions of the subject do not allow the operation.
    PermissionDenied,
}

impl Reason {
    /// Every reason there is, for whoever counts them.
    pub const ALL: [Self; 54] = [
        Self::TooManyHeaders,
        Self::CredentialMissing,
        Self::CredentialAmbiguous,
        Self::CredentialMisplaced,
        Self::Token(token::Error::TooLong),
        Self::Token(token::Error::Malformed),
        Self::Token(token::Error::NotCanonical),
        Self::Token(token::Error::AlgorithmMismatch),
        Self::Token(token::Error::SignatureInvalid),
        Self::ApiKey(api_key::Error::Prefix),
        Self::ApiKey(api_key::Error::Length),
        Self::ApiKey(api_key::Error::Alphabet),
        Self::ApiKey(api_key::Error::Checksum),
        Self::ApiKey(api_key::Error::NotCanonical),
        Self::ApiKey(api_key::Error::Format),
        Self::ApiKey(api_key::Error::Tag),
        Self::ApiKey(api_key::Error::Signature),
        Self::GenerationUnknown,
        Self::ApiKeyExpired,
        Self::TokenTypeWrong,
        Self::TokenIncomplete,
        Self::LifetimeTooLong,
        Self::PairMismatch,
        Self::KeyUnknown,
        Self::IssuerUnknown,
        Self::AudienceMismatch,
        Self::Expired,
        Self::NotYetValid,
        Self::IssuedInFuture,
        Self::Watermark,
        Self::IssuanceUnknown,
        Self::Revoked,
        Self::NotCovered,
        Self::BundleMissing,
        Self::BundleStale,
        Self::BundleStaleDenied,
        Self::BundleStaleIssuedEarlier,
        Self::Unroutable(Unroutable::Method),
        Self::Unroutable(Unroutable::Host),
        Self::Unroutable(Unroutable::Path),
        Self::Unroutable(Unroutable::TooLong),
        Self::Unroutable(Unroutable::EmptySegment),
        Self::Unroutable(Unroutable::DotSegment),
        Self::Unroutable(Unroutable::Separator),
        Self::Unroutable(Unroutable::Parameters),
        Self::Unroutable(Unroutable::NotCanonical),
        Self::Unroutable(Unroutable::DoubleEncoding),
        Self::Unroutable(Unroutable::TrailingSlash),
        Self::Unroutable(Unroutable::ReadAlike),
        Self::RouteUnmatched,
        Self::IssuerNotAccepted,
        Self::ClaimMissing,
        Self::ScopeMissing,
        Self::PermissionDenied,
    ];

    /// Returns the stable code for answers, logs and metrics.
    pub const fn code(self) -> &'static str {
        match self {
            Self::TooManyHeaders => "headers_too_many",
            Self::CredentialMissing => "credential_missing",
            Self::CredentialAmbiguous => "credential_ambiguous",
            Self::CredentialMisplaced => "credential_misplaced",
            Self::Token(error) => error.code(),
            Self::ApiKey(error) => error.code(),
            Self::GenerationUnknown => "api_key_generation_unknown",
            Self::ApiKeyExpired => "api_key_expired",
            Self::TokenTypeWrong => "token_type_wrong",
            Self::TokenIncomplete => "token_incomplete",
            Self::LifetimeTooLong => "token_lifetime_too_long",
            Self::PairMismatch => "api_key_mismatch",
            Self::KeyUnknown => "token_key_unknown",
            Self::IssuerUnknown => "token_issuer_unknown",
            Self::AudienceMismatch => "token_audience_mismatch",
            Self::Expired => "token_expired",
            Self::NotYetValid => "token_not_yet_valid",
            Self::IssuedInFuture => "token_issued_in_future",
            Self::Watermark => "watermark",
            Self::IssuanceUnknown => "issuance_unknown",
            Self::Revoked => "revoked",
            Self::NotCovered => "not_covered",
            Self::BundleMissing => "bundle_missing",
            Self::BundleStale => "bundle_stale",
            Self::BundleStaleDenied => "bundle_stale_denied",
            Self::BundleStaleIssuedEarlier => "bundle_stale_issued_earlier",
            Self::Unroutable(why) => why.code(),
            Self::RouteUnmatched => "route_unmatched",
            Self::IssuerNotAccepted => "issuer_not_accepted",
            Self::ClaimMissing => "claim_missing",
            Self::ScopeMissing => "scope_missing",
            Self::PermissionDenied => "permission_denied",
        }
    }

    /// 403 is for a good credential that is for something else, as in Envoy's `jwt_authn`. A policy may answer some of
    /// these with another status: see [`Answers`](crate::Answers).
    pub const fn status(self) -> u16 {
        match self {
            Self::Unroutable(_) => 400,
            Self::AudienceMismatch
            | Self::IssuerNotAccepted
            | Self::ClaimMissing
            | Self::ScopeMissing
            | Self::PermissionDenied => 403,
            Self::RouteUnmatched => 404,
            Self::TooManyHeaders => 431,
            Self::NotCovered
            | Self::BundleMissing
            | Self::BundleStale
            | Self::BundleStaleDenied
            | Self::BundleStaleIssuedEarlier => 503,
            Self::CredentialMissing
            | Self::CredentialAmbiguous
            | Self::CredentialMisplaced
            | Self::Token(_)
            | Self::ApiKey(_)
            | Self::GenerationUnknown
            | Self::ApiKeyExpired
            | Self::TokenTypeWrong
            | Self::TokenIncomplete
            | Self::LifetimeTooLong
            | Self::PairMismatch
            | Self::KeyUnknown
            | Self::IssuerUnknown
            | Self::Expired
            | Self::NotYetValid
            | Self::IssuedInFuture
            | Self::Watermark
            | Self::IssuanceUnknown
            | Self::Revoked => 401,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooManyHeaders => "the request has too many headers",
            Self::CredentialMissing => "the request carries no credential",
            Self::CredentialAmbiguous => "the request carries more than one credential",
            Self::CredentialMisplaced => "the credential is not where it may be here",
            Self::Token(error) => return error.fmt(f),
            Self::ApiKey(error) => return error.fmt(f),
            Self::GenerationUnknown => "the API key was made with a key that is unknown here",
            Self::ApiKeyExpired => "the API key has expired",
            Self::TokenTypeWrong => "the token is no access token",
            Self::TokenIncomplete => "the token lacks a claim that every token must have",
            Self::LifetimeTooLong => "the token lives longer than its issuer may say",
            Self::PairMismatch => "the API key is missing or not the one issued with the token",
            Self::KeyUnknown => "the key that the token names is unknown",
            Self::IssuerUnknown => "the issuer of the token is unknown",
            Self::AudienceMismatch => "the token is for another audience",
            Self::Expired => "the token has expired",
            Self::NotYetValid => "the token is not valid yet",
            Self::IssuedInFuture => "the token was issued in the future",
            Self::Watermark | Self::Revoked => "the credential is revoked",
            Self::IssuanceUnknown => "the credential is not known any more",
            Self::NotCovered => "this edge does not know yet whether the credential is good",
            Self::BundleMissing => "this edge has no revocation list yet",
            Self::BundleStale | Self::BundleStaleDenied | Self::BundleStaleIssuedEarlier => {
                "the revocation list of this edge is out of date"
            }
            Self::Unroutable(why) => return why.fmt(f),
            Self::RouteUnmatched => "there is nothing at this path",
            Self::IssuerNotAccepted => "the issuer of the token is not accepted here",
            Self::ClaimMissing => "the token lacks a claim that is needed here",
            Self::ScopeMissing => "the token lacks a scope that is needed here",
            Self::PermissionDenied => "the permissions do not allow this",
        })
    }
}

impl From<Unroutable> for Reason {
    fn from(why: Unroutable) -> Self {
        Self::Unroutable(why)
    }
}
