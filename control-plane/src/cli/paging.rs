use clap::Args;

use super::{Failure, hint};
use crate::model::Page;

#[derive(Debug, Args)]
pub(super) struct Paging {
    /// How many to list at most, up to 1000
    #[arg(long, default_value_t = Page::DEFAULT)]
    limit: u32,
    /// Go on behind this place, which the page before named
    #[arg(long, value_name = "PLACE")]
    after: Option<String>,
}

impl Paging {
    pub(super) fn page(self) -> Result<Page, Failure> {
        Ok(Page::new(Some(self.limit), self.after)?)
    }
}

/// Where the list goes on.
pub(super) fn more(next: Option<&str>) {
    if let Some(next) = next {
        hint(format_args!("There are more: --after {next}"));
    }
}
