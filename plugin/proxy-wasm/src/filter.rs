//! One HTTP stream: a request is admitted with edited headers, or answered.

use std::{
    mem,
    net::{IpAddr, SocketAddr},
    rc::Rc,
};

use proxy_wasm::{
    traits::{Context, HttpContext},
    types::{Action, MapType},
};
use verdict::{Admitted, Decision, Forward, ForwardedHeader, Reason, Request, Response, Stripping};

use crate::{
    header_map,
    hostcalls::{self, HostError, StreamEnd},
    log,
    worker::{Worker, WorkerCell},
};

pub(crate) struct HttpFilter {
    worker: Rc<WorkerCell>,
    state: State,
    /// What is removed from the trailers.
    stripping: Stripping,
}

/// Where the right to answer the request is.
enum State {
    Undecided(StreamEnd),
    /// In the table of open streams, under this number.
    Open(u64),
    /// Used up by a response.
    Answered,
}

impl HttpFilter {
    pub(crate) const fn new(worker: Rc<WorkerCell>, end: StreamEnd) -> Self {
        Self { worker, state: State::Undecided(end), stripping: Stripping::Credentials(None) }
    }

    /// Fails closed if the plugin context has been deleted or has no configuration, and if the host has interrupted
    /// another callback that uses the worker.
    fn with_worker(
        &mut self,
        decide: impl FnOnce(&mut Worker, &mut State, &mut Stripping) -> Action,
    ) -> Action {
        match self.worker.try_borrow_mut().as_deref_mut() {
            Ok(Some(worker)) => decide(worker, &mut self.state, &mut self.stripping),
            Ok(None) | Err(_) => fail_closed(&mut self.state),
        }
    }
}

impl Context for HttpFilter {}

impl HttpContext for HttpFilter {
    fn on_http_request_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        self.with_worker(decide_headers)
    }

    fn on_http_request_trailers(&mut self, _count: usize) -> Action {
        self.with_worker(filter_trailers)
    }
}

/// The SDK drops the filter when the host deletes the context of the stream.
impl Drop for HttpFilter {
    fn drop(&mut self) {
        let State::Open(number) = self.state else { return };
        if let Ok(Some(Worker { open_streams: Some(open_streams), .. })) =
            self.worker.try_borrow_mut().as_deref_mut()
        {
            open_streams.forget(number);
        }
    }
}

fn decide_headers(worker: &mut Worker, state: &mut State, stripping: &mut Stripping) -> Action {
    let Worker { gate, cache, verifier, snapshot, clock, metrics, claim_log, open_streams } = worker;
    let Some(now) = clock.now() else { return fail_closed(state) };
    // One host call for all headers. A header that was sent twice is in the map twice.
    let bytes = hostcalls::header_map(MapType::HttpRequestHeaders).unwrap_or_default();
    let Some(headers) = header_map::decode(&bytes).filter(|headers| !headers.is_empty()) else {
        return fail_closed(state);
    };
    let peer = if gate.needs_peer_address() { peer_address() } else { None };
    let request = Request { headers: &headers, peer, snapshot: snapshot.as_deref(), now };
    let decision = gate.decide_with(&request, cache, verifier);
    *stripping = gate.trailer_stripping(&decision);
    metrics.count(&decision);
    for (name, value) in gate.filter_state(&decision) {
        // Filter state is for the access log and other filters of the host. The decision does not depend on it.
        let _ = hostcalls::set_property(name, value.as_bytes());
    }
    if let Decision::Refuse(refusal) = &decision {
        // The signature is valid, so the claim is a question of the policy and the issuer, not of an attacker.
        if refusal.names_claim() && claim_log.allow(now) {
            log::warn(&["a request is refused: ", &refusal.message()].concat());
        }
        return refuse(state, &gate.response(refusal, &headers), refusal.reason());
    }
    let is_done = match gate.forward_headers(&headers, &decision, now) {
        Forward::Unchanged => true,
        Forward::Edited { removed, added } => edit_headers(&removed, &added),
        Forward::ReplaceAll(headers) => replace_map(MapType::HttpRequestHeaders, &headers),
    };
    if !is_done {
        return fail_closed(state);
    }
    if let Decision::Admit(admission) = decision
        && let Some(open_streams) = open_streams
        && let State::Undecided(handle) = mem::replace(state, State::Answered)
    {
        let identity = admission.into_identity();
        // The headers contain the credential: `OpenStreams` keeps them only until the stream is checked.
        *state = State::Open(open_streams.add(Admitted { handle, identity, headers: bytes, peer, now }));
    }
    Action::Continue
}

