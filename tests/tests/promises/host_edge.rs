//! A worker in the second host, with its own bundle.

use bundle::builder::{Builder, ManifestFields};
use harness::fake_control_plane::{self, Responses, TestSigner, plugin_configuration};
use harness::host::{Host, HostState, Outcome, Pairs};
use serde_json::Value;
use token::Claims;
use token::mint::SigningKey;

pub(crate) struct HostEdge {
    pub(crate) host: Host,
    pub(crate) content: Builder,
    pub(crate) eddsa: SigningKey,
    pub(crate) hs256: SigningKey,
    version: u64,
}

impl HostEdge {
    /// Starts an edge whose bundle has both keys.
    pub(crate) fn start() -> Self {
        Self::start_with(configuration(), |_| ())
    }

    pub(crate) fn start_with(configuration: Value, prepare: impl FnOnce(&mut HostState)) -> Self {
        let mut state = HostState::new(configuration, NOW_MS);
        prepare(&mut state);
        let (host, taken) = Host::start(state).unwrap();
        let mut edge = Self::start_empty(host);
        assert!(taken, "the filter refuses its configuration: {:?}", edge.host.state().log);
        edge.publish();
        edge
    }

    /// Starts an edge without a bundle.
    pub(crate) fn start_empty(host: Host) -> Self {
        let eddsa = SigningKey::ed25519("key-1", &[2; 32]).unwrap();
        let hs256 = SigningKey::hs256("key-2", SECRET).unwrap();
        let mut content = Builder::default();
        content.set_verifying_keys([eddsa.verifying_key()]).unwrap();
        content.set_secret_keys([("key-2", SECRET)]).unwrap();
        Self { host, content, eddsa, hs256, version: 0 }
    }

    /// Serves the content to the filter as the next version.
    pub(crate) fn publish(&mut self) {
        let served = self.sign_next(|_| ());
        self.host.serve(&served).unwrap();
    }

    /// Signs the content as the next version, changed by `change`.
    pub(crate) fn sign_next(&mut self, change: impl FnOnce(&mut ManifestFields<'_>)) -> Responses {
        self.sign_next_with(&TestSigner::new(1), change)
    }

    /// Signs the content as this version, at this time. A version after the last one has another checkpoint.
    pub(crate) fn sign_at(
        &mut self,
        version: u64,
        change: impl FnOnce(&mut ManifestFields<'_>),
    ) -> Responses {
        let authority = TestSigner::new(1);
        let now = self.host.state().now / 1_000_000;
        if version > self.version {
            self.version = version;
            self.content.checkpoint(version).unwrap();
        }
        let content = self.content.build().unwrap();
        let checkpoint = authority.sign_checkpoint(&content, version, NOW_MS, |_| ());
        authority.sign_manifest(&content, &checkpoint, version, now, change)
    }

    pub(crate) fn sign_next_with(
        &mut self,
        authority: &TestSigner,
        change: impl FnOnce(&mut ManifestFields<'_>),
    ) -> Responses {
        self.version += 1;
        let now = self.host.state().now / 1_000_000;
        self.content.checkpoint(self.version).unwrap();
        let content = self.content.build().unwrap();
        let checkpoint = authority.sign_checkpoint(&content, self.version, now, |_| ());
        authority.sign_manifest(&content, &checkpoint, self.version, now, change)
    }

    /// Returns claims that depend only on the number, so that the cost is the same at each call.
    pub(crate) fn claims(number: u64) -> Claims {
        Claims { jti: format!("{number:032x}"), ..fake_control_plane::claims(NOW_MS) }
    }

    /// Returns whether a request is admitted, or the reason of its refusal.
    pub(crate) fn ask(&mut self, headers: &Pairs) -> Result<Pairs, String> {
        match self.host.request(headers).unwrap() {
            Outcome::Forwarded(headers) => Ok(headers),
            Outcome::Answered(response) => Err(response.details),
            Outcome::Held => Err("held".into()),
        }
    }
}

pub(crate) fn configuration() -> Value {
    plugin_configuration(&TestSigner::new(1))
}

/// Returns the headers of a browser, with a credential.
pub(crate) fn request(token: &str) -> Pairs {
    plain_request().with("authorization", format!("Bearer {token}"))
}

pub(crate) fn plain_request() -> Pairs {
    Pairs::from_slice(&[
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", "api.example.com"),
        (":path", "/v1/sims/1234567890?limit=10"),
        ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
        ("accept", "application/json"),
        ("accept-encoding", "gzip, deflate, br"),
        ("accept-language", "en-GB,en;q=0.5"),
        ("x-forwarded-for", "203.0.113.7"),
        ("x-forwarded-proto", "https"),
        ("x-request-id", "b1d1f7c4-9d5c-4b7a-8f0e-6f1d2c3b4a59"),
    ])
}

const SECRET: &[u8] = &[3; 32];

/// A fixed time: 2027-01-15.
pub(crate) const NOW_MS: u64 = 1_800_000_000_000;
