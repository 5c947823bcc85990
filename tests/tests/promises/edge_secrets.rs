//! No output of the host contains a secret of an edge, and secrets are replaced without interruption.

use crate::filter_crash::{trap, trapping};
use crate::fixture::{Fixture, Overrides};
use crate::host_edge::{self, HostEdge};
use harness::client::{bearer, request_without_credential, send};
use harness::envoy::{FilterHost, Settings};
use harness::host::{Faults, Host, HostState};
use harness::{Connection, ControlPlane, Envoy, Scratch, Store, Upstream, eventually, tools};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use token::base64url;

/// The default form: Envoy adds the credential from a file, and the secret of the assertion is in the environment.
#[tokio::test]
async fn config_dump_has_no_secret_with_credential_injector() {
    let scratch = Scratch::new().unwrap();
    let mut fixture = EnrolledDeployment::start(scratch, &[], with_assertion).await;
    assert_eq!(fixture.plugin["control_plane"].get("credential"), None);
    fixture.check_revocation().await;
    fixture.crash_workers().await;
    let shown = fixture.admin_output().await;
    let secrets = [fixture.credential.as_str(), ASSERTION];
    assert_contains_none(&secrets, &shown);
    assert!(shown.iter().any(|(_, text)| text.contains(VARIABLE)), "the name of the variable is no secret");

    // Check the filter's log at the level debug, and the output of validation.
    let refused = fixture.validate(&fixture.settings().environment);
    assert_contains_none(&secrets, &[("validate".to_owned(), refused)]);
    let refused = fixture.validate(&[]);
    assert_contains_none(&secrets, &[("validate".to_owned(), refused.clone())]);
    assert!(
        refused.contains(&format!("identity.assertion.secret_env`: the environment variable `{VARIABLE}`")),
        "{refused}"
    );
}

/// The other form: the filter reads the credential from the environment.
#[tokio::test]
async fn config_dump_has_no_secret_with_environment_credential() {
    let scratch = Scratch::new().unwrap();
    let mut fixture = EnrolledDeployment::start(scratch, &["--env", "KEYSTILE_EDGE"], |settings| {
        with_assertion(settings);
        credential_from_environment(settings);
    })
    .await;
    fixture.check_revocation().await;
    fixture.crash_workers().await;
    let shown = fixture.admin_output().await;
    let secrets = [fixture.credential.as_str(), ASSERTION];
    assert_contains_none(&secrets, &shown);
    assert!(shown.iter().any(|(_, text)| text.contains("KEYSTILE_EDGE")));

    for (value, why) in
        [(None, "is not set"), (Some(""), "is empty"), (Some("ks_edge_\u{1}leak"), "visible ASCII")]
    {
        let mut environment = fixture.settings().environment.clone();
        environment.retain(|(name, _)| name != "KEYSTILE_EDGE");
        environment.extend(value.map(|value| ("KEYSTILE_EDGE".to_owned(), value.to_owned())));
        let refused = fixture.validate(&environment);
        let expected = "`control_plane.credential_env`: the environment variable `KEYSTILE_EDGE` ";
        assert!(refused.contains(&format!("{expected}{why}")) || refused.contains(why), "{refused}");
        assert!(refused.contains(expected) && !refused.contains("leak"), "{refused}");
    }
}

/// Shows that the two tests above can fail, and that the log has a warning.
#[tokio::test]
async fn secret_in_configuration_is_rejected_unless_allowed() {
    let scratch = Scratch::new().unwrap();
    let fixture =
        EnrolledDeployment::start(scratch, &["--inline"], |settings| settings.edge_files = None).await;
    let (_, dump) = fixture.admin_output().await.swap_remove(0);
    assert!(dump.contains(&fixture.credential));
    assert!(fixture.envoy.log().contains("the plugin configuration contains a secret"));

    let mut settings = fixture.settings().clone();
    settings.plugin_configuration.as_object_mut().unwrap().remove("allow_inline_secrets");
    let refused = validate(&settings, fixture.scratch.folder());
    assert!(refused.contains("`control_plane.credential`: secrets are not permitted here"), "{refused}");
    assert!(!refused.contains(&fixture.credential), "{refused}");
}

