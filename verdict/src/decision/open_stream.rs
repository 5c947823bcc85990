//! The checks of an admitted stream that is still open: a WebSocket, server-sent events, a gRPC stream, an upload, a
//! download, a long poll.

use alloc::{
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};
use core::net::IpAddr;

use bundle::Snapshot;
use serde::Deserialize;

use crate::{
    config::Mode,
    decision::{
        Gate, Headers, Reason, Refusal,
        gate::{check_conditions, check_permission},
        route::Conditions,
    },
    identity::Identity,
    permission::AccessRequest,
    response::{is_grpc, valid_request_id},
    sync::StalePolicy,
};

/// What happens to an open stream whose credential would be refused now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum OpenStreamPolicy {
    /// The stream is ended.
    #[default]
    End,
    /// The stream is kept until the client or the upstream ends it. `keystile revoke --wait` reports the number of
    /// such streams.
    Keep,
}

/// How an edge treats a refused stream: the policy of its rule, or the mode `report`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Treatment {
    End,
    Keep,
    Report,
}

/// What a decision about an open stream depends on.
#[derive(Debug)]
pub struct OpenStream {
    identity: Arc<Identity>,
    rule: Option<usize>,
    treatment: Treatment,
    stale_policy: StalePolicy,
    permissions: Option<RequiredPermissions>,
    request_id: Option<String>,
    is_grpc: bool,
}

/// The permissions that a rule requires for a request.
#[derive(Debug)]
struct RequiredPermissions {
    required: Option<String>,
    /// Alternatives, of which one is required. Empty: none is.
    any_of: Vec<String>,
    client: Option<IpAddr>,
    variables: Vec<(String, String)>,
}

impl OpenStream {
    /// Returns the identity that the stream was admitted with.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Returns the id of the request, for the response.
    pub fn request_id(&self) -> Option<&[u8]> {
        self.request_id.as_deref().map(str::as_bytes)
    }

    /// Returns whether the stream is a gRPC call.
    pub const fn is_grpc(&self) -> bool {
        self.is_grpc
    }

    pub(crate) const fn treatment(&self) -> Treatment {
        self.treatment
    }
}

impl Gate {
    /// Returns what decisions about an admitted stream depend on. `headers` and `peer` are those that it was admitted
    /// with.
    ///
    /// # Errors
    ///
    /// Returns a refusal if no rule matches the headers, which an admitted stream does not have.
    pub fn open_stream(
        &self,
        identity: Arc<Identity>,
        headers: &Headers<'_>,
        peer: Option<IpAddr>,
    ) -> Result<OpenStream, Refusal> {
        let policy = self.policy();
        let route = policy.rules.route(policy.unmatched, policy.path_case, headers.iter().copied())?;
        let rule = route.requirements;
        let mode = rule.and_then(|rule| rule.mode).unwrap_or(policy.mode);
        let treatment = match (mode, rule.and_then(|rule| rule.open_streams).unwrap_or(policy.open_streams)) {
            (Mode::Report, _) => Treatment::Report,
            (Mode::Enforce, OpenStreamPolicy::End) => Treatment::End,
            (Mode::Enforce, OpenStreamPolicy::Keep) => Treatment::Keep,
        };
        let variables = route.variables();
        // An alternative that was met without a permission is still met, because claims do not change.
        let alternatives = rule.map_or(&[][..], |rule| rule.alternatives());
        let is_met =
            |alternative: &&Conditions| check_conditions(alternative, policy, &identity, &variables).is_ok();
        let met = || alternatives.iter().filter(is_met);
        let any_of: Vec<String> = if met().any(|alternative| alternative.permission.is_none()) {
            Vec::new()
        } else {
            met().filter_map(|alternative| alternative.permission.clone()).collect()
        };
        let needs_permission = route.permission.is_some() || !any_of.is_empty();
        let permissions = needs_permission.then(|| RequiredPermissions {
            required: route.permission.map(String::from),
            any_of,
            client: match &policy.client_address {
                Some(source) => source.resolve(headers.iter().copied()),
                None => peer,
            },
            variables: variables.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        });
        let request_id = headers.iter().find(|(name, _)| *name == "x-request-id");
        let request_id = request_id.and_then(|(_, value)| valid_request_id(value)).map(String::from);
        let stale_policy = self.stale_policy(rule);
        let (rule, is_grpc) = (route.rule, is_grpc(headers));
        drop(variables);
        Ok(OpenStream { identity, rule, treatment, stale_policy, permissions, request_id, is_grpc })
    }

    /// Decides whether a request like the one that opened the stream would still be admitted: by key, time, watermarks,
    /// revocations, freshness and permission. Claims are not checked again, because they do not change. `now` is in
    /// milliseconds since the Unix epoch.
    ///
    /// # Errors
    ///
    /// Returns the refusal that such a request would get.
    pub fn recheck(&self, stream: &OpenStream, snapshot: &Snapshot, now: u64) -> Result<(), Refusal> {
        let OpenStream { identity, rule, stale_policy, permissions, .. } = stream;
        let check = || {
            if !identity.is_key_current(snapshot) {
                return Err(if identity.is_api_key() {
                    Reason::GenerationUnknown
                } else {
                    Reason::KeyUnknown
                });
            }
            self.check_validity(identity, snapshot, now)?;
            self.check_freshness(*stale_policy, snapshot, identity, now)?;
            let Some(RequiredPermissions { required, any_of, client, variables }) = permissions else {
                return Ok(());
            };
            let variables: Vec<_> =
                variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let check = |api: &String| {
                let request = AccessRequest {
                    api,
                    user_name: identity.user_name(),
                    client: *client,
                    now: now.div_euclid(1000),
                    variables: &variables,
                };
                check_permission(identity, snapshot, &request)
            };
            required.as_ref().map_or(Ok(()), check)?;
            if any_of.is_empty() || any_of.iter().any(|api| check(api).is_ok()) {
                Ok(())
            } else {
                Err(Reason::PermissionDenied)
            }
        };
        check().map_err(|reason| Refusal::new(reason, Some(Arc::clone(identity)), *rule))
    }
}
