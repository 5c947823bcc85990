//! Which requests are worked on at all: each address has a rate, and edges are exempt from it.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::http::{HeaderMap, Uri, header};
use token::secret::SecretHash;

use super::{Desk, problem::Problem};
use crate::{
    config::Server,
    listener::{ClientNetwork, Connection},
    model::EdgeId,
    operations::{self, AuthenticateEdgeError},
    rates::Rates,
};

#[derive(Debug)]
pub(super) struct Admission {
    rates: AddressRates,
    /// Requests that came through trusted proxies and are being worked on.
    working: Arc<Mutex<Working>>,
    at_once: usize,
    at_once_of_one: usize,
    edges: Mutex<KnownEdges>,
}

/// There may be any number of addresses, so they share a bounded number of places; which do, nobody can tell.
#[derive(Debug)]
struct AddressRates {
    rates: Rates<u32>,
    hasher: RandomState,
}

impl AddressRates {
    fn new(rate: u32) -> Self {
        Self { rates: Rates::per_second(rate, BURST), hasher: RandomState::new() }
    }

    fn place(&self, client: ClientNetwork) -> u32 {
        let [a, b, c, ..] = self.hasher.hash_one(client).to_le_bytes();
        u32::from_le_bytes([a, b, c & 0x03, 0])
    }
}

#[derive(Debug)]
pub(super) enum Admitted {
    Edge(EdgeId),
    /// To be held until the answer is there.
    Anonymous(Option<Work>),
}

#[derive(Debug, Default)]
struct Working {
    by_client: HashMap<ClientNetwork, usize>,
    all: usize,
}

/// A request that is being worked on.
#[derive(Debug)]
pub(super) struct Work {
    working: Arc<Mutex<Working>>,
    client: ClientNetwork,
}

/// Credentials that were found good lately, as hashes: who shows one is looked up whatever its address has done. What
/// is unknown costs its address a request.
#[derive(Debug, Default)]
struct KnownEdges(HashMap<[u8; 32], Instant>);

impl Admission {
    pub(super) fn new(server: &Server) -> Self {
        let size = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        Self {
            rates: AddressRates::new(server.requests_per_second),
            working: Arc::default(),
            at_once: size(server.anonymous_connections),
            at_once_of_one: size(server.connections_per_address),
            edges: Mutex::default(),
        }
    }

    pub(super) async fn admit(
        &self,
        desk: &Desk,
        connection: &Connection,
        client: ClientNetwork,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<Admitted, Problem> {
        if connection.is_edge() && is_object(uri) {
            return Ok(Admitted::Anonymous(None));
        }
        if let Some(credential) = edge_credential(uri, headers) {
            let hash = *SecretHash::of(credential).as_bytes();
            if !connection.is_edge() && !self.edges().knows(&hash) {
                self.take(desk, client)?;
            }
            match operations::authenticate_edge(&desk.service, credential).await {
                Ok(edge) => {
                    self.edges().remember(hash);
                    connection.authenticated(&edge);
                    return Ok(Admitted::Edge(edge));
                }
                Err(error @ AuthenticateEdgeError::Refused) => {
                    self.edges().0.remove(&hash);
                    if !is_object(uri) {
                        return Err(error.into());
                    }
                }
                Err(error) => return Err(error.into()),
            }
        } else {
            self.take(desk, client)?;
        }
        let work = if connection.is_proxy() { Some(self.work(desk, client)?) } else { None };
        Ok(Admitted::Anonymous(work))
    }

    /// A wrong AuthKey costs its address more than a request. Nothing is counted by the id of the AuthKey: it can't be
    /// guessed, and whoever knows an id could keep its owner out.
    pub(super) fn sign_in_refused(&self, client: ClientNetwork) {
        self.rates.rates.take_more(&self.rates.place(client), FAILED_SIGN_IN);
    }

    fn take(&self, desk: &Desk, client: ClientNetwork) -> Result<(), Problem> {
        self.rates.rates.take(&self.rates.place(client)).map_err(|wait| {
            too_many(desk, "address_rate_exceeded", "too many requests from this address", wait)
        })
    }

    fn work(&self, desk: &Desk, client: ClientNetwork) -> Result<Work, Problem> {
        let mut working = lock(&self.working);
        let own = working.by_client.get(&client).copied().unwrap_or(0);
        if working.all >= self.at_once || own >= self.at_once_of_one {
            let detail = "too many requests at once from this address";
            return Err(too_many(desk, "address_requests_exceeded", detail, Duration::ZERO));
        }
        working.all += 1;
        working.by_client.insert(client, own + 1);
        Ok(Work { working: Arc::clone(&self.working), client })
    }

    fn edges(&self) -> MutexGuard<'_, KnownEdges> {
        lock(&self.edges)
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let mut working = lock(&self.working);
        working.all -= 1;
        let left = working.by_client.get(&self.client).copied().unwrap_or(1) - 1;
        if left == 0 {
            working.by_client.remove(&self.client);
        } else {
            working.by_client.insert(self.client, left);
        }
    }
}

impl KnownEdges {
    fn knows(&self, hash: &[u8; 32]) -> bool {
        self.0.get(hash).is_some_and(|found| found.elapsed() < REMEMBERED)
    }

    fn remember(&mut self, hash: [u8; 32]) {
        if self.0.len() >= MOST_EDGES {
            self.0.retain(|_, found| found.elapsed() < REMEMBERED);
        }
        if self.0.len() < MOST_EDGES || self.0.contains_key(&hash) {
            self.0.insert(hash, Instant::now());
        }
    }
}

fn too_many(desk: &Desk, code: &'static str, detail: &str, wait: Duration) -> Problem {
    desk.metrics.limited(code);
    Problem::too_many(code, detail, wait)
}

fn edge_credential<'a>(uri: &Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    let presented = headers.get(header::AUTHORIZATION).filter(|_| uri.path().starts_with("/edge/"))?;
    presented.to_str().ok()?.strip_prefix("Bearer ")
}

/// Objects are for everybody.
fn is_object(uri: &Uri) -> bool {
    uri.path().starts_with("/edge/v1/objects/")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Seconds whose requests may come at once.
const BURST: NonZeroU32 = NonZeroU32::new(10).unwrap();

/// Beside the one that every request takes.
const FAILED_SIGN_IN: NonZeroU32 = NonZeroU32::new(9).unwrap();

const REMEMBERED: Duration = Duration::from_secs(600);
const MOST_EDGES: usize = 65_536;

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    #[test]
    fn any_number_of_addresses_takes_a_bounded_memory() {
        let rates = AddressRates::new(1);
        let places: std::collections::BTreeSet<u32> = (0..100_000)
            .map(|number| rates.place(ClientNetwork::from(IpAddr::from(Ipv4Addr::from_bits(number)))))
            .collect();
        assert!(places.iter().all(|place| *place < 1 << 18));
        assert!(places.len() > 75_000, "{} places", places.len());
    }
}
