//! Who may be connected: edges have places that nobody else can take.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use super::address::ClientNetwork;
use crate::model::EdgeId;

/// How many connections there may be of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shares {
    pub(super) anonymous: usize,
    pub(super) per_network: usize,
    /// Of edges, and of trusted proxies.
    pub(super) edges: usize,
    pub(super) per_edge: usize,
}

/// A connection begins as an anonymous one and becomes an edge's with the first request that shows its credential. A
/// newcomer is always let in, so that an edge comes to say who it is: where the anonymous have no more places, the
/// network that has the most loses its oldest connection.
#[derive(Debug)]
pub(super) struct Places {
    shares: Shares,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    next: u64,
    anonymous: HashMap<ClientNetwork, BTreeMap<u64, Arc<Notify>>>,
    anonymous_count: usize,
    edges: HashMap<EdgeId, usize>,
    /// With those of trusted proxies.
    edge_count: usize,
}

/// The place of one connection, given back at its end.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    number: u64,
    network: ClientNetwork,
    kind: Mutex<Kind>,
    crowded_out: Arc<Notify>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Anonymous,
    Edge(EdgeId),
    Proxy,
}

/// How many there are of each kind, for the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Occupied {
    pub(super) anonymous: usize,
    pub(super) edges: usize,
}

impl Places {
    pub(super) fn new(shares: Shares) -> Arc<Self> {
        Arc::new(Self { shares, held: Mutex::default() })
    }

    /// Whether somebody had to go for it comes with the place.
    pub(super) fn enter(self: &Arc<Self>, network: ClientNetwork) -> (Arc<Place>, bool) {
        let mut held = self.held();
        let crowded = held.make_room(network, &self.shares);
        let number = held.next;
        held.next += 1;
        let crowded_out = Arc::<Notify>::default();
        held.anonymous.entry(network).or_default().insert(number, Arc::clone(&crowded_out));
        held.anonymous_count += 1;
        drop(held);
        (self.place(number, network, Kind::Anonymous, crowded_out), crowded)
    }

    /// For a trusted proxy; none where its share is used up.
    pub(super) fn enter_proxy(self: &Arc<Self>, network: ClientNetwork) -> Option<Arc<Place>> {
        let mut held = self.held();
        if held.edge_count >= self.shares.edges {
            return None;
        }
        held.edge_count += 1;
        drop(held);
        Some(self.place(0, network, Kind::Proxy, Arc::default()))
    }

    pub(super) fn occupied(&self) -> Occupied {
        let held = self.held();
        Occupied { anonymous: held.anonymous_count, edges: held.edge_count }
    }

    fn place(
        self: &Arc<Self>,
        number: u64,
        network: ClientNetwork,
        kind: Kind,
        crowded_out: Arc<Notify>,
    ) -> Arc<Place> {
        Arc::new(Place { places: Arc::clone(self), number, network, kind: Mutex::new(kind), crowded_out })
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Whether a connection was told to go.
    fn make_room(&mut self, network: ClientNetwork, shares: &Shares) -> bool {
        let own = self.anonymous.get(&network).map_or(0, BTreeMap::len);
        let from = if own >= shares.per_network {
            Some(network)
        } else if self.anonymous_count >= shares.anonymous {
            // Of those with as many the one whose oldest connection is the oldest.
            let most = self.anonymous.iter().max_by_key(|(_, connections)| {
                (connections.len(), std::cmp::Reverse(connections.keys().next().copied()))
            });
            most.map(|(network, _)| *network)
        } else {
            None
        };
        let Some(oldest) = from.and_then(|from| {
            let number = *self.anonymous.get(&from)?.keys().next()?;
            self.take(from, number)
        }) else {
            return false;
        };
        oldest.notify_one();
        true
    }

    fn take(&mut self, network: ClientNetwork, number: u64) -> Option<Arc<Notify>> {
        let connections = self.anonymous.get_mut(&network)?;
        let taken = connections.remove(&number)?;
        if connections.is_empty() {
            self.anonymous.remove(&network);
        }
        self.anonymous_count -= 1;
        Some(taken)
    }
}

impl Place {
    /// Makes it an edge's, if the edge may have one more.
    pub(super) fn promote(&self, edge: &EdgeId) {
        let mut kind = self.kind();
        if *kind != Kind::Anonymous {
            return;
        }
        let mut held = self.places.held();
        let shares = &self.places.shares;
        let own = held.edges.get(edge).copied().unwrap_or(0);
        if own >= shares.per_edge || held.edge_count >= shares.edges {
            return;
        }
        // It may have been told to go a moment ago.
        if held.take(self.network, self.number).is_some() {
            held.edges.insert(edge.clone(), own + 1);
            held.edge_count += 1;
            *kind = Kind::Edge(edge.clone());
        }
    }

    pub(super) fn is_anonymous(&self) -> bool {
        *self.kind() == Kind::Anonymous
    }

