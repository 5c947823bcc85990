use crc::{CRC_32_ISO_HDLC, Crc};

static CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

/// Returns the CRC-32 of zlib and Ethernet.
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    CRC.checksum(bytes)
}

#[cfg(test)]
mod tests {
    #[test]
    fn check_value_matches_the_catalogue() {
        assert_eq!(super::crc32(b"123456789"), 0xcbf4_3926); // "check" of CRC-32/ISO-HDLC
        assert_eq!(super::crc32(b""), 0);
    }
}
