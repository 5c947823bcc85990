use std::{sync::Arc, time::Duration};

use bundle::{
    Entry, Manifest, Objects, Snapshot,
    builder::{BuiltBundle, CheckpointFields, ManifestFields},
};
use serde_json::json;
use tokio::sync::watch;

use super::{
    Order, Publication, Publications, PublishError, contents::Contents, keyset::KeySet, shelf::Shelf,
};
use crate::{
    authority::Authority,
    clock::{Clock, Time},
    config,
    home::Home,
    journal::{Continuity, Journal, PUBLISHER_PATIENCE},
    model::Actor,
    operations::{Service, refuse_again},
    store::{Store, audit, versions},
    telemetry::Metrics,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    Always,
    IfNewer,
}

/// Loads, builds, signs, publishes.
pub(super) struct Press {
    store: Store,
    clock: Clock,
    journal: Journal,
    contents: Contents,
    /// Whether anything was taken up that no manifest says yet.
    unsigned: bool,
    sealer: Sealer,
    shelf: Arc<Shelf>,
    latest: watch::Sender<Arc<Publication>>,
    order: watch::Sender<Order>,
    publications: Publications,
    metrics: Metrics,
}

impl Press {
    /// With the first publication made.
    pub(super) async fn start(service: &Service, metrics: Metrics) -> Result<Self, PublishError> {
        let store = service.store().clone();
        let keyset = KeySet::new(Arc::clone(service.keys()), service.home().clone());
        let mut contents = Contents::new(keyset);
        let clock = service.clock().clone();
        let as_of = clock.now();
        contents.load(&store).await?;
        if contents.needs_checkpoint() {
            contents.settle_here()?;
        }
        let mut sealer = Sealer::new(service.home().clone(), service.config().publisher.clone())?;
        let (publication, built) = sealer.seal(&mut contents, as_of)?;
        let shelf = Arc::new(Shelf::default());
        shelf.stock(&built, as_of);
        metrics.published(publication.version, publication.issued_at, contents.revoked());
        let order = watch::Sender::new(publication.order());
        let latest = watch::Sender::new(Arc::new(publication));
        let publications = Publications::new(latest.subscribe(), order.subscribe(), Arc::clone(&shelf));
        let journal = service.journal().clone();
        Ok(Self {
            store,
            clock,
            journal,
            contents,
            unsigned: false,
            sealer,
            shelf,
            latest,
            order,
            publications,
            metrics,
        })
    }

    pub(super) fn publications(&self) -> Publications {
        self.publications.clone()
    }

    /// Manifest and objects together. Symmetric keys may be among them.
    pub(super) fn carried(&mut self) -> Result<String, PublishError> {
        let (publication, objects) = self.sealer.seal(&mut self.contents, self.clock.now())?;
        let objects = objects.iter().map(|(_, bytes)| &**bytes);
        Ok(bundle::InlineBundle::encode(&publication.manifest, objects)?)
    }

    /// Takes up what changed; signs if there is something newer, or anyway.
    pub(super) async fn publish(&mut self, sign: Sign) -> Result<(), PublishError> {
        // The manifest speaks for this instant, so it is taken before the store is read.
        self.publish_as_of(self.clock.now(), sign).await
    }

    /// Takes up what changed. From a database that went back, all that it has: under a new version, at once.
    async fn load(&mut self, as_of: Time) -> Result<(), PublishError> {
        let published = self.latest.borrow().version;
        let (lost, kept) = match self.contents.load(&self.store).await {
            // It may have gone back again while it was being loaded from nothing.
            Ok(_) if self.contents.version() < published => (published, self.contents.version()),
            Ok(news) => {
                self.contents.anchor(&self.store);
                self.unsigned |= news;
                return Ok(());
            }
            Err(PublishError::WentBack { published: loaded, kept }) => (loaded.max(published), kept),
            Err(error) => return Err(error),
        };
        self.recover(lost, kept, as_of).await
    }

    /// Publishes anew from a database that went back, once all that it lacks is refused again.
    async fn recover(&mut self, lost: u64, kept: u64, as_of: Time) -> Result<(), PublishError> {
        let has_risen = rise_above(&self.store, lost, kept, as_of).await?;
        // Nothing is published of it before: edges keep what they have, which refuses it.
        refuse_again(&self.store, &self.sealer.home, &self.journal, as_of)
            .await
            .map_err(|error| PublishError::Merge(Box::new(error)))?;
        self.unsigned = true;
        self.contents.begin_anew();
        self.contents.load(&self.store).await?;
        self.contents.anchor(&self.store);
        let error = PublishError::WentBack { published: lost, kept };
        tracing::error!(
            error.code = error.code(),
            missing.from = kept.saturating_add(1),
            missing.to = lost,
            bundle.version = self.contents.version(),
            version.taken_here = has_risen,
            "{error}; what it has is published under a new version, and what the journal says was revoked meanwhile is \
             refused again: `keystile restore --repair` refuses what was issued meanwhile"
        );
        Ok(())
    }

