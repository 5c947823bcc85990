//! The endpoints for edges: manifest, objects and symmetric keys.

use std::time::{Duration, Instant};

use axum::{
    body::Body,
    extract::{FromRequestParts, Path, Query, State, rejection::QueryRejection},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use token::Fingerprint;
use tokio::time::sleep;

use super::{AppState, middleware::admission::edge_problem, problem::Problem};
use crate::{
    domain::{EdgeId, EdgeReport, EdgeWorkers, Epoch, Version},
    edges,
    publishing::{BundlePosition, Publication},
};

/// How far a reported version may be ahead of the clock, in milliseconds. Versions are times.
const MAX_VERSION_LEAD_MS: u64 = 86_400_000;

/// The number of issuers in one report of missing keys.
const MAX_REPORTED_ISSUERS: usize = 8;

const MISSING_KEYS: HeaderName = HeaderName::from_static("x-keystile-missing-keys");
const EDGE_STATUS: HeaderName = HeaderName::from_static("x-keystile-edge-status");
const PREFER: HeaderName = HeaderName::from_static("prefer");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// The maximum of `Prefer: wait`, so that proxies in between need not keep a silent connection open for longer.
const MAX_WAIT_SECONDS: u64 = 30;

const MAX_STATUS_BYTES: usize = 200;

/// Many times the number of cores of any machine.
const MAX_WORKERS: u64 = 65_536;

/// Ten times the time that workers need to load what the leader has shared.
const WORKER_CATCH_UP_WAIT: Duration = Duration::from_millis(250);

/// How long to wait for a replica. Replication takes milliseconds.
const REPLICA_LAG_TIMEOUT: Duration = Duration::from_millis(500);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ManifestQuery {
    #[serde(default)]
    have: Version,
    /// The epoch of the delegation that the edge has. Older edges do not send it.
    epoch: Option<Epoch>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeysQuery {
    sha256: String,
}

/// Returns a manifest that is newer than `have` or of a later epoch. If there is none yet, waits for one for as long as
/// the edge prefers, and then answers 304. Never returns an older manifest.
pub(super) async fn manifest(
    State(state): State<AppState>,
    EdgeCaller(edge): EdgeCaller,
    headers: HeaderMap,
    query: Result<Query<ManifestQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(ManifestQuery { have, epoch }) =
        query.map_err(|_| Problem::invalid("`have`: expected a version; `epoch`: expected an epoch"))?;
    let known =
        headers.get(header::IF_NONE_MATCH).and_then(|tag| tag.to_str().ok()).and_then(parse_entity_tag);
    let report = EdgeReport {
        version: have,
        issued_at: known.map(|(_, at)| at),
        workers: parse_edge_status(&headers),
    };
    // The report is unverified: bound the version that it claims.
    let max_credible_version =
        state.latest().version.get().max(state.service.now().millis()).saturating_add(MAX_VERSION_LEAD_MS);
    state.service.record_edge_report(&edge, report.credible(Version::new(max_credible_version)));
    parse_missing_keys(&headers).for_each(|issuer| state.service.report_missing_key(&issuer));
    let publisher = &state.service.config().publisher;
    let mut wait = preferred_wait(&headers).min(max_wait(publisher.lifetime.get(), publisher.resign.get()));
    if report.enforces() < have {
        // The edge fetched this version but its workers have not installed it yet. Use a short wait so that it reports
        // back soon.
        wait = wait.min(WORKER_CATCH_UP_WAIT);
    }
    let held = BundlePosition { epoch: epoch.unwrap_or_else(|| state.latest().epoch), version: have };
    if state.latest().position() < held {
        wait_for_replica(&state, &edge, held).await;
    }
    if state.latest().position() <= held && !wait.is_zero() {
        wait_for_newer(&state, held, wait).await;
    }
    let publication = state.latest();
    let mut response = if is_newer_for_edge(&publication, held, known) {
        let mut response = Body::from(publication.manifest.clone()).into_response();
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/vnd.keystile.manifest"));
        response
    } else {
        StatusCode::NOT_MODIFIED.into_response()
    };
    let answer = response.headers_mut();
    if publication.position() >= held
        && let Ok(tag) = HeaderValue::try_from(entity_tag(&publication))
    {
        answer.insert(header::ETAG, tag);
    }
    answer.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Ok(applied) = HeaderValue::try_from(format!("wait={}", wait.as_secs()))
        && wait.as_secs() > 0
    {
        answer.insert(PREFERENCE_APPLIED, applied);
    }
    Ok(response)
}

/// Returns a bundle object. Objects are immutable, named by hash and contain no secret, so the endpoint needs no
/// authentication and any cache may store them.
pub(super) async fn object(
    State(state): State<AppState>,
    Path(sha256): Path<String>,
) -> Result<impl IntoResponse, Problem> {
    let object = parse_sha256(&sha256).and_then(|sha256| state.publications.object(&sha256));
    let object =
        object.ok_or_else(|| Problem::not_found("object not found, or superseded and no longer kept"))?;
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
    ];
    Ok((headers, Vec::from(&*object)))
}

/// Returns the object with the symmetric keys. Requires an edge credential; no cache may store it.
pub(super) async fn secret_keys(
    State(state): State<AppState>,
    EdgeCaller(_): EdgeCaller,
    query: Result<Query<KeysQuery>, QueryRejection>,
) -> Result<impl IntoResponse, Problem> {
    let Query(KeysQuery { sha256 }) =
        query.map_err(|_| Problem::invalid("`sha256`: expected a SHA-256 in hex"))?;
    let object = parse_sha256(&sha256).and_then(|sha256| state.publications.secret_keys(&sha256));
    let object =
        object.ok_or_else(|| Problem::not_found("object not found, or superseded and no longer kept"))?;
    let headers = [(header::CONTENT_TYPE, "application/octet-stream"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, Vec::from(&*object)))
}

/// The edge that is authenticated by the credential of the request.
pub(super) struct EdgeCaller(EdgeId);

impl FromRequestParts<AppState> for EdgeCaller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        // The admission middleware has authenticated it already.
        if let Some(edge) = parts.extensions.get::<EdgeId>() {
            return Ok(Self(edge.clone()));
        }
        let presented = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let credential = presented.and_then(|value| value.strip_prefix("Bearer "));
        let edge = edges::authenticate_edge(&state.service, credential.unwrap_or_default())
            .await
            .map_err(edge_problem)?;
        Ok(Self(edge))
    }
}

