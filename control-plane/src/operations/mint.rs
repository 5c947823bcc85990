//! The step that all issuing operations share: watermark, token, ledger.

use std::{fmt, str::FromStr, time::Duration};

use token::{Claims, Fingerprint, Operator, mint::SigningKey, secret::Secret};
use tokio::time::sleep;

use super::{Service, ledger::LedgerError, service::TakeUpError};
use crate::{
    config::Period,
    keys::KeyError,
    model::{Actor, AuthKeyId, Issuance, SessionId, Subject, WatermarkScope},
    random,
    store::{NEVER, StoreError, coverage, gaps, issued::Inserted, watermarks},
};

/// How long a token lives: 1 second to 2 days, as Soracom has it; a day by default. Or until it is revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime(u64);

impl Lifetime {
    /// Of those that end.
    pub const LONGEST: Self = Self(172_800);
    pub const NEVER: Self = Self(u64::MAX);

    pub const fn seconds(self) -> u64 {
        self.0
    }

    /// None: it does not.
    const fn end(self, issued_at: u64) -> Option<u64> {
        match self {
            Self::NEVER => None,
            Self(seconds) => Some(issued_at.saturating_add(seconds)),
        }
    }
}

impl Default for Lifetime {
    fn default() -> Self {
        Self(86_400)
    }
}

impl TryFrom<u64> for Lifetime {
    type Error = BadLifetime;

    fn try_from(seconds: u64) -> Result<Self, BadLifetime> {
        if (1..=Self::LONGEST.0).contains(&seconds) { Ok(Self(seconds)) } else { Err(BadLifetime) }
    }
}

impl FromStr for Lifetime {
    type Err = BadLifetime;

    fn from_str(text: &str) -> Result<Self, BadLifetime> {
        if text == "never" {
            return Ok(Self::NEVER);
        }
        Self::try_from(text.parse::<Period>().map_err(|_| BadLifetime)?.get().as_secs())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadLifetime;

impl fmt::Display for BadLifetime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a token lives from 1 second to 172800 seconds (48h), or `never` ends")
    }
}

impl std::error::Error for BadLifetime {}

#[derive(Debug)]
pub(super) struct Order {
    pub(super) subject: Subject,
    pub(super) auth_key: Option<AuthKeyId>,
    pub(super) session: Option<SessionId>,
    pub(super) lifetime: Lifetime,
    pub(super) actor: Actor,
}

/// A token that is in the ledger and may be released.
#[derive(Debug)]
pub(super) struct Minted {
    pub(super) token: Secret,
    pub(super) issuance: Issuance,
}

pub(super) async fn mint(service: &Service, order: Order) -> Result<Minted, MintError> {
    for _ in 0..ATTEMPTS {
        let keyring = service.keys.current();
        let Some(issued_at) = next_instant(service, keyring.signer(), &order).await? else {
            service.take_up_keys().await?;
            continue;
        };
        let (token, issuance) = sign(service, keyring.signer(), &order, issued_at);
        match service.ledger.enter(issuance.clone(), order.actor.clone()).await? {
            Inserted::Yes => return Ok(Minted { token, issuance }),
            // One chance in 2^64 per pair: another `jti` gives another fingerprint.
            Inserted::PrefixTaken => {}
            // The base was being built just then: the next second is free. Or the key has ceased to sign.
            Inserted::Covered => {}
            Inserted::AuthKeyGone => return Err(MintError::AuthKeyGone),
        }
    }
    Err(MintError::PrefixTaken)
}

