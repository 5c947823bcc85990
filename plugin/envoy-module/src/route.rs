//! The configuration of a route: a policy that replaces that of the listener.

use std::sync::atomic::{AtomicUsize, Ordering};

use verdict::{Environment, Gate, Policy};

use crate::{log::error, source::environment};

/// The number of configurations of routes in the process. Without any, no request asks Envoy for one.
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// A policy for the requests of a route. They are decided by the bundle of the listener's configuration, which must be
/// for the same audience and root keys.
#[derive(Debug)]
pub(crate) struct Route {
    gate: Gate,
}

impl Route {
    /// Returns `None`, and logs why, if the policy is not valid.
    pub(crate) fn new(json: &[u8]) -> Option<Self> {
        let environment: Environment = environment();
        match Policy::from_json_with_env(json, &environment) {
            Ok(policy) => {
                COUNT.fetch_add(1, Ordering::Release);
                Some(Self { gate: Gate::new(policy) })
            }
            Err(problem) => {
                error(&format!("invalid configuration of a route at {problem}"));
                None
            }
        }
    }

    pub(crate) fn any_exists() -> bool {
        COUNT.load(Ordering::Acquire) > 0
    }

    pub(crate) const fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Returns whether the bundle of the configuration with this gate is the one of the route.
    pub(crate) fn is_for(&self, listener: &Gate) -> bool {
        let (own, other) = (self.gate.policy(), listener.policy());
        own.audience == other.audience && own.root_keys == other.root_keys
    }
}

impl Drop for Route {
    fn drop(&mut self) {
        COUNT.fetch_sub(1, Ordering::Release);
    }
}
