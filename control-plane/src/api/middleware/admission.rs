//! Admission control: every client address has a request rate, and authenticated edges are exempt from it.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::http::{HeaderMap, Uri, header};
use token::secret::SecretHash;

use crate::{
    api::problem::Problem,
    config::Server,
    domain::EdgeId,
    edges::{self, AuthenticateEdgeError},
    platform::{rates::RateLimits, telemetry::Metrics},
    server::listener::{ClientNetwork, Connection},
    service::Service,
};

/// How many seconds' worth of requests a client may send in one burst.
const BURST_FACTOR: NonZeroU32 = NonZeroU32::new(10).unwrap();

/// The cost of a wrong AuthKey in requests, in addition to the one that every request costs.
const FAILED_SIGN_IN_COST: NonZeroU32 = NonZeroU32::new(9).unwrap();

/// How long a verified edge credential exempts its requests from the rate of their address.
const EDGE_CACHE_TTL: Duration = Duration::from_secs(600);

const MAX_KNOWN_EDGES: usize = 65_536;

/// The limits that apply to a request before it is processed.
#[derive(Debug)]
pub(in crate::api) struct RequestAdmission {
    rates: AddressRates,
    /// The requests from trusted proxies that are being processed.
    active: Arc<Mutex<ActiveRequests>>,
    max_active: usize,
    max_active_per_client: usize,
    edges: Mutex<KnownEdges>,
}

/// A rate for each client address. Addresses are unbounded in number, so they share a bounded number of buckets. The
/// hash is keyed, so a client cannot find out which addresses share its bucket.
#[derive(Debug)]
struct AddressRates {
    rates: RateLimits<u32>,
    hasher: RandomState,
}

impl AddressRates {
    fn new(rate: u32) -> Self {
        Self { rates: RateLimits::per_second(rate, BURST_FACTOR), hasher: RandomState::new() }
    }

    /// Returns the bucket of the client, one of 2^18.
    fn bucket_of(&self, client: ClientNetwork) -> u32 {
        let [a, b, c, ..] = self.hasher.hash_one(client).to_le_bytes();
        u32::from_le_bytes([a, b, c & 0x03, 0])
    }
}

/// Who sent an admitted request.
#[derive(Debug)]
pub(in crate::api) enum AdmittedClient {
    /// The request of an authenticated edge.
    Edge(EdgeId),
    /// The guard must live until the response is ready.
    Anonymous(Option<RequestGuard>),
}

#[derive(Debug, Default)]
struct ActiveRequests {
    by_client: HashMap<ClientNetwork, usize>,
    total: usize,
}

/// Counts one request as active until it is dropped.
#[derive(Debug)]
pub(in crate::api) struct RequestGuard {
    active: Arc<Mutex<ActiveRequests>>,
    client: ClientNetwork,
}

/// Hashes of edge credentials that were verified recently. A request with one of them is not charged to its address; a
/// request with any other credential is.
#[derive(Debug, Default)]
struct KnownEdges(HashMap<[u8; 32], Instant>);

impl RequestAdmission {
    pub(in crate::api) fn new(server: &Server) -> Self {
        let size = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        Self {
            rates: AddressRates::new(server.requests_per_second),
            active: Arc::default(),
            max_active: size(server.anonymous_connections),
            max_active_per_client: size(server.connections_per_address),
            edges: Mutex::default(),
        }
    }

