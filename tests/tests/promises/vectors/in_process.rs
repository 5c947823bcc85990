//! An edge without a host: the library decides.

use harness::vectors::{self, Expected, Forwarded, Line, Response};
use serde_json::Value;
use std::sync::Arc;
use verdict::{Cache, Decision, Forward, Gate, Policy, Request, Snapshot, SoftwareVerifier};

pub(super) struct Edge {
    gate: Gate,
    snapshot: Option<Arc<Snapshot>>,
    cache: Cache,
}

impl Edge {
    /// Configures the edge. `now` is in milliseconds since the Unix epoch.
    pub(super) fn start(configuration: &Value, now: u64) -> Self {
        let text = configuration.to_string();
        let mut policy =
            Policy::from_json(text.as_bytes()).unwrap_or_else(|error| panic!("{error}: {configuration:#}"));
        let snapshot = policy.take_bundle().map(|inline| policy.open_bundle(&inline, now).unwrap());
        let cache = Cache::new(policy.cache_entries, b"vectors");
        Self { gate: Gate::new(policy), snapshot, cache }
    }

    pub(super) fn outcome(&mut self, request: &vectors::Request, now: u64) -> Expected {
        let headers = request.to_pairs();
        let peer = request.client_address.as_ref().map(|address| address.parse().unwrap());
        let snapshot = self.snapshot.as_deref();
        let asked = Request { headers: &headers, peer, snapshot, now };
        let decision = self.gate.decide_with(&asked, &mut self.cache, &SoftwareVerifier);
        let reason = decision.reason().map(|reason| reason.code().to_owned());
        let kind = match &decision {
            Decision::Admit(_) => vectors::Decision::Admitted,
            Decision::Refuse(_) => vectors::Decision::Refused,
            Decision::Pass(_) => vectors::Decision::Passed,
        };
        let mut expected = Expected { decision: kind, reason, response: None, forwarded: None };
        if let Decision::Refuse(refusal) = &decision {
            let verdict::Response { status, headers, body } = self.gate.response(refusal, &headers);
            let headers = headers.into_iter().map(|(name, value)| Line::new(name, value)).collect();
            expected.response = Some(Response { status, headers, body });
        } else {
            expected.forwarded = Some(self.forwarded(&headers, &decision, now));
        }
        expected
    }

    /// Applies the changes of the headers like a host.
    fn forwarded(&self, headers: &[(&str, &[u8])], decision: &Decision, now: u64) -> Forwarded {
        let line = |name: &str, value: &[u8]| Line::new(name, std::str::from_utf8(value).unwrap());
        let mut lines: Vec<Line> = headers.iter().map(|(name, value)| line(name, value)).collect();
        match self.gate.forward_headers(headers, decision, now) {
            Forward::Unchanged => {}
            Forward::Edited { removed, added } => {
                lines.retain(|line| !removed.iter().any(|name| line.name.eq_ignore_ascii_case(name)));
                lines.extend(added.iter().map(|(name, value)| line(name, value)));
            }
            Forward::ReplaceAll(all) => lines = all.iter().map(|(name, value)| line(name, value)).collect(),
        }
        let (pseudo, headers): (Vec<Line>, Vec<Line>) =
            lines.into_iter().partition(|line| line.name.starts_with(':'));
        let path = pseudo.into_iter().find(|line| line.name == ":path").unwrap().value;
        Forwarded { path, headers }
    }
}