/// Waits until this replica has what the edge has.
///
/// The edge has a newer version than this replica. Either replication is behind (wait briefly), or the database was
/// restored from a backup; the edge would then ignore new revocations.
async fn wait_for_replica(state: &AppState, edge: &EdgeId, held: BundlePosition) {
    tokio::select! {
        () = state.publications.wait_at_least(held) => {}
        () = sleep(REPLICA_LAG_TIMEOUT) => {}
        () = state.stop.cancelled() => {}
    }
    let latest = state.latest().position();
    if latest < held && state.edge_ahead_log.allow(edge, Instant::now()) {
        tracing::warn!(
            edge.id = %edge,
            edge.epoch = held.epoch.get(),
            edge.version = held.version.get(),
            authority.epoch = latest.epoch.get(),
            bundle.version = latest.version.get(),
            "an edge reports a version above the latest one (unverified). If the report is true, the edge accepts no \
             bundle below that version. Check whether a backup was restored or the clock was set back; a restart of the \
             server derives a new version from the clock. If other edges report the same, see SECURITY.md on stolen \
             keys; if only this edge does, enroll it again"
        );
    }
}

/// Waits until a manifest newer than `held` is published, at most for `wait`. Returns early if the server stops, so
/// that shutdown does not wait for edges.
async fn wait_for_newer(state: &AppState, held: BundlePosition, wait: Duration) {
    let _waiting = state.metrics.track_waiting_edge();
    tokio::select! {
        () = state.publications.wait_newer_than(held) => {}
        () = sleep(wait) => {}
        () = state.stop.cancelled() => {}
    }
}

