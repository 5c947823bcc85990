//! Private keys: one JWK file each (RFC 7517, RFC 8037) in the folder `keys/` of the data folder.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use bundle::{DelegationError, PublicKey};
use serde::{Deserialize, Serialize};
use token::{
    Algorithm, InvalidKey, VerifyingKey,
    api_key::{Kind, MintingKey},
    base64url,
    mint::SigningKey,
};
use zeroize::{Zeroize as _, Zeroizing};

use crate::{
    domain::{Generation, SigningKeyRecord, SigningKeyState, is_tag_kid, tag_kid},
    platform::{
        data_dir::{self, DataDir},
        random,
    },
};

/// The keys that tokens are signed and verified with.
pub struct Keyring {
    signer: Arc<SigningKey>,
    verifying: Vec<VerifyingKey>,
    /// The symmetric keys by `kid`, for the bundle.
    secrets: Vec<(String, Zeroizing<Vec<u8>>)>,
}

impl Keyring {
    /// Opens the files of the keys that the store lists, newest first.
    pub fn open(data_dir: &DataDir, records: &[SigningKeyRecord]) -> Result<Self, KeyError> {
        let mut signer = None;
        let mut verifying = Vec::new();
        let mut secrets = Vec::new();
        for record in records {
            let SigningKeyRecord { kid, algorithm, public, state } = record;
            let path = path(data_dir, kid);
            let wrong = |reason| KeyError::Invalid { path: path.clone(), reason };
            let signs = *state == SigningKeyState::Active && signer.is_none();
            match (algorithm, public) {
                (Algorithm::EdDsa, Some(public)) => {
                    verifying.push(VerifyingKey::ed25519(kid, public).map_err(KeyError::Unusable)?);
                    if signs {
                        let seed =
                            Jwk::read(&path)?.seed().ok_or(wrong("it is not an Ed25519 private key"))?;
                        let key = SigningKey::ed25519(kid, &seed).map_err(KeyError::Unusable)?;
                        if key.verifying_key().public_bytes() != Some(public) {
                            return Err(wrong("its public key is not the one in the database"));
                        }
                        signer = Some(key);
                    }
                }
                (Algorithm::Hs256, None) => {
                    let secret = Jwk::read(&path)?.secret().ok_or(wrong("it is not a symmetric key"))?;
                    let key = SigningKey::hs256(kid, &secret).map_err(KeyError::Unusable)?;
                    verifying.push(key.verifying_key().clone());
                    secrets.push((kid.clone(), secret));
                    if signs {
                        signer = Some(key);
                    }
                }
                _ => {
                    return Err(wrong("the database has a key of another kind with this `kid`"));
                }
            }
        }
        let signer = Arc::new(signer.ok_or(KeyError::NoSigner)?);
        Ok(Self { signer, verifying, secrets })
    }

    /// Returns the keys of `records` that are known without their files, for when files are missing. The present signing key
    /// stays in use, even if edges no longer accept it.
    fn public_only(&self, records: &[SigningKeyRecord]) -> Result<Self, KeyError> {
        let mut verifying = Vec::new();
        for SigningKeyRecord { kid, public, .. } in records {
            match public {
                Some(public) => {
                    verifying.push(VerifyingKey::ed25519(kid, public).map_err(KeyError::Unusable)?)
                }
                None => verifying.extend(self.verifying.iter().find(|known| known.kid() == kid).cloned()),
            }
        }
        let is_listed = |kid: &String| records.iter().any(|record| record.kid == *kid);
        let secrets = self.secrets.iter().filter(|(kid, _)| is_listed(kid)).cloned().collect();
        Ok(Self { signer: Arc::clone(&self.signer), verifying, secrets })
    }

    /// Returns the key that signs tokens.
    pub fn signer(&self) -> &SigningKey {
        &self.signer
    }

    /// Returns the keys that tokens are verified with.
    pub fn verifying_keys(&self) -> &[VerifyingKey] {
        &self.verifying
    }

    /// Returns the symmetric keys by `kid`.
    pub fn secrets(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.secrets.iter().map(|(kid, secret)| (kid.as_str(), secret.as_slice()))
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.verifying).finish()
    }
}

/// The present keyring. It changes while a server runs.
#[derive(Debug)]
pub struct SharedKeyring {
    data_dir: DataDir,
    current: RwLock<Arc<Keyring>>,
    /// True if the last reload has failed, so the signing key may be missing.
    cannot_sign: AtomicBool,
}

impl SharedKeyring {
    pub fn open(data_dir: &DataDir, records: &[SigningKeyRecord]) -> Result<Self, KeyError> {
        let keyring = Keyring::open(data_dir, records)?;
        Ok(Self {
            data_dir: data_dir.clone(),
            current: RwLock::new(Arc::new(keyring)),
            cannot_sign: AtomicBool::new(false),
        })
    }

