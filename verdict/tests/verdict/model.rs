//! Model test: after every random operation of the control plane, edges agree with a simple list.

use std::collections::BTreeMap;

use bundle::{
    Coverage, ExpiryRange, RevocationStatus, Scope, Snapshot,
    builder::{BlockBuilder, Builder, BuiltBlock},
};
use proptest::prelude::*;
use token::Fingerprint;
use verdict::{Progress, Refresh};

use crate::{
    fixtures::{NOW, Object, builder, bundle_over, checkpoint, refresh},
    stolen_keys::fetch,
};

#[derive(Debug, Clone)]
enum Operation {
    /// Issues a credential that expires after this number of hours, or never.
    Issue(Option<u64>),
    Revoke(prop::sample::Index),
    Unrevoke(prop::sample::Index),
    /// Sets a watermark on one of a few scopes, this number of seconds ago.
    Watermark(u8, u64),
    RemoveWatermark(u8),
    /// Advances the time by hours, and removes expired entries.
    AdvanceTime(u64),
    Compact,
    Checkpoint,
    RestartPublisher,
    RestartEdge,
}

fn operation() -> impl Strategy<Value = Operation> {
    use Operation::*;
    prop_oneof![
        6 => prop::option::of(1..30_u64).prop_map(Issue),
        5 => any::<prop::sample::Index>().prop_map(Revoke),
        3 => any::<prop::sample::Index>().prop_map(Unrevoke),
        2 => (0..3_u8, 0..1_000_u64).prop_map(|(scope, ago)| Watermark(scope, ago)),
        1 => (0..3_u8).prop_map(RemoveWatermark),
        1 => (1..9_u64).prop_map(AdvanceTime),
        2 => Just(Compact),
        1 => Just(Checkpoint),
        1 => Just(RestartPublisher),
        1 => Just(RestartEdge),
    ]
}

struct Credential {
    fingerprint: Fingerprint,
    issued_at: u64,
    expires_at: Option<u64>,
    revoked: bool,
}

/// The list, the publisher and the edges.
struct Model {
    credentials: Vec<Credential>,
    watermarks: BTreeMap<u8, u64>,
    /// The current time in seconds.
    clock: u64,
    version: u64,
    /// The second up to which the base covers issued credentials.
    covered_until: u64,
    bases: Vec<(u16, BuiltBlock)>,
    publisher: Builder,
    checkpoint: Option<(u64, Object)>,
    edge: Refresh,
    follower: Refresh,
}

impl Model {
    fn new() -> Self {
        Self {
            credentials: Vec::new(),
            watermarks: BTreeMap::new(),
            clock: NOW,
            version: 1,
            covered_until: 0,
            bases: Vec::new(),
            publisher: builder(),
            checkpoint: None,
            edge: refresh(),
            follower: refresh(),
        }
    }

    fn apply(&mut self, operation: &Operation) {
        self.version += 1;
        match operation {
            Operation::Issue(hours) => {
                self.clock += 1;
                self.credentials.push(Credential {
                    fingerprint: Fingerprint::digest(&self.version.to_be_bytes()),
                    issued_at: self.clock,
                    expires_at: hours.map(|hours| self.clock + hours * 3600),
                    revoked: false,
                });
            }
            Operation::Revoke(which) => {
                if let Some(one) = pick(&mut self.credentials, which) {
                    one.revoked = true;
                    self.publisher.revoke(self.version, one.fingerprint).unwrap();
                }
            }
            Operation::Unrevoke(which) => {
                if let Some(one) = pick(&mut self.credentials, which).filter(|one| one.revoked) {
                    one.revoked = false;
                    self.publisher.unrevoke(one.fingerprint).unwrap();
                }
            }
            Operation::Watermark(scope, ago) => {
                let (instant, held) = (self.clock - ago, self.watermarks.entry(*scope).or_default());
                *held = instant.max(*held);
                self.publisher.raise_watermark(self.version, scope_of(*scope), instant);
            }
            Operation::RemoveWatermark(scope) => {
                self.watermarks.remove(scope);
                self.publisher.remove_watermark(scope_of(*scope));
            }
            Operation::AdvanceTime(hours) => {
                self.clock += hours * 3600;
                let clock = self.clock;
                for one in self.credentials.iter().filter(|one| !is_alive(one, clock)) {
                    self.publisher.remove_revocation(&one.fingerprint);
                    self.publisher.remove_unrevocation(&one.fingerprint);
                }
                self.credentials.retain(|one| is_alive(one, clock));
            }
            Operation::Compact => self.compact(),
            Operation::Checkpoint => self.checkpoint = None,
            Operation::RestartPublisher => self.restart_publisher(),
            Operation::RestartEdge => self.edge = refresh(),
        }
    }

