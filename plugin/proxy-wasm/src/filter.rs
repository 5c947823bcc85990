//! One request.

use std::{
    net::{IpAddr, SocketAddr},
    rc::Rc,
};

use proxy_wasm::{
    traits::{Context, HttpContext},
    types::Action,
};
use verdict::{Reason, Verdict};

use crate::worker::Worker;

pub(crate) struct Filter {
    worker: Rc<Worker>,
}

impl Filter {
    pub(crate) fn new(worker: Rc<Worker>) -> Self {
        Self { worker }
    }

    /// The other end of the connection, as Envoy sees it. None for one that has no IP address.
    fn peer(&self) -> Option<IpAddr> {
        let address = self.get_property(Vec::from(["source", "address"]))?;
        core::str::from_utf8(&address).ok()?.parse().ok().map(|address: SocketAddr| address.ip())
    }

    /// One call replaces them all, so that nothing a client sent is left under a name of ours.
    fn forward(&self, headers: Vec<(String, Vec<u8>)>) -> Action {
        let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
        self.set_http_request_headers_bytes(headers);
        Action::Continue
    }

    fn refuse(&self, reason: Reason, request_id: Option<&[u8]>) -> Action {
        self.worker.metrics.refused(reason);
        let answer = self.worker.gate.answer(reason, request_id);
        let headers = answer.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        self.send_http_response(answer.status.into(), headers, Some(answer.body.as_bytes()));
        Action::Pause
    }
}

impl Context for Filter {}

impl HttpContext for Filter {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        // All of them at once: one host call, and a header sent twice is seen twice. The getters of the SDK that give
        // `String` panic on a value that is not UTF-8.
        let headers = self.get_http_request_headers_bytes();
        let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
        let worker = &self.worker;
        let peer = if worker.gate.asks_for_peer() { self.peer() } else { None };
        let verdict = worker.gate.decide_from(
            peer,
            headers.clone(),
            worker.snapshot.borrow().as_deref(),
            worker.now.get(),
        );
        match verdict {
            Verdict::Admit(admission) => {
                worker.metrics.admitted();
                self.forward(worker.gate.forward(headers, &admission))
            }
            Verdict::Pass(_) => {
                worker.metrics.passed();
                self.forward(worker.gate.forward_anonymous(headers))
            }
            Verdict::Refuse(reason) => {
                let request_id = headers.into_iter().find(|(name, _)| *name == "x-request-id");
                self.refuse(reason, request_id.map(|(_, value)| value))
            }
        }
    }

    fn on_http_request_trailers(&mut self, _: usize) -> Action {
        let trailers = self.get_http_request_trailers_bytes();
        let trailers = trailers.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
        if let Some(kept) = self.worker.gate.forward_trailers(trailers) {
            let kept = kept.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
            self.set_http_request_trailers_bytes(kept);
        }
        Action::Continue
    }
}
