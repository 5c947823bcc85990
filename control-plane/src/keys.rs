//! Private keys: one JWK file each (RFC 7517, RFC 8037), under `keys/` of the data folder and nowhere else.

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
    Algorithm, BadKey, VerifyingKey,
    api_key::{Kind, MintingKey},
    base64url,
    mint::SigningKey,
};
use zeroize::{Zeroize as _, Zeroizing};

use crate::{
    home::{self, Home},
    model::{Generation, SigningKeyRecord, SigningKeyState},
    random,
};

/// The keys that tokens are signed and verified with.
pub struct Keyring {
    signer: Arc<SigningKey>,
    verifying: Vec<VerifyingKey>,
    /// Of the symmetric ones, for the edges.
    secrets: Vec<(String, Zeroizing<Vec<u8>>)>,
}

impl Keyring {
    /// Opens the files of the keys that the store lists, newest first.
    pub fn open(home: &Home, records: &[SigningKeyRecord]) -> Result<Self, KeyError> {
        let mut signer = None;
        let mut verifying = Vec::new();
        let mut secrets = Vec::new();
        for record in records {
            let SigningKeyRecord { kid, algorithm, public, state } = record;
            let path = path(home, kid);
            let wrong = |reason| KeyError::Wrong { path: path.clone(), reason };
            let signs = *state == SigningKeyState::Active && signer.is_none();
            match (algorithm, public) {
                (Algorithm::EdDsa, Some(public)) => {
                    verifying.push(VerifyingKey::ed25519(kid, public).map_err(KeyError::Unusable)?);
                    if signs {
                        let seed = Jwk::read(&path)?.seed().ok_or(wrong("it is no Ed25519 private key"))?;
                        let key = SigningKey::ed25519(kid, &seed).map_err(KeyError::Unusable)?;
                        if key.verifying_key().public_bytes() != Some(public) {
                            return Err(wrong("its public key is not the one in the database"));
                        }
                        signer = Some(key);
                    }
                }
                (Algorithm::Hs256, None) => {
                    let secret = Jwk::read(&path)?.secret().ok_or(wrong("it is no symmetric key"))?;
                    let key = SigningKey::hs256(kid, &secret).map_err(KeyError::Unusable)?;
                    verifying.push(key.verifying_key().clone());
                    secrets.push((kid.clone(), secret));
                    if signs {
                        signer = Some(key);
                    }
                }
                _ => {
                    return Err(wrong("the database has another kind of key under this name"));
                }
            }
        }
        let signer = Arc::new(signer.ok_or(KeyError::NoSigner)?);
        Ok(Self { signer, verifying, secrets })
    }

    /// The same keys, as far as they are known without their files. What signed goes on, though nobody may take it.
    fn without_files(&self, records: &[SigningKeyRecord]) -> Result<Self, KeyError> {
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

    pub fn signer(&self) -> &SigningKey {
        &self.signer
    }

    pub fn verifying(&self) -> &[VerifyingKey] {
        &self.verifying
    }

    pub fn secrets(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.secrets.iter().map(|(kid, secret)| (kid.as_str(), secret.as_slice()))
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.verifying).finish()
    }
}

/// The keyring that holds now. Keys come and go while a server runs.
#[derive(Debug)]
pub struct Keys {
    home: Home,
    held: RwLock<Arc<Keyring>>,
    /// The key that is to sign is not here, as far as anybody has looked.
    cannot_sign: AtomicBool,
}

impl Keys {
    pub fn open(home: &Home, records: &[SigningKeyRecord]) -> Result<Self, KeyError> {
        let keyring = Keyring::open(home, records)?;
        Ok(Self {
            home: home.clone(),
            held: RwLock::new(Arc::new(keyring)),
            cannot_sign: AtomicBool::new(false),
        })
    }

