//! Reasons to refuse a request.

use core::fmt;

use bundle::NoKey;
use token::api_key;

use crate::decision::route::AmbiguousRequest;

/// Why a request is refused. Each reason has one stable code, which responses, metrics and logs use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The request has more headers than hosts can process.
    TooManyHeaders,
    /// The request has no credential, but one is required.
    CredentialMissing,
    /// The request has more than one credential, or one that can be parsed in two ways.
    CredentialAmbiguous(AmbiguousCredential),
    /// The rule does not accept a credential in this location.
    CredentialMisplaced,
    /// The token is malformed, or its signature is invalid.
    Token(token::Error),
    /// The API key is malformed, or its signature or tag is invalid.
    ApiKey(api_key::Error),
    /// The bundle has no key of the generation of the API key.
    GenerationUnknown,
    /// The API key has expired.
    ApiKeyExpired,
    /// The token declares a type that is not accepted: it is for another purpose, or unknown.
    TokenTypeWrong,
    /// A claim that every token of the issuer must have is missing or unusable.
    TokenIncomplete,
    /// The subject of the token has a control character.
    SubjectMalformed,
    /// The time from `iat` to `exp` exceeds the maximum for the issuer.
    LifetimeTooLong,
    /// Of a pair, the session is missing or is not the one that the token names.
    PairMismatch,
    /// The bundle has no key with the `kid` of the token.
    KeyUnknown,
    /// The token has no `kid`, and the issuer has more than one key of its algorithm.
    KeyAmbiguous,
    /// The policy does not accept the issuer.
    IssuerUnknown,
    /// The token has none of the accepted audiences.
    AudienceMismatch,
    /// The `exp` of the token has passed.
    Expired,
    /// The `nbf` of the token is in the future.
    NotYetValid,
    /// The `iat` of the token is in the future.
    IssuedInFuture,
    /// A watermark covers the credential.
    Watermark,
    /// The credential was issued in a gap of the issuance log and is not in it.
    IssuanceUnknown,
    /// The fingerprint of the credential is revoked.
    Revoked,
    /// The base does not cover the credential, and the policy refuses such credentials.
    NotCovered,
    /// No bundle is loaded yet.
    BundleMissing,
    /// The bundle is stale, and `outage_grace_seconds` has passed.
    BundleStale,
    /// The bundle is stale, and the stale policy is `deny`.
    BundleStaleDenied,
    /// The bundle is stale, and the credential was issued earlier than `issued_within_seconds` allows.
    BundleStaleIssuedEarlier,
    /// The request can be parsed in more than one way.
    AmbiguousRequest(AmbiguousRequest),
    /// No rule matches the request.
    RouteUnmatched,
    /// Rules match the host and path of the request, but not its method.
    MethodNotAllowed,
    /// The rule does not accept the issuer of the token.
    IssuerNotAccepted,
    /// The token lacks a claim that the rule requires.
    ClaimMissing,
    /// The token lacks a scope that the rule requires.
    ScopeMissing,
    /// The permissions of the subject do not allow the operation.
    PermissionDenied,
}

/// Why a credential is ambiguous. All of these have one code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AmbiguousCredential {
    /// The request has more than one credential.
    Several,
    /// A header, cookie or query parameter could be taken for a credential, because its name is spelled differently or
    /// follows another separator.
    SimilarName,
    /// The credential has a comma.
    Comma,
    /// The credential is not in the configured encoding.
    Encoding,
    /// A header that accompanies the credential occurs twice, or under a similar name.
    Companion,
}

impl Reason {
    /// The reasons to end an open stream.
    pub const OF_ENDED_STREAMS: [Self; 14] = [
        Self::KeyUnknown,
        Self::GenerationUnknown,
        Self::Expired,
        Self::ApiKeyExpired,
        Self::NotYetValid,
        Self::IssuedInFuture,
        Self::Watermark,
        Self::IssuanceUnknown,
        Self::Revoked,
        Self::NotCovered,
        Self::BundleStale,
        Self::BundleStaleDenied,
        Self::BundleStaleIssuedEarlier,
        Self::PermissionDenied,
    ];

