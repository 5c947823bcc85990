use crate::client::{self, Response, bearer};
use crate::postgres::Postgres;
use crate::process::{self, Process, output_with_stdin};
use crate::wait::DEADLINE;
use crate::{Scratch, tools};
use anyhow::{Context, Result};
use hyper::{Method, Request};
use rustix::process::Signal;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The database of the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    Sqlite,
    Postgres,
}

/// A control plane: its data folder, and the server while it runs.
#[derive(Debug)]
pub struct ControlPlane {
    data: PathBuf,
    log: PathBuf,
    address: SocketAddr,
    environment: Vec<(String, String)>,
    root: Option<RootCredentials>,
    process: Option<Process>,
    core: Option<usize>,
    _database: Option<Postgres>,
}

/// The output of `keystile init`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootCredentials {
    pub operator_id: String,
    pub auth_key_id: String,
    pub auth_key: String,
    pub root_key: String,
}

/// The output of `keystile edge enroll`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolledEdge {
    pub id: String,
    pub credential: String,
    pub plugin_configuration: Value,
    /// The content of the files by name.
    pub files: BTreeMap<String, String>,
    /// The paths of the files.
    pub folder: Option<PathBuf>,
    /// Present if the bundle has changed meanwhile, for example by fetched keys.
    pub published: Option<bool>,
}

/// The response of `POST /v1/auth`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    pub api_key: String,
    pub operator_id: String,
    pub token: String,
    pub user_name: String,
}

impl ControlPlane {
    /// Opens a control plane whose state is in `data`, from this or an earlier run.
    pub fn open(data: PathBuf, log: PathBuf, address: SocketAddr) -> Self {
        Self {
            data,
            log,
            address,
            environment: Vec::new(),
            root: None,
            process: None,
            core: None,
            _database: None,
        }
    }

    /// Starts a new control plane in a scratch folder.
    pub async fn start(scratch: &Scratch, store: Store, environment: &[(&str, String)]) -> Result<Self> {
        let mut control_plane = Self::open(
            scratch.folder().join("data"),
            scratch.folder().join("control-plane.log"),
            scratch.address(8780),
        );
        if store == Store::Postgres {
            let database = Postgres::start(scratch).await?;
            control_plane.set_setting("KEYSTILE_STORE__URL", database.url());
            control_plane._database = Some(database);
        }
        for (name, value) in environment {
            control_plane.set_setting(name, value);
        }
        control_plane.init()?;
        control_plane.serve().await?;
        Ok(control_plane)
    }

    /// Runs a statement in the database, which must be PostgreSQL, without the control plane.
    pub fn sql(&self, statement: &str) -> Result<String> {
        self._database.as_ref().context("not on PostgreSQL")?.run(statement)
    }

    /// Starts another server with the same data folder and database, and its own log.
    pub async fn start_second(&self, address: SocketAddr) -> Result<Self> {
        let log = self.log.with_file_name(format!("control-plane-{}.log", address.port()));
        let mut other = Self::open(self.data.clone(), log, address);
        other.environment.clone_from(&self.environment);
        other.root.clone_from(&self.root);
        other.serve().await?;
        Ok(other)
    }

    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Starts a command of `keystile` without waiting for its end.
    pub fn spawn_cli<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Result<Process> {
        Process::start(&tools::keystile()?, self.log.with_file_name("command.log"), |command| {
            self.settings(command);
            command.args(arguments);
        })
    }

    /// Adds a setting, as an environment variable.
    pub fn set_setting(&mut self, name: &str, value: impl Display) {
        self.environment.push((name.to_owned(), value.to_string()));
    }

    /// Restricts the server to this core, from its next start on.
    pub fn set_core(&mut self, core: usize) {
        self.core = Some(core);
    }

    pub fn init(&mut self) -> Result<RootCredentials> {
        let root: RootCredentials = serde_json::from_value(self.cli(["init"])?).context("keystile init")?;
        self.root = Some(root.clone());
        Ok(root)
    }