    /// Returns the present keyring.
    pub fn current(&self) -> Arc<Keyring> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns whether the signing key was available at the last reload.
    pub fn can_sign(&self) -> bool {
        !self.cannot_sign.load(Ordering::Relaxed)
    }

    /// Opens the keys that the store lists.
    pub fn reload(&self, records: &[SigningKeyRecord]) -> Result<(), KeyError> {
        self.swap(self.open_keyring(records)?);
        Ok(())
    }

    fn open_keyring(&self, records: &[SigningKeyRecord]) -> Result<Keyring, KeyError> {
        let keyring = Keyring::open(&self.data_dir, records);
        self.cannot_sign.store(keyring.is_err(), Ordering::Relaxed);
        keyring
    }

    /// Like [`Self::reload`], but tolerates missing key files: publishing a revocation must not depend on them.
    pub fn reload_available(&self, records: &[SigningKeyRecord]) -> Result<Arc<Keyring>, KeyError> {
        let keyring = self.open_keyring(records).or_else(|error| {
tracing::error!(
error.code = error.code(),
error = %error,
"cannot open the signing keys: no tokens can be issued, `/readyz` fails, and bundles are published without \
                 the secrets of missing keys"
);
self.current().public_only(records)
})?;
        Ok(self.swap(keyring))
    }

    fn swap(&self, keyring: Keyring) -> Arc<Keyring> {
        let keyring = Arc::new(keyring);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&keyring);
        keyring
    }
}

/// Creates the file of a signing key. The caller must add it to the store.
pub fn create_signing_key(
    data_dir: &DataDir,
    algorithm: Algorithm,
    state: SigningKeyState,
) -> Result<SigningKeyRecord, KeyError> {
    let kid = format!("ks-{}", random::from_alphabet(random::ALPHANUMERIC, 12));
    let material = random::bytes::<32>();
    let (jwk, public) = match algorithm {
        Algorithm::EdDsa => {
            let key = SigningKey::ed25519(&kid, &material).map_err(KeyError::Unusable)?;
            let public = key.verifying_key().public_bytes().copied();
            (Jwk::ed25519(&kid, public.as_ref().map_or(&[], |public| &public[..]), &material), public)
        }
        Algorithm::Hs256 => (Jwk::hs256(&kid, &material), None),
        _ => return Err(KeyError::Unusable(InvalidKey::VerifyOnlyAlgorithm)),
    };
    jwk.write(&path(data_dir, &kid))?;
    Ok(SigningKeyRecord { kid, algorithm, public, state })
}

/// Creates the key file of a generation of API keys. The caller must add it to the store.
pub fn create_generation(data_dir: &DataDir, number: u8, kind: Kind) -> Result<Generation, KeyError> {
    let kid = tag_kid(number);
    let secret = random::bytes();
    let key = MintingKey::new(number, kind, &secret).map_err(KeyError::Unusable)?;
    let public = key.generation_key().public_bytes().copied();
    let jwk = match &public {
        Some(public) => Jwk::ed25519(&kid, public, &secret),
        None => Jwk::hs256(&kid, &secret),
    };
    jwk.write(&path(data_dir, &kid))?;
    Ok(Generation { number, kind, public })
}

/// Returns the next generation number after `last` and after those of all key files: there may be API keys of a generation
/// that a restored database lacks. Returns `None` if all numbers are used.
pub fn unused_generation(data_dir: &DataDir, last: u8) -> Result<Option<u8>, KeyError> {
    let unreadable = |source| KeyError::Unreadable { path: data_dir.keys(), source };
    let mut last = last;
    for entry in fs::read_dir(data_dir.keys()).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        let number =
            name.to_str().and_then(|name| name.strip_prefix("tag-")?.strip_suffix(".jwk")?.parse().ok());
        last = last.max(number.unwrap_or_default());
    }
    Ok(last.checked_add(1))
}

/// Opens the key that API keys of a generation are created with.
pub fn open_generation(data_dir: &DataDir, generation: &Generation) -> Result<MintingKey, KeyError> {
    let Generation { number, kind, public } = generation;
    let path = path(data_dir, &generation.kid());
    let jwk = Jwk::read(&path)?;
    let (secret, reason) = match public {
        Some(_) => (jwk.seed(), "it is not an Ed25519 private key"),
        None => (jwk.secret32(), "it is not a symmetric key of 32 bytes"),
    };
    let secret = secret.ok_or_else(|| KeyError::Invalid { path: path.clone(), reason })?;
    let key = MintingKey::new(*number, *kind, &secret).map_err(KeyError::Unusable)?;
    match key.generation_key().public_bytes() == public.as_ref() {
        true => Ok(key),
        false => Err(KeyError::Invalid { path, reason: "its public key is not the one in the database" }),
    }
}

