//! The keys that sign bundles.
//!
//! ```text
//! keys/root.jwk      pinned by edges; signs delegations, and may be stored elsewhere between them
//! keys/root.pub      its public key, in base64url
//! keys/delegation    signed by the root key: the present snapshot key and tail key
//! keys/snapshot.jwk  signs checkpoints
//! keys/tail.jwk      signs manifests
//! ```
//! A new key is written to `snapshot.next.jwk` and is in effect when the delegation that names it is written: a crash at any
//! point leaves consistent keys.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use bundle::{
    Delegation, PublicKey,
    builder::{DelegationFields, RootKey, SnapshotKey, TailKey},
};
use zeroize::Zeroizing;

use super::keyring::{Jwk, KeyError, path};
use crate::{
    domain::UnixMillis,
    platform::{
        data_dir::{self, DataDir},
        random,
    },
};

/// How long a delegation is valid. `keystile doctor` reports when it should be renewed.
const DELEGATION_LIFETIME: Duration = Duration::from_secs(400 * 24 * 3600);

/// How long before its expiry the doctor and the log report that the delegation should be renewed.
pub const RENEWAL_REMINDER: Duration = Duration::from_secs(60 * 24 * 3600);

/// The name of the root key's file.
const ROOT_KEY_FILE: &str = "root";

/// The name of the only key's file in version 0.1.
const LEGACY_KEY_FILE: &str = "publisher";

/// The keys of the publisher.
pub struct PublisherKeys {
    /// The root key.
    pub root: PublicKey,
    /// The signed delegation, as it is part of manifests.
    pub signed: Vec<u8>,
    /// The verified delegation.
    pub delegation: Delegation,
    /// The key that signs checkpoints.
    pub snapshot: SnapshotKey,
    /// The key that signs manifests.
    pub tail: TailKey,
}

/// A delegated key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DelegatedKey {
    /// The key that signs checkpoints.
    Snapshot,
    /// The key that signs manifests.
    Tail,
}

impl DelegatedKey {
    /// Returns the name of the key in file names and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot",
            Self::Tail => "tail",
        }
    }
}

impl PublisherKeys {
    /// Opens the present keys. Tries again if they are replaced at the same time.
    pub fn open(data_dir: &DataDir, audience: &str) -> Result<Self, KeyError> {
        let mut attempts = 0..3;
        loop {
            match Self::read(data_dir, audience) {
                Err(KeyError::Inconsistent { .. } | KeyError::Missing { .. })
                    if attempts.next().is_some() => {}
                read => return read,
            }
        }
    }

    fn read(data_dir: &DataDir, audience: &str) -> Result<Self, KeyError> {
        let root = root_key(data_dir)?;
        let path = delegation_path(data_dir);
        let signed = read_file(&path)?;
        let delegation = Delegation::open(&signed, std::slice::from_ref(&root), audience)
            .map_err(|source| KeyError::Delegation { path: path.clone(), source })?;
        // A missing file must be restored, while a file with another key belongs to another folder.
        let inconsistent = |role: DelegatedKey| match self::path(data_dir, role.name()) {
            file if !file.exists() => KeyError::Missing { paths: vec![file] },
            _ => KeyError::Inconsistent { path: path.clone() },
        };
        let snapshot = load_delegated_key(data_dir, DelegatedKey::Snapshot, |seed| {
            let key = SnapshotKey::new(seed);
            delegation.snapshot_keys().contains(&key.public_key()).then_some(key)
        })?;
        let tail = load_delegated_key(data_dir, DelegatedKey::Tail, |seed| {
            let key = TailKey::new(seed);
            delegation.tail_keys().contains(&key.public_key()).then_some(key)
        })?;
        Ok(Self {
            snapshot: snapshot.ok_or_else(|| inconsistent(DelegatedKey::Snapshot))?,
            tail: tail.ok_or_else(|| inconsistent(DelegatedKey::Tail))?,
            root,
            signed,
            delegation,
        })
    }

    /// Returns whether the delegation file differs from the loaded delegation, or cannot be read. [`open`](Self::open)
    /// reports the read error.
    pub fn is_superseded(&self, data_dir: &DataDir) -> bool {
        fs::read(delegation_path(data_dir)).map_or(true, |signed| signed != self.signed)
    }
}

impl fmt::Debug for PublisherKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authority(epoch {}, {:?}, {:?})", self.delegation.epoch(), self.snapshot, self.tail)
    }
}

