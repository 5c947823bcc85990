//! One request.

use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use verdict::{Cache, Forwarded, Refusal, Request, Unaided, Verdict};

use crate::{
    abi::{self, Map},
    pairs,
    worker::Worker,
};

/// Whether the request goes on.
pub(crate) fn request_headers(worker: &Worker) -> bool {
    let Some(now) = worker.now else { return closed() };
    // All of them at once: one host call, and a header sent twice is seen twice.
    let bytes = abi::headers(Map::RequestHeaders).unwrap_or_default();
    let Some(headers) = pairs::read(&bytes).filter(|headers| !headers.is_empty()) else { return closed() };
    let peer = if worker.gate.asks_for_peer() { peer() } else { None };
    let request = Request { headers: &headers, peer, snapshot: worker.snapshot.as_deref(), now };
    let verdict = worker.gate.decide_with(&request, &mut Cache::none(), &Unaided);
    match &verdict {
        Verdict::Admit(_) => worker.metrics.admitted(),
        Verdict::Pass(_) => worker.metrics.passed(),
        Verdict::Refuse(refusal) => {
            let request_id = headers.iter().find(|(name, _)| *name == "x-request-id");
            return refuse(worker, refusal, request_id.map(|(_, value)| *value));
        }
    }
    match worker.gate.forward(&headers, &verdict, now) {
        Some(headers) => replace(Map::RequestHeaders, &headers),
        None => true,
    }
}

/// Whether the request goes on.
pub(crate) fn request_trailers(worker: &Worker) -> bool {
    let bytes = abi::headers(Map::RequestTrailers).unwrap_or_default();
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

/// One call replaces them all, so that nothing a client sent is left under a name of ours.
fn replace(map: Map, headers: &[Forwarded<'_>]) -> bool {
    let headers = headers.iter().map(|(name, value)| (*name, &**value));
    abi::set_headers(map, &pairs::write(headers)).is_ok() || closed()
}

fn refuse(worker: &Worker, refusal: &Refusal, request_id: Option<&[u8]>) -> bool {
    let reason = refusal.reason();
    worker.metrics.refused(reason);
    let response = worker.gate.answer(refusal, request_id);
    let headers: Vec<_> = response.headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
    answer(response.status, reason.code(), &headers, response.body.as_bytes())
}

/// Never goes on: where the host does not answer, the request waits for its time-out.
fn answer(status: u16, code: &str, headers: &[(&str, &[u8])], body: &[u8]) -> bool {
    let headers = pairs::write(headers.iter().copied());
    let details = ["keystile_", code].concat();
    // A host that cannot answer has nothing better to be told.
    let _ = abi::send_response(status, &details, &headers, body);
    false
}

/// The other end of the connection, as Envoy sees it. None for one that has no IP address.
fn peer() -> Option<IpAddr> {
    let address = abi::property("source\0address").ok()?;
    core::str::from_utf8(&address).ok()?.parse().ok().map(|address: SocketAddr| address.ip())
}
