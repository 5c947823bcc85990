use alloc::{string::String, vec::Vec};
use core::net::IpAddr;

use bundle::{Scope, Snapshot, Standing};
use token::{Claims, Fingerprint, Unverified};

use crate::{
    CredentialSource, Freshness, Policy, Reason, Tokens, claim, credential,
    permission::{self, Question, Ruling},
    route::{Access, Demand, Route, Staleness},
};

/// Decides about requests by one policy.
#[derive(Debug)]
pub struct Gate {
    policy: Policy,
}

#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "one is made for every request: a box would be an allocation each"
)]
pub enum Verdict {
    Admit(Admission),
    Refuse(Reason),
    /// It may pass without an identity: [`Gate::forward_anonymous`].
    Pass(Passage),
}

/// Why a request passes without a credential. Only rules make it so; a policy without rules has none of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passage {
    /// The rule is public.
    Public,
    /// The rule is optional, and no credential was sent.
    Anonymous,
    /// A CORS preflight, which the upstream is to answer.
    Preflight,
}

/// The proof that a request may pass: only [`Gate::decide`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    claims: Claims,
    fingerprint: Fingerprint,
}

impl Admission {
    pub const fn claims(&self) -> &Claims {
        &self.claims
    }

    pub const fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }
}

impl Gate {
    pub const fn new(policy: Policy) -> Self {
        Self { policy }
    }

    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// As [`decide_from`](Self::decide_from), for a caller that does not know whom the request comes from: no condition
    /// on the address of the client holds.
    pub fn decide<'r>(
        &self,
        headers: impl Iterator<Item = (&'r str, &'r [u8])> + Clone,
        snapshot: Option<&Snapshot>,
        now: u64,
    ) -> Verdict {
        self.decide_from(None, headers, snapshot, now)
    }

    /// Whether [`decide_from`](Self::decide_from) makes anything of the peer: else a host can spare itself asking.
    pub fn asks_for_peer(&self) -> bool {
        self.policy.client_address.is_none() && self.policy.rules.ask_for_permissions()
    }

    /// `headers` with `:method`, `:path` and `:authority` (or `host`) where the policy has rules; `peer` is the other
    /// end of the connection; `now` in milliseconds since the Unix epoch.
    pub fn decide_from<'r>(
        &self,
        peer: Option<IpAddr>,
        headers: impl Iterator<Item = (&'r str, &'r [u8])> + Clone,
        snapshot: Option<&Snapshot>,
        now: u64,
    ) -> Verdict {
        if headers.clone().count() > MAX_HEADERS {
            return Verdict::Refuse(Reason::TooManyHeaders);
        }
        let route = match self.policy.rules.route(self.policy.unmatched, headers.clone()) {
            Ok(route) => route,
            Err(reason) => return Verdict::Refuse(reason),
        };
        if route.preflight {
            return Verdict::Pass(Passage::Preflight);
        }
        if route.access == Access::Public {
            return Verdict::Pass(Passage::Public);
        }
        match self.admit(&route, peer, headers, snapshot, now) {
            Ok(admission) => Verdict::Admit(admission),
            Err(Reason::CredentialMissing) if route.access == Access::Optional => {
                Verdict::Pass(Passage::Anonymous)
            }
            Err(reason) => Verdict::Refuse(reason),
        }
    }

    /// Strict parse -> key -> signature -> claims -> watermarks -> revocations -> freshness -> what the rule demands.
    fn admit<'r>(
        &self,
        route: &Route<'_, '_>,
        peer: Option<IpAddr>,
        headers: impl Iterator<Item = (&'r str, &'r [u8])> + Clone,
        snapshot: Option<&Snapshot>,
        now: u64,
    ) -> Result<Admission, Reason> {
        let presented = self.presented(route, headers.clone(), snapshot.is_some())?;
        let snapshot = snapshot.ok_or(Reason::BundleMissing)?;
        let token = Unverified::parse(presented).map_err(Reason::Token)?;
        let key = snapshot.key(token.kid()).ok_or(Reason::KeyUnknown)?;
        let authentic = token.verify(key).map_err(Reason::Token)?;
        let claims = authentic.claims().ok_or(Reason::KeyUnknown)?;
        let seconds = now.checked_div(1000).unwrap_or_default();
        check_claims(claims, &self.policy.tokens, seconds)?;
        if snapshot.watermark(scopes(claims, key.kid())).is_some_and(|instant| claims.iat <= instant) {
            return Err(Reason::Watermark);
        }
        if authentic.fingerprints().any(|one| snapshot.standing(&one) != Standing::Good) {
            return Err(Reason::Revoked);
        }
        // After these, so that a stale bundle still refuses what it names by that name.
        if !self.is_fresh_enough(route, snapshot, claims, now) {
            return Err(Reason::BundleStale);
        }
        let variables = route.variables();
        if let Some(demand) = route.demand {
            check_demand(demand, claims)?;
            claim::check(authentic.members(), &demand.claims, &demand.scopes, &variables)?;
        }
        if let Some(api) = route.permission {
            let client = match &self.policy.client_address {
                Some(source) => source.find(headers),
                None => peer,
            };
            let user_name = user_name(claims);
            check_permission(
                claims,
                snapshot,
                &Question { api, user_name, client, now: seconds, variables: &variables },
            )?;
        }
        Ok(Admission { claims: claims.clone(), fingerprint: authentic.fingerprint() })
    }

    /// The one credential of the request, if the rule accepts it there. Where there is no bundle, and so nothing to
    /// check it with, it is only looked for where the rule can do without.
    fn presented<'r>(
        &self,
        route: &Route<'_, '_>,
        headers: impl Iterator<Item = (&'r str, &'r [u8])> + Clone,
        has_bundle: bool,
    ) -> Result<&'r [u8], Reason> {
        if !has_bundle && route.access == Access::Required {
            return Err(Reason::BundleMissing);
        }
        // All places first: a second credential is never overlooked, wherever it is.
        let presented = credential::find(&self.policy.credentials, headers.clone())?;
        let accepted = route.demand.map_or(&[][..], |demand| &demand.credentials);
        if accepted.is_empty() {
            return Ok(presented);
        }
        let is_accepted = |source: &&CredentialSource| accepted.contains(&source.header);
        let sources: Vec<_> = self.policy.credentials.iter().filter(is_accepted).cloned().collect();
        credential::find(&sources, headers)
    }

    fn is_fresh_enough(&self, route: &Route<'_, '_>, snapshot: &Snapshot, claims: &Claims, now: u64) -> bool {
        let grace = match route.demand.and_then(|demand| demand.staleness) {
            None => self.policy.outage_grace_seconds,
            Some(Staleness::Deny) => 0,
            Some(Staleness::OutageGraceSeconds(seconds)) => seconds,
            Some(Staleness::IssuedWithinSeconds(seconds)) => {
                let recent = now < claims.iat.saturating_add(seconds).saturating_mul(1000);
                return recent || Freshness::of(snapshot.manifest(), 0, now) == Freshness::Fresh;
            }
        };
        Freshness::of(snapshot.manifest(), grace.saturating_mul(1000), now) != Freshness::Expired
    }

    /// By the policy as a whole; a rule may have its own.
    pub fn freshness(&self, snapshot: &Snapshot, now: u64) -> Freshness {
        let grace = self.policy.outage_grace_seconds.saturating_mul(1000);
        Freshness::of(snapshot.manifest(), grace, now)
    }

    /// The headers that the upstream gets: every identity header a client could have sent is gone, in whatever
    /// spelling; the credential too, unless configured otherwise; ours are added.
    pub fn forward<'r>(
        &self,
        headers: impl Iterator<Item = (&'r str, &'r [u8])>,
        admission: &Admission,
    ) -> Vec<(String, Vec<u8>)> {
        let identity_prefix = &self.policy.identity_prefix;
        let mut forwarded = self.forward_anonymous(headers);
        let Claims { sub, operator, akid, sid, .. } = &admission.claims;
        let fingerprint = String::from(admission.fingerprint);
        for (name, value) in [
            ("subject", Some(sub)),
            ("operator", Some(&operator.operator_id)),
            ("authkey", akid.as_ref()),
            ("session", sid.as_ref()),
            ("fingerprint", Some(&fingerprint)),
        ] {
            if let Some(value) = value {
                forwarded.push(([identity_prefix, name].concat(), value.clone().into_bytes()));
            }
        }
        forwarded
    }

    /// The trailers that the upstream gets, where some were sent that look like an identity or a credential; else none
    /// need be changed. HTTP lets a server take trailers for headers (RFC 9110 section 6.5).
    pub fn forward_trailers<'r>(
        &self,
        trailers: impl ExactSizeIterator<Item = (&'r str, &'r [u8])>,
    ) -> Option<Vec<(String, Vec<u8>)>> {
        let sent = trailers.len();
        let kept = self.forward_anonymous(trailers);
        (kept.len() < sent).then_some(kept)
    }

    /// The headers that the upstream gets of a request that may pass without an identity: it gets none, whatever the
    /// client sent. A credential that nobody checked is taken away too, unless configured otherwise.
    pub fn forward_anonymous<'r>(
        &self,
        headers: impl Iterator<Item = (&'r str, &'r [u8])>,
    ) -> Vec<(String, Vec<u8>)> {
        let Policy { identity_prefix, credentials, strip_credential, .. } = &self.policy;
        let stripped = |name: &str| {
            *strip_credential && credentials.iter().any(|source| source.header.eq_ignore_ascii_case(name))
        };
        let kept = headers.filter(|(name, _)| !starts_like(name, identity_prefix) && !stripped(name));
        kept.map(|(name, value)| (String::from(name), Vec::from(value))).collect()
    }
}

