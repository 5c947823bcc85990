use alloc::sync::Arc;

use token::Fingerprint;

use crate::{Gate, Identity, Reason, freshness::StalePolicy, policy::StateItem};

/// What is decided about a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// It passes with an identity.
    Admit(Admission),
    /// It is refused.
    Refuse(Refusal),
    /// It may pass without an identity.
    Pass(Passage),
}

/// Why a request passes without a credential, or in spite of one.
#[derive(Debug, Clone, PartialEq)]
pub enum Passage {
    /// The rule is public.
    Public,
    /// The rule is optional, and no credential was sent.
    Anonymous,
    /// A CORS preflight, which the upstream is to answer.
    Preflight,
    /// It would be refused, but the policy only reports.
    Reported(Refusal),
}

/// The proof that a request may pass: only [`Gate::decide_with`] makes one.
#[derive(Debug, Clone, PartialEq)]
pub struct Admission {
    identity: Arc<Identity>,
    stale: Option<StalePolicy>,
    reported: Option<Reason>,
}

impl Admission {
    pub(crate) const fn new(
        identity: Arc<Identity>,
        stale: Option<StalePolicy>,
        reported: Option<Reason>,
    ) -> Self {
        Self { identity, stale, reported }
    }

    /// Returns who asks.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Returns the fingerprint of the credential as it was presented.
    pub fn fingerprint(&self) -> Fingerprint {
        self.identity.fingerprint()
    }

    /// The policy by which it is admitted although the control plane is silent, if it is.
    pub const fn stale(&self) -> Option<StalePolicy> {
        self.stale
    }
}

/// Why a request may not pass, and what is known of who asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    reason: Reason,
    identity: Option<Arc<Identity>>,
    rule: Option<usize>,
}

impl Refusal {
    pub(crate) const fn new(reason: Reason, identity: Option<Arc<Identity>>, rule: Option<usize>) -> Self {
        Self { reason, identity, rule }
    }

    /// Returns why it is refused.
    pub const fn reason(&self) -> Reason {
        self.reason
    }

    /// Of an authentic credential, good or not.
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_deref()
    }

    /// The number of the rule that refused it.
    pub(crate) const fn rule(&self) -> Option<usize> {
        self.rule
    }
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Self { reason, identity: None, rule: None }
    }
}

impl Verdict {
    /// Why it is refused, or would be.
    pub const fn reason(&self) -> Option<Reason> {
        match self {
            Self::Admit(admission) => admission.reported,
            Self::Refuse(refusal) | Self::Pass(Passage::Reported(refusal)) => Some(refusal.reason),
            Self::Pass(_) => None,
        }
    }

    /// Whether it passes only because nothing is enforced.
    pub const fn is_reported(&self) -> bool {
        match self {
            Self::Admit(admission) => admission.reported.is_some(),
            Self::Pass(passage) => matches!(passage, Passage::Reported(_)),
            Self::Refuse(_) => false,
        }
    }

    /// Who asks, as far as it is proven.
    pub fn identity(&self) -> Option<&Identity> {
        match self {
            Self::Admit(admission) => Some(&admission.identity),
            Self::Refuse(refusal) | Self::Pass(Passage::Reported(refusal)) => refusal.identity(),
            Self::Pass(_) => None,
        }
    }
}

impl Gate {
    /// What access logs, RBAC and rate limits of the host are to know: each is one call of the host.
    pub fn filter_state<'a>(&self, verdict: &'a Verdict) -> impl Iterator<Item = (&'static str, &'a str)> {
        let identity = verdict.identity();
        self.policy().filter_state.iter().filter_map(move |item| {
            Some(match item {
                StateItem::Reason => ("keystile.reason", verdict.reason()?.code()),
                StateItem::KeyId => ("keystile.key_id", identity?.key_id()?),
                StateItem::Subject => ("keystile.subject", identity?.subject()),
                StateItem::Operator => ("keystile.operator", identity?.operator()?),
                StateItem::Fingerprint => ("keystile.fingerprint", identity?.fingerprint_text()),
            })
        })
    }
}
