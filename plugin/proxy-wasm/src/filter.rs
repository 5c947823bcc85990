//! One request.

use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use verdict::{Forward, Forwarded, Gate, Refusal, Request, Verdict};

use crate::{
    abi::{self, Map},
    pairs,
    worker::Worker,
};

/// Whether the request goes on.
pub(crate) fn request_headers(worker: &mut Worker) -> bool {
    let Worker { gate, cache, verifier, snapshot, clock, metrics } = worker;
    let Some(now) = clock.now() else { return closed() };
    // All of them at once: one host call, and a header sent twice is seen twice.
    let bytes = abi::headers(Map::RequestHeaders).unwrap_or_default();
    let Some(headers) = pairs::read(&bytes).filter(|headers| !headers.is_empty()) else { return closed() };
    let peer = if gate.asks_for_peer() { peer() } else { None };
    let request = Request { headers: &headers, peer, snapshot: snapshot.as_deref(), now };
    let verdict = gate.decide_with(&request, cache, verifier);
    metrics.decided(&verdict);
    for (name, value) in gate.filter_state(&verdict) {
        // A host without filter state decides all the same.
        let _ = abi::set_property(name, value.as_bytes());
    }
    if let Verdict::Refuse(refusal) = &verdict {
        let request_id = headers.iter().find(|(name, _)| *name == "x-request-id");
        return refuse(gate, refusal, request_id.map(|(_, value)| *value));
    }
    match gate.forward(&headers, &verdict, now) {
        Forward::AsTheyCame => true,
        Forward::Edited { removed, added } => edit(&removed, &added) || closed(),
        Forward::Instead(headers) => replace(Map::RequestHeaders, &headers),
    }
}

/// Whether the request goes on.
pub(crate) fn request_trailers(worker: &Worker) -> bool {
    let Ok(bytes) = abi::headers(Map::RequestTrailers) else { return closed() };
    let Some(trailers) = pairs::read(&bytes) else { return closed() };
    match worker.gate.forward_trailers(&trailers) {
        Some(kept) => replace(Map::RequestTrailers, &kept),
        None => true,
    }
}

/// The host does not say what the request carries, or does not do what it must before it may pass.
pub(crate) fn closed() -> bool {
    answer(503, "host_error", &[("cache-control", b"no-store")], b"")
}

/// Four to six calls, usually: some two microseconds less than one call that replaces all headers of a small request
/// (measured with Envoy 1.40), and more than that where there are many headers.
fn edit(removed: &[&str], added: &[Forwarded<'_>]) -> bool {
    removed.iter().all(|name| abi::remove_header(Map::RequestHeaders, name).is_ok())
        && added.iter().all(|(name, value)| abi::add_header(Map::RequestHeaders, name, value).is_ok())
}

/// One call replaces them all, so that nothing a client sent is left under a name of ours.
fn replace(map: Map, headers: &[Forwarded<'_>]) -> bool {
    let headers = headers.iter().map(|(name, value)| (*name, &**value));
    abi::set_headers(map, &pairs::write(headers)).is_ok() || closed()
}

fn refuse(gate: &Gate, refusal: &Refusal, request_id: Option<&[u8]>) -> bool {
    let response = gate.answer(refusal, request_id);
    let headers: Vec<_> = response.headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
    answer(response.status, refusal.reason().code(), &headers, response.body.as_bytes())
}

/// Never goes on: where the host does not answer, the request waits for its time-out.
fn answer(status: u16, code: &str, headers: &[(&str, &[u8])], body: &[u8]) -> bool {
    let headers = pairs::write(headers.iter().copied());
    let details = ["keystile_", code].concat();
    // A host that cannot answer has nothing better to be told.
    let _ = abi::send_response(status, &details, &headers, body);
    false
}

/// Whom Envoy takes for the client: the other end of the connection only with `use_remote_address`. None for one that
/// has no IP address.
fn peer() -> Option<IpAddr> {
    let address = abi::property("source\0address").ok()?;
    core::str::from_utf8(&address).ok()?.parse().ok().map(|address: SocketAddr| address.ip())
}
