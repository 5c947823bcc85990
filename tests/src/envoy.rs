use crate::client::{self, Connection, request_without_credential};
use crate::process::{Process, output};
use crate::wait::DEADLINE;
use crate::{Scratch, eventually, tools};
use anyhow::{Context, Result, ensure};
use hyper::Request;
use minijinja::{Environment, context};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// How the filter runs in Envoy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilterHost {
    /// In a VM for WebAssembly.
    Wasm,
    /// As a native dynamic module.
    Module,
}

impl FilterHost {
    /// Returns the host that the variable `KEYSTILE_FILTER_HOST` names, which `make` sets, or `Wasm` without it.
    pub fn from_environment() -> Result<Self> {
        match std::env::var("KEYSTILE_FILTER_HOST").as_deref() {
            Err(_) | Ok("" | "wasm") => Ok(Self::Wasm),
            Ok("module") => Ok(Self::Module),
            Ok(other) => anyhow::bail!("the host is `wasm` or `module`, and not `{other}`"),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Wasm => "wasm",
            Self::Module => "module",
        }
    }

    /// Returns what precedes the names of filter state in this host.
    pub fn filter_state_prefix(self) -> &'static str {
        match self {
            Self::Wasm => "wasm.",
            Self::Module => "",
        }
    }

    /// Returns what precedes the names of metrics in Envoy's statistics.
    pub fn metrics_prefix(self) -> &'static str {
        match self {
            Self::Wasm => "wasmcustom.",
            Self::Module => "dynamicmodulescustom.",
        }
    }
}

/// The variables of the template envoy/envoy.yaml.j2.
#[derive(Debug, Clone)]
pub struct Settings {
    pub filter_host: FilterHost,
    /// The native module. It is used with [`FilterHost::Module`] only, as `wasm` is with the other.
    pub module: PathBuf,
    pub listen: SocketAddr,
    pub admin: SocketAddr,
    pub control_plane: SocketAddr,
    pub upstream: SocketAddr,
    pub wasm: PathBuf,
    pub plugin_configuration: Value,
    /// The folder to which `keystile edge enroll` wrote the secret that Envoy adds; `None` if it adds none.
    pub edge_files: Option<PathBuf>,
    /// YAML that replaces the cluster of the control plane in the template.
    pub control_plane_cluster: Option<String>,
    /// Environment variables of the process. The filter gets those in `host_env_keys`.
    pub environment: Vec<(String, String)>,
    pub host_env_keys: Vec<String>,
    pub workers: usize,
    pub max_headers_count: u32,
    /// If true, the address of a client is that of its connection; otherwise it is the last in `x-forwarded-for`.
    pub use_remote_address: bool,
    pub headers_with_underscores_action: &'static str,
    pub path_with_escaped_slashes_action: &'static str,
    pub http2_upstream: bool,
    /// Allows WebSockets, by HTTP/2 as well (RFC 8441).
    pub upgrades: bool,
    /// The time for a response to be complete; 0 for no limit. A WebSocket has none.
    pub route_timeout_seconds: u32,
    /// The maximum number of requests and of connections to the upstream.
    pub max_upstream_streams: u32,
    /// The time from an update of the listener until the connections of the previous one are closed.
    pub drain_seconds: u32,
    /// Whether the listener is in a file, `listener.yaml`, that Envoy reads again when it is replaced.
    pub has_listener_file: bool,
    pub access_log: bool,
    /// HTTP filters that replace Keystile, as Envoy's configuration: the peers of the benchmark.
    pub filters_instead: Option<Vec<Value>>,
    /// HTTP filters after them.
    pub filters_behind: Vec<Value>,
    /// Listeners beside that of the template, as Envoy's configuration.
    pub more_listeners: Vec<Value>,
    /// The core to run on; `None` for any.
    pub core: Option<usize>,
    /// Adds a filter before Keystile that delays every other request.
    pub delays: bool,
    /// The log levels of Envoy and of its components.
    pub log_level: &'static str,
    pub component_log_level: &'static str,
}

impl Settings {
    /// Returns the settings of production, on the default ports of a scratch address.
    pub fn for_scratch(scratch: &Scratch, plugin_configuration: Value) -> Result<Self> {
        let address = |port| scratch.address(port);
        Self::new([8080, 9901, 8780, 8081].map(address), plugin_configuration)
    }