    /// May be dropped before its end, and called again.
    async fn publish_as_of(&mut self, as_of: Time, sign: Sign) -> Result<(), PublishError> {
        self.load(as_of).await?;
        if self.contents.needs_checkpoint() {
            move_checkpoint(&self.store, self.contents.checkpoint(), as_of).await?;
            self.load(as_of).await?;
        }
        // Also of what edges need not hear: how far the store was is a trace of what was only issued.
        if self.journal.keep_up(&self.store, PUBLISHER_PATIENCE).await == Continuity::Lost {
            let published = self.latest.borrow().version;
            self.recover(published, self.contents.version(), as_of).await?;
        }
        if !self.unsigned && sign == Sign::IfNewer {
            return Ok(());
        }
        if self.sealer.is_ahead_of(as_of, self.contents.version()) {
            let (last, now) = (self.latest.borrow().issued_at, as_of.millis());
            tracing::warn!(
                manifest.issued_at = last,
                clock.now = now,
                "the last manifest was signed by a clock that was ahead; going on from now with a new version"
            );
            take_version(&self.store, as_of).await?;
            self.load(as_of).await?;
        }
        let (publication, objects) = self.sealer.seal(&mut self.contents, as_of)?;
        self.unsigned = false;
        self.shelf.stock(&objects, as_of);
        self.metrics.published(publication.version, publication.issued_at, self.contents.revoked());
        let order = publication.order();
        self.latest.send_replace(Arc::new(publication));
        self.order.send_if_modified(|published| std::mem::replace(published, order) != order);
        Ok(())
    }
}

/// Takes a version above `published`, with a checkpoint, for what a database that went back has left; edges that hold
/// later ones take it. Whether another publisher over the store has done so meanwhile: one is enough for all of them,
/// unless they published later ones still.
async fn rise_above(store: &Store, published: u64, kept: u64, now: Time) -> Result<bool, PublishError> {
    let mut write = store.write_unanchored().await?;
    versions::lock(&mut write).await?;
    let found = versions::current(&mut write).await?;
    if found.number > published && found.checkpoint > published {
        return Ok(false);
    }
    let version = versions::next_above(&mut write, now, published).await?;
    versions::settle(&mut write, version).await?;
    let detail =
        json!({ "version": version, "missing_from": kept.saturating_add(1), "missing_to": published });
    let change = audit::Change {
        at: now,
        actor: &Actor::System,
        action: "store.went_back",
        target: "database",
        detail,
    };
    audit::append(&mut write, change).await?;
    write.commit().await?;
    Ok(true)
}

async fn take_version(store: &Store, now: Time) -> Result<(), PublishError> {
    let mut write = store.write().await?;
    versions::next(&mut write, now).await?;
    Ok(write.commit().await?)
}

/// Unless another publisher over the store has done so since this one loaded it.
async fn move_checkpoint(store: &Store, held: u64, now: Time) -> Result<(), PublishError> {
    let mut write = store.write().await?;
    let version = versions::next(&mut write, now).await?;
    if versions::current(&mut write).await?.checkpoint == held {
        versions::settle(&mut write, version).await?;
        write.commit().await?;
    }
    Ok(())
}

type Object = (Entry, Arc<[u8]>);

/// Signs checkpoints and manifests, and opens them as edges do.
struct Sealer {
    home: Home,
    authority: Authority,
    settings: config::Publisher,
    checkpoint: Option<Checkpoint>,
    /// Opened as edges open them.
    objects: Objects,
    latest: Option<Snapshot>,
}

struct Checkpoint {
    version: u64,
    issued_at: Time,
    object: Object,
}

impl Sealer {
    fn new(home: Home, settings: config::Publisher) -> Result<Self, PublishError> {
        let authority = Authority::open(&home, &settings.audience).map_err(PublishError::Keys)?;
        let objects = Objects::default();
        Ok(Self { home, authority, settings, checkpoint: None, objects, latest: None })
    }

    /// A publication of what is known, and all its objects.
    fn seal(
        &mut self,
        contents: &mut Contents,
        as_of: Time,
    ) -> Result<(Publication, Vec<Object>), PublishError> {
        self.take_up_keys();
        // A clock that is set back must not make a manifest look older than its predecessor of the same version.
        let same = self.last_signed().filter(|(version, _)| *version == contents.version());
        let issued_at = as_of.millis().max(same.map_or(0, |(_, last)| last.saturating_add(1)));
        let built = contents.build()?;
        let checkpoint = self.checkpoint(contents.checkpoint(), &built, Time::from_millis(issued_at))?;
        let BuiltBundle { tail, mut objects, .. } = built;
        let draft = ManifestFields {
            delegation: &self.authority.signed,
            version: contents.version(),
            issued_at,
            expires_at: Time::from_millis(issued_at).plus(self.settings.lifetime.get()).millis(),
            checkpoint: checkpoint.0,
            tail: &tail,
        };
        let (version, expires_at) = (draft.version, draft.expires_at);
        let signed = self.authority.tail.sign(&draft)?;
        objects.push(checkpoint);
        let snapshot = self.open(&signed, &objects, issued_at)?;
        self.latest = Some(snapshot.clone());
        let epoch = self.authority.delegation.epoch();
        let publication = Publication { epoch, version, issued_at, expires_at, manifest: signed, snapshot };
        Ok((publication, objects))
    }

