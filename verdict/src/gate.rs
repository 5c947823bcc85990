use alloc::{sync::Arc, vec::Vec};
use core::net::IpAddr;

use bundle::{RevocationStatus, Snapshot};
use token::{SignatureVerifier, Unaided, Unverified, api_key, secret};

use crate::{
    Admission, Cache, Freshness, Identity, Policy, Reason, Verdict, claim,
    credential::{self, Found},
    freshness::StalePolicy,
    permission::{self, Question, Ruling},
    policy::{Mode, Uncovered},
    route::{Access, Demand, Route},
    upstream::Names,
    verdict::{Passage, Refusal},
};

/// The headers of a request, in the order they came, with `:method`, `:path` and `:authority` (or `host`) where the
/// policy has rules or credentials in the query.
pub type Headers<'r> = [(&'r str, &'r [u8])];

/// What is decided about.
#[derive(Debug, Clone, Copy)]
pub struct Request<'r> {
    /// The headers as the client sent them.
    pub headers: &'r Headers<'r>,
    /// Whom the host takes for the client; None: no condition on the address of the client holds.
    pub peer: Option<IpAddr>,
    /// What the edge knows; `None` while no bundle is loaded.
    pub snapshot: Option<&'r Snapshot>,
    /// Milliseconds since the Unix epoch.
    pub now: u64,
}

/// Decides about requests by one policy.
#[derive(Debug)]
pub struct Gate {
    policy: Policy,
    names: Names,
}

impl Gate {
    /// Returns a gate that decides by `policy`.
    pub fn new(policy: Policy) -> Self {
        let names = Names::new(&policy.identity_prefix, &policy.identity);
        Self { policy, names }
    }

    /// Returns the policy that the gate decides by.
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    pub(crate) const fn names(&self) -> &Names {
        &self.names
    }

