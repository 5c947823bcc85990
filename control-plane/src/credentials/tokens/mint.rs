//! The step that all operations which issue tokens share: choose the time of issue, sign, and record.

use std::{fmt, str::FromStr, time::Duration};

use token::{Claims, Fingerprint, Operator, mint::SigningKey, secret::Secret};
use tokio::time::sleep;

use super::issuance_log::IssuanceLogError;
use crate::{
    config::ConfigDuration,
    credentials::queries::{coverage, issued::IssueOutcome},
    db::{NEVER_EXPIRES, StoreError},
    domain::{
        Actor, AuthKeyId, CoreError, ErrorKind, IssuedCredential, SessionId, Subject, UnixSeconds,
        WatermarkScope,
    },
    keys::keyring::KeyError,
    platform::random,
    restore::gaps,
    revocation::watermarks,
    service::{ReloadKeysError, Service},
};

/// How often a token is signed again after its fingerprint prefix was taken or its second was covered.
const MAX_ATTEMPTS: usize = 3;

/// How often, and in which intervals, issuing waits for a watermark ahead of the clock: two seconds in total.
const MAX_BACKOFFS: usize = 20;
const BACKOFF: Duration = Duration::from_millis(100);

/// How far the time of issue may lie ahead of the clock, in seconds: below the 5 seconds of clock difference that edges
/// allow by default.
pub(crate) const MAX_ISSUE_SKEW_SECS: u64 = 2;

/// The lifetime of a token: from 1 second to 2 days as in Soracom's API, one day by default, or unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime(u64);

impl Lifetime {
    /// The longest limited lifetime.
    pub const MAX: Self = Self(172_800);
    /// The unlimited lifetime: the token is valid until it is revoked.
    pub const NEVER: Self = Self(u64::MAX);

    /// Returns the lifetime in seconds.
    pub const fn seconds(self) -> u64 {
        self.0
    }

    /// Returns the second of expiry, or `None` if the token never expires.
    const fn expires_at(self, issued_at: UnixSeconds) -> Option<UnixSeconds> {
        match self {
            Self::NEVER => None,
            Self(seconds) => Some(issued_at.saturating_add(seconds)),
        }
    }
}

impl Default for Lifetime {
    /// Returns one day.
    fn default() -> Self {
        Self(86_400)
    }
}

impl TryFrom<u64> for Lifetime {
    type Error = InvalidLifetime;

    fn try_from(seconds: u64) -> Result<Self, InvalidLifetime> {
        if (1..=Self::MAX.0).contains(&seconds) { Ok(Self(seconds)) } else { Err(InvalidLifetime) }
    }
}

impl FromStr for Lifetime {
    type Err = InvalidLifetime;

    fn from_str(text: &str) -> Result<Self, InvalidLifetime> {
        if text == "never" {
            return Ok(Self::NEVER);
        }
        Self::try_from(text.parse::<ConfigDuration>().map_err(|_| InvalidLifetime)?.get().as_secs())
    }
}

/// The lifetime is out of range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a lifetime from 1 to 172800 seconds (48h), or `never`")]
pub struct InvalidLifetime;

/// The token to mint.
#[derive(Debug)]
pub(crate) struct MintRequest {
    pub(crate) subject: Subject,
    pub(crate) auth_key: Option<AuthKeyId>,
    pub(crate) session: Option<SessionId>,
    pub(crate) lifetime: Lifetime,
    pub(crate) actor: Actor,
}

/// A token that is in the issuance log and may be released.
#[derive(Debug)]
pub(crate) struct MintedToken {
    pub(crate) token: Secret,
    pub(crate) issuance: IssuedCredential,
}

/// Signs a token, and records it in the issuance log.
pub(crate) async fn mint_token(service: &Service, request: MintRequest) -> Result<MintedToken, MintError> {
    for _ in 0..MAX_ATTEMPTS {
        let keyring = service.keys.current();
        let Some(issued_at) = first_issuable_second(service, keyring.signer(), &request).await? else {
            service.reload_keys().await?;
            continue;
        };
        let (token, issuance) = sign_token(service, keyring.signer(), &request, issued_at);
        match service.issuance_log.record(issuance.clone(), request.actor.clone()).await? {
            IssueOutcome::Inserted => return Ok(MintedToken { token, issuance }),
            // The probability is 2^-64 per pair. Another `jti` gives another fingerprint.
            IssueOutcome::PrefixTaken => {}
            // A base that was built in between covers the second, or the key has been retired.
            IssueOutcome::Covered => {}
            IssueOutcome::AuthKeyGone => return Err(MintError::AuthKeyGone),
        }
    }
    Err(MintError::PrefixTaken)
}

