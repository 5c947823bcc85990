//! A database that cannot be opened is reported at once with its cause. Commands that only read create and change nothing.

use std::{
    fs::{self, OpenOptions},
    time::{Duration, Instant},
};

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::{for_each_backend, postgres, test_env::TestEnv};

for_each_backend! {
    async fn only_serve_migrates_older_schema_and_newer_is_rejected(env: TestEnv) {
        let shift = async |versions: i64| {
            let statement = format!("UPDATE _sqlx_migrations SET version = version + {versions}");
            if env.url.starts_with("postgres") {
                postgres::execute(&env.url, &statement);
            } else {
                execute_on_sqlite(&env, &statement).await;
            }
        };
        shift(-1_000).await;
        for verb in ["doctor", "audit"] {
            let output = env.run(&[verb]);
            assert_eq!(output.status.code(), Some(1));
            let message = output_text(&output);
            assert!(message.contains("older than this program"), "{message}");
            assert!(message.contains("`keystile serve`"), "{message}");
        }
        shift(2_000).await;
        for verb in ["doctor", "audit", "serve"] {
            let output = env.run(&[verb]);
            assert_eq!(output.status.code(), Some(1));
            assert!(output_text(&output).contains("newer than this program"), "{}", output_text(&output));
        }
    }
}

#[tokio::test]
async fn read_commands_create_no_database() {
    let env = TestEnv::on_sqlite().await;
    let file = env.data().join("keystile.db");
    fs::remove_file(&file).unwrap();
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(env.data().join(format!("keystile.db{suffix}")));
    }
    for arguments in [&["audit"][..], &["serve"], &["edge", "list"], &["bundle", "show"]] {
        let stderr = env.stderr_of_failure(arguments);
        assert!(stderr.contains(&format!("no database at `{}`; ", file.display())), "{stderr}");
        assert!(!file.exists(), "{arguments:?}");
    }
    let advice = output_text(&env.run(&["doctor"]));
    assert!(advice.contains("Next: restore the database from its backup"), "{advice}");
    assert!(!file.exists());
    fs::write(&file, "").unwrap();
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    assert!(output_text(&env.run(&["doctor"])).contains("Next: restore the database from its backup"));
    assert!(env.stderr_of_failure(&["serve"]).contains("no database at "));
    assert_eq!(fs::read(&file).unwrap(), b"");
}

#[tokio::test]
async fn database_without_schema_is_rejected() {
    let env = TestEnv::on_postgres().await;
    for table in ["_sqlx_migrations", "bundle_state"] {
        postgres::execute(&env.url, &format!("DROP TABLE {table}"));
    }
    for verb in ["audit", "serve"] {
        assert!(env.stderr_of_failure(&[verb]).contains("no database at `"), "{verb}");
    }
}

#[tokio::test]
async fn damaged_database_file_is_named() {
    let env = TestEnv::on_sqlite().await;
    let file = env.data().join("keystile.db");
    let size = fs::metadata(&file).unwrap().len();
    OpenOptions::new().write(true).open(&file).unwrap().set_len(size / 2).unwrap();
    assert_quick_failure(&env, &[&file.display().to_string(), "malformed"]);
    fs::write(&file, "this is not a database, but a text that is long enough to look like one. ".repeat(20))
        .unwrap();
    assert_quick_failure(&env, &[&file.display().to_string(), "file is not a database"]);
}

#[tokio::test]
async fn unreachable_postgres_error_omits_password() {
    let mut env = TestEnv::on_sqlite().await;
    env.set_setting("KEYSTILE_STORE__URL", "postgres://keystile:hunter2@127.0.0.1:1/keystile");
    assert_quick_failure_of(&env, &["audit", "init"], &["127.0.0.1:1", "refused"]);
    env.set_setting("KEYSTILE_STORE__URL", "postgres://keystile:9/hunter2@127.0.0.1/keystile");
    assert_quick_failure(&env, &["store.url"]);
}

async fn execute_on_sqlite(env: &TestEnv, statement: &str) {
    let options = SqliteConnectOptions::new().filename(env.data().join("keystile.db"));
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    connection.execute(AssertSqlSafe(statement)).await.unwrap();
    connection.close().await.unwrap();
}

fn assert_quick_failure(env: &TestEnv, words: &[&str]) {
    assert_quick_failure_of(env, &["audit", "serve"], words);
}

/// Checks that the output is one line with all of the words.
fn assert_quick_failure_of(env: &TestEnv, verbs: &[&str], words: &[&str]) {
    for verb in verbs {
        let began = Instant::now();
        let stderr = env.stderr_of_failure(&[verb]);
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        for word in words {
            assert!(stderr.contains(word), "{word}: {stderr}");
        }
        assert_eq!(stderr.trim_end().lines().count(), 1, "{stderr}");
        assert!(!stderr.contains("hunter2"), "{stderr}");
    }
}

fn output_text(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
