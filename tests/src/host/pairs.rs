/// Headers in their order. Names and values may be any bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pairs(pub Vec<(Vec<u8>, Vec<u8>)>);

impl Pairs {
    pub fn from_slice(pairs: &[(&str, &str)]) -> Self {
        Self(pairs.iter().map(|(name, value)| (name.as_bytes().into(), value.as_bytes().into())).collect())
    }

    pub fn with(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.0.push((name.as_bytes().into(), value.as_ref().into()));
        self
    }

    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(known, _)| known == name.as_bytes()).map(|(_, value)| value.as_slice())
    }

    /// `u32 count | count * (u32 name length, u32 value length) | count * (name, 0, value, 0)`, little-endian.
    pub(super) fn encode(&self) -> Vec<u8> {
        let number = |number: usize| u32::try_from(number).expect("short").to_le_bytes();
        let mut bytes = number(self.0.len()).to_vec();
        for (name, value) in &self.0 {
            bytes.extend([number(name.len()), number(value.len())].concat());
        }
        for (name, value) in &self.0 {
            bytes.extend([name, [0].as_slice(), value, &[0]].concat());
        }
        bytes
    }

    /// Decodes headers; `None` if the encoding is invalid.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let number = |at: usize| {
            let number = bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)?;
            usize::try_from(number).ok()
        };
        let count = number(0)?;
        let mut at = 4 + 8 * count;
        let mut pairs = Vec::new();
        for pair in 0..count {
            let mut text = |size: usize| {
                let text = bytes.get(at..at + size)?;
                (bytes.get(at + size) == Some(&0)).then_some(())?;
                at += size + 1;
                Some(text.to_vec())
            };
            let sizes = 4 + 8 * pair;
            pairs.push((text(number(sizes)?)?, text(number(sizes + 4)?)?));
        }
        (at == bytes.len()).then_some(Self(pairs))
    }
}
