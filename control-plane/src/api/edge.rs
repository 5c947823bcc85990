//! What edges fetch.

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

use super::{Desk, problem::Problem};
use crate::{
    model::{EdgeId, EdgeReport, EdgeWorkers},
    operations,
    publisher::{Order, Publication},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ManifestQuery {
    #[serde(default)]
    have: u64,
    /// Of the delegation that the edge holds; an older edge does not tell.
    epoch: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeysQuery {
    sha256: String,
}

/// Something newer than `have` at once, and anything of a later epoch; else waits for it as long as the edge prefers.
/// Never anything older.
pub(super) async fn manifest(
    State(desk): State<Desk>,
    EdgeCaller(edge): EdgeCaller,
    headers: HeaderMap,
    query: Result<Query<ManifestQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(ManifestQuery { have, epoch }) =
        query.map_err(|_| Problem::invalid("`have`: expected a version; `epoch`: expected an epoch"))?;
    let known =
        headers.get(header::IF_NONE_MATCH).and_then(|tag| tag.to_str().ok()).and_then(read_entity_tag);
    let report = EdgeReport { version: have, issued_at: known.map(|(_, at)| at), workers: workers(&headers) };
    // An edge may say anything of itself.
    let latest_credible = desk.latest().version.max(desk.service.now().millis()).saturating_add(CREDIBLE);
    desk.service.edge_seen(&edge, report.credible(latest_credible));
    let publisher = &desk.service.config().publisher;
    let mut wait =
        preferred_wait(&headers).min(longest_wait(publisher.lifetime.get(), publisher.resign.get()));
    if report.enforces() < have {
        // Its workers are just taking up what it fetched: it is to tell soon that they have.
        wait = wait.min(CATCHING_UP);
    }
    let held = Order { epoch: epoch.unwrap_or_else(|| desk.latest().epoch), version: have };
    if desk.latest().order() < held {
        catch_up(&desk, &edge, held).await;
    }
    if desk.latest().order() <= held && !wait.is_zero() {
        wait_for_newer(&desk, held, wait).await;
    }
    let publication = desk.latest();
    let mut response = if is_news(&publication, held, known) {
        let mut response = Body::from(publication.manifest.clone()).into_response();
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/vnd.keystile.manifest"));
        response
    } else {
        StatusCode::NOT_MODIFIED.into_response()
    };
    let answer = response.headers_mut();
    if publication.order() >= held
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

/// Immutable and signed for by hash: no secret, no authentication, any cache may keep it.
pub(super) async fn object(
    State(desk): State<Desk>,
    Path(sha256): Path<String>,
) -> Result<impl IntoResponse, Problem> {
    let object = hash(&sha256).and_then(|sha256| desk.publications.object(&sha256));
    let object =
        object.ok_or_else(|| Problem::not_found("there is no such object, or it was superseded long ago"))?;
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
    ];
    Ok((headers, Vec::from(&*object)))
}

/// The symmetric keys: for edges only, and for no cache.
pub(super) async fn secret_keys(
    State(desk): State<Desk>,
    EdgeCaller(_): EdgeCaller,
    query: Result<Query<KeysQuery>, QueryRejection>,
) -> Result<impl IntoResponse, Problem> {
    let Query(KeysQuery { sha256 }) =
        query.map_err(|_| Problem::invalid("`sha256`: expected a hash in hex"))?;
    let object = hash(&sha256).and_then(|sha256| desk.publications.secret_keys(&sha256));
    let object =
        object.ok_or_else(|| Problem::not_found("there is no such object, or it was superseded long ago"))?;
    let headers = [(header::CONTENT_TYPE, "application/octet-stream"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, Vec::from(&*object)))
}

/// An edge, by its credential.
pub(super) struct EdgeCaller(EdgeId);

impl FromRequestParts<Desk> for EdgeCaller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, desk: &Desk) -> Result<Self, Problem> {
        // Found when the request was admitted.
        if let Some(edge) = parts.extensions.get::<EdgeId>() {
            return Ok(Self(edge.clone()));
        }
        let presented = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let credential = presented.and_then(|value| value.strip_prefix("Bearer "));
        let edge = operations::authenticate_edge(&desk.service, credential.unwrap_or_default()).await?;
        Ok(Self(edge))
    }
}

