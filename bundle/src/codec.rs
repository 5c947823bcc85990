//! A bounds-checked reader of the binary formats.

use core::fmt;

/// The bytes do not have the expected format. Contains the name of the invalid part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed: {}", self.0)
    }
}

impl core::error::Error for Malformed {}

/// Reads from the start of a slice. Each method names the part that it reads, for the error.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn array<const N: usize>(&mut self, part: &'static str) -> Result<[u8; N], Malformed> {
        let (array, rest) = self.0.split_first_chunk().ok_or(Malformed(part))?;
        self.0 = rest;
        Ok(*array)
    }

    pub(crate) fn u8(&mut self, part: &'static str) -> Result<u8, Malformed> {
        self.array(part).map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self, part: &'static str) -> Result<u16, Malformed> {
        self.array(part).map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self, part: &'static str) -> Result<u32, Malformed> {
        self.array(part).map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self, part: &'static str) -> Result<u64, Malformed> {
        self.array(part).map(u64::from_be_bytes)
    }

    pub(crate) fn bytes(&mut self, length: usize, part: &'static str) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed(part))?;
        self.0 = rest;
        Ok(taken)
    }

    /// Reads a UTF-8 string that follows its length in one byte.
    pub(crate) fn text(&mut self, part: &'static str) -> Result<&'a str, Malformed> {
        let length = self.u8(part)?;
        core::str::from_utf8(self.bytes(length.into(), part)?).map_err(|_| Malformed(part))
    }

    /// Reads an unsigned LEB128 number. Only the shortest encoding is valid.
    pub(crate) fn varint(&mut self, part: &'static str) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8(part)?;
            let bits = u64::from(byte & 0x7f);
            if bits.leading_zeros() < shift {
                return Err(Malformed(part));
            }
            value |= bits << shift;
            if byte < 0x80 {
                return if byte == 0 && shift > 0 { Err(Malformed(part)) } else { Ok(value) };
            }
        }
        Err(Malformed(part))
    }

    /// Checks that nothing is left.
    pub(crate) const fn finish(&self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed("trailing bytes")) }
    }
}

/// Appends an unsigned LEB128 number in its shortest encoding.
#[cfg(feature = "builder")]
pub(crate) fn encode_varint(out: &mut alloc::vec::Vec<u8>, mut value: u64) {
    loop {
        let [.., low] = value.to_be_bytes();
        value >>= 7;
        if value == 0 {
            return out.push(low & 0x7f);
        }
        out.push(low | 0x80);
    }
}
