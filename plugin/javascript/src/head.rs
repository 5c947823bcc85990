//! The head of a request as JavaScript passes it: one string, which takes less time to pass than a list.
//!
//! ```text
//! count * (name "\n" value "\n")
//! ```
//!
//! Fetch and Node represent each byte of a value as one character. Characters that are not bytes are refused.

use std::borrow::Cow;

pub(crate) struct Head<'a> {
    bytes: Cow<'a, [u8]>,
    count: usize,
}

impl<'a> Head<'a> {
    /// Returns `None` if there are not `count` headers, because a name or value has a line feed in it, or if a name is not
    /// ASCII: the core then does not know what the request contains.
    pub(crate) fn parse(text: &'a str, count: usize) -> Option<Self> {
        let bytes = if text.is_ascii() {
            text.as_bytes().into()
        } else {
            text.chars().map(|letter| u8::try_from(letter).ok()).collect::<Option<Vec<u8>>>()?.into()
        };
        let head = Self { bytes, count };
        let lines = head.bytes.iter().filter(|byte| **byte == b'\n').count();
        let ends_well = head.bytes.last().is_none_or(|byte| *byte == b'\n');
        let has_names = head.lines().step_by(2).all(|name| !name.is_empty() && name.is_ascii());
        (lines == count.checked_mul(2)? && ends_well && has_names).then_some(head)
    }

    /// Returns the headers in their order.
    pub(crate) fn headers(&self) -> Vec<(&str, &[u8])> {
        let mut lines = self.lines();
        let mut headers = Vec::with_capacity(self.count);
        while let (Some(name), Some(value)) = (lines.next(), lines.next()) {
            // Names are ASCII.
            headers.push((str::from_utf8(name).unwrap_or_default(), value));
        }
        headers
    }

    fn lines(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes.split(|byte| *byte == b'\n').take(self.count.saturating_mul(2))
    }
}