    /// Starts the server and waits until it is ready.
    pub async fn serve(&mut self) -> Result<()> {
        let mut process = Process::start_on(self.core, &tools::keystile()?, self.log.clone(), |command| {
            self.settings(command);
            command.arg("serve");
        })?;
        let ready = Request::get("/readyz").body(String::new())?;
        let started = Instant::now();
        loop {
            process.ensure_alive().context("the control plane does not start")?;
            match client::send(self.address, ready.clone()).await {
                Ok(response) if response.status == 200 => break,
                Ok(response) if started.elapsed() > DEADLINE => {
                    anyhow::bail!("not ready: {}", response.text())
                }
                Err(error) if started.elapsed() > DEADLINE => return Err(error.context("not ready")),
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
        self.process = Some(process);
        Ok(())
    }

    /// kill -9.
    pub fn kill(&mut self) -> Result<()> {
        self.end_server(Signal::KILL)
    }

    /// Stops the server gracefully.
    pub fn stop(&mut self) -> Result<()> {
        self.end_server(Signal::TERM)
    }

    fn end_server(&mut self, signal: Signal) -> Result<()> {
        let mut process = self.process.take().context("the control plane is not running")?;
        process.end_with_signal(signal)?;
        Ok(())
    }

    /// Fails with the end of the log if the server has ended.
    pub fn ensure_alive(&mut self) -> Result<()> {
        self.process.as_mut().context("the control plane is not running")?.ensure_alive()
    }

    /// Returns the process ID of the server.
    pub fn id(&self) -> Result<u32> {
        Ok(self.process.as_ref().context("the control plane is not running")?.id())
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Returns the output of `init`.
    pub fn root(&self) -> &RootCredentials {
        self.root.as_ref().expect("this object has initialized the control plane")
    }

    /// Runs a command of `keystile` with `--json`, with or without a running server.
    pub fn cli<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Result<Value> {
        let mut command = Command::new(tools::keystile()?);
        self.settings(&mut command);
        command.arg("--json");
        // A credential goes to stdin, because it must not be an argument.
        let (mut is_credential, mut stdin) = (false, Stdio::null());
        for argument in arguments {
            if is_credential && !argument.starts_with('-') {
                stdin = process::stdin_line(argument)?;
            } else {
                command.arg(argument);
            }
            is_credential = argument == "--token";
        }
        // 3: the change is durable, and no server has published it yet.
        let text = output_with_stdin(&mut command, stdin, &[0, 3])?;
        serde_json::from_str(&text).with_context(|| format!("not JSON: {text}"))
    }

    pub fn enroll(&self, name: &str) -> Result<EnrolledEdge> {
        serde_json::from_value(self.cli(["edge", "enroll", name])?).context("keystile edge enroll")
    }

    /// Like [`enroll`](Self::enroll), and writes the files for Envoy into a folder.
    pub fn enroll_into(&self, name: &str, folder: &Path) -> Result<EnrolledEdge> {
        let folder = folder.to_str().context("the name of the folder is not UTF-8")?;
        let enrolled = self.cli(["edge", "enroll", name, "--out", folder])?;
        serde_json::from_value(enrolled).context("keystile edge enroll")
    }

    fn settings(&self, command: &mut Command) {
        command.arg("--data").arg(&self.data);
        command.env("KEYSTILE_SERVER__LISTEN", self.address.to_string());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
    }

    /// Sends one request to the API. A body of `null` means no body.
    pub async fn api(&self, method: Method, path: &str, token: &str, body: Value) -> Result<Response> {
        let mut request = bearer(token);
        *request.method_mut() = method;
        *request.uri_mut() = path.parse()?;
        if !body.is_null() {
            *request.body_mut() = body.to_string();
        }
        client::send(self.address, request).await
    }

    /// Exchanges an AuthKey for a token.
    pub async fn authenticate(&self, auth_key_id: &str, auth_key: &str) -> Result<Session> {
        let body = json!({ "authKeyId": auth_key_id, "authKey": auth_key });
        let request = Request::post("/v1/auth").body(body.to_string())?;
        let session = client::send(self.address, request).await?.expect(200)?.json()?;
        Ok(serde_json::from_value(session)?)
    }

    /// Returns a new token of the root user.
    pub async fn token(&self) -> Result<String> {
        let root = self.root();
        Ok(self.authenticate(&root.auth_key_id, &root.auth_key).await?.token)
    }

    /// Sends `POST /revocations`, and returns the instant of the acknowledgement.
    pub async fn revoke(&self, token: &str, what: Value) -> Result<Instant> {
        self.api(Method::POST, "/revocations", token, what).await?.expect(200)?;
        Ok(Instant::now())
    }
}
