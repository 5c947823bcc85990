//! The core of the JavaScript package: `verdict` behind wasm-bindgen.
//!
//! Nothing here reads a clock, makes a request or needs randomness: JavaScript passes the time, the responses and a seed,
//! and gets back what to do. All results are JSON, which takes less time to pass than an object of many members.
//!
//! A panic is a trap: the package then discards the instance, refuses the request, and starts another instance.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use verdict::{
    BareCredential, Cache, Decision, Environment, FetchStep, Fingerprint, Gate, InlineBundle, LogLine,
    Policy, Refresh, Request, StalenessWatch,
};
use wasm_bindgen::{JsValue, prelude::wasm_bindgen};

mod head;
mod outcome;
mod requests;
mod signatures;

use head::Head;
use outcome::{Edit, IdentityView, Outcome, RefusalView, StatusView, StepView};
use requests::{InFlight, RequestView};
use signatures::{HostSignatures, Questions};

/// A gate with its bundle.
#[wasm_bindgen]
#[derive(Debug)]
pub struct Core {
    gate: Gate,
    cache: Cache,
    refresh: Refresh,
    inline: Option<InlineBundle>,
    in_flight: InFlight,
    freshness: StalenessWatch,
    /// Whether JavaScript verifies signatures.
    offloads_signatures: bool,
    questions: Questions,
}

#[wasm_bindgen]
impl Core {
    /// Parses a policy. `environment` is a block of `NAME=value` entries, each terminated by a zero byte. The control
    /// plane may hold a request for `wait_seconds`, but for no longer than the policy permits.
    ///
    /// # Errors
    ///
    /// Returns the path in the policy and what is wrong with it, never a value.
    #[wasm_bindgen(constructor)]
    pub fn new(
        policy: &str,
        environment: &str,
        wait_seconds: u32,
        offloads_signatures: bool,
    ) -> Result<Self, JsValue> {
        let environment = Environment::from_block(environment.as_bytes().to_vec());
        let mut policy = Policy::from_json_with_env(policy.as_bytes(), &environment)
            .map_err(|error| error_text(&format!("invalid policy at {error}")))?;
        let inline = policy.take_bundle();
        let configured = policy.take_control_plane().map_or(0, |control_plane| control_plane.wait_seconds);
        let refresh = Refresh::new(
            policy.root_keys.clone(),
            policy.audience.clone(),
            configured.min(wait_seconds.into()),
            policy.max_manifest_lifetime_seconds,
            policy.minimum_position(),
        );
        Ok(Self {
            gate: Gate::new(policy),
            cache: Cache::disabled(),
            refresh,
            inline,
            in_flight: InFlight::default(),
            freshness: StalenessWatch::default(),
            offloads_signatures,
            questions: Questions::default(),
        })
    }

    /// Creates the cache of authenticated credentials. `seed` must be unpredictable for clients.
    pub fn seed(&mut self, seed: &[u8]) {
        self.cache = Cache::new(self.gate.policy().cache_entries, seed);
    }

    /// Decides about a request. `head` has `count` headers as lines, see [`Head`]. `peer` is the address of the client, or
    /// empty. `now` is in milliseconds since the Unix epoch. `question` is the number of the signature that a previous call
    /// asked for, and `answer` whether it is valid; 0 the first time.
    pub fn decide(
        &mut self,
        head: &str,
        count: usize,
        peer: &str,
        now: f64,
        question: u32,
        answer: Option<bool>,
    ) -> String {
        let now = milliseconds(now);
        let Some(head) = Head::parse(head, count) else { return Outcome::HostError.to_json() };
        let headers = head.headers();
        let request = Request {
            headers: &headers,
            peer: peer.parse().ok(),
            snapshot: self.refresh.current().map(|current| &**current),
            now,
        };
        let question = self.questions.take(question);
        let answer = question.as_ref().map(|question| (question, answer));
        let verifier = HostSignatures::new(self.offloads_signatures, answer);
        let decision = self.gate.decide_with(&request, &mut self.cache, &verifier);
        if let Some(question) = verifier.into_question() {
            return Outcome::Signature(self.questions.add(question)).to_json();
        }
        if let Decision::Refuse(refusal) = &decision {
            let response = self.gate.response(refusal, &headers);
            return Outcome::Refuse(RefusalView::new(refusal, &response)).to_json();
        }
        let edit = Edit::from(self.gate.forward_headers(&headers, &decision, now));
        Outcome::of_forwarded(&decision, edit).to_json()
    }

    /// Verifies a credential without a request. `username` and `paired` may be empty; the other arguments are those of
    /// [`Self::decide`].
    pub fn verify(
        &mut self,
        credential: &str,
        username: &str,
        paired: &str,
        now: f64,
        question: u32,
        answer: Option<bool>,
    ) -> String {
        let bare = BareCredential {
            credential: credential.as_bytes(),
            username: username.as_bytes(),
            paired: paired.as_bytes(),
        };
        let question = self.questions.take(question);
        let answer = question.as_ref().map(|question| (question, answer));
        let verifier = HostSignatures::new(self.offloads_signatures, answer);
        let snapshot = self.refresh.current().map(|current| &**current);
        let verified = self.gate.verify(bare, snapshot, milliseconds(now), &mut self.cache, &verifier);
        if let Some(question) = verifier.into_question() {
            return Outcome::Signature(self.questions.add(question)).to_json();
        }
        match &verified {
            Ok(identity) => {
                let (identity, edit) = (IdentityView::from(&**identity), Edit::Unchanged {});
                Outcome::Admit { identity, code: None, is_stale: false, edit }.to_json()
            }
            Err(refusal) => {
                let response = self.gate.refusal_response(refusal, None);
                Outcome::Refuse(RefusalView::new(refusal, &response)).to_json()
            }
        }
    }