    pub fn current(&self) -> Arc<Keyring> {
        Arc::clone(&self.held.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the key that is to sign was here when it was last looked for.
    pub fn can_sign(&self) -> bool {
        !self.cannot_sign.load(Ordering::Relaxed)
    }

    /// What the store lists by now.
    pub fn take_up(&self, records: &[SigningKeyRecord]) -> Result<(), KeyError> {
        self.hold(self.open_all(records)?);
        Ok(())
    }

    fn open_all(&self, records: &[SigningKeyRecord]) -> Result<Keyring, KeyError> {
        let keyring = Keyring::open(&self.home, records);
        self.cannot_sign.store(keyring.is_err(), Ordering::Relaxed);
        keyring
    }

    /// As [`Self::take_up`], for who publishes: a file that is not here is no reason to keep a revocation back.
    pub fn take_up_what_is_here(&self, records: &[SigningKeyRecord]) -> Result<Arc<Keyring>, KeyError> {
        let keyring = self.open_all(records).or_else(|error| {
            tracing::error!(
                error.code = error.code(),
                error = %error,
                "no tokens are issued here until the key is here too, and `/readyz` says so; what edges are told is published, without the secret of a key that is not here"
            );
            self.current().without_files(records)
        })?;
        Ok(self.hold(keyring))
    }

    fn hold(&self, keyring: Keyring) -> Arc<Keyring> {
        let keyring = Arc::new(keyring);
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&keyring);
        keyring
    }
}

/// Makes a key that tokens are signed with. Until the store lists it, it is nobody's.
pub fn create_signing_key(
    home: &Home,
    algorithm: Algorithm,
    state: SigningKeyState,
) -> Result<SigningKeyRecord, KeyError> {
    let kid = format!("ks-{}", random::text(random::ALPHANUMERIC, 12));
    let material = random::bytes::<32>();
    let (jwk, public) = match algorithm {
        Algorithm::EdDsa => {
            let key = SigningKey::ed25519(&kid, &material).map_err(KeyError::Unusable)?;
            let public = key.verifying_key().public_bytes().copied();
            (Jwk::ed25519(&kid, public.as_ref().map_or(&[], |public| &public[..]), &material), public)
        }
        Algorithm::Hs256 => (Jwk::hs256(&kid, &material), None),
        _ => return Err(KeyError::Unusable(BadKey::NotMinted)),
    };
    jwk.write(&path(home, &kid))?;
    Ok(SigningKeyRecord { kid, algorithm, public, state })
}

/// Makes what a generation of API keys is made with. Until the store lists it, it is nobody's.
pub fn create_generation(home: &Home, number: u8, kind: Kind) -> Result<Generation, KeyError> {
    let kid = tag_kid(number);
    let secret = random::bytes();
    let key = MintingKey::new(number, kind, &secret).map_err(KeyError::Unusable)?;
    let public = key.checking().public_bytes().copied();
    let jwk = match &public {
        Some(public) => Jwk::ed25519(&kid, public, &secret),
        None => Jwk::hs256(&kid, &secret),
    };
    jwk.write(&path(home, &kid))?;
    Ok(Generation { number, kind, public })
}

/// The next number after `last` that no file has: of a generation that a restored database has forgotten there may be
/// keys about, and so of an attempt that did not come to its commit. None where there is none left.
pub fn free_generation(home: &Home, last: u8) -> Result<Option<u8>, KeyError> {
    let unreadable = |source| KeyError::Unreadable { path: home.keys(), source };
    let mut last = last;
    for entry in fs::read_dir(home.keys()).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        let number =
            name.to_str().and_then(|name| name.strip_prefix("tag-")?.strip_suffix(".jwk")?.parse().ok());
        last = last.max(number.unwrap_or_default());
    }
    Ok(last.checked_add(1))
}

/// What makes API keys of this generation.
pub fn open_generation(home: &Home, generation: &Generation) -> Result<MintingKey, KeyError> {
    let Generation { number, kind, public } = generation;
    let path = path(home, &generation.kid());
    let jwk = Jwk::read(&path)?;
    let (secret, reason) = match public {
        Some(_) => (jwk.seed(), "it is no Ed25519 private key"),
        None => (jwk.secret32(), "it is no symmetric key of 32 bytes"),
    };
    let secret = secret.ok_or_else(|| KeyError::Wrong { path: path.clone(), reason })?;
    let key = MintingKey::new(*number, *kind, &secret).map_err(KeyError::Unusable)?;
    match key.checking().public_bytes() == public.as_ref() {
        true => Ok(key),
        false => Err(KeyError::Wrong { path, reason: "its public key is not the one in the database" }),
    }
}

