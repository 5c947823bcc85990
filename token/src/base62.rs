//! Base62: a big-endian number of N bytes in a fixed count of digits `0-9 A-Z a-z`, most significant first.
//! A double click selects it whole, and no place where text goes needs to escape it.

/// Why a text is not the digits of N bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotANumber {
    Alphabet,
    /// More than N bytes can hold.
    TooLarge,
}

pub(crate) fn decode<const N: usize>(digits: &[u8]) -> Result<[u8; N], NotANumber> {
    let mut number = [0; N];
    for digit in digits {
        let mut carry = u16::from(value(*digit).ok_or(NotANumber::Alphabet)?);
        for byte in number.iter_mut().rev() {
            // At most 255 * 62 + 255.
            let shifted = u16::from(*byte).wrapping_mul(62).wrapping_add(carry).to_be_bytes();
            carry = u16::from(shifted[0]);
            *byte = shifted[1];
        }
        if carry != 0 {
            return Err(NotANumber::TooLarge);
        }
    }
    Ok(number)
}

fn value(digit: u8) -> Option<u8> {
    let (first, value_of_first) = match digit {
        b'0'..=b'9' => (b'0', 0),
        b'A'..=b'Z' => (b'A', 10),
        b'a'..=b'z' => (b'a', 36),
        _ => return None,
    };
    Some(digit.wrapping_sub(first).wrapping_add(value_of_first))
}

/// Fills `digits`; the number must fit.
#[cfg(feature = "mint")]
pub(crate) fn encode<const N: usize>(mut number: [u8; N], digits: &mut [u8]) {
    for digit in digits.iter_mut().rev() {
        let mut rest = 0u16;
        for byte in &mut number {
            let value = rest << 8 | u16::from(*byte);
            [_, *byte] = (value / 62).to_be_bytes();
            rest = value % 62;
        }
        *digit = ALPHABET.get(usize::from(rest)).copied().unwrap_or_default();
    }
}

#[cfg(feature = "mint")]
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

#[cfg(all(test, feature = "mint"))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_number_has_one_spelling(number: [u8; 4], text in "[0-9A-Za-z]{6}") {
            let mut digits = [0; 6];
            encode(number, &mut digits);
            prop_assert_eq!(decode(&digits), Ok(number));
            if let Ok(number) = decode::<4>(text.as_bytes()) {
                encode(number, &mut digits);
                prop_assert_eq!(&digits, text.as_bytes());
            }
        }
    }

    #[test]
    fn bounds() {
        assert_eq!(decode(b"4gfFC3"), Ok([0xff; 4])); // 2^32 - 1
        assert_eq!(decode::<4>(b"4gfFC4"), Err(NotANumber::TooLarge));
        assert_eq!(decode::<4>(b"zzzzzz"), Err(NotANumber::TooLarge));
        for foreign in
            [b"00000-", b"00000_", b"00000@", b"00000[", b"00000`", b"00000{", b"00000/", b"00000:"]
        {
            assert_eq!(decode::<4>(foreign), Err(NotANumber::Alphabet));
        }
    }
}
