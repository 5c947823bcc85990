//! The universe of the base: the fingerprints of the tokens that it covers, by expiry, and which of them are revoked.
//!
//! Reading these rows takes most of the time of a compaction, so a server keeps what it has read in a folder, and the next
//! compaction reads only what is new. Everything in the folder can be read from the database again.
//!
//! ```text
//! index    SHA-256 of the rest in hexadecimal, line feed, JSON: what the universe contains, with the CRC-32 of each file
//! NUMBER   fingerprints of 32 bytes, ascending; or a bit for each of them, 1 if it is revoked; or pending revocations
//! ```
//! Why the result is the same as that of reading everything:
//!
//! * No token can be inserted with a time of issue that the universe covers, and the purge deletes expired ones only. So
//!   tokens that were issued later are all that is new.
//! * Every change of a revocation has a version above that of the last compaction. A revocation of a token that is not
//!   covered yet is kept as pending, until the universe covers it.
//! * A compaction is recorded in the database, after everything that it has read. A database that was restored from an
//!   earlier backup does not have the record, nor does any other database: then everything is read again.
//!
//! Files need not be durable: one that is missing, damaged or unfinished does not have its length and checksum. A checksum
//! suffices, because a process that can write to the data folder can do worse. SHA-256 would take a tenth of the time of a compaction.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

use bundle::{
    Coverage, ExpiryRange,
    builder::{BlockBuilder, BlockError, BuiltBlock},
};
use crc32fast::Hasher;
use serde::{Deserialize, Serialize};
use token::Fingerprint;

use super::queries::CompactionMark;
use crate::{
    db::NEVER_EXPIRES,
    domain::{FingerprintStatus, UnixSeconds},
    platform::{
        data_dir::{self, TempFile},
        random,
    },
};

/// The width of a block in seconds of expiry. The tokens of two days, the longest lifetime, take nine blocks. A block is
/// dropped without a download when it expires, and built again only if credentials that it covers were revoked.
const BUCKET_SECS: u64 = 6 * 3600;

/// A block that expires within these seconds is not worth a download.
const MIN_REMAINING_SECS: u64 = 3600;

/// The records of a file that are read, hashed or written at once.
const CHUNK_RECORDS: usize = 4096;

/// The name of the index.
const INDEX: &str = "index";

/// Returns the start of the bucket that an expiry belongs to.
pub(super) const fn expiry_bucket(expires_at: UnixSeconds) -> UnixSeconds {
    UnixSeconds::new(expires_at.get() - expires_at.get() % BUCKET_SECS)
}

/// Returns the range of expiry of a bucket. The last one contains what never expires.
fn expiry_range(expires_from: UnixSeconds) -> ExpiryRange {
    let next = Some(expires_from.saturating_add(BUCKET_SECS)).filter(|next| *next <= NEVER_EXPIRES);
    ExpiryRange { expires_from: expires_from.get(), expires_before: next.map_or(u64::MAX, UnixSeconds::get) }
}

/// The content of the universe, without the fingerprints.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Index {
    /// The compaction that has made it: it is valid for a database that has its record.
    pub(super) compaction: CompactionMark,
    /// The last second of issue that it covers, of all keys.
    pub(super) covered_until: UnixSeconds,
    /// The first second of issue that it covers, by key.
    pub(super) covered_from: BTreeMap<String, UnixSeconds>,
    /// The start of the first bucket that it contains.
    pub(super) earliest: UnixSeconds,
    /// By the start of the expiry.
    buckets: BTreeMap<UnixSeconds, Bucket>,
    pending: CachedFile,
}

/// The tokens of one block.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bucket {
    members: CachedFile,
    revoked: CachedFile,
    /// True if it has revocations that are in no block.
    is_due: bool,
}

