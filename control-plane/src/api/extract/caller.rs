use axum::{
    extract::FromRequestParts,
    http::{HeaderName, HeaderValue, StatusCode, header, request::Parts, uri::PathAndQuery},
};
use token::Fingerprint;
use verdict::{Cache, Decision, Reason, Refusal, Request, SoftwareVerifier};

use crate::{
    api::{AppState, problem::Problem},
    domain::{Actor, OperatorId, Subject},
    revocation::AccessScope,
    server::listener::PeerAddr,
};

const API_KEY: HeaderName = HeaderName::from_static("x-soracom-api-key");
const API_TOKEN: HeaderName = HeaderName::from_static("x-soracom-token");

/// The subject of a token that the gate admits, presented as `Authorization: Bearer TOKEN` or as Soracom's two headers.
#[derive(Debug, Clone)]
pub(in crate::api) struct Caller {
    pub(in crate::api) subject: Subject,
    pub(in crate::api) fingerprint: Fingerprint,
}

impl Caller {
    pub(in crate::api) fn actor(&self) -> Actor {
        Actor::Token { subject: self.subject.clone(), fingerprint: self.fingerprint }
    }

    /// Returns the access scope of the caller: its own operator. The gate has checked the permission already.
    pub(in crate::api) fn access_scope(&self) -> AccessScope {
        AccessScope::Operator(self.subject.operator.clone())
    }

    /// Rejects every caller but the root user, regardless of its permissions.
    ///
    /// # Errors
    ///
    /// `root_only` if the caller is not a root user.
    pub(in crate::api) fn require_root(&self) -> Result<(), Problem> {
        if self.subject.is_root() {
            return Ok(());
        }
        Err(Problem::root_only(
            "only the root user can create and delete AuthKeys of the root user, regardless of permissions",
        ))
    }

    /// Returns the operator of a path and the caller's access scope.
    ///
    /// # Errors
    ///
    /// `not_found` if the path names another operator, whether or not that operator exists.
    pub(in crate::api) fn access_scope_for(
        &self,
        operator: &str,
    ) -> Result<(OperatorId, AccessScope), Problem> {
        if operator != self.subject.operator.as_str() {
            return Err(Problem::not_found("operator not found"));
        }
        Ok((self.subject.operator.clone(), self.access_scope()))
    }
}

impl FromRequestParts<AppState> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        let target = parts.uri.path_and_query().map_or("/", PathAndQuery::as_str);
        let line = [(":method", parts.method.as_str().as_bytes()), (":path", target.as_bytes())];
        let headers = parts.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        let headers: Vec<_> = line.into_iter().chain(headers).collect();
        let peer = parts.extensions.get::<PeerAddr>().map(|PeerAddr(address)| *address);
        let publication = state.latest();
        let snapshot = Some(&publication.snapshot);
        let request = Request { headers: &headers, peer, snapshot, now: state.service.now().millis() };
        let admission = match state.gate.decide_with(&request, &mut Cache::disabled(), &SoftwareVerifier) {
            Decision::Admit(admission) => admission,
            Decision::Refuse(refused) => return Err(problem_of_refusal(state, &refused)),
            // The API's own policy has no public rule, so a request without a credential is refused.
            Decision::Pass(_) => return Err(problem_of_refusal(state, &Reason::CredentialMissing.into())),
        };
        let identity = admission.identity();
        let api_key = parts.headers.get(&API_KEY);
        if parts.headers.contains_key(&API_TOKEN) && !is_session_of_token(api_key, identity.session()) {
            return Err(Problem::new(
                StatusCode::UNAUTHORIZED,
                "api_key_mismatch",
                "`X-Soracom-API-Key` is missing or was not issued with this token",
            ));
        }
        let malformed = Reason::Token(token::Error::Malformed);
        let subject = identity.subject().parse().map_err(|_| problem_of_refusal(state, &malformed.into()))?;
        Ok(Self { subject, fingerprint: admission.fingerprint() })
    }
}

fn is_session_of_token(api_key: Option<&HeaderValue>, session: Option<&str>) -> bool {
    matches!((api_key, session), (Some(key), Some(session)) if key.as_bytes() == session.as_bytes())
}

fn problem_of_refusal(state: &AppState, refused: &Refusal) -> Problem {
    let reason = refused.reason();
    let status = StatusCode::from_u16(reason.status()).unwrap_or(StatusCode::UNAUTHORIZED);
    let problem = Problem::new(status, reason.code(), reason.to_string());
    let answer = state.gate.refusal_response(refused, None);
    let challenge = answer.headers.into_iter().find(|(name, _)| *name == header::WWW_AUTHENTICATE.as_str());
    match challenge.and_then(|(_, value)| HeaderValue::try_from(value).ok()) {
        Some(challenge) => problem.with_header(header::WWW_AUTHENTICATE, challenge),
        None => problem,
    }
}
