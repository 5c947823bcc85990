//! The control plane from outside and inside, on SQLite and PostgreSQL alike.

mod api_keys;
mod audit;
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

/// Makes one test into two: the same on SQLite and on PostgreSQL.
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