/// What a compaction has read.
#[derive(Debug, Default)]
pub(super) struct NewRows {
    /// The changes of revocations since the compaction of the index.
    pub(super) statuses: Vec<FingerprintStatus>,
    /// The tokens that were issued since, by bucket.
    pub(super) tokens: BTreeMap<UnixSeconds, Vec<Fingerprint>>,
    /// The blocks in the database, by bucket.
    pub(super) blocks: BTreeMap<UnixSeconds, BuiltBlock>,
}

/// The extent of the next universe.
#[derive(Debug, Clone)]
pub(super) struct Extent {
    pub(super) compaction: CompactionMark,
    pub(super) covered_until: UnixSeconds,
    pub(super) covered_from: BTreeMap<String, UnixSeconds>,
    /// Revocations that state an earlier expiry were purged from the database.
    pub(super) purged_before: UnixSeconds,
    pub(super) now: UnixSeconds,
}

impl Extent {
    /// Returns the start of the first bucket.
    pub(super) const fn earliest(&self) -> UnixSeconds {
        expiry_bucket(self.now)
    }

    /// Returns the coverage of the blocks.
    pub(super) fn coverage(&self) -> Vec<Coverage> {
        let range = |(kid, from): (&String, &UnixSeconds)| Coverage {
            kid: kid.clone(),
            iat_low: from.get(),
            iat_high: self.covered_until.get(),
        };
        self.covered_from.iter().map(range).collect()
    }
}

/// Why a universe cannot be continued.
#[derive(Debug, thiserror::Error)]
pub(super) enum UpdateError {
    /// A file is missing or damaged: everything must be read again.
    #[error("a file in the cache is missing or damaged")]
    Damaged,
    #[error(transparent)]
    Block(#[from] BlockError),
}

impl From<io::Error> for UpdateError {
    fn from(_: io::Error) -> Self {
        Self::Damaged
    }
}

/// The folder of a universe.
#[derive(Debug, Clone)]
pub(super) struct Universe {
    folder: PathBuf,
}

impl Universe {
    pub(super) const fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Reads the index; `None` if there is none, or if it is damaged.
    pub(super) fn index(&self) -> Option<Index> {
        let text = fs::read_to_string(self.folder.join(INDEX)).ok()?;
        let (sha256, json) = text.split_once('\n')?;
        if sha256 != Fingerprint::digest(json.as_bytes()).to_string() {
            return None;
        }
        serde_json::from_str(json).ok()
    }

    /// Adds the new rows to the universe of `held`, or to an empty one, and builds the blocks that are due. Returns the
    /// blocks, and the index to [`keep`](Self::keep) once they are installed; `None` if the files cannot be written.
    pub(super) fn update(
        &self,
        held: Option<&Index>,
        rows: NewRows,
        extent: Extent,
    ) -> Result<(Vec<BuiltBlock>, Option<Index>), UpdateError> {
        let NewRows { statuses, mut tokens, mut blocks } = rows;
        let mut files = Files::create(&self.folder);
        let mut changes = Changes::new(match held {
            Some(held) => read_pending(&held.pending, &self.folder)?,
            None => Vec::new(),
        });
        changes.extend(statuses);
        let kept = held.into_iter().flat_map(|held| held.buckets.keys());
        let starts: BTreeSet<UnixSeconds> = kept.chain(tokens.keys()).copied().collect();
        let (mut built, mut buckets) = (Vec::new(), BTreeMap::new());
        for expires_from in starts.range(extent.earliest()..).copied() {
            let kept = held.and_then(|held| held.buckets.get(&expires_from));
            let mut members = kept.map_or_else(|| Ok(Members::default()), |kept| kept.read(&self.folder))?;
            let has_grown = members.insert(tokens.remove(&expires_from).unwrap_or_default());
            let (has_changed, is_refused) = members.apply(&mut changes);
            let previous = blocks.remove(&expires_from);
            let mut is_due = is_refused
                || kept.is_some_and(|kept| kept.is_due)
                || (previous.is_none() && members.revoked_count() > 0);
            let range = expiry_range(expires_from);
            if is_due && range.expires_before > extent.now.get().saturating_add(MIN_REMAINING_SECS) {
                built.push(members.build(range, &extent, previous)?);
                is_due = false;
            }
            let bucket = Bucket {
                members: match kept {
                    Some(kept) if !has_grown => kept.members.clone(),
                    _ => files.write(members.fingerprints.iter().map(|member| *member.as_bytes())),
                },
                revoked: match kept {
                    Some(kept) if !has_grown && !has_changed => kept.revoked.clone(),
                    _ => files.write(members.revoked.chunks(8).map(pack_bits)),
                },
                is_due,
            };
            buckets.insert(expires_from, bucket);
        }
        let pending = files.write(changes.pending(extent.purged_before));
        let earliest = extent.earliest();
        let Extent { compaction, covered_until, covered_from, .. } = extent;
        let index = Index { compaction, covered_until, covered_from, earliest, buckets, pending };
        Ok((built, files.finish().then_some(index)))
    }