/// The first second that no watermark refuses and no base covers; none of a key that signs no more.
///
/// Normally that is now, and right after a revocation the next second: edges allow a few seconds of clock difference.
/// Who revokes and issues in a loop would run ahead of what they allow, so issuing waits.
async fn next_instant(
    service: &Service,
    signer: &SigningKey,
    order: &Order,
) -> Result<Option<u64>, MintError> {
    let mut reader = service.store.reader().await?;
    let kid = signer.kid();
    let watermark =
        watermarks::latest(&mut reader, kid, &order.subject, order.auth_key.as_ref(), None).await?;
    let covered = coverage::of(&mut reader, kid).await?;
    let gap = gaps::end(&mut reader).await?;
    drop(reader);
    if covered == Some(NEVER) {
        return Ok(None);
    }
    let earliest = watermark.as_ref().map(|watermark| watermark.instant).max(covered).max(gap);
    let earliest = earliest.map_or(0, |instant| instant.saturating_add(1));
    for _ in 0..WAITS {
        let now = service.now().seconds();
        if earliest <= now.saturating_add(AHEAD) {
            return Ok(Some(earliest.max(now)));
        }
        // More than anybody runs ahead by issuing and revoking in turn.
        if earliest > now.saturating_add(AHEAD.saturating_mul(3)) {
            break;
        }
        sleep(WAIT).await;
    }
    let refused_by = match watermark {
        Some(watermark) if watermark.instant.saturating_add(1) == earliest => Blocked::By(watermark.scope),
        _ => Blocked::Covered(kid.to_owned()),
    };
    Err(MintError::Blocked(refused_by, earliest))
}

/// What keeps a credential from being issued before a second: the clock was ahead when that came to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Blocked {
    By(WatermarkScope),
    /// The base knows all that the key signed by then.
    Covered(String),
}

impl Blocked {
    /// Until a second.
    pub(super) fn tell(&self, until: u64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::By(scope) => write!(f, "the watermark of {scope}")?,
            Self::Covered(kid) => write!(f, "the base of {kid}")?,
        }
        write!(
            f,
            " lies in the future: nothing is issued before second {until}. A clock was ahead when that was made; \
             `keystile clock repair` takes it back"
        )
    }
}

fn sign(service: &Service, signer: &SigningKey, order: &Order, issued_at: u64) -> (Secret, Issuance) {
    let Order { subject, auth_key, session, lifetime, actor: _ } = order;
    let claims = Claims {
        iss: service.config.tokens.issuer.clone(),
        sub: subject.to_string(),
        aud: vec![service.config.tokens.audience.clone()],
        iat: issued_at,
        exp: lifetime.end(issued_at),
        nbf: None,
        jti: random::text(random::ALPHANUMERIC, 22),
        operator: Operator { operator_id: subject.operator.to_string() },
        akid: auth_key.as_ref().map(ToString::to_string),
        sid: session.as_ref().map(ToString::to_string),
    };
    let token = signer.mint(&claims);
    let issuance = Issuance {
        fingerprint: Fingerprint::of(token.expose().as_bytes()),
        kid: signer.kid().to_owned(),
        subject: subject.clone(),
        auth_key: auth_key.clone(),
        session: session.clone(),
        issued_at: claims.iat,
        expires_at: claims.exp.unwrap_or(NEVER),
    };
    (token, issuance)
}

#[derive(Debug)]
pub enum MintError {
    /// Another key signs by now, and it can't be used here.
    Keys(KeyError),
    Store(StoreError),
    Ledger(LedgerError),
    PrefixTaken,
    /// It was deleted between its look-up and the entry in the ledger.
    AuthKeyGone,
    /// Until a second.
    Blocked(Blocked, u64),
}

impl fmt::Display for MintError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keys(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
            Self::Ledger(error) => error.fmt(f),
            Self::PrefixTaken => f.write_str("no free fingerprint was found"),
            Self::AuthKeyGone => f.write_str("the AuthKey was deleted"),
            Self::Blocked(by, until) => by.tell(*until, f),
        }
    }
}

impl std::error::Error for MintError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Keys(error) => error.source(),
            Self::Store(error) => error.source(),
            Self::Ledger(error) => error.source(),
            Self::PrefixTaken | Self::AuthKeyGone | Self::Blocked(..) => None,
        }
    }
}

impl From<StoreError> for MintError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<TakeUpError> for MintError {
    fn from(error: TakeUpError) -> Self {
        match error {
            TakeUpError::Keys(error) => Self::Keys(error),
            TakeUpError::Store(error) => Self::Store(error),
        }
    }
}

impl From<LedgerError> for MintError {
    fn from(error: LedgerError) -> Self {
        Self::Ledger(error)
    }
}

const ATTEMPTS: usize = 3;

/// Two seconds.
pub(super) const WAITS: usize = 20;
pub(super) const WAIT: Duration = Duration::from_millis(100);

/// Below the 5 seconds of leeway that edges allow by default.
pub(super) const AHEAD: u64 = 2;