    /// Returns the settings of production, with the addresses of Envoy, its admin interface, the control plane and the
    /// upstream.
    pub fn new(addresses: [SocketAddr; 4], plugin_configuration: Value) -> Result<Self> {
        let [listen, admin, control_plane, upstream] = addresses;
        let mut settings = Self {
            filter_host: FilterHost::Wasm,
            module: PathBuf::new(),
            listen,
            admin,
            control_plane,
            upstream,
            wasm: PathBuf::new(),
            plugin_configuration,
            edge_files: None,
            control_plane_cluster: None,
            environment: Vec::new(),
            host_env_keys: Vec::new(),
            workers: 2,
            max_headers_count: 100,
            use_remote_address: true,
            headers_with_underscores_action: "REJECT_REQUEST",
            path_with_escaped_slashes_action: "KEEP_UNCHANGED",
            http2_upstream: false,
            upgrades: false,
            route_timeout_seconds: 15,
            max_upstream_streams: 1024,
            drain_seconds: 1,
            has_listener_file: false,
            access_log: true,
            filters_instead: None,
            filters_behind: Vec::new(),
            more_listeners: Vec::new(),
            core: None,
            delays: false,
            log_level: "warning",
            component_log_level: "wasm:info,dynamic_modules:info",
        };
        // Only the file of the host has to be built.
        settings.use_filter_host(FilterHost::from_environment()?)?;
        Ok(settings)
    }

    /// Runs the filter in this host, which needs its file.
    pub fn use_filter_host(&mut self, filter_host: FilterHost) -> Result<()> {
        self.filter_host = filter_host;
        match filter_host {
            FilterHost::Wasm => self.wasm = tools::wasm()?,
            FilterHost::Module => self.module = tools::module()?,
        }
        Ok(())
    }

    /// Returns the filter of these settings with another configuration, as Envoy's configuration.
    pub fn filter(&self, plugin_configuration: &Value) -> Value {
        let configuration = json!({
            "@type": "type.googleapis.com/google.protobuf.StringValue",
            "value": plugin_configuration.to_string(),
        });
        let filter = match self.filter_host {
            FilterHost::Wasm => json!({
                "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
                "config": {
                    "name": "keystile",
                    "root_id": "keystile",
                    "failure_policy": "FAIL_RELOAD",
                    "vm_config": {
                        "vm_id": "keystile",
                        "runtime": "envoy.wasm.runtime.v8",
                        "code": { "local": { "filename": self.wasm } },
                    },
                    "configuration": configuration,
                },
            }),
            FilterHost::Module => json!({
                "@type": "type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter",
                "dynamic_module_config": {
                    "module": { "local": { "filename": self.module } },
                    "do_not_close": true,
                },
                "filter_name": "keystile",
                "filter_config": configuration,
            }),
        };
        json!({ "name": "keystile", "typed_config": filter })
    }

    pub fn render(&self) -> Result<String> {
        let path = tools::root().join("envoy/envoy.yaml.j2");
        let template = std::fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
        let address = |of: SocketAddr| context! { host => of.ip().to_string(), port => of.port() };
        // JSON is YAML.
        let filters_instead = self
            .filters_instead
            .as_ref()
            .map(|filters| filters.iter().map(Value::to_string).collect::<Vec<_>>());
        let edge_secret = self.edge_files.as_deref().map(|folder| {
            context! {
                sds => folder.join("sds.yaml").to_string_lossy(),
                folder => folder.to_string_lossy(),
            }
        });
        let mut environment = Environment::new();
        environment.set_undefined_behavior(minijinja::UndefinedBehavior::Strict);
        Ok(environment.render_str(
            &template,
            context! {
                listen => address(self.listen),
                admin => address(self.admin),
                control_plane => address(self.control_plane),
                upstream => address(self.upstream),
                filter_host => self.filter_host.name(),
                filter_state_prefix => self.filter_host.filter_state_prefix(),
                wasm => self.wasm.to_string_lossy(),
                module => self.module.to_string_lossy(),
                plugin_configuration => self.plugin_configuration.to_string(),
                edge_secret => edge_secret,
                control_plane_cluster => self.control_plane_cluster.as_deref(),
                host_env_keys => &self.host_env_keys,
                max_headers_count => self.max_headers_count,
                use_remote_address => self.use_remote_address,
                headers_with_underscores_action => self.headers_with_underscores_action,
                path_with_escaped_slashes_action => self.path_with_escaped_slashes_action,
                http2_upstream => self.http2_upstream,
                upgrades => self.upgrades,
                route_timeout_seconds => self.route_timeout_seconds,
                max_upstream_streams => self.max_upstream_streams,
                access_log => self.access_log,
                filters_instead => filters_instead,
                filters_behind => self.filters_behind.iter().map(Value::to_string).collect::<Vec<_>>(),
                delays => self.delays,
            },
        )?)
    }