/// What a server has to complete in the folder. It never creates a trust anchor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IncompleteKeys {
    /// The folder is complete.
    Nothing,
    /// `root.pub` is missing. It is derived from `root.jwk`.
    RootPublic,
    /// The folder is of version 0.1. Its only key becomes the root key, which edges have pinned.
    LegacySingleKey,
}

/// Returns the root key, and what a server has to complete. Writes nothing. An error names every missing file.
pub fn examine(data_dir: &DataDir) -> Result<(PublicKey, IncompleteKeys), KeyError> {
    let folder = data_dir.keys();
    if !folder.is_dir() {
        return Err(KeyError::Missing { paths: vec![folder] });
    }
    let (root, public, before) =
        (path(data_dir, ROOT_KEY_FILE), root_public_path(data_dir), path(data_dir, LEGACY_KEY_FILE));
    let known = match public.exists() {
        true => Some(root_key(data_dir)?),
        false => None,
    };
    let agrees = |file: &Path| -> Result<PublicKey, KeyError> {
        let key = read_root_key(file)?.public_key();
        match &known {
            Some(known) if *known != key => Err(KeyError::Invalid {
                path: file.to_owned(),
                reason: "it is not the root key that edges pin",
            }),
            _ => Ok(key),
        }
    };
    if before.exists() && !delegation_path(data_dir).exists() {
        let key = agrees(&before)?;
        return match root.exists() && read_root_key(&root)?.public_key() != key {
            true => Err(KeyError::Invalid { path: root, reason: "it is not the key that signed until now" }),
            false => Ok((key, IncompleteKeys::LegacySingleKey)),
        };
    }
    let here = if root.exists() { Some(agrees(&root)?) } else { None };
    let mut missing = Vec::new();
    if known.is_none() && here.is_none() {
        missing.push(public);
    }
    if !delegation_path(data_dir).exists() {
        missing.push(delegation_path(data_dir));
    }
    for role in [DelegatedKey::Snapshot, DelegatedKey::Tail] {
        let file = path(data_dir, role.name());
        if !file.exists() && !pending_path(data_dir, role).exists() {
            missing.push(file);
        }
    }
    match (known, here) {
        (Some(known), _) if missing.is_empty() => Ok((known, IncompleteKeys::Nothing)),
        (None, Some(here)) if missing.is_empty() => Ok((here, IncompleteKeys::RootPublic)),
        _ => Err(KeyError::Missing { paths: missing }),
    }
}

/// Completes what [`examine`] has found. After a crash at any point, [`examine`] finds the rest.
pub fn complete(
    data_dir: &DataDir,
    incomplete: IncompleteKeys,
    audience: &str,
    now: UnixMillis,
) -> Result<(), KeyError> {
    let root = path(data_dir, ROOT_KEY_FILE);
    match incomplete {
        IncompleteKeys::Nothing => Ok(()),
        IncompleteKeys::RootPublic => write_root_public(data_dir, &read_root_key(&root)?),
        IncompleteKeys::LegacySingleKey => {
            let before = path(data_dir, LEGACY_KEY_FILE);
            if !root.exists() {
                fs::hard_link(&before, &root)
                    .map_err(|source| KeyError::Unwritable { path: root.clone(), source })?;
            }
            create(data_dir, audience, now)?;
            remove_if_exists(&before)
        }
    }
}

/// Creates the missing keys, the root key first. The database must not have an operator: edges do not accept a replaced root
/// key.
pub fn create(data_dir: &DataDir, audience: &str, now: UnixMillis) -> Result<(), KeyError> {
    let root = path(data_dir, ROOT_KEY_FILE);
    let roles = [DelegatedKey::Snapshot, DelegatedKey::Tail];
    let is_complete = root_public_path(data_dir).exists()
        && delegation_path(data_dir).exists()
        && roles
            .iter()
            .all(|role| path(data_dir, role.name()).exists() || pending_path(data_dir, *role).exists());
    if is_complete {
        return Ok(());
    }
    if !root.exists() && root_public_path(data_dir).exists() {
        return Err(KeyError::RootKeyNotFound { path: root });
    }
    if !root.exists() && path(data_dir, LEGACY_KEY_FILE).exists() {
        fs::rename(path(data_dir, LEGACY_KEY_FILE), &root)
            .map_err(|source| KeyError::Unwritable { path: root.clone(), source })?;
    }
    if !root.exists() {
        write_key(&root, ROOT_KEY_FILE, &random::bytes(), |seed| RootKey::new(seed).public_key())?;
    }
    let key = read_root_key(&root)?;
    write_root_public(data_dir, &key)?;
    for role in roles {
        if !path(data_dir, role.name()).exists() {
            new_key(&path(data_dir, role.name()), role)?;
        }
    }
    let last = fs::read(delegation_path(data_dir)).map_or(0, |signed| peek_epoch(&signed));
    let [snapshot, tail] = roles.map(|role| read_public_key(&path(data_dir, role.name()), role));
    delegate(data_dir, &key, audience, (&snapshot?, &tail?), last, now)
}

