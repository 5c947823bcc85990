//! The decision about a request: the gate, its reasons, its routes, and the streams that it admitted.

mod client;
pub(crate) mod gate;
pub(crate) mod open_stream;
mod open_streams;
mod reason;
pub mod route;

pub use client::ClientAddress;
pub use gate::{BareCredential, Gate, Headers, Request};
pub use open_stream::{OpenStream, OpenStreamPolicy};
pub use open_streams::{Admitted, Checked, Ended, OpenStreams};
pub use reason::{AmbiguousCredential, Reason};

use alloc::{
    string::{String, ToString},
    sync::Arc,
};

use token::Fingerprint;

use crate::{config::policy::FilterStateItem, identity::Identity, sync::freshness::StalePolicy};

/// The decision about a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// The request is admitted with an identity.
    Admit(Admission),
    /// The request is refused.
    Refuse(Refusal),
    /// The request passes without an identity.
    Pass(PassReason),
}

/// Why a request passes without an admitted credential.
#[derive(Debug, Clone, PartialEq)]
pub enum PassReason {
    /// The rule is public.
    Public(Stripping),
    /// The rule is optional, and the request has no credential, or only one that counts as none.
    Anonymous(Stripping),
    /// The request is a CORS preflight that the upstream answers.
    Preflight(Stripping),
    /// The request would be refused, but the mode is report.
    Reported(Refusal),
}

/// Which credentials are removed before a request is forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stripping {
    /// None.
    Nothing,
    /// Those in the locations that this rule searches, by index. `None`: in all locations of the policy.
    Credentials(Option<usize>),
}

/// The proof that a request is admitted. Only [`Gate::decide_with`] creates one.
#[derive(Debug, Clone, PartialEq)]
pub struct Admission {
    identity: Arc<Identity>,
    stale: Option<StalePolicy>,
    reported: Option<Reason>,
    stripping: Stripping,
}

impl Admission {
    pub(crate) const fn new(
        identity: Arc<Identity>,
        stale: Option<StalePolicy>,
        reported: Option<Reason>,
        stripping: Stripping,
    ) -> Self {
        Self { identity, stale, reported, stripping }
    }

    /// Returns the identity of the credential.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Returns the identity of the credential, to remember it for an open stream.
    pub fn into_identity(self) -> Arc<Identity> {
        self.identity
    }

    /// Returns the fingerprint of the credential as it was presented.
    pub fn fingerprint(&self) -> Fingerprint {
        self.identity.fingerprint()
    }

    /// Returns the stale policy that admitted the credential, or `None` if the bundle is fresh.
    pub const fn stale(&self) -> Option<StalePolicy> {
        self.stale
    }
}

/// A refusal: its reason, and the identity if the credential is authentic.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    reason: Reason,
    identity: Option<Arc<Identity>>,
    rule: Option<usize>,
    /// The name of the claim that is missing or not accepted, as the policy names it.
    claim: Option<String>,
}

impl Refusal {
    pub(crate) const fn new(reason: Reason, identity: Option<Arc<Identity>>, rule: Option<usize>) -> Self {
        Self { reason, identity, rule, claim: None }
    }

    /// Returns a refusal of a token because of a claim, if its name is not empty.
    pub(crate) fn of_claim(reason: Reason, claim: &str) -> Self {
        Self { claim: (!claim.is_empty()).then(|| claim.into()), ..Self::from(reason) }
    }

    /// Returns the reason of the refusal.
    pub const fn reason(&self) -> Reason {
        self.reason
    }