fn check_claims(claims: &Claims, expected: &Tokens, now: u64) -> Result<(), Reason> {
    let Tokens { issuer, audiences, leeway_seconds: leeway } = expected;
    if claims.iss != *issuer {
        return Err(Reason::IssuerUnknown);
    }
    // RFC 7519 section 4.1.4: "on or after" the instant it is expired.
    if now >= claims.exp.saturating_add(*leeway) {
        return Err(Reason::Expired);
    }
    if claims.nbf.is_some_and(|from| now.saturating_add(*leeway) < from) {
        return Err(Reason::NotYetValid);
    }
    // Else a watermark could be outrun by a date.
    if now.saturating_add(*leeway) < claims.iat {
        return Err(Reason::IssuedInFuture);
    }
    if !claims.aud.iter().any(|audience| audiences.contains(audience)) {
        return Err(Reason::AudienceMismatch);
    }
    Ok(())
}

/// What the rule narrows of what the policy accepts.
fn check_demand(demand: &Demand, claims: &Claims) -> Result<(), Reason> {
    let Demand { issuers, audiences, .. } = demand;
    if !issuers.is_empty() && !issuers.contains(&claims.iss) {
        return Err(Reason::IssuerNotAccepted);
    }
    if !audiences.is_empty() && !claims.aud.iter().any(|audience| audiences.contains(audience)) {
        return Err(Reason::AudienceMismatch);
    }
    Ok(())
}

