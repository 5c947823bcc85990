//! Signs checkpoints and manifests, and verifies each as an edge does before it is published.

use std::{sync::Arc, time::Duration};

use bundle::{
    Entry, Manifest, Objects, Snapshot,
    builder::{BuiltBundle, CheckpointFields, ManifestFields},
};

use super::{Publication, PublishError, state::BundleState};
use crate::{
    config,
    domain::{Epoch, UnixMillis, Version},
    keys::publisher_keys::PublisherKeys,
    platform::data_dir::DataDir,
};

/// How long a checkpoint is valid. A holder of a stolen tail key can show an older tail to a freshly started edge for as
/// long.
const CHECKPOINT_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// How often a checkpoint is signed again. Milliseconds.
const CHECKPOINT_INTERVAL_MS: u64 = 3_600_000;

/// By how much a running clock may be corrected without consequences. Edges accept a difference of a minute.
const CLOCK_CORRECTION_TOLERANCE: Duration = Duration::from_secs(5);

/// An object with its entry.
pub(super) type Object = (Entry, Arc<[u8]>);

/// Signs checkpoints and manifests with the delegated keys.
pub(super) struct BundleSigner {
    data_dir: DataDir,
    authority: PublisherKeys,
    settings: config::Publisher,
    /// The checkpoint that was signed last.
    checkpoint: Option<Checkpoint>,
    /// The objects of the last manifest, as an edge has them.
    objects: Objects,
    /// The last bundle, as an edge assembles it.
    latest: Option<Snapshot>,
}

/// A signed checkpoint.
struct Checkpoint {
    version: Version,
    issued_at: UnixMillis,
    object: Object,
}

impl BundleSigner {
    pub(super) fn new(data_dir: DataDir, settings: config::Publisher) -> Result<Self, PublishError> {
        let authority = PublisherKeys::open(&data_dir, &settings.audience).map_err(PublishError::Keys)?;
        let objects = Objects::default();
        Ok(Self { data_dir, authority, settings, checkpoint: None, objects, latest: None })
    }

    /// Builds and signs a bundle of `state` as of a time. Returns the publication with all its objects.
    pub(super) fn sign(
        &mut self,
        state: &mut BundleState,
        as_of: UnixMillis,
    ) -> Result<(Publication, Vec<Object>), PublishError> {
        self.reload_keys();
        // A clock that is set back must not make a manifest look older than its predecessor of the same version.
        let same = self.last_signed_position().filter(|(version, _)| *version == state.version());
        let issued_at = as_of.millis().max(same.map_or(0, |(_, last)| last.saturating_add(1)));
        let built = state.build()?;
        let checkpoint = self.checkpoint(state.checkpoint(), &built, UnixMillis::from_millis(issued_at))?;
        let BuiltBundle { tail, mut objects, .. } = built;
        let draft = ManifestFields {
            delegation: &self.authority.signed,
            version: state.version().get(),
            issued_at,
            expires_at: UnixMillis::from_millis(issued_at).plus(self.settings.lifetime.get()).millis(),
            checkpoint: checkpoint.0,
            tail: &tail,
        };
        let (version, expires_at) = (state.version(), draft.expires_at);
        let signed = self.authority.tail.sign(&draft)?;
        objects.push(checkpoint);
        let snapshot = self.open(&signed, &objects, issued_at)?;
        self.latest = Some(snapshot.clone());
        let epoch = Epoch::new(self.authority.delegation.epoch());
        let publication = Publication { epoch, version, issued_at, expires_at, manifest: signed, snapshot };
        Ok((publication, objects))
    }

    /// Returns `true` if the last manifest is of `version` and was issued so much later than `now` that edges would
    /// take the next manifest of this version for one from the future: the clock was set back in between.
    pub(super) fn is_ahead_of(&self, now: UnixMillis, version: Version) -> bool {
        self.last_signed_position().is_some_and(|(signed, last)| {
            signed == version && last > now.plus(CLOCK_CORRECTION_TOLERANCE).millis()
        })
    }

