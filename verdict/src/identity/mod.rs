//! Identities of authenticated credentials.

mod cache;
pub(crate) mod claim;
mod issuer;

pub use cache::Cache;
pub use issuer::ForeignIssuer;

use alloc::{
    borrow::Cow,
    boxed::Box,
    format,
    string::{String, ToString},
    vec::Vec,
};

use bundle::{MAX_FOREIGN_NAME_BYTES, Scope, ScopeKey, Snapshot, foreign_name};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use token::{
    Fingerprint, api_key,
    json::{Object, Value},
};

use crate::decision::Reason;

/// The bytes of ASCII that are encoded in a header value, beside all others than ASCII: with `%`, decoding is
/// unambiguous.
const NOT_IN_HEADERS: &AsciiSet = &CONTROLS.add(b' ').add(b'%');

/// The claims of other issuers that name a client (RFC 8693, RFC 9068, OpenID Connect; Okta; Entra), a session, or the token
/// itself (RFC 7519; Entra).
const HOLDER_CLAIMS: [&str; 8] = ["client_id", "azp", "cid", "appid", "sid", "session_state", "jti", "uti"];

/// The identity that an authenticated credential proves. Whether the credential is still valid is checked on every
/// request.
#[derive(Debug, Clone, PartialEq)]
pub struct Identity {
    origin: Origin,
    /// The thumbprint of the key that verified the credential.
    thumbprint: [u8; 32],
    texts: Texts,
    issued_at: u64,
    not_before: Option<u64>,
    expires_at: Option<u64>,
    fingerprint: Fingerprint,
    /// The fingerprint of the other valid ECDSA signature (r, n - s) of the same token.
    alternate_fingerprint: Option<Fingerprint>,
    /// The scopes that always apply, then those of holders of other issuers.
    scopes: Vec<ScopeKey>,
    /// The number of those that always apply.
    common_scopes: usize,
    grant_subject: ScopeKey,
    /// The claims that rules use. No other claims are kept, to bound the size of a cache entry.
    pub(crate) members: Object,
    /// For each configured claim header, its value, if the claim can be sent in a header.
    pub(crate) claims: Vec<Option<String>>,
    /// The number of claims that such a header cannot represent.
    pub(crate) omitted_claims: u8,
    /// The audience, if it is in another claim than `aud`.
    pub(crate) audience: Option<Box<Value>>,
}

/// The key that verifies a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// The key has the name [`Text::SigningKey`].
    Local,
    /// [`Text::Kid`] selects the key together with [`Text::KeyIssuer`] and this algorithm.
    Foreign(&'static str),
    /// The key is of this generation.
    ApiKey(u8),
}

/// A text of an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Text {
    /// The subject as a header value.
    HeaderSubject,
    /// The subject, if it differs from the header value.
    OriginalSubject,
    Operator,
    AuthKey,
    Session,
    /// The fingerprint in hexadecimal.
    Fingerprint,
    /// The name of the key that verified the credential, in watermarks and coverage.
    SigningKey,
    /// The issuer of a token of another issuer.
    Issuer,
    /// The name of the issuer of the key. It differs from the issuer of the token if it is a pattern.
    KeyIssuer,
    /// The `kid` of a token of another issuer, which may be empty.
    Kid,
}

impl Text {
    const ALL: [Self; 10] = [
        Self::HeaderSubject,
        Self::OriginalSubject,
        Self::Operator,
        Self::AuthKey,
        Self::Session,
        Self::Fingerprint,
        Self::SigningKey,
        Self::Issuer,
        Self::KeyIssuer,
        Self::Kid,
    ];
}

/// The texts of an identity in one allocation, so that many identities fit into the memory of a worker, and a request with a
/// cached one accesses few places in it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Texts {
    /// All texts in the order of [`Text::ALL`].
    joined: Box<str>,
    /// Where each text begins and the one before ends. An absent text is empty.
    starts: [u32; Text::ALL.len() + 1],
    /// One bit for each text, which is set if it is present.
    present: u16,
}

/// The names that a credential contains, or that the policy has for it.
#[derive(Debug, Clone, Copy, Default)]
struct Names<'n> {
    subject: &'n str,
    signing_key: &'n str,
    operator: Option<&'n str>,
    auth_key: Option<&'n str>,
    session: Option<&'n str>,
    issuer: Option<&'n str>,
    key_issuer: Option<&'n str>,
    kid: Option<&'n str>,
}

