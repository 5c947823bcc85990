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

use crate::{
    clock::Time,
    home::{self, Home},
    keys::{Jwk, KeyError, path},
    random,
};

/// How long a delegation is valid. `keystile doctor` reports when it should be renewed.
const DELEGATION_LIFETIME: Duration = Duration::from_secs(400 * 24 * 3600);

/// How long before its expiry the doctor and the log report that the delegation should be renewed.
pub const REMINDER: Duration = Duration::from_secs(60 * 24 * 3600);

/// The name of the root key's file.
const ROOT: &str = "root";

/// The name of the only key's file in version 0.1.
const LEGACY_KEY: &str = "publisher";

/// The keys of the publisher.
pub struct Authority {
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
pub enum Role {
    /// The key that signs checkpoints.
    Snapshot,
    /// The key that signs manifests.
    Tail,
}

impl Role {
    /// Returns the name of the key in file names and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot",
            Self::Tail => "tail",
        }
    }
}

impl Authority {
    /// Opens the present keys. Tries again if they are replaced at the same time.
    pub fn open(home: &Home, audience: &str) -> Result<Self, KeyError> {
        let mut attempts = 0..3;
        loop {
            match Self::read(home, audience) {
                Err(KeyError::Inconsistent { .. } | KeyError::Missing { .. })
                    if attempts.next().is_some() => {}
                read => return read,
            }
        }
    }

    fn read(home: &Home, audience: &str) -> Result<Self, KeyError> {
        let root = root_key(home)?;
        let path = delegation_path(home);
        let signed = read_file(&path)?;
        let delegation = Delegation::open(&signed, std::slice::from_ref(&root), audience)
            .map_err(|source| KeyError::Delegation { path: path.clone(), source })?;
        // A missing file must be restored, while a file with another key belongs to another folder.
        let inconsistent = |role: Role| match self::path(home, role.name()) {
            file if !file.exists() => KeyError::Missing { paths: vec![file] },
            _ => KeyError::Inconsistent { path: path.clone() },
        };
        let snapshot = load_delegated_key(home, Role::Snapshot, |seed| {
            let key = SnapshotKey::new(seed);
            delegation.snapshot_keys().contains(&key.public_key()).then_some(key)
        })?;
        let tail = load_delegated_key(home, Role::Tail, |seed| {
            let key = TailKey::new(seed);
            delegation.tail_keys().contains(&key.public_key()).then_some(key)
        })?;
        Ok(Self {
            snapshot: snapshot.ok_or_else(|| inconsistent(Role::Snapshot))?,
            tail: tail.ok_or_else(|| inconsistent(Role::Tail))?,
            root,
            signed,
            delegation,
        })
    }

    /// Returns whether the delegation file differs from the loaded delegation, or cannot be read. [`open`](Self::open)
    /// reports the read error.
    pub fn is_superseded(&self, home: &Home) -> bool {
        fs::read(delegation_path(home)).map_or(true, |signed| signed != self.signed)
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authority(epoch {}, {:?}, {:?})", self.delegation.epoch(), self.snapshot, self.tail)
    }
}

/// What a server has to complete in the folder. It never creates a trust anchor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Incomplete {
    /// The folder is complete.
    Nothing,
    /// `root.pub` is missing. It is derived from `root.jwk`.
    RootPublic,
    /// The folder is of version 0.1. Its only key becomes the root key, which edges have pinned.
    OneKeyForAll,
}

/// Returns the root key, and what a server has to complete. Writes nothing. An error names every missing file.
pub fn examine(home: &Home) -> Result<(PublicKey, Incomplete), KeyError> {
    let folder = home.keys();
    if !folder.is_dir() {
        return Err(KeyError::Missing { paths: vec![folder] });
    }
    let (root, public, before) = (path(home, ROOT), root_public_path(home), path(home, LEGACY_KEY));
    let known = match public.exists() {
        true => Some(root_key(home)?),
        false => None,
    };
    let agrees = |file: &Path| -> Result<PublicKey, KeyError> {
        let key = open_root(file)?.public_key();
        match &known {
            Some(known) if *known != key => Err(KeyError::Wrong {
                path: file.to_owned(),
                reason: "it is not the root key that edges pin",
            }),
            _ => Ok(key),
        }
    };
    if before.exists() && !delegation_path(home).exists() {
        let key = agrees(&before)?;
        return match root.exists() && open_root(&root)?.public_key() != key {
            true => Err(KeyError::Wrong {
                path: root,
                reason: "it is not the key that has signed bundles until now",
            }),
            false => Ok((key, Incomplete::OneKeyForAll)),
        };
    }
    let here = if root.exists() { Some(agrees(&root)?) } else { None };
    let mut missing = Vec::new();
    if known.is_none() && here.is_none() {
        missing.push(public);
    }
    if !delegation_path(home).exists() {
        missing.push(delegation_path(home));
    }
    for role in [Role::Snapshot, Role::Tail] {
        let file = path(home, role.name());
        if !file.exists() && !next_path(home, role).exists() {
            missing.push(file);
        }
    }
    match (known, here) {
        (Some(known), _) if missing.is_empty() => Ok((known, Incomplete::Nothing)),
        (None, Some(here)) if missing.is_empty() => Ok((here, Incomplete::RootPublic)),
        _ => Err(KeyError::Missing { paths: missing }),
    }
}

