use std::fmt;

/// A part of a list: so many at most, from behind this place on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    limit: u32,
    after: Option<String>,
}

impl Page {
    pub const DEFAULT: u32 = 100;
    pub const LONGEST: u32 = 1000;

    /// `after` is the `next` of the page before.
    pub fn new(limit: Option<u32>, after: Option<String>) -> Result<Self, BadPage> {
        let limit = limit.unwrap_or(Self::DEFAULT);
        if (1..=Self::LONGEST).contains(&limit) { Ok(Self { limit, after }) } else { Err(BadPage::Limit) }
    }

    /// As much at once as there may be.
    pub(crate) const fn longest(after: Option<String>) -> Self {
        Self { limit: Self::LONGEST, after }
    }

    /// How many to look for: one more tells whether there are more.
    pub(crate) fn rows(&self) -> i64 {
        i64::from(self.limit) + 1
    }

    pub(crate) fn after(&self) -> Option<&str> {
        self.after.as_deref()
    }

    /// The place of a list that is ordered by a number and then a text.
    pub(crate) fn after_pair(&self) -> Result<Option<(i64, &str)>, BadPage> {
        let Some(after) = &self.after else { return Ok(None) };
        let (number, text) = after.split_once('.').ok_or(BadPage::After)?;
        Ok(Some((number.parse().map_err(|_| BadPage::After)?, text)))
    }

    /// The page out of the rows that were found, each with its place.
    pub(crate) fn of<T>(&self, mut rows: Vec<T>, place: impl Fn(&T) -> String) -> Paged<T> {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = if more { rows.last().map(place) } else { None };
        Paged { items: rows, next }
    }
}

impl Default for Page {
    fn default() -> Self {
        Self { limit: Self::DEFAULT, after: None }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paged<T> {
    pub items: Vec<T>,
    /// Where the next page begins; none at the end of the list.
    pub next: Option<String>,
}

impl<T> Paged<T> {
    pub fn map<U>(self, change: impl FnMut(T) -> U) -> Paged<U> {
        Paged { items: self.items.into_iter().map(change).collect(), next: self.next }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadPage {
    Limit,
    /// It is not the `next` of a page of this list.
    After,
}

impl fmt::Display for BadPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limit => write!(f, "the limit of a list is a number from 1 to {}", Page::LONGEST),
            Self::After => f.write_str("this is not what an earlier page of the list named for the next one"),
        }
    }
}

impl std::error::Error for BadPage {}