    /// Returns version and time of issue (milliseconds) of the last manifest, or `None` if none was signed.
    fn last_signed_position(&self) -> Option<(Version, u64)> {
        let last = self.latest.as_ref()?.manifest();
        Some((Version::new(last.version()), last.issued_at()))
    }

    /// Returns the checkpoint of a version, and signs it again once an hour.
    fn checkpoint(
        &mut self,
        version: Version,
        built: &BuiltBundle,
        now: UnixMillis,
    ) -> Result<Object, PublishError> {
        // The time of issue is derived from the version or the hour instead of the present moment, so that all publishers
        // of a database sign the same bytes, and an edge can fetch from any of them the object that another has named.
        // A version that a clock ahead has allocated lies in the future; then only the hour is used.
        let hour = now.millis() - now.millis() % CHECKPOINT_INTERVAL_MS;
        let is_past = version.get() <= now.plus(CLOCK_CORRECTION_TOLERANCE).millis();
        let issued_at = UnixMillis::from_millis(if is_past { version.get().max(hour) } else { hour });
        let is_current = |held: &&Checkpoint| held.version == version && held.issued_at == issued_at;
        if let Some(held) = self.checkpoint.as_ref().filter(is_current) {
            return Ok(held.object.clone());
        }
        let draft = CheckpointFields {
            audience: &self.settings.audience,
            version: version.get(),
            issued_at: issued_at.millis(),
            expires_at: issued_at.plus(CHECKPOINT_LIFETIME).millis(),
            covered_until: built.covered_until,
            entries: &built.checkpoint,
        };
        let object = self.authority.snapshot.sign(&draft)?;
        self.checkpoint = Some(Checkpoint { version, issued_at, object: object.clone() });
        Ok(object)
    }

    /// Opens the keys again if their files have changed. Keeps the present keys if the new ones cannot be read.
    fn reload_keys(&mut self) {
        if !self.authority.is_superseded(&self.data_dir) {
            return;
        }
        match PublisherKeys::open(&self.data_dir, &self.settings.audience) {
            Ok(authority) => {
                tracing::info!(
                    authority.epoch = authority.delegation.epoch(),
                    authority.snapshot_key = %authority.snapshot.public_key(),
                    authority.tail_key = %authority.tail.public_key(),
                    "the delegated keys were replaced; bundles are signed with the new ones"
                );
                // The key that signed the checkpoint may not be delegated any more.
                self.checkpoint = None;
                self.authority = authority;
            }
            Err(error) => {
                let (code, cause) =
                    (error.code(), std::error::Error::source(&error).map(ToString::to_string));
                tracing::error!(
                    error.code = code,
                    error.cause = cause,
                    "cannot use the new delegated keys, keeping the present ones: {error}"
                );
            }
        }
    }

    /// Verifies the bundle as an edge does: a bundle that an edge would refuse is never published. `now` is in
    /// milliseconds.
    fn open(&mut self, signed: &[u8], built: &[Object], now: u64) -> Result<Snapshot, PublishError> {
        let manifest =
            Manifest::open(signed, std::slice::from_ref(&self.authority.root), &self.settings.audience)?;
        // The checkpoint names further objects, which become known once it is open.
        loop {
            let missing = self.objects.missing(&manifest, now);
            let found = built.iter().filter(|(entry, _)| missing.contains(entry));
            let mut opened = false;
            for (entry, bytes) in found {
                self.objects.open(&manifest, *entry, bytes.to_vec())?;
                opened = true;
            }
            if !opened {
                break;
            }
        }
        self.objects.retain_named_by([&manifest], now);
        Ok(match &self.latest {
            Some(latest) => latest.advance(manifest, &self.objects, now)?,
            None => Snapshot::assemble(manifest, &self.objects, now)?,
        })
    }
}
