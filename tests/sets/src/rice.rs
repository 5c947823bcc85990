//! A Rice-coded list of hashes: buckets of 48 hashes on average, with an index of 32 bits for each bucket.
//!
//! ```text
//! 1  k: a distance is its k low bits after the rest in unary
//! 4  number of buckets, B
//!    B + 1 times 4: the bit where a bucket starts
//!    bits
//! ```

/// A list with false positives.
#[derive(Debug, Default)]
pub struct Rice {
    k: u32,
    starts: Vec<u32>,
    bits: Vec<u8>,
}

impl Rice {
    /// Encodes prefixes in any order. An entry takes about k + 1.5 bits.
    pub fn build(prefixes: &[u64], k: u32) -> Self {
        let mut hashes: Vec<u64> = prefixes.to_vec();
        let buckets = prefixes.len().div_ceil(BUCKET).max(1);
        let mut rice = Self { k, starts: vec![0; buckets + 1], bits: Vec::new() };
        hashes.iter_mut().for_each(|prefix| *prefix = rice.hash(*prefix));
        hashes.sort_unstable();
        let (mut end, mut bucket, mut last) = (0, 0, 0);
        for hash in hashes {
            let (at, within) = rice.place(hash);
            while bucket < at {
                bucket += 1;
                last = 0;
                rice.starts[bucket] = end;
            }
            let distance = within - last;
            last = within;
            for _ in 0..distance >> k {
                rice.push(&mut end, true);
            }
            rice.push(&mut end, false);
            for bit in (0..k).rev() {
                rice.push(&mut end, distance >> bit & 1 == 1);
            }
        }
        rice.starts[bucket + 1..].fill(end);
        rice
    }

    pub fn contains(&self, prefix: u64) -> bool {
        let (bucket, wanted) = self.place(self.hash(prefix));
        let (mut at, end) = (self.starts[bucket], self.starts[bucket + 1]);
        let mut within = 0;
        while at < end {
            let mut distance = 0;
            while self.bit(&mut at) {
                distance += 1;
            }
            for _ in 0..self.k {
                distance = distance << 1 | u64::from(self.bit(&mut at));
            }
            within += distance;
            if within >= wanted {
                return within == wanted;
            }
        }
        false
    }

    pub fn write(&self) -> Vec<u8> {
        let mut out = vec![self.k as u8];
        out.extend((self.starts.len() as u32 - 1).to_le_bytes());
        out.extend(self.starts.iter().flat_map(|start| start.to_le_bytes()));
        out.extend(&self.bits);
        out
    }

    pub(crate) fn read(mut bytes: Vec<u8>) -> Self {
        let number = |bytes: &[u8], at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|byte| bytes[at + byte]));
        let k = bytes[0].into();
        let buckets = number(&bytes, 1) as usize;
        let starts = (0..=buckets).map(|bucket| number(&bytes, 5 + 4 * bucket)).collect();
        bytes.drain(..5 + 4 * (buckets + 1));
        Self { k, starts, bits: bytes }
    }

    pub(crate) fn bytes(&self) -> usize {
        4 * self.starts.len() + self.bits.len()
    }

    fn hash(&self, prefix: u64) -> u64 {
        let range = u128::from(self.width()) * (self.starts.len() as u128 - 1);
        ((u128::from(prefix) * range) >> 64) as u64
    }

    fn place(&self, hash: u64) -> (usize, u64) {
        ((hash / self.width()) as usize, hash % self.width())
    }

    fn width(&self) -> u64 {
        (BUCKET as u64) << self.k
    }

    fn bit(&self, at: &mut u32) -> bool {
        let bit = self.bits[*at as usize / 8] >> (*at % 8) & 1 == 1;
        *at += 1;
        bit
    }

    fn push(&mut self, end: &mut u32, bit: bool) {
        if end.is_multiple_of(8) {
            self.bits.push(0);
        }
        if let Some(last) = self.bits.last_mut() {
            *last |= u8::from(bit) << (*end % 8);
        }
        *end += 1;
    }
}

const BUCKET: usize = 48;
