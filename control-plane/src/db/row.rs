//! Conversions between columns and types.

use std::str::FromStr;

use sqlx::{Row as _, any::AnyRow, query};
use token::Fingerprint;

use super::{Executor, StoreError};
use crate::domain::{OperatorId, Subject, UnixSeconds, UserName};

pub(crate) fn text(row: &AnyRow, column: &'static str) -> Result<String, StoreError> {
    Ok(row.try_get(column)?)
}

pub(crate) fn optional_text(row: &AnyRow, column: &'static str) -> Result<Option<String>, StoreError> {
    Ok(row.try_get(column)?)
}

pub(crate) fn parsed_text<T: FromStr>(row: &AnyRow, column: &'static str) -> Result<T, StoreError> {
    parse_text(&text(row, column)?, column)
}

pub(crate) fn optional_parsed_text<T: FromStr>(
    row: &AnyRow,
    column: &'static str,
) -> Result<Option<T>, StoreError> {
    optional_text(row, column)?.map(|text| parse_text(&text, column)).transpose()
}

pub(crate) fn from_column<T: From<u64>>(row: &AnyRow, column: &'static str) -> Result<T, StoreError> {
    let value = u64::try_from(row.try_get::<i64, _>(column)?);
    value.map(T::from).map_err(|_| StoreError::Corrupt { what: column })
}

pub(crate) fn optional_from_column<T: From<u64>>(
    row: &AnyRow,
    column: &'static str,
) -> Result<Option<T>, StoreError> {
    let value = row.try_get::<Option<i64>, _>(column)?;
    let value = value.map(u64::try_from).transpose().map_err(|_| StoreError::Corrupt { what: column })?;
    Ok(value.map(T::from))
}

/// Runs a query that returns one number in the column `number`.
pub(crate) async fn count(executor: &mut impl Executor, sql: &'static str) -> Result<u64, StoreError> {
    from_column(&query(sql).fetch_one(executor.connection()).await?, "number")
}

/// Runs a query that returns one number in the column `number`, of an owner (`$1`) and up to a limit (`$2`).
pub(crate) async fn count_up_to(
    executor: &mut impl Executor,
    sql: &'static str,
    owner: &str,
    limit: u64,
) -> Result<u64, StoreError> {
    let counted = query(sql).bind(owner).bind(to_column(limit)).fetch_one(executor.connection()).await?;
    from_column(&counted, "number")
}

/// Returns this many parameters, each as in `template`, which contains `$`: `$1, $2` of `$`, or `($1), ($2)` of `($)`.
pub(crate) fn parameters(template: &str, count: usize) -> String {
    let parameters: Vec<String> =
        (1..=count).map(|number| template.replace('$', &format!("${number}"))).collect();
    parameters.join(", ")
}

/// Reads 32 bytes, stored in hexadecimal.
pub(crate) fn hash(row: &AnyRow, column: &'static str) -> Result<[u8; 32], StoreError> {
    Ok(*parsed_text::<Fingerprint>(row, column)?.as_bytes())
}

pub(crate) fn subject(row: &AnyRow) -> Result<Subject, StoreError> {
    Ok(Subject {
        operator: parsed_text::<OperatorId>(row, "operator_id")?,
        user: optional_parsed_text::<UserName>(row, "user_name")?,
    })
}

/// Converts instants and versions, which are far below 2^63.
pub(crate) fn to_column(value: impl Into<u64>) -> i64 {
    i64::try_from(value.into()).unwrap_or(i64::MAX)
}

/// The expiry of a credential that never expires: the largest instant that a column can store.
pub const NEVER_EXPIRES: UnixSeconds = UnixSeconds::new(i64::MAX.cast_unsigned());

/// Converts a prefix bit by bit, as SQL has no unsigned integers.
pub(crate) fn prefix_to_column(fingerprint: &Fingerprint) -> i64 {
    fingerprint.prefix().cast_signed()
}

/// About how many rows are joined to one text: 4 MB.
pub(crate) const BATCH_SIZE: u64 = 50_000;

/// Parses a text of `string_agg(fingerprint || expires_at, ',')`. Joining thousands of rows in the database takes a fraction
/// of the time that as many rows take.
pub(crate) fn parse_batch(
    batch: &str,
) -> impl Iterator<Item = Result<(Fingerprint, UnixSeconds), StoreError>> {
    let corrupt = || StoreError::Corrupt { what: "fingerprint" };
    batch.split_terminator(',').map(move |entry| {
        let (fingerprint, expires_at) = entry.split_at_checked(64).ok_or_else(corrupt)?;
        Ok((parse_text(fingerprint, "fingerprint")?, parse_text(expires_at, "expires_at")?))
    })
}

pub(crate) fn hex32(bytes: &[u8; 32]) -> String {
    base16ct::lower::encode_string(bytes)
}

fn parse_text<T: FromStr>(text: &str, column: &'static str) -> Result<T, StoreError> {
    text.parse().map_err(|_| StoreError::Corrupt { what: column })
}