    /// Writes the index, and deletes the files that it does not name. Without an index nothing is kept.
    pub(super) fn keep(&self, index: Option<&Index>) {
        if let Err(error) = self.try_keep(index) {
            tracing::warn!(error.cause = %error, "cannot keep what the compaction has read; the next one reads it again");
        }
    }

    fn try_keep(&self, index: Option<&Index>) -> io::Result<()> {
        let mut named = BTreeSet::new();
        if let Some(index) = index {
            let json = serde_json::to_string(index)?;
            let mut file = TempFile::for_path(&self.folder.join(INDEX))?;
            write!(file, "{}\n{json}", Fingerprint::digest(json.as_bytes()))?;
            file.persist_unsynced()?;
            let files = index.buckets.values().flat_map(|bucket| [&bucket.members, &bucket.revoked]);
            named.extend(files.chain([&index.pending]).map(CachedFile::name));
            named.insert(INDEX.to_owned());
        }
        for file in fs::read_dir(&self.folder)? {
            let file = file?;
            if !file.file_name().to_str().is_some_and(|name| named.contains(name)) {
                fs::remove_file(file.path())?;
            }
        }
        Ok(())
    }
}

/// The tokens of a bucket in memory.
#[derive(Debug, Default)]
struct Members {
    /// Ascending.
    fingerprints: Vec<Fingerprint>,
    revoked: Vec<bool>,
}

impl Bucket {
    fn read(&self, folder: &Path) -> Result<Members, UpdateError> {
        let mut members = Members::default();
        self.members.read(folder, |record: &[u8; 32]| members.fingerprints.push((*record).into()))?;
        self.revoked.read(folder, |[byte]: &[u8; 1]| {
            members.revoked.extend((0..8).map(|bit| byte >> bit & 1 == 1));
        })?;
        let count = members.fingerprints.len();
        let is_sorted = members.fingerprints.is_sorted_by(|one, next| one.prefix() < next.prefix());
        if !is_sorted || members.revoked.len() != count.next_multiple_of(8) {
            return Err(UpdateError::Damaged);
        }
        members.revoked.truncate(count);
        Ok(members)
    }
}

impl Members {
    /// Inserts tokens that are not revoked, as far as is known. Returns whether there are any.
    fn insert(&mut self, mut tokens: Vec<Fingerprint>) -> bool {
        if tokens.is_empty() {
            return false;
        }
        // The database has one credential for each prefix.
        tokens.sort_unstable_by_key(Fingerprint::prefix);
        if self.fingerprints.is_empty() {
            self.revoked = vec![false; tokens.len()];
            self.fingerprints = tokens;
            return true;
        }
        let count = self.fingerprints.len() + tokens.len();
        let held = std::mem::take(self);
        self.fingerprints.reserve_exact(count);
        self.revoked.reserve_exact(count);
        let mut tokens = tokens.into_iter().peekable();
        for (member, revoked) in held.fingerprints.into_iter().zip(held.revoked) {
            while let Some(token) = tokens.next_if(|token| token.prefix() < member.prefix()) {
                self.push(token, false);
            }
            self.push(member, revoked);
        }
        tokens.for_each(|token| self.push(token, false));
        true
    }

