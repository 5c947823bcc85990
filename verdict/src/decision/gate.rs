//! The gate: decides about requests.

use alloc::{borrow::Cow, boxed::Box, string::String, sync::Arc, vec::Vec};
use core::net::IpAddr;

use bundle::{NoKey, RevocationStatus, Snapshot};
use token::{SignatureVerifier, SoftwareVerifier, Unverified, api_key, secret};

use crate::{
    config::{
        Policy,
        policy::{Mode, PolicyMembers, UncoveredPolicy},
    },
    credential::{self, CredentialSource, PresentedCredential},
    decision::{
        Admission, Decision, PassReason, Reason, Refusal, Stripping,
        route::{Access, Conditions, Requirements, Route},
    },
    identity::{Cache, ForeignIssuer, Identity, claim},
    permission::{self, AccessDecision, AccessRequest},
    response::upstream::HeaderNames,
    sync::{Freshness, freshness::StalePolicy},
};

/// The maximum number of request headers. Envoy's proxy-wasm host accepts at most 1,024 headers from a filter and drops
/// all of them above that limit. The difference is for the headers that the filter adds; each claim header reduces the
/// maximum by one.
const MAX_HEADERS: usize = 1000;

/// The headers of a request in the order received. They include `:method`, `:path` and `:authority` (or `host`) if the
/// policy has rules or accepts credentials in the query.
pub type Headers<'r> = [(&'r str, &'r [u8])];

/// The input of a decision.
#[derive(Debug, Clone, Copy)]
pub struct Request<'r> {
    /// The headers as received from the client.
    pub headers: &'r Headers<'r>,
    /// The client address as reported by the host. Without it, conditions on the client address are unknown.
    pub peer: Option<IpAddr>,
    /// The current bundle, or `None` if none is loaded yet.
    pub snapshot: Option<&'r Snapshot>,
    /// The current time in milliseconds since the Unix epoch.
    pub now: u64,
}

/// A credential without a request, for [`Gate::verify`].
#[derive(Clone, Copy, Default)]
pub struct BareCredential<'c> {
    /// The credential, without the scheme or prefix that a location of the policy demands.
    pub credential: &'c [u8],
    /// The username that belongs to an API key, or empty.
    pub username: &'c [u8],
    /// The value of the header that accompanies a token (`pair` of a location), or empty.
    pub paired: &'c [u8],
}

// Implemented by hand so that the credential is not printed.
impl core::fmt::Debug for BareCredential<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("BareCredential(..)")
    }
}

/// Decides about requests according to one policy.
#[derive(Debug)]
pub struct Gate {
    policy: Policy,
    names: HeaderNames,
}

impl Gate {
    /// Creates a gate for `policy`.
    pub fn new(policy: Policy) -> Self {
        let names = HeaderNames::new(&policy.identity_prefix, &policy.identity);
        Self { policy, names }
    }

    /// Returns one of the issuers whose tokens named keys that the bundle lacks, as recorded in the cache, and removes it
    /// from there. The control plane may be asked to fetch its keys.
    pub fn take_issuer_with_missing_key(&self, cache: &mut Cache) -> Option<&str> {
        let at = cache.take_missing_key()?;
        self.policy.issuers.get(at).map(|other| other.issuer.as_str())
    }

    /// Returns the policy of this gate.
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    pub(crate) const fn names(&self) -> &HeaderNames {
        &self.names
    }

