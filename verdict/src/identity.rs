use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};

use bundle::{Scope, ScopeKey, Snapshot};
use token::{Fingerprint, api_key, json::Object};

use crate::Reason;

/// What an authentic credential says, and what follows from that alone. Whether it is still good is asked of each
/// request anew.
#[derive(Debug, Clone, PartialEq)]
pub struct Identity {
    origin: Origin,
    /// Of the key that opened it.
    thumbprint: [u8; 32],
    /// What watermarks and coverage call that key.
    signed_by: String,
    subject: String,
    operator: Option<String>,
    auth_key: Option<String>,
    session: Option<String>,
    issued_at: u64,
    not_before: Option<u64>,
    expires_at: Option<u64>,
    fingerprint: Fingerprint,
    /// The other spelling of a signature of ECDSA.
    twin: Option<Fingerprint>,
    hexadecimal: String,
    scopes: Vec<ScopeKey>,
    grantee: ScopeKey,
    /// What rules look at of a token, beyond the above: a cache is to hold no more of it.
    pub(crate) members: Object,
    /// For each claim that the upstream gets, if it can stand in a header.
    pub(crate) claims: Vec<Option<String>>,
}

/// Which key it takes to open a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Origin {
    Own { kid: String },
    Other { issuer: String, kid: String },
    ApiKey { generation: u8 },
}

impl Identity {
    pub(crate) fn of_own_token(token: &token::Authentic, key: &token::VerifyingKey) -> Option<Self> {
        let claims = token.claims()?;
        let operator = &claims.operator.operator_id;
        let mut scopes = Vec::from([Scope::Operator(operator)]);
        scopes.extend(claims.akid.as_deref().map(Scope::AuthKey));
        scopes.extend(claims.sid.as_deref().map(Scope::Session));
        Some(Self {
            operator: Some(operator.clone()),
            auth_key: claims.akid.clone(),
            session: claims.sid.clone(),
            issued_at: claims.iat,
            not_before: claims.nbf,
            expires_at: claims.exp,
            twin: token.fingerprints().nth(1),
            ..Self::new(
                Origin::Own { kid: key.kid().into() },
                key.thumbprint(),
                key.kid().into(),
                claims.sub.clone(),
                token.fingerprint(),
                &scopes,
            )
        })
    }

    /// None if the subject is none that could stand in a header.
    pub(crate) fn of_other_token(token: &token::Authentic, key: &token::VerifyingKey) -> Option<Self> {
        let issuer = key.issuer()?;
        let subject = token.subject().filter(|subject| is_visible(subject))?;
        Some(Self {
            // Without a time of issue every watermark is later.
            issued_at: token.issued_at().unwrap_or_default(),
            not_before: token.not_before(),
            expires_at: token.expires_at(),
            twin: token.fingerprints().nth(1),
            ..Self::new(
                Origin::Other { issuer: issuer.into(), kid: key.kid().into() },
                key.thumbprint(),
                format!("{issuer}#{}", key.kid()),
                format!("{issuer}#{subject}"),
                token.fingerprint(),
                &[],
            )
        })
    }

    pub(crate) fn of_api_key(
        key: &api_key::Authentic,
        opened_by: &api_key::GenerationKey,
    ) -> Result<Self, Reason> {
        let number = format!("key-{}", key.number());
        let (operator, subject) = match key.holder() {
            // Both from under the proof: whatever the username, the operator is that of who made the key.
            Some(holder) => (Some(holder.operator()), holder.subject()),
            None => {
                let username = key.username();
                // What cannot stand in a header is no identity; what looks like a key without a user would be taken
                // for it.
                if !username.is_empty() && (!is_visible(username) || is_key_number(username)) {
                    return Err(Reason::ApiKey(api_key::Error::Tag));
                }
                let operator = username.split('/').next().filter(|operator| is_operator(operator));
                (operator, if username.is_empty() { &*number } else { username })
            }
        };
        let mut scopes = Vec::from([Scope::AuthKey(&number)]);
        scopes.extend(operator.map(Scope::Operator));
        let generation = opened_by.generation();
        Ok(Self {
            operator: operator.map(Into::into),
            issued_at: key.issued_at(),
            expires_at: key.expires_at(),
            ..Self::new(
                Origin::ApiKey { generation },
                opened_by.thumbprint(),
                format!("tag-{generation}"),
                subject.to_string(),
                key.fingerprint(),
                &scopes,
            )
        }
        .with_auth_key(number))
    }

    fn with_auth_key(self, id: String) -> Self {
        Self { auth_key: Some(id), ..self }
    }

