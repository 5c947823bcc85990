use std::borrow::Cow;

use sqlx::{
    AnyPool, SqlSafeStr as _,
    migrate::{Migration, MigrationType, Migrator},
};

use super::StoreError;

pub(super) async fn run(pool: &AnyPool) -> Result<(), StoreError> {
    let migrations = MIGRATIONS.iter().map(|(version, name, sql)| {
        Migration::new(*version, Cow::Borrowed(name), MigrationType::Simple, sql.into_sql_str(), false)
    });
    Migrator::with_migrations(migrations.collect()).run(pool).await.map_err(StoreError::Migration)
}

const MIGRATIONS: &[(i64, &str, &str)] = &[(1, "initial", include_str!("../../migrations/0001_initial.sql"))];
