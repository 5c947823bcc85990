//! One PostgreSQL server for all tests of this binary, in a temporary folder. It demands TLS of the control plane; the tests
//! themselves use the socket in that folder.

use std::{
    fs,
    io::Write as _,
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    thread::sleep,
    time::{Duration, Instant},
};

use crate::certificates::{Authority, Certificate};

/// The user that needs a client certificate.
pub(crate) const CERTIFIED_USER: &str = "certified";

/// Accepts only TLS, apart from the socket.
const HBA: &str = "local all all trust
hostssl all certified 127.0.0.1/32 cert
hostssl all all 127.0.0.1/32 trust
";

/// Creates a database.
pub(crate) fn database() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let port = server().port;
    sql("postgres", &format!("CREATE DATABASE {name}"));
    // With `verify-full` the driver reads all authorities of the system for each of thousands of connections.
    format!("postgres://keystile@localhost:{port}/{name}?sslmode=require")
}

/// Returns the path of the authority of the server's certificate.
pub(crate) fn authority_file() -> String {
    server().folder.join("ca.pem").display().to_string()
}

/// Returns the port of the server.
pub(crate) fn port() -> u16 {
    server().port
}

/// Issues a certificate that the server accepts of clients.
pub(crate) fn client_certificate(name: &str) -> Certificate {
    server().authority.issue(name)
}

/// Runs SQL without the control plane.
pub(crate) fn execute(url: &str, statement: &str) {
    sql(name(url), statement);
}

/// Runs SQL outside of the databases of tests.
pub(crate) fn administer(statement: &str) {
    sql("postgres", statement);
}

/// Copies the database. No client may be connected.
pub(crate) fn back_up(url: &str) {
    let name = name(url);
    sql("postgres", &format!("CREATE DATABASE {name}_backup TEMPLATE {name}"));
}

/// Replaces the database by the copy, and disconnects all clients.
pub(crate) fn restore(url: &str) {
    let name = name(url);
    sql("postgres", &format!("DROP DATABASE {name} WITH (FORCE)"));
    sql("postgres", &format!("CREATE DATABASE {name} TEMPLATE {name}_backup"));
}

/// Returns the name of the database.
pub(crate) fn name(url: &str) -> &str {
    url.split(['/', '?']).nth(3).expect("a database")
}

/// Returns the single value of a query.
pub(crate) fn value(url: &str, query: &str) -> String {
    let output = psql(server(), name(url), query).arg("-At").output().expect("psql");
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
    let mut command = client("psql", server());
    command.args(["-q", name(url)]);
    Session(command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("psql"))
}

/// Runs a program of PostgreSQL (`pg_dump`, `pg_restore`) on a database.
pub(crate) fn tool(url: &str, program: &str, arguments: &[&str]) {
    let mut command = client(program, server());
    command.args(["-d", name(url)]).args(arguments);
    succeed(&mut command);
}

struct Server {
    folder: PathBuf,
    port: u16,
    /// The authority of the certificates of the server and of clients.
    authority: Authority,
    _process: Child,
}

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(start)
}

/// Starts the server as the child of a shell that reads its stdin until this process ends. Then the shell stops the
/// server, without a last checkpoint, and removes the folder.
fn start() -> Server {
    let folder = std::env::temp_dir().join(format!("keystile-postgres-{}", std::process::id()));
    let data = folder.join("data");
    fs::create_dir(&folder).expect("a temporary folder");
    let authority = Authority::new("the authority of the database");
    let certificate = authority.issue("localhost");
    let file = |name: &str| folder.join(name);
    fs::write(file("ca.pem"), &authority.pem).expect("a file");
    fs::write(file("server.pem"), certificate.pem).expect("a file");
    fs::write(file("server.key"), certificate.key).expect("a file");
    fs::set_permissions(file("server.key"), fs::Permissions::from_mode(0o600)).expect("a file");
    if is_root() {
        succeed(Command::new("chown").args(["-R", OWNER]).arg(&folder));
    }
    let initdb = ["--username=keystile", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "-D"];
    succeed(as_owner(&binary("initdb")).args(initdb).arg(&data));
    fs::write(data.join("pg_hba.conf"), HBA).expect("a file");
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = free.local_addr().expect("an address").port();
    drop(free);
    let script = r#""$@" & cat; kill -QUIT $(head -n 1 "$0/data/postmaster.pid"); wait; rm -rf "$0""#;
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(script).arg(&folder);
    let server = as_owner(&binary("postgres"));
    shell.arg(server.get_program()).args(server.get_args());
    shell.arg("-D").arg(&data).arg("-k").arg(&folder).args(["-h", "127.0.0.1", "-p", &port.to_string()]);
    let setting = |name: &str, value: &str| ["-c".to_owned(), format!("{name}={value}")];
    shell.args(setting("max_connections", "400")).args(setting("fsync", "off")).args(setting("ssl", "on"));
    for (name, of) in
        [("ssl_ca_file", "ca.pem"), ("ssl_cert_file", "server.pem"), ("ssl_key_file", "server.key")]
    {
        shell.args(setting(name, &file(of).display().to_string()));
    }
    shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let server = Server { folder, port, authority, _process: shell.spawn().expect("sh") };
    let deadline = Instant::now() + Duration::from_secs(30);
    while !psql(&server, "postgres", "SELECT 1").output().is_ok_and(|output| output.status.success()) {
        assert!(Instant::now() < deadline, "PostgreSQL does not start");
        sleep(Duration::from_millis(50));
    }
    succeed(&mut psql(&server, "postgres", &format!("CREATE ROLE {CERTIFIED_USER} LOGIN SUPERUSER")));
    server
}

fn sql(database: &str, statement: &str) {
    succeed(&mut psql(server(), database, statement));
}

fn psql(server: &Server, database: &str, statement: &str) -> Command {
    let mut psql = client("psql", server);
    psql.args(["-v", "ON_ERROR_STOP=1", "-qc", statement, database]);
    psql
}

/// Returns a program that connects to the socket as the owner of the databases.
fn client(program: &str, server: &Server) -> Command {
    let mut command = Command::new(binary(program));
    command.arg("-h").arg(&server.folder).args(["-p", &server.port.to_string(), "-U", "keystile"]);
    command
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