    /// `scopes` besides those that every credential has.
    fn new(
        origin: Origin,
        thumbprint: &[u8; 32],
        signed_by: String,
        subject: String,
        fingerprint: Fingerprint,
        scopes: &[Scope<'_>],
    ) -> Self {
        let grantee = ScopeKey::new(Scope::User(&subject));
        let mut hashed = Vec::with_capacity(scopes.len().saturating_add(3));
        hashed.extend([ScopeKey::GLOBAL, ScopeKey::new(Scope::SigningKey(&signed_by)), grantee]);
        hashed.extend(scopes.iter().map(|scope| ScopeKey::new(*scope)));
        Self {
            origin,
            thumbprint: *thumbprint,
            signed_by,
            subject,
            operator: None,
            auth_key: None,
            session: None,
            issued_at: 0,
            not_before: None,
            expires_at: None,
            fingerprint,
            twin: None,
            hexadecimal: fingerprint.into(),
            scopes: hashed,
            grantee,
            members: Object::default(),
            claims: Vec::new(),
        }
    }

    /// Whether the key that opened it is still known, and still the same.
    pub(crate) fn key_stands(&self, snapshot: &Snapshot) -> bool {
        let key = match &self.origin {
            Origin::Own { kid } => snapshot.key(kid).map(token::VerifyingKey::thumbprint),
            Origin::Other { issuer, kid } => {
                snapshot.issuer_key(issuer, kid).map(token::VerifyingKey::thumbprint)
            }
            Origin::ApiKey { generation } => {
                snapshot.generation_key(*generation).map(api_key::GenerationKey::thumbprint)
            }
        };
        key == Some(&self.thumbprint)
    }

    /// `OP0123456789/alice`, or of another issuer `ISSUER#SUBJECT`; of an API key of format 1 its username or `key-42`.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Returns the operator that the subject belongs to, or `None` where another issuer made the credential or an API key
    /// of format 1 names none.
    pub fn operator(&self) -> Option<&str> {
        self.operator.as_deref()
    }

    /// Of the AuthKey that a token was exchanged for, or of an API key.
    pub fn key_id(&self) -> Option<&str> {
        self.auth_key.as_deref()
    }

    /// Returns the id of the API key that the token was issued together with.
    pub fn session(&self) -> Option<&str> {
        self.session.as_deref()
    }

    /// Whether it is a token or an API key of our own.
    pub(crate) const fn is_ours(&self) -> bool {
        matches!(self.origin, Origin::Own { .. } | Origin::ApiKey { .. })
    }

    /// None: we did.
    pub fn issuer(&self) -> Option<&str> {
        match &self.origin {
            Origin::Other { issuer, .. } => Some(issuer),
            Origin::Own { .. } | Origin::ApiKey { .. } => None,
        }
    }

    pub(crate) const fn is_api_key(&self) -> bool {
        matches!(self.origin, Origin::ApiKey { .. })
    }

    /// The `kid` of watermarks and of coverage.
    pub fn signed_by(&self) -> &str {
        &self.signed_by
    }

    /// Seconds since the Unix epoch, as all instants here.
    pub const fn issued_at(&self) -> u64 {
        self.issued_at
    }

    /// Returns the second from which the credential is good, if it names one.
    pub const fn not_before(&self) -> Option<u64> {
        self.not_before
    }

    /// None: it lives until it is revoked.
    pub const fn expires_at(&self) -> Option<u64> {
        self.expires_at
    }

    /// Returns the fingerprint of the credential as it was presented.
    pub const fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// In hexadecimal.
    pub fn fingerprint_text(&self) -> &str {
        &self.hexadecimal
    }

    /// Every fingerprint that it can be presented under.
    pub fn fingerprints(&self) -> impl Iterator<Item = Fingerprint> {
        core::iter::once(self.fingerprint).chain(self.twin)
    }

    /// Everything a watermark can be set on that it belongs to.
    pub(crate) fn scopes(&self) -> impl Iterator<Item = ScopeKey> {
        self.scopes.iter().copied()
    }

    pub(crate) const fn grantee(&self) -> ScopeKey {
        self.grantee
    }

    /// The root user of an operator may do everything, whatever anybody granted. Another issuer has none: an operator
    /// is what we say it is.
    pub(crate) fn is_root(&self) -> bool {
        self.operator.as_deref() == Some(&self.subject)
    }

    /// None for the root user.
    pub(crate) fn user_name(&self) -> Option<&str> {
        self.subject.strip_prefix(self.operator.as_deref()?)?.strip_prefix('/')
    }
}

/// RFC 9110 section 5.5: arrives at the upstream as it was signed.
fn is_visible(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// `OP0123456789`
fn is_operator(text: &str) -> bool {
    let digits = text.strip_prefix("OP");
    digits.is_some_and(|digits| digits.len() == 10 && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

fn is_key_number(text: &str) -> bool {
    let digits = text.strip_prefix("key-");
    digits.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
}