    /// Decides like [`decide_with`](Self::decide_with), without a cache and with software signature verification.
    ///
    /// ```
    /// use verdict::{Decision, Gate, Policy, Reason};
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
    /// // No bundle is loaded yet, so revocations are unknown.
    /// let Decision::Refuse(refusal) = gate.decide(headers.into_iter(), None, 1_700_000_000_000) else {
    ///     panic!("refused without a bundle");
    /// };
    /// assert_eq!(refusal.reason(), Reason::BundleMissing);
    /// assert_eq!(gate.refusal_response(&refusal, None).status, 503);
    /// # Ok::<(), verdict::PolicyError>(())
    /// ```
    pub fn decide<'r>(
        &self,
        headers: impl Iterator<Item = (&'r str, &'r [u8])>,
        snapshot: Option<&Snapshot>,
        now: u64,
    ) -> Decision {
        let headers: Vec<_> = headers.collect();
        let request = Request { headers: &headers, peer: None, snapshot, now };
        self.decide_with(&request, &mut Cache::disabled(), &SoftwareVerifier)
    }

    /// Returns whether [`decide_with`](Self::decide_with) uses the peer address. If not, the host need not look it up.
    pub fn needs_peer_address(&self) -> bool {
        self.policy.client_address.is_none() && self.policy.rules.require_permissions()
    }

    /// Returns whether the policy or one of its rules is in report mode. If not, the host need not define the counters
    /// of report mode.
    pub fn has_report_mode(&self) -> bool {
        self.policy.mode == Mode::Report || self.policy.rules.any_in_mode(Mode::Report)
    }

    /// Decides about a request.
    ///
    /// Successful authentication is cached in `cache`, and `verifier` verifies signatures. Whether the credential is
    /// still valid is looked up in the snapshot on every request.
    pub fn decide_with(
        &self,
        request: &Request<'_>,
        cache: &mut Cache,
        verifier: &dyn SignatureVerifier,
    ) -> Decision {
        let headers = request.headers;
        // Checked in report mode too: a host that drops all headers above its limit would also drop the identity
        // headers.
        if headers.len() > MAX_HEADERS.saturating_sub(self.policy.identity.claims.len()) {
            return Decision::Refuse(Reason::TooManyHeaders.into());
        }
        let route = match self.policy.rules.route(
            self.policy.unmatched,
            self.policy.path_case,
            headers.iter().copied(),
        ) {
            Ok(route) => route,
            // An upstream may normalize this path differently and so match an enforcing rule.
            Err(reason @ Reason::AmbiguousRequest(_)) if self.policy.rules.any_in_mode(Mode::Enforce) => {
                return Decision::Refuse(reason.into());
            }
            Err(reason) => return apply_mode(reason.into(), self.policy.mode),
        };
        let strip_credential = route.requirements.and_then(|rule| rule.strip_credential);
        let stripping = |strip| if strip { Stripping::Credentials(route.rule) } else { Stripping::Nothing };
        let default_stripping = stripping(strip_credential.unwrap_or(self.policy.strip_credential));
        if route.preflight {
            return Decision::Pass(PassReason::Preflight(default_stripping));
        }
        if route.access == Access::Public {
            // The credential may be for the upstream itself, so only a rule can have it removed.
            return Decision::Pass(PassReason::Public(stripping(strip_credential == Some(true))));
        }
        let mode = route.requirements.and_then(|requirements| requirements.mode).unwrap_or(self.policy.mode);
        match self.admit(&route, mode, default_stripping, request, cache, verifier) {
            Ok(admission) => Decision::Admit(admission),
            Err(refusal) if route.access == Access::Optional => {
                let ignores = route.requirements.is_some_and(|rule| rule.ignore_unusable_credentials);
                // It has not been verified, so only the rule itself can have it forwarded.
                let is_removed = strip_credential != Some(false);
                match refusal.reason() {
                    Reason::CredentialMissing => Decision::Pass(PassReason::Anonymous(default_stripping)),
                    _ if ignores
                        && (refusal.counts_as_none(is_removed)
                            || self.is_opaque(&refusal, &route, request)) =>
                    {
                        Decision::Pass(PassReason::Anonymous(stripping(is_removed)))
                    }
                    _ => apply_mode(refusal, mode),
                }
            }
            Err(refusal) => apply_mode(refusal, mode),
        }
    }

    /// Returns whether a credential that is no token of any issuer cannot be one in another spelling either: it has neither
    /// dots nor percent-encoding, nor one of the prefixes. What an upstream decodes from it is no revoked credential.
    fn is_opaque(&self, refusal: &Refusal, route: &Route<'_, '_>, request: &Request<'_>) -> bool {
        if refusal.reason() != Reason::Token(token::Error::Malformed) || refusal.names_claim() {
            return false;
        }
        let Ok(PresentedCredential { credential: Cow::Borrowed(text), .. }) =
            self.find_credential(route, request)
        else {
            return false;
        };
        let api_keys = self.policy.api_keys.iter().flat_map(|api_keys| &api_keys.prefixes);
        let mut prefixes = api_keys
            .map(|prefix| prefix.as_str())
            .chain(self.policy.tokens.prefixes.iter().map(String::as_str));
        let contains = |prefix: &str| text.windows(prefix.len().max(1)).any(|part| part == prefix.as_bytes());
        !text.contains(&b'.') && !text.contains(&b'%') && !prefixes.any(contains)
    }

    /// Checks in this order: authenticity, claims, watermarks, gaps in the issuance log, revocations, freshness,
    /// requirements of the rule.
    fn admit(
        &self,
        route: &Route<'_, '_>,
        mode: Mode,
        stripping: Stripping,
        request: &Request<'_>,
        cache: &mut Cache,
        verifier: &dyn SignatureVerifier,
    ) -> Result<Admission, Refusal> {
        let found = self.find_credential(route, request)?;
        let snapshot = request.snapshot.ok_or(Reason::BundleMissing)?;
        let kind = self.kind(&found.credential);
        let username = self.username(kind, request.headers)?;
        let identity = self.authenticate(&found.credential, kind, username, snapshot, cache, verifier)?;
        let refused = |reason| Refusal::new(reason, Some(Arc::clone(&identity)), route.rule);
        self.check_paired_header(&found, request.headers, &identity).map_err(refused)?;
        self.check_validity(&identity, snapshot, request.now).map_err(refused)?;
        // Checked after revocation, so that a stale bundle still reports a revoked credential as revoked.
        let stale = self
            .check_freshness(self.stale_policy(route.requirements), snapshot, &identity, request.now)
            .map_err(refused)?;
        let reported = match check_requirements(route, &self.policy, &identity, snapshot, request) {
            Ok(()) => None,
            // Report mode: the credential is valid, so the upstream receives the identity.
            Err(reason) if mode == Mode::Report => Some(reason),
            Err(reason) => return Err(refused(reason)),
        };
        Ok(Admission::new(identity, stale, reported, stripping))
    }

    /// Finds the only credential of the request in the locations that the rule searches. Without a bundle, credentials
    /// cannot be checked; they are then looked for only if the rule does not require one.
    fn find_credential<'r>(
        &self,
        route: &Route<'_, '_>,
        request: &Request<'r>,
    ) -> Result<PresentedCredential<'r, '_>, Reason> {
        if request.snapshot.is_none() && route.access == Access::Required {
            return Err(Reason::BundleMissing);
        }
        let (sources, all) = (self.sources(route.rule), &*self.policy.credentials);
        let found = credential::find(sources, request.headers);
        let is_missing = |found: &Result<_, _>| matches!(found, Err(Reason::CredentialMissing));
        // A client that must send a credential has sent one in another location.
        if route.access == Access::Required
            && is_missing(&found)
            && !core::ptr::eq(sources, all)
            && !is_missing(&credential::find(all, request.headers))
        {
            return Err(Reason::CredentialMisplaced);
        }
        found
    }

    /// Returns the locations of credentials that a rule searches.
    pub(crate) fn sources(&self, rule: Option<usize>) -> &[CredentialSource] {
        match rule.and_then(|rule| self.policy.rules.requirements(rule)) {
            Some(rule) if !rule.sources.is_empty() => &rule.sources,
            _ => &self.policy.credentials,
        }
    }

    /// Returns the credential that [`decide_with`](Self::decide_with) looks at, without verifying it. Returns `None` if
    /// there is none, or no single one.
    pub fn presented_credential<'r>(&self, request: &Request<'r>) -> Option<Cow<'r, [u8]>> {
        let headers = request.headers.iter().copied();
        let route = self.policy.rules.route(self.policy.unmatched, self.policy.path_case, headers).ok()?;
        self.find_credential(&route, request).ok().map(|found| found.credential)
    }

    /// Verifies a credential without a request, as a rule without requirements does. A token that was issued together with
    /// an API key needs it as `paired`, if a location of the policy demands the pair; so does any token, if all locations
    /// do. `now` is in milliseconds since the Unix epoch.
    ///
    /// # Errors
    ///
    /// Returns why the credential is refused, in report mode too.
    pub fn verify(
        &self,
        bare: BareCredential<'_>,
        snapshot: Option<&Snapshot>,
        now: u64,
        cache: &mut Cache,
        verifier: &dyn SignatureVerifier,
    ) -> Result<Arc<Identity>, Refusal> {
        let BareCredential { credential, username, paired } = bare;
        let snapshot = snapshot.ok_or(Reason::BundleMissing)?;
        if credential.is_empty() {
            return Err(Reason::CredentialMissing.into());
        }
        let kind = self.kind(credential);
        let username = if kind == CredentialKind::ApiKey { username } else { &[] };
        let identity = self.authenticate(credential, kind, username, snapshot, cache, verifier)?;
        let refused = |reason| Refusal::new(reason, Some(Arc::clone(&identity)), None);
        let demands_pair = |source: &CredentialSource| source.pair_header().is_some();
        let sources = &self.policy.credentials;
        if sources.iter().all(demands_pair)
            || identity.session().is_some() && sources.iter().any(demands_pair)
        {
            check_pair(&identity, paired).map_err(refused)?;
        }
        self.check_validity(&identity, snapshot, now).map_err(refused)?;
        self.check_freshness(self.stale_policy(None), snapshot, &identity, now).map_err(refused)?;
        Ok(identity)
    }

    fn kind(&self, credential: &[u8]) -> CredentialKind {
        let mut prefixes = self.policy.api_keys.iter().flat_map(|api_keys| &api_keys.prefixes);
        match prefixes.any(|prefix| credential.starts_with(prefix.as_str().as_bytes())) {
            true => CredentialKind::ApiKey,
            false => CredentialKind::Token,
        }
    }

    /// Returns the username that accompanies an API key, or an empty value.
    fn username<'r>(&self, kind: CredentialKind, headers: &Headers<'r>) -> Result<&'r [u8], Reason> {
        match (&self.policy.api_keys, kind) {
            (Some(api_keys), CredentialKind::ApiKey) => {
                credential::paired_header(&api_keys.username_header, headers)
            }
            _ => Ok(&[]),
        }
    }

    /// Authenticates the credential, from the cache if the key that verified it is still in the bundle.
    fn authenticate(
        &self,
        credential: &[u8],
        kind: CredentialKind,
        username: &[u8],
        snapshot: &Snapshot,
        cache: &mut Cache,
        verifier: &dyn SignatureVerifier,
    ) -> Result<Arc<Identity>, Refusal> {
        let key = cache.key(credential, username);
        if let Some(identity) = cache.get(key, snapshot) {
            return Ok(identity);
        }
        let identity = Arc::new(match kind {
            CredentialKind::ApiKey => self.verify_api_key(credential, username, snapshot)?,
            CredentialKind::Token => self.verify_token(credential, snapshot, cache, verifier)?,
        });
        cache.count_omitted_claims(identity.omitted_claims.into());
        cache.insert(key, Arc::clone(&identity), snapshot);
        Ok(identity)
    }

    /// Parses and verifies an API key.
    fn verify_api_key(
        &self,
        credential: &[u8],
        username: &[u8],
        snapshot: &Snapshot,
    ) -> Result<Identity, Reason> {
        let prefixes = self.policy.api_keys.as_ref().map_or(&[][..], |api_keys| &api_keys.prefixes);
        let key = api_key::Unverified::parse(credential, prefixes).map_err(Reason::ApiKey)?;
        let generation_key = snapshot.generation_key(key.generation()).ok_or(Reason::GenerationUnknown)?;
        // A username that is not UTF-8 is never signed. Verification fails as for a wrong username.
        let username = core::str::from_utf8(username).unwrap_or("\u{fffd}");
        let authentic = key.verify(generation_key, username).map_err(Reason::ApiKey)?;
        Identity::from_api_key(&authentic, generation_key)
    }

    /// Verifies a token: strict parsing, issuer, key, signature, and the claims that do not depend on the time.
    fn verify_token(
        &self,
        credential: &[u8],
        snapshot: &Snapshot,
        cache: &mut Cache,
        verifier: &dyn SignatureVerifier,
    ) -> Result<Identity, Refusal> {
        let PolicyMembers { tokens, issuers, identity: upstream, rules, .. } = &*self.policy;
        let max_bytes = usize::try_from(tokens.max_bytes).unwrap_or(usize::MAX);
        let token =
            Unverified::parse_prefixed(credential, &tokens.prefixes, max_bytes).map_err(Reason::Token)?;
        // No pattern of another issuer includes this deployment.
        let foreign_issuer = if token.issuer() == tokens.issuer {
            None
        } else {
            Some(ForeignIssuer::find(issuers, token.issuer()).ok_or(Reason::IssuerUnknown)?)
        };
        let key = match foreign_issuer {
            None => snapshot.key(token.kid()).ok_or(Reason::KeyUnknown)?,
            Some(other) => snapshot
                .issuer_key(&other.issuer, token.kid(), token.algorithm())
                .inspect_err(|why| {
                    if *why != NoKey::Ambiguous {
                        let at = issuers.iter().position(|known| known.issuer == other.issuer);
                        cache.record_missing_key(at);
                    }
                })
                .map_err(Reason::from)?,
        };
        let key_issuer = foreign_issuer.map_or("", |other| &other.issuer);
        let authentic = token.verify_for(key, key_issuer, verifier).map_err(|error| {
            // The signature of such a token is valid, so its claims are those of the issuer, and the name helps.
            let claim = token.malformed_claim().filter(|_| error == token::Error::Malformed);
            Refusal::of_claim(Reason::Token(error), claim.unwrap_or_default())
        })?;
        let mut identity = match foreign_issuer {
            None => {
                let ours = &tokens.audiences;
                if !authentic.audiences().any(|audience| ours.iter().any(|known| known == audience)) {
                    return Err(Refusal::of_claim(Reason::AudienceMismatch, "aud"));
                }
                Identity::from_local_token(&authentic, key).ok_or(Reason::KeyUnknown)?
            }
            Some(other) => {
                let subject = other.check(&authentic).and_then(|()| other.subject(authentic.members()));
                let subject = subject.map_err(|(reason, claim)| Refusal::of_claim(reason, claim))?;
                let identity = Identity::from_foreign_token(&authentic, key, token.kid(), &subject);
                let mut identity = identity.map_err(|claim| {
                    let claim = if claim.is_empty() { other.subject_claim() } else { claim };
                    Refusal::of_claim(Reason::TokenIncomplete, claim)
                })?;
                let audience = other.audience(authentic.members()).filter(|_| other.has_audience_claim());
                identity.audience = audience.cloned().map(Box::new);
                identity
            }
        };
        let used = authentic.members().iter().filter(|(name, _)| rules.uses_claim(name));
        identity.members = used.map(|(name, value)| (name.clone(), value.clone())).collect();
        (identity.claims, identity.omitted_claims) = upstream.claim_values(authentic.members());
        Ok(identity)
    }

    /// Checks a pair of token and API key (Soracom): the paired header must contain the session that the token names.
    fn check_paired_header(
        &self,
        found: &PresentedCredential<'_, '_>,
        headers: &Headers<'_>,
        identity: &Identity,
    ) -> Result<(), Reason> {
        let Some(header) = found.source.pair_header() else { return Ok(()) };
        check_pair(identity, credential::paired_header(header, headers)?)
    }

    /// Checks whether a credential is still valid: times, watermarks, gaps in the issuance log, revocations. `now` is in
    /// milliseconds since the Unix epoch.
    pub(crate) fn check_validity(
        &self,
        identity: &Identity,
        snapshot: &Snapshot,
        now: u64,
    ) -> Result<(), Reason> {
        self.check_time(identity, now.div_euclid(1000))?;
        let watermark = snapshot.watermark(identity.scopes(snapshot.has_holders()));
        if watermark.is_some_and(|instant| identity.issued_at() <= instant) {
            return Err(Reason::Watermark);
        }
        // Checked before the base, whose answer for an unknown fingerprint is arbitrary.
        if identity.is_local() && snapshot.is_issuance_unknown(&identity.fingerprint(), identity.issued_at())
        {
            return Err(Reason::IssuanceUnknown);
        }
        for fingerprint in identity.fingerprints() {
            let (kid, iat, exp) = (identity.signing_key_name(), identity.issued_at(), identity.expires_at());
            match (snapshot.revocation_status(&fingerprint, kid, iat, exp), self.policy.uncovered) {
                (RevocationStatus::Good, _) | (RevocationStatus::NotCovered, UncoveredPolicy::Admit) => {}
                (RevocationStatus::NotCovered, UncoveredPolicy::Deny) => return Err(Reason::NotCovered),
                (RevocationStatus::Revoked, _) => return Err(Reason::Revoked),
            }
        }
        Ok(())
    }

    /// Checks `exp`, `nbf` and `iat` (RFC 7519) with the configured leeway. `now` is in seconds since the Unix epoch.
    fn check_time(&self, identity: &Identity, now: u64) -> Result<(), Reason> {
        let leeway = self.policy.tokens.leeway_seconds;
        // RFC 7519 section 4.1.4: the token expires "on or after" this instant.
        if identity.expires_at().is_some_and(|expires_at| now >= expires_at.saturating_add(leeway)) {
            return Err(if identity.is_api_key() { Reason::ApiKeyExpired } else { Reason::Expired });
        }
        if identity.not_before().is_some_and(|from| now.saturating_add(leeway) < from) {
            return Err(Reason::NotYetValid);
        }
        // Otherwise a token with a future `iat` would escape a watermark.
        if now.saturating_add(leeway) < identity.issued_at() {
            return Err(Reason::IssuedInFuture);
        }
        Ok(())
    }

    /// Returns the stale policy that admits the credential, or `None` if the bundle is fresh.
    pub(crate) fn check_freshness(
        &self,
        policy: StalePolicy,
        snapshot: &Snapshot,
        identity: &Identity,
        now: u64,
    ) -> Result<Option<StalePolicy>, Reason> {
        if Freshness::classify(snapshot, 0, now) == Freshness::Fresh {
            return Ok(None);
        }
        if policy.admits(snapshot, identity.issued_at(), now) {
            Ok(Some(policy))
        } else {
            Err(policy.reason())
        }
    }

    /// Returns the stale policy of a rule, or the one of the whole policy if the rule has none.
    pub(crate) fn stale_policy(&self, requirements: Option<&Requirements>) -> StalePolicy {
        let default = StalePolicy::OutageGraceSeconds(self.policy.outage_grace_seconds);
        requirements.and_then(|requirements| requirements.staleness).unwrap_or(default)
    }

    /// Returns the freshness by the outage grace of the whole policy. A rule may have its own stale policy.
    pub fn freshness(&self, snapshot: &Snapshot, now: u64) -> Freshness {
        let grace = self.policy.outage_grace_seconds.saturating_mul(1000);
        Freshness::classify(snapshot, grace, now)
    }
}

