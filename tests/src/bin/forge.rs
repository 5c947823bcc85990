//! `forge`: signs bundles for the tests of the JavaScript package, which have clocks of their own.
//!
//! It reads a [`Command`] a line and answers each with a line: the manifest and all objects in base64url. The first line that
//! it prints is the plugin configuration that accepts its bundles.

use anyhow::{Context as _, Result};
use bundle::builder::Builder;
use harness::fake_control_plane::{Responses, TestSigner, plugin_configuration};
use serde::Deserialize;
use serde_json::{Map, json};
use std::io::{BufRead as _, Write as _};
use token::{Algorithm, Fingerprint, VerifyingKey, base64url};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Command {
    /// When the manifest is issued, in milliseconds since the Unix epoch.
    now: u64,
    lifetime_ms: u64,
    /// Replaces the keys that verify tokens.
    #[serde(default)]
    keys: Vec<Key>,
    /// Replaces the symmetric keys: `kid` and secret in base64url.
    #[serde(default)]
    secrets: Vec<(String, String)>,
    /// Fingerprints in hexadecimal.
    #[serde(default)]
    revoke: Vec<String>,
    /// The number of other revocations to add.
    #[serde(default)]
    fill: u64,
    /// Signs with keys that no edge accepts.
    #[serde(default)]
    foreign: bool,
    /// Signs the same version with a later time.
    #[serde(default)]
    renew: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Key {
    /// `None`: this deployment.
    issuer: Option<String>,
    kid: String,
    alg: String,
    /// As `VerifyingKey::local` takes it, in base64url.
    bytes: String,
}

struct Forge {
    content: Builder,
    version: u64,
}

fn main() -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", plugin_configuration(&TestSigner::new(1)))?;
    out.flush()?;
    let mut forge = Forge { content: Builder::default(), version: 0 };
    for line in std::io::stdin().lock().lines() {
        let signed = forge.sign(&serde_json::from_str(&line?)?)?;
        let objects: Map<_, _> = signed
            .objects
            .iter()
            .map(|(hash, bytes)| (hash.clone(), base64url::encode(bytes).into()))
            .collect();
        let manifest = base64url::encode(&signed.manifest);
        writeln!(out, "{}", json!({ "version": forge.version, "manifest": manifest, "objects": objects }))?;
        out.flush()?;
    }
    Ok(())
}

impl Forge {
    fn sign(&mut self, command: &Command) -> Result<Responses> {
        if !command.keys.is_empty() {
            let keys: Vec<_> = command.keys.iter().map(Key::verifying_key).collect::<Result<_>>()?;
            self.content.set_verifying_keys(&keys)?;
        }
        if !command.secrets.is_empty() {
            let secret = |text: &str| base64url::decode(text.as_bytes()).context("secret");
            let secrets: Vec<_> = command
                .secrets
                .iter()
                .map(|(kid, text)| Ok((kid.as_str(), secret(text)?)))
                .collect::<Result<_>>()?;
            self.content.set_secret_keys(secrets.iter().map(|(kid, secret)| (*kid, secret.as_slice())))?;
        }
        self.version += u64::from(!command.renew);
        for fingerprint in &command.revoke {
            self.content.revoke(self.version, fingerprint.parse().ok().context("fingerprint")?)?;
        }
        for number in 0..command.fill {
            self.content.revoke(self.version, Fingerprint::digest(&number.to_be_bytes()))?;
        }
        self.content.checkpoint(self.version)?;
        let built = self.content.build()?;
        let signer = TestSigner::new(if command.foreign { 2 } else { 1 });
        let checkpoint = signer.sign_checkpoint(&built, self.version, command.now, |_| ());
        Ok(signer.sign_manifest(&built, &checkpoint, self.version, command.now, |fields| {
            fields.expires_at = command.now + command.lifetime_ms;
        }))
    }
}

impl Key {
    fn verifying_key(&self) -> Result<VerifyingKey> {
        let algorithm = Algorithm::from_name(&self.alg).context("alg")?;
        let bytes = base64url::decode(self.bytes.as_bytes()).context("bytes")?;
        Ok(match &self.issuer {
            None => VerifyingKey::local(&self.kid, algorithm, &bytes)?,
            Some(issuer) => VerifyingKey::foreign(issuer, &self.kid, algorithm, &bytes)?,
        })
    }
}