impl Texts {
    fn new(names: &Names<'_>, fingerprint: Fingerprint) -> Self {
        let header_subject: Cow<'_, str> = utf8_percent_encode(names.subject, NOT_IN_HEADERS).into();
        let fingerprint = String::from(fingerprint);
        let text = |kind| match kind {
            Text::HeaderSubject => Some(&*header_subject),
            Text::OriginalSubject => Some(names.subject).filter(|subject| *subject != header_subject),
            Text::Operator => names.operator,
            Text::AuthKey => names.auth_key,
            Text::Session => names.session,
            Text::Fingerprint => Some(fingerprint.as_str()),
            Text::SigningKey => Some(names.signing_key),
            Text::Issuer => names.issuer,
            Text::KeyIssuer => names.key_issuer,
            Text::Kid => names.kid,
        };
        let texts = Text::ALL.map(text);
        let joined = texts.map(Option::unwrap_or_default).concat().into_boxed_str();
        let (mut starts, mut present, mut end) = ([0; Text::ALL.len() + 1], 0, 0_usize);
        for (at, (text, next)) in texts.into_iter().zip(starts.iter_mut().skip(1)).enumerate() {
            end = end.saturating_add(text.unwrap_or_default().len());
            // No credential has 4 GB. If one had, its last texts would be missing.
            *next = u32::try_from(end).unwrap_or(u32::MAX);
            present |= u16::from(text.is_some()) << at;
        }
        Self { joined, starts, present }
    }

    fn get(&self, kind: Text) -> Option<&str> {
        let at = kind as usize;
        let [start, end] = *self.starts.get(at..)?.first_chunk()?;
        let is_present = self.present & 1 << at != 0;
        if is_present {
            self.joined.get(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
        } else {
            None
        }
    }
}

impl Identity {
    /// Returns the identity of a token of this deployment.
    pub(crate) fn from_local_token(token: &token::Authentic, key: &token::VerifyingKey) -> Option<Self> {
        let claims = token.claims()?;
        let operator = &claims.operator.operator_id;
        let mut scopes = Vec::from([Scope::Operator(operator)]);
        scopes.extend(claims.akid.as_deref().map(Scope::AuthKey));
        scopes.extend(claims.sid.as_deref().map(Scope::Session));
        let names = Names {
            subject: &claims.sub,
            signing_key: key.kid(),
            operator: Some(operator),
            auth_key: claims.akid.as_deref(),
            session: claims.sid.as_deref(),
            ..Names::default()
        };
        Some(Self {
            issued_at: claims.iat,
            not_before: claims.nbf,
            expires_at: claims.exp,
            alternate_fingerprint: token.fingerprints().nth(1),
            ..Self::new(Origin::Local, key.thumbprint(), &names, token.fingerprint(), &scopes)
        })
    }

    /// Returns the identity of a token of another issuer. `kid` is that of the token, and empty if it has none.
    ///
    /// # Errors
    ///
    /// Returns the name of the claim that cannot be revoked by name, because it is too long or has a control character;
    /// empty for the subject.
    pub(crate) fn from_foreign_token(
        token: &token::Authentic,
        key: &token::VerifyingKey,
        kid: &str,
        subject: &str,
    ) -> Result<Self, &'static str> {
        let (Some(issuer), Some(key_issuer)) = (token.issuer(), key.issuer()) else { return Err("iss") };
        let subject = foreign_name(issuer, subject);
        if subject.len() > MAX_FOREIGN_NAME_BYTES {
            return Err("");
        }
        let names = Names {
            subject: &subject,
            signing_key: &format!("{key_issuer}#{}", key.kid()),
            issuer: Some(issuer),
            key_issuer: Some(key_issuer),
            kid: Some(kid),
            ..Names::default()
        };
        let mut identity = Self {
            // Without `iat`, every watermark covers the token.
            issued_at: token.issued_at().unwrap_or_default(),
            not_before: token.not_before(),
            expires_at: token.expires_at(),
            alternate_fingerprint: token.fingerprints().nth(1),
            ..Self::new(
                Origin::Foreign(key.algorithm().name()),
                key.thumbprint(),
                &names,
                token.fingerprint(),
                &[],
            )
        };
        identity.add_holder_scopes(issuer, token)?;
        if key_issuer != issuer {
            // Revoking all of a pattern covers all of its tenants.
            identity.scopes.push(ScopeKey::new(Scope::Issuer(key_issuer)));
        }
        Ok(identity)
    }

