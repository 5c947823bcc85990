//! A data folder and a database for one test, the real binary, and clients.

use std::{
    io::{BufRead as _, BufReader, Seek as _, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::{Duration, Instant},
};

use control_plane::{
    accounts::create_operator,
    config::{self, Config},
    credentials::auth_keys::{CreatedAuthKey, create_auth_key},
    db::Store,
    domain::{Actor, Subject},
    platform::data_dir::DataDir,
    service::Service,
};
use reqwest::{Client, Method, RequestBuilder, Response, header::HeaderMap};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::postgres;

pub(crate) struct TestEnv {
    folder: TempDir,
    pub(crate) url: String,
    environment: Vec<(&'static str, String)>,
    pub(crate) operator: String,
    pub(crate) auth_key_id: String,
    pub(crate) auth_key: String,
}

impl TestEnv {
    pub(crate) async fn on_sqlite() -> Self {
        Self::init("sqlite:keystile.db".to_owned(), &[])
    }

    pub(crate) async fn on_postgres() -> Self {
        let url = tokio::task::spawn_blocking(postgres::database).await.unwrap();
        Self::init(url, &[])
    }

    pub(crate) fn init(url: String, arguments: &[&str]) -> Self {
        let mut env = Self {
            folder: tempfile::tempdir().unwrap(),
            environment: vec![
                ("KEYSTILE_STORE__URL", url.clone()),
                ("KEYSTILE_LOG__LEVEL", "debug".to_owned()),
                // No server listens on port 0, so `doctor` does not find one on the default port.
                ("KEYSTILE_SERVER__LISTEN", "127.0.0.1:0".to_owned()),
            ],
            url,
            operator: String::new(),
            auth_key_id: String::new(),
            auth_key: String::new(),
        };
        let made = env.json(&[&["init"], arguments].concat());
        env.operator = json_text(&made["operator_id"]);
        env.auth_key_id = json_text(&made["auth_key_id"]);
        env.auth_key = json_text(&made["auth_key"]);
        env
    }

    /// Returns another machine on the same database, with a copy of this data folder.
    pub(crate) fn replica(&self) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let done = Command::new("cp").arg("-a").arg(self.data()).arg(folder.path()).status().unwrap();
        assert!(done.success());
        Self {
            folder,
            url: self.url.clone(),
            environment: self.environment.clone(),
            operator: self.operator.clone(),
            auth_key_id: self.auth_key_id.clone(),
            auth_key: self.auth_key.clone(),
        }
    }

    /// Sets a variable for processes that are started later.
    pub(crate) fn set_setting(&mut self, name: &'static str, value: &str) {
        self.environment.push((name, value.to_owned()));
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn data(&self) -> std::path::PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keystile"));
        command.arg("--data").arg(self.data()).stdin(Stdio::null());
        // A credential goes to stdin, because it must not be an argument.
        let (mut is_credential, mut before) = (false, "");
        for argument in arguments {
            if is_credential && !argument.starts_with('-') {
                command.stdin(stdin_line(argument));
            } else {
                command.arg(argument);
            }
            is_credential = *argument == "--token" || (before, *argument) == ("token", "inspect");
            before = *argument;
        }
        for (name, value) in &self.environment {
            command.env(name, value);
        }
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Returns the output of a command with `--json`, which must succeed.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["--json"]].concat());
        // 3: the change is durable, and no server has published it yet.
        let done = matches!(output.status.code(), Some(0 | 3));
        assert!(done, "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Returns the error of a command, which must fail.
    pub(crate) fn stderr_of_failure(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(output.stdout.is_empty());
        String::from_utf8(output.stderr).unwrap()
    }

    /// Writes a permission document to a file, and returns its path.
    pub(crate) fn write_document(&self, name: &str, document: &Value) -> String {
        self.write_file(name, &document.to_string())
    }

    /// Writes a private file, and returns its path.
    pub(crate) fn write_file(&self, name: &str, content: &str) -> String {
        let file = self.folder.path().join(name);
        std::fs::write(&file, content).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        file.to_str().unwrap().to_owned()
    }

    pub(crate) fn issue_root_token(&self) -> String {
        json_text(&self.json(&["token", "issue", "--auth-key-id", &self.auth_key_id])["token"])
    }

    /// Enrolls an edge, and returns its credential.
    pub(crate) fn enroll_edge(&self, name: &str) -> String {
        json_text(&self.json(&["edge", "enroll", name])["credential"])
    }

    /// Returns the operations, in this process.
    pub(crate) async fn service(&self) -> Service {
        self.service_with(|_| {}).await
    }

    /// The same with other settings.
    pub(crate) async fn service_with(&self, change: impl FnOnce(&mut Config)) -> Service {
        let mut config = Config { store: config::Store { url: self.url.clone() }, ..Config::default() };
        change(&mut config);
        Service::open(DataDir::new(self.data()), config).await.unwrap()
    }

    pub(crate) async fn store(&self) -> Store {
        Store::open(&self.url, &self.data()).await.unwrap()
    }

    /// Creates another operator in the same store.
    pub(crate) async fn other_tenant(&self) -> (Subject, CreatedAuthKey) {
        let service = self.service().await;
        let operator = create_operator(&service, &Actor::Admin, None).await.unwrap();
        let subject = Subject { operator, user: None };
        let created = create_auth_key(&service, &Actor::Admin, &subject).await.unwrap();
        (subject, created)
    }

    pub(crate) fn serve(&self) -> Server {
        self.wait_started(self.command(&["serve"]))
    }

    /// Limits the files of this server to this number of bytes, as on a full disk, until [`Server::lift_file_size_limit`].
    pub(crate) fn serve_with_file_size_limit(&self, bytes: u64) -> Server {
        let mut shell = Command::new("sh");
        let script = format!(r#"trap "" XFSZ; ulimit -S -f {}; exec "$0" "$@""#, bytes / 512);
        let serve = self.command(&["serve"]);
        shell.args(["-c", &script]).arg(serve.get_program()).args(serve.get_args()).stdin(Stdio::null());
        for (name, value) in serve.get_envs() {
            shell.env(name, value.unwrap());
        }
        self.wait_started(shell)
    }

    fn wait_started(&self, mut command: Command) -> Server {
        let log =
            std::fs::OpenOptions::new().create(true).append(true).open(self.folder().join("log")).unwrap();
        command.env("KEYSTILE_SERVER__LISTEN", "127.0.0.1:0").stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let origin = line
            .trim()
            .strip_prefix("listening on ")
            .unwrap_or_else(|| panic!("serve printed {line:?}: {}", self.log()));
        // The library of the client requires this choice, as in the control plane.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Server { origin: origin.to_owned(), child, client: Client::new() }
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder().join("log")).unwrap_or_default()
    }
}

/// The real server, which is killed when dropped.
pub(crate) struct Server {
    origin: String,
    child: Child,
    client: Client,
}

impl Server {
    /// Host and port.
    pub(crate) fn address(&self) -> &str {
        self.origin.trim_start_matches("http://")
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("{}{path}", self.origin))
    }

    /// Returns the value of one series, or `None` if the server does not have it.
    pub(crate) async fn metric(&self, series: &str) -> Option<String> {
        let metrics = self.get("/metrics").send().await.unwrap().text().await.unwrap();
        let mut values = metrics.lines().filter_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        values.next().map(str::to_owned)
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> RequestBuilder {
        self.client.post(format!("{}{path}", self.origin)).json(body)
    }

    pub(crate) fn raw(&self, path: &str, content_type: &str, body: &'static str) -> RequestBuilder {
        self.client.post(format!("{}{path}", self.origin)).header("content-type", content_type).body(body)
    }

    pub(crate) fn with_method(&self, method: &str, path: &str) -> RequestBuilder {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        self.client.request(method, format!("{}{path}", self.origin))
    }

    pub(crate) fn delete(&self, path: &str) -> RequestBuilder {
        self.client.delete(format!("{}{path}", self.origin))
    }

    /// Exchanges an AuthKey for an API key and a token.
    pub(crate) async fn exchange(&self, id: &str, secret: &str) -> Value {
        let response =
            self.post("/v1/auth", &json!({ "authKeyId": id, "authKey": secret })).send().await.unwrap();
        assert_eq!(response.status(), 200);
        response.json().await.unwrap()
    }

    pub(crate) async fn revoke(&self, token: &str, body: Value) -> Response {
        self.post("/revocations", &body).bearer_auth(token).send().await.unwrap()
    }

    /// Returns the decision of the own API about a token: 200, or the code of the refusal.
    pub(crate) async fn own_api_decision(&self, env: &TestEnv, token: &str) -> (u16, String) {
        let path = format!("/v1/operators/{}/auth_keys", env.operator);
        let response = self.get(&path).bearer_auth(token).send().await.unwrap();
        let status = response.status().as_u16();
        let body: Value = response.json().await.unwrap();
        (status, body["code"].as_str().unwrap_or("").to_owned())
    }

    /// Waits until a change by a command is published.
    pub(crate) async fn wait_for_decision(&self, env: &TestEnv, token: &str, status: u16, code: &str) {
        let expected = (status, code.to_owned());
        eventually(&format!("{expected:?}"), async || {
            (self.own_api_decision(env, token).await == expected).then_some(())
        })
        .await;
    }

    pub(crate) fn manifest(&self, credential: &str, have: u64, wait: u64) -> RequestBuilder {
        let request = self.get(&format!("/edge/v1/manifest?have={have}")).bearer_auth(credential);
        if wait == 0 { request } else { request.header("prefer", format!("wait={wait}")) }
    }

    pub(crate) fn lift_file_size_limit(&self) {
        let mut prlimit = Command::new("prlimit");
        prlimit.args(["--pid", &self.child.id().to_string(), "--fsize=unlimited:unlimited"]);
        let done = prlimit.status().unwrap_or_else(|error| {
            panic!("`prlimit` is missing: install util-linux (Debian: apt-get install util-linux): {error}")
        });
        assert!(done.success());
    }

    pub(crate) fn signal(&self, name: &str) {
        let done =
            Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status().unwrap();
        assert!(done.success());
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the version in an ETag.
pub(crate) fn entity_tag_version(headers: &HeaderMap) -> u64 {
    entity_tag(headers).trim_matches('"').split_once('-').unwrap().0.parse().unwrap()
}

pub(crate) fn entity_tag(headers: &HeaderMap) -> String {
    headers["etag"].to_str().unwrap().to_owned()
}

pub(crate) fn json_text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("not a string: {value}")).to_owned()
}

/// Returns a stdin with one line.
pub(crate) fn stdin_line(line: &str) -> Stdio {
    let mut file = tempfile::tempfile().unwrap();
    writeln!(file, "{line}").unwrap();
    file.rewind().unwrap();
    Stdio::from(file)
}

/// Waits for a value, with a deadline.
pub(crate) async fn eventually<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not before the deadline");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
