//! Results as JavaScript gets them, in JSON. npm/src/core-types.ts has the same types.

use std::borrow::Cow;

use serde::Serialize;
use verdict::{
    Admission, Decision, Forward, ForwardedHeader, Identity, PassReason, Reason, Refusal, Response, Snapshot,
};

use crate::signatures::QuestionView;

/// The result of a decision.
#[derive(Debug, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub(crate) enum Outcome<'a> {
    Admit {
        identity: IdentityView<'a>,
        /// Why the request would be refused in enforce mode.
        #[serde(skip_serializing_if = "Option::is_none")]
        code: Option<&'static str>,
        #[serde(rename = "isStale")]
        is_stale: bool,
        edit: Edit<'a>,
    },
    Pass {
        reason: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        code: Option<&'static str>,
        edit: Edit<'a>,
    },
    Refuse(RefusalView<'a>),
    /// The signature has to be verified first.
    Signature(QuestionView),
    /// The head is malformed.
    HostError,
}

impl<'a> Outcome<'a> {
    /// Returns the outcome of a request that is forwarded.
    pub(crate) fn of_forwarded(decision: &'a Decision, edit: Edit<'a>) -> Self {
        let code = decision.reason().map(Reason::code);
        let reason = match decision {
            Decision::Admit(admission) => return Self::of_admission(admission, code, edit),
            Decision::Pass(PassReason::Public(_)) => "public",
            Decision::Pass(PassReason::Anonymous(_)) => "anonymous",
            Decision::Pass(PassReason::Preflight(_)) => "preflight",
            Decision::Pass(PassReason::Reported(_)) => "reported",
            // A refused request is never forwarded.
            Decision::Refuse(_) => return Self::HostError,
        };
        Self::Pass { reason, code, edit }
    }

    fn of_admission(admission: &'a Admission, code: Option<&'static str>, edit: Edit<'a>) -> Self {
        let (identity, is_stale) = (admission.identity().into(), admission.stale().is_some());
        Self::Admit { identity, code, is_stale, edit }
    }

    pub(crate) fn to_json(&self) -> String {
        to_json(self)
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct IdentityView<'a> {
    subject: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    operator: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer: Option<&'a str>,
    issued_at: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<u64>,
    fingerprint: &'a str,
}

impl<'a> From<&'a Identity> for IdentityView<'a> {
    fn from(identity: &'a Identity) -> Self {
        Self {
            subject: identity.subject(),
            operator: identity.operator(),
            key_id: identity.key_id(),
            session: identity.session(),
            issuer: identity.issuer(),
            issued_at: identity.issued_at(),
            expires_at: identity.expires_at(),
            fingerprint: identity.fingerprint_hex(),
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct RefusalView<'a> {
    code: &'static str,
    status: u16,
    message: String,
    headers: Vec<(&'a str, &'a str)>,
    body: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    identity: Option<IdentityView<'a>>,
}

impl<'a> RefusalView<'a> {
    pub(crate) fn new(refusal: &'a Refusal, response: &'a Response) -> Self {
        Self {
            code: refusal.reason().code(),
            status: response.status,
            message: refusal.message(),
            headers: response.headers.iter().map(|(name, value)| (*name, value.as_str())).collect(),
            body: &response.body,
            identity: refusal.identity().map(IdentityView::from),
        }
    }
}

/// How the headers of a forwarded request change.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Edit<'a> {
    Unchanged {},
    Edited { remove: Vec<&'a str>, add: Vec<(&'a str, Cow<'a, str>)> },
    ReplaceAll { replace: Vec<(&'a str, Cow<'a, str>)> },
}

impl<'a> From<Forward<'a>> for Edit<'a> {
    fn from(forward: Forward<'a>) -> Self {
        match forward {
            Forward::Unchanged => Self::Unchanged {},
            Forward::Edited { removed, added } => {
                Self::Edited { remove: removed, add: added.into_iter().map(to_text).collect() }
            }
            Forward::ReplaceAll(headers) => {
                Self::ReplaceAll { replace: headers.into_iter().map(to_text).collect() }
            }
        }
    }
}

/// Represents each byte of a value as one character, as Fetch and Node do.
fn to_text<'a>((name, value): ForwardedHeader<'a>) -> (&'a str, Cow<'a, str>) {
    let text = match value {
        Cow::Borrowed(bytes) if bytes.is_ascii() => str::from_utf8(bytes).unwrap_or_default().into(),
        bytes => bytes.iter().map(|byte| char::from(*byte)).collect::<String>().into(),
    };
    (name, text)
}

/// The result of a response of the control plane.
#[derive(Debug, Serialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub(crate) enum StepView<'a> {
    Pending,
    /// The object is in use, or will be.
    Stored,
    /// A newer bundle is in use.
    Ready,
    Failed {
        code: &'a str,
        message: &'a str,
    },
}

impl<'a> StepView<'a> {
    pub(crate) const fn failed(code: &'a str, message: &'a str) -> Self {
        Self::Failed { code, message }
    }

    pub(crate) fn to_json(&self) -> String {
        to_json(self)
    }
}

/// The version of the current bundle, and its times in milliseconds since the Unix epoch. All are 0 without a bundle.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StatusView {
    version: u64,
    fresh_until: u64,
    refresh_due_at: u64,
}

impl StatusView {
    pub(crate) fn of(snapshot: Option<&Snapshot>) -> Self {
        snapshot.map_or_else(Self::default, |snapshot| Self {
            version: snapshot.manifest().version(),
            fresh_until: snapshot.expires_at(),
            refresh_due_at: snapshot.refresh_due_at(),
        })
    }
}

/// Serialization fails only for maps whose keys are not strings, and no result has one. JavaScript would refuse the empty
/// text.
pub(crate) fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
