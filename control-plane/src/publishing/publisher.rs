//! The publishing loop's single step: load the changes, write the journal, build, sign, and publish.

use std::sync::Arc;

use tokio::sync::watch;

use super::{
    BundlePosition, Publication, Publications, PublishError, keyset::KeySet, object_cache::ObjectCache,
    signer::BundleSigner, state::BundleState,
};
use crate::{
    db::{Store, versions},
    domain::{Actor, Event, UnixMillis, Version},
    journal::{Continuity, Journal, PUBLISHER_TIMEOUT},
    platform::{clock::Clock, data_dir::DataDir, telemetry::Metrics},
    restore::refuse_after_restore,
    service::Service,
};

/// How often a checkpoint is moved in one attempt to publish.
const MAX_CHECKPOINTS: usize = 8;

/// When [`BundlePublisher::publish`] signs a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SignMode {
    /// Signs in any case, to renew the lifetime of the manifest.
    Always,
    /// Signs only if the store has changed since the last manifest.
    IfNewer,
}

/// Loads changes from the store, builds and signs bundles, and publishes them.
pub(super) struct BundlePublisher {
    store: Store,
    clock: Clock,
    journal: Journal,
    data_dir: DataDir,
    state: BundleState,
    /// True if `state` has changes that no signed manifest contains.
    has_unsigned_changes: bool,
    signer: BundleSigner,
    object_cache: Arc<ObjectCache>,
    latest: watch::Sender<Arc<Publication>>,
    order: watch::Sender<BundlePosition>,
    publications: Publications,
    metrics: Metrics,
}

impl BundlePublisher {
    /// Builds and signs the first publication.
    pub(super) async fn start(service: &Service, metrics: Metrics) -> Result<Self, PublishError> {
        let store = service.store().clone();
        let keyset = KeySet::new(Arc::clone(service.keys()), service.data_dir().clone());
        let mut state = BundleState::new(keyset);
        let clock = service.clock().clone();
        let as_of = clock.now();
        state.load(&store).await?;
        if state.needs_checkpoint() {
            state.checkpoint_now()?;
        }
        let mut signer = BundleSigner::new(service.data_dir().clone(), service.config().publisher.clone())?;
        let (publication, objects) = signer.sign(&mut state, as_of)?;
        let object_cache = Arc::new(ObjectCache::default());
        object_cache.insert(&objects, as_of);
        metrics.set_published(publication.version.get(), publication.issued_at, state.revocation_count());
        let order = watch::Sender::new(publication.position());
        let latest = watch::Sender::new(Arc::new(publication));
        let publications =
            Publications::new(latest.subscribe(), order.subscribe(), Arc::clone(&object_cache));
        let journal = service.journal().clone();
        Ok(Self {
            store,
            clock,
            journal,
            data_dir: service.data_dir().clone(),
            state,
            has_unsigned_changes: false,
            signer,
            object_cache,
            latest,
            order,
            publications,
            metrics,
        })
    }

    pub(super) fn publications(&self) -> Publications {
        self.publications.clone()
    }

    /// Signs the current state, and returns manifest and objects as one text. The text may contain symmetric keys.
    pub(super) fn export_inline(&mut self) -> Result<String, PublishError> {
        let (publication, objects) = self.signer.sign(&mut self.state, self.clock.now())?;
        let objects = objects.iter().map(|(_, bytes)| &**bytes);
        Ok(bundle::InlineBundle::encode(&publication.manifest, objects)?)
    }

    /// Loads the changes from the store, and publishes a manifest as `sign` requires.
    pub(super) async fn publish(&mut self, sign: SignMode) -> Result<(), PublishError> {
        // The manifest attests the state at its time of issue, so the time is taken before the store is read.
        self.publish_as_of(self.clock.now(), sign).await
    }