    /// Returns the identity if the credential is authentic, whether or not it is valid.
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_deref()
    }

    /// Returns whether the refusal names a claim.
    pub const fn names_claim(&self) -> bool {
        self.claim.is_some()
    }

    /// Returns whether the credential counts as none for a rule that ignores unusable credentials. A credential that is
    /// revoked, or whose signature is invalid, never does, so that a revocation and an attack are noticed. `is_removed`:
    /// the upstream does not receive the credential.
    pub(crate) const fn counts_as_none(&self, is_removed: bool) -> bool {
        match self.reason {
            Reason::IssuerUnknown => is_removed || !self.names_claim(),
            // With a claim, the token has a valid signature.
            Reason::Token(token::Error::Malformed) => is_removed && !self.names_claim(),
            // This could be a revoked token that only the upstream accepts: it decodes the text once more, or allows a larger
            // difference of clocks.
            Reason::Token(token::Error::TooLong | token::Error::NotCanonical)
            | Reason::AudienceMismatch
            | Reason::Expired
            | Reason::ApiKeyExpired => is_removed,
            // A claim that the issuer must have takes the place of an audience.
            Reason::ClaimMissing => is_removed && self.names_claim(),
            _ => false,
        }
    }

    /// Returns the reason in words, with the name of the claim.
    pub fn message(&self) -> String {
        let reason = match self.reason {
            // With a claim, the credential is a token.
            Reason::Token(error) if self.names_claim() => error.to_string(),
            reason => reason.to_string(),
        };
        match &self.claim {
            Some(claim) => [&reason, ": `", claim, "`"].concat(),
            None => reason,
        }
    }

    /// Returns the index of the rule that refused the request.
    pub(crate) const fn rule(&self) -> Option<usize> {
        self.rule
    }
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Self::new(reason, None, None)
    }
}

impl Decision {
    /// Returns the reason why the request is refused, or would be in enforce mode.
    pub const fn reason(&self) -> Option<Reason> {
        match self {
            Self::Admit(admission) => admission.reported,
            Self::Refuse(refusal) | Self::Pass(PassReason::Reported(refusal)) => Some(refusal.reason),
            Self::Pass(_) => None,
        }
    }

    /// Returns whether the request passes only because of report mode.
    pub const fn is_reported(&self) -> bool {
        match self {
            Self::Admit(admission) => admission.reported.is_some(),
            Self::Pass(pass_reason) => matches!(pass_reason, PassReason::Reported(_)),
            Self::Refuse(_) => false,
        }
    }

    /// Returns which credentials are removed before the request is forwarded. Report mode must not break requests, so a
    /// reported request keeps them.
    pub const fn stripping(&self) -> Stripping {
        match self {
            Self::Admit(Admission { reported: None, stripping, .. })
            | Self::Pass(
                PassReason::Public(stripping)
                | PassReason::Anonymous(stripping)
                | PassReason::Preflight(stripping),
            ) => *stripping,
            Self::Admit(_) | Self::Pass(PassReason::Reported(_)) | Self::Refuse(_) => Stripping::Nothing,
        }
    }

    /// Returns the identity if the credential is authentic.
    pub fn identity(&self) -> Option<&Identity> {
        match self {
            Self::Admit(admission) => Some(&admission.identity),
            Self::Refuse(refusal) | Self::Pass(PassReason::Reported(refusal)) => refusal.identity(),
            Self::Pass(_) => None,
        }
    }
}

impl Gate {
    /// Returns the filter state for access logs, RBAC and rate limits of the host, as (name, value). Each item costs
    /// one host call.
    pub fn filter_state<'a>(&self, decision: &'a Decision) -> impl Iterator<Item = (&'static str, &'a str)> {
        let identity = decision.identity();
        self.policy().filter_state.iter().filter_map(move |item| {
            Some(match item {
                FilterStateItem::Reason => ("keystile.reason", decision.reason()?.code()),
                FilterStateItem::KeyId => ("keystile.key_id", identity?.key_id()?),
                FilterStateItem::Subject => ("keystile.subject", identity?.header_subject()),
                FilterStateItem::Operator => ("keystile.operator", identity?.operator()?),
                FilterStateItem::Fingerprint => ("keystile.fingerprint", identity?.fingerprint_hex()),
            })
        })
    }
}