/// Opens the symmetric key that API keys of a generation are created and verified with. Fails for a generation of format 2,
/// which has none.
pub fn open_tag_secret(data_dir: &DataDir, generation: &Generation) -> Result<Zeroizing<[u8; 32]>, KeyError> {
    let path = path(data_dir, &generation.kid());
    let secret = Jwk::read(&path)?.secret32().filter(|_| generation.kind.is_symmetric());
    secret.ok_or(KeyError::Invalid { path, reason: "it is not a symmetric key of 32 bytes" })
}

/// Deletes the file of a key that is no longer part of the bundle.
pub fn remove(data_dir: &DataDir, kid: &str) -> Result<(), KeyError> {
    let path = path(data_dir, kid);
    match fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(KeyError::Unwritable { path, source }),
        _ => Ok(()),
    }
}

/// Returns the `kid`s of all key files of signing keys and generations.
pub fn list_key_files(data_dir: &DataDir) -> Result<Vec<String>, KeyError> {
    let unreadable = |source| KeyError::Unreadable { path: data_dir.keys(), source };
    let mut kids = Vec::new();
    for entry in fs::read_dir(data_dir.keys()).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        let kid = name.to_str().and_then(|name| name.strip_suffix(".jwk"));
        kids.extend(kid.filter(|kid| kid.starts_with("ks-") || is_tag_kid(kid)).map(str::to_owned));
    }
    Ok(kids)
}

/// Why a key cannot be used. The error never contains the content of the file.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Files do not exist: they are lost, or the volume is not mounted.
    #[error("{}", missing_paths(.paths))]
    Missing { paths: Vec<PathBuf> },
    /// The keys are those of another installation.
    #[error(
"the root key in `{}` is {found}, but the database belongs to {expected}: keys and database are of \
         two installations; restore the keys of the database, or set store.url to the database of the keys",
.path.display()
)]
    ForeignRoot { path: PathBuf, found: Box<PublicKey>, expected: String },
    /// A file cannot be read.
    #[error("cannot read the key file `{}`", .path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    /// A file cannot be written.
    #[error("cannot write the key file `{}`", .path.display())]
    Unwritable { path: PathBuf, source: io::Error },
    /// Other users may read the file.
    #[error("the key file `{shown}` is open to others; `chmod 600 {shown}`", shown = .path.display())]
    OpenToOthers { path: PathBuf },
    /// A file has unexpected content.
    #[error("the key file `{}` is invalid: {reason}", .path.display())]
    Invalid { path: PathBuf, reason: &'static str },
    /// The operation needs the root key, which is not in the data folder.
    #[error(
"the root key is not at `{}`",
.path.display()
)]
    RootKeyNotFound { path: PathBuf },
    /// Edges would not accept the delegation.
    #[error(
"the delegation `{}` is not valid for these keys (expired, or not signed by the root key)",
.path.display()
)]
    Delegation { path: PathBuf, source: DelegationError },
    /// The files do not belong together, or keys are being replaced at this moment.
    #[error(
"the delegation `{}` names keys that are not in the same folder",
.path.display()
)]
    Inconsistent { path: PathBuf },
    /// The key material is invalid.
    #[error("invalid key material")]
    Unusable(#[source] InvalidKey),
    /// The store has no active signing key.
    #[error("there is no active signing key")]
    NoSigner,
}

impl KeyError {
    /// Returns whether the file does not exist.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Missing { .. })
    }

    /// Returns [`Missing`](Self::Missing) if the file does not exist, else [`Unreadable`](Self::Unreadable).
    pub(crate) fn from_read(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => Self::Missing { paths: vec![path] },
            _ => Self::Unreadable { path, source },
        }
    }

    /// Returns the error code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "key_file_missing",
            Self::ForeignRoot { .. } => "root_key_foreign",
            Self::Unreadable { .. } => "key_unreadable",
            Self::Unwritable { .. } => "key_unwritable",
            Self::OpenToOthers { .. } => "key_open_to_others",
            Self::Invalid { .. } => "key_wrong",
            Self::RootKeyNotFound { .. } => "root_key_away",
            Self::Delegation { source, .. } => source.code(),
            Self::Inconsistent { .. } => "keys_torn",
            Self::Unusable(_) => "key_unusable",
            Self::NoSigner => "key_missing",
        }
    }
}