    /// Returns what the last decision asked to verify: the `SubjectPublicKeyInfo`, the signature and the message, each
    /// with its length in front as 32 bits, big-endian.
    pub fn last_question(&self) -> Vec<u8> {
        self.questions.last_parts()
    }

    /// Returns the credential of a request, if it has this fingerprint in hexadecimal.
    pub fn credential(&self, head: &str, count: usize, fingerprint: &str) -> Option<String> {
        let head = Head::parse(head, count)?;
        let snapshot = self.refresh.current().map(|current| &**current);
        let request = Request { headers: &head.headers(), peer: None, snapshot, now: 0 };
        let credential = self.gate.presented_credential(&request)?;
        let matches = String::from(Fingerprint::digest(&credential)) == fingerprint;
        matches.then(|| String::from_utf8(credential.into_owned()).ok())?
    }

    /// Returns the next request to the control plane, if any is due, as JSON.
    pub fn poll(&mut self, now: f64) -> Option<String> {
        let request = self.refresh.poll(milliseconds(now))?;
        let number = self.in_flight.insert(request);
        Some(outcome::to_json(&RequestView::new(number, &request)))
    }

    /// Handles the response to a request. `status` 0 means that there was none. `random` is the jitter of the retry delay,
    /// from 0 to 1.
    pub fn respond(&mut self, number: u32, status: u16, body: Vec<u8>, now: f64, random: f64) -> String {
        let Some(request) = self.in_flight.remove(number) else { return StepView::Pending.to_json() };
        let random = milliseconds(random * f64::from(u32::MAX));
        match self.refresh.handle_response(request, status, body, milliseconds(now), random) {
            Ok(FetchStep::Pending) => StepView::Pending.to_json(),
            Ok(FetchStep::Share(_)) => StepView::Stored.to_json(),
            Ok(FetchStep::Ready(_)) => StepView::Ready.to_json(),
            Err(failure) => StepView::failed(failure.code(), &failure.to_string()).to_json(),
        }
    }

    /// Forgets the requests in flight, because the request in which they were made has ended.
    pub fn abort(&mut self) {
        self.in_flight.clear();
        self.refresh.abort();
    }

    /// Loads a bundle: the manifest, then its objects, each with its length in front as 32 bits, big-endian.
    ///
    /// # Errors
    ///
    /// Returns why the bundle is refused. The current one stays in use.
    pub fn load(&mut self, bundle: &[u8], now: f64) -> Result<(), JsValue> {
        let bundle = InlineBundle::from_bytes(bundle).ok_or_else(|| error_text("the bundle is malformed"))?;
        self.load_inline(&bundle, now)
    }

    /// Loads the bundle of the policy. Returns false if it has none.
    ///
    /// # Errors
    ///
    /// Returns why the bundle is refused.
    pub fn load_policy_bundle(&mut self, now: f64) -> Result<bool, JsValue> {
        let Some(bundle) = self.inline.take() else { return Ok(false) };
        self.load_inline(&bundle, now).map(|()| true)
    }

    /// Returns the bytes of the current manifest.
    pub fn manifest(&self) -> Option<Vec<u8>> {
        self.refresh.current().map(|current| current.manifest().bytes().to_vec())
    }

    /// Returns the SHA-256 of each object that is in use, in hexadecimal, one after the other.
    pub fn objects(&self) -> String {
        self.refresh.objects().map(|entry| String::from(Fingerprint::from(*entry.sha256()))).collect()
    }

    /// Returns the version and the times of the bundle, as JSON.
    pub fn status(&self) -> String {
        outcome::to_json(&StatusView::of(self.refresh.current().map(|current| &**current)))
    }

    /// Returns the lines to log about the freshness of the bundle, as a JSON array of (level, text).
    pub fn freshness_log(&mut self, now: f64) -> String {
        let Some(current) = self.refresh.current() else { return String::from("[]") };
        let lines = self.freshness.observe(&self.gate, current, milliseconds(now));
        let lines: Vec<_> = lines
            .into_iter()
            .map(|line| match line {
                LogLine::Info(text) => ("info", text),
                LogLine::Warning(text) => ("warn", text),
                LogLine::Error(text) => ("error", text),
            })
            .collect();
        outcome::to_json(&lines)
    }

    /// Returns one of the issuers whose tokens named keys that the bundle lacks: its SHA-256 in hexadecimal.
    pub fn take_issuer_with_missing_key(&mut self) -> Option<String> {
        let issuer = self.gate.take_issuer_with_missing_key(&mut self.cache)?;
        Some(String::from(Fingerprint::digest(issuer.as_bytes())))
    }
}

impl Core {
    fn load_inline(&mut self, bundle: &InlineBundle, now: f64) -> Result<(), JsValue> {
        let loaded = self.refresh.load_inline(bundle, milliseconds(now));
        loaded.map_err(|failure| error_text(&format!("{failure} ({})", failure.code())))
    }
}

/// Returns the SHA-256 in hexadecimal.
#[wasm_bindgen]
pub fn sha256(bytes: &[u8]) -> String {
    Fingerprint::digest(bytes).into()
}

/// Encodes bytes in base64url without padding.
#[wasm_bindgen]
pub fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Decodes base64url without padding. Returns `undefined` if it is malformed.
#[wasm_bindgen]
pub fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

fn error_text(text: &str) -> JsValue {
    JsValue::from_str(text)
}

/// Converts a number of JavaScript. Negative ones become 0.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the conversion saturates, and JavaScript's times have no fraction that matters"
)]
const fn milliseconds(number: f64) -> u64 {
    number as u64
}