    pub(super) fn is_edge(&self) -> bool {
        matches!(*self.kind(), Kind::Edge(_))
    }

    pub(super) fn is_proxy(&self) -> bool {
        *self.kind() == Kind::Proxy
    }

    /// Returns when somebody else needs the place more.
    pub(super) async fn crowded_out(&self) {
        self.crowded_out.notified().await;
    }

    fn kind(&self) -> MutexGuard<'_, Kind> {
        self.kind.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever holds the connection holds this; requests hold the place alone.
#[derive(Debug)]
pub(super) struct Taken(pub(super) Arc<Place>);

impl Drop for Taken {
    fn drop(&mut self) {
        let kind = self.0.kind().clone();
        let mut held = self.0.places.held();
        match kind {
            Kind::Anonymous => drop(held.take(self.0.network, self.0.number)),
            Kind::Proxy => held.edge_count -= 1,
            Kind::Edge(edge) => {
                held.edge_count -= 1;
                let left = held.edges.get(&edge).copied().unwrap_or(1) - 1;
                if left == 0 {
                    held.edges.remove(&edge);
                } else {
                    held.edges.insert(edge, left);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use futures_lite_poll::is_ready;

    use super::*;

    /// Whether a future is done without waiting.
    mod futures_lite_poll {
        use std::{
            future::Future,
            pin::pin,
            task::{Context, Waker},
        };

        pub(super) fn is_ready(future: impl Future) -> bool {
            pin!(future).poll(&mut Context::from_waker(Waker::noop())).is_ready()
        }
    }

    fn places(anonymous: usize, per_network: usize, edges: usize, per_edge: usize) -> Arc<Places> {
        Places::new(Shares { anonymous, per_network, edges, per_edge })
    }

    fn network(last: u8) -> ClientNetwork {
        IpAddr::from([192, 0, 2, last]).into()
    }

    fn enter(places: &Arc<Places>, last: u8) -> Taken {
        Taken(places.enter(network(last)).0)
    }

    fn gone(taken: &Taken) -> bool {
        is_ready(taken.0.crowded_out())
    }

    #[test]
    fn whoever_has_the_most_makes_room() {
        let places = places(4, 3, 2, 2);
        let edge = "edge".parse().unwrap();
        let quiet = enter(&places, 1);
        let loud: Vec<_> = (0..3).map(|_| enter(&places, 2)).collect();
        // Its own share is used up: its oldest goes.
        let fourth = enter(&places, 2);
        assert_eq!(loud.iter().map(gone).collect::<Vec<_>>(), [true, false, false]);
        // So is that of all.
        let newcomer = enter(&places, 3);
        assert_eq!(loud[1..].iter().map(gone).collect::<Vec<_>>(), [true, false]);
        assert!(!gone(&quiet) && !gone(&newcomer) && !gone(&fourth));
        assert_eq!(places.occupied(), Occupied { anonymous: 4, edges: 0 });
        // An edge is out of anybody's reach.
        newcomer.0.promote(&edge);
        assert!(newcomer.0.is_edge());
        let crowd: Vec<_> = (10..100).map(|last| enter(&places, last)).collect();
        assert!(!gone(&newcomer));
        assert_eq!(places.occupied(), Occupied { anonymous: 4, edges: 1 });
        drop((quiet, loud, fourth, newcomer, crowd));
        assert_eq!(places.occupied(), Occupied { anonymous: 0, edges: 0 });
        assert!(places.held().edges.is_empty() && places.held().anonymous.is_empty());
    }

    #[test]
    fn one_edge_does_not_take_the_places_of_all() {
        let places = places(10, 10, 3, 2);
        let (one, two) = ("one".parse().unwrap(), "two".parse().unwrap());
        let of_one: Vec<_> = (0..3).map(|_| enter(&places, 1)).collect();
        of_one.iter().for_each(|taken| taken.0.promote(&one));
        assert_eq!(of_one.iter().map(|taken| taken.0.is_edge()).collect::<Vec<_>>(), [true, true, false]);
        let of_two: Vec<_> = (0..2).map(|_| enter(&places, 1)).collect();
        of_two.iter().for_each(|taken| taken.0.promote(&two));
        assert_eq!(of_two.iter().map(|taken| taken.0.is_edge()).collect::<Vec<_>>(), [true, false]);
        assert!(places.enter_proxy(network(9)).is_none(), "the edges' share is used up");
        drop(of_one);
        assert!(places.enter_proxy(network(9)).is_some());
    }

    #[test]
    fn who_was_told_to_go_is_not_promoted() {
        let places = places(1, 1, 1, 1);
        let first = enter(&places, 1);
        let second = enter(&places, 1);
        first.0.promote(&"edge".parse().unwrap());
        assert!(!first.0.is_edge() && gone(&first));
        drop(first);
        assert_eq!(places.occupied(), Occupied { anonymous: 1, edges: 0 });
        drop(second);
    }
}
