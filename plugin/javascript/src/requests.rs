//! Requests to the control plane.

use std::collections::BTreeMap;

use serde::Serialize;
use verdict::{FetchRequest, Fingerprint};

/// The requests in flight, by their numbers.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    requests: BTreeMap<u32, FetchRequest>,
    last: u32,
}

impl InFlight {
    pub(crate) fn insert(&mut self, request: FetchRequest) -> u32 {
        self.last = self.last.wrapping_add(1);
        self.requests.insert(self.last, request);
        self.last
    }

    /// Returns `None` if the request was forgotten meanwhile.
    pub(crate) fn remove(&mut self, number: u32) -> Option<FetchRequest> {
        self.requests.remove(&number)
    }

    /// Forgets all requests. Their numbers are not used again.
    pub(crate) fn clear(&mut self) {
        self.requests.clear();
    }
}

/// A request as JavaScript gets it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RequestView {
    number: u32,
    path: String,
    etag: Option<String>,
    wait_seconds: u64,
    max_bytes: usize,
    /// The SHA-256 of the object.
    object: Option<String>,
    /// Whether any cache may store the response.
    is_public: bool,
}

impl RequestView {
    pub(crate) fn new(number: u32, request: &FetchRequest) -> Self {
        let object = match request {
            FetchRequest::Object(entry) => Some(Fingerprint::from(*entry.sha256()).into()),
            FetchRequest::Manifest { .. } => None,
        };
        let path = request.path();
        Self {
            number,
            etag: request.etag(),
            wait_seconds: request.wait_seconds(),
            max_bytes: request.max_bytes(),
            is_public: path.starts_with("/edge/v1/objects/"),
            path,
            object,
        }
    }
}
