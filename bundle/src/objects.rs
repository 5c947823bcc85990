use alloc::{sync::Arc, vec::Vec};

use crate::{
    Checkpoint, Entry, Kind, Manifest, Object, ObjectError,
    sorted::{row, sorted},
};

/// Objects that are opened, shared between one snapshot and the next: in ascending order.
#[derive(Debug, Default)]
pub struct Objects(Vec<(Entry, Object)>);

impl Objects {
    /// What is still to be fetched before the manifest can be assembled. Opening a checkpoint, an index or a block may
    /// add more. Nothing is asked of a block whose credentials have all expired; `now` in milliseconds.
    pub fn missing(&self, manifest: &Manifest, now: u64) -> Vec<Entry> {
        let mut named = self.named(manifest, now);
        named.retain(|entry| match entry.kind() {
            Kind::Checkpoint => self.checkpoint(manifest).is_none(),
            _ => !self.holds(entry),
        });
        named
    }

    pub fn holds(&self, entry: &Entry) -> bool {
        self.place(entry).is_ok()
    }

    /// Whether something else is held that has its slot.
    pub fn holds_slot_of(&self, entry: &Entry) -> bool {
        let [least, greatest] = entry.slot_range();
        let first = self.0.partition_point(|(held, _)| *held < least);
        let held = self.0.iter().skip(first).map(|(held, _)| held);
        held.take_while(|held| **held <= greatest).any(|held| held != entry)
    }

    /// `manifest` is the one that it is fetched for.
    pub fn open(&mut self, manifest: &Manifest, entry: Entry, bytes: Vec<u8>) -> Result<(), ObjectError> {
        let object = entry.open(bytes, manifest.delegation())?;
        let place = self.place(&entry);
        if let Ok(place) = place {
            // A checkpoint, opened before under another delegation.
            self.0.remove(place);
        }
        self.0.insert(place.unwrap_or_else(|place| place), (entry, object));
        Ok(())
    }

    /// Lets go of everything that none of these manifests names, or that has expired.
    pub fn keep_only<'a>(&mut self, manifests: impl IntoIterator<Item = &'a Manifest>, now: u64) {
        let named = manifests.into_iter().flat_map(|manifest| self.named(manifest, now));
        let named = sorted(named.map(|entry| row(entry.sha256())).collect());
        self.0.retain(|(entry, _)| named.binary_search(&row(entry.sha256())).is_ok());
    }

    pub(crate) fn object(&self, entry: &Entry) -> Option<&Object> {
        let (_, object) = self.0.get(self.place(entry).ok()?)?;
        Some(object)
    }

    /// Where it stands, or would.
    fn place(&self, entry: &Entry) -> Result<usize, usize> {
        self.0.binary_search_by(|(held, _)| held.cmp(entry))
    }

    /// None if it is not held, or was signed by a key that the manifest's delegation does not name.
    pub fn checkpoint(&self, manifest: &Manifest) -> Option<&Arc<Checkpoint>> {
        match self.object(manifest.checkpoint()) {
            Some(Object::Checkpoint(checkpoint)) if checkpoint.is_by(manifest.delegation()) => {
                Some(checkpoint)
            }
            _ => None,
        }
    }

    /// What the manifest names, and whatever is held of it does.
    fn named(&self, manifest: &Manifest, now: u64) -> Vec<Entry> {
        let mut named: Vec<Entry> = Vec::from([*manifest.checkpoint()]);
        named.extend(manifest.tail());
        if let Some(checkpoint) = self.checkpoint(manifest) {
            named.extend(checkpoint.entries());
            for entry in checkpoint.entries() {
                match self.object(entry) {
                    Some(Object::Index(entries)) => named.extend(entries),
                    Some(Object::Block(block)) if !block.span().is_over(now) => named.extend(block.shards()),
                    _ => {}
                }
            }
        }
        named
    }
}