/// The secret that API keys of this generation are made and checked with; of format 2 edges get none.
pub fn open_tag_secret(home: &Home, generation: &Generation) -> Result<Zeroizing<[u8; 32]>, KeyError> {
    let path = path(home, &generation.kid());
    let secret = Jwk::read(&path)?.secret32().filter(|_| generation.kind.is_symmetric());
    secret.ok_or(KeyError::Wrong { path, reason: "it is no symmetric key of 32 bytes" })
}

/// Of a key that no bundle will ever have again.
pub fn remove(home: &Home, kid: &str) -> Result<(), KeyError> {
    let path = path(home, kid);
    match fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(KeyError::Unwritable { path, source }),
        _ => Ok(()),
    }
}

/// The names of the keys whose files are there: those that sign tokens, and those that API keys are made with.
pub fn kept(home: &Home) -> Result<Vec<String>, KeyError> {
    let unreadable = |source| KeyError::Unreadable { path: home.keys(), source };
    let mut kids = Vec::new();
    for entry in fs::read_dir(home.keys()).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        let kid = name.to_str().and_then(|name| name.strip_suffix(".jwk"));
        kids.extend(kid.filter(|kid| kid.starts_with("ks-") || is_tag_kid(kid)).map(str::to_owned));
    }
    Ok(kids)
}

pub fn tag_kid(generation: u8) -> String {
    format!("tag-{generation}")
}

/// Whether that is what API keys are made with; tokens are signed with `ks-...`.
pub fn is_tag_kid(kid: &str) -> bool {
    kid.starts_with("tag-")
}

/// Why a key can't be used. Never says what is in the file.
#[derive(Debug)]
pub enum KeyError {
    /// Lost, or on a volume that is not mounted.
    Missing {
        paths: Vec<PathBuf>,
    },
    /// The keys are those of another installation.
    ForeignRoot {
        path: PathBuf,
        found: Box<PublicKey>,
        expected: String,
    },
    Unreadable {
        path: PathBuf,
        source: io::Error,
    },
    Unwritable {
        path: PathBuf,
        source: io::Error,
    },
    OpenToOthers {
        path: PathBuf,
    },
    Wrong {
        path: PathBuf,
        reason: &'static str,
    },
    /// The root key is kept elsewhere, and is needed.
    RootAway {
        path: PathBuf,
    },
    /// The delegation is none that edges would take.
    Delegation {
        path: PathBuf,
        source: DelegationError,
    },
    /// A change of keys is under way, or the files do not belong together.
    Torn {
        path: PathBuf,
    },
    Unusable(BadKey),
    NoSigner,
}

impl KeyError {
    /// Whether there is no such file.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Missing { .. })
    }

    pub(crate) fn unreadable(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => Self::Missing { paths: vec![path] },
            _ => Self::Unreadable { path, source },
        }
    }

    pub const fn code(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "key_file_missing",
            Self::ForeignRoot { .. } => "root_key_foreign",
            Self::Unreadable { .. } => "key_unreadable",
            Self::Unwritable { .. } => "key_unwritable",
            Self::OpenToOthers { .. } => "key_open_to_others",
            Self::Wrong { .. } => "key_wrong",
            Self::RootAway { .. } => "root_key_away",
            Self::Delegation { source, .. } => source.code(),
            Self::Torn { .. } => "keys_torn",
            Self::Unusable(_) => "key_unusable",
            Self::NoSigner => "key_missing",
        }
    }
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { paths } => {
                let names: Vec<_> = paths.iter().map(|path| format!("`{}`", path.display())).collect();
                let (are, it) = if paths.len() == 1 { ("is", "it") } else { ("are", "them") };
                write!(
                    f,
                    "{} {are} missing; restore {it} from the backup of the keys (is the volume mounted?): edges believe \
                     no other keys",
                    names.join(", ")
                )
            }
            Self::ForeignRoot { path, found, expected } => write!(
                f,
                "the root key in `{}` is {found}, but this database belongs to {expected}: keys and database are of two \
                 installations; restore the keys that belong to it, or name the other database in store.url",
                path.display()
            ),
            Self::Unreadable { path, .. } => write!(f, "the key file `{}` can't be read", path.display()),
            Self::Unwritable { path, .. } => write!(f, "the key file `{}` can't be written", path.display()),
            Self::OpenToOthers { path } => {
                write!(f, "the key file `{0}` is open to others; `chmod 600 {0}`", path.display())
            }
            Self::Wrong { path, reason } => write!(f, "the key file `{}` is wrong: {reason}", path.display()),
            Self::RootAway { path } => write!(
                f,
                "the root key is not at `{}`; bring it back for this command, or name its file with --root-key",
                path.display()
            ),
            Self::Delegation { path, .. } => write!(
                f,
                "the delegation `{}` does not hold; `keystile authority renew` signs another",
                path.display()
            ),
            Self::Torn { path } => write!(
                f,
                "the delegation `{}` names keys that are not beside it; restore the folder from its backup, or make \
                 new ones: `keystile authority rotate snapshot` and `keystile authority rotate tail`",
                path.display()
            ),
            Self::Unusable(_) => f.write_str("a key is unusable"),
            Self::NoSigner => f.write_str("there is no active signing key; run `keystile init`"),
        }
    }
}