/// How a credential is verified. Its prefix decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CredentialKind {
    ApiKey,
    Token,
}

/// Checks that a token was issued together with the API key that was sent beside it.
fn check_pair(identity: &Identity, sent: &[u8]) -> Result<(), Reason> {
    let matching = identity.session().filter(|session| secret::constant_time_eq(session.as_bytes(), sent));
    matching.map(|_| ()).ok_or(Reason::PairMismatch)
}

/// Returns the decision for a refusal in this mode.
fn apply_mode(refusal: Refusal, mode: Mode) -> Decision {
    match mode {
        Mode::Enforce => Decision::Refuse(refusal),
        Mode::Report => Decision::Pass(PassReason::Reported(refusal)),
    }
}

/// Checks the requirements of the rule on a valid credential.
fn check_requirements(
    route: &Route<'_, '_>,
    policy: &Policy,
    identity: &Identity,
    snapshot: &Snapshot,
    request: &Request<'_>,
) -> Result<(), Reason> {
    if route.requirements.is_none() && route.permission.is_none() {
        return Ok(());
    }
    let variables = route.variables();
    let check_permission = |api: &str| {
        let client = match &policy.client_address {
            Some(source) => source.resolve(request.headers.iter().copied()),
            None => request.peer,
        };
        let now = request.now.div_euclid(1000);
        let user_name = identity.user_name();
        let access_request = AccessRequest { api, user_name, client, now, variables: &variables };
        check_permission(identity, snapshot, &access_request)
    };
    let (first, alternatives) = match route.requirements {
        Some(requirements) => (requirements.conditions.first(), requirements.alternatives()),
        None => (None, &[][..]),
    };
    if let Some(first) = first {
        check_conditions(first, policy, identity, &variables)?;
    }
    if let Some(api) = route.permission {
        check_permission(api)?;
    }
    check_alternatives(alternatives, &|conditions| {
        check_conditions(conditions, policy, identity, &variables)?;
        conditions.permission.as_deref().map_or(Ok(()), &check_permission)
    })
}