fn write_root_public(data_dir: &DataDir, root: &RootKey) -> Result<(), KeyError> {
    write_file(&root_public_path(data_dir), format!("{}\n", root.public_key()).as_bytes())
}

/// Signs a delegation that replaces the present one, and creates a new key if one must be replaced. Returns its epoch.
pub fn renew(
    data_dir: &DataDir,
    root_file: Option<&Path>,
    audience: &str,
    replace: Option<DelegatedKey>,
    now: UnixMillis,
) -> Result<u64, KeyError> {
    let usual = path(data_dir, ROOT_KEY_FILE);
    let root_file = root_file.unwrap_or(&usual);
    if !root_file.exists() {
        return Err(KeyError::RootKeyNotFound { path: root_file.to_owned() });
    }
    let root = read_root_key(root_file)?;
    if root.public_key() != root_key(data_dir)? {
        return Err(KeyError::Invalid {
            path: root_file.to_owned(),
            reason: "it is not the root key that edges pin",
        });
    }
    let signed = read_file(&delegation_path(data_dir))?;
    // The present delegation is not verified, as its audience may be the reason for the renewal.
    let last = peek_epoch(&signed);
    promote_pending_keys(data_dir)?;
    let mut files =
        [DelegatedKey::Snapshot, DelegatedKey::Tail].map(|role| (role, path(data_dir, role.name())));
    for (role, file) in &mut files {
        if replace == Some(*role) {
            *file = pending_path(data_dir, *role);
            // An earlier attempt may have left a file.
            remove_if_exists(file)?;
            new_key(file, *role)?;
        }
    }
    let [snapshot, tail] = files.map(|(role, file)| read_public_key(&file, role));
    delegate(data_dir, &root, audience, (&snapshot?, &tail?), last, now)?;
    promote_pending_keys(data_dir)?;
    Ok(peek_epoch(&read_file(&delegation_path(data_dir))?))
}

/// Returns the root key, which edges pin.
pub fn root_key(data_dir: &DataDir) -> Result<PublicKey, KeyError> {
    let path = root_public_path(data_dir);
    let text = read_file(&path)?;
    let key = str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok());
    key.ok_or(KeyError::Invalid { path, reason: "it is not a valid public key" })
}

/// Returns whether the private root key is in the data folder.
pub fn has_root_private_key(data_dir: &DataDir) -> bool {
    path(data_dir, ROOT_KEY_FILE).exists()
}

/// Replaces the old keys by the new ones that the delegation names.
fn promote_pending_keys(data_dir: &DataDir) -> Result<(), KeyError> {
    for role in [DelegatedKey::Snapshot, DelegatedKey::Tail] {
        let next = pending_path(data_dir, role);
        if !next.exists() {
            continue;
        }
        let signed = read_file(&delegation_path(data_dir))?;
        let public = read_public_key(&next, role)?;
        let is_named = signed.windows(32).any(|window| window == public.as_bytes());
        let path = path(data_dir, role.name());
        if is_named {
            fs::rename(&next, &path).map_err(|source| KeyError::Unwritable { path, source })?;
        }
    }
    Ok(())
}

