//! A database of the first release, with data, is migrated by the first start of a server.

use control_plane::{
    audit,
    credentials::{auth_keys, issued},
    db::{NEVER_EXPIRES, versions},
    domain::{Subject, UnixSeconds, Version, Watermark},
    publishing,
    revocation::{revocations, watermarks},
};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::{for_each_backend, postgres, test_env::TestEnv};

const DATABASE: &str = include_str!("../data/database_0_1.sql");

/// The SHA-384 of the first migration, which the release recorded. The migration must never change.
const CHECKSUM: &str =
    "e7f8843a465cfdfbe5a6683dc6d64a85133f2b6e405fcf6e34036a1e62cf741b3dfdd20c7ede57c75ebcff682eb72707";

/// The secret of both AuthKeys, and the credential of the edge.
const SECRET: &str = "secret-of-the-first-release";
const EDGE_CREDENTIAL: &str = "ks_edge_C7owa4PjkYK95wBrrAfzZDsMxOi9WV8u4ZhI5V0QWFJ2vW2md";

for_each_backend! {
    async fn database_of_first_release_is_migrated(env: TestEnv) {
        replace_database(&env).await;
        let doctor = env.run(&["doctor"]);
        assert!(String::from_utf8_lossy(&doctor.stdout).contains("older than this program"));

        // Credentials of AuthKeys and edges stay valid.
        let server = env.serve();
        server.exchange("keyId-root", SECRET).await;
        assert_eq!(server.manifest(EDGE_CREDENTIAL, 0, 0).send().await.unwrap().status(), 200);
        drop(server);

        // What was refused is still refused, for as long as anything that it covers may live.
        let service = env.service().await;
        let store = env.store().await;
        let mut read = store.read().await.unwrap();
        let [kept, revoked] = [('1', 1), ('f', 2)].map(|(first, last)| format!("{first}{last:063}").parse().unwrap());
        let revocation = revocations::find(&mut read, &revoked).await.unwrap().unwrap();
        assert_eq!((revocation.reason.as_deref(), revocation.revoked_at), (Some("leaked"), UnixSeconds::new(1_795_219_240)));
        assert_eq!(revocations::find(&mut read, &kept).await.unwrap(), None);
        for (subject, instant) in [("OP0000000001/alice", 1_795_219_250), ("OP0000000002", 1_795_219_260)] {
            let instant = UnixSeconds::new(instant);
            let scope = subject.parse::<Subject>().unwrap().into();
            let watermark = watermarks::find(&mut read, &scope).await.unwrap();
            assert_eq!(watermark, Some(Watermark { scope, instant, ends_at: NEVER_EXPIRES }));
        }
        assert!(versions::current(&mut read).await.unwrap().number > Version::new(7));
        assert!(publishing::preview(&service).await.unwrap().version > Version::new(7));

        // The rest of the data.
        let issuance = issued::find(&mut read, &kept).await.unwrap().unwrap();
        assert_eq!((issuance.subject.to_string().as_str(), issuance.issued_at), ("OP0000000001", UnixSeconds::new(1_795_219_220)));
        let key = auth_keys::find(&mut read, &"keyId-alice".parse().unwrap()).await.unwrap().unwrap();
        assert_eq!((key.created_by.as_deref(), key.created_at), (Some("OP0000000001"), UnixSeconds::new(1_795_219_210)));
        let lines = audit::list_newest(&mut read, 100).await.unwrap();
        assert!(lines.iter().any(|line| line.seq == 2 && line.target == "keyId-alice"));
        drop(read);
        let doctor = env.run(&["doctor"]);
        assert!(doctor.status.success(), "{}", String::from_utf8_lossy(&doctor.stdout));
    }
}

/// Replaces the database of an environment by the one of the first release, with the signing key of the environment.
async fn replace_database(env: &TestEnv) {
    let keyring = env.service().await.keys().current();
    let public = keyring.signer().verifying_key().public_bytes().unwrap();
    let public: String = public.iter().map(|byte| format!("{byte:02x}")).collect();
    let script = DATABASE.replace("$KID", keyring.signer().kid()).replace("$PUBLIC", &public);
    let is_postgres = env.url.starts_with("postgres");
    let (time, blob, checksum) = match is_postgres {
        true => ("TIMESTAMPTZ", "BYTEA", format!("decode('{CHECKSUM}', 'hex')")),
        false => ("TIMESTAMP", "BLOB", format!("x'{CHECKSUM}'")),
    };
    let migrations = format!(
        "CREATE TABLE _sqlx_migrations (version BIGINT PRIMARY KEY, description TEXT NOT NULL, \
         installed_on {time} NOT NULL DEFAULT CURRENT_TIMESTAMP, success BOOLEAN NOT NULL, checksum {blob} NOT NULL, \
         execution_time BIGINT NOT NULL); \
         INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (1, 'initial', TRUE, {checksum}, 1);"
    );
    if is_postgres {
        postgres::execute(&env.url, "DROP SCHEMA public CASCADE");
        postgres::execute(&env.url, "CREATE SCHEMA public");
        postgres::execute(&env.url, &(script + &migrations));
        return;
    }
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(env.data().join(format!("keystile.db{suffix}")));
    }
    let file = env.write_file("data/keystile.db", "");
    let mut connection =
        SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(file)).await.unwrap();
    connection.execute(AssertSqlSafe(script + &migrations)).await.unwrap();
    connection.close().await.unwrap();
}
