//! A database that cannot be opened is reported at once with its cause. Commands that only read create and change nothing.

use std::{
    fs::{self, OpenOptions},
    time::{Duration, Instant},
};

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::{on_both, postgres, world::World};

on_both! {
    async fn only_serve_takes_up_an_older_schema_and_nobody_a_newer_one(world: World) {
        let shift = async |versions: i64| {
            let statement = format!("UPDATE _sqlx_migrations SET version = version + {versions}");
            if world.url.starts_with("postgres") {
                postgres::execute(&world.url, &statement);
            } else {
                execute_on_sqlite(&world, &statement).await;
            }
        };
        shift(-1_000).await;
        for verb in ["doctor", "audit"] {
            let output = world.run(&[verb]);
            assert_eq!(output.status.code(), Some(1));
            let told = told(&output);
            assert!(told.contains("older than this program"), "{told}");
            assert!(told.contains("`keystile serve`"), "{told}");
        }
        shift(2_000).await;
        for verb in ["doctor", "audit", "serve"] {
            let output = world.run(&[verb]);
            assert_eq!(output.status.code(), Some(1));
            assert!(told(&output).contains("newer than this program"), "{}", told(&output));
        }
    }
}

#[tokio::test]
async fn looking_makes_no_database() {
    let world = World::on_sqlite().await;
    let file = world.data().join("keystile.db");
    fs::remove_file(&file).unwrap();
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(world.data().join(format!("keystile.db{suffix}")));
    }
    for arguments in [&["audit"][..], &["serve"], &["edge", "list"], &["bundle", "show"]] {
        let complaint = world.complaint(arguments);
        assert!(complaint.contains(&format!("no database at `{}`; ", file.display())), "{complaint}");
        assert!(!file.exists(), "{arguments:?}");
    }
    let advice = told(&world.run(&["doctor"]));
    assert!(advice.contains("Next: restore the database from its backup"), "{advice}");
    assert!(!file.exists());
    fs::write(&file, "").unwrap();
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    assert!(told(&world.run(&["doctor"])).contains("Next: restore the database from its backup"));
    assert!(world.complaint(&["serve"]).contains("no database at "));
    assert_eq!(fs::read(&file).unwrap(), b"");
}

#[tokio::test]
async fn a_database_without_our_tables_is_none() {
    let world = World::on_postgres().await;
    for table in ["_sqlx_migrations", "bundle_state"] {
        postgres::execute(&world.url, &format!("DROP TABLE {table}"));
    }
    for verb in ["audit", "serve"] {
        assert!(world.complaint(&[verb]).contains("no database at `"), "{verb}");
    }
}

#[tokio::test]
async fn a_damaged_file_is_named_at_once() {
    let world = World::on_sqlite().await;
    let file = world.data().join("keystile.db");
    let size = fs::metadata(&file).unwrap().len();
    OpenOptions::new().write(true).open(&file).unwrap().set_len(size / 2).unwrap();
    quick(&world, &[&file.display().to_string(), "malformed"]);
    fs::write(&file, "this is not a database, but a text that is long enough to look like one. ".repeat(20))
        .unwrap();
    quick(&world, &[&file.display().to_string(), "file is not a database"]);
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_named_without_the_password() {
    let mut world = World::on_sqlite().await;
    world.set("KEYSTILE_STORE__URL", "postgres://keystile:hunter2@127.0.0.1:1/keystile");
    quick(&world, &["127.0.0.1:1", "refused"]);
    world.set("KEYSTILE_STORE__URL", "postgres://keystile:9/hunter2@127.0.0.1/keystile");
    quick(&world, &["store.url"]);
}

async fn execute_on_sqlite(world: &World, statement: &str) {
    let options = SqliteConnectOptions::new().filename(world.data().join("keystile.db"));
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    connection.execute(AssertSqlSafe(statement)).await.unwrap();
    connection.close().await.unwrap();
}

/// Checks that the output is one line with all of the words.
fn quick(world: &World, words: &[&str]) {
    for verb in ["audit", "serve"] {
        let began = Instant::now();
        let complaint = world.complaint(&[verb]);
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        for word in words {
            assert!(complaint.contains(word), "{word}: {complaint}");
        }
        assert_eq!(complaint.trim_end().lines().count(), 1, "{complaint}");
        assert!(!complaint.contains("hunter2"), "{complaint}");
    }
}

fn told(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