    /// All reasons, for example to define a counter for each.
    pub const ALL: [Self; 58] = [
        Self::TooManyHeaders,
        Self::CredentialMissing,
        Self::CredentialAmbiguous(AmbiguousCredential::Several),
        Self::CredentialMisplaced,
        Self::Token(token::Error::TooLong),
        Self::Token(token::Error::Malformed),
        Self::Token(token::Error::NotCanonical),
        Self::Token(token::Error::AlgorithmMismatch),
        Self::Token(token::Error::AlgorithmUnsupported),
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
        Self::SubjectMalformed,
        Self::LifetimeTooLong,
        Self::PairMismatch,
        Self::KeyUnknown,
        Self::KeyAmbiguous,
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
        Self::AmbiguousRequest(AmbiguousRequest::Method),
        Self::AmbiguousRequest(AmbiguousRequest::Host),
        Self::AmbiguousRequest(AmbiguousRequest::Path),
        Self::AmbiguousRequest(AmbiguousRequest::TooLong),
        Self::AmbiguousRequest(AmbiguousRequest::EmptySegment),
        Self::AmbiguousRequest(AmbiguousRequest::DotSegment),
        Self::AmbiguousRequest(AmbiguousRequest::Separator),
        Self::AmbiguousRequest(AmbiguousRequest::Parameters),
        Self::AmbiguousRequest(AmbiguousRequest::NotCanonical),
        Self::AmbiguousRequest(AmbiguousRequest::DoubleEncoding),
        Self::AmbiguousRequest(AmbiguousRequest::TrailingSlash),
        Self::AmbiguousRequest(AmbiguousRequest::EquivalentPath),
        Self::RouteUnmatched,
        Self::MethodNotAllowed,
        Self::IssuerNotAccepted,
        Self::ClaimMissing,
        Self::ScopeMissing,
        Self::PermissionDenied,
    ];

    /// Returns the reason in [`Self::ALL`] that has the same code.
    #[must_use]
    pub const fn representative(self) -> Self {
        match self {
            Self::CredentialAmbiguous(_) => Self::CredentialAmbiguous(AmbiguousCredential::Several),
            reason => reason,
        }
    }