    /// Admits a request, or refuses it if a limit of its client address is exceeded.
    ///
    /// # Errors
    ///
    /// A 429 for an exceeded limit, a 401 for an unknown edge credential, a 503 if the store is unavailable.
    pub(in crate::api) async fn admit(
        &self,
        service: &Service,
        connection: &Connection,
        client: ClientNetwork,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<AdmittedClient, Problem> {
        if connection.is_edge() && is_object_request(uri) {
            return Ok(AdmittedClient::Anonymous(None));
        }
        if let Some(credential) = find_edge_credential(uri, headers) {
            let hash = *SecretHash::digest(credential).as_bytes();
            if !connection.is_edge() && !self.edges().contains(&hash) {
                self.charge(service.metrics(), client)?;
            }
            match edges::authenticate_edge(service, credential).await {
                Ok(edge) => {
                    self.edges().insert(hash);
                    connection.set_edge(&edge);
                    return Ok(AdmittedClient::Edge(edge));
                }
                Err(error @ AuthenticateEdgeError::Refused) => {
                    self.edges().0.remove(&hash);
                    if !is_object_request(uri) {
                        return Err(edge_problem(error));
                    }
                }
                Err(error) => return Err(edge_problem(error)),
            }
        } else {
            self.charge(service.metrics(), client)?;
        }
        let guard =
            if connection.is_proxy() { Some(self.begin_request(service.metrics(), client)?) } else { None };
        Ok(AdmittedClient::Anonymous(guard))
    }

    /// Charges the address for a wrong AuthKey, in addition to the request itself. Attempts are not counted per AuthKey
    /// id: an id cannot be guessed, and a client that knows one could lock its owner out.
    pub(in crate::api) fn charge_refused_sign_in(&self, client: ClientNetwork) {
        self.rates.rates.charge(&self.rates.bucket_of(client), FAILED_SIGN_IN_COST);
    }

    fn charge(&self, metrics: &Metrics, client: ClientNetwork) -> Result<(), Problem> {
        self.rates.rates.check(&self.rates.bucket_of(client)).map_err(|wait| {
            rate_limit_problem(
                metrics,
                "address_rate_exceeded",
                "the request rate of this client address is exceeded",
                wait,
            )
        })
    }

    fn begin_request(&self, metrics: &Metrics, client: ClientNetwork) -> Result<RequestGuard, Problem> {
        let mut active = lock_mutex(&self.active);
        let by_this_client = active.by_client.get(&client).copied().unwrap_or(0);
        if active.total >= self.max_active || by_this_client >= self.max_active_per_client {
            let detail = "too many concurrent requests from this client address";
            return Err(rate_limit_problem(metrics, "address_requests_exceeded", detail, Duration::ZERO));
        }
        active.total += 1;
        active.by_client.insert(client, by_this_client + 1);
        Ok(RequestGuard { active: Arc::clone(&self.active), client })
    }

    fn edges(&self) -> MutexGuard<'_, KnownEdges> {
        lock_mutex(&self.edges)
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        let mut active = lock_mutex(&self.active);
        active.total -= 1;
        let left = active.by_client.get(&self.client).copied().unwrap_or(1) - 1;
        if left == 0 {
            active.by_client.remove(&self.client);
        } else {
            active.by_client.insert(self.client, left);
        }
    }
}

impl KnownEdges {
    fn contains(&self, hash: &[u8; 32]) -> bool {
        self.0.get(hash).is_some_and(|verified_at| verified_at.elapsed() < EDGE_CACHE_TTL)
    }

    fn insert(&mut self, hash: [u8; 32]) {
        if self.0.len() >= MAX_KNOWN_EDGES {
            self.0.retain(|_, verified_at| verified_at.elapsed() < EDGE_CACHE_TTL);
        }
        if self.0.len() < MAX_KNOWN_EDGES || self.0.contains_key(&hash) {
            self.0.insert(hash, Instant::now());
        }
    }
}

fn rate_limit_problem(metrics: &Metrics, code: &'static str, detail: &str, wait: Duration) -> Problem {
    metrics.count_limited(code);
    Problem::too_many(code, detail, wait)
}

/// Renders why an edge is not authenticated.
pub(in crate::api) fn edge_problem(error: AuthenticateEdgeError) -> Problem {
    let is_refused = matches!(error, AuthenticateEdgeError::Refused);
    let problem = Problem::from(error);
    match is_refused {
        true => problem.with_static_header(header::WWW_AUTHENTICATE, "Bearer realm=\"keystile-edge\""),
        false => problem,
    }
}

fn find_edge_credential<'a>(uri: &Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    let presented = headers.get(header::AUTHORIZATION).filter(|_| uri.path().starts_with("/edge/"))?;
    presented.to_str().ok()?.strip_prefix("Bearer ")
}

/// Returns true for paths of bundle objects, which need no credential.
fn is_object_request(uri: &Uri) -> bool {
    uri.path().starts_with("/edge/v1/objects/")
}

fn lock_mutex<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    #[test]
    fn address_rates_use_bounded_memory() {
        let rates = AddressRates::new(1);
        let buckets: std::collections::BTreeSet<u32> = (0..100_000)
            .map(|number| rates.bucket_of(ClientNetwork::from(IpAddr::from(Ipv4Addr::from_bits(number)))))
            .collect();
        assert!(buckets.iter().all(|bucket| *bucket < 1 << 18));
        assert!(buckets.len() > 75_000, "{} buckets", buckets.len());
    }
}
