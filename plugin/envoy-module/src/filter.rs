//! One HTTP stream: a request is admitted with edited headers, or answered.

use std::{
    cell::{Cell, OnceCell},
    sync::Arc,
};

use verdict::{Admitted, Decision, Forward, Gate, Reason, Request, Response, Stripping, is_grpc};

use crate::{
    abi::{HeaderMap, Stream, StreamId, WorkerThread},
    edit::HeaderEdit,
    log,
    route::Route,
    source::now_ms,
    verifier::NativeVerifier,
    worker::{Routing, StoredHeaders, Worker},
};

/// The namespace of dynamic metadata.
const METADATA: &str = "keystile";

/// Ends the stream whose hook is called. Other events check all streams of the worker.
pub(crate) const END_EVENT: u64 = 1;

/// What a hook does with its stream.
#[derive(Debug)]
pub(crate) enum Action {
    Continue,
    /// The stream has been answered already.
    Stop,
    Answer(LocalReply),
}

/// A response of the filter. `details` is for Envoy's access log.
#[derive(Debug)]
pub(crate) struct LocalReply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: String,
    pub(crate) details: String,
}

impl Action {
    /// Answers 503, because Envoy does not provide the headers of the request, or has not carried out a change that the
    /// request must not pass without.
    pub(crate) fn fail_closed() -> Self {
        Self::Answer(LocalReply {
            status: 503,
            headers: Vec::from([("cache-control", "no-store".to_owned())]),
            body: String::new(),
            details: "keystile_host_error".to_owned(),
        })
    }

    /// Adds the status of a gRPC call to an answer. Envoy 1.40 would answer each one with 0, which means success.
    fn for_grpc(mut self) -> Self {
        if let Self::Answer(LocalReply { status, headers, .. }) = &mut self {
            headers.push(("grpc-status", grpc_status(*status).to_owned()));
        }
        self
    }

    fn refuse(response: Response, reason: Reason, details_prefix: &str) -> Self {
        let Response { status, headers, body } = response;
        Self::Answer(LocalReply { status, headers, body, details: [details_prefix, reason.code()].concat() })
    }
}

#[derive(Debug)]
pub(crate) struct Filter {
    worker: Arc<Worker>,
    id: StreamId,
    /// The configuration of the route of the request.
    route: OnceCell<Arc<Route>>,
    state: Cell<State>,
    /// What is removed from the trailers.
    stripping: Cell<Stripping>,
    is_grpc: Cell<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Undecided,
    /// In the table of open streams, under this number.
    Open(u64),
    /// Answered, or complete.
    Done,
}

impl Filter {
    pub(crate) const fn new(worker: Arc<Worker>, id: StreamId) -> Self {
        let stripping = Cell::new(Stripping::Credentials(None));
        Self {
            worker,
            id,
            route: OnceCell::new(),
            state: Cell::new(State::Undecided),
            stripping,
            is_grpc: Cell::new(false),
        }
    }

    /// Completes the action of a hook.
    pub(crate) fn finish(&self, action: Action) -> Action {
        if self.is_grpc.get() { action.for_grpc() } else { action }
    }

    fn route(&self) -> Option<&Arc<Route>> {
        self.route.get()
    }

    /// Returns the gate of the route, or else of the configuration.
    fn gate(&self) -> &Gate {
        self.route().map_or_else(|| self.worker.gate(), |route| route.gate())
    }

    pub(crate) fn on_request_headers(&self, stream: &mut Stream<'_>) -> Action {
        match self.decide(stream) {
            Some(Action::Continue) => Action::Continue,
            other => {
                self.state.set(State::Done);
                other.unwrap_or_else(Action::fail_closed)
            }
        }
    }