    /// Returns the stable code for responses, logs and metrics.
    pub const fn code(self) -> &'static str {
        match self {
            Self::TooManyHeaders => "headers_too_many",
            Self::CredentialMissing => "credential_missing",
            Self::CredentialAmbiguous(_) => "credential_ambiguous",
            Self::CredentialMisplaced => "credential_misplaced",
            Self::Token(error) => error.code(),
            Self::ApiKey(error) => error.code(),
            Self::GenerationUnknown => "api_key_generation_unknown",
            Self::ApiKeyExpired => "api_key_expired",
            Self::TokenTypeWrong => "token_type_wrong",
            Self::TokenIncomplete => "token_incomplete",
            Self::SubjectMalformed => "token_subject_malformed",
            Self::LifetimeTooLong => "token_lifetime_too_long",
            Self::PairMismatch => "api_key_mismatch",
            Self::KeyUnknown => "token_key_unknown",
            Self::KeyAmbiguous => "token_key_ambiguous",
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
            Self::AmbiguousRequest(why) => why.code(),
            Self::RouteUnmatched => "route_unmatched",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::IssuerNotAccepted => "issuer_not_accepted",
            Self::ClaimMissing => "claim_missing",
            Self::ScopeMissing => "scope_missing",
            Self::PermissionDenied => "permission_denied",
        }
    }

    /// Returns the HTTP status. 403 means that the credential is valid but not sufficient, as in Envoy's `jwt_authn`. A
    /// policy can replace some of these: see [`ResponseConfig`](crate::response::ResponseConfig).
    pub const fn status(self) -> u16 {
        match self {
            Self::AmbiguousRequest(_) => 400,
            Self::AudienceMismatch
            | Self::IssuerNotAccepted
            | Self::ClaimMissing
            | Self::ScopeMissing
            | Self::PermissionDenied => 403,
            Self::RouteUnmatched => 404,
            Self::MethodNotAllowed => 405,
            Self::TooManyHeaders => 431,
            Self::NotCovered
            | Self::BundleMissing
            | Self::BundleStale
            | Self::BundleStaleDenied
            | Self::BundleStaleIssuedEarlier => 503,
            Self::CredentialMissing
            | Self::CredentialAmbiguous(_)
            | Self::CredentialMisplaced
            | Self::Token(_)
            | Self::ApiKey(_)
            | Self::GenerationUnknown
            | Self::ApiKeyExpired
            | Self::TokenTypeWrong
            | Self::TokenIncomplete
            | Self::SubjectMalformed
            | Self::LifetimeTooLong
            | Self::PairMismatch
            | Self::KeyUnknown
            | Self::KeyAmbiguous
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
            Self::CredentialMissing => "the request has no credential",
            Self::CredentialAmbiguous(why) => return why.fmt(f),
            Self::CredentialMisplaced => {
                "the credential is not accepted in this location: send it in another one"
            }
            Self::Token(token::Error::Malformed) => {
                "the credential is neither a token nor an API key with an accepted prefix"
            }
            Self::Token(error) => return error.fmt(f),
            Self::ApiKey(error) => return error.fmt(f),
            Self::GenerationUnknown => "the API key is of a generation whose key this edge does not have",
            Self::ApiKeyExpired => "the API key has expired",
            Self::TokenTypeWrong => "the type (`typ`) of the token is not accepted: it is for another purpose",
            Self::TokenIncomplete => "the token lacks a required claim",
            Self::SubjectMalformed => "the subject of the token has a control character",
            Self::LifetimeTooLong => "the lifetime of the token exceeds the maximum for its issuer",
            Self::PairMismatch => {
                "the session id (`apiKey`) that was issued with the token is missing or another one"
            }
            Self::KeyUnknown => "this edge has no key of the issuer with the `kid` of the token",
            Self::KeyAmbiguous => "the token has no `kid`, and its issuer has several keys of its algorithm",
            Self::IssuerUnknown => "the issuer of the token is unknown",
            Self::AudienceMismatch => "the token is for another audience",
            Self::Expired => "the token has expired",
            Self::NotYetValid => "the token is not valid yet",
            Self::IssuedInFuture => "the token was issued in the future",
            Self::Watermark | Self::Revoked => "the credential is revoked",
            Self::IssuanceUnknown => {
                "the credential was issued in a period whose records are lost, and is not known: request a new one"
            },
            Self::NotCovered => "this edge does not know the revocation status of the credential yet",
            Self::BundleMissing => "this edge has no revocation list yet",
            Self::BundleStale | Self::BundleStaleDenied | Self::BundleStaleIssuedEarlier => {
                "the revocation list of this edge is out of date"
            }
            Self::AmbiguousRequest(why) => return why.fmt(f),
            Self::RouteUnmatched => "no route matches the request",
            Self::MethodNotAllowed => "the route does not have this method",
            Self::IssuerNotAccepted => "the issuer of the token is not accepted here",
            Self::ClaimMissing => "the token lacks a claim that this route requires",
            Self::ScopeMissing => "the token lacks a scope that this route requires",
            Self::PermissionDenied => "the permissions of the subject do not allow this operation",
        })
    }
}

impl From<NoKey> for Reason {
    fn from(why: NoKey) -> Self {
        match why {
            NoKey::Unknown => Self::KeyUnknown,
            NoKey::AlgorithmMismatch => Self::Token(token::Error::AlgorithmMismatch),
            NoKey::Ambiguous => Self::KeyAmbiguous,
        }
    }
}

impl fmt::Display for AmbiguousCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Several => "the request has more than one credential: send exactly one",
            Self::SimilarName => {
                "the name of a header, cookie or query parameter resembles that of a credential: spell it exactly as \
                 configured, and separate cookies by `;` and parameters by `&`"
            }
            Self::Comma => "the credential has a comma, as if values were joined: send one value without a comma",
            Self::Encoding => "the credential is not in the configured encoding: send strict base64",
            Self::Companion => {
                "a header that accompanies the credential occurs twice or under a similar name: send it once, spelled \
                 exactly as configured"
            }
        })
    }
}

impl From<AmbiguousCredential> for Reason {
    fn from(why: AmbiguousCredential) -> Self {
        Self::CredentialAmbiguous(why)
    }
}

impl From<AmbiguousRequest> for Reason {
    fn from(why: AmbiguousRequest) -> Self {
        Self::AmbiguousRequest(why)
    }
}
