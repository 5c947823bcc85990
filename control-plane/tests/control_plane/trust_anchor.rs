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
    on_both, postgres,
    world::{World, text},
};

on_both! {
    async fn what_is_missing_is_named_and_nothing_is_made(world: World) {
        // Create a tag key as well.
        world.json(&["key", "create", "--user", &world.operator]);
        let keys = world.data().join("keys");
        let signing: Vec<String> = files(&keys).into_keys().filter(|name| name.starts_with("ks-")).collect();
        let away = world.folder().join("away");
        fs::create_dir(&away).unwrap();
        // The root key is stored elsewhere, as advised.
        fs::rename(keys.join("root.jwk"), world.folder().join("root.jwk")).unwrap();
        for lost in [
            vec!["root.pub"], vec!["delegation"], vec!["tail.jwk"], vec!["snapshot.jwk"], vec![&signing[0]],
            vec!["tail.jwk", "snapshot.jwk"], vec!["root.pub", "delegation"],
        ] {
            for name in &lost {
                fs::rename(keys.join(name), away.join(name)).unwrap();
            }
            refused_and_untouched(&world, &lost.iter().map(|name| keys.join(name)).collect::<Vec<_>>()).await;
            for name in &lost {
                fs::rename(away.join(name), keys.join(name)).unwrap();
            }
        }
        // A volume that is not mounted: an empty or missing folder.
        let whole = world.folder().join("whole");
        fs::rename(&keys, &whole).unwrap();
        refused_and_untouched(&world, std::slice::from_ref(&keys)).await;
        fs::create_dir(&keys).unwrap();
        fs::set_permissions(&keys, fs::Permissions::from_mode(0o700)).unwrap();
        refused_and_untouched(&world, &[keys.join("root.pub"), keys.join("delegation")]).await;
        fs::remove_dir(&keys).unwrap();
        fs::rename(&whole, &keys).unwrap();
        drop(world.serve());
    }

    async fn keys_of_another_installation_are_refused(world: World) {
        let other = World::on_sqlite().await;
        let (keys, theirs) = (world.data().join("keys"), other.data().join("keys"));
        let whole = world.folder().join("whole");
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
            let before = state(&world).await;
            for verb in [&["serve"][..], &["audit"], &["doctor"]] {
                let told = refused(&world, verb);
                assert!(told.contains("two installations"), "{verb:?}: {told}");
                assert!(told.contains("restore"), "{verb:?}: {told}");
            }
            assert_eq!(state(&world).await, before);
            fs::remove_dir_all(&keys).unwrap();
            copy(&whole, &keys);
        }
        // A single file without the others it belongs to.
        for (name, expected) in [("root.jwk", "not the root key that edges pin"), ("delegation", "is not valid"), ("tail.jwk", "not in the same folder"), ("snapshot.jwk", "not in the same folder")] {
            fs::copy(theirs.join(name), keys.join(name)).unwrap();
            let before = state(&world).await;
            for verb in ["serve", "doctor"] {
                let told = refused(&world, &[verb]);
                assert!(told.contains(expected), "{name}: {told}");
            }
            assert_eq!(state(&world).await, before);
            fs::copy(whole.join(name), keys.join(name)).unwrap();
        }
        // The root key of another installation, with its public key.
        fs::copy(theirs.join("root.jwk"), keys.join("root.jwk")).unwrap();
        fs::remove_file(keys.join("root.pub")).unwrap();
        assert!(refused(&world, &["serve"]).contains("two installations"));
        assert!(!keys.join("root.pub").exists());
    }

    async fn the_public_half_follows_from_the_root(world: World) {
        let file = world.data().join("keys/root.pub");
        let before = fs::read(&file).unwrap();
        fs::remove_file(&file).unwrap();
        drop(world.serve());
        assert_eq!(fs::read(&file).unwrap(), before);
    }

    /// A database without a recorded installation gets the record from the first server.
    async fn an_older_database_learns_what_it_belongs_to(world: World) {
        execute(&world, "DELETE FROM installation").await;
        let server = world.serve();
        let first = installation(&server).await;
        drop(server);
        let server = world.serve();
        assert_eq!(installation(&server).await, first);
        drop(server);
        let other = World::on_sqlite().await;
        for name in ["root.jwk", "root.pub", "delegation", "tail.jwk", "snapshot.jwk"] {
            fs::copy(other.data().join("keys").join(name), world.data().join("keys").join(name)).unwrap();
        }
        assert!(refused(&world, &["serve"]).contains("two installations"));
    }

    /// A misspelled URL, a lost volume, and an entrypoint `init; serve`.
    async fn init_beside_keys_asks_first(world: World) {
        let mut world = world;
        let root = fs::read(world.data().join("keys/root.pub")).unwrap();
        let keys = files(&world.data().join("keys"));
        match world.url.starts_with("postgres") {
            true => {
                let url = tokio::task::spawn_blocking(postgres::database).await.unwrap();
                world.set("KEYSTILE_STORE__URL", &url);
            }
            false => world.set("KEYSTILE_STORE__URL", "sqlite:other.db"),
        }
        let told = refused(&world, &["init"]);
        assert!(told.contains("restore it from its backup") && told.contains("--yes"), "{told}");
        assert!(!world.data().join("other.db").exists());
        assert_eq!(files(&world.data().join("keys")), keys);
        let doctor = refused(&world, &["doctor"]);
        assert!(doctor.contains("restore the database from its backup"), "{doctor}");
        // With `--yes`, the same root key is used.
        world.json(&["init", "--yes"]);
        assert_eq!(fs::read(world.data().join("keys/root.pub")).unwrap(), root);
        drop(world.serve());
    }

    /// `init` fails if the database has an operator.
    async fn init_makes_no_keys_beside_a_database(world: World) {
        let keys = world.data().join("keys");
        fs::rename(&keys, world.folder().join("away")).unwrap();
        for arguments in [&["init"][..], &["init", "--yes"]] {
            let told = refused(&world, arguments);
            assert!(told.contains(&keys.display().to_string()) && told.contains("restore the keys"), "{told}");
            assert!(!keys.exists());
        }
    }
}

