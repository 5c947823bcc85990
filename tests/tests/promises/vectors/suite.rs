//! Collects vectors: the decision and the code are given, and the library adds the rest.

use super::in_process::Edge;
use super::keys::{self, CLOCK_MS};
use harness::fake_control_plane::{ISSUER, TestSigner};
use harness::vectors::{Clock, Decision, FORMAT, Line, Policy, Request, Vector, Vectors};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The grace for bundles that are stale, in seconds: 100 years. Hosts with a real clock have stale bundles only.
const GRACE_SECONDS: u64 = 3_155_760_000;

/// The vectors so far.
pub(super) struct Suite {
    vectors: Vectors,
    edges: BTreeMap<String, Edge>,
    failures: Vec<String>,
}

/// The vectors of one policy.
pub(super) struct Group<'s> {
    suite: &'s mut Suite,
    policy: String,
}

impl Default for Suite {
    fn default() -> Self {
        let vectors = Vectors {
            format: FORMAT,
            clock_ms: CLOCK_MS,
            bundles: keys::bundles(),
            policies: BTreeMap::new(),
            vectors: Vec::new(),
        };
        Self { vectors, edges: BTreeMap::new(), failures: Vec::new() }
    }
}

impl Suite {
    /// Begins a group with the main bundle and these members of the configuration beside the usual ones.
    pub(super) fn group(&mut self, policy: &str, members: Value) -> Group<'_> {
        self.group_with_bundle(policy, Some("main"), members)
    }

    pub(super) fn group_with_bundle(
        &mut self,
        policy: &str,
        bundle: Option<&str>,
        members: Value,
    ) -> Group<'_> {
        let usual = json!({
            "audience": "default",
            "root_keys": [TestSigner::new(1).root.public_key().to_string()],
            "tokens": { "issuer": ISSUER, "audiences": ["api"] },
            "outage_grace_seconds": GRACE_SECONDS,
        });
        let configuration = keys::changed(usual, members);
        let added = Policy { bundle: bundle.map(Into::into), configuration };
        assert!(self.vectors.policies.insert(policy.into(), added).is_none(), "two policies {policy}");
        let edge = Edge::start(&self.vectors.configuration(policy).unwrap(), CLOCK_MS);
        self.edges.insert(policy.into(), edge);
        Group { suite: self, policy: policy.into() }
    }

    /// Returns the vectors, if all decisions are those that were given.
    pub(super) fn finish(self) -> Vectors {
        assert!(self.failures.is_empty(), "{}", self.failures.join("\n"));
        let names: BTreeSet<&str> = self.vectors.vectors.iter().map(|vector| vector.name.as_str()).collect();
        assert_eq!(names.len(), self.vectors.vectors.len(), "a name occurs twice");
        self.vectors
    }
}

impl Group<'_> {
    pub(super) fn admits(&mut self, name: &str, request: Request) {
        self.add(name, Decision::Admitted, None, (None, request));
    }

    pub(super) fn refuses(&mut self, name: &str, code: &str, request: Request) {
        self.add(name, Decision::Refused, Some(code), (None, request));
    }

    pub(super) fn passes(&mut self, name: &str, request: Request) {
        self.add(name, Decision::Passed, None, (None, request));
    }

    /// Adds a request that passes or is admitted with a report of `code`.
    pub(super) fn reports(&mut self, name: &str, decision: Decision, code: &str, request: Request) {
        self.add(name, decision, Some(code), (None, request));
    }

    /// Adds a request that is admitted at this time, in milliseconds since the Unix epoch.
    pub(super) fn admits_at(&mut self, time: u64, name: &str, request: Request) {
        self.add(name, Decision::Admitted, None, (Some(time), request));
    }

    pub(super) fn refuses_at(&mut self, time: u64, name: &str, code: &str, request: Request) {
        self.add(name, Decision::Refused, Some(code), (Some(time), request));
    }

    fn add(
        &mut self,
        name: &str,
        decision: Decision,
        code: Option<&str>,
        (time, request): (Option<u64>, Request),
    ) {
        let Self { suite, policy } = self;
        let name = format!("{policy}: {name}");
        let edge = suite.edges.get_mut(policy).unwrap();
        let expected = edge.outcome(&request, time.unwrap_or(CLOCK_MS));
        let found = (expected.decision, expected.reason.as_deref());
        if found != (decision, code) {
            suite.failures.push(format!("{name}: {found:?} instead of {:?}", (decision, code)));
        }
        suite.vectors.vectors.push(Vector {
            name,
            policy: policy.clone(),
            clock: time.map(|_| Clock::Injected),
            clock_ms: time.filter(|time| *time != CLOCK_MS),
            raw: request.is_raw(),
            request,
            expected,
        });
    }
}

/// Returns a request with a method and a path, such as `GET /orders`.
pub(super) fn request(line: &str) -> Request {
    let (method, path) = line.split_once(' ').unwrap();
    Request {
        method: method.into(),
        path: path.into(),
        authority: Some("api.example.com".into()),
        headers: Vec::new(),
        client_address: None,
    }
}

/// Returns `GET /orders` with the credential as a bearer token.
pub(super) fn bearer(credential: &str) -> Request {
    request("GET /orders").bearer(credential)
}

/// Adds to requests.
pub(super) trait With: Sized {
    fn with(self, name: &str, value: impl Into<String>) -> Self;
    fn to_host(self, authority: &str) -> Self;
    fn by_client(self, address: &str) -> Self;

    fn bearer(self, credential: &str) -> Self {
        self.with("authorization", format!("Bearer {credential}"))
    }
}

impl With for Request {
    fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push(Line::new(name, value));
        self
    }

    fn to_host(mut self, authority: &str) -> Self {
        self.authority = Some(authority.into());
        self
    }

    fn by_client(mut self, address: &str) -> Self {
        self.client_address = Some(address.into());
        self
    }
}