fn filter_trailers(worker: &mut Worker, state: &mut State, stripping: &mut Stripping) -> Action {
    let filter = || {
        let bytes = hostcalls::header_map(MapType::HttpRequestTrailers).ok()?;
        let trailers = header_map::decode(&bytes)?;
        let kept = worker.gate.forward_trailers(&trailers, *stripping);
        kept.is_none_or(|kept| replace_map(MapType::HttpRequestTrailers, &kept)).then_some(())
    };
    if filter().is_some() {
        return Action::Continue;
    }
    if let (State::Open(number), Some(open_streams)) = (&*state, &mut worker.open_streams) {
        *state = open_streams.remove(*number).map_or(State::Answered, State::Undecided);
    }
    fail_closed(state)
}

/// Answers 503, because the host does not provide the headers of the request, or has not carried out a change that
/// the request must not pass without.
fn fail_closed(state: &mut State) -> Action {
    let headers: [(&str, &[u8]); 1] = [("cache-control", b"no-store")];
    let headers = header_map::encode(headers.into_iter());
    let send = |end| hostcalls::send_local_response(end, 503, "keystile_host_error", &headers, b"");
    respond(state, send)
}

/// Returns false if the host has not done all of it. Makes a host call per header, usually four to six. For a small
/// request this takes about two microseconds less than one call that replaces all headers (measured with Envoy 1.40),
/// and more than that for a request with many headers.
fn edit_headers(removed: &[&str], added: &[ForwardedHeader<'_>]) -> bool {
    const MAP: MapType = MapType::HttpRequestHeaders;
    removed.iter().all(|name| hostcalls::remove_header(MAP, name).is_ok())
        && added.iter().all(|(name, value)| hostcalls::add_header(MAP, name, value).is_ok())
}

/// Replaces the whole map in one host call, so that nothing remains that the client sent under a reserved name. Returns
/// false if the host has not done so.
fn replace_map(map: MapType, headers: &[ForwardedHeader<'_>]) -> bool {
    let headers = headers.iter().map(|(name, value)| (*name, &**value));
    hostcalls::set_header_map(map, &header_map::encode(headers)).is_ok()
}

fn refuse(state: &mut State, response: &Response, reason: Reason) -> Action {
    respond(state, |end| send_response(end, response, reason, "keystile_"))
}

/// Sends the response to a refusal in the effective context, which must be that of the stream, or resets the stream if its
/// response has begun. The access log gets `details_prefix` and the code of the refusal. An error returns the right to end
/// the stream for another attempt.
pub(crate) fn send_response(
    end: StreamEnd,
    response: &Response,
    reason: Reason,
    details_prefix: &str,
) -> Result<(), (StreamEnd, HostError)> {
    let headers = response.headers.iter().map(|(name, value)| (*name, value.as_bytes()));
    let details = [details_prefix, reason.code()].concat();
    let (headers, body) = (header_map::encode(headers), response.body.as_bytes());
    hostcalls::send_local_response(end, response.status, &details, &headers, body)
}

/// Never lets the request continue: if the host does not send the response, or the request has been answered already,
/// the request waits for its timeout.
fn respond(state: &mut State, send: impl FnOnce(StreamEnd) -> Result<(), (StreamEnd, HostError)>) -> Action {
    if matches!(state, State::Undecided(_))
        && let State::Undecided(end) = mem::replace(state, State::Answered)
    {
        let _ = send(end);
    }
    Action::Pause
}

/// Returns the address that the host takes for the client's. Envoy takes the other end of the connection only with
/// `use_remote_address`. Returns `None` if it is not an IP address.
fn peer_address() -> Option<IpAddr> {
    let address = hostcalls::property("source\0address").ok()?;
    str::from_utf8(&address).ok()?.parse().ok().map(|address: SocketAddr| address.ip())
}
