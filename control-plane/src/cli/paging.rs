use clap::Args;

use super::{CliError, hint};
use crate::domain::PageRequest;

#[derive(Debug, Args)]
pub(super) struct Paging {
    /// The maximum number of items, up to 1000
    #[arg(long, default_value_t = PageRequest::DEFAULT_LIMIT)]
    limit: u32,
    /// Continue after this position, which the previous page printed
    #[arg(long, value_name = "POSITION")]
    after: Option<String>,
}

impl Paging {
    pub(super) fn page(self) -> Result<PageRequest, CliError> {
        Ok(PageRequest::new(Some(self.limit), self.after)?)
    }
}

/// Prints how to get the next page, if there is one.
pub(super) fn print_next_page_hint(next: Option<&str>) {
    if let Some(next) = next {
        hint(format_args!("More items: --after {next}"));
    }
}
