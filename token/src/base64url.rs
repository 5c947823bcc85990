//! Base64url (RFC 4648 section 5) with a unique text for each byte string: padding and non-zero trailing bits are
//! refused (RFC 7515 section 2, RFC 4648 section 3.5).

use alloc::{string::String, vec::Vec};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

/// Decodes a text. Returns `None` unless the text is the result of [`encode`].
pub fn decode(text: &[u8]) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// Encodes bytes without padding.
pub fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn invalid_texts_are_refused() {
        assert_eq!(decode(b"-_8"), Some([0xfb, 0xff].into()));
        for other in ["-_8=", "-_9", "+/8", "-_8\n", " -_8", "-", "-_8A=", "-_8AA", "-\u{fc}8"] {
            assert_eq!(decode(other.as_bytes()), None, "{other:?}");
        }
    }

    proptest! {
        #[test]
        fn encoding_is_unique(bytes: Vec<u8>, text in "[A-Za-z0-9_=+/-]{0,9}", any: Vec<u8>) {
            prop_assert_eq!(decode(encode(&bytes).as_bytes()), Some(bytes));
            for text in [text.as_bytes(), &any] {
                if let Some(bytes) = decode(text) {
                    prop_assert!(encode(&bytes).as_bytes() == text);
                }
            }
        }
    }
}
