//! One PostgreSQL server for all tests of this binary, in a temporary folder, with a socket in that folder.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    thread::sleep,
    time::{Duration, Instant},
};

/// Creates a database.
pub(crate) fn database() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let folder = server();
    sql(folder, "postgres", &format!("CREATE DATABASE {name}"));
    format!("postgres://keystile@localhost/{name}?host={}", folder.display())
}

/// Runs SQL without the control plane.
pub(crate) fn execute(url: &str, statement: &str) {
    sql(server(), name(url), statement);
}

/// Copies the database. No client may be connected.
pub(crate) fn back_up(url: &str) {
    let name = name(url);
    sql(server(), "postgres", &format!("CREATE DATABASE {name}_backup TEMPLATE {name}"));
}

/// Replaces the database by the copy, and disconnects all clients.
pub(crate) fn restore(url: &str) {
    let name = name(url);
    sql(server(), "postgres", &format!("DROP DATABASE {name} WITH (FORCE)"));
    sql(server(), "postgres", &format!("CREATE DATABASE {name} TEMPLATE {name}_backup"));
}

fn name(url: &str) -> &str {
    let name = url.rsplit('/').find(|part| part.contains("?host=")).or(url.split('/').nth(3));
    name.and_then(|part| part.split('?').next()).expect("a database")
}

/// Returns the single value of a query.
pub(crate) fn value(url: &str, query: &str) -> String {
    let name = url.split(['/', '?']).nth(3).expect("a database");
    let output = psql(server(), name, query).arg("-At").output().expect("psql");
    assert!(output.status.success(), "{query}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
}

/// A `psql` that is open until it is dropped.
pub(crate) struct Session(Child);

impl Session {
    pub(crate) fn send(&mut self, statement: &str) {
        let stdin = self.0.stdin.as_mut().expect("stdin");
        writeln!(stdin, "{statement}").and_then(|()| stdin.flush()).expect("psql reads its stdin");
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn session(url: &str) -> Session {
    let mut command = Command::new(binary("psql"));
    command.arg("-h").arg(server()).args(["-U", "keystile", "-q", name(url)]);
    Session(command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("psql"))
}

/// Runs a program of PostgreSQL (`pg_dump`, `pg_restore`) on a database.
pub(crate) fn tool(url: &str, program: &str, arguments: &[&str]) {
    let name = url.split(['/', '?']).nth(3).expect("a database");
    let mut command = Command::new(binary(program));
    command.arg("-h").arg(server()).args(["-U", "keystile", "-d", name]).args(arguments);
    succeed(&mut command);
}

fn server() -> &'static Path {
    static SERVER: OnceLock<(PathBuf, Child)> = OnceLock::new();
    let (folder, _) = SERVER.get_or_init(start);
    folder
}

/// Starts the server as the child of a shell that reads its stdin until this process ends. Then the shell stops the
/// server, without a last checkpoint, and removes the folder.
fn start() -> (PathBuf, Child) {
    let folder = std::env::temp_dir().join(format!("keystile-postgres-{}", std::process::id()));
    let data = folder.join("data");
    std::fs::create_dir(&folder).expect("a temporary folder");
    if is_root() {
        succeed(Command::new("chown").arg(OWNER).arg(&folder));
    }
    let initdb = ["--username=keystile", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "-D"];
    succeed(as_owner(&binary("initdb")).args(initdb).arg(&data));
    let script = r#""$@" & cat; kill -QUIT $(head -n 1 "$0/data/postmaster.pid"); wait; rm -rf "$0""#;
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(script).arg(&folder);
    let server = as_owner(&binary("postgres"));
    shell.arg(server.get_program()).args(server.get_args());
    shell.arg("-D").arg(&data).arg("-k").arg(&folder).args([
        "-h",
        "",
        "-c",
        "max_connections=400",
        "-c",
        "fsync=off",
    ]);
    shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = shell.spawn().expect("sh");
    let deadline = Instant::now() + Duration::from_secs(30);
    while !psql(&folder, "postgres", "SELECT 1").output().is_ok_and(|output| output.status.success()) {
        assert!(Instant::now() < deadline, "PostgreSQL does not start");
        sleep(Duration::from_millis(50));
    }
    (folder, child)
}

fn sql(folder: &Path, database: &str, statement: &str) {
    succeed(&mut psql(folder, database, statement));
}

fn psql(folder: &Path, database: &str, statement: &str) -> Command {
    let mut psql = Command::new(binary("psql"));
    psql.arg("-h").arg(folder).args(["-U", "keystile", "-v", "ON_ERROR_STOP=1", "-qc", statement, database]);
    psql
}

/// PostgreSQL refuses to run as root. Its package creates this user.
fn as_owner(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("runuser");
    command.args(["-u", OWNER, "--"]).arg(program);
    command
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// Finds a program on the PATH, or where Debian installs it.
fn binary(name: &str) -> PathBuf {
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let debian = debian.map(|version| version.path().join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = debian
        .chain(std::env::split_paths(&path))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file());
    found.unwrap_or_else(|| {
        panic!("`{name}` is missing: install PostgreSQL (Debian: apt-get install postgresql)")
    })
}

fn succeed(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

const OWNER: &str = "postgres";