    /// Runs `envoy --mode validate`, which also makes the filter check its configuration.
    pub fn validate(&self, folder: &Path) -> Result<String> {
        let file = self.write(folder)?;
        output(
            Command::new(tools::envoy()?)
                .envs(self.environment.iter().map(|(name, value)| (name, value)))
                .args(["--mode", "validate", "--log-level", "warning", "-c"])
                .arg(file),
        )
    }

    fn write(&self, folder: &Path) -> Result<PathBuf> {
        let file = folder.join("envoy.yaml");
        let mut bootstrap = self.render()?;
        if !self.more_listeners.is_empty() {
            let (before, clusters) = bootstrap.split_once("\n  clusters:\n").context("the clusters")?;
            let listeners: String =
                self.more_listeners.iter().map(|listener| format!("\n    - {listener}")).collect();
            bootstrap = format!("{before}{listeners}\n  clusters:\n{clusters}");
        }
        if self.has_listener_file {
            let (begin, end) = ("  listeners:\n    - name: edge\n", "\n  clusters:\n");
            let (before, rest) = bootstrap.split_once(begin).context("the listener")?;
            let (listener, clusters) = rest.split_once(end).context("the clusters")?;
            // Envoy notices a file that is moved to the place of the other.
            let (draft, path) = (folder.join("listener.draft"), folder.join("listener.yaml"));
            let kind = "type.googleapis.com/envoy.config.listener.v3.Listener";
            std::fs::write(
                &draft,
                format!("resources:\n    - \"@type\": {kind}\n      name: edge\n{listener}\n"),
            )?;
            std::fs::rename(draft, &path)?;
            let lds =
                format!("dynamic_resources:\n  lds_config: {{ path_config_source: {{ path: {path:?} }} }}\n");
            bootstrap = format!("{lds}{before}{}{clusters}", &end[1..]);
        }
        std::fs::write(&file, bootstrap)?;
        Ok(file)
    }
}

/// A running Envoy.
#[derive(Debug)]
pub struct Envoy {
    process: Process,
    settings: Settings,
}