/// Checks that `serve` and `doctor` fail, name every path, and change neither the folder nor the database.
async fn refused_and_untouched(world: &World, missing: &[PathBuf]) {
    let before = state(world).await;
    for verb in ["serve", "doctor"] {
        let told = refused(world, &[verb]);
        for path in missing {
            assert!(told.contains(&path.display().to_string()), "{verb}: {} in {told}", path.display());
        }
        assert!(told.contains("restore"), "{verb}: {told}");
        assert!(!told.contains("`keystile init`"), "{verb}: {told}");
    }
    assert_eq!(state(world).await, before);
}

/// Returns the error of a command that must fail. If it serves instead, it is stopped, and the test fails.
fn refused(world: &World, arguments: &[&str]) -> String {
    let output = bounded(world.command(arguments));
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn bounded(command: Command) -> Output {
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
async fn state(world: &World) -> (Files, i64, i64) {
    let version = number(world, "SELECT version FROM bundle_state").await;
    let audited = number(world, "SELECT seq FROM audit_state").await;
    (files(&world.data().join("keys")), version, audited)
}

async fn number(world: &World, query: &'static str) -> i64 {
    if world.url.starts_with("postgres") {
        return postgres::value(&world.url, query).parse().unwrap();
    }
    let options = SqliteConnectOptions::new().filename(world.data().join("keystile.db"));
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    let number = connection.fetch_one(query).await.unwrap().get(0);
    connection.close().await.unwrap();
    number
}

pub(crate) async fn execute(world: &World, statement: &str) {
    if world.url.starts_with("postgres") {
        return postgres::execute(&world.url, statement);
    }
    let options = SqliteConnectOptions::new().filename(world.data().join("keystile.db"));
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    connection.execute(AssertSqlSafe(statement)).await.unwrap();
    connection.close().await.unwrap();
}

async fn installation(server: &crate::world::Server) -> String {
    let health: serde_json::Value = server.get("/healthz").send().await.unwrap().json().await.unwrap();
    text(&health["installation"])
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    fs::set_permissions(to, fs::metadata(from).unwrap().permissions()).unwrap();
    for name in files(from).into_keys() {
        fs::copy(from.join(&name), to.join(&name)).unwrap();
    }
}
