//! Tests of the control plane through its API, its commands and its functions, on SQLite and PostgreSQL.

mod api_keys;
mod audit;
mod cli_reference;
mod clocks;
mod command_line;
mod edges;
mod exchange;
mod fleet;
mod forever;
mod idp;
mod issuers;
mod journal;
mod limits;
mod model;
mod openapi;
mod opening;
mod outage;
mod own_api;
mod permission_matrix;
mod permissions;
mod postgres;
mod replicas;
mod restored;
mod revocations;
mod rooms;
mod same_store;
mod secrets;
mod signing_keys;
mod store;
mod strictness;
mod trust_anchor;
mod unrevocations;
mod went_back;
mod world;

/// Defines a test for SQLite and one for PostgreSQL from one function.
macro_rules! on_both {
    ($($(#[$doc:meta])* async fn $name:ident($world:ident: World) $body:block)*) => {$(
        mod $name {
            use super::*;

            $(#[$doc])*
            async fn promise($world: World) $body

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_sqlite() {
                promise(World::on_sqlite().await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_postgres() {
                promise(World::on_postgres().await).await;
            }
        }
    )*};
}
use on_both;
