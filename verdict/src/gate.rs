use alloc::{string::String, vec::Vec};

use bundle::{Scope, Snapshot, Standing};
use token::{Claims, Fingerprint, Unverified};

use crate::{Freshness, Policy, Reason, Tokens, credential};

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

    /// `now` in milliseconds since the Unix epoch.
    pub fn decide<'r>(
        &self,
        headers: impl Iterator<Item = (&'r str, &'r [u8])>,
        snapshot: Option<&Snapshot>,
        now: u64,
    ) -> Verdict {
        match self.admit(headers, snapshot, now) {
            Ok(admission) => Verdict::Admit(admission),
            Err(reason) => Verdict::Refuse(reason),
        }
    }

    /// Strict parse -> key -> signature -> claims -> watermarks -> revocations -> freshness.
    fn admit<'r>(
        &self,
        headers: impl Iterator<Item = (&'r str, &'r [u8])>,
        snapshot: Option<&Snapshot>,
        now: u64,
    ) -> Result<Admission, Reason> {
        let snapshot = snapshot.ok_or(Reason::BundleMissing)?;
        let presented = credential::find(&self.policy.credentials, headers)?;
        let token = Unverified::parse(presented).map_err(Reason::Token)?;
        let key = snapshot.key(token.kid()).ok_or(Reason::KeyUnknown)?;
        let authentic = token.verify(key).map_err(Reason::Token)?;
        let claims = authentic.claims().ok_or(Reason::KeyUnknown)?;
        check_claims(claims, &self.policy.tokens, now.checked_div(1000).unwrap_or_default())?;
        if snapshot.watermark(scopes(claims, key.kid())).is_some_and(|instant| claims.iat <= instant) {
            return Err(Reason::Watermark);
        }
        if authentic.fingerprints().any(|one| snapshot.standing(&one) != Standing::Good) {
            return Err(Reason::Revoked);
        }
        // Last, so that a stale bundle still refuses what it names by that name.
        match self.freshness(snapshot, now) {
            Freshness::Fresh | Freshness::Stale => {
                Ok(Admission { claims: claims.clone(), fingerprint: authentic.fingerprint() })
            }
            Freshness::Expired => Err(Reason::BundleStale),
        }
    }

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
        let Policy { identity_prefix, credentials, strip_credential, .. } = &self.policy;
        let stripped = |name: &str| {
            *strip_credential && credentials.iter().any(|source| source.header.eq_ignore_ascii_case(name))
        };
        let kept = headers.filter(|(name, _)| !starts_like(name, identity_prefix) && !stripped(name));
        let mut forwarded: Vec<_> =
            kept.map(|(name, value)| (String::from(name), Vec::from(value))).collect();
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

/// CGI and its heirs read `-` and `_` in a header's name as the same, so a forger may use either.
fn starts_like(name: &str, prefix: &str) -> bool {
    let fold = |byte: u8| if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    let start = name.bytes().take(prefix.len()).map(fold);
    name.len() >= prefix.len() && start.eq(prefix.bytes().map(fold))
}
