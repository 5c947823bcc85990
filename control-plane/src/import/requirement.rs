//! What the source requires of a token, and which tokens pass.

use std::collections::BTreeSet;

use super::{
    condition::{Cell, Condition, Lost},
    needs::Needs,
    provider::Provider,
    report::Report,
};

/// What a request needs.
#[derive(Debug, Clone)]
pub(super) enum Requirement {
    /// Tokens are not verified.
    Nothing,
    Refuse,
    /// The number of the provider, and audiences instead of its own.
    Provider(usize, Option<Vec<String>>),
    Any(Vec<Requirement>),
    /// All of them, with the path in the source.
    All(String, Vec<Requirement>),
    /// A token may be missing.
    AllowMissing,
    /// A token may be missing or invalid, with the path in the source.
    AllowMissingOrFailed(String),
}

/// A token that passes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) provider: usize,
    /// Audiences instead of those of the provider.
    pub(super) audiences: Option<Vec<String>>,
    pub(super) needs: Needs,
}

/// Whether a request without a good token passes. The variants are in ascending order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Anonymous {
    Refused,
    /// Without any token.
    Passes,
    /// Also with one that fails verification.
    PassesIfFailed,
}

/// Which requests pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// All requests. Tokens are not verified.
    Public,
    /// Requests with such tokens and, by `anonymous`, those without a token of the providers `seen`.
    Checked { anonymous: Anonymous, seen: BTreeSet<usize>, grants: Vec<Grant> },
}

impl Outcome {
    pub(super) const REFUSED: Self =
        Self::Checked { anonymous: Anonymous::Refused, seen: BTreeSet::new(), grants: Vec::new() };

    fn checked(anonymous: Anonymous, seen: BTreeSet<usize>, grants: Vec<Grant>) -> Self {
        // It does not matter where a token is missing that is required.
        let seen = if anonymous == Anonymous::Refused { BTreeSet::new() } else { seen };
        Self::Checked { anonymous, seen, grants }
    }

    /// Returns which requests pass if both let them pass.
    pub(super) fn and(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Public, other) | (other, Self::Public) => other.clone(),
            (
                Self::Checked { anonymous, seen, grants },
                Self::Checked { anonymous: also, seen: also_seen, grants: others },
            ) => Self::checked(*anonymous.min(also), seen | also_seen, common(grants, others)),
        }
    }
}

/// Returns the tokens that both lists let pass.
fn common(grants: &[Grant], others: &[Grant]) -> Vec<Grant> {
    let mut all: Vec<Grant> = Vec::new();
    for grant in grants {
        for other in others.iter().filter(|other| other.provider == grant.provider) {
            let audiences = match (&grant.audiences, &other.audiences) {
                (audiences, None) | (None, audiences) => audiences.clone(),
                (Some(audiences), Some(others)) => {
                    let both: Vec<_> = audiences.iter().filter(|it| others.contains(it)).cloned().collect();
                    if both.is_empty() {
                        continue;
                    }
                    Some(both)
                }
            };
            let both = Grant { provider: grant.provider, audiences, needs: grant.needs.and(&other.needs) };
            if !all.contains(&both) {
                all.push(both);
            }
        }
    }
    all
}

impl Requirement {
    const fn anonymous(&self) -> Anonymous {
        match self {
            Self::AllowMissing => Anonymous::Passes,
            Self::AllowMissingOrFailed(_) => Anonymous::PassesIfFailed,
            _ => Anonymous::Refused,
        }
    }

    /// Returns which requests pass.
    pub(super) fn outcome(&self, providers: &[Provider], report: &mut Report) -> Outcome {
        let grants_of = |number: usize, audiences: Option<Vec<String>>| {
            let subjects =
                providers.get(number).map(|provider| provider.subjects.clone()).unwrap_or_default();
            let grant = |needs| Grant { provider: number, audiences: audiences.clone(), needs };
            subjects.into_iter().map(grant).collect()
        };
        match self {
            Self::Nothing => Outcome::Public,
            Self::Refuse => Outcome::REFUSED,
            Self::Provider(number, audiences) => {
                Outcome::checked(Anonymous::Refused, BTreeSet::new(), grants_of(*number, audiences.clone()))
            }
            Self::AllowMissing | Self::AllowMissingOrFailed(_) => {
                if let Self::AllowMissingOrFailed(at) = self {
                    report.dropped(
                        at.clone(),
                        "`allow_missing_or_failed` lets requests with an invalid token pass",
                        "the policy lets requests pass whose token has expired or is not for this service \
                         (`ignore_unusable_credentials`), and refuses those with a forged or revoked one",
                        "nothing, unless requests with forged tokens must pass",
                    );
                }
                let all = (0..providers.len()).flat_map(|number| grants_of(number, None)).collect();
                Outcome::checked(self.anonymous(), (0..providers.len()).collect(), all)
            }
            Self::Any(all) => any(all, providers, report, grants_of),
            Self::All(at, all) => {
                let outcomes: Vec<Outcome> = all.iter().map(|part| part.outcome(providers, report)).collect();
                let both = outcomes.iter().fold(Outcome::Public, |both, outcome| both.and(outcome));
                let has_grants = |outcome: &Outcome| match outcome {
                    Outcome::Public => true,
                    Outcome::Checked { grants, .. } => !grants.is_empty(),
                };
                if outcomes.iter().all(has_grants) && !has_grants(&both) {
                    report.dropped(
                        at.clone(),
                        "`requires_all` needs tokens of several providers in one request",
                        "a request can have one credential, so the policy refuses requests with a token under this requirement",
                        "require one of the tokens at the edge, and verify the other at the upstream",
                    );
                }
                both
            }
        }
    }
}