/// Checks alternatives, of which one must be met. Returns the error of the first.
fn check_alternatives(
    alternatives: &[Conditions],
    check: &dyn Fn(&Conditions) -> Result<(), Reason>,
) -> Result<(), Reason> {
    let Some((first, others)) = alternatives.split_first() else { return Ok(()) };
    check(first)
        .or_else(|reason| if others.iter().any(|other| check(other).is_ok()) { Ok(()) } else { Err(reason) })
}

/// Checks the conditions that do not change while the credential is valid: all except the permission.
pub(crate) fn check_conditions(
    conditions: &Conditions,
    policy: &Policy,
    identity: &Identity,
    variables: &[(&str, &str)],
) -> Result<(), Reason> {
    let Conditions { issuers, audiences, claims, scopes, .. } = conditions;
    let issuer = identity.issuer().unwrap_or(&policy.tokens.issuer);
    let key_issuer = identity.key_issuer().unwrap_or(issuer);
    if !issuers.is_empty() && !issuers.iter().any(|known| known == issuer || known == key_issuer) {
        return Err(Reason::IssuerNotAccepted);
    }
    let members = &identity.members;
    let audience = identity.audience.as_deref().or_else(|| members.get("aud"));
    if !audiences.is_empty() && !claim::has_audience(audience, audiences) {
        return Err(Reason::AudienceMismatch);
    }
    claim::check_claims(members, claims, variables)?;
    claim::check_scopes(members, scopes)
}

/// Checks that the grant of the subject allows the request.
pub(crate) fn check_permission(
    identity: &Identity,
    snapshot: &Snapshot,
    access_request: &AccessRequest<'_>,
) -> Result<(), Reason> {
    if identity.is_root() {
        return Ok(());
    }
    let grant = snapshot.grant_by_key(identity.grant_subject()).ok_or(Reason::PermissionDenied)?;
    match permission::evaluate(grant, access_request) {
        Ok(AccessDecision::Allowed) => Ok(()),
        // Malformed statements allow nothing.
        Ok(AccessDecision::Denied | AccessDecision::NotAllowed) | Err(_) => Err(Reason::PermissionDenied),
    }
}
