use core::fmt;

/// Why a token is refused. Each has one stable code, used in responses, metrics and logs alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Error {
    /// Longer than [`crate::MAX_TOKEN_BYTES`].
    TooLong,
    /// Not three segments, or not the JSON a token must hold.
    Malformed,
    /// Base64url with padding, foreign characters or stray bits: another spelling of some token, never accepted.
    NotCanonical,
    /// The token names another algorithm than its key has (RFC 8725 section 3.1).
    AlgorithmMismatch,
    /// The signature is not the key's.
    SignatureInvalid,
}

impl Error {
    /// Returns the stable code, as responses, metrics and logs have it.
    pub const fn code(self) -> &'static str {
        match self {
            Self::TooLong => "token_too_long",
            Self::Malformed => "token_malformed",
            Self::NotCanonical => "token_not_canonical",
            Self::AlgorithmMismatch => "token_algorithm_mismatch",
            Self::SignatureInvalid => "token_signature_invalid",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "the token is too long",
            Self::Malformed => "the token is malformed",
            Self::NotCanonical => "the token is not in its canonical spelling",
            Self::AlgorithmMismatch => "the token names another algorithm than its key has",
            Self::SignatureInvalid => "the signature of the token is invalid",
        })
    }
}

impl core::error::Error for Error {}