/// Envoy's log at the level trace contains the credential in the cases that SECURITY.md names.
#[tokio::test]
async fn trace_log_of_envoy_shows_the_credential() {
    for in_environment in [false, true] {
        let scratch = Scratch::new().unwrap();
        let fixture = if in_environment {
            EnrolledDeployment::start(scratch, &["--env", "KEYSTILE_EDGE"], credential_from_environment).await
        } else {
            EnrolledDeployment::start(scratch, &[], |_| ()).await
        };
        let mut settings = fixture.settings().clone();
        (settings.log_level, settings.component_log_level) = ("trace", "wasm:trace,dynamic_modules:trace");
        let folder = fixture.scratch.folder().join("trace");
        std::fs::create_dir(&folder).unwrap();
        fixture.envoy.stop().unwrap();
        let envoy = Envoy::start(settings, &folder).await.unwrap();
        let token = fixture.control_plane.token().await.unwrap();
        envoy.wait_admitting(&token).await.unwrap();
        let log = envoy.log();
        assert!(log.contains("/edge/v1/manifest"), "the log contains the requests of the filter");
        // The injector adds the credential in the cluster, where Envoy logs no headers.
        assert_eq!(log.contains(&fixture.credential), in_environment);
    }
}

fn credential_from_environment(settings: &mut Settings) {
    let file = settings.edge_files.take().unwrap().join("credential.env");
    let file = std::fs::read_to_string(file).unwrap();
    let (name, value) = file.trim_end().split_once('=').unwrap();
    settings.environment.push((name.to_owned(), value.to_owned()));
    settings.host_env_keys.push(name.to_owned());
}

/// Envoy accepts each file that `edge enroll` writes, unchanged.
#[tokio::test]
async fn envoy_accepts_files_of_enroll() {
    let scratch = Scratch::new().unwrap();
    let control_plane = ControlPlane::start(&scratch, Store::Sqlite, &[]).await.unwrap();
    let _upstream = Upstream::start(scratch.address(8081)).await.unwrap();
    let folder = scratch.folder().join("edge");
    let enrolled = control_plane.enroll_into("edge", &folder).unwrap();
    let secret = std::fs::metadata(folder.join("credential")).unwrap();
    assert_eq!(secret.permissions().mode() & 0o777, 0o600);
    for (name, content) in &enrolled.files {
        assert_eq!(*content, std::fs::read_to_string(folder.join(name)).unwrap(), "{name}");
        assert_eq!(name == "credential", content.contains(&enrolled.credential), "{name}");
    }
    let cluster = |text: &str| {
        let lines = text.lines().map(|line| format!("    {line}"));
        lines.collect::<Vec<_>>().join("\n")
    };
    let mut settings = Settings::for_scratch(&scratch, enrolled.plugin_configuration.clone()).unwrap();
    settings.control_plane_cluster = Some(cluster(&enrolled.files["cluster.yaml"]));
    let envoy = Envoy::start(settings.clone(), scratch.folder()).await.unwrap();
    let token = control_plane.token().await.unwrap();
    envoy.wait_admitting(&token).await.unwrap();
    envoy.stop().unwrap();

    for (name, origin, extra) in [
        ("by-name", "https://keystile.example.com", "sni: \"keystile.example.com\""),
        ("by-address", "https://192.0.2.1:8780/", "IP_ADDRESS"),
        ("plain", "http://[2001:db8::1]:8780", "2001:db8::1"),
    ] {
        let folder = scratch.folder().join(name);
        let out = folder.to_str().unwrap();
        let made =
            control_plane.cli(["edge", "enroll", name, "--out", out, "--control-plane", origin]).unwrap();
        let text = made["files"]["cluster.yaml"].as_str().unwrap();
        assert!(text.contains(extra), "{text}");
        settings.control_plane_cluster = Some(cluster(text));
        settings.plugin_configuration = made["plugin_configuration"].clone();
        settings.validate(scratch.folder()).unwrap_or_else(|error| panic!("{name}: {error:#}\n{text}"));
    }
    // Files are not overwritten, because the secret of the other edge would be lost.
    let again = control_plane.cli(["edge", "enroll", "other", "--out", folder.to_str().unwrap()]);
    assert!(format!("{:#}", again.unwrap_err()).contains("exists"));
}