    /// Adds the scopes of the issuer, client, session and id of a token of another issuer: texts and whole numbers.
    fn add_holder_scopes(&mut self, issuer: &str, token: &token::Authentic) -> Result<(), &'static str> {
        self.scopes.push(ScopeKey::new(Scope::Issuer(issuer)));
        for claim in HOLDER_CLAIMS {
            let name = match token.members().get(claim) {
                Some(Value::String(id)) => foreign_name(issuer, id),
                Some(Value::Number(id)) if id.is_u64() => foreign_name(issuer, &id.to_string()),
                _ => continue,
            };
            if name.len() > MAX_FOREIGN_NAME_BYTES || name.contains(char::is_control) {
                return Err(claim);
            }
            let scope = ScopeKey::new(match claim {
                "sid" | "session_state" => Scope::IssuerSession(&name),
                "jti" | "uti" => Scope::TokenId(&name),
                _ => Scope::Client(&name),
            });
            if !self.scopes.contains(&scope) {
                self.scopes.push(scope);
            }
        }
        Ok(())
    }

    /// Returns the identity of an API key.
    pub(crate) fn from_api_key(
        key: &api_key::Authentic,
        generation_key: &api_key::GenerationKey,
    ) -> Result<Self, Reason> {
        let key_number = format!("key-{}", key.number());
        let (operator, subject) = match key.holder() {
            // Operator and subject are both signed. The username cannot change the operator.
            Some(holder) => (Some(holder.operator()), holder.subject()),
            None => {
                let username = key.username();
                // Rejects usernames that are not valid header values or that collide with the `key-N` form.
                if !username.is_empty() && (!is_visible(username) || is_key_number(username)) {
                    return Err(Reason::ApiKey(api_key::Error::Tag));
                }
                let operator = username.split('/').next().filter(|operator| is_operator(operator));
                // A username with `#` is not a subject: it could be that of another issuer.
                let is_subject = !username.is_empty() && !username.contains('#');
                (operator, if is_subject { username } else { &*key_number })
            }
        };
        let mut scopes = Vec::from([Scope::AuthKey(&key_number)]);
        scopes.extend(operator.map(Scope::Operator));
        let generation = generation_key.generation();
        let names = Names {
            subject,
            signing_key: &format!("tag-{generation}"),
            operator,
            auth_key: Some(&key_number),
            ..Names::default()
        };
        Ok(Self {
            issued_at: key.issued_at(),
            expires_at: key.expires_at(),
            ..Self::new(
                Origin::ApiKey(generation),
                generation_key.thumbprint(),
                &names,
                key.fingerprint(),
                &scopes,
            )
        })
    }

    /// Creates an identity. `scopes` are the watermark scopes besides those of every credential.
    fn new(
        origin: Origin,
        thumbprint: &[u8; 32],
        names: &Names<'_>,
        fingerprint: Fingerprint,
        scopes: &[Scope<'_>],
    ) -> Self {
        let grant_subject = ScopeKey::new(Scope::User(names.subject));
        let mut hashed = Vec::with_capacity(scopes.len().saturating_add(3));
        hashed.extend([ScopeKey::GLOBAL, ScopeKey::new(Scope::SigningKey(names.signing_key)), grant_subject]);
        hashed.extend(scopes.iter().map(|scope| ScopeKey::new(*scope)));
        Self {
            origin,
            thumbprint: *thumbprint,
            texts: Texts::new(names, fingerprint),
            issued_at: 0,
            not_before: None,
            expires_at: None,
            fingerprint,
            alternate_fingerprint: None,
            common_scopes: hashed.len(),
            scopes: hashed,
            grant_subject,
            members: Object::default(),
            claims: Vec::new(),
            omitted_claims: 0,
            audience: None,
        }
    }

    /// Returns a text that every identity has, or every one of its origin.
    fn text(&self, kind: Text) -> &str {
        self.texts.get(kind).unwrap_or_default()
    }

    /// Returns whether the bundle still has the key that verified the credential, unchanged, and still selects it.
    pub(crate) fn is_key_current(&self, snapshot: &Snapshot) -> bool {
        let key = match self.origin {
            Origin::Local => snapshot.key(self.signing_key_name()).map(token::VerifyingKey::thumbprint),
            Origin::Foreign(algorithm) => {
                let (key_issuer, kid) = (self.text(Text::KeyIssuer), self.text(Text::Kid));
                snapshot.issuer_key(key_issuer, kid, algorithm).ok().map(token::VerifyingKey::thumbprint)
            }
            Origin::ApiKey(generation) => {
                snapshot.generation_key(generation).map(api_key::GenerationKey::thumbprint)
            }
        };
        key == Some(&self.thumbprint)
    }

    /// Returns the subject: `OP0123456789/alice`, or `ISSUER#SUBJECT` for another issuer, see [`foreign_name`]. An API key
    /// of format 1 has its username, or `key-42` without one that can be a subject.
    pub fn subject(&self) -> &str {
        self.texts.get(Text::OriginalSubject).unwrap_or_else(|| self.header_subject())
    }

    /// Returns the subject as a header value: visible ASCII, with every other byte and `%` percent-encoded.
    pub fn header_subject(&self) -> &str {
        self.text(Text::HeaderSubject)
    }

    /// Returns the operator that the subject belongs to. Credentials of other issuers have none, nor have API keys of
    /// format 1 whose username names none.
    pub fn operator(&self) -> Option<&str> {
        self.texts.get(Text::Operator)
    }

    /// Returns the id of the AuthKey that a token was exchanged for, or the id of an API key.
    pub fn key_id(&self) -> Option<&str> {
        self.texts.get(Text::AuthKey)
    }

    /// Returns the id of the session that was issued together with the token, which Soracom calls `apiKey`.
    pub fn session(&self) -> Option<&str> {
        self.texts.get(Text::Session)
    }

    /// Returns whether this deployment issued the credential.
    pub(crate) const fn is_local(&self) -> bool {
        matches!(self.origin, Origin::Local | Origin::ApiKey(_))
    }

    /// Returns the issuer, or `None` if this deployment issued the credential.
    pub fn issuer(&self) -> Option<&str> {
        self.texts.get(Text::Issuer)
    }

    /// Returns the name of the issuer in the policy, which can be a pattern, or `None` if this deployment issued the
    /// credential.
    pub(crate) fn key_issuer(&self) -> Option<&str> {
        self.texts.get(Text::KeyIssuer)
    }

    pub(crate) const fn is_api_key(&self) -> bool {
        matches!(self.origin, Origin::ApiKey(_))
    }

    /// Returns the name of the verification key in watermarks and coverage.
    pub fn signing_key_name(&self) -> &str {
        self.text(Text::SigningKey)
    }

    /// Returns when the credential was issued, in seconds since the Unix epoch.
    pub const fn issued_at(&self) -> u64 {
        self.issued_at
    }

    /// Returns from when the credential is valid, in seconds since the Unix epoch, if it is limited.
    pub const fn not_before(&self) -> Option<u64> {
        self.not_before
    }

    /// Returns when the credential expires, in seconds since the Unix epoch. `None`: it does not expire.
    pub const fn expires_at(&self) -> Option<u64> {
        self.expires_at
    }

    /// Returns the fingerprint of the credential as it was presented.
    pub const fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Returns the fingerprint in hexadecimal.
    pub fn fingerprint_hex(&self) -> &str {
        self.text(Text::Fingerprint)
    }

    /// Returns all fingerprints under which the credential can be presented.
    pub fn fingerprints(&self) -> impl Iterator<Item = Fingerprint> {
        core::iter::once(self.fingerprint).chain(self.alternate_fingerprint)
    }

    /// Returns the scopes whose watermarks apply to the credential, without those of holders if the bundle has none.
    pub(crate) fn scopes(&self, has_holders: bool) -> impl Iterator<Item = ScopeKey> {
        let common = if has_holders { None } else { self.scopes.get(..self.common_scopes) };
        common.unwrap_or(&self.scopes).iter().copied()
    }

    /// Returns the key of the grant of the subject.
    pub(crate) const fn grant_subject(&self) -> ScopeKey {
        self.grant_subject
    }

    /// Returns whether the subject is the root user of its operator, who is allowed everything. Subjects of other
    /// issuers are never root, because their tokens have no operator.
    pub(crate) fn is_root(&self) -> bool {
        self.operator() == Some(self.subject())
    }

    /// Returns the name of the user, or `None` for the root user and for subjects of other issuers.
    pub(crate) fn user_name(&self) -> Option<&str> {
        self.subject().strip_prefix(self.operator()?)?.strip_prefix('/')
    }
}

/// Returns whether a text is a header value that reaches the upstream unchanged (RFC 9110 section 5.5).
fn is_visible(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Returns whether a text is an operator id such as `OP0123456789`.
fn is_operator(text: &str) -> bool {
    let digits = text.strip_prefix("OP");
    digits.is_some_and(|digits| digits.len() == 10 && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Returns whether a text has the form `key-42`.
fn is_key_number(text: &str) -> bool {
    let digits = text.strip_prefix("key-");
    digits.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_number_has_digits_only() {
        for (text, expected) in
            [("key-42", true), ("key-", false), ("key-a", false), ("key-4a", false), ("42", false)]
        {
            assert_eq!(is_key_number(text), expected, "{text}");
        }
    }
}