fn any(
    all: &[Requirement],
    providers: &[Provider],
    report: &mut Report,
    grants_of: impl Fn(usize, Option<Vec<String>>) -> Vec<Grant>,
) -> Outcome {
    let named: Vec<usize> = all
        .iter()
        .filter_map(|part| if let Requirement::Provider(number, _) = part { Some(*number) } else { None })
        .collect();
    let (mut is_anonymous, mut all_seen, mut all_grants) = (Anonymous::Refused, BTreeSet::new(), Vec::new());
    for part in all {
        let outcome = match part {
            // Beside providers, it verifies the tokens of these providers with their own audiences.
            Requirement::AllowMissing | Requirement::AllowMissingOrFailed(_) if !named.is_empty() => {
                if let Requirement::AllowMissingOrFailed(_) = part {
                    let _ = part.outcome(&[], report);
                }
                let grants = named.iter().flat_map(|number| grants_of(*number, None)).collect();
                Outcome::checked(part.anonymous(), named.iter().copied().collect(), grants)
            }
            // Istio writes this beside the same providers, which then lose nothing.
            Requirement::All(..) if !named.is_empty() => {
                let mut unused = Report::default();
                let outcome = part.outcome(providers, &mut unused);
                if !only_of(part, &named) {
                    let _ = part.outcome(providers, report);
                }
                outcome
            }
            part => part.outcome(providers, report),
        };
        match outcome {
            Outcome::Public => return Outcome::Public,
            Outcome::Checked { anonymous, seen, grants } => {
                is_anonymous = is_anonymous.max(anonymous);
                all_seen.extend(seen);
                all_grants.extend(grants);
            }
        }
    }
    let mut grants: Vec<Grant> = Vec::new();
    for grant in all_grants {
        if !grants.contains(&grant) {
            grants.push(grant);
        }
    }
    // A token of a provider that is named beside `allow_missing` must be good, too.
    all_seen.extend(named);
    Outcome::checked(is_anonymous, all_seen, grants)
}

/// Returns whether a requirement names no other providers.
fn only_of(requirement: &Requirement, named: &[usize]) -> bool {
    match requirement {
        Requirement::Provider(number, _) => named.contains(number),
        Requirement::Any(all) | Requirement::All(_, all) => all.iter().all(|part| only_of(part, named)),
        _ => true,
    }
}

/// Returns which requests of a cell pass, if they must also meet `conditions`.
pub(super) fn with_conditions(
    outcome: &Outcome,
    conditions: &[Condition],
    providers: &[Provider],
    cell: Cell<'_>,
    lost: &mut Lost,
) -> Outcome {
    let all = Condition::All(conditions.to_vec());
    let is_met = |lost: &mut Lost| all.needs(true, cell, None, lost).iter().any(Needs::is_empty);
    match outcome {
        Outcome::Public => {
            if is_met(lost) {
                Outcome::Public
            } else {
                Outcome::REFUSED
            }
        }
        Outcome::Checked { anonymous, seen, grants } => {
            let is_open = *anonymous != Anonymous::Refused && is_met(lost);
            let anonymous = if is_open { *anonymous } else { Anonymous::Refused };
            let mut all_grants: Vec<Grant> = Vec::new();
            for grant in grants {
                let provider = providers.get(grant.provider);
                for needs in all.needs(true, cell, provider, lost) {
                    let grant = Grant { needs: grant.needs.and(&needs), ..grant.clone() };
                    if !all_grants.contains(&grant) {
                        all_grants.push(grant);
                    }
                }
            }
            Outcome::checked(anonymous, seen.clone(), all_grants)
        }
    }
}
