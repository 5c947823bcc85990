use token::Fingerprint;

/// All issued credentials. The first of them are revoked.
#[derive(Debug, Clone, Copy)]
pub struct Universe {
    pub issued: u32,
    pub revoked: u32,
}

impl Universe {
    /// Returns the information-theoretic minimum in bits: N * H(r / N).
    pub fn bound(&self) -> f64 {
        let part = f64::from(self.revoked) / f64::from(self.issued);
        let term = |p: f64| if p > 0.0 { -p * p.log2() } else { 0.0 };
        f64::from(self.issued) * (term(part) + term(1.0 - part))
    }
}

/// Returns a fingerprint from a counter, mixed by SplitMix64, so that every run has the same ones.
#[inline]
pub fn fingerprint(number: u32) -> Fingerprint {
    let mut bytes = [0; 32];
    for (chunk, word) in bytes.as_chunks_mut().0.iter_mut().zip(0..) {
        let mut mixed = (u64::from(number) << 2 | word).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        *chunk = (mixed ^ (mixed >> 31)).to_be_bytes();
    }
    Fingerprint::from(bytes)
}