/// Another replica gave the edge something that this one has not seen yet; or the database went back, and the edge
/// would not take what is revoked from now on.
async fn catch_up(desk: &Desk, edge: &EdgeId, held: Order) {
    let mut stop = desk.stop.clone();
    tokio::select! {
        () = desk.publications.caught_up(held) => {}
        () = sleep(CATCH_UP) => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
    let latest = desk.latest().order();
    if latest < held && desk.ahead.due(edge, Instant::now()) {
        tracing::warn!(
            edge.id = %edge,
            edge.epoch = held.epoch,
            edge.version = held.version,
            authority.epoch = latest.epoch,
            bundle.version = latest.version,
            "an edge says that it holds a version above the latest, for which there is only its word. If it is so, it \
             takes nothing until there is a higher one: was a backup restored, or the clock set back? A restart of the \
             server takes a version from the clock. If other edges say so too, see SECURITY.md on stolen keys; if it is \
             this one alone, enroll it anew"
        );
    }
}

/// Ends early when the server stops, so that stopping need not wait for the edges.
async fn wait_for_newer(desk: &Desk, held: Order, wait: Duration) {
    let _waiting = desk.metrics.edge_waits();
    let mut stop = desk.stop.clone();
    tokio::select! {
        () = desk.publications.newer_than(held) => {}
        () = sleep(wait) => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
}

/// Whether the edge does not have it, nor anything later. What it knows of is of the epoch that it holds.
fn is_news(publication: &Publication, held: Order, known: Option<(u64, u64)>) -> bool {
    publication.epoch > held.epoch
        || publication.order() >= held
            && (publication.version, publication.issued_at) > known.unwrap_or_default()
}

/// `"VERSION-ISSUEDMS"`
fn entity_tag(publication: &Publication) -> String {
    format!("\"{}-{}\"", publication.version, publication.issued_at)
}

fn read_entity_tag(tag: &str) -> Option<(u64, u64)> {
    let tag = tag.strip_prefix("W/").unwrap_or(tag);
    let (version, issued_at) = tag.strip_prefix('"')?.strip_suffix('"')?.split_once('-')?;
    Some((version.parse().ok()?, issued_at.parse().ok()?))
}

/// `version=V; workers=N; oldest=V; lagging=K`, each once and in this order. What can't be read tells nothing: an edge
/// gets its manifest whatever it says of itself.
fn workers(headers: &HeaderMap) -> Option<EdgeWorkers> {
    let status = headers.get(&EDGE_STATUS)?;
    let read = || {
        let mut members = status.to_str().ok().filter(|text| text.len() <= LONGEST_STATUS)?.split(';');
        let mut member = |name: &str| {
            let number = members.next()?.trim_matches(' ').strip_prefix(name)?.strip_prefix('=')?;
            number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse::<u64>().ok())?
        };
        let (_, count, oldest, lagging) =
            (member("version")?, member("workers")?, member("oldest")?, member("lagging")?);
        let whole = members.next().is_none() && (1..=MOST_WORKERS).contains(&count) && lagging <= count;
        whole.then_some(EdgeWorkers { count, oldest, lagging })
    };
    let workers = read();
    if workers.is_none() {
        tracing::debug!("an edge sent a status that can't be read");
    }
    workers
}

/// `Prefer: wait=N` (RFC 7240 section 4.3), in seconds.
fn preferred_wait(headers: &HeaderMap) -> Duration {
    let preferences = headers.get_all(PREFER).into_iter().filter_map(|value| value.to_str().ok());
    let seconds = preferences
        .flat_map(|value| value.split([',', ';']))
        .find_map(|preference| preference.trim().strip_prefix("wait=")?.trim_matches('"').parse().ok());
    Duration::from_secs(seconds.unwrap_or(0).min(LONGEST_WAIT))
}

/// An edge may have been given a manifest right before it was signed anew; with this wait on top it is still fresh when
/// the answer comes, half of the remaining lifetime before it goes stale.
fn longest_wait(lifetime: Duration, resign: Duration) -> Duration {
    lifetime.saturating_sub(resign) / 2
}

fn hash(hex: &str) -> Option<[u8; 32]> {
    hex.parse::<Fingerprint>().ok().map(|hash| *hash.as_bytes())
}

/// How far ahead of the clock a version may be, in milliseconds: versions are times.
const CREDIBLE: u64 = 86_400_000;

const EDGE_STATUS: HeaderName = HeaderName::from_static("x-keystile-edge-status");
const PREFER: HeaderName = HeaderName::from_static("prefer");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// For the longest lifetimes: what is between need not keep a silent connection longer.
const LONGEST_WAIT: u64 = 30;
const LONGEST_STATUS: usize = 200;

/// Far more than a machine has cores.
const MOST_WORKERS: u64 = 65_536;

/// Ten times what workers take to see what the leader has shared.
const CATCHING_UP: Duration = Duration::from_millis(250);

/// A replica hears of a commit in milliseconds.
const CATCH_UP: Duration = Duration::from_millis(500);