    /// Builds a block for each day of expiry and one for credentials that never expire.
    fn compact(&mut self) {
        for (number, _) in std::mem::take(&mut self.bases) {
            assert!(self.publisher.remove_block(number));
        }
        let day = |one: &Credential| one.expires_at.map_or(u64::MAX, |expiry| expiry / 86_400);
        let mut days: BTreeMap<u64, Vec<&Credential>> = BTreeMap::new();
        self.credentials.iter().for_each(|one| days.entry(day(one)).or_default().push(one));
        for (day, mut members) in days {
            let span = ExpiryRange {
                expires_from: day.saturating_mul(86_400).min(u64::MAX - 1),
                expires_before: day.saturating_add(1).saturating_mul(86_400),
            };
            let coverage = Coverage { kid: "k1".into(), iat_low: 0, iat_high: self.clock };
            // More shards than this number of credentials needs.
            let mut block = BlockBuilder::new(span, vec![coverage], 100_000, 900_000, b"model").unwrap();
            members.sort_by_key(|one| one.fingerprint.prefix());
            members.iter().for_each(|one| block.add(one.fingerprint, one.revoked).unwrap());
            let block = block.finish().unwrap();
            self.bases.push((self.publisher.install_block(block.clone()).unwrap(), block));
        }
        for one in &self.credentials {
            self.publisher.remove_revocation(&one.fingerprint);
            self.publisher.remove_unrevocation(&one.fingerprint);
        }
        self.covered_until = self.clock;
    }

    /// Restarts the publisher with its stored state: the list and the blocks.
    fn restart_publisher(&mut self) {
        self.publisher = builder();
        for (number, block) in &mut self.bases {
            let kept = BuiltBlock::from_bytes(&block.to_bytes()).unwrap();
            *number = self.publisher.install_block(kept).unwrap();
        }
        for one in &self.credentials {
            let based = one.issued_at <= self.covered_until;
            let said = based
                && self.bases.iter().any(|(_, block)| {
                    block.expiry_range().contains(one.expires_at) && block.contains(&one.fingerprint)
                });
            if one.revoked && !said {
                self.publisher.revoke(self.version, one.fingerprint).unwrap();
            } else if !one.revoked && said {
                self.publisher.unrevoke(one.fingerprint).unwrap();
            }
        }
        for (scope, instant) in &self.watermarks {
            self.publisher.raise_watermark(self.version, scope_of(*scope), *instant);
        }
        self.checkpoint = None;
    }

    fn publish(&mut self) {
        let now = self.clock * 1000 + self.version;
        let is_old = |signed_at: u64| now >= signed_at + 3_600_000;
        let kept = self.checkpoint.take().filter(|(signed_at, _)| !is_old(*signed_at));
        let (signed_at, checkpoint) =
            kept.filter(|_| !self.publisher.needs_checkpoint()).unwrap_or_else(|| {
                self.publisher.checkpoint(self.version).unwrap();
                (now, checkpoint(&self.publisher.build().unwrap(), self.version, now))
            });
        let published = bundle_over(&checkpoint, &self.publisher.build().unwrap(), self.version, now);
        self.checkpoint = Some((signed_at, checkpoint));
        fetch(&mut self.edge, &published, now).unwrap();
        let shared = |entry: &bundle::Entry| published.object(entry);
        while self.follower.handle_shared(&published.manifest, now, shared).unwrap() == Progress::Continue {}
    }

    fn check(&self) {
        for edge in [&self.edge, &self.follower] {
            self.assert_agrees(edge.current().unwrap());
        }
    }

    fn assert_agrees(&self, snapshot: &Snapshot) {
        assert_eq!(snapshot.manifest().version(), self.version);
        for one in &self.credentials {
            let standing = snapshot.revocation_status(&one.fingerprint, "k1", one.issued_at, one.expires_at);
            let based = one.issued_at <= self.covered_until;
            match (one.revoked, based) {
                (true, _) => assert_eq!(standing, RevocationStatus::Revoked),
                (false, true) => assert_eq!(standing, RevocationStatus::Good),
                // Unrevoked, or never issued.
                (false, false) => assert_ne!(standing, RevocationStatus::Revoked),
            }
        }
        for scope in 0..3 {
            assert_eq!(
                snapshot.watermark([scope_of(scope)]),
                self.watermarks.get(&scope).copied(),
                "{scope}"
            );
        }
        let all = snapshot.watermark((0..3).map(scope_of));
        assert_eq!(all, self.watermarks.values().max().copied());
    }
}

fn pick<'a>(credentials: &'a mut [Credential], which: &prop::sample::Index) -> Option<&'a mut Credential> {
    if credentials.is_empty() { None } else { Some(which.get_mut(credentials)) }
}

fn is_alive(one: &Credential, clock: u64) -> bool {
    one.expires_at.is_none_or(|expiry| clock < expiry)
}

fn scope_of(scope: u8) -> Scope<'static> {
    match scope {
        0 => Scope::Global,
        1 => Scope::SigningKey("k1"),
        _ => Scope::User("OP0123456789/alice"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn edges_agree_with_the_model(operations in prop::collection::vec(operation(), 1..30)) {
        let mut model = Model::new();
        model.publish();
        for operation in &operations {
            model.apply(operation);
            model.publish();
            model.check();
        }
    }
}