/// Returns true if `publication` is newer than what the edge has. `known` (version, `issued_at` in milliseconds)
/// belongs to the epoch in `held`.
fn is_newer_for_edge(publication: &Publication, held: BundlePosition, known: Option<(Version, u64)>) -> bool {
    publication.epoch > held.epoch
        || publication.position() >= held
            && (publication.version, publication.issued_at) > known.unwrap_or_default()
}

/// Returns the entity tag `"VERSION-ISSUED_AT_MS"`.
fn entity_tag(publication: &Publication) -> String {
    format!("\"{}-{}\"", publication.version, publication.issued_at)
}

fn parse_entity_tag(tag: &str) -> Option<(Version, u64)> {
    let tag = tag.strip_prefix("W/").unwrap_or(tag);
    let (version, issued_at) = tag.strip_prefix('"')?.strip_suffix('"')?.split_once('-')?;
    Some((Version::new(version.parse().ok()?), issued_at.parse().ok()?))
}

/// Parses `version=V; workers=N; oldest=V; lagging=K; kept=S`, each member once and in this order; `kept` is left out if it
/// is 0. Returns `None` for a
/// malformed status: the edge gets its manifest regardless.
fn parse_edge_status(headers: &HeaderMap) -> Option<EdgeWorkers> {
    let status = headers.get(&EDGE_STATUS)?;
    let parse = || {
        let mut members = status.to_str().ok().filter(|text| text.len() <= MAX_STATUS_BYTES)?.split(';');
        let number = |member: &str, name: &str| {
            let number = member.trim_matches(' ').strip_prefix(name)?.strip_prefix('=')?;
            number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse::<u64>().ok())?
        };
        let mut member = |name: &str| number(members.next()?, name);
        let (_, count, oldest, lagging) =
            (member("version")?, member("workers")?, member("oldest")?, member("lagging")?);
        let kept_streams = members.next().map_or(Some(0), |member| number(member, "kept"))?;
        let valid = members.next().is_none() && (1..=MAX_WORKERS).contains(&count) && lagging <= count;
        valid.then_some(EdgeWorkers { count, oldest: Version::new(oldest), lagging, kept_streams })
    };
    let workers = parse();
    if workers.is_none() {
        tracing::debug!("malformed edge status header");
    }
    workers
}

/// Returns the SHA-256 of each issuer of which the edge lacks a key. What is malformed is ignored.
fn parse_missing_keys(headers: &HeaderMap) -> impl Iterator<Item = Fingerprint> {
    let text = headers.get(&MISSING_KEYS).and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.split(',').take(MAX_REPORTED_ISSUERS).filter_map(|issuer| issuer.trim().parse().ok())
}

/// Returns the wait that the edge asks for by `Prefer: wait=N` (RFC 7240 section 4.3; seconds).
fn preferred_wait(headers: &HeaderMap) -> Duration {
    let preferences = headers.get_all(PREFER).into_iter().filter_map(|value| value.to_str().ok());
    let seconds = preferences
        .flat_map(|value| value.split([',', ';']))
        .find_map(|preference| preference.trim().strip_prefix("wait=")?.trim_matches('"').parse().ok());
    Duration::from_secs(seconds.unwrap_or(0).min(MAX_WAIT_SECONDS))
}

/// Returns the longest wait that keeps an edge fresh: it may hold a manifest that is `resign` old, and after half of
/// the remaining lifetime it must get the next one.
fn max_wait(lifetime: Duration, resign: Duration) -> Duration {
    lifetime.saturating_sub(resign) / 2
}

fn parse_sha256(hex: &str) -> Option<[u8; 32]> {
    hex.parse::<Fingerprint>().ok().map(|hash| *hash.as_bytes())
}
