use axum::{
    extract::FromRequestParts,
    http::{HeaderName, HeaderValue, StatusCode, header, request::Parts, uri::PathAndQuery},
};
use token::Fingerprint;
use verdict::{Cache, Reason, Refusal, Request, Unaided, Verdict};

use super::{Desk, problem::Problem};
use crate::{
    listener::Peer,
    model::{Actor, OperatorId, Subject},
    operations::Authority,
};

/// Whoever presents a token that the gate admits: `Authorization: Bearer TOKEN`, or Soracom's pair of headers.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) subject: Subject,
    pub(super) fingerprint: Fingerprint,
}

impl Caller {
    pub(super) fn actor(&self) -> Actor {
        Actor::Token { subject: self.subject.clone(), fingerprint: self.fingerprint }
    }

    /// Nobody reaches into another operator; what may be done in the own one, the gate has decided.
    pub(super) fn authority(&self) -> Authority {
        Authority::Operator(self.subject.operator.clone())
    }

    /// What nobody but the root user may do, whatever was granted: else the permission would be all permissions.
    pub(super) fn must_be_root(&self) -> Result<(), Problem> {
        if self.subject.is_root() {
            return Ok(());
        }
        Err(Problem::root_only(
            "only the root user makes and deletes AuthKeys of the root user, whatever was granted",
        ))
    }

    /// Another operator's path looks like one that is not there.
    pub(super) fn authority_over(&self, operator: &str) -> Result<(OperatorId, Authority), Problem> {
        if operator != self.subject.operator.as_str() {
            return Err(Problem::not_found("there is no such operator"));
        }
        Ok((self.subject.operator.clone(), self.authority()))
    }
}

impl FromRequestParts<Desk> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, desk: &Desk) -> Result<Self, Problem> {
        let target = parts.uri.path_and_query().map_or("/", PathAndQuery::as_str);
        let line = [(":method", parts.method.as_str().as_bytes()), (":path", target.as_bytes())];
        let headers = parts.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        let headers: Vec<_> = line.into_iter().chain(headers).collect();
        let peer = parts.extensions.get::<Peer>().map(|Peer(address)| *address);
        let publication = desk.latest();
        let snapshot = Some(&publication.snapshot);
        let request = Request { headers: &headers, peer, snapshot, now: desk.service.now().millis() };
        let admission = match desk.gate.decide_with(&request, &mut Cache::none(), &Unaided) {
            Verdict::Admit(admission) => admission,
            Verdict::Refuse(refused) => return Err(refusal(desk, &refused)),
            // No rule of the own policy is public, so nothing passes without a credential.
            Verdict::Pass(_) => return Err(refusal(desk, &Reason::CredentialMissing.into())),
        };
        let identity = admission.identity();
        let api_key = parts.headers.get(&API_KEY);
        if parts.headers.contains_key(&API_TOKEN) && !names_session(api_key, identity.session()) {
            return Err(Problem::new(
                StatusCode::UNAUTHORIZED,
                "api_key_mismatch",
                "the API key is missing or not the one issued with the token",
            ));
        }
        let malformed = Reason::Token(token::Error::Malformed);
        let subject = identity.subject().parse().map_err(|_| refusal(desk, &malformed.into()))?;
        Ok(Self { subject, fingerprint: admission.fingerprint() })
    }
}

fn names_session(api_key: Option<&HeaderValue>, session: Option<&str>) -> bool {
    matches!((api_key, session), (Some(key), Some(session)) if key.as_bytes() == session.as_bytes())
}

fn refusal(desk: &Desk, refused: &Refusal) -> Problem {
    let reason = refused.reason();
    let status = StatusCode::from_u16(reason.status()).unwrap_or(StatusCode::UNAUTHORIZED);
    let problem = Problem::new(status, reason.code(), reason.to_string());
    let answer = desk.gate.answer(refused, None);
    let challenge = answer.headers.into_iter().find(|(name, _)| *name == header::WWW_AUTHENTICATE.as_str());
    match challenge.and_then(|(_, value)| HeaderValue::try_from(value).ok()) {
        Some(challenge) => problem.with_value(header::WWW_AUTHENTICATE, challenge),
        None => problem,
    }
}

const API_KEY: HeaderName = HeaderName::from_static("x-soracom-api-key");
const API_TOKEN: HeaderName = HeaderName::from_static("x-soracom-token");