fn check_permission(claims: &Claims, snapshot: &Snapshot, question: &Question<'_>) -> Result<(), Reason> {
    // The root user of an operator may do everything, whatever anybody granted.
    if claims.sub == claims.operator.operator_id {
        return Ok(());
    }
    let grant = snapshot.grant(&claims.sub).ok_or(Reason::PermissionDenied)?;
    match permission::evaluate(grant, question) {
        Ok(Ruling::Allowed) => Ok(()),
        // Malformed statements allow nothing.
        Ok(Ruling::Denied | Ruling::NotAllowed) | Err(_) => Err(Reason::PermissionDenied),
    }
}

/// None for the root user.
fn user_name(claims: &Claims) -> Option<&str> {
    claims.sub.strip_prefix(&claims.operator.operator_id)?.strip_prefix('/')
}

/// Everything a watermark can be set on that this credential belongs to.
fn scopes<'c>(claims: &'c Claims, kid: &'c str) -> impl Iterator<Item = Scope<'c>> {
    let always = [
        Scope::Global,
        Scope::SigningKey(kid),
        Scope::Operator(&claims.operator.operator_id),
        Scope::User(&claims.sub),
    ];
    let auth_key = claims.akid.as_deref().map(Scope::AuthKey);
    let session = claims.sid.as_deref().map(Scope::Session);
    always.into_iter().chain(auth_key).chain(session)
}

/// CGI and its heirs (RFC 3875 section 4.1.18) put `_` for `-`, some for every character that is no letter or digit:
/// to them `x.keystile.subject` is ours, so it is to us.
fn starts_like(name: &str, prefix: &str) -> bool {
    let fold = |byte: u8| if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'-' };
    let start = name.bytes().take(prefix.len()).map(fold);
    name.len() >= prefix.len() && start.eq(prefix.bytes().map(fold))
}

/// Envoy's proxy-wasm host takes at most 1,024 headers back, and drops them all when there are more; ours need room.
const MAX_HEADERS: usize = 1000;
