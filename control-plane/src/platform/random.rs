//! The only source of randomness: the operating system.

use token::secret::{self, Secret};
use zeroize::Zeroizing;

pub const DIGITS: &[u8] = b"0123456789";
pub const ALPHANUMERIC: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Returns random bytes that are wiped when dropped.
pub fn bytes<const N: usize>() -> Zeroizing<[u8; N]> {
    let mut bytes = Zeroizing::new([0; N]);
    fill_bytes(bytes.as_mut_slice());
    bytes
}

/// Returns a new secret. Show it once.
pub fn secret(prefix: &str) -> Secret {
    secret::generate(prefix, &bytes())
}

/// Returns a string of random characters from `alphabet`. Bytes at or above the largest multiple of its length are
/// rejected, so all characters are equally likely.
pub fn from_alphabet(alphabet: &[u8], length: usize) -> String {
    let usable = 256 - 256 % alphabet.len();
    let mut text = String::with_capacity(length);
    while text.len() < length {
        let usable = bytes::<32>().into_iter().map(usize::from).filter(|byte| *byte < usable);
        text.extend(usable.take(length - text.len()).map(|byte| char::from(alphabet[byte % alphabet.len()])));
    }
    text
}

/// Returns a random UUID (RFC 9562, version 4).
pub fn uuid() -> String {
    uuid::Builder::from_random_bytes(*bytes()).into_uuid().to_string()
}

#[expect(
    clippy::disallowed_methods,
    clippy::expect_used,
    reason = "the only source of randomness; without it no secret can be created"
)]
fn fill_bytes(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the operating system provides random bytes");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_texts_have_their_form() {
        let uuid = uuid();
        assert_eq!(uuid.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
        assert_eq!(&uuid[14..15], "4");
        assert_eq!(from_alphabet(DIGITS, 10).len(), 10);
        assert!(from_alphabet(DIGITS, 64).bytes().all(|byte| byte.is_ascii_digit()));
        assert_ne!(from_alphabet(ALPHANUMERIC, 32), from_alphabet(ALPHANUMERIC, 32));
    }
}