    fn push(&mut self, fingerprint: Fingerprint, revoked: bool) {
        self.fingerprints.push(fingerprint);
        self.revoked.push(revoked);
    }

    /// Applies the changes of members. Returns whether there are any, and whether a member is revoked that was not.
    fn apply(&mut self, changes: &mut Changes) -> (bool, bool) {
        let (mut has_changed, mut is_refused) = (false, false);
        let mut changes = changes.sorted().iter_mut().peekable();
        for (member, revoked) in self.fingerprints.iter().zip(&mut self.revoked) {
            while changes.next_if(|change| change.status.fingerprint.prefix() < member.prefix()).is_some() {}
            let Some(change) = changes.next_if(|change| change.status.fingerprint == *member) else {
                continue;
            };
            change.is_member = true;
            has_changed |= *revoked != change.status.is_revoked;
            is_refused |= !*revoked && change.status.is_revoked;
            *revoked = change.status.is_revoked;
        }
        (has_changed, is_refused)
    }

    fn revoked_count(&self) -> usize {
        self.revoked.iter().filter(|revoked| **revoked).count()
    }

    fn build(
        &self,
        range: ExpiryRange,
        extent: &Extent,
        previous: Option<BuiltBlock>,
    ) -> Result<BuiltBlock, BlockError> {
        let revoked = self.revoked_count();
        let seed = format!("{}-{}", range.expires_from, extent.compaction.as_of);
        let good = self.fingerprints.len() - revoked;
        let mut builder = BlockBuilder::new(range, extent.coverage(), revoked, good, seed.as_bytes())?;
        if let Some(previous) = previous {
            builder = builder.replacing(previous);
        }
        for (member, revoked) in self.fingerprints.iter().zip(&self.revoked) {
            builder.add(*member, *revoked)?;
        }
        builder.finish()
    }
}

/// The changes to apply to the members.
struct Changes {
    changes: Vec<Change>,
    is_sorted: bool,
}

struct Change {
    status: FingerprintStatus,
    /// True if a member has this fingerprint.
    is_member: bool,
}

impl Changes {
    fn new(pending: Vec<FingerprintStatus>) -> Self {
        let mut changes = Self { changes: Vec::new(), is_sorted: true };
        changes.extend(pending);
        changes
    }

    /// Adds later changes.
    fn extend(&mut self, statuses: Vec<FingerprintStatus>) {
        self.changes.extend(statuses.into_iter().map(|status| Change { status, is_member: false }));
        self.is_sorted = false;
    }

    /// Returns the last change of each fingerprint, in ascending order. The database has one revocation for each prefix.
    fn sorted(&mut self) -> &mut [Change] {
        if !self.is_sorted {
            // A stable sort, so the later change of a fingerprint follows the earlier one.
            self.changes.sort_by_key(|change| change.status.fingerprint.prefix());
            self.changes.dedup_by(|later, earlier| {
                let is_same = later.status.fingerprint.prefix() == earlier.status.fingerprint.prefix();
                if is_same {
                    earlier.status = later.status;
                }
                is_same
            });
            self.is_sorted = true;
        }
        &mut self.changes
    }