impl std::error::Error for KeyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable { source, .. } | Self::Unwritable { source, .. } => Some(source),
            Self::Unusable(source) => Some(source),
            Self::Delegation { source, .. } => Some(source),
            Self::Missing { .. }
            | Self::ForeignRoot { .. }
            | Self::OpenToOthers { .. }
            | Self::Wrong { .. }
            | Self::RootAway { .. }
            | Self::Torn { .. }
            | Self::NoSigner => None,
        }
    }
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

    pub(crate) fn read(path: &Path) -> Result<Self, KeyError> {
        let unreadable = |source| KeyError::unreadable(path, source);
        if home::open_to_others(path).map_err(unreadable)? != 0 {
            return Err(KeyError::OpenToOthers { path: path.to_owned() });
        }
        let text = Zeroizing::new(fs::read(path).map_err(unreadable)?);
        serde_json::from_slice(&text)
            .map_err(|_| KeyError::Wrong { path: path.to_owned(), reason: "it is no JSON web key" })
    }

    pub(crate) fn write(&self, path: &Path) -> Result<(), KeyError> {
        let mut text = Zeroizing::new(serde_json::to_vec_pretty(self).unwrap_or_default());
        text.push(b'\n');
        home::write_new(path, &text).map_err(|source| KeyError::Unwritable { path: path.to_owned(), source })
    }

    pub(crate) fn seed(&self) -> Option<Zeroizing<[u8; 32]>> {
        let seed = Zeroizing::new(base64url::decode(self.d.as_ref()?.as_bytes())?);
        (self.crv.as_deref() == Some("Ed25519"))
            .then(|| seed.as_slice().try_into().ok().map(Zeroizing::new))?
    }

    fn secret32(&self) -> Option<Zeroizing<[u8; 32]>> {
        self.secret().and_then(|secret| secret.as_slice().try_into().ok().map(Zeroizing::new))
    }

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

pub(crate) fn path(home: &Home, name: &str) -> PathBuf {
    home.keys().join(format!("{name}.jwk"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Config, operations::initialize};

    /// Another server has made a key, and its file is not here yet.
    #[tokio::test]
    async fn a_key_that_is_not_here_is_published_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::new(folder.path().join("data"));
        initialize(&home, &Config::default()).await.unwrap();
        let [old, new] =
            [(); 2].map(|()| create_signing_key(&home, Algorithm::EdDsa, SigningKeyState::Active).unwrap());
        let keys = Keys::open(&home, std::slice::from_ref(&old)).unwrap();
        let [file, away] = [path(&home, &new.kid), folder.path().join("away")];
        fs::rename(&file, &away).unwrap();
        let records = [new.clone(), SigningKeyRecord { state: SigningKeyState::Verifying, ..old.clone() }];
        assert_eq!(keys.take_up(&records).unwrap_err().code(), "key_file_missing");
        let kids = |keyring: &Keyring| {
            keyring.verifying().iter().map(|key| key.kid().to_owned()).collect::<Vec<_>>()
        };
        let published = keys.take_up_what_is_here(&records).unwrap();
        assert_eq!(kids(&published), [new.kid.clone(), old.kid.clone()]);
        assert_eq!(keys.current().signer().kid(), old.kid);
        assert!(!keys.can_sign());
        fs::rename(&away, &file).unwrap();
        keys.take_up(&records).unwrap();
        assert_eq!(keys.current().signer().kid(), new.kid);
        assert!(keys.can_sign());
    }
}