    /// Returns `None` if the host does not do what the request needs.
    fn decide(&self, stream: &mut Stream<'_>) -> Option<Action> {
        let worker = &*self.worker;
        if let Some(route) = stream.route() {
            if !route.is_for(worker.gate()) {
                worker.log_foreign_route();
                return None;
            }
            let _ = self.route.set(route);
        }
        let gate = self.gate();
        let now = now_ms()?;
        let headers = stream.headers(HeaderMap::Request).filter(|headers| !headers.is_empty())?;
        self.is_grpc.set(is_grpc(&headers));
        #[cfg(feature = "panics")]
        crate::abi::panics::check_headers(&headers);
        let peer = if gate.needs_peer_address() { stream.peer_address().map(|peer| peer.ip()) } else { None };
        let snapshot = worker.snapshot();
        let request = Request { headers: &headers, peer, snapshot: snapshot.as_deref(), now };
        let verifier = NativeVerifier::default();
        let decision =
            worker.with_cache(self.route(), gate, |cache| gate.decide_with(&request, cache, &verifier));
        worker.counters.count_signatures(verifier.count());
        self.stripping.set(gate.trailer_stripping(&decision));
        worker.counters.count(&decision);
        for (name, value) in gate.filter_state(&decision) {
            set_state(stream, name, value);
        }
        if let Decision::Refuse(refusal) = &decision {
            // The signature is valid, so the claim is a question of the policy and the issuer, not of an attacker.
            if refusal.names_claim() && worker.allows_claim_log(now) {
                log::warn(&["a request is refused: ", &refusal.message()].concat());
            }
            return Some(Action::refuse(gate.response(refusal, &headers), refusal.reason(), "keystile_"));
        }
        let forward = gate.forward_headers(&headers, &decision, now);
        let selects_route = selects_route(worker.routing(), gate, &forward);
        let edit = HeaderEdit::new(&headers, &forward);
        let open = match &decision {
            Decision::Admit(_) => Some(StoredHeaders::encode(&headers)),
            Decision::Refuse(_) | Decision::Pass(_) => None,
        };
        drop(forward);
        if let Some(edit) = edit
            && !stream.edit(HeaderMap::Request, &edit)
        {
            return None;
        }
        if selects_route {
            stream.clear_route();
            // The request was decided by the policy of the previous route.
            let route = stream.route();
            if route.as_ref().map(Arc::as_ptr) != self.route().map(Arc::as_ptr) {
                worker.log_other_route();
                return None;
            }
        }
        if let (Decision::Admit(admission), Some(headers)) = (decision, open) {
            let (handle, identity) = (self.id, admission.into_identity());
            let version = snapshot.as_ref().map_or(0, |snapshot| snapshot.manifest().version());
            let admitted = Admitted { handle, identity, headers, peer, now };
            self.state.set(State::Open(worker.open(self.route(), admitted, version, &stream.thread())));
        }
        Some(Action::Continue)
    }

    pub(crate) fn on_request_trailers(&self, stream: &mut Stream<'_>) -> Action {
        if self.state.get() == State::Done {
            return Action::Stop;
        }
        let edit = stream.headers(HeaderMap::RequestTrailers).map(|trailers| {
            let kept = self.gate().forward_trailers(&trailers, self.stripping.get());
            kept.map(|kept| HeaderEdit::replacing(&trailers, &kept))
        });
        let is_done = match edit {
            Some(Some(edit)) => stream.edit(HeaderMap::RequestTrailers, &edit),
            Some(None) => true,
            None => false,
        };
        if is_done {
            return Action::Continue;
        }
        self.close(&stream.thread());
        Action::fail_closed()
    }

    /// Ends this stream, or checks the streams of the worker.
    pub(crate) fn on_scheduled(&self, stream: &mut Stream<'_>, event: u64) -> Action {
        if event != END_EVENT {
            self.worker.check(&stream.thread());
            return Action::Continue;
        }
        let State::Open(_) = self.state.get() else { return Action::Continue };
        let Some(ended) = self.worker.take_ended(self.id) else { return Action::Continue };
        self.close(&stream.thread());
        let reason = ended.refusal.reason();
        self.worker.counters.count_ended(reason);
        for (name, value) in ended.filter_state() {
            set_state(stream, name, value);
        }
        Action::refuse(ended.response(self.gate()), reason, "keystile_ended_")
    }

    /// Counts a panic, and refuses the request unless it has been answered.
    pub(crate) fn on_panic(&self, thread: &WorkerThread<'_>) -> Action {
        self.worker.on_panic();
        let is_answered = self.state.get() == State::Done;
        self.close(thread);
        if is_answered { Action::Stop } else { Action::fail_closed() }
    }

    /// Removes the stream from the table of open streams, which must not use it afterwards.
    pub(crate) fn close(&self, thread: &WorkerThread<'_>) {
        if let State::Open(number) = self.state.replace(State::Done) {
            self.worker.close(self.route(), number, self.id, thread);
        }
    }
}

/// Returns whether Envoy has to select the route again. A client must not select one by identity headers of its own.
fn selects_route(routing: Routing, gate: &Gate, forward: &Forward<'_>) -> bool {
    match (forward, routing) {
        (Forward::Unchanged, _) => false,
        (Forward::ReplaceAll(_), _) | (Forward::Edited { .. }, Routing::ByIdentity) => true,
        (Forward::Edited { removed, .. }, Routing::WithoutIdentity) => {
            removed.iter().any(|name| gate.is_identity_header(name))
        }
    }
}

/// Returns the status of gRPC for a status of HTTP, as Envoy and the specification of gRPC over HTTP/2 map them.
const fn grpc_status(status: u16) -> &'static str {
    match status {
        400 => "13",
        401 => "16",
        403 => "7",
        404 => "12",
        429 | 502 | 503 | 504 => "14",
        _ => "2",
    }
}

/// Sets an item in filter state, and in dynamic metadata without its prefix.
fn set_state(stream: &Stream<'_>, name: &str, value: &str) {
    stream.set_filter_state(name, value);
    let key = name.strip_prefix(METADATA).and_then(|rest| rest.strip_prefix('.')).unwrap_or(name);
    stream.set_metadata(METADATA, key, value);
}
