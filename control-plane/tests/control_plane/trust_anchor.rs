//! Only `init` creates a root key, and if keys exist, only with `--yes`. Missing keys and keys of another installation are
//! refused before anything is written.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use sqlx::{
    AssertSqlSafe, Connection as _, Executor as _, Row as _, SqliteConnection, sqlite::SqliteConnectOptions,
};

use crate::{
    for_each_backend, postgres,
    test_env::{TestEnv, json_text},
};

for_each_backend! {
    async fn missing_key_files_are_named_and_not_created(env: TestEnv) {
        // Create a tag key as well.
        env.json(&["key", "create", "--user", &env.operator]);
        let keys = env.data().join("keys");
        let signing: Vec<String> = files(&keys).into_keys().filter(|name| name.starts_with("ks-")).collect();
        let away = env.folder().join("away");
        fs::create_dir(&away).unwrap();
        // The root key is stored elsewhere, as advised.
        fs::rename(keys.join("root.jwk"), env.folder().join("root.jwk")).unwrap();
        for lost in [
            vec!["root.pub"], vec!["delegation"], vec!["tail.jwk"], vec!["snapshot.jwk"], vec![&signing[0]],
            vec!["tail.jwk", "snapshot.jwk"], vec!["root.pub", "delegation"],
        ] {
            for name in &lost {
                fs::rename(keys.join(name), away.join(name)).unwrap();
            }
            expect_failure_without_changes(&env, &lost.iter().map(|name| keys.join(name)).collect::<Vec<_>>()).await;
            for name in &lost {
                fs::rename(away.join(name), keys.join(name)).unwrap();
            }
        }
        // A volume that is not mounted: an empty or missing folder.
        let whole = env.folder().join("whole");
        fs::rename(&keys, &whole).unwrap();
        expect_failure_without_changes(&env, std::slice::from_ref(&keys)).await;
        fs::create_dir(&keys).unwrap();
        fs::set_permissions(&keys, fs::Permissions::from_mode(0o700)).unwrap();
        expect_failure_without_changes(&env, &[keys.join("root.pub"), keys.join("delegation")]).await;
        fs::remove_dir(&keys).unwrap();
        fs::rename(&whole, &keys).unwrap();
        drop(env.serve());
    }

    async fn keys_of_another_installation_are_rejected(env: TestEnv) {
        let other = TestEnv::on_sqlite().await;
        let (keys, theirs) = (env.data().join("keys"), other.data().join("keys"));
        let whole = env.folder().join("whole");
        copy(&keys, &whole);
        let names: [&[&str]; 3] = [&["root.jwk", "root.pub"], &["root.jwk", "root.pub", "delegation", "tail.jwk", "snapshot.jwk"], &[]];
        for foreign in names {
            let foreign: Vec<String> = match foreign {
                [] => files(&theirs).into_keys().collect(),
                names => names.iter().map(|name| (*name).to_owned()).collect(),
            };
            for name in &foreign {
                fs::copy(theirs.join(name), keys.join(name)).unwrap();
            }
            let before = state(&env).await;
            for verb in [&["serve"][..], &["audit"], &["doctor"]] {
                let message = expect_failure(&env, verb);
                assert!(message.contains("two installations"), "{verb:?}: {message}");
                assert!(message.contains("restore"), "{verb:?}: {message}");
            }
            assert_eq!(state(&env).await, before);
            fs::remove_dir_all(&keys).unwrap();
            copy(&whole, &keys);
        }
        // A single file without the others it belongs to.
        for (name, expected) in [("root.jwk", "not the root key that edges pin"), ("delegation", "is not valid"), ("tail.jwk", "not in the same folder"), ("snapshot.jwk", "not in the same folder")] {
            fs::copy(theirs.join(name), keys.join(name)).unwrap();
            let before = state(&env).await;
            for verb in ["serve", "doctor"] {
                let message = expect_failure(&env, &[verb]);
                assert!(message.contains(expected), "{name}: {message}");
            }
            assert_eq!(state(&env).await, before);
            fs::copy(whole.join(name), keys.join(name)).unwrap();
        }
        // The root key of another installation, with its public key.
        fs::copy(theirs.join("root.jwk"), keys.join("root.jwk")).unwrap();
        fs::remove_file(keys.join("root.pub")).unwrap();
        assert!(expect_failure(&env, &["serve"]).contains("two installations"));
        assert!(!keys.join("root.pub").exists());
    }

    async fn root_public_key_is_derived_from_root_key(env: TestEnv) {
        let file = env.data().join("keys/root.pub");
        let before = fs::read(&file).unwrap();
        fs::remove_file(&file).unwrap();
        drop(env.serve());
        assert_eq!(fs::read(&file).unwrap(), before);
    }

    /// A database without a recorded installation gets the record from the first server.
    async fn older_database_records_its_installation(env: TestEnv) {
        execute(&env, "DELETE FROM installation").await;
        let server = env.serve();
        let first = installation(&server).await;
        drop(server);
        let server = env.serve();
        assert_eq!(installation(&server).await, first);
        drop(server);
        let other = TestEnv::on_sqlite().await;
        for name in ["root.jwk", "root.pub", "delegation", "tail.jwk", "snapshot.jwk"] {
            fs::copy(other.data().join("keys").join(name), env.data().join("keys").join(name)).unwrap();
        }
        assert!(expect_failure(&env, &["serve"]).contains("two installations"));
    }

    /// A misspelled URL, a lost volume, and an entrypoint `init; serve`.
    async fn init_with_existing_keys_requires_confirmation(env: TestEnv) {
        let mut env = env;
        let root = fs::read(env.data().join("keys/root.pub")).unwrap();
        let keys = files(&env.data().join("keys"));
        match env.url.starts_with("postgres") {
            true => {
                let url = tokio::task::spawn_blocking(postgres::database).await.unwrap();
                env.set_setting("KEYSTILE_STORE__URL", &url);
            }
            false => env.set_setting("KEYSTILE_STORE__URL", "sqlite:other.db"),
        }
        let message = expect_failure(&env, &["init"]);
        assert!(message.contains("restore it from its backup") && message.contains("--yes"), "{message}");
        assert!(!env.data().join("other.db").exists());
        assert_eq!(files(&env.data().join("keys")), keys);
        let doctor = expect_failure(&env, &["doctor"]);
        assert!(doctor.contains("restore the database from its backup"), "{doctor}");
        // With `--yes`, the same root key is used.
        env.json(&["init", "--yes"]);
        assert_eq!(fs::read(env.data().join("keys/root.pub")).unwrap(), root);
        drop(env.serve());
    }

    /// `init` fails if the database has an operator.
    async fn init_creates_no_keys_for_existing_database(env: TestEnv) {
        let keys = env.data().join("keys");
        fs::rename(&keys, env.folder().join("away")).unwrap();
        for arguments in [&["init"][..], &["init", "--yes"]] {
            let message = expect_failure(&env, arguments);
            assert!(message.contains(&keys.display().to_string()) && message.contains("restore the keys"), "{message}");
            assert!(!keys.exists());
        }
    }
}