/// Completes what [`examine`] has found. After a crash at any point, [`examine`] finds the rest.
pub fn complete(home: &Home, incomplete: Incomplete, audience: &str, now: Time) -> Result<(), KeyError> {
    let root = path(home, ROOT);
    match incomplete {
        Incomplete::Nothing => Ok(()),
        Incomplete::RootPublic => write_root_public(home, &open_root(&root)?),
        Incomplete::OneKeyForAll => {
            let before = path(home, LEGACY_KEY);
            if !root.exists() {
                fs::hard_link(&before, &root)
                    .map_err(|source| KeyError::Unwritable { path: root.clone(), source })?;
            }
            create(home, audience, now)?;
            remove_if_exists(&before)
        }
    }
}

/// Creates the missing keys, the root key first. The database must not have an operator: edges do not accept a replaced root
/// key.
pub fn create(home: &Home, audience: &str, now: Time) -> Result<(), KeyError> {
    let root = path(home, ROOT);
    let roles = [Role::Snapshot, Role::Tail];
    let is_complete = root_public_path(home).exists()
        && delegation_path(home).exists()
        && roles.iter().all(|role| path(home, role.name()).exists() || next_path(home, *role).exists());
    if is_complete {
        return Ok(());
    }
    if !root.exists() && root_public_path(home).exists() {
        return Err(KeyError::RootKeyNotFound { path: root });
    }
    if !root.exists() && path(home, LEGACY_KEY).exists() {
        fs::rename(path(home, LEGACY_KEY), &root)
            .map_err(|source| KeyError::Unwritable { path: root.clone(), source })?;
    }
    if !root.exists() {
        write_key(&root, ROOT, &random::bytes(), |seed| RootKey::new(seed).public_key())?;
    }
    let key = open_root(&root)?;
    write_root_public(home, &key)?;
    for role in roles {
        if !path(home, role.name()).exists() {
            new_key(&path(home, role.name()), role)?;
        }
    }
    let last = fs::read(delegation_path(home)).map_or(0, |signed| peek_epoch(&signed));
    let [snapshot, tail] = roles.map(|role| public_of(&path(home, role.name()), role));
    delegate(home, &key, audience, (&snapshot?, &tail?), last, now)
}

fn write_root_public(home: &Home, root: &RootKey) -> Result<(), KeyError> {
    write_file(&root_public_path(home), format!("{}\n", root.public_key()).as_bytes())
}

/// Signs a delegation that replaces the present one, and creates a new key if one must be replaced. Returns its epoch.
pub fn renew(
    home: &Home,
    root_file: Option<&Path>,
    audience: &str,
    replace: Option<Role>,
    now: Time,
) -> Result<u64, KeyError> {
    let usual = path(home, ROOT);
    let root_file = root_file.unwrap_or(&usual);
    if !root_file.exists() {
        return Err(KeyError::RootKeyNotFound { path: root_file.to_owned() });
    }
    let root = open_root(root_file)?;
    if root.public_key() != root_key(home)? {
        return Err(KeyError::Wrong {
            path: root_file.to_owned(),
            reason: "it is not the root key that edges pin",
        });
    }
    let signed = read_file(&delegation_path(home))?;
    // The present delegation is not verified, as its audience may be the reason for the renewal.
    let last = peek_epoch(&signed);
    promote_pending_keys(home)?;
    let mut files = [Role::Snapshot, Role::Tail].map(|role| (role, path(home, role.name())));
    for (role, file) in &mut files {
        if replace == Some(*role) {
            *file = next_path(home, *role);
            // An earlier attempt may have left a file.
            remove_if_exists(file)?;
            new_key(file, *role)?;
        }
    }
    let [snapshot, tail] = files.map(|(role, file)| public_of(&file, role));
    delegate(home, &root, audience, (&snapshot?, &tail?), last, now)?;
    promote_pending_keys(home)?;
    Ok(peek_epoch(&read_file(&delegation_path(home))?))
}

