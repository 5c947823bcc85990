//! Base62: encodes a big-endian number of N bytes in a fixed count of digits `0-9 A-Z a-z`, most significant digit
//! first. The text needs no escaping, and a double click selects all of it.

/// Maximum length of a number in bytes.
const MAX_LEN: usize = 92;

#[cfg(feature = "mint")]
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Why a text is not the base62 encoding of N bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DecodeError {
    Alphabet,
    /// The number exceeds N bytes.
    TooLarge,
}

pub(crate) fn decode<const N: usize>(digits: &[u8]) -> Result<[u8; N], DecodeError> {
    let mut number = [0; N];
    decode_into(digits, &mut number)?;
    Ok(number)
}

/// Decodes digits into `number`, which has at most [`MAX_LEN`] bytes. It processes five digits at a time, since 62^5 <
/// 2^32: for the 91 bytes of an API key this takes 575 multiplications instead of 11,193.
pub(crate) fn decode_into(digits: &[u8], number: &mut [u8]) -> Result<(), DecodeError> {
    let mut words = [0_u32; MAX_LEN / 4];
    let words = words.get_mut(..number.len().div_ceil(4)).ok_or(DecodeError::TooLarge)?;
    for digits in digits.chunks(5) {
        let (mut shift, mut sum) = (1_u32, 0_u32);
        for digit in digits {
            let digit = u32::from(digit_value(*digit).ok_or(DecodeError::Alphabet)?);
            (shift, sum) = (shift.wrapping_mul(62), sum.wrapping_mul(62).wrapping_add(digit));
        }
        let mut carry = sum;
        for word in words.iter_mut().rev() {
            // The sum is at most (2^32 - 1) * 62^5 + 2^32 - 1.
            let shifted =
                u64::from(*word).wrapping_mul(shift.into()).wrapping_add(carry.into()).to_be_bytes();
            let [a, b, c, d, e, f, g, h] = shifted;
            (carry, *word) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
        }
        if carry != 0 {
            return Err(DecodeError::TooLarge);
        }
    }
    // The words can have up to three more leading bytes than the number.
    let mut bytes = words.iter().flat_map(|word| word.to_be_bytes());
    let more = words.len().saturating_mul(4).saturating_sub(number.len());
    if !bytes.by_ref().take(more).all(|byte| byte == 0) {
        return Err(DecodeError::TooLarge);
    }
    number.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    Ok(())
}

fn digit_value(digit: u8) -> Option<u8> {
    let (first, value_of_first) = match digit {
        b'0'..=b'9' => (b'0', 0),
        b'A'..=b'Z' => (b'A', 10),
        b'a'..=b'z' => (b'a', 36),
        _ => return None,
    };
    Some(digit.wrapping_sub(first).wrapping_add(value_of_first))
}

/// Encodes a number. The number must fit into `digits`.
#[cfg(feature = "mint")]
pub(crate) fn encode<const N: usize>(mut number: [u8; N], digits: &mut [u8]) {
    encode_from(&mut number, digits);
}

/// Encodes a number like [`encode`], and leaves zeros in `number`.
#[cfg(feature = "mint")]
pub(crate) fn encode_from(number: &mut [u8], digits: &mut [u8]) {
    for digit in digits.iter_mut().rev() {
        let mut rest = 0u16;
        for byte in &mut *number {
            let value = rest << 8 | u16::from(*byte);
            [_, *byte] = (value / 62).to_be_bytes();
            rest = value % 62;
        }
        *digit = ALPHABET.get(usize::from(rest)).copied().unwrap_or_default();
    }
}

#[cfg(all(test, feature = "mint"))]
mod tests {
    use proptest::prelude::*;
    use std::vec;

    use super::*;

    proptest! {
        #[test]
        fn encoding_is_unique(number: [u8; 4], text in "[0-9A-Za-z]{6}") {
            let mut digits = [0; 6];
            encode(number, &mut digits);
            prop_assert_eq!(decode(&digits), Ok(number));
            if let Ok(number) = decode::<4>(text.as_bytes()) {
                encode(number, &mut digits);
                prop_assert_eq!(&digits, text.as_bytes());
            }
        }
    }

    proptest! {
        #[test]
        fn encoding_is_unique_at_any_length(number in prop::collection::vec(any::<u8>(), 0..=92)) {
            // Sometimes one digit more than necessary: leading zeros are digits too.
            let mut digits = vec![0; number.len() * 1344 / 1000 + 1];
            encode_from(&mut number.clone(), &mut digits);
            let mut decoded = vec![0xaa; number.len()];
            prop_assert_eq!(decode_into(&digits, &mut decoded), Ok(()));
            prop_assert_eq!(&decoded, &number);
            // With one byte less, the number fits only if the first byte is zero.
            if let Some((first, rest)) = number.split_first() {
                let mut decoded = vec![0xaa; rest.len()];
                let expected = if *first == 0 { Ok(()) } else { Err(DecodeError::TooLarge) };
                prop_assert_eq!(decode_into(&digits, &mut decoded), expected);
            }
        }

        #[test]
        fn decode_rejects_the_first_number_that_is_too_large(length in 1..=92_usize) {
            let mut digits = vec![0; length * 1344 / 1000 + 1];
            encode_from(&mut vec![0xff; length], &mut digits);
            prop_assert_eq!(decode_into(&digits, &mut vec![0; length]), Ok(()));
            // Increments the digits.
            for digit in digits.iter_mut().rev() {
                let value = ALPHABET.iter().position(|known| known == digit).unwrap();
                *digit = ALPHABET[(value + 1) % 62];
                if value < 61 {
                    break;
                }
            }
            prop_assert_eq!(decode_into(&digits, &mut vec![0; length]), Err(DecodeError::TooLarge));
        }
    }

    #[test]
    fn decode_rejects_other_characters_and_large_numbers() {
        assert_eq!(decode_into(b"0", &mut [0; 93]), Err(DecodeError::TooLarge));
        assert_eq!(decode(b"4gfFC3"), Ok([0xff; 4])); // 2^32 - 1
        assert_eq!(decode::<4>(b"4gfFC4"), Err(DecodeError::TooLarge));
        assert_eq!(decode::<4>(b"zzzzzz"), Err(DecodeError::TooLarge));
        for foreign in
            [b"00000-", b"00000_", b"00000@", b"00000[", b"00000`", b"00000{", b"00000/", b"00000:"]
        {
            assert_eq!(decode::<4>(foreign), Err(DecodeError::Alphabet));
        }
    }
}
