//! Tests of the control plane through its API, its commands and its functions, on SQLite and PostgreSQL.

mod api_authorization;
mod api_keys;
mod audit;
mod certificates;
mod cli_reference;
mod clocks;
mod command_line;
mod compaction;
mod database_connections;
mod database_open;
mod database_restore;
mod database_tls;
mod edges;
mod exchange;
mod fake_idp;
mod first_release;
mod foreign_subjects;
mod http_validation;
mod installation_identity;
mod issuers;
mod journal;
mod layering;
mod limits;
mod long_term_model;
mod model;
mod openapi;
mod permission_matrix;
mod permissions;
mod policy_import;
mod postgres;
mod relay;
mod replicas;
mod revocations;
mod rollout;
mod secrets;
mod settings_messages;
mod shutdown;
mod signing_keys;
mod store;
mod store_outage;
mod store_rollback;
mod test_env;
mod trust_anchor;
mod unrevocations;

/// Defines a test for SQLite and one for PostgreSQL from one function.
macro_rules! for_each_backend {
    ($($(#[$doc:meta])* async fn $name:ident($env:ident: TestEnv) $body:block)*) => {$(
        mod $name {
            use super::*;

            $(#[$doc])*
            async fn check($env: TestEnv) $body

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_sqlite() {
                check(TestEnv::on_sqlite().await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_postgres() {
                check(TestEnv::on_postgres().await).await;
            }
        }
    )*};
}
use for_each_backend;