/// Returns the root key, which edges pin.
pub fn root_key(home: &Home) -> Result<PublicKey, KeyError> {
    let path = root_public_path(home);
    let text = read_file(&path)?;
    let key = str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok());
    key.ok_or(KeyError::Wrong { path, reason: "it is not a valid public key" })
}

/// Returns whether the private root key is in the data folder.
pub fn root_is_here(home: &Home) -> bool {
    path(home, ROOT).exists()
}

/// Replaces the old keys by the new ones that the delegation names.
fn promote_pending_keys(home: &Home) -> Result<(), KeyError> {
    for role in [Role::Snapshot, Role::Tail] {
        let next = next_path(home, role);
        if !next.exists() {
            continue;
        }
        let signed = read_file(&delegation_path(home))?;
        let public = public_of(&next, role)?;
        let is_named = signed.windows(32).any(|window| window == public.as_bytes());
        let path = path(home, role.name());
        if is_named {
            fs::rename(&next, &path).map_err(|source| KeyError::Unwritable { path, source })?;
        }
    }
    Ok(())
}

/// Signs and writes a delegation.
fn delegate(
    home: &Home,
    root: &RootKey,
    audience: &str,
    (snapshot, tail): (&PublicKey, &PublicKey),
    last_epoch: u64,
    now: Time,
) -> Result<(), KeyError> {
    let path = delegation_path(home);
    let delegates = DelegationFields {
        audience,
        // The epoch follows the clock, like versions: after restoring a backup it is above what edges have seen.
        epoch: now.seconds().max(last_epoch.saturating_add(1)),
        issued_at: now.millis(),
        expires_at: now.plus(DELEGATION_LIFETIME).millis(),
        snapshot_keys: std::slice::from_ref(snapshot),
        tail_keys: std::slice::from_ref(tail),
    };
    let too_large = KeyError::Wrong { path: path.clone(), reason: "the audience is longer than 64 bytes" };
    let signed = root.delegate(&delegates).map_err(|_| too_large)?;
    Delegation::open(&signed, &[root.public_key()], audience)
        .map_err(|source| KeyError::Delegation { path: path.clone(), source })?;
    write_file(&path, &signed)
}