/// Signs and writes a delegation.
fn delegate(
    data_dir: &DataDir,
    root: &RootKey,
    audience: &str,
    (snapshot, tail): (&PublicKey, &PublicKey),
    last_epoch: u64,
    now: UnixMillis,
) -> Result<(), KeyError> {
    let path = delegation_path(data_dir);
    let delegates = DelegationFields {
        audience,
        // The epoch follows the clock, like versions: after restoring a backup it is above what edges have seen.
        epoch: now.seconds().get().max(last_epoch.saturating_add(1)),
        issued_at: now.millis(),
        expires_at: now.plus(DELEGATION_LIFETIME).millis(),
        snapshot_keys: std::slice::from_ref(snapshot),
        tail_keys: std::slice::from_ref(tail),
    };
    let too_large = KeyError::Invalid { path: path.clone(), reason: "the audience is longer than 64 bytes" };
    let signed = root.delegate(&delegates).map_err(|_| too_large)?;
    Delegation::open(&signed, &[root.public_key()], audience)
        .map_err(|source| KeyError::Delegation { path: path.clone(), source })?;
    write_file(&path, &signed)
}

/// Loads the key that the delegation names from either of its two files.
fn load_delegated_key<K>(
    data_dir: &DataDir,
    role: DelegatedKey,
    accept: impl Fn(&[u8; 32]) -> Option<K>,
) -> Result<Option<K>, KeyError> {
    for path in [pending_path(data_dir, role), path(data_dir, role.name())] {
        match read_seed(&path) {
            Ok(seed) => {
                if let Some(key) = accept(&seed) {
                    return Ok(Some(key));
                }
            }
            Err(KeyError::Missing { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

fn new_key(path: &Path, role: DelegatedKey) -> Result<(), KeyError> {
    write_key(path, role.name(), &random::bytes(), |seed| derive_public_key(role, seed))
}

fn write_key(
    path: &Path,
    kid: &str,
    seed: &[u8; 32],
    public: impl Fn(&[u8; 32]) -> PublicKey,
) -> Result<(), KeyError> {
    Jwk::ed25519(kid, public(seed).as_bytes(), seed).write(path)
}

fn read_public_key(path: &Path, role: DelegatedKey) -> Result<PublicKey, KeyError> {
    Ok(derive_public_key(role, &*read_seed(path)?))
}

fn derive_public_key(role: DelegatedKey, seed: &[u8; 32]) -> PublicKey {
    match role {
        DelegatedKey::Snapshot => SnapshotKey::new(seed).public_key(),
        DelegatedKey::Tail => TailKey::new(seed).public_key(),
    }
}

fn read_root_key(path: &Path) -> Result<RootKey, KeyError> {
    Ok(RootKey::new(&*read_seed(path)?))
}

fn read_seed(path: &Path) -> Result<Zeroizing<[u8; 32]>, KeyError> {
    let seed = Jwk::read(path)?.seed();
    seed.ok_or(KeyError::Invalid { path: path.to_owned(), reason: "it is not an Ed25519 private key" })
}

/// Returns the epoch of a delegation, at offset 12, without verifying the delegation.
fn peek_epoch(signed: &[u8]) -> u64 {
    signed.get(12..20).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes)
}

fn delegation_path(data_dir: &DataDir) -> PathBuf {
    data_dir.keys().join("delegation")
}

fn root_public_path(data_dir: &DataDir) -> PathBuf {
    data_dir.keys().join("root.pub")
}

fn pending_path(data_dir: &DataDir, role: DelegatedKey) -> PathBuf {
    path(data_dir, &format!("{}.next", role.name()))
}

fn read_file(path: &Path) -> Result<Vec<u8>, KeyError> {
    fs::read(path).map_err(|source| KeyError::from_read(path, source))
}

fn write_file(path: &Path, content: &[u8]) -> Result<(), KeyError> {
    data_dir::replace_atomically(path, content)
        .map_err(|source| KeyError::Unwritable { path: path.to_owned(), source })
}

fn remove_if_exists(path: &Path) -> Result<(), KeyError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(KeyError::Unwritable { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use token::base64url;

    use super::*;

    fn data_dir() -> (tempfile::TempDir, DataDir) {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = DataDir::new(folder.path().join("data"));
        data_dir.create().unwrap();
        (folder, data_dir)
    }

    fn at(seconds: u64) -> UnixMillis {
        UnixMillis::from_seconds(crate::domain::UnixSeconds::new(seconds))
    }

    #[test]
    fn create_fails_if_keys_exist() {
        let (_folder, data_dir) = data_dir();
        create(&data_dir, "default", at(1000)).unwrap();
        let first = PublisherKeys::open(&data_dir, "default").unwrap();
        create(&data_dir, "default", at(2000)).unwrap();
        let second = PublisherKeys::open(&data_dir, "default").unwrap();
        assert_eq!(first.signed, second.signed);
        assert_eq!(first.delegation.epoch(), 1000);
        assert!(!first.is_superseded(&data_dir));
        for file in fs::read_dir(data_dir.keys()).unwrap() {
            assert_eq!(data_dir::group_or_world_mode_bits(&file.unwrap().path()).unwrap(), 0);
        }
        assert!(matches!(PublisherKeys::open(&data_dir, "another"), Err(KeyError::Delegation { .. })));
    }

    /// The key that edges have pinned stays the root key.
    #[test]
    fn key_of_0_1_becomes_root_key() {
        let (_folder, data_dir) = data_dir();
        write_key(&path(&data_dir, "publisher"), "publisher", &[7; 32], |seed| {
            RootKey::new(seed).public_key()
        })
        .unwrap();
        let public = RootKey::new(&[7; 32]).public_key();
        assert_eq!(examine(&data_dir).unwrap(), (public.clone(), IncompleteKeys::LegacySingleKey));
        complete(&data_dir, IncompleteKeys::LegacySingleKey, "default", at(1)).unwrap();
        assert_eq!(PublisherKeys::open(&data_dir, "default").unwrap().root, public);
        assert!(!path(&data_dir, "publisher").exists());
        assert_eq!(examine(&data_dir).unwrap(), (public.clone(), IncompleteKeys::Nothing));
        // The public half is lost; it follows from the private one.
        fs::remove_file(root_public_path(&data_dir)).unwrap();
        assert_eq!(examine(&data_dir).unwrap(), (public.clone(), IncompleteKeys::RootPublic));
        complete(&data_dir, IncompleteKeys::RootPublic, "default", at(2)).unwrap();
        assert_eq!(PublisherKeys::open(&data_dir, "default").unwrap().root, public);
    }

    /// A missing file is named in the error, and is not created.
    #[test]
    fn missing_file_is_named_and_not_created() {
        let (_folder, data_dir) = data_dir();
        create(&data_dir, "default", at(1000)).unwrap();
        let names = |error: KeyError| match error {
            KeyError::Missing { paths } => paths
                .iter()
                .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
                .collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        };
        let away = data_dir.path().join("away");
        fs::rename(path(&data_dir, ROOT_KEY_FILE), &away).unwrap();
        for name in ["root.pub", "delegation", "snapshot.jwk", "tail.jwk"] {
            let (file, kept) = (data_dir.keys().join(name), data_dir.path().join("kept"));
            fs::rename(&file, &kept).unwrap();
            assert_eq!(names(examine(&data_dir).unwrap_err()), [name]);
            fs::rename(&kept, &file).unwrap();
        }
        fs::remove_dir_all(data_dir.keys()).unwrap();
        assert_eq!(names(examine(&data_dir).unwrap_err()), ["keys"]);
        fs::create_dir(data_dir.keys()).unwrap();
        assert_eq!(
            names(examine(&data_dir).unwrap_err()),
            ["root.pub", "delegation", "snapshot.jwk", "tail.jwk"]
        );
        assert!(!data_dir.has_keys());
    }

    #[test]
    fn unknown_root_key_is_rejected() {
        let (_folder, data_dir) = data_dir();
        create(&data_dir, "default", at(1000)).unwrap();
        fs::remove_file(path(&data_dir, ROOT_KEY_FILE)).unwrap();
        write_key(&path(&data_dir, ROOT_KEY_FILE), ROOT_KEY_FILE, &[9; 32], |seed| {
            RootKey::new(seed).public_key()
        })
        .unwrap();
        assert!(matches!(examine(&data_dir), Err(KeyError::Invalid { .. })));
    }

    #[test]
    fn one_delegated_key_is_replaced_and_the_old_one_deleted() {
        let (_folder, data_dir) = data_dir();
        create(&data_dir, "default", at(1000)).unwrap();
        let mut last = PublisherKeys::open(&data_dir, "default").unwrap();
        for (role, seconds, epoch) in [
            (DelegatedKey::Snapshot, 1000, 1001),
            (DelegatedKey::Tail, 5000, 5000),
            (DelegatedKey::Tail, 1, 5001),
        ] {
            let old = fs::read(path(&data_dir, role.name())).unwrap();
            assert_eq!(renew(&data_dir, None, "default", Some(role), at(seconds)).unwrap(), epoch);
            assert!(last.is_superseded(&data_dir));
            let next = PublisherKeys::open(&data_dir, "default").unwrap();
            let kept = [
                last.snapshot.public_key() == next.snapshot.public_key(),
                last.tail.public_key() == next.tail.public_key(),
            ];
            assert_eq!(kept, [role != DelegatedKey::Snapshot, role != DelegatedKey::Tail]);
            assert_ne!(fs::read(path(&data_dir, role.name())).unwrap(), old);
            assert!(!pending_path(&data_dir, role).exists());
            last = next;
        }
        assert_eq!(renew(&data_dir, None, "another", None, at(6000)).unwrap(), 6000);
        assert_eq!(
            PublisherKeys::open(&data_dir, "another").unwrap().tail.public_key(),
            last.tail.public_key()
        );
    }

    /// The old key is in effect until the delegation is written, the new key afterwards.
    #[test]
    fn crash_at_any_point_leaves_consistent_keys() {
        let (_folder, data_dir) = data_dir();
        create(&data_dir, "default", at(1000)).unwrap();
        let old = PublisherKeys::open(&data_dir, "default").unwrap();
        new_key(&pending_path(&data_dir, DelegatedKey::Tail), DelegatedKey::Tail).unwrap();
        let held = PublisherKeys::open(&data_dir, "default").unwrap();
        assert_eq!(held.tail.public_key(), old.tail.public_key());

        let new = read_public_key(&pending_path(&data_dir, DelegatedKey::Tail), DelegatedKey::Tail).unwrap();
        let root = read_root_key(&path(&data_dir, ROOT_KEY_FILE)).unwrap();
        delegate(&data_dir, &root, "default", (&old.snapshot.public_key(), &new), 1000, at(2000)).unwrap();
        assert_eq!(PublisherKeys::open(&data_dir, "default").unwrap().tail.public_key(), new);

        assert_eq!(renew(&data_dir, None, "default", Some(DelegatedKey::Snapshot), at(3000)).unwrap(), 3000);
        assert_eq!(PublisherKeys::open(&data_dir, "default").unwrap().tail.public_key(), new);
    }

    /// A server that cannot read the next delegation must not continue silently with a stolen key.
    #[test]
    fn unreadable_delegation_counts_as_superseded() {
        let (_folder, data_dir) = data_dir();
        create(&data_dir, "default", at(1000)).unwrap();
        let authority = PublisherKeys::open(&data_dir, "default").unwrap();
        fs::remove_file(delegation_path(&data_dir)).unwrap();
        fs::create_dir(delegation_path(&data_dir)).unwrap();
        assert!(authority.is_superseded(&data_dir));
        assert!(matches!(PublisherKeys::open(&data_dir, "default"), Err(KeyError::Unreadable { .. })));
    }

    #[test]
    fn root_key_is_needed_for_renewal_only() {
        let (folder, data_dir) = data_dir();
        create(&data_dir, "default", at(1000)).unwrap();
        let away = folder.path().join("root.jwk");
        fs::rename(path(&data_dir, ROOT_KEY_FILE), &away).unwrap();
        assert!(!has_root_private_key(&data_dir));
        create(&data_dir, "default", at(1500)).unwrap();
        PublisherKeys::open(&data_dir, "default").unwrap();
        let refused = renew(&data_dir, None, "default", Some(DelegatedKey::Tail), at(2000)).unwrap_err();
        assert!(matches!(refused, KeyError::RootKeyNotFound { .. }), "{refused}");
        assert_eq!(
            renew(&data_dir, Some(&away), "default", Some(DelegatedKey::Tail), at(2000)).unwrap(),
            2000
        );

        let stranger = folder.path().join("stranger.jwk");
        write_key(&stranger, ROOT_KEY_FILE, &[9; 32], |seed| RootKey::new(seed).public_key()).unwrap();
        let refused = renew(&data_dir, Some(&stranger), "default", None, at(3000)).unwrap_err();
        assert!(matches!(refused, KeyError::Invalid { .. }), "{refused}");
    }

    #[test]
    fn debug_output_contains_no_private_key() {
        let (_folder, data_dir) = data_dir();
        create(&data_dir, "default", at(1000)).unwrap();
        let printed = format!("{:?}", PublisherKeys::open(&data_dir, "default").unwrap());
        for role in [DelegatedKey::Snapshot, DelegatedKey::Tail] {
            let seed = read_seed(&path(&data_dir, role.name())).unwrap();
            assert!(!printed.contains(&base64url::encode(&*seed)));
        }
    }
}
