use std::{borrow::Cow, cmp::Ordering};

use sqlx::{
    AnyConnection, AnyPool, Row as _, SqlSafeStr as _,
    migrate::{Migration, MigrationType, Migrator},
    query,
};

use super::{Engine, StoreError, engine::DatabaseLocation};

/// The schema of a database before it is migrated.
pub(crate) enum SchemaState {
    /// The database has no Keystile tables.
    None,
    /// The last applied migration.
    Version(i64),
    /// A migration was interrupted.
    Incomplete,
}

impl SchemaState {
    pub(crate) fn current(self, location: &DatabaseLocation) -> Result<(), StoreError> {
        let newest = MIGRATIONS.iter().map(|(version, ..)| *version).max();
        match self {
            Self::None => Err(StoreError::Missing { location: location.to_string() }),
            Self::Incomplete => Err(StoreError::SchemaIncomplete),
            Self::Version(version) => match Some(version).cmp(&newest) {
                Ordering::Less => Err(StoreError::SchemaOlder),
                Ordering::Equal => Ok(()),
                Ordering::Greater => Err(StoreError::SchemaNewer),
            },
        }
    }
}

pub(crate) async fn read_schema(
    connection: &mut AnyConnection,
    engine: Engine,
) -> Result<SchemaState, sqlx::Error> {
    let asked = match engine {
        Engine::Sqlite => {
            "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = '_sqlx_migrations'"
        }
        Engine::Postgres => "SELECT COUNT(to_regclass('_sqlx_migrations'))",
    };
    let tables: i64 = query(asked).fetch_one(&mut *connection).await?.try_get(0)?;
    if tables == 0 {
        return Ok(SchemaState::None);
    }
    let interrupted = "SELECT COUNT(*) FROM _sqlx_migrations WHERE NOT success";
    if query(interrupted).fetch_one(&mut *connection).await?.try_get::<i64, _>(0)? > 0 {
        return Ok(SchemaState::Incomplete);
    }
    let applied = query("SELECT MAX(version) FROM _sqlx_migrations").fetch_one(connection).await?;
    Ok(applied.try_get::<Option<i64>, _>(0)?.map_or(SchemaState::None, SchemaState::Version))
}

pub(crate) async fn run_migrations(pool: &AnyPool) -> Result<(), StoreError> {
    let migrations = MIGRATIONS.iter().map(|(version, name, sql)| {
        Migration::new(*version, Cow::Borrowed(name), MigrationType::Simple, sql.into_sql_str(), false)
    });
    Migrator::with_migrations(migrations.collect()).run(pool).await.map_err(StoreError::Migration)
}

const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "initial", include_str!("../../migrations/0001_initial.sql")),
    (2, "permissions", include_str!("../../migrations/0002_permissions.sql")),
    (3, "fleet and restorations", include_str!("../../migrations/0003_fleet_and_restorations.sql")),
    (4, "keys of others and API keys", include_str!("../../migrations/0004_keys_of_others_and_api_keys.sql")),
    (5, "base", include_str!("../../migrations/0005_base.sql")),
    (6, "API keys of format 2", include_str!("../../migrations/0006_api_keys_of_format_2.sql")),
    (7, "retention", include_str!("../../migrations/0007_retention.sql")),
    (8, "restored", include_str!("../../migrations/0008_restored.sql")),
    (9, "operator shares", include_str!("../../migrations/0009_operator_shares.sql")),
    (
        10,
        "edge credentials and creators",
        include_str!("../../migrations/0010_edge_credentials_and_creators.sql"),
    ),
    (11, "installation", include_str!("../../migrations/0011_installation.sql")),
    (12, "kept_streams", include_str!("../../migrations/0012_kept_streams.sql")),
    (13, "foreign_subjects", include_str!("../../migrations/0013_foreign_subjects.sql")),
    (14, "compactions", include_str!("../../migrations/0014_compactions.sql")),
];
