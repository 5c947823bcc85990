//! Connection slots: a share of them is reserved for edges and trusted proxies.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use super::address::ClientNetwork;
use crate::domain::EdgeId;

/// The maximum number of connections of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SlotLimits {
    pub(super) anonymous: usize,
    pub(super) per_network: usize,
    /// Edges and trusted proxies together.
    pub(super) edges: usize,
    pub(super) per_edge: usize,
}

/// The slots of all connections. A connection is anonymous until a request presents an edge credential. A new
/// connection is always accepted, so that an edge can authenticate: if its network has reached its share, the network
/// loses its oldest connection; else, if no anonymous slot is free, the network with the most connections does.
#[derive(Debug)]
pub(super) struct ConnectionSlots {
    limits: SlotLimits,
    table: Mutex<SlotTable>,
}

#[derive(Debug, Default)]
struct SlotTable {
    next: u64,
    anonymous: HashMap<ClientNetwork, BTreeMap<u64, Arc<Notify>>>,
    anonymous_count: usize,
    edges: HashMap<EdgeId, usize>,
    /// Includes trusted proxies.
    edge_count: usize,
}

/// The slot of one connection, released at its end.
#[derive(Debug)]
pub(super) struct Slot {
    slots: Arc<ConnectionSlots>,
    number: u64,
    network: ClientNetwork,
    kind: Mutex<SlotKind>,
    evicted: Arc<Notify>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum SlotKind {
    Anonymous,
    Edge(EdgeId),
    Proxy,
}

/// The number of open connections of each kind, for the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SlotCounts {
    pub(super) anonymous: usize,
    pub(super) edges: usize,
}

impl ConnectionSlots {
    pub(super) fn new(shares: SlotLimits) -> Arc<Self> {
        Arc::new(Self { limits: shares, table: Mutex::default() })
    }

    /// Takes a slot for an anonymous connection. The second value is true if another connection was evicted for it.
    pub(super) fn take_anonymous(self: &Arc<Self>, network: ClientNetwork) -> (Arc<Slot>, bool) {
        let mut held = self.table();
        let evicts = held.evict_if_full(network, &self.limits);
        let number = held.next;
        held.next += 1;
        let evicted = Arc::<Notify>::default();
        held.anonymous.entry(network).or_default().insert(number, Arc::clone(&evicted));
        held.anonymous_count += 1;
        drop(held);
        (self.slot(number, network, SlotKind::Anonymous, evicted), evicts)
    }

    /// Takes a slot for a trusted proxy. Returns `None` if the share of edges and proxies is used up.
    pub(super) fn take_proxy(self: &Arc<Self>, network: ClientNetwork) -> Option<Arc<Slot>> {
        let mut held = self.table();
        if held.edge_count >= self.limits.edges {
            return None;
        }
        held.edge_count += 1;
        drop(held);
        Some(self.slot(0, network, SlotKind::Proxy, Arc::default()))
    }

    pub(super) fn counts(&self) -> SlotCounts {
        let held = self.table();
        SlotCounts { anonymous: held.anonymous_count, edges: held.edge_count }
    }

    fn slot(
        self: &Arc<Self>,
        number: u64,
        network: ClientNetwork,
        kind: SlotKind,
        evicted: Arc<Notify>,
    ) -> Arc<Slot> {
        Arc::new(Slot { slots: Arc::clone(self), number, network, kind: Mutex::new(kind), evicted })
    }

