use core::fmt;

/// Why a token is refused. Each reason has one stable code, which responses, metrics and logs use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Error {
    /// The token is longer than the verifier permits.
    TooLong,
    /// The token does not have three segments, or its JSON is not that of a token.
    Malformed,
    /// The base64url has padding, invalid characters or non-zero trailing bits, so the text is a second encoding of
    /// another token.
    NotCanonical,
    /// The `alg` of the token differs from the algorithm of the key (RFC 8725 section 3.1).
    AlgorithmMismatch,
    /// Only a host can verify signatures of this algorithm, and this host cannot.
    AlgorithmUnsupported,
    /// The signature is not valid for the key.
    SignatureInvalid,
}

impl Error {
    /// Returns the stable code for responses, metrics and logs.
    pub const fn code(self) -> &'static str {
        match self {
            Self::TooLong => "token_too_long",
            Self::Malformed => "token_malformed",
            Self::NotCanonical => "token_not_canonical",
            Self::AlgorithmMismatch => "token_algorithm_mismatch",
            Self::AlgorithmUnsupported => "token_algorithm_unsupported",
            Self::SignatureInvalid => "token_signature_invalid",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "the token is too long",
            Self::Malformed => "the token is malformed",
            Self::NotCanonical => "the token is not spelled as it was issued: send it unchanged",
            Self::AlgorithmMismatch => "the algorithm of the token differs from that of its key",
            Self::AlgorithmUnsupported => "this edge cannot verify signatures of the algorithm of the token",
            Self::SignatureInvalid => "the signature of the token is invalid",
        })
    }
}

impl core::error::Error for Error {}
