use std::{sync::Arc, time::Duration};

use bundle::{
    Entry, Manifest, Objects, PublicKey, Snapshot,
    builder::{Built, CheckpointDraft, Draft},
};
use tokio::sync::watch;

use super::{Publication, Publications, PublishError, contents::Contents, keyset::KeySet, shelf::Shelf};
use crate::{clock, config, keys, keys::Authority, operations::Service, store::Store, telemetry::Metrics};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    Always,
    IfNewer,
}

/// Loads, builds, signs, publishes.
pub(super) struct Press {
    store: Store,
    contents: Contents,
    sealer: Sealer,
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
        let keyset = KeySet::new(Arc::clone(service.keyring()), service.home().clone());
        let mut contents = Contents::new(keyset);
        let as_of = clock::now();
        contents.load(&store).await?;
        let authority = keys::open_authority(service.home()).map_err(PublishError::Keys)?;
        let mut sealer = Sealer::new(authority, service.config().publisher.clone());
        let (publication, built) = sealer.seal(&mut contents, as_of)?;
        let shelf = Arc::new(Shelf::default());
        shelf.stock(&built, as_of);
        metrics.published(publication.version, publication.issued_at, contents.revoked());
        let version = watch::Sender::new(publication.version);
        let latest = watch::Sender::new(Arc::new(publication));
        let publications = Publications::new(latest.subscribe(), version.subscribe(), Arc::clone(&shelf));
        Ok(Self { store, contents, sealer, shelf, latest, version, publications, metrics })
    }

    pub(super) fn publications(&self) -> Publications {
        self.publications.clone()
    }

    /// Takes up what changed; signs if there is something newer, or anyway.
    pub(super) async fn publish(&mut self, sign: Sign) -> Result<(), PublishError> {
        // The manifest speaks for this instant, so it is taken before the store is read.
        let as_of = clock::now();
        let newer = self.contents.load(&self.store).await?;
        if !newer && sign == Sign::IfNewer {
            return Ok(());
        }
        let (publication, objects) = self.sealer.seal(&mut self.contents, as_of)?;
        self.shelf.stock(&objects, as_of);
        self.metrics.published(publication.version, publication.issued_at, self.contents.revoked());
        let version = publication.version;
        self.latest.send_replace(Arc::new(publication));
        self.version.send_if_modified(|published| std::mem::replace(published, version) != version);
        Ok(())
    }
}

type Object = (Entry, Arc<[u8]>);

/// Signs checkpoints and manifests, and opens them as edges do.
struct Sealer {
    authority: Authority,
    roots: [PublicKey; 1],
    settings: config::Publisher,
    checkpoint: Option<(clock::Time, Object)>,
    /// Opened as edges open them.
    objects: Objects,
    latest: Option<Snapshot>,
}

impl Sealer {
    fn new(authority: Authority, settings: config::Publisher) -> Self {
        let roots = [authority.root.clone()];
        Self { authority, roots, settings, checkpoint: None, objects: Objects::default(), latest: None }
    }

    /// A publication of what is known, and all its objects.
    fn seal(
        &mut self,
        contents: &mut Contents,
        as_of: clock::Time,
    ) -> Result<(Publication, Vec<Object>), PublishError> {
        let last = self.latest.as_ref().map_or(0, |snapshot| snapshot.manifest().issued_at());
        // A clock that is set back must not make a manifest look older than its predecessor.
        let issued_at = as_of.millis().max(last.saturating_add(1));
        let is_due = |(signed_at, _): &&(clock::Time, Object)| as_of < signed_at.plus(CHECKPOINT_EVERY);
        let kept = self.checkpoint.as_ref().filter(is_due).filter(|_| !contents.needs_checkpoint());
        let kept = kept.map(|(_, checkpoint)| checkpoint.clone());
        let (checkpoint, Built { tail, mut objects, .. }) = match kept {
            Some(checkpoint) => (checkpoint, contents.build()?),
            None => {
                contents.settle()?;
                let built = contents.build()?;
                let draft = CheckpointDraft {
                    audience: &self.settings.audience,
                    version: contents.version(),
                    issued_at,
                    expires_at: clock::Time::from_millis(issued_at).plus(CHECKPOINT_LIFETIME).millis(),
                    cut: built.cut,
                    entries: &built.checkpoint,
                };
                let checkpoint = self.authority.snapshot.sign(&draft)?;
                self.checkpoint = Some((as_of, checkpoint.clone()));
                (checkpoint, built)
            }
        };
        let draft = Draft {
            delegation: &self.authority.delegation,
            version: contents.version(),
            issued_at,
            expires_at: clock::Time::from_millis(issued_at).plus(self.settings.lifetime.get()).millis(),
            checkpoint: checkpoint.0,
            tail: &tail,
        };
        let (version, expires_at) = (draft.version, draft.expires_at);
        let signed = self.authority.tail.sign(&draft)?;
        objects.push(checkpoint);
        let snapshot = self.open(&signed, &objects, issued_at)?;
        self.latest = Some(snapshot.clone());
        let publication = Publication { version, issued_at, expires_at, manifest: signed, snapshot };
        Ok((publication, objects))
    }

    /// What an edge would refuse is never published.
    fn open(&mut self, signed: &[u8], built: &[Object], now: u64) -> Result<Snapshot, PublishError> {
        let manifest = Manifest::open(signed, &self.roots, &self.settings.audience)?;
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
        self.objects.keep_only([&manifest], now);
        Ok(match &self.latest {
            Some(latest) => latest.follow(manifest, &self.objects, now)?,
            None => Snapshot::assemble(manifest, &self.objects, now)?,
        })
    }
}

/// A day: how long a freshly started edge can be shown an older tail by the thief of a tail key.
const CHECKPOINT_LIFETIME: Duration = Duration::from_secs(24 * 3600);

const CHECKPOINT_EVERY: Duration = Duration::from_secs(3600);