    fn table(&self) -> MutexGuard<'_, SlotTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SlotTable {
    /// Evicts the oldest connection of `network` if that has reached its share, or one of the largest network if all
    /// anonymous slots are taken. Returns true if one was evicted.
    fn evict_if_full(&mut self, network: ClientNetwork, limits: &SlotLimits) -> bool {
        let own = self.anonymous.get(&network).map_or(0, BTreeMap::len);
        let from = if own >= limits.per_network {
            Some(network)
        } else if self.anonymous_count >= limits.anonymous {
            // Among networks with equally many, choose the one with the oldest connection.
            let most = self.anonymous.iter().max_by_key(|(_, connections)| {
                (connections.len(), std::cmp::Reverse(connections.keys().next().copied()))
            });
            most.map(|(network, _)| *network)
        } else {
            None
        };
        let Some(evicted) = from.and_then(|from| {
            let number = *self.anonymous.get(&from)?.keys().next()?;
            self.take(from, number)
        }) else {
            return false;
        };
        evicted.notify_one();
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

impl Slot {
    /// Moves the connection to the edges' share, if the edge may have one more connection.
    pub(super) fn promote(&self, edge: &EdgeId) {
        let mut kind = self.kind();
        if *kind != SlotKind::Anonymous {
            return;
        }
        let mut held = self.slots.table();
        let shares = &self.slots.limits;
        let own = held.edges.get(edge).copied().unwrap_or(0);
        if own >= shares.per_edge || held.edge_count >= shares.edges {
            return;
        }
        // It may have been evicted a moment ago.
        if held.take(self.network, self.number).is_some() {
            held.edges.insert(edge.clone(), own + 1);
            held.edge_count += 1;
            *kind = SlotKind::Edge(edge.clone());
        }
    }

    pub(super) fn is_anonymous(&self) -> bool {
        *self.kind() == SlotKind::Anonymous
    }

    pub(super) fn is_edge(&self) -> bool {
        matches!(*self.kind(), SlotKind::Edge(_))
    }

    pub(super) fn is_proxy(&self) -> bool {
        *self.kind() == SlotKind::Proxy
    }

    /// Completes when the connection is evicted.
    pub(super) async fn wait_evicted(&self) {
        self.evicted.notified().await;
    }

    fn kind(&self) -> MutexGuard<'_, SlotKind> {
        self.kind.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Releases the slot when dropped. The connection owns it; requests only share the [`Slot`].
#[derive(Debug)]
pub(super) struct SlotGuard(pub(super) Arc<Slot>);

impl Drop for SlotGuard {
    fn drop(&mut self) {
        let kind = self.0.kind().clone();
        let mut held = self.0.slots.table();
        match kind {
            SlotKind::Anonymous => drop(held.take(self.0.network, self.0.number)),
            SlotKind::Proxy => held.edge_count -= 1,
            SlotKind::Edge(edge) => {
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

    /// Checks whether a future is ready without waiting.
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

    fn slots(anonymous: usize, per_network: usize, edges: usize, per_edge: usize) -> Arc<ConnectionSlots> {
        ConnectionSlots::new(SlotLimits { anonymous, per_network, edges, per_edge })
    }

    fn network(last: u8) -> ClientNetwork {
        IpAddr::from([192, 0, 2, last]).into()
    }

    fn take_anonymous(slots: &Arc<ConnectionSlots>, last: u8) -> SlotGuard {
        SlotGuard(slots.take_anonymous(network(last)).0)
    }

    fn gone(taken: &SlotGuard) -> bool {
        is_ready(taken.0.wait_evicted())
    }

    #[test]
    fn the_network_with_the_most_connections_is_evicted() {
        let slots = slots(4, 3, 2, 2);
        let edge = "edge".parse().unwrap();
        let quiet = take_anonymous(&slots, 1);
        let loud: Vec<_> = (0..3).map(|_| take_anonymous(&slots, 2)).collect();
        // The share of its network is used up: its oldest connection is evicted.
        let fourth = take_anonymous(&slots, 2);
        assert_eq!(loud.iter().map(gone).collect::<Vec<_>>(), [true, false, false]);
        // The share of all networks is used up as well.
        let newcomer = take_anonymous(&slots, 3);
        assert_eq!(loud[1..].iter().map(gone).collect::<Vec<_>>(), [true, false]);
        assert!(!gone(&quiet) && !gone(&newcomer) && !gone(&fourth));
        assert_eq!(slots.counts(), SlotCounts { anonymous: 4, edges: 0 });
        // No other connection can evict an edge's.
        newcomer.0.promote(&edge);
        assert!(newcomer.0.is_edge());
        let crowd: Vec<_> = (10..100).map(|last| take_anonymous(&slots, last)).collect();
        assert!(!gone(&newcomer));
        assert_eq!(slots.counts(), SlotCounts { anonymous: 4, edges: 1 });
        drop((quiet, loud, fourth, newcomer, crowd));
        assert_eq!(slots.counts(), SlotCounts { anonymous: 0, edges: 0 });
        assert!(slots.table().edges.is_empty() && slots.table().anonymous.is_empty());
    }

    #[test]
    fn one_edge_cannot_use_up_the_edges_share() {
        let slots = slots(10, 10, 3, 2);
        let (one, two) = ("one".parse().unwrap(), "two".parse().unwrap());
        let of_one: Vec<_> = (0..3).map(|_| take_anonymous(&slots, 1)).collect();
        of_one.iter().for_each(|taken| taken.0.promote(&one));
        assert_eq!(of_one.iter().map(|taken| taken.0.is_edge()).collect::<Vec<_>>(), [true, true, false]);
        let of_two: Vec<_> = (0..2).map(|_| take_anonymous(&slots, 1)).collect();
        of_two.iter().for_each(|taken| taken.0.promote(&two));
        assert_eq!(of_two.iter().map(|taken| taken.0.is_edge()).collect::<Vec<_>>(), [true, false]);
        assert!(slots.take_proxy(network(9)).is_none(), "the edges' share is used up");
        drop(of_one);
        assert!(slots.take_proxy(network(9)).is_some());
    }

    #[test]
    fn an_evicted_connection_is_not_promoted() {
        let slots = slots(1, 1, 1, 1);
        let first = take_anonymous(&slots, 1);
        let second = take_anonymous(&slots, 1);
        first.0.promote(&"edge".parse().unwrap());
        assert!(!first.0.is_edge() && gone(&first));
        drop(first);
        assert_eq!(slots.counts(), SlotCounts { anonymous: 1, edges: 0 });
        drop(second);
    }
}
