/// CRC-32 as of zlib and Ethernet, bit by bit: a table would weigh more than the few dozen bytes it is for.
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    let step = |sum: u32, _| (sum >> 1) ^ (POLYNOMIAL & 0_u32.wrapping_sub(sum & 1));
    !bytes.iter().fold(u32::MAX, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), step))
}

/// Reversed, as the bits of a byte go lowest first.
const POLYNOMIAL: u32 = 0xedb8_8320;

#[cfg(test)]
mod tests {
    #[test]
    fn is_that_of_the_catalogue() {
        assert_eq!(super::crc32(b"123456789"), 0xcbf4_3926); // "check" of CRC-32/ISO-HDLC
        assert_eq!(super::crc32(b""), 0);
    }
}