    /// Whether the clock was set back so far, since this version was signed, that edges would take a manifest that
    /// follows it for one from the future.
    fn is_ahead_of(&self, now: Time, version: u64) -> bool {
        self.last_signed()
            .is_some_and(|(signed, last)| signed == version && last > now.plus(CLOCK_NOISE).millis())
    }

    /// Version, and the time of issue.
    fn last_signed(&self) -> Option<(u64, u64)> {
        let last = self.latest.as_ref()?.manifest();
        Some((last.version(), last.issued_at()))
    }

    /// The one of this version; signed anew before it gets old.
    fn checkpoint(&mut self, version: u64, built: &BuiltBundle, now: Time) -> Result<Object, PublishError> {
        // Of its version or of the hour, not of this very moment: all who publish over one store sign the same bytes, so
        // that an edge finds with one of them what another has named.
        // A version lies far ahead of the time when it was taken by a clock that was: then it is of the hour.
        let hour = now.millis() - now.millis() % CHECKPOINT_EVERY_MS;
        let is_time = version <= now.plus(CLOCK_NOISE).millis();
        let issued_at = Time::from_millis(if is_time { version.max(hour) } else { hour });
        let holds = |held: &&Checkpoint| held.version == version && held.issued_at == issued_at;
        if let Some(held) = self.checkpoint.as_ref().filter(holds) {
            return Ok(held.object.clone());
        }
        let draft = CheckpointFields {
            audience: &self.settings.audience,
            version,
            issued_at: issued_at.millis(),
            expires_at: issued_at.plus(CHECKPOINT_LIFETIME).millis(),
            covered_until: built.covered_until,
            entries: &built.checkpoint,
        };
        let object = self.authority.snapshot.sign(&draft)?;
        self.checkpoint = Some(Checkpoint { version, issued_at, object: object.clone() });
        Ok(object)
    }

    /// Keys may be replaced while this runs. Those that were read hold on while others can't be.
    fn take_up_keys(&mut self) {
        if !self.authority.is_superseded(&self.home) {
            return;
        }
        match Authority::open(&self.home, &self.settings.audience) {
            Ok(authority) => {
                tracing::info!(
                    authority.epoch = authority.delegation.epoch(),
                    authority.snapshot_key = %authority.snapshot.public_key(),
                    authority.tail_key = %authority.tail.public_key(),
                    "signing with other keys from now on"
                );
                // Its signer may be none any more.
                self.checkpoint = None;
                self.authority = authority;
            }
            Err(error) => {
                let (code, cause) =
                    (error.code(), std::error::Error::source(&error).map(ToString::to_string));
                tracing::error!(
                    error.code = code,
                    error.cause = cause,
                    "the new keys can't be used: {error}"
                );
            }
        }
    }

    /// What an edge would refuse is never published.
    fn open(&mut self, signed: &[u8], built: &[Object], now: u64) -> Result<Snapshot, PublishError> {
        let manifest =
            Manifest::open(signed, std::slice::from_ref(&self.authority.root), &self.settings.audience)?;
        // The objects behind the checkpoint are found missing once it is open.
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

/// A day: how long a freshly started edge can be shown an older tail by the thief of a tail key.
const CHECKPOINT_LIFETIME: Duration = Duration::from_secs(24 * 3600);

const CHECKPOINT_EVERY_MS: u64 = 3_600_000;

/// Edges allow a minute; what clocks are corrected by while they run is less than this.
const CLOCK_NOISE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Config, operations::initialize};

    /// One forward step of the clock, and its correction.
    #[tokio::test]
    async fn a_clock_that_was_ahead_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::new(folder.path().join("data"));
        let config = Config::default();
        initialize(&home, &config).await.unwrap();
        let service = Service::open(home, config).await.unwrap();
        let mut press = Press::start(&service, Metrics::new()).await.unwrap();
        let publications = press.publications();
        let now = service.now();
        for (step, ahead) in [0, 3600, 0, 0, 3, 0].into_iter().enumerate() {
            let before = publications.latest();
            let as_of = now.plus(Duration::from_secs(ahead));
            press.publish_as_of(as_of, Sign::Always).await.unwrap();
            let latest = publications.latest();
            assert!(latest.issued_at.abs_diff(as_of.millis()) < 5_000, "step {step}");
            latest.snapshot.manifest().check_successor_of(before.snapshot.manifest()).unwrap();
            assert_eq!(latest.version > before.version, step == 2, "step {step}");
        }
    }
}
