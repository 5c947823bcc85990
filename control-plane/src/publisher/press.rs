use std::sync::Arc;

use bundle::{
    Manifest, Objects, PublisherKey, Snapshot,
    builder::{Built, Draft, Publisher},
};
use tokio::sync::watch;

use super::{Publication, Publications, PublishError, contents::Contents, keyset::KeySet, shelf::Shelf};
use crate::{clock, config, keys, operations::Service, store::Store, telemetry::Metrics};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    Always,
    IfNewer,
}

/// Loads, builds, signs, publishes.
pub(super) struct Press {
    store: Store,
    settings: config::Publisher,
    key: Publisher,
    trusted: [PublisherKey; 1],
    contents: Contents,
    built: Built,
    /// Opened as edges open them.
    objects: Objects,
    shelf: Arc<Shelf>,
    latest: watch::Sender<Arc<Publication>>,
    version: watch::Sender<u64>,
    publications: Publications,
    metrics: Metrics,
}

impl Press {
    /// With the first publication made.
    pub(super) async fn start(service: &Service, metrics: Metrics) -> Result<Self, PublishError> {
        let store = service.store().clone();
        let settings = service.config().publisher.clone();
        let key = keys::open_publisher(service.home()).map_err(PublishError::Keys)?;
        let trusted = [key.public_key()];
        let keyset = KeySet::new(Arc::clone(service.keyring()), service.home().clone());
        let mut contents = Contents::new(keyset);
        let as_of = clock::now();
        contents.load(&store).await?;
        let built = contents.build()?;
        let mut objects = Objects::default();
        let draft = Draft {
            audience: &settings.audience,
            version: contents.version(),
            issued_at: as_of.millis(),
            expires_at: as_of.plus(settings.lifetime.get()).millis(),
            entries: &built.entries,
        };
        let publication =
            Arc::new(open(key.sign(&draft)?, &trusted, &settings.audience, &built, &mut objects)?);
        let shelf = Arc::new(Shelf::default());
        shelf.stock(&built.objects, as_of);
        metrics.published(publication.version, publication.issued_at, contents.revoked());
        let version = watch::Sender::new(publication.version);
        let latest = watch::Sender::new(publication);
        let publications = Publications::new(latest.subscribe(), version.subscribe(), Arc::clone(&shelf));
        Ok(Self {
            store,
            settings,
            key,
            trusted,
            contents,
            built,
            objects,
            shelf,
            latest,
            version,
            publications,
            metrics,
        })
    }

    pub(super) fn publications(&self) -> Publications {
        self.publications.clone()
    }

    /// Takes up what changed; signs if there is something newer, or anyway.
    pub(super) async fn publish(&mut self, sign: Sign) -> Result<(), PublishError> {
        // The manifest speaks for this instant, so it is taken before the store is read.
        let as_of = clock::now();
        let newer = self.contents.load(&self.store).await?;
        if newer {
            self.built = self.contents.build()?;
        } else if sign == Sign::IfNewer {
            return Ok(());
        }
        let last = self.latest.borrow().issued_at;
        // A clock that is set back must not make a manifest look older than its predecessor.
        let issued_at = as_of.millis().max(last.saturating_add(1));
        let draft = Draft {
            audience: &self.settings.audience,
            version: self.contents.version(),
            issued_at,
            expires_at: clock::Time::from_millis(issued_at).plus(self.settings.lifetime.get()).millis(),
            entries: &self.built.entries,
        };
        let signed = self.key.sign(&draft)?;
        let publication =
            Arc::new(open(signed, &self.trusted, &self.settings.audience, &self.built, &mut self.objects)?);
        self.shelf.stock(&self.built.objects, as_of);
        self.metrics.published(publication.version, issued_at, self.contents.revoked());
        let version = publication.version;
        self.latest.send_replace(publication);
        self.version.send_if_modified(|published| std::mem::replace(published, version) != version);
        Ok(())
    }
}

/// Opens what was signed as an edge does: what an edge would refuse is never published.
fn open(
    signed: Vec<u8>,
    trusted: &[PublisherKey],
    audience: &str,
    built: &Built,
    objects: &mut Objects,
) -> Result<Publication, PublishError> {
    let manifest = Manifest::open(&signed, trusted, audience)?;
    // The objects behind an index are found missing once the index is open.
    loop {
        let missing = objects.missing(&manifest);
        let found = built.objects.iter().filter(|(entry, _)| missing.contains(entry));
        let mut opened = false;
        for (entry, bytes) in found {
            objects.open(*entry, bytes.to_vec())?;
            opened = true;
        }
        if !opened {
            break;
        }
    }
    objects.keep_only(&manifest);
    let (version, issued_at, expires_at) = (manifest.version(), manifest.issued_at(), manifest.expires_at());
    let snapshot = Snapshot::assemble(manifest, objects)?;
    Ok(Publication { version, issued_at, expires_at, manifest: signed, snapshot })
}