impl Envoy {
    /// Starts Envoy and waits for its listener. The filter may not have a bundle yet.
    pub async fn start(settings: Settings, folder: &Path) -> Result<Self> {
        let file = settings.write(folder)?;
        let process =
            Process::start_on(settings.core, &tools::envoy()?, folder.join("envoy.log"), |command| {
                command.envs(settings.environment.iter().map(|(name, value)| (name, value)));
                command.args(["--disable-hot-restart", "--log-level", settings.log_level]);
                command.args(["--component-log-level", settings.component_log_level, "--drain-time-s"]);
                command.arg(settings.drain_seconds.to_string());
                command.args(["--file-flush-interval-msec", "100"]);
                command.args(["--concurrency", &settings.workers.to_string(), "-c"]).arg(file);
            })?;
        let mut envoy = Self { process, settings };
        let ready = Request::get("/ready").body(String::new())?;
        let started = Instant::now();
        loop {
            envoy.process.ensure_alive().context("Envoy does not start")?;
            match client::send(envoy.settings.admin, ready.clone()).await {
                Ok(response) if response.status == 200 => return Ok(envoy),
                other if started.elapsed() > DEADLINE => anyhow::bail!("Envoy is not ready: {other:?}"),
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.settings.listen
    }

    /// Replaces the listener by one with another plugin configuration. Needs [`Settings::has_listener_file`].
    pub fn push_plugin_configuration(&mut self, plugin_configuration: Value, folder: &Path) -> Result<()> {
        ensure!(self.settings.has_listener_file, "the listener is in the bootstrap");
        self.settings.plugin_configuration = plugin_configuration;
        self.settings.write(folder)?;
        Ok(())
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Ends the process, and starts another one with the same settings.
    pub async fn restart(&mut self, folder: &Path) -> Result<()> {
        self.process.end_with_signal(Signal::TERM)?;
        *self = Self::start(self.settings.clone(), folder).await?;
        Ok(())
    }

    /// Returns the process ID.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Fails with the end of the log if Envoy has ended.
    pub fn ensure_alive(&mut self) -> Result<()> {
        self.process.ensure_alive()
    }

    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Stops Envoy gracefully.
    pub fn stop(mut self) -> Result<()> {
        self.process.end_with_signal(Signal::TERM)?;
        Ok(())
    }

    /// Returns the counters and gauges whose name matches the regular expression.
    pub async fn stats(&self, filter: &str) -> Result<BTreeMap<String, u64>> {
        let request = Request::get(format!("/stats?format=json&filter={filter}")).body(String::new())?;
        let answer = client::send(self.settings.admin, request).await?.expect(200)?.json()?;
        let stats = answer["stats"].as_array().context("no stats")?;
        let named = stats
            .iter()
            .filter_map(|stat| Some((stat["name"].as_str()?.to_owned(), stat["value"].as_u64()?)));
        Ok(named.collect())
    }

    /// Returns the response of the admin interface to `GET PATH`.
    pub async fn admin(&self, path: &str) -> Result<String> {
        let answer = client::send(self.settings.admin, Request::get(path).body(String::new())?).await?;
        Ok(answer.expect(200)?.text())
    }

    /// Returns one of the filter's metrics by its name without the prefix, or 0 if it does not exist yet.
    pub async fn metric(&self, name: &str) -> Result<u64> {
        let prefix = self.settings.filter_host.metrics_prefix();
        let stats = self.stats(&format!("^{prefix}{name}$")).await?;
        Ok(stats.values().sum())
    }

    /// Opens one kept-alive connection to every worker, in the order of the workers.
    ///
    /// The kernel spreads connections by hash, so this opens them until each worker has one; which worker took
    /// a connection shows in that worker's gauge. No other client may open connections at the same time.
    pub async fn workers(&self) -> Result<Vec<Connection>> {
        let mut workers: Vec<Option<Connection>> = (0..self.settings.workers).map(|_| None).collect();
        let mut before = self.connections().await?;
        for _ in 0..1000 {
            let mut connection = Connection::open(self.address()).await?;
            connection.send(request_without_credential()).await?;
            let after = self.connections().await?;
            let grown: Vec<usize> =
                (0..after.len()).filter(|&worker| after[worker] > before[worker]).collect();
            ensure!(
                grown.len() == 1,
                "the connections changed from {before:?} to {after:?}: another client opens some"
            );
            workers[grown[0]].get_or_insert(connection);
            before = after;
            if workers.iter().all(Option::is_some) {
                return Ok(workers.into_iter().flatten().collect());
            }
        }
        anyhow::bail!("1000 connections did not reach every worker")
    }

    /// Returns the number of accepted connections per worker.
    async fn connections(&self) -> Result<Vec<u64>> {
        let stats = self.stats("^listener.edge.worker_.*.downstream_cx_total$").await?;
        let count =
            |worker: usize| stats.get(&format!("listener.edge.worker_{worker}.downstream_cx_total")).copied();
        (0..self.settings.workers).map(|worker| count(worker).context("no such worker")).collect()
    }

    /// Waits until every worker admits `token`, and returns a connection to each.
    pub async fn wait_admitting(&self, token: &str) -> Result<Vec<Connection>> {
        let mut workers = self.workers().await?;
        for worker in &mut workers {
            eventually("a worker admits", async || worker.get(token).await?.expect(200)).await;
        }
        Ok(workers)
    }

    /// Waits until every worker refuses `token` with this status and code.
    pub async fn wait_refusing(workers: &mut [Connection], token: &str, status: u16, code: &str) {
        for worker in workers {
            eventually("a worker refuses", async || {
                let response = worker.get(token).await?.expect(status)?;
                ensure!(response.code() == code, "code `{}` instead of `{code}`", response.code());
                Ok(())
            })
            .await;
        }
    }
}
