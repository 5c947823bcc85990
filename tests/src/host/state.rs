use super::{Pairs, Queues};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::rc::Rc;

/// The state of the host: the input of the filter, and its effects.
#[derive(Default)]
pub struct HostState {
    /// The plugin configuration.
    pub configuration: Vec<u8>,
    /// `NAME=value` entries, each ended by a zero byte.
    pub environment: Vec<u8>,
    /// The time in nanoseconds since the Unix epoch.
    pub now: u64,
    pub shared: Shared,
    /// The thread of the VM, which a VM that replaces it has too. 0 before the first VM.
    pub(super) thread: u32,
    pub faults: Faults,
    /// How the host next enters the VM during a callback.
    pub interruption: Option<Interruption>,
    /// The return value of the interrupting callback; `None` if it has none.
    pub interrupted: Option<u32>,
    pub request_headers: Pairs,
    pub request_trailers: Pairs,
    /// The filter's own response to the current request.
    pub response: Option<LocalResponse>,
    /// The contexts that exist.
    pub contexts: BTreeSet<u32>,
    /// The context that calls apply to.
    pub effective_context: u32,
    /// The successful calls that answer or reset a stream, each with the context that it applied to.
    pub closing_actions: Vec<(u32, LocalResponse)>,
    /// The HTTP calls without a response yet.
    pub http_calls: Vec<HttpCall>,
    pub(super) call_response: (Pairs, Vec<u8>),
    /// Properties by path, its parts joined by dots.
    pub properties: BTreeMap<String, Vec<u8>>,
    /// Foreign functions by name. Each returns the result or a status.
    pub functions: BTreeMap<String, Function>,
    pub metrics: Vec<(String, i64)>,
    pub log: Vec<String>,
    pub tick_period_ms: Option<u32>,
    /// The number of uses of each call.
    pub counts: BTreeMap<&'static str, u32>,
    /// The ID of the last HTTP call.
    pub last_call_id: u32,
    /// The ID of every HTTP call, instead of the next one.
    pub fixed_call_id: Option<u32>,
}

pub(super) type Function = Box<dyn FnMut(&[u8]) -> Result<Vec<u8>, u32>>;

/// The shared data and the shared queues of a process. Hosts that share them are its workers.
#[derive(Debug, Clone, Default)]
pub struct Shared {
    pub(super) values: Rc<RefCell<Values>>,
    pub queues: Rc<RefCell<Queues>>,
}

/// Each with its version.
type Values = BTreeMap<Vec<u8>, (Vec<u8>, u32)>;

impl Shared {
    /// Replaces every value whose key has this suffix, as another filter of the process can do.
    pub fn overwrite(&self, end: &str, value: &[u8]) {
        for (key, (held, version)) in self.values.borrow_mut().iter_mut() {
            if key.ends_with(end.as_bytes()) {
                *held = value.to_vec();
                *version += 1;
            }
        }
    }
}

/// Decides which calls fail, and with what status.
#[derive(Default)]
pub struct Faults(pub Option<Box<dyn FnMut(&'static str) -> Option<u32>>>);

impl Faults {
    pub fn of(fault: impl FnMut(&'static str) -> Option<u32> + 'static) -> Self {
        Self(Some(Box::new(fault)))
    }
}

/// A callback that the host runs during a call of the filter. No known host does this.
#[derive(Debug, Clone)]
pub struct Interruption {
    /// The name of the call, such as `proxy_get_header_map_pairs`.
    pub call: &'static str,
    pub callback: &'static str,
    pub arguments: Vec<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalResponse {
    pub status: u32,
    pub details: String,
    pub headers: Pairs,
    pub body: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpCall {
    pub token: u32,
    pub upstream: String,
    pub headers: Pairs,
    pub timeout_ms: u32,
}

impl HostState {
    /// Returns a proxy that supports every call.
    pub fn new(configuration: impl ToString, now_ms: u64) -> Self {
        Self {
            configuration: configuration.to_string().into_bytes(),
            now: now_ms * 1_000_000,
            ..Self::default()
        }
    }

    /// Returns one of the filter's metrics, or 0 if it does not exist yet.
    pub fn metric(&self, name: &str) -> i64 {
        self.metrics.iter().filter(|(known, _)| known == name).map(|(_, value)| value).sum()
    }
}

impl fmt::Debug for HostState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("log", &self.log).field("counts", &self.counts).finish_non_exhaustive()
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Faults" } else { "None" })
    }
}

pub(super) const OK: u32 = 0;
pub(super) const NOT_FOUND: u32 = 1;
pub(super) const BAD_ARGUMENT: u32 = 2;
pub(super) const EMPTY: u32 = 7;
pub(super) const MISMATCH: u32 = 8;

/// The status of a call that the host does not support.
pub const UNIMPLEMENTED: u32 = 12;
