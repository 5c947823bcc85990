//! The opened objects of one or more manifests.

use alloc::{sync::Arc, vec::Vec};

use crate::{
    Checkpoint, Entry, Manifest, Object, ObjectError, ObjectKind,
    sorted::{sort_rows, to_row},
};

/// Opened objects in ascending order of their entries. Successive snapshots share them.
#[derive(Debug, Default)]
pub struct Objects(Vec<(Entry, Object)>);

impl Objects {
    /// Returns the entries of the objects that are missing for this manifest.
    ///
    /// Opening a checkpoint, an index or a block can add more. The shards of a block whose credentials have all expired
    /// are not required. `now` is in milliseconds since the Unix epoch.
    pub fn missing(&self, manifest: &Manifest, now: u64) -> Vec<Entry> {
        let mut entries = self.required_entries(manifest, now);
        entries.retain(|entry| match entry.kind() {
            ObjectKind::Checkpoint => self.checkpoint(manifest).is_none(),
            _ => !self.contains(entry),
        });
        entries
    }

    /// Returns the entries of all open objects, in ascending order.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.0.iter().map(|(entry, _)| entry)
    }

    /// Returns whether the object is open.
    pub fn contains(&self, entry: &Entry) -> bool {
        self.position(entry).is_ok()
    }

    /// Returns whether another object with the same slot is open, see [`Entry::slot`].
    pub fn contains_other_in_slot(&self, entry: &Entry) -> bool {
        let [least, greatest] = entry.slot_range();
        let first = self.0.partition_point(|(held, _)| *held < least);
        let held = self.0.iter().skip(first).map(|(held, _)| held);
        held.take_while(|held| **held <= greatest).any(|held| held != entry)
    }

    /// Verifies, decodes and inserts an object that was fetched for `manifest`.
    ///
    /// # Errors
    ///
    /// [`ObjectError`] if the bytes are not the object that `entry` names.
    pub fn open(&mut self, manifest: &Manifest, entry: Entry, bytes: Vec<u8>) -> Result<(), ObjectError> {
        let object = entry.open(bytes, manifest.delegation())?;
        let position = self.position(&entry);
        if let Ok(position) = position {
            // A checkpoint that was opened under another delegation.
            self.0.remove(position);
        }
        self.0.insert(position.unwrap_or_else(|position| position), (entry, object));
        Ok(())
    }

    /// Removes the objects that none of these manifests requires. `now` is in milliseconds since the Unix epoch.
    pub fn retain_named_by<'a>(&mut self, manifests: impl IntoIterator<Item = &'a Manifest>, now: u64) {
        let entries = manifests.into_iter().flat_map(|manifest| self.required_entries(manifest, now));
        let required = sort_rows(entries.map(|entry| to_row(entry.sha256())).collect());
        self.0.retain(|(entry, _)| required.binary_search(&to_row(entry.sha256())).is_ok());
    }

    /// Returns the open object with this entry.
    pub(crate) fn object(&self, entry: &Entry) -> Option<&Object> {
        let (_, object) = self.0.get(self.position(entry).ok()?)?;
        Some(object)
    }

    /// Returns the index of the entry as `Ok`, or where it would be inserted as `Err`.
    fn position(&self, entry: &Entry) -> Result<usize, usize> {
        self.0.binary_search_by(|(held, _)| held.cmp(entry))
    }

    /// Returns the checkpoint of the manifest, or `None` if it is not open or was signed by a key that the delegation of
    /// the manifest does not name.
    pub fn checkpoint(&self, manifest: &Manifest) -> Option<&Arc<Checkpoint>> {
        match self.object(manifest.checkpoint()) {
            Some(Object::Checkpoint(checkpoint)) if checkpoint.is_signed_under(manifest.delegation()) => {
                Some(checkpoint)
            }
            _ => None,
        }
    }

    /// Returns the entries that the manifest names, directly and through the open objects.
    fn required_entries(&self, manifest: &Manifest, now: u64) -> Vec<Entry> {
        let mut entries: Vec<Entry> = Vec::from([*manifest.checkpoint()]);
        entries.extend(manifest.tail());
        if let Some(checkpoint) = self.checkpoint(manifest) {
            entries.extend(checkpoint.entries());
            for entry in checkpoint.entries() {
                match self.object(entry) {
                    Some(Object::Index(indexed)) => entries.extend(indexed),
                    Some(Object::Block(block)) if !block.expiry_range().has_expired(now) => {
                        entries.extend(block.shards())
                    }
                    _ => {}
                }
            }
        }
        entries
    }
}
