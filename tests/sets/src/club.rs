//! Mozilla's clubcard without a partition, encoded as flat words, because the crate leaves the encoding to its users.

use clubcard::{AsQuery, Clubcard, ClubcardIndexEntry, Equation, Filterable, Queryable};
use std::collections::BTreeMap;
use std::fmt;
use token::Fingerprint;

pub struct Card(Clubcard<4, (), ()>);

impl Card {
    pub fn new(card: Clubcard<4, (), ()>) -> Self {
        Self(card)
    }

    /// Returns the number of credentials that are not revoked but are listed, because the filters report them as revoked.
    pub fn exceptions(&self) -> usize {
        self.0.index().values().map(|entry| entry.exceptions.len()).sum()
    }

    pub(crate) fn contains(&self, fingerprint: &Fingerprint) -> bool {
        self.0.unchecked_contains(&Item { fingerprint: *fingerprint, revoked: false })
    }

    pub(crate) fn bytes(&self) -> usize {
        let words = self.0.approx_filter.iter().map(Vec::len).sum::<usize>() + self.0.exact_filter.len();
        8 * words + 32 * self.exceptions()
    }

    pub(crate) fn read(bytes: &[u8]) -> Self {
        let mut numbers = super::words(bytes).into_iter();
        let mut number = || usize::try_from(numbers.next().expect("a number")).expect("a length");
        let (approx_filter_m, exact_filter_m, approx_filter_rank) = (number(), number(), number());
        let (inverted, exceptions, row, exact) = (number() == 1, number(), number(), number());
        let mut words = |count| numbers.by_ref().take(count).collect::<Vec<u64>>();
        let approx_filter = (0..approx_filter_rank).map(|_| words(row)).collect();
        let exact_filter = words(exact);
        let listed = words(4 * exceptions);
        let exceptions = super::bytes(&listed).chunks(32).map(<[u8]>::to_vec).collect();
        let entry = ClubcardIndexEntry {
            approx_filter_m,
            exact_filter_m,
            approx_filter_rank,
            inverted,
            exceptions,
            ..ClubcardIndexEntry::default()
        };
        let index = BTreeMap::from([(Vec::new(), entry)]);
        Self(Clubcard { universe: (), partition: (), index, approx_filter, exact_filter })
    }
}

impl fmt::Debug for Card {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Card({} bytes)", self.bytes())
    }
}

/// Returns the encoded form: seven numbers, then all words.
pub fn flat(Card(card): &Card) -> Vec<u8> {
    let entry = card.index().values().next().expect("one block");
    let row = card.approx_filter.first().map_or(0, Vec::len);
    let numbers = [
        entry.approx_filter_m,
        entry.exact_filter_m,
        card.approx_filter.len(),
        usize::from(entry.inverted),
        entry.exceptions.len(),
        row,
        card.exact_filter.len(),
    ];
    let words = card.approx_filter.iter().flatten().chain(&card.exact_filter).copied();
    let mut out = super::bytes(&numbers.iter().map(|number| *number as u64).chain(words).collect::<Vec<_>>());
    out.extend(entry.exceptions.iter().flatten());
    out
}

/// A credential in the form that clubcard requires.
#[derive(Debug, Clone)]
pub struct Item {
    pub fingerprint: Fingerprint,
    pub revoked: bool,
}

impl AsQuery<4> for Item {
    fn as_query(&self, columns: usize) -> Equation<4> {
        let word = |at: usize| {
            u64::from_le_bytes(*self.fingerprint.as_bytes()[at..].first_chunk().expect("32 bytes"))
        };
        let start = word(4) % columns.max(1) as u64;
        Equation::homogeneous(start as usize, [word(0) | 1, word(8), word(16), word(24)])
    }

    fn block(&self) -> &[u8] {
        &[]
    }

    fn discriminant(&self) -> &[u8] {
        self.fingerprint.as_bytes()
    }
}

impl Filterable<4> for Item {
    fn included(&self) -> bool {
        self.revoked
    }
}

impl Queryable<4> for Item {
    type UniverseMetadata = ();
    type PartitionMetadata = ();

    fn in_universe(&self, (): &()) -> bool {
        true
    }
}
