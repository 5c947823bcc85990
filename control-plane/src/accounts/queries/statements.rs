//! The column of compiled statements.

use sqlx::any::AnyRow;
use token::base64url;

use crate::db::{StoreError, row};

/// Returns the compiled statements of a row.
pub(in crate::accounts) fn parse_statements(from: &AnyRow) -> Result<Option<Vec<u8>>, StoreError> {
    let statements = row::optional_text(from, "statements")?
        .map(|text| base64url::decode(text.as_bytes()).ok_or(StoreError::Corrupt { what: "statements" }));
    statements.transpose()
}
