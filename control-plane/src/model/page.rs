use std::fmt;

/// The request of a page of a list: a limit, and the position after which the page begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    limit: u32,
    after: Option<String>,
}

impl Page {
    /// The default limit.
    pub const DEFAULT: u32 = 100;
    /// The highest limit.
    pub const LONGEST: u32 = 1000;

    /// Returns a page. `after` is the `next` of the previous page.
    pub fn new(limit: Option<u32>, after: Option<String>) -> Result<Self, BadPage> {
        let limit = limit.unwrap_or(Self::DEFAULT);
        if (1..=Self::LONGEST).contains(&limit) { Ok(Self { limit, after }) } else { Err(BadPage::Limit) }
    }

    /// Returns a page with the highest limit.
    pub(crate) const fn longest(after: Option<String>) -> Self {
        Self { limit: Self::LONGEST, after }
    }

    /// Returns how many rows to query: one more than the limit, which shows whether there is a next page.
    pub(crate) fn rows(&self) -> i64 {
        i64::from(self.limit) + 1
    }

    pub(crate) fn after(&self) -> Option<&str> {
        self.after.as_deref()
    }

    /// Returns the position in a list that is ordered by a number and a text.
    pub(crate) fn after_pair(&self) -> Result<Option<(i64, &str)>, BadPage> {
        let Some(after) = &self.after else { return Ok(None) };
        let (number, text) = after.split_once('.').ok_or(BadPage::After)?;
        Ok(Some((number.parse().map_err(|_| BadPage::After)?, text)))
    }

    /// Makes a page of the queried rows. `position` returns the position of a row.
    pub(crate) fn of<T>(&self, mut rows: Vec<T>, position: impl Fn(&T) -> String) -> Paged<T> {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let has_more = rows.len() > limit;
        rows.truncate(limit);
        let next = if has_more { rows.last().map(position) } else { None };
        Paged { items: rows, next }
    }
}

impl Default for Page {
    fn default() -> Self {
        Self { limit: Self::DEFAULT, after: None }
    }
}

/// A page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paged<T> {
    /// The items.
    pub items: Vec<T>,
    /// The position of the next page; `None` on the last page.
    pub next: Option<String>,
}

impl<T> Paged<T> {
    /// Converts the items.
    pub fn map<U>(self, change: impl FnMut(T) -> U) -> Paged<U> {
        Paged { items: self.items.into_iter().map(change).collect(), next: self.next }
    }
}

/// The request of a page is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadPage {
    /// The limit is out of range.
    Limit,
    /// The position is not the `next` of a page of this list.
    After,
}

impl fmt::Display for BadPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limit => write!(f, "the limit of a list is a number from 1 to {}", Page::LONGEST),
            Self::After => {
                f.write_str("invalid position: expected the `next` of an earlier page of the list")
            }
        }
    }
}

impl std::error::Error for BadPage {}