#[tokio::test]
async fn corrected_secret_is_loaded_after_logged_error() {
    let scratch = Scratch::new().unwrap();
    let control_plane = ControlPlane::start(&scratch, Store::Sqlite, &[]).await.unwrap();
    let _upstream = Upstream::start(scratch.address(8081)).await.unwrap();
    let folder = scratch.folder().join("edge");
    let enrolled = control_plane.enroll_into("edge", &folder).unwrap();
    let (file, away) = (folder.join("credential"), folder.join("away"));
    std::fs::rename(&file, &away).unwrap();
    let mut settings = Settings::for_scratch(&scratch, enrolled.plugin_configuration).unwrap();
    settings.edge_files = Some(folder.clone());
    let envoy = Envoy::start(settings, scratch.folder()).await.unwrap();
    let token = control_plane.token().await.unwrap();
    let status = match envoy.settings().filter_host {
        FilterHost::Wasm => 10,
        FilterHost::Module => 4,
    };
    wait_for_log_line(&envoy, &format!("the host did not send it (status {status})")).await;
    wait_for_log_line(&envoy, "is the file with the secret there").await;
    let refused = harness::get(envoy.address(), &token).await.unwrap().expect(503).unwrap();
    assert_eq!(refused.code(), "bundle_missing");

    // The secret of an edge that was removed.
    let wrong = control_plane.enroll("wrong").unwrap();
    control_plane.cli(["edge", "remove", "wrong", "--yes"]).unwrap();
    replace_atomically(&file, &format!("Bearer {}\n", wrong.credential));
    wait_for_log_line(&envoy, "the control plane responded with status 401").await;
    wait_for_log_line(&envoy, "`keystile edge rotate` makes another").await;

    std::fs::rename(&away, &file).unwrap();
    let mut workers = envoy.wait_admitting(&token).await.unwrap();
    control_plane.revoke(&control_plane.token().await.unwrap(), json!({ "token": token })).await.unwrap();
    Envoy::wait_refusing(&mut workers, &token, 401, "revoked").await;
}

#[tokio::test]
async fn secret_rotation_misses_no_revocation_on_sqlite() {
    check_rotation(Overrides::default()).await;
}

/// Two servers, between which the edge alternates at each connection.
#[tokio::test]
async fn secret_rotation_misses_no_revocation_on_postgresql() {
    check_rotation(Overrides { store: Some(Store::Postgres), servers: 2, ..Overrides::default() }).await;
}

async fn check_rotation(different: Overrides) {
    let mut fixture = Fixture::start(different).await;
    let folder = fixture.scratch().folder().join("edge");
    let credential = || {
        let file = std::fs::read_to_string(folder.join("credential")).unwrap();
        file.trim_end().strip_prefix("Bearer ").unwrap().to_owned()
    };
    for round in 0..3 {
        let old = credential();
        let out = folder.to_str().unwrap();
        let rotated = fixture.control_plane.cli(["edge", "rotate", "edge", "--out", out]).unwrap();
        let new = credential();
        assert_eq!(rotated["credential"], json!(new));
        assert_ne!(old, new, "round {round}");
        // Revoke continuously, until the old credential is refused, because the edge has used the new one.
        for revoked in 0.. {
            let victim = fixture.token().await;
            fixture.wait_admitted(&victim).await;
            fixture.revoke(&victim).await;
            fixture.wait_refused(&victim).await;
            let status = manifest(&fixture.control_plane, &old).await;
            if status == 401 && revoked >= 2 {
                break;
            }
            assert!([200, 401].contains(&status), "the old credential got {status}");
            assert!(revoked < 10_000, "the edge does not use the new credential");
        }
        assert_eq!(manifest(&fixture.control_plane, &new).await, 200);
        if let Some(second) = &fixture.second {
            assert_eq!((manifest(second, &old).await, manifest(second, &new).await), (401, 200));
        }
    }
    let log = fixture.envoy.log();
    assert!(!log.contains("responded with status 401"), "{log}");

    // After a theft, the old credential ends at once, and the edge continues with the new one.
    let old = credential();
    let out = folder.to_str().unwrap();
    fixture.control_plane.cli(["edge", "rotate", "edge", "--now", "--yes", "--out", out]).unwrap();
    assert_eq!(manifest(&fixture.control_plane, &old).await, 401);
    let victim = fixture.token().await;
    fixture.wait_admitted(&victim).await;
    fixture.revoke(&victim).await;
    fixture.wait_refused(&victim).await;
}