    /// Loads the changes from the store. If the database was rolled back, loads all of it under a new version.
    async fn load(&mut self, as_of: UnixMillis) -> Result<(), PublishError> {
        let published = self.latest.borrow().version;
        let (lost, kept) = match self.state.load(&self.store).await {
            // The database may have been rolled back again while the whole state was loaded.
            Ok(_) if self.state.version() < published => (published, self.state.version()),
            Ok(has_changed) => {
                self.state.anchor_store(&self.store);
                self.has_unsigned_changes |= has_changed;
                return Ok(());
            }
            Err(PublishError::RolledBack { published: loaded, kept }) => (loaded.max(published), kept),
            Err(error) => return Err(error),
        };
        self.recover_from_rollback(lost, kept, as_of).await
    }

    /// Merges the journal into a database that was rolled back, and loads all of it under a new version. `lost` is the
    /// last version that was published, `kept` the last one that the database still has.
    async fn recover_from_rollback(
        &mut self,
        lost: Version,
        kept: Version,
        as_of: UnixMillis,
    ) -> Result<(), PublishError> {
        let took_version = take_version_above(&self.store, lost, kept, as_of).await?;
        // Nothing is published before the merge: until then edges keep the bundle that contains the lost revocations.
        refuse_after_restore(&self.store, &self.data_dir, &self.journal, as_of)
            .await
            .map_err(|error| PublishError::Merge(Box::new(error)))?;
        self.has_unsigned_changes = true;
        self.state.reset();
        self.state.load(&self.store).await?;
        self.state.anchor_store(&self.store);
        let error = PublishError::RolledBack { published: lost, kept };
        tracing::error!(
            error.code = error.code(),
            missing.from = kept.next().get(),
            missing.to = lost.get(),
            bundle.version = self.state.version().get(),
            version.taken_here = took_version,
            "{error}; the remaining data is published under a new version, and the revocations in the journal are \
             applied again: run `keystile restore --repair` to refuse the credentials whose issue was lost"
        );
        Ok(())
    }

    /// Does what [`publish`](Self::publish) does, as of a given time. This function is cancel safe.
    async fn publish_as_of(&mut self, as_of: UnixMillis, sign: SignMode) -> Result<(), PublishError> {
        self.publish_within(MAX_CHECKPOINTS, as_of, sign).await
    }

    /// Does what [`publish`](Self::publish) does, and moves the checkpoint at most `max_checkpoints` times. If one is still
    /// due, no manifest is signed: it would lack a change.
    async fn publish_within(
        &mut self,
        max_checkpoints: usize,
        as_of: UnixMillis,
        sign: SignMode,
    ) -> Result<(), PublishError> {
        self.load(as_of).await?;
        // Each load can bring another change that a tail cannot express.
        for _ in 0..max_checkpoints {
            if self.state.needs_checkpoint() {
                move_checkpoint(&self.store, self.state.checkpoint(), as_of).await?;
                self.load(as_of).await?;
            }
        }
        if self.state.needs_checkpoint() {
            return Ok(());
        }
        // The journal is also written when edges need no new manifest: its marks are the only trace of credentials that
        // were issued and not revocation_count.
        if self.journal.keep_up(&self.store, PUBLISHER_TIMEOUT).await == Continuity::RolledBack {
            let published = self.latest.borrow().version;
            self.recover_from_rollback(published, self.state.version(), as_of).await?;
        }
        if !self.has_unsigned_changes && sign == SignMode::IfNewer {
            return Ok(());
        }
        if self.signer.is_ahead_of(as_of, self.state.version()) {
            let (last, now) = (self.latest.borrow().issued_at, as_of.millis());
            tracing::warn!(
                manifest.issued_at = last,
                clock.now = now,
                "the clock was set back: the last manifest was signed by a clock that was ahead; a new version starts now"
            );
            allocate_version(&self.store, as_of).await?;
            self.load(as_of).await?;
        }
        let (publication, objects) = self.signer.sign(&mut self.state, as_of)?;
        self.has_unsigned_changes = false;
        self.object_cache.insert(&objects, as_of);
        self.metrics.set_published(
            publication.version.get(),
            publication.issued_at,
            self.state.revocation_count(),
        );
        let order = publication.position();
        self.latest.send_replace(Arc::new(publication));
        self.order.send_if_modified(|published| std::mem::replace(published, order) != order);
        Ok(())
    }
}

