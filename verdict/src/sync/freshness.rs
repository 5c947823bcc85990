//! The freshness of the bundle, and what a stale bundle means for requests.

use alloc::{format, string::String, vec::Vec};
use core::fmt;

use bundle::Snapshot;
use serde::Deserialize;

use crate::decision::{Gate, Reason};

const LOG_INTERVAL_MS: u64 = 60_000;

/// The age of the bundle. A bundle is fresh until its manifest or checkpoint expires, then stale for the outage grace,
/// then expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// No signed part has expired.
    Fresh,
    /// A signed part has expired, and the outage grace has not ended.
    Stale,
    /// The outage grace has ended: no credential is admitted.
    Expired,
}

impl Freshness {
    /// Returns the freshness of a snapshot. `now` is in milliseconds since the Unix epoch, `outage_grace` in
    /// milliseconds.
    pub fn classify(snapshot: &Snapshot, outage_grace: u64, now: u64) -> Self {
        if now < snapshot.expires_at() {
            Self::Fresh
        } else if now < snapshot.expires_at().saturating_add(outage_grace) {
            Self::Stale
        } else {
            Self::Expired
        }
    }
}

/// How an edge decides while its bundle is stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum StalePolicy {
    /// Refuses every credential.
    Deny,
    /// Admits credentials for this number of seconds.
    OutageGraceSeconds(u64),
    /// Admits credentials that were issued within this number of seconds. It bounds how long a credential can be used
    /// without its revocation having a chance to arrive.
    IssuedWithinSeconds(u64),
}

impl StalePolicy {
    /// Returns whether the policy admits a credential under a stale snapshot. `issued_at` is in seconds, `now` in
    /// milliseconds since the Unix epoch.
    pub(crate) fn admits(self, snapshot: &Snapshot, issued_at: u64, now: u64) -> bool {
        match self {
            Self::Deny => false,
            Self::OutageGraceSeconds(seconds) => {
                Freshness::classify(snapshot, seconds.saturating_mul(1000), now) != Freshness::Expired
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

    fn state(self, snapshot: &Snapshot, now: u64) -> PolicyState {
        let grace = match self {
            _ if Freshness::classify(snapshot, 0, now) == Freshness::Fresh => return PolicyState::Idle,
            Self::Deny => 0,
            Self::OutageGraceSeconds(seconds) => seconds.saturating_mul(1000),
            Self::IssuedWithinSeconds(_) => return PolicyState::Admits,
        };
        if Freshness::classify(snapshot, grace, now) == Freshness::Expired {
            PolicyState::Refuses
        } else {
            PolicyState::Admits
        }
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

/// What a stale policy currently does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PolicyState {
    Idle,
    /// Admits at least some credentials although the bundle is stale.
    Admits,
    Refuses,
}

/// A log line with its level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogLine {
    /// Information.
    Info(String),
    /// A warning: requests are still admitted.
    Warning(String),
    /// An error: requests are refused.
    Error(String),
}

/// Detects when a stale policy takes effect and when it ends.
#[derive(Debug, Default)]
pub struct StalenessWatch {
    states: Vec<(StalePolicy, PolicyState)>,
    last_logged_at: u64,
    /// Whether the last manifest had a longer lifetime than `max_manifest_lifetime_seconds`.
    exceeds_max_lifetime: bool,
}

impl StalenessWatch {
    /// Returns the lines to log: one for each transition, and one per minute while a policy is in effect. `now` is in
    /// milliseconds since the Unix epoch.
    pub fn observe(&mut self, gate: &Gate, snapshot: &Snapshot, now: u64) -> Vec<LogLine> {
        if self.states.is_empty() {
            self.states =
                gate.stale_policies().into_iter().map(|policy| (policy, PolicyState::Idle)).collect();
        }
        let mut lines = Vec::new();
        let (manifest, bound) = (snapshot.manifest(), gate.policy().max_manifest_lifetime_seconds);
        let claimed = manifest.expires_at().saturating_sub(manifest.issued_at()).div_ceil(1000);
        if claimed > bound && !self.exceeds_max_lifetime {
            lines.push(LogLine::Warning(format!(
                "the manifest of version {} has a lifetime of {claimed} s; it is limited to {bound} s by \
                 `max_manifest_lifetime_seconds`",
                manifest.version()
            )));
        }
        self.exceeds_max_lifetime = claimed > bound;
        let age = now.saturating_sub(snapshot.manifest().issued_at()).div_euclid(1000);
        let is_due = now.saturating_sub(self.last_logged_at) >= LOG_INTERVAL_MS;
        let logged_before = lines.len();
        for (policy, before) in &mut self.states {
            let state = policy.state(snapshot, now);
            let started = state != *before;
            *before = state;
            match state {
                PolicyState::Idle if started => lines
                    .push(LogLine::Info(format!("the bundle is fresh again: `{policy}` no longer applies"))),
                PolicyState::Admits if started || is_due => {
                    lines.push(LogLine::Warning(format!(
                        "no fresh bundle for {age} s: requests are decided by `{policy}`"
                    )));
                }
                PolicyState::Refuses if started || is_due => lines.push(LogLine::Error(format!(
                    "no fresh bundle for {age} s: all requests are refused by `{policy}`"
                ))),
                _ => {}
            }
        }
        if lines.len() > logged_before {
            self.last_logged_at = now;
        }
        lines
    }
}

impl Gate {
    /// Returns each distinct stale policy, with the one of the whole policy first.
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