    /// Returns the revocations of fingerprints that are no members, each with the expiry that it states, unless the
    /// database has purged them.
    fn pending(&mut self, purged_before: UnixSeconds) -> impl Iterator<Item = [u8; 40]> {
        let is_pending = move |change: &&Change| {
            change.status.is_revoked && !change.is_member && change.status.expires_at >= purged_before
        };
        self.sorted().iter().filter(is_pending).map(|change| {
            let mut record = [0; 40];
            record[..32].copy_from_slice(change.status.fingerprint.as_bytes());
            record[32..].copy_from_slice(&change.status.expires_at.get().to_be_bytes());
            record
        })
    }
}

fn read_pending(file: &CachedFile, folder: &Path) -> io::Result<Vec<FingerprintStatus>> {
    let mut pending = Vec::new();
    file.read(folder, |record: &[u8; 40]| {
        if let Some((fingerprint, expires_at)) = record.split_first_chunk::<32>()
            && let Ok(expires_at) = expires_at.try_into()
        {
            let (fingerprint, expires_at) =
                ((*fingerprint).into(), UnixSeconds::new(u64::from_be_bytes(expires_at)));
            pending.push(FingerprintStatus { fingerprint, expires_at, is_revoked: true });
        }
    })?;
    Ok(pending)
}

/// A file of records.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CachedFile {
    number: u64,
    bytes: u64,
    crc32: u32,
}

impl CachedFile {
    fn name(&self) -> String {
        format!("{:016x}", self.number)
    }

    fn write<const N: usize>(
        &mut self,
        folder: &Path,
        records: impl Iterator<Item = [u8; N]>,
    ) -> io::Result<()> {
        let mut file = TempFile::for_path(&folder.join(self.name()))?;
        let mut chunk = Vec::with_capacity(N * CHUNK_RECORDS);
        let mut checksum = Hasher::new();
        let mut records = records.peekable();
        while records.peek().is_some() {
            chunk.clear();
            records.by_ref().take(CHUNK_RECORDS).for_each(|record| chunk.extend(record));
            checksum.update(&chunk);
            self.bytes += chunk.len() as u64;
            file.write_all(&chunk)?;
        }
        self.crc32 = checksum.finalize();
        file.persist_unsynced()
    }

    /// Calls `each` with every record. Fails if the file is damaged; what `each` has got is invalid then.
    fn read<const N: usize>(&self, folder: &Path, mut each: impl FnMut(&[u8; N])) -> io::Result<()> {
        let mut file = File::open(folder.join(self.name()))?.take(self.bytes.saturating_add(1));
        let mut chunk = Vec::with_capacity(N * CHUNK_RECORDS);
        let (mut checksum, mut bytes) = (Hasher::new(), 0);
        loop {
            chunk.clear();
            file.by_ref().take((N * CHUNK_RECORDS) as u64).read_to_end(&mut chunk)?;
            if chunk.is_empty() {
                break;
            }
            checksum.update(&chunk);
            bytes += chunk.len() as u64;
            chunk.as_chunks().0.iter().for_each(&mut each);
        }
        match (bytes, checksum.finalize()) == (self.bytes, self.crc32) {
            true => Ok(()),
            false => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// Writes files. After a failure it writes no more, so that a full disk does not prevent a compaction.
struct Files<'a> {
    folder: &'a Path,
    state: io::Result<()>,
}

impl<'a> Files<'a> {
    fn create(folder: &'a Path) -> Self {
        Self { folder, state: data_dir::create_folder(folder) }
    }

    fn write<const N: usize>(&mut self, records: impl Iterator<Item = [u8; N]>) -> CachedFile {
        let mut file = CachedFile { number: u64::from_be_bytes(*random::bytes()), bytes: 0, crc32: 0 };
        if self.state.is_ok() {
            self.state = file.write(self.folder, records);
        }
        file
    }

    /// Returns whether everything was written.
    fn finish(self) -> bool {
        if let Err(error) = &self.state {
            tracing::warn!(error.cause = %error, "cannot keep what the compaction has read; the next one reads it again");
        }
        self.state.is_ok()
    }
}

/// Packs up to eight bits, the first one lowest.
fn pack_bits(bits: &[bool]) -> [u8; 1] {
    [bits.iter().rev().fold(0, |byte, bit| byte << 1 | u8::from(*bit))]
}