/// Checks that `serve` and `doctor` fail, name every path, and change neither the folder nor the database.
async fn expect_failure_without_changes(env: &TestEnv, missing: &[PathBuf]) {
    let before = state(env).await;
    for verb in ["serve", "doctor"] {
        let message = expect_failure(env, &[verb]);
        for path in missing {
            assert!(message.contains(&path.display().to_string()), "{verb}: {} in {message}", path.display());
        }
        assert!(message.contains("restore"), "{verb}: {message}");
        assert!(!message.contains("`keystile init`"), "{verb}: {message}");
    }
    assert_eq!(state(env).await, before);
}

/// Returns the error of a command that must fail. If it serves instead, it is stopped, and the test fails.
fn expect_failure(env: &TestEnv, arguments: &[&str]) -> String {
    let output = run_bounded(env.command(arguments));
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn run_bounded(command: Command) -> Output {
    let mut timeout = Command::new("timeout");
    timeout.arg("20").arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        timeout.env(name, value.unwrap());
    }
    timeout.env("KEYSTILE_SERVER__LISTEN", "127.0.0.1:0").output().unwrap()
}

type Files = BTreeMap<String, Vec<u8>>;

fn files(folder: &Path) -> Files {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let entries = entries.filter(|entry| entry.path().is_file());
    entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
}

/// Returns the keys and the state of the database.
async fn state(env: &TestEnv) -> (Files, i64, i64) {
    let version = number(env, "SELECT version FROM bundle_state").await;
    let audited = number(env, "SELECT seq FROM audit_state").await;
    (files(&env.data().join("keys")), version, audited)
}

async fn number(env: &TestEnv, query: &'static str) -> i64 {
    if env.url.starts_with("postgres") {
        return postgres::value(&env.url, query).parse().unwrap();
    }
    let options = SqliteConnectOptions::new().filename(env.data().join("keystile.db"));
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    let number = connection.fetch_one(query).await.unwrap().get(0);
    connection.close().await.unwrap();
    number
}

pub(crate) async fn execute(env: &TestEnv, statement: &str) {
    if env.url.starts_with("postgres") {
        return postgres::execute(&env.url, statement);
    }
    let options = SqliteConnectOptions::new().filename(env.data().join("keystile.db"));
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    connection.execute(AssertSqlSafe(statement)).await.unwrap();
    connection.close().await.unwrap();
}

async fn installation(server: &crate::test_env::Server) -> String {
    let health: serde_json::Value = server.get("/healthz").send().await.unwrap().json().await.unwrap();
    json_text(&health["installation"])
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    fs::set_permissions(to, fs::metadata(from).unwrap().permissions()).unwrap();
    for name in files(from).into_keys() {
        fs::copy(from.join(&name), to.join(&name)).unwrap();
    }
}