/// Allocates a version above `published`, with a checkpoint, so that edges accept the state of a database that was rolled
/// back. Returns `false` if another publisher of the same database has done so already.
async fn take_version_above(
    store: &Store,
    published: Version,
    kept: Version,
    now: UnixMillis,
) -> Result<bool, PublishError> {
    let mut draft = store.draft_unanchored(&Actor::System, || now).await?;
    let found = versions::current(draft.db()).await?;
    if found.number > published && found.checkpoint > published {
        return Ok(false);
    }
    let version = draft.version_above(published).await?;
    versions::mark_checkpoint(draft.db(), version).await?;
    let event = Event::StoreRolledBack { missing_from: kept.next(), missing_to: published };
    draft.commit(event).await?;
    Ok(true)
}

/// Allocates a version without any other change.
async fn allocate_version(store: &Store, now: UnixMillis) -> Result<(), PublishError> {
    let mut upkeep = store.upkeep().await?;
    upkeep.allocate_version(now).await?;
    Ok(upkeep.commit().await?)
}

/// Makes a new version the checkpoint, unless another publisher has moved the checkpoint from `held` already.
async fn move_checkpoint(store: &Store, held: Version, now: UnixMillis) -> Result<(), PublishError> {
    let mut upkeep = store.upkeep().await?;
    let version = upkeep.allocate_version(now).await?;
    if versions::current(upkeep.db()).await?.checkpoint == held {
        versions::mark_checkpoint(upkeep.db(), version).await?;
        upkeep.commit().await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{config::Config, installation::initialize, keys::rotate_signing_key};

    async fn open(data_dir: DataDir) -> Service {
        let config = Config::default();
        initialize(&data_dir, &config).await.unwrap();
        Service::open(data_dir, config).await.unwrap()
    }

    /// One forward step of the clock, and its correction.
    #[tokio::test]
    async fn bundle_has_no_future_times_after_clock_correction() {
        let folder = tempfile::tempdir().unwrap();
        let service = open(DataDir::new(folder.path().join("data"))).await;
        let mut publisher = BundlePublisher::start(&service, Metrics::new()).await.unwrap();
        let publications = publisher.publications();
        let now = service.now();
        for (step, ahead) in [0, 3600, 0, 0, 3, 0].into_iter().enumerate() {
            let before = publications.latest();
            let as_of = now.plus(Duration::from_secs(ahead));
            publisher.publish_as_of(as_of, SignMode::Always).await.unwrap();
            let latest = publications.latest();
            assert!(latest.issued_at.abs_diff(as_of.millis()) < 5_000, "step {step}");
            latest.snapshot.manifest().check_successor_of(before.snapshot.manifest()).unwrap();
            assert_eq!(latest.version > before.version, step == 2, "step {step}");
        }
    }

    /// Other replicas can make changes faster than one attempt moves the checkpoint.
    #[tokio::test]
    async fn no_manifest_is_signed_while_a_checkpoint_is_due() {
        let folder = tempfile::tempdir().unwrap();
        let service = open(DataDir::new(folder.path().join("data"))).await;
        let mut publisher = BundlePublisher::start(&service, Metrics::new()).await.unwrap();
        let publications = publisher.publications();
        let before = publications.latest();
        let kid = rotate_signing_key(&service, &Actor::System).await.unwrap();
        let as_of = service.now().plus(Duration::from_secs(1));
        for sign in [SignMode::Always, SignMode::IfNewer] {
            publisher.publish_within(0, as_of, sign).await.unwrap();
            assert_eq!(publications.latest().manifest, before.manifest, "{sign:?}");
        }
        publisher.publish_within(1, as_of, SignMode::IfNewer).await.unwrap();
        let latest = publications.latest();
        assert!(latest.version > before.version);
        assert!(before.snapshot.key(&kid).is_none() && latest.snapshot.key(&kid).is_some());
    }
}
