//! `make run` starts the control plane, Envoy with the filter, and an upstream on fixed ports, until Ctrl-C.

use anyhow::{Context, Result};
use harness::control_plane::RootCredentials;
use harness::envoy::{FilterHost, Settings};
use harness::{ControlPlane, Envoy, Upstream, tools};
use serde::{Deserialize, Serialize};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// The data that later starts need from the first one.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    operator_id: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<()> {
    for (what, address) in [("the control plane", CONTROL_PLANE), ("Envoy", EDGE), ("Envoy's admin", ADMIN)] {
        TcpListener::bind(address).with_context(|| format!("{address}, the address of {what}, is in use"))?;
    }
    let folder = tools::root().join(".keystile");
    let mut control_plane =
        ControlPlane::open(folder.clone(), folder.join("control-plane.log"), CONTROL_PLANE);
    let (state, root) = match read_state(&folder)? {
        Some(state) => (state, None),
        None => {
            let (state, root) = first_start(&mut control_plane, &folder)?;
            (state, Some(root))
        }
    };
    let edge = folder.join(EDGE_FILES);
    if !edge.join("filter.json").exists() {
        // An earlier start was interrupted, or an earlier version stored the credential elsewhere.
        let _ = control_plane.cli(["edge", "remove", EDGE_NAME, "--yes"]);
        control_plane.enroll_into(EDGE_NAME, &edge)?;
    }
    let plugin_configuration = serde_json::from_reader(File::open(edge.join("filter.json"))?)?;
    control_plane.serve().await?;

    let upstream = Upstream::start((Ipv4Addr::LOCALHOST, 0).into()).await?;
    let addresses = [EDGE, ADMIN, CONTROL_PLANE, upstream.address()];
    let settings = Settings { edge_files: Some(edge), ..Settings::new(addresses, plugin_configuration)? };
    let filter_host = settings.filter_host;
    let mut envoy = Envoy::start(settings, &folder).await?;
    explain(&state.operator_id, root.as_ref(), filter_host)?;

    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    loop {
        tokio::select! {
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            () = tokio::time::sleep(Duration::from_secs(1)) => {
                control_plane.ensure_alive().context("the control plane")?;
                envoy.ensure_alive().context("Envoy")?;
            }
        }
    }
    envoy.stop()?;
    control_plane.stop()
}

fn read_state(folder: &Path) -> Result<Option<State>> {
    let path = folder.join(STATE);
    if !path.exists() {
        return Ok(None);
    }
    let state = serde_json::from_reader(File::open(&path)?);
    Ok(Some(state.with_context(|| format!("{}; remove .keystile/ to start again", path.display()))?))
}

fn first_start(control_plane: &mut ControlPlane, folder: &Path) -> Result<(State, RootCredentials)> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let root = control_plane.init().context("if the first start was interrupted, remove .keystile/")?;
    let state = State { operator_id: root.operator_id.clone() };
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(folder.join(STATE))?;
    file.write_all(serde_json::to_string_pretty(&state)?.as_bytes())?;
    Ok((state, root))
}

fn explain(operator: &str, root: Option<&RootCredentials>, filter_host: FilterHost) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "control plane  http://{CONTROL_PLANE}   state and logs in .keystile/")?;
    let filter = match filter_host {
        FilterHost::Wasm => "the filter in a VM",
        FilterHost::Module => "the filter as a native module",
    };
    writeln!(
        out,
        "Envoy          http://{EDGE}   {filter}, in front of an upstream that returns the headers it got"
    )?;
    writeln!(out, "Envoy's admin  http://{ADMIN}\n")?;
    if let Some(RootCredentials { auth_key_id, auth_key, .. }) = root {
        writeln!(out, "Your operator is {operator}. Its root AuthKey, which is shown only once:")?;
        writeln!(out, "  {auth_key_id}\n  {auth_key}")?;
        writeln!(out, "Exchange the AuthKey for a token:")?;
        writeln!(out, "  curl -s http://{CONTROL_PLANE}/v1/auth -H 'content-type: application/json' \\")?;
        writeln!(out, "    -d '{{\"authKeyId\":\"{auth_key_id}\",\"authKey\":\"{auth_key}\"}}'\n")?;
    }
    writeln!(out, "Try in another terminal, in this folder:")?;
    writeln!(out, "  alias keystile=target/debug/keystile")?;
    writeln!(out, "  TOKEN=$(keystile token issue --operator {operator})")?;
    writeln!(
        out,
        "  curl -i http://{EDGE}/ -H \"Authorization: Bearer $TOKEN\"     # 200 and the identity headers"
    )?;
    writeln!(out, "  curl -i http://{EDGE}/                                       # 401")?;
    writeln!(out, "  echo \"$TOKEN\" | keystile revoke --token")?;
    writeln!(out, "  curl -i http://{EDGE}/ -H \"Authorization: Bearer $TOKEN\"     # 401")?;
    writeln!(out, "\nCtrl-C stops everything; `make run` continues with the same state.")?;
    Ok(())
}

const CONTROL_PLANE: SocketAddr = on_localhost(8780);
const EDGE: SocketAddr = on_localhost(8080);
const ADMIN: SocketAddr = on_localhost(9901);
const STATE: &str = "run.json";
const EDGE_NAME: &str = "local";
const EDGE_FILES: &str = "edge";

const fn on_localhost(port: u16) -> SocketAddr {
    SocketAddr::V4(std::net::SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))
}