/// Loads the key that the delegation names from either of its two files.
fn load_delegated_key<K>(
    home: &Home,
    role: Role,
    accept: impl Fn(&[u8; 32]) -> Option<K>,
) -> Result<Option<K>, KeyError> {
    for path in [next_path(home, role), path(home, role.name())] {
        match open_seed(&path) {
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

fn new_key(path: &Path, role: Role) -> Result<(), KeyError> {
    write_key(path, role.name(), &random::bytes(), |seed| public(role, seed))
}

fn write_key(
    path: &Path,
    kid: &str,
    seed: &[u8; 32],
    public: impl Fn(&[u8; 32]) -> PublicKey,
) -> Result<(), KeyError> {
    Jwk::ed25519(kid, public(seed).as_bytes(), seed).write(path)
}

fn public_of(path: &Path, role: Role) -> Result<PublicKey, KeyError> {
    Ok(public(role, &*open_seed(path)?))
}

fn public(role: Role, seed: &[u8; 32]) -> PublicKey {
    match role {
        Role::Snapshot => SnapshotKey::new(seed).public_key(),
        Role::Tail => TailKey::new(seed).public_key(),
    }
}

fn open_root(path: &Path) -> Result<RootKey, KeyError> {
    Ok(RootKey::new(&*open_seed(path)?))
}

fn open_seed(path: &Path) -> Result<Zeroizing<[u8; 32]>, KeyError> {
    let seed = Jwk::read(path)?.seed();
    seed.ok_or(KeyError::Wrong { path: path.to_owned(), reason: "it is not an Ed25519 private key" })
}

/// Returns the epoch of a delegation, at offset 12, without verifying the delegation.
fn peek_epoch(signed: &[u8]) -> u64 {
    signed.get(12..20).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes)
}

fn delegation_path(home: &Home) -> PathBuf {
    home.keys().join("delegation")
}

/// Returns the path of the root key's public key.
fn root_public_path(home: &Home) -> PathBuf {
    home.keys().join("root.pub")
}

fn next_path(home: &Home, role: Role) -> PathBuf {
    path(home, &format!("{}.next", role.name()))
}

fn read_file(path: &Path) -> Result<Vec<u8>, KeyError> {
    fs::read(path).map_err(|source| KeyError::unreadable(path, source))
}

fn write_file(path: &Path, content: &[u8]) -> Result<(), KeyError> {
    home::replace(path, content).map_err(|source| KeyError::Unwritable { path: path.to_owned(), source })
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

    fn home() -> (tempfile::TempDir, Home) {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::new(folder.path().join("data"));
        home.create().unwrap();
        (folder, home)
    }

    fn at(seconds: u64) -> Time {
        Time::from_seconds(seconds)
    }

    #[test]
    fn keys_are_made_once() {
        let (_folder, home) = home();
        create(&home, "default", at(1000)).unwrap();
        let first = Authority::open(&home, "default").unwrap();
        create(&home, "default", at(2000)).unwrap();
        let second = Authority::open(&home, "default").unwrap();
        assert_eq!(first.signed, second.signed);
        assert_eq!(first.delegation.epoch(), 1000);
        assert!(!first.is_superseded(&home));
        for file in fs::read_dir(home.keys()).unwrap() {
            assert_eq!(home::open_to_others(&file.unwrap().path()).unwrap(), 0);
        }
        assert!(matches!(Authority::open(&home, "another"), Err(KeyError::Delegation { .. })));
    }

    /// The key that edges have pinned stays the root key.
    #[test]
    fn the_key_of_0_1_becomes_the_root() {
        let (_folder, home) = home();
        write_key(&path(&home, "publisher"), "publisher", &[7; 32], |seed| RootKey::new(seed).public_key())
            .unwrap();
        let public = RootKey::new(&[7; 32]).public_key();
        assert_eq!(examine(&home).unwrap(), (public.clone(), Incomplete::OneKeyForAll));
        complete(&home, Incomplete::OneKeyForAll, "default", at(1)).unwrap();
        assert_eq!(Authority::open(&home, "default").unwrap().root, public);
        assert!(!path(&home, "publisher").exists());
        assert_eq!(examine(&home).unwrap(), (public.clone(), Incomplete::Nothing));
        // The public half is lost; it follows from the private one.
        fs::remove_file(root_public_path(&home)).unwrap();
        assert_eq!(examine(&home).unwrap(), (public.clone(), Incomplete::RootPublic));
        complete(&home, Incomplete::RootPublic, "default", at(2)).unwrap();
        assert_eq!(Authority::open(&home, "default").unwrap().root, public);
    }

    /// A missing file is named in the error, and is not created.
    #[test]
    fn a_missing_file_makes_nothing() {
        let (_folder, home) = home();
        create(&home, "default", at(1000)).unwrap();
        let names = |error: KeyError| match error {
            KeyError::Missing { paths } => paths
                .iter()
                .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
                .collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        };
        let away = home.folder().join("away");
        fs::rename(path(&home, ROOT), &away).unwrap();
        for name in ["root.pub", "delegation", "snapshot.jwk", "tail.jwk"] {
            let (file, kept) = (home.keys().join(name), home.folder().join("kept"));
            fs::rename(&file, &kept).unwrap();
            assert_eq!(names(examine(&home).unwrap_err()), [name]);
            fs::rename(&kept, &file).unwrap();
        }
        fs::remove_dir_all(home.keys()).unwrap();
        assert_eq!(names(examine(&home).unwrap_err()), ["keys"]);
        fs::create_dir(home.keys()).unwrap();
        assert_eq!(
            names(examine(&home).unwrap_err()),
            ["root.pub", "delegation", "snapshot.jwk", "tail.jwk"]
        );
        assert!(!home.has_keys());
    }

    #[test]
    fn a_root_that_is_not_the_known_one_is_refused() {
        let (_folder, home) = home();
        create(&home, "default", at(1000)).unwrap();
        fs::remove_file(path(&home, ROOT)).unwrap();
        write_key(&path(&home, ROOT), ROOT, &[9; 32], |seed| RootKey::new(seed).public_key()).unwrap();
        assert!(matches!(examine(&home), Err(KeyError::Wrong { .. })));
    }

    #[test]
    fn a_key_is_replaced_alone_and_the_old_one_is_gone() {
        let (_folder, home) = home();
        create(&home, "default", at(1000)).unwrap();
        let mut last = Authority::open(&home, "default").unwrap();
        for (role, seconds, epoch) in
            [(Role::Snapshot, 1000, 1001), (Role::Tail, 5000, 5000), (Role::Tail, 1, 5001)]
        {
            let old = fs::read(path(&home, role.name())).unwrap();
            assert_eq!(renew(&home, None, "default", Some(role), at(seconds)).unwrap(), epoch);
            assert!(last.is_superseded(&home));
            let next = Authority::open(&home, "default").unwrap();
            let kept = [
                last.snapshot.public_key() == next.snapshot.public_key(),
                last.tail.public_key() == next.tail.public_key(),
            ];
            assert_eq!(kept, [role != Role::Snapshot, role != Role::Tail]);
            assert_ne!(fs::read(path(&home, role.name())).unwrap(), old);
            assert!(!next_path(&home, role).exists());
            last = next;
        }
        assert_eq!(renew(&home, None, "another", None, at(6000)).unwrap(), 6000);
        assert_eq!(Authority::open(&home, "another").unwrap().tail.public_key(), last.tail.public_key());
    }

    /// The old key is in effect until the delegation is written, the new key afterwards.
    #[test]
    fn a_crash_at_any_point_leaves_keys_that_belong_together() {
        let (_folder, home) = home();
        create(&home, "default", at(1000)).unwrap();
        let old = Authority::open(&home, "default").unwrap();
        new_key(&next_path(&home, Role::Tail), Role::Tail).unwrap();
        let held = Authority::open(&home, "default").unwrap();
        assert_eq!(held.tail.public_key(), old.tail.public_key());

        let new = public_of(&next_path(&home, Role::Tail), Role::Tail).unwrap();
        let root = open_root(&path(&home, ROOT)).unwrap();
        delegate(&home, &root, "default", (&old.snapshot.public_key(), &new), 1000, at(2000)).unwrap();
        assert_eq!(Authority::open(&home, "default").unwrap().tail.public_key(), new);

        assert_eq!(renew(&home, None, "default", Some(Role::Snapshot), at(3000)).unwrap(), 3000);
        assert_eq!(Authority::open(&home, "default").unwrap().tail.public_key(), new);
    }

    /// A server that cannot read the next delegation must not continue silently with a stolen key.
    #[test]
    fn a_delegation_that_cannot_be_read_supersedes() {
        let (_folder, home) = home();
        create(&home, "default", at(1000)).unwrap();
        let authority = Authority::open(&home, "default").unwrap();
        fs::remove_file(delegation_path(&home)).unwrap();
        fs::create_dir(delegation_path(&home)).unwrap();
        assert!(authority.is_superseded(&home));
        assert!(matches!(Authority::open(&home, "default"), Err(KeyError::Unreadable { .. })));
    }

    #[test]
    fn the_root_may_be_away_until_it_is_needed() {
        let (folder, home) = home();
        create(&home, "default", at(1000)).unwrap();
        let away = folder.path().join("root.jwk");
        fs::rename(path(&home, ROOT), &away).unwrap();
        assert!(!root_is_here(&home));
        create(&home, "default", at(1500)).unwrap();
        Authority::open(&home, "default").unwrap();
        let refused = renew(&home, None, "default", Some(Role::Tail), at(2000)).unwrap_err();
        assert!(matches!(refused, KeyError::RootKeyNotFound { .. }), "{refused}");
        assert_eq!(renew(&home, Some(&away), "default", Some(Role::Tail), at(2000)).unwrap(), 2000);

        let stranger = folder.path().join("stranger.jwk");
        write_key(&stranger, ROOT, &[9; 32], |seed| RootKey::new(seed).public_key()).unwrap();
        let refused = renew(&home, Some(&stranger), "default", None, at(3000)).unwrap_err();
        assert!(matches!(refused, KeyError::Wrong { .. }), "{refused}");
    }

    #[test]
    fn nothing_private_is_printed() {
        let (_folder, home) = home();
        create(&home, "default", at(1000)).unwrap();
        let printed = format!("{:?}", Authority::open(&home, "default").unwrap());
        for role in [Role::Snapshot, Role::Tail] {
            let seed = open_seed(&path(&home, role.name())).unwrap();
            assert!(!printed.contains(&base64url::encode(&*seed)));
        }
    }
}