/// Environments that only the second host can have.
#[test]
fn arbitrary_environment_does_not_break_the_filter() {
    let cases: [(&[u8], bool); 11] = [
        (b"KEYSTILE_EDGE=ks_edge_env\0", true),
        (b"A=1\0KEYSTILE_EDGE= Bearer ks_edge_env \n\0", true),
        // The value contains a line break.
        (b"OTHER=x\0KEYSTILE_EDGE=ks_edge_env\nREST=\0EMPTY=\0", false),
        (b"", false),
        (b"\0\0\0", false),
        (b"KEYSTILE_EDGE", false),
        (b"KEYSTILE_EDGE=", false),
        (b"KEYSTILE_EDGE=\xff\xfe\0", false),
        (b"=KEYSTILE_EDGE=x\0", false),
        (&[b'='; 70_000], false),
        (&[0; 2_000_000], false),
    ];
    for (block, taken) in cases {
        let (mut host, accepted) = start(block, |_| None);
        assert_eq!(
            accepted,
            taken,
            "{:?}: {:?}",
            String::from_utf8_lossy(&block[..block.len().min(50)]),
            host.state().log
        );
        let log = host.state().log.concat();
        assert!(taken || log.contains("`KEYSTILE_EDGE`"), "{log}");
        assert!(!log.contains("ks_edge_env"), "{log}");
        if taken {
            host.tick().unwrap();
            let call = host.state().http_calls.pop().expect("the filter requests a manifest");
            assert_eq!(call.headers.get("authorization"), Some(b"Bearer ks_edge_env".as_slice()));
        }
    }
    // Hosts with invalid responses.
    for status in [1, 8, 52, u32::MAX] {
        for call in ["environ_sizes_get", "environ_get"] {
            let (mut host, accepted) =
                start(b"KEYSTILE_EDGE=ks_edge_env\0", move |name| (name == call).then_some(status));
            assert!(!accepted, "{:?}", host.state().log);
        }
        let (_, accepted) =
            start(b"KEYSTILE_EDGE=ks_edge_env\0", move |name| (name == "random_get").then_some(status));
        assert!(accepted, "the filter works without randomness");
    }
}

/// The log and the requests of the filter if the host adds the credential.
#[test]
fn missing_credential_is_logged_with_advice() {
    let mut configuration = host_edge::configuration();
    configuration["control_plane"].as_object_mut().unwrap().remove("credential");
    let (mut host, accepted) = Host::start(HostState::new(&configuration, host_edge::NOW_MS)).unwrap();
    assert!(accepted);
    host.tick().unwrap();
    let call = host.state().http_calls.pop().unwrap();
    assert_eq!(call.headers.get("authorization"), None);
    host.answer_call(&call, 401, b"").unwrap();
    let log = host.state().log.concat();
    assert!(log.contains("the host adds no edge credential to requests for the cluster `keystile`"), "{log}");

    // With any other status the SDK panics: see sdk_traps.rs.
    for (status, hint) in [(10, "`credential_injector`"), (2, "is there a cluster `keystile`?")] {
        let mut deployment = HostState::new(&configuration, host_edge::NOW_MS);
        deployment.faults = Faults::of(move |call| (call == "proxy_http_call").then_some(status));
        let (mut host, _) = Host::start(deployment).unwrap();
        host.tick().unwrap();
        let log = host.state().log.concat();
        assert!(log.contains(hint), "{log}");
        // The filter continues, and recovers when the host does.
        host.state().faults = Faults::default();
        let mut edge = HostEdge::start_empty(host);
        edge.publish();
    }
}

