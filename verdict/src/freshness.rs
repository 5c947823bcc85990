use alloc::{format, string::String, vec::Vec};
use core::fmt;

use bundle::Snapshot;
use serde::Deserialize;

use crate::{Gate, Reason};

/// How old what the edge knows is, and what follows. While all that was signed is younger than its lifetime it is
/// fresh; past that the edge goes on for `outage_grace`, then denies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Everything that was signed is younger than its lifetime.
    Fresh,
    /// The control plane has not been heard of for longer than a manifest lives.
    Stale,
    /// Nor for the grace after that: nothing is admitted.
    Expired,
}

impl Freshness {
    /// `now` and `outage_grace` in milliseconds.
    pub fn of(snapshot: &Snapshot, outage_grace: u64, now: u64) -> Self {
        if now < snapshot.expires_at() {
            Self::Fresh
        } else if now < snapshot.expires_at().saturating_add(outage_grace) {
            Self::Stale
        } else {
            Self::Expired
        }
    }
}

/// What follows when the edge has not heard of the control plane for longer than a manifest lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum StalePolicy {
    /// Nothing is admitted.
    Deny,
    /// Everything is, for so long.
    OutageGraceSeconds(u64),
    /// What was issued within so many seconds is: a credential lives on for that long at most without its revocation
    /// having a chance to arrive.
    IssuedWithinSeconds(u64),
}

impl StalePolicy {
    /// A snapshot that is not fresh is given; `issued_at` in seconds, `now` in milliseconds.
    pub(crate) fn admits(self, snapshot: &Snapshot, issued_at: u64, now: u64) -> bool {
        match self {
            Self::Deny => false,
            Self::OutageGraceSeconds(seconds) => {
                Freshness::of(snapshot, seconds.saturating_mul(1000), now) != Freshness::Expired
            }
            Self::IssuedWithinSeconds(seconds) => {
                now < issued_at.saturating_add(seconds).saturating_mul(1000)
            }
        }
    }

    pub(crate) const fn reason(self) -> Reason {
        match self {
            Self::Deny => Reason::BundleStaleDenied,
            Self::OutageGraceSeconds(_) => Reason::BundleStale,
            Self::IssuedWithinSeconds(_) => Reason::BundleStaleIssuedEarlier,
        }
    }

    fn state(self, snapshot: &Snapshot, now: u64) -> State {
        let ends = match self {
            _ if Freshness::of(snapshot, 0, now) == Freshness::Fresh => return State::Idle,
            Self::Deny => 0,
            Self::OutageGraceSeconds(seconds) => seconds.saturating_mul(1000),
            Self::IssuedWithinSeconds(_) => return State::Holds,
        };
        if Freshness::of(snapshot, ends, now) == Freshness::Expired { State::Refuses } else { State::Holds }
    }
}

impl fmt::Display for StalePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deny => f.write_str("deny"),
            Self::OutageGraceSeconds(seconds) => write!(f, "outage_grace_seconds {seconds}"),
            Self::IssuedWithinSeconds(seconds) => write!(f, "issued_within_seconds {seconds}"),
        }
    }
}

/// What a policy does at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    /// It admits, at least some.
    Holds,
    Refuses,
}

/// A line for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// Nothing is wrong.
    Info(String),
    /// Something needs attention; requests are still admitted.
    Warning(String),
    /// Requests are refused.
    Error(String),
}

/// Notices when a policy for a silent control plane starts and ends.
#[derive(Debug, Default)]
pub struct Watch {
    states: Vec<(StalePolicy, State)>,
    said_at: u64,
    /// Whether manifests claim to be fresh for longer than this edge believes.
    exceeds: bool,
}

impl Watch {
    /// What is to be logged: each start and end, and once a minute what goes on. `now` in milliseconds.
    pub fn handle(&mut self, gate: &Gate, snapshot: &Snapshot, now: u64) -> Vec<Line> {
        if self.states.is_empty() {
            self.states = gate.stale_policies().into_iter().map(|policy| (policy, State::Idle)).collect();
        }
        let mut lines = Vec::new();
        let (manifest, bound) = (snapshot.manifest(), gate.policy().max_manifest_lifetime_seconds);
        let claimed = manifest.expires_at().saturating_sub(manifest.issued_at()).div_ceil(1000);
        if claimed > bound && !self.exceeds {
            lines.push(Line::Warning(format!(
                "the manifest of version {} claims to be fresh for {claimed} s; it is for {bound} s, by \
                 `max_manifest_lifetime_seconds`",
                manifest.version()
            )));
        }
        self.exceeds = claimed > bound;
        let silent = now.saturating_sub(snapshot.manifest().issued_at()).div_euclid(1000);
        let again = now.saturating_sub(self.said_at) >= SAID_EVERY_MS;
        let said = lines.len();
        for (policy, before) in &mut self.states {
            let state = policy.state(snapshot, now);
            let started = state != *before;
            *before = state;
            match state {
                State::Idle if started => {
                    lines.push(Line::Info(format!("the bundle is fresh again: `{policy}` ends")))
                }
                State::Holds if started || again => {
                    lines.push(Line::Warning(format!(
                        "no fresh bundle for {silent} s: going on by `{policy}`"
                    )));
                }
                State::Refuses if started || again => lines.push(Line::Error(format!(
                    "no fresh bundle for {silent} s: everything is refused by `{policy}`"
                ))),
                _ => {}
            }
        }
        if lines.len() > said {
            self.said_at = now;
        }
        lines
    }
}

impl Gate {
    /// Each once, that of the policy as a whole first.
    fn stale_policies(&self) -> Vec<StalePolicy> {
        let mut policies = Vec::from([self.stale_policy(None)]);
        for policy in self.policy().rules.stale_policies() {
            if !policies.contains(&policy) {
                policies.push(policy);
            }
        }
        policies
    }
}

const SAID_EVERY_MS: u64 = 60_000;
