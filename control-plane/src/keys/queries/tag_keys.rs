use sqlx::{any::AnyRow, query};
use token::api_key::Kind;

use crate::{
    db::{Executor, StoreError, Write, row},
    domain::{Generation, TombstoneKind, UnixSeconds},
    journal::tombstones,
};

/// Inserts a generation.
pub async fn insert(write: &mut Write, generation: &Generation, at: UnixSeconds) -> Result<(), StoreError> {
    let Generation { number, kind, public } = generation;
    query("INSERT INTO tag_keys (generation, created_at, format, public) VALUES ($1, $2, $3, $4)")
        .bind(i64::from(*number))
        .bind(row::to_column(at))
        .bind(kind.name())
        .bind(public.as_ref().map(row::hex32))
        .execute(write.connection())
        .await?;
    Ok(())
}

/// Deletes a generation.
pub(in crate::keys) async fn delete(write: &mut Write, generation: u8) -> Result<(), StoreError> {
    let gone = query("DELETE FROM tag_keys WHERE generation = $1 RETURNING created_at")
        .bind(i64::from(generation))
        .fetch_optional(write.connection())
        .await?;
    if let Some(from) = &gone {
        let at = row::from_column(from, "created_at")?;
        tombstones::insert(write, TombstoneKind::TagKey, &generation.to_string(), at).await?;
    }
    Ok(())
}

/// Returns all generations, newest first. New API keys use the newest.
pub async fn list(executor: &mut impl Executor) -> Result<Vec<Generation>, StoreError> {
    let rows = query("SELECT generation, format, public FROM tag_keys ORDER BY generation DESC")
        .fetch_all(executor.connection())
        .await?;
    rows.iter().map(parse_row).collect()
}

/// Returns whether a generation exists.
pub async fn exists(executor: &mut impl Executor, generation: u8) -> Result<bool, StoreError> {
    let found = query("SELECT generation FROM tag_keys WHERE generation = $1")
        .bind(i64::from(generation))
        .fetch_optional(executor.connection())
        .await?;
    Ok(found.is_some())
}

fn parse_row(from: &AnyRow) -> Result<Generation, StoreError> {
    let kind = parse_kind(from)?;
    let public = match row::optional_text(from, "public")? {
        None => None,
        Some(_) => Some(row::hash(from, "public")?),
    };
    if public.is_some() == kind.is_symmetric() {
        return Err(StoreError::Corrupt { what: "public" });
    }
    let number = u8::try_from(row::from_column::<u64>(from, "generation")?);
    Ok(Generation { number: number.map_err(|_| StoreError::Corrupt { what: "generation" })?, kind, public })
}

pub fn parse_kind(from: &AnyRow) -> Result<Kind, StoreError> {
    let name = row::text(from, "format")?;
    Kind::ALL.into_iter().find(|kind| kind.name() == name).ok_or(StoreError::Corrupt { what: "format" })
}
