//! Base64url (RFC 4648 section 5) with one text for each byte string: no padding, and stray bits are refused.

use alloc::{string::String, vec::Vec};

use base64::{
    Engine,
    alphabet::URL_SAFE,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

pub fn decode(text: &[u8]) -> Option<Vec<u8>> {
    STRICT.decode(text).ok()
}

pub fn encode(bytes: &[u8]) -> String {
    STRICT.encode(bytes)
}

/// RFC 7515 section 2 wants no padding, RFC 4648 section 3.5 lets a decoder refuse stray bits.
const STRICT: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(false),
);