    /// Decides as [`decide_with`](Self::decide_with) does, for a caller without a cache and without help.
    ///
    /// ```
    /// use verdict::{Gate, Policy, Reason, Verdict};
    ///
    /// let policy = Policy::from_json(
    ///     br#"{
    ///         "audience": "default",
    ///         "root_keys": ["11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"],
    ///         "control_plane": { "cluster": "keystile" },
    ///         "tokens": { "issuer": "https://keystile.local", "audiences": ["api"] }
    ///     }"#,
    /// )?;
    /// let gate = Gate::new(policy);
    /// let headers = [("authorization", b"Bearer eyJ..".as_slice())];
    /// // No bundle is loaded yet, so nobody knows what is revoked.
    /// let Verdict::Refuse(refusal) = gate.decide(headers.into_iter(), None, 1_700_000_000_000) else {
    ///     panic!("nothing passes without a bundle");
    /// };
    /// assert_eq!(refusal.reason(), Reason::BundleMissing);
    /// assert_eq!(gate.answer(&refusal, None).status, 503);
    /// # Ok::<(), verdict::PolicyError>(())
    /// ```
    pub fn decide<'r>(
        &self,
        headers: impl Iterator<Item = (&'r str, &'r [u8])>,
        snapshot: Option<&Snapshot>,
        now: u64,
    ) -> Verdict {
        let headers: Vec<_> = headers.collect();
        let request = Request { headers: &headers, peer: None, snapshot, now };
        self.decide_with(&request, &mut Cache::none(), &Unaided)
    }

    /// Whether [`decide_with`](Self::decide_with) makes anything of the peer: else a host can spare itself asking.
    pub fn asks_for_peer(&self) -> bool {
        self.policy.client_address.is_none() && self.policy.rules.ask_for_permissions()
    }

    /// Whether anything is only reported: else a host can spare itself the counters.
    pub fn reports(&self) -> bool {
        self.policy.mode == Mode::Report || self.policy.rules.have(Mode::Report)
    }

    /// Decides about a request.
    ///
    /// An authentic credential is remembered in `cache`, and signatures are verified by `verifier`. Whether the credential
    /// is good is looked up in the snapshot every time.
    pub fn decide_with(
        &self,
        request: &Request<'_>,
        cache: &mut Cache,
        verifier: &dyn SignatureVerifier,
    ) -> Verdict {
        let headers = request.headers;
        // Whatever the mode: a host that drops them all would drop those that say who it is.
        if headers.len() > MAX_HEADERS.saturating_sub(self.policy.identity.claims.len()) {
            return Verdict::Refuse(Reason::TooManyHeaders.into());
        }
        let route = match self.policy.rules.route(
            self.policy.unmatched,
            self.policy.path_case,
            headers.iter().copied(),
        ) {
            Ok(route) => route,
            // To a reader of other spellings it may be under any rule, so under one that enforces.
            Err(reason @ Reason::Unroutable(_)) if self.policy.rules.have(Mode::Enforce) => {
                return Verdict::Refuse(reason.into());
            }
            Err(reason) => return refused(reason.into(), self.policy.mode),
        };
        if route.preflight {
            return Verdict::Pass(Passage::Preflight);
        }
        if route.access == Access::Public {
            return Verdict::Pass(Passage::Public);
        }
        let mode = route.demand.and_then(|demand| demand.mode).unwrap_or(self.policy.mode);
        match self.admit(&route, mode, request, cache, verifier) {
            Ok(admission) => Verdict::Admit(admission),
            Err(refusal)
                if refusal.reason() == Reason::CredentialMissing && route.access == Access::Optional =>
            {
                Verdict::Pass(Passage::Anonymous)
            }
            Err(refusal) => refused(refusal, mode),
        }
    }

    /// Authentic -> claims -> watermarks -> gaps -> revocations -> freshness -> what the rule demands.
    fn admit(
        &self,
        route: &Route<'_, '_>,
        mode: Mode,
        request: &Request<'_>,
        cache: &mut Cache,
        verifier: &dyn SignatureVerifier,
    ) -> Result<Admission, Refusal> {
        let found = self.presented(route, request)?;
        let snapshot = request.snapshot.ok_or(Reason::BundleMissing)?;
        let identity = self.authentic(&found, request.headers, snapshot, cache, verifier)?;
        let refused = |reason| Refusal::new(reason, Some(Arc::clone(&identity)), route.rule);
        self.check_pair(&found, request.headers, &identity).map_err(refused)?;
        let seconds = request.now.div_euclid(1000);
        self.check_time(&identity, seconds).map_err(refused)?;
        if snapshot.watermark(identity.scopes()).is_some_and(|instant| identity.issued_at() <= instant) {
            return Err(refused(Reason::Watermark));
        }
        // Before any base is asked: it answers for what it does not know, and at random.
        if identity.is_ours() && snapshot.is_issuance_unknown(&identity.fingerprint(), identity.issued_at()) {
            return Err(refused(Reason::IssuanceUnknown));
        }
        for one in identity.fingerprints() {
            let (kid, iat, exp) = (identity.signed_by(), identity.issued_at(), identity.expires_at());
            match (snapshot.revocation_status(&one, kid, iat, exp), self.policy.uncovered) {
                (RevocationStatus::Good, _) | (RevocationStatus::NotCovered, Uncovered::Admit) => {}
                (RevocationStatus::NotCovered, Uncovered::Deny) => return Err(refused(Reason::NotCovered)),
                (RevocationStatus::Revoked, _) => return Err(refused(Reason::Revoked)),
            }
        }
        // After these, so that a stale bundle still refuses what it names by that name.
        let stale = self.check_freshness(route, snapshot, &identity, request.now).map_err(refused)?;
        let reported = match check_demands(route, &self.policy, &identity, snapshot, request) {
            Ok(()) => None,
            // It is known who asks, and nothing is enforced: the upstream is told who.
            Err(reason) if mode == Mode::Report => Some(reason),
            Err(reason) => return Err(refused(reason)),
        };
        Ok(Admission::new(identity, stale, reported))
    }

    /// The one credential of the request, if the rule accepts it there. Where there is no bundle, and so nothing to
    /// check it with, it is only looked for where the rule can do without.
    fn presented<'r>(&self, route: &Route<'_, '_>, request: &Request<'r>) -> Result<Found<'r, '_>, Reason> {
        if request.snapshot.is_none() && route.access == Access::Required {
            return Err(Reason::BundleMissing);
        }
        // All places first: a second credential is never overlooked, wherever it is.
        let found = credential::find(&self.policy.credentials, request.headers)?;
        let accepted = route.demand.map_or(&[][..], |demand| &demand.credentials);
        let is_accepted = accepted.is_empty() || accepted.iter().any(|name| name == found.source.name());
        if is_accepted { Ok(found) } else { Err(Reason::CredentialMisplaced) }
    }

    /// From the cache, if the key that opened it then is still there.
    fn authentic(
        &self,
        found: &Found<'_, '_>,
        headers: &Headers<'_>,
        snapshot: &Snapshot,
        cache: &mut Cache,
        verifier: &dyn SignatureVerifier,
    ) -> Result<Arc<Identity>, Reason> {
        let prefixes = self.policy.api_keys.iter().flat_map(|api_keys| &api_keys.prefixes);
        let is_api_key =
            prefixes.into_iter().any(|prefix| found.credential.starts_with(prefix.as_str().as_bytes()));
        let username = match &self.policy.api_keys {
            Some(api_keys) if is_api_key => credential::companion(&api_keys.username_header, headers)?,
            _ => &[],
        };
        let key = cache.key(found.credential, username);
        if let Some(identity) = cache.get(key).filter(|identity| identity.key_stands(snapshot)) {
            return Ok(identity);
        }
        let identity = Arc::new(if is_api_key {
            self.open_api_key(found.credential, username, snapshot)?
        } else {
            self.open_token(found.credential, snapshot, verifier)?
        });
        cache.put(key, Arc::clone(&identity));
        Ok(identity)
    }

    fn open_api_key(
        &self,
        credential: &[u8],
        username: &[u8],
        snapshot: &Snapshot,
    ) -> Result<Identity, Reason> {
        let prefixes = self.policy.api_keys.as_ref().map_or(&[][..], |api_keys| &api_keys.prefixes);
        let key = api_key::Unverified::parse(credential, prefixes).map_err(Reason::ApiKey)?;
        let opened_by = snapshot.generation_key(key.generation()).ok_or(Reason::GenerationUnknown)?;
        // What is no text stands under no proof, so it fails as a wrong one does.
        let username = core::str::from_utf8(username).unwrap_or("\u{fffd}");
        let authentic = key.verify(opened_by, username).map_err(Reason::ApiKey)?;
        Identity::of_api_key(&authentic, opened_by)
    }

    /// Strict parse -> issuer -> key -> signature -> what does not change while it lives.
    fn open_token(
        &self,
        credential: &[u8],
        snapshot: &Snapshot,
        verifier: &dyn SignatureVerifier,
    ) -> Result<Identity, Reason> {
        let Policy { tokens, issuers, identity: upstream, rules, .. } = &self.policy;
        let token = Unverified::parse_prefixed(credential, &tokens.prefixes).map_err(Reason::Token)?;
        let other = issuers.iter().find(|other| other.issuer == token.issuer());
        let key = match other {
            _ if token.issuer() == tokens.issuer => snapshot.key(token.kid()),
            Some(other) => snapshot.issuer_key(&other.issuer, token.kid()),
            None => return Err(Reason::IssuerUnknown),
        };
        let key = key.ok_or(Reason::KeyUnknown)?;
        let authentic = token.verify_by(key, verifier).map_err(Reason::Token)?;
        let mut identity = match other {
            None => {
                let ours = &tokens.audiences;
                if !authentic.audiences().any(|audience| ours.iter().any(|known| known == audience)) {
                    return Err(Reason::AudienceMismatch);
                }
                Identity::of_own_token(&authentic, key).ok_or(Reason::KeyUnknown)?
            }
            Some(other) => {
                other.check(&authentic)?;
                Identity::of_other_token(&authentic, key).ok_or(Reason::TokenIncomplete)?
            }
        };
        let looked_at = authentic.members().iter().filter(|(name, _)| rules.look_at(name));
        identity.members = looked_at.map(|(name, value)| (name.clone(), value.clone())).collect();
        identity.claims = upstream.claims(authentic.members());
        Ok(identity)
    }

    /// Soracom's pair: the token names the session, and the other header must too.
    fn check_pair(
        &self,
        found: &Found<'_, '_>,
        headers: &Headers<'_>,
        identity: &Identity,
    ) -> Result<(), Reason> {
        let Some(pair) = found.source.pair() else { return Ok(()) };
        let sent = credential::companion(pair, headers)?;
        let named = identity.session().filter(|session| secret::same(session.as_bytes(), sent));
        named.map(|_| ()).ok_or(Reason::PairMismatch)
    }

    fn check_time(&self, identity: &Identity, now: u64) -> Result<(), Reason> {
        let leeway = self.policy.tokens.leeway_seconds;
        // RFC 7519 section 4.1.4: "on or after" the instant it is expired.
        if identity.expires_at().is_some_and(|expires_at| now >= expires_at.saturating_add(leeway)) {
            return Err(if identity.is_api_key() { Reason::ApiKeyExpired } else { Reason::Expired });
        }
        if identity.not_before().is_some_and(|from| now.saturating_add(leeway) < from) {
            return Err(Reason::NotYetValid);
        }
        // Else a watermark could be outrun by a date.
        if now.saturating_add(leeway) < identity.issued_at() {
            return Err(Reason::IssuedInFuture);
        }
        Ok(())
    }

    /// By which policy it is admitted although nothing fresh is known, if so.
    fn check_freshness(
        &self,
        route: &Route<'_, '_>,
        snapshot: &Snapshot,
        identity: &Identity,
        now: u64,
    ) -> Result<Option<StalePolicy>, Reason> {
        let policy = self.stale_policy(route.demand);
        if Freshness::of(snapshot, 0, now) == Freshness::Fresh {
            return Ok(None);
        }
        if policy.admits(snapshot, identity.issued_at(), now) {
            Ok(Some(policy))
        } else {
            Err(policy.reason())
        }
    }

    pub(crate) fn stale_policy(&self, demand: Option<&Demand>) -> StalePolicy {
        let usual = StalePolicy::OutageGraceSeconds(self.policy.outage_grace_seconds);
        demand.and_then(|demand| demand.staleness).unwrap_or(usual)
    }

    /// By the policy as a whole; a rule may have its own.
    pub fn freshness(&self, snapshot: &Snapshot, now: u64) -> Freshness {
        let grace = self.policy.outage_grace_seconds.saturating_mul(1000);
        Freshness::of(snapshot, grace, now)
    }
}

