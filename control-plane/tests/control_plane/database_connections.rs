//! Connections to PostgreSQL that are useless are replaced, and the cause of a failure is stated.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use control_plane::db::{CommitListener, Store, StoreError};
use tokio::time::timeout;

use crate::{
    postgres,
    relay::Relay,
    test_env::{TestEnv, eventually},
};

/// Returns the URL of the database of an environment by way of another address.
fn url_by(env: &TestEnv, address: SocketAddr) -> String {
    env.url.replace(&format!(":{}/", postgres::port()), &format!(":{}/", address.port()))
}

async fn open_by(env: &TestEnv, relay: &Relay) -> Store {
    Store::open(&url_by(env, relay.address()), &env.data()).await.unwrap()
}

/// Returns the text of an error and its causes.
fn text(error: &StoreError) -> String {
    let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    format!("{error}: {cause}")
}

/// A firewall that drops connections without a word costs their next user a second.
#[tokio::test]
async fn silent_connections_are_replaced() {
    let env = TestEnv::on_postgres().await;
    let relay = Relay::start(postgres::port()).await;
    let store = open_by(&env, &relay).await;
    store.open_all_connections().await.unwrap();
    // They return to their pools in the background.
    eventually("idle connections", async || (store.idle_connections() == 16).then_some(())).await;
    let mut changes = store.listen_for_commits().await.unwrap();
    relay.silence();
    let began = Instant::now();
    store.probe_write().await.unwrap();
    drop(store.reader().await.unwrap());
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    // The silence of a listener is not noticed by waiting for notifications.
    let lost = async {
        loop {
            if let Err(error) = changes.next().await {
                return error;
            }
        }
    };
    timeout(Duration::from_secs(30), lost).await.expect("the listener is tested");
}

#[tokio::test]
async fn loss_of_listener_is_noticed() {
    let env = TestEnv::on_postgres().await;
    let relay = Relay::start(postgres::port()).await;
    let mut changes: CommitListener = open_by(&env, &relay).await.listen_for_commits().await.unwrap();
    drop(relay);
    let lost = async {
        loop {
            if let Err(error) = changes.next().await {
                return error;
            }
        }
    };
    timeout(Duration::from_secs(30), lost).await.expect("an error");
}

/// As after a failover: the connections lead to a server that has become read-only.
#[tokio::test]
async fn read_only_connections_are_replaced() {
    let env = TestEnv::on_postgres().await;
    let name = postgres::name(&env.url);
    let setting = "default_transaction_read_only";
    postgres::administer(&format!("ALTER DATABASE {name} SET {setting} = on"));
    let store = env.store().await;
    for _ in 0..2 {
        let error = store.probe_write().await.unwrap_err();
        assert!(text(&error).contains("read-only"), "{}", text(&error));
    }
    postgres::administer(&format!("ALTER DATABASE {name} RESET {setting}"));
    store.probe_write().await.unwrap();
}

#[tokio::test]
async fn failure_to_connect_states_the_cause() {
    let env = TestEnv::on_postgres().await;
    let relay = Relay::start(postgres::port()).await;
    let store = open_by(&env, &relay).await;
    store.probe_write().await.unwrap();
    let address = relay.address();
    drop(relay);
    // A connection that was just being accepted is reset instead.
    eventually("the refusal", async || TcpStream::connect(address).is_err().then_some(())).await;
    let began = Instant::now();
    let error = store.probe_write().await.unwrap_err();
    assert!(text(&error).contains("refused"), "{}", text(&error));
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());

    let name = postgres::name(&env.url);
    postgres::execute(&env.url, &format!("CREATE ROLE few_{name} LOGIN SUPERUSER"));
    let store =
        Store::open(&env.url.replace("keystile@", &format!("few_{name}@")), &env.data()).await.unwrap();
    postgres::execute(&env.url, &format!("ALTER ROLE few_{name} NOLOGIN"));
    let error = store.probe_write().await.unwrap_err();
    assert!(text(&error).contains("not permitted to log in"), "{}", text(&error));
}

#[tokio::test]
async fn exhausted_pool_is_no_error_of_the_database() {
    let env = TestEnv::on_sqlite().await;
    let store = env.store().await;
    let _held = store.upkeep().await.unwrap();
    let error = store.upkeep().await.unwrap_err();
    assert!(matches!(error, StoreError::Busy), "{}", text(&error));
}

/// Database and server are often started at the same time.
#[tokio::test]
async fn serve_waits_for_database_that_starts() {
    let mut env = TestEnv::on_postgres().await;
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = url_by(&env, free);
    env.set_setting("KEYSTILE_STORE__URL", &url);
    let refused = env.stderr_of_failure(&["audit"]);
    assert!(refused.contains("refused"), "{refused}");
    let log = env.folder().join("log");
    let starting = tokio::task::spawn_blocking(move || (env.serve(), env));
    let is_waiting = || fs::read_to_string(&log).is_ok_and(|log| log.contains("waiting for the database"));
    eventually("waiting", async || is_waiting().then_some(())).await;
    let _relay = Relay::at(free, postgres::port()).await;
    let (server, _env) = starting.await.unwrap();
    assert_eq!(server.get("/healthz").send().await.unwrap().status(), 200);
}

/// Separate roles for the owner of the schema and the server are usual.
#[tokio::test]
async fn server_and_doctor_need_no_rights_on_the_schema() {
    let mut env = TestEnv::on_postgres().await;
    let name = postgres::name(&env.url).to_owned();
    let role = format!("app_{name}");
    for statement in [
        format!("CREATE ROLE {role} LOGIN"),
        format!("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}"),
    ] {
        postgres::execute(&env.url, &statement);
    }
    let url = env.url.replace("keystile@", &format!("{role}@"));
    env.set_setting("KEYSTILE_STORE__URL", &url);
    let doctor = env.run(&["doctor", "--json"]);
    assert!(doctor.status.success(), "{}", String::from_utf8_lossy(&doctor.stdout));
    let server = env.serve();
    server.exchange(&env.auth_key_id, &env.auth_key).await;
    drop(server);

    // `doctor` opens as many connections as the server.
    postgres::execute(&env.url, &format!("ALTER ROLE {role} CONNECTION LIMIT 5"));
    let doctor = env.run(&["doctor", "--json"]);
    let findings = String::from_utf8(doctor.stdout).unwrap();
    assert_eq!(doctor.status.code(), Some(1), "{findings}");
    assert!(findings.contains("too many connections for role"), "{findings}");
}
