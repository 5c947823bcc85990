//! `make demo` runs the complete cycle in a temporary deployment and measures times. Exits with 0 only if every step
//! succeeds.

use anyhow::{Context, Result, ensure};
use harness::client::{self, request_without_credential};
use harness::{Connection, Deployment, Options, get};
use serde_json::{Value, json};
use std::process::ExitCode;
use std::time::{Duration, Instant};

#[tokio::main]
async fn main() -> ExitCode {
    match tour().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn tour() -> Result<()> {
    let deployment = Deployment::start(Options::default()).await?;
    let edge = deployment.envoy.address();
    print_line(&format!(
        "A control plane on {}, Envoy with the filter and {WORKERS} workers on {edge}, an upstream that returns the headers it got.",
        deployment.control_plane.address()
    ));

    print_step("Issue: an AuthKey is exchanged for a token (POST /v1/auth)");
    let root = deployment.control_plane.root();
    let started = Instant::now();
    let session = deployment.control_plane.authenticate(&root.auth_key_id, &root.auth_key).await?;
    print_done(
        started,
        &format!("a token of operator {}, {} bytes", session.operator_id, session.token.len()),
    );

    print_step("Request with the token: admitted, and the upstream gets the identity");
    deployment.envoy.wait_admitting(&session.token).await?;
    let started = Instant::now();
    let admitted = get(edge, &session.token).await?.expect(200)?;
    print_done(started, "200; the upstream received:");
    show_identity(&admitted.json()?)?;

    print_step("Request without a token: refused");
    let started = Instant::now();
    let refused = client::send(edge, request_without_credential()).await?.expect(401)?;
    print_done(started, &format!("401 {}", refused.text()));

    print_step("Revoke the token (POST /revocations): refused by every worker");
    let operator = deployment.control_plane.token().await?;
    let mut workers = deployment.envoy.wait_admitting(&session.token).await?;
    let acknowledged = deployment.control_plane.revoke(&operator, json!({ "token": session.token })).await?;
    until_refused(&mut workers, &session.token).await?;
    print_done(acknowledged, "from the acknowledgement to the refusal by every worker");
    let refused = get(edge, &session.token).await?.expect(401)?;
    print_line(&format!("  401 {}", refused.text()));

    print_step(&format!("{REVOCATIONS} more revocations, each measured at {WORKERS} workers"));
    let mut times = Vec::new();
    for _ in 0..REVOCATIONS {
        let token = deployment.control_plane.token().await?;
        for worker in &mut workers {
            worker.get(&token).await?.expect(200)?;
        }
        let acknowledged = deployment.control_plane.revoke(&operator, json!({ "token": token })).await?;
        until_refused(&mut workers, &token).await?;
        times.push(acknowledged.elapsed());
    }
    times.sort();
    let (p50, p99, max) = (quantile(&times, 50), quantile(&times, 99), quantile(&times, 100));
    print_line(&format!(
        "  acknowledged -> refused by every worker: p50 {p50:.1?}, p99 {p99:.1?}, max {max:.1?}"
    ));
    ensure!(p99 < PROMISE, "p99 is {p99:?}, the limit is {PROMISE:?}");
    print_line("\nEvery step succeeded.");
    Ok(())
}

/// Sends requests to every worker without a pause until it refuses.
async fn until_refused(workers: &mut [Connection], token: &str) -> Result<()> {
    let started = Instant::now();
    for worker in workers {
        loop {
            match worker.get(token).await?.status {
                200 => ensure!(started.elapsed() < PATIENCE, "still admitted after {PATIENCE:?}"),
                401 => break,
                other => anyhow::bail!("status {other} after a revocation"),
            }
        }
    }
    Ok(())
}

fn show_identity(echo: &Value) -> Result<()> {
    let headers = echo["headers"].as_object().context("the upstream did not return the headers")?;
    let identity: Vec<_> = headers.iter().filter(|(name, _)| name.starts_with("x-keystile-")).collect();
    ensure!(!identity.is_empty(), "no identity headers: {echo}");
    ensure!(!headers.contains_key("authorization"), "the credential reached the upstream");
    for (name, values) in identity {
        print_line(&format!("    {name}: {}", values[0].as_str().unwrap_or_default()));
    }
    Ok(())
}

/// Returns the nearest-rank quantile of sorted times.
fn quantile(times: &[Duration], percent: usize) -> Duration {
    times[(times.len() * percent).div_ceil(100) - 1]
}

fn print_step(title: &str) {
    print_line(&format!("\n{title}"));
}

fn print_done(since: Instant, what: &str) {
    print_line(&format!("  {:.1?}: {what}", since.elapsed()));
}

fn print_line(line: &str) {
    println!("{line}");
}

const WORKERS: usize = 2;
const REVOCATIONS: usize = 100;
const PROMISE: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(60);