fn start(block: &[u8], fault: impl FnMut(&'static str) -> Option<u32> + 'static) -> (Host, bool) {
    let mut configuration = host_edge::configuration();
    configuration["control_plane"]["credential_env"] = json!("KEYSTILE_EDGE");
    let mut deployment = HostState::new(configuration, host_edge::NOW_MS);
    deployment.environment = block.to_vec();
    deployment.faults = Faults::of(fault);
    Host::start(deployment).unwrap()
}

/// An edge with the files of `edge enroll`, its control plane and its upstream.
struct EnrolledDeployment {
    envoy: Envoy,
    workers: Vec<Connection>,
    control_plane: ControlPlane,
    credential: String,
    plugin: Value,
    _upstream: Upstream,
    scratch: Scratch,
}

impl EnrolledDeployment {
    async fn start(scratch: Scratch, arguments: &[&str], prepare: fn(&mut Settings)) -> Self {
        let upstream = Upstream::start(scratch.address(8081)).await.unwrap();
        let control_plane = ControlPlane::start(&scratch, Store::Sqlite, &[]).await.unwrap();
        let folder = scratch.folder().join("edge");
        let enroll = ["edge", "enroll", "edge", "--out", folder.to_str().unwrap()];
        let enrolled = control_plane.cli(enroll.into_iter().chain(arguments.iter().copied())).unwrap();
        let plugin = enrolled["plugin_configuration"].clone();
        let mut settings = Settings::for_scratch(&scratch, plugin.clone()).unwrap();
        settings.edge_files = Some(folder);
        if settings.filter_host == FilterHost::Wasm {
            settings.wasm = trapping(&settings.wasm, scratch.folder());
        }
        settings.log_level = "info";
        settings.component_log_level = "wasm:debug,dynamic_modules:debug";
        prepare(&mut settings);
        let envoy = Envoy::start(settings, scratch.folder()).await.unwrap();
        let token = control_plane.token().await.unwrap();
        let workers = envoy.wait_admitting(&token).await.unwrap();
        let credential = enrolled["credential"].as_str().unwrap().to_owned();
        Self { envoy, workers, control_plane, credential, plugin, _upstream: upstream, scratch }
    }

    fn settings(&self) -> &Settings {
        self.envoy.settings()
    }

    async fn check_revocation(&mut self) {
        let (admin, victim) =
            (self.control_plane.token().await.unwrap(), self.control_plane.token().await.unwrap());
        self.control_plane.revoke(&admin, json!({ "token": victim })).await.unwrap();
        Envoy::wait_refusing(&mut self.workers, &victim, 401, "revoked").await;
    }

    /// Makes the VM of every worker trap once and restart, if there are VMs.
    async fn crash_workers(&mut self) {
        if self.settings().filter_host == FilterHost::Module {
            return;
        }
        let token = self.control_plane.token().await.unwrap();
        for worker in &mut self.workers {
            worker.send(trap(&token)).await.unwrap().expect(503).unwrap();
            eventually("the VM is back", async || worker.get(&token).await?.expect(200)).await;
        }
    }

    /// Returns all responses of the admin interface to a GET, the configuration first, and the log.
    async fn admin_output(&self) -> Vec<(String, String)> {
        // Creates entries in pages with counters and timers.
        send(self.envoy.address(), request_without_credential()).await.unwrap();
        let mut paths: Vec<String> =
            ["/config_dump?include_eds", "/config_dump", "/clusters?format=json", "/listeners?format=json"]
                .map(str::to_owned)
                .into();
        let help = self.envoy.admin("/help").await.unwrap();
        let named = help.lines().filter_map(|line| line.strip_prefix("  /")?.split([':', ' ']).next());
        paths.extend(named.filter(|path| !path.is_empty()).map(|path| format!("/{path}")));
        for format in
            ["/stats?format=json", "/stats/prometheus", "/config_dump?mask=bootstrap", "/init_dump?mask="]
        {
            paths.push(format.to_owned());
        }
        let mut shown = Vec::new();
        for path in paths {
            let request = hyper::Request::get(&path).body(String::new()).unwrap();
            let answer = send(self.settings().admin, request).await.unwrap();
            // Endpoints that change something refuse a GET.
            shown.push((format!("{path} ({})", answer.status), answer.text()));
        }
        for needed in
            ["/certs (200)", "/stats (200)", "/server_info (200)", "/clusters (200)", "/listeners (200)"]
        {
            assert!(shown.iter().any(|(path, _)| path == needed), "{needed}");
        }
        assert!(
            shown[0].1.contains("root_keys"),
            "the configuration of the filter is not shown: {}",
            shown[0].1
        );
        let log = self.envoy.log();
        assert!(log.contains("enforcing bundle version"), "{log}");
        shown.push(("the log".to_owned(), log));
        shown
    }

    /// Returns the output of `envoy --mode validate` with another environment.
    fn validate(&self, environment: &[(String, String)]) -> String {
        let mut settings = self.settings().clone();
        settings.environment = environment.to_vec();
        validate(&settings, self.scratch.folder())
    }
}

fn validate(settings: &Settings, folder: &Path) -> String {
    let file = folder.join("validated.yaml");
    std::fs::write(&file, settings.render().unwrap()).unwrap();
    let output = Command::new(tools::envoy().unwrap())
        .env_clear()
        .envs(settings.environment.iter().map(|(name, value)| (name, value)))
        .args(["--mode", "validate", "--log-level", "info", "--component-log-level", "wasm:debug", "-c"])
        .arg(&file)
        .output()
        .unwrap();
    [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat()
}

fn with_assertion(settings: &mut Settings) {
    settings.plugin_configuration["identity"] =
        json!({ "assertion": { "header": "x-assertion", "secret_env": VARIABLE, "audience": "upstream" } });
    settings.environment.push((VARIABLE.to_owned(), ASSERTION.to_owned()));
    settings.host_env_keys.push(VARIABLE.to_owned());
}

/// Checks that no secret is in the output, in any of several encodings.
fn assert_contains_none(secrets: &[&str], shown: &[(String, String)]) {
    for secret in secrets {
        let bare = secret.strip_prefix("ks_edge_").unwrap_or(secret);
        let mut forms = vec![bare.to_owned(), bare.chars().rev().collect()];
        let decoded = base64url::decode(bare.as_bytes()).unwrap_or_default();
        // Some texts have an empty decoded form.
        for form in [bare.as_bytes(), decoded.as_slice()].into_iter().filter(|form| !form.is_empty()) {
            forms.push(form.iter().map(|byte| format!("{byte:02x}")).collect());
            forms.push(form.iter().map(|byte| format!("%{byte:02x}")).collect());
            // Encode it at each of the three offsets, without the characters at both ends, which depend on adjacent bytes.
            for before in 0..3 {
                let encoded = base64url::encode(&[vec![b'x'; before].as_slice(), form].concat());
                forms.push(encoded[4..encoded.len() - 3].to_owned());
            }
        }
        for (place, text) in shown {
            let (text, lower) = (text.replace('+', "-").replace('/', "_"), text.to_lowercase());
            for form in &forms {
                assert!(!text.contains(form) && !lower.contains(form), "{place} shows a secret as {form}");
            }
        }
    }
}

/// Replaces a secret atomically.
fn replace_atomically(file: &Path, content: &str) {
    let draft: PathBuf = file.with_extension("draft");
    std::fs::write(&draft, content).unwrap();
    std::fs::rename(draft, file).unwrap();
}

async fn wait_for_log_line(envoy: &Envoy, what: &str) {
    eventually(what, async || {
        anyhow::ensure!(envoy.log().contains(what), "the log does not contain it");
        Ok(())
    })
    .await;
}

/// Returns the status of a manifest request with a credential.
async fn manifest(control_plane: &ControlPlane, credential: &str) -> u16 {
    let mut request = bearer(credential);
    *request.uri_mut() = "/edge/v1/manifest?have=0".parse().unwrap();
    send(control_plane.address(), request).await.unwrap().status
}

const VARIABLE: &str = "KEYSTILE_ASSERTION";

/// Returns 32 bytes in base64url.
const ASSERTION: &str = "n4bQgYhMfWWaL-qgxVrQFaO_TxsrC4Is0V1sFbDwCgg";