/// Returns the first second that no watermark or gap refuses and no base covers, or `None` if the key no longer signs.
///
/// Usually this is the present second, and the next one after a revocation, as edges allow a few seconds of clock
/// difference. A caller that alternates revoke and issue would push `iat` past that limit, so issuing waits instead.
async fn first_issuable_second(
    service: &Service,
    signer: &SigningKey,
    request: &MintRequest,
) -> Result<Option<UnixSeconds>, MintError> {
    let mut reader = service.store.reader().await?;
    let kid = signer.kid();
    let watermark =
        watermarks::latest_instant(&mut reader, kid, &request.subject, request.auth_key.as_ref(), None)
            .await?;
    let covered = coverage::floor_for(&mut reader, kid).await?;
    let gap = gaps::latest_end(&mut reader).await?;
    drop(reader);
    if covered == Some(NEVER_EXPIRES) {
        return Ok(None);
    }
    let earliest = watermark.as_ref().map(|watermark| watermark.instant).max(covered).max(gap);
    let earliest = earliest.map_or(UnixSeconds::EPOCH, |instant| instant.saturating_add(1));
    let mut backoff = IssueBackoff::default();
    loop {
        let now = service.now().seconds();
        if earliest <= now.saturating_add(MAX_ISSUE_SKEW_SECS) {
            return Ok(Some(earliest.max(now)));
        }
        if !backoff.wait(earliest, now).await {
            break;
        }
    }
    let refused_by = match watermark {
        Some(watermark) if watermark.instant.saturating_add(1) == earliest => {
            IssuanceBlock::Watermark(watermark.scope)
        }
        _ => IssuanceBlock::Covered(kid.to_owned()),
    };
    Err(MintError::Blocked(refused_by, earliest))
}

/// The pauses of an operation that issues a credential, while a watermark lies ahead of the clock.
#[derive(Debug, Default)]
pub(crate) struct IssueBackoff {
    count: usize,
}

impl IssueBackoff {
    /// Pauses before the next attempt. Returns `false` without a pause if the attempts are used up, or if `earliest`, the
    /// first issuable second, is further ahead than alternating revocations and issues can push it.
    pub(crate) async fn wait(&mut self, earliest: UnixSeconds, now: UnixSeconds) -> bool {
        self.count = self.count.saturating_add(1);
        if self.count > MAX_BACKOFFS || earliest > now.saturating_add(MAX_ISSUE_SKEW_SECS.saturating_mul(3)) {
            return false;
        }
        sleep(BACKOFF).await;
        true
    }
}

/// Why no credential can be issued before a second. A clock that was ahead has caused it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IssuanceBlock {
    /// The watermark of this scope refuses the credential.
    Watermark(WatermarkScope),
    /// The base covers everything that this key signed by then.
    Covered(String),
}

impl IssuanceBlock {
    /// Writes the error text. `until` is the first issuable second.
    pub(crate) fn write_error(&self, until: &UnixSeconds, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Watermark(scope) => write!(f, "the watermark of {scope}")?,
            Self::Covered(kid) => write!(f, "the base of {kid}")?,
        }
        write!(
            f,
            " is in the future: no credential can be issued before second {until}. A clock that was ahead has caused this"
        )
    }
}

/// Signs a token. Returns it with its entry for the issuance log.
fn sign_token(
    service: &Service,
    signer: &SigningKey,
    request: &MintRequest,
    issued_at: UnixSeconds,
) -> (Secret, IssuedCredential) {
    let MintRequest { subject, auth_key, session, lifetime, actor: _ } = request;
    let expires_at = lifetime.expires_at(issued_at);
    let claims = Claims {
        iss: service.config.tokens.issuer.clone(),
        sub: subject.to_string(),
        aud: vec![service.config.tokens.audience.clone()],
        iat: issued_at.get(),
        exp: expires_at.map(UnixSeconds::get),
        nbf: None,
        jti: random::from_alphabet(random::ALPHANUMERIC, 22),
        operator: Operator { operator_id: subject.operator.to_string() },
        akid: auth_key.as_ref().map(ToString::to_string),
        sid: session.as_ref().map(ToString::to_string),
    };
    let token = signer.mint(&claims);
    let issuance = IssuedCredential {
        fingerprint: Fingerprint::digest(token.expose().as_bytes()),
        kid: signer.kid().to_owned(),
        subject: subject.clone(),
        auth_key: auth_key.clone(),
        session: session.clone(),
        issued_at,
        expires_at: expires_at.unwrap_or(NEVER_EXPIRES),
    };
    (token, issuance)
}

/// Why a token could not be minted.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// The signing key was replaced, and the new one cannot be used here.
    #[error(transparent)]
    Keys(KeyError),
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The token cannot be recorded.
    #[error(transparent)]
    Log(#[from] IssuanceLogError),
    /// Every attempt gave a fingerprint whose prefix is taken.
    #[error("no free fingerprint prefix was found")]
    PrefixTaken,
    /// The AuthKey was deleted in between.
    #[error("the AuthKey was deleted")]
    AuthKeyGone,
    /// No token can be issued before this second.
    #[error(fmt = IssuanceBlock::write_error)]
    Blocked(IssuanceBlock, UnixSeconds),
}

impl CoreError for MintError {
    fn code(&self) -> &'static str {
        match self {
            Self::Store(error) => error.code(),
            Self::Blocked(..) => "watermark_in_future",
            Self::Keys(_) | Self::Log(_) | Self::PrefixTaken | Self::AuthKeyGone => "mint_failed",
        }
    }

    fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(error) => error.kind(),
            Self::Keys(_) | Self::Log(_) | Self::PrefixTaken | Self::AuthKeyGone | Self::Blocked(..) => {
                ErrorKind::Unavailable
            }
        }
    }
}

impl From<ReloadKeysError> for MintError {
    fn from(error: ReloadKeysError) -> Self {
        match error {
            ReloadKeysError::Keys(error) => Self::Keys(error),
            ReloadKeysError::Store(error) => Self::Store(error),
        }
    }
}