/// Returns the text of [`KeyError::Missing`].
fn missing_paths(paths: &[PathBuf]) -> String {
    let names: Vec<_> = paths.iter().map(|path| format!("`{}`", path.display())).collect();
    let (are, it) = if paths.len() == 1 { ("is", "it") } else { ("are", "them") };
    format!(
        "{} {are} missing; restore {it} from the backup of the keys (is the volume mounted?): edges accept no other keys",
        names.join(", ")
    )
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Jwk {
    kty: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    crv: Option<String>,
    kid: String,
    alg: String,
    #[serde(rename = "use")]
    purpose: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    x: Option<String>,
    /// Private key of an Ed25519 pair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    d: Option<String>,
    /// Symmetric key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    k: Option<String>,
}

impl Jwk {
    pub(crate) fn ed25519(kid: &str, public: &[u8], seed: &[u8; 32]) -> Self {
        Self {
            kty: "OKP".to_owned(),
            crv: Some("Ed25519".to_owned()),
            kid: kid.to_owned(),
            alg: "EdDSA".to_owned(),
            purpose: "sig".to_owned(),
            x: Some(base64url::encode(public)),
            d: Some(base64url::encode(seed)),
            k: None,
        }
    }

    fn hs256(kid: &str, secret: &[u8; 32]) -> Self {
        Self {
            kty: "oct".to_owned(),
            crv: None,
            kid: kid.to_owned(),
            alg: "HS256".to_owned(),
            purpose: "sig".to_owned(),
            x: None,
            d: None,
            k: Some(base64url::encode(secret)),
        }
    }

    /// Reads a key file. Fails if other users can read the file.
    pub(crate) fn read(path: &Path) -> Result<Self, KeyError> {
        let unreadable = |source| KeyError::from_read(path, source);
        if data_dir::group_or_world_mode_bits(path).map_err(unreadable)? != 0 {
            return Err(KeyError::OpenToOthers { path: path.to_owned() });
        }
        let text = Zeroizing::new(fs::read(path).map_err(unreadable)?);
        serde_json::from_slice(&text).map_err(|_| KeyError::Invalid {
            path: path.to_owned(),
            reason: "it is not a valid JSON Web Key",
        })
    }

    /// Creates the private key file. Fails if the file exists.
    pub(crate) fn write(&self, path: &Path) -> Result<(), KeyError> {
        let mut text = Zeroizing::new(serde_json::to_vec_pretty(self).unwrap_or_default());
        text.push(b'\n');
        data_dir::create_exclusive(path, &text)
            .map_err(|source| KeyError::Unwritable { path: path.to_owned(), source })
    }

    /// Returns the private key of an Ed25519 pair; `None` if this is another kind of key.
    pub(crate) fn seed(&self) -> Option<Zeroizing<[u8; 32]>> {
        let seed = Zeroizing::new(base64url::decode(self.d.as_ref()?.as_bytes())?);
        (self.crv.as_deref() == Some("Ed25519"))
            .then(|| seed.as_slice().try_into().ok().map(Zeroizing::new))?
    }

    /// Returns a symmetric key of exactly 32 bytes.
    fn secret32(&self) -> Option<Zeroizing<[u8; 32]>> {
        self.secret().and_then(|secret| secret.as_slice().try_into().ok().map(Zeroizing::new))
    }

    /// Returns a symmetric key; `None` if this is another kind of key.
    fn secret(&self) -> Option<Zeroizing<Vec<u8>>> {
        base64url::decode(self.k.as_ref()?.as_bytes()).filter(|_| self.kty == "oct").map(Zeroizing::new)
    }
}

impl Drop for Jwk {
    fn drop(&mut self) {
        self.d.zeroize();
        self.k.zeroize();
    }
}

/// Returns the path of a key file.
pub(crate) fn path(data_dir: &DataDir, name: &str) -> PathBuf {
    data_dir.keys().join(format!("{name}.jwk"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Config, installation::initialize};

    /// Another server has created a key whose file has not been copied here yet.
    #[tokio::test]
    async fn key_without_file_is_published() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = DataDir::new(folder.path().join("data"));
        initialize(&data_dir, &Config::default()).await.unwrap();
        let [old, new] = [(); 2]
            .map(|()| create_signing_key(&data_dir, Algorithm::EdDsa, SigningKeyState::Active).unwrap());
        let keys = SharedKeyring::open(&data_dir, std::slice::from_ref(&old)).unwrap();
        let [file, away] = [path(&data_dir, &new.kid), folder.path().join("away")];
        fs::rename(&file, &away).unwrap();
        let records = [new.clone(), SigningKeyRecord { state: SigningKeyState::Verifying, ..old.clone() }];
        assert_eq!(keys.reload(&records).unwrap_err().code(), "key_file_missing");
        let kids = |keyring: &Keyring| {
            keyring.verifying_keys().iter().map(|key| key.kid().to_owned()).collect::<Vec<_>>()
        };
        let published = keys.reload_available(&records).unwrap();
        assert_eq!(kids(&published), [new.kid.clone(), old.kid.clone()]);
        assert_eq!(keys.current().signer().kid(), old.kid);
        assert!(!keys.can_sign());
        fs::rename(&away, &file).unwrap();
        keys.reload(&records).unwrap();
        assert_eq!(keys.current().signer().kid(), new.kid);
        assert!(keys.can_sign());
    }
}
