/// The request of a page of a list: a limit, and the position after which the page begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageRequest {
    limit: u32,
    after: Option<String>,
}

impl PageRequest {
    /// The default limit.
    pub const DEFAULT_LIMIT: u32 = 100;
    /// The highest limit.
    pub const MAX_LIMIT: u32 = 1000;

    /// Returns a page. `after` is the `next` of the previous page.
    pub fn new(limit: Option<u32>, after: Option<String>) -> Result<Self, InvalidPageRequest> {
        let limit = limit.unwrap_or(Self::DEFAULT_LIMIT);
        if (1..=Self::MAX_LIMIT).contains(&limit) {
            Ok(Self { limit, after })
        } else {
            Err(InvalidPageRequest::Limit)
        }
    }

    /// Returns a page with the highest limit.
    pub(crate) const fn with_max_limit(after: Option<String>) -> Self {
        Self { limit: Self::MAX_LIMIT, after }
    }

    /// Returns how many rows to query: one more than the limit, which shows whether there is a next page.
    pub(crate) fn rows(&self) -> i64 {
        i64::from(self.limit) + 1
    }

    pub(crate) fn after(&self) -> Option<&str> {
        self.after.as_deref()
    }

    /// Returns the position in a list that is ordered by a number and a text.
    pub(crate) fn after_pair(&self) -> Result<Option<(i64, &str)>, InvalidPageRequest> {
        let Some(after) = &self.after else { return Ok(None) };
        let (number, text) = after.split_once('.').ok_or(InvalidPageRequest::After)?;
        Ok(Some((number.parse().map_err(|_| InvalidPageRequest::After)?, text)))
    }

    /// Makes a page of the queried rows. `position` returns the position of a row.
    pub(crate) fn paginate<T>(&self, mut rows: Vec<T>, position: impl Fn(&T) -> String) -> Page<T> {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let has_more = rows.len() > limit;
        rows.truncate(limit);
        let next = if has_more { rows.last().map(position) } else { None };
        Page { items: rows, next }
    }
}

impl Default for PageRequest {
    fn default() -> Self {
        Self { limit: Self::DEFAULT_LIMIT, after: None }
    }
}

/// A page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// The position of the next page; `None` on the last page.
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// Converts the items.
    pub fn map<U>(self, change: impl FnMut(T) -> U) -> Page<U> {
        Page { items: self.items.into_iter().map(change).collect(), next: self.next }
    }
}

/// The request of a page is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPageRequest {
    /// The limit is out of range.
    #[error("the limit of a list is a number from 1 to {}", PageRequest::MAX_LIMIT)]
    Limit,
    /// The position is not the `next` of a page of this list.
    #[error("invalid position: expected the `next` of an earlier page of the list")]
    After,
}