fn refused(refusal: Refusal, mode: Mode) -> Verdict {
    match mode {
        Mode::Enforce => Verdict::Refuse(refusal),
        Mode::Report => Verdict::Pass(Passage::Reported(refusal)),
    }
}

/// What the rule demands of a good credential.
fn check_demands(
    route: &Route<'_, '_>,
    policy: &Policy,
    identity: &Identity,
    snapshot: &Snapshot,
    request: &Request<'_>,
) -> Result<(), Reason> {
    if route.demand.is_none() && route.permission.is_none() {
        return Ok(());
    }
    let variables = route.variables();
    if let Some(demand) = route.demand {
        let Demand { issuers, audiences, claims, scopes, .. } = demand;
        let issuer = identity.issuer().unwrap_or(&policy.tokens.issuer);
        if !issuers.is_empty() && !issuers.iter().any(|known| known == issuer) {
            return Err(Reason::IssuerNotAccepted);
        }
        let members = &identity.members;
        if !audiences.is_empty() && !claim::is_for(members, audiences) {
            return Err(Reason::AudienceMismatch);
        }
        claim::check(members, claims, scopes, &variables)?;
    }
    if let Some(api) = route.permission {
        let client = match &policy.client_address {
            Some(source) => source.find(request.headers.iter().copied()),
            None => request.peer,
        };
        let now = request.now.div_euclid(1000);
        let user_name = identity.user_name();
        let question = Question { api, user_name, client, now, variables: &variables };
        check_permission(identity, snapshot, &question)?;
    }
    Ok(())
}

fn check_permission(identity: &Identity, snapshot: &Snapshot, question: &Question<'_>) -> Result<(), Reason> {
    if identity.is_root() {
        return Ok(());
    }
    let grant = snapshot.grant_by_key(identity.grantee()).ok_or(Reason::PermissionDenied)?;
    match permission::evaluate(grant, question) {
        Ok(Ruling::Allowed) => Ok(()),
        // Malformed statements allow nothing.
        Ok(Ruling::Denied | Ruling::NotAllowed) | Err(_) => Err(Reason::PermissionDenied),
    }
}

/// Envoy's proxy-wasm host takes at most 1,024 headers back, and drops them all when there are more; ours need room,
/// and one each for the claims that the upstream gets.
const MAX_HEADERS: usize = 1000;
