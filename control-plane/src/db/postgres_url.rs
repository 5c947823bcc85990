//! The URL of a PostgreSQL database. The driver ignores unknown parameters, so a misspelt `sslmode` would connect without TLS.

use std::{
    env, fmt,
    fs::File,
    io,
    path::{Path, PathBuf},
    str::FromStr as _,
};

use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use sqlx::postgres::PgConnectOptions;
use url::{Host, Url};

use crate::platform::{
    data_dir,
    suggestion::{did_you_mean, most_similar},
};

/// The parameters, as libpq names them. `hostaddr` is not among them: the driver would compare it with the certificate.
const PARAMETERS: [&str; 11] = [
    "application_name",
    "dbname",
    "host",
    "options",
    "password",
    "port",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "user",
];

/// How the server names connections that name no application.
const APPLICATION_NAME: &str = "keystile";

/// Whether connections use TLS, and what of the server's certificate is verified. The driver's `allow` never uses TLS, so it
/// is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TlsMode {
    Disable,
    /// TLS if the server offers it. An attacker on the network can have it refused.
    Prefer,
    /// TLS with any certificate.
    Require,
    /// TLS with a certificate of a trusted authority, for any name.
    VerifyCa,
    /// TLS with a certificate of a trusted authority for the name of the host.
    VerifyFull,
}

impl TlsMode {
    const ALL: [Self; 5] = [Self::Disable, Self::Prefer, Self::Require, Self::VerifyCa, Self::VerifyFull];

    const fn name(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }

    const fn verifies(self) -> bool {
        matches!(self, Self::VerifyCa | Self::VerifyFull)
    }
}

/// What is wrong with the URL of a PostgreSQL database. No text repeats a part of the URL that may belong to a password.
#[derive(Debug, thiserror::Error)]
pub enum PostgresUrlError {
    /// It is not a URL, or a part of it is invalid.
    #[error("it is not `postgres://USER:PASSWORD@HOST/DATABASE`; a password must be percent-encoded")]
    Malformed,
    /// A parameter is unknown.
    #[error("unknown parameter `{name}`{}", did_you_mean(*.nearest))]
    UnknownParameter { name: String, nearest: Option<&'static str> },
    /// A parameter is unknown, and its name may be a part of a password.
    #[error("unknown parameter: the known ones are {}; a password must be percent-encoded", PARAMETERS.join(", "))]
    UnprintableParameter,
    /// A parameter is given twice.
    #[error("`{0}` is given twice")]
    Repeated(&'static str),
    /// `sslmode` has another value.
    #[error("`sslmode` is not disable, prefer, require, verify-ca or verify-full")]
    Mode,
    /// An authority is given, and certificates are not verified.
    #[error("`sslrootcert` is not used with this `sslmode`: set `sslmode=verify-full`")]
    UnusedAuthority,
    /// `verify-ca` without an authority.
    #[error("`sslmode=verify-ca` requires `sslrootcert`; set it, or `sslmode=verify-full`")]
    NoAuthority,
    /// `verify-ca` with authorities that issue certificates to anyone.
    #[error(
        "`sslmode=verify-ca` would also accept any certificate of the authorities that this system trusts: set \
         `sslmode=verify-full`, or the environment variable SSL_CERT_FILE to the file of `sslrootcert`"
    )]
    SystemAuthorities,
    /// A client certificate without its key, or a key without its certificate.
    #[error("`sslcert` and `sslkey` must be given together")]
    IncompleteClientCertificate,
    /// TLS over a Unix socket.
    #[error("connections to a socket do not use TLS: remove `sslmode`")]
    TlsOverSocket,
    /// A parameter contains a certificate or key instead of the name of a file.
    #[error("`{0}` must be the name of a file")]
    NotAFileName(&'static str),
    /// A file cannot be read.
    #[error("cannot read `{}` of `{parameter}`", .path.display())]
    File { parameter: &'static str, path: PathBuf, source: io::Error },
    /// A file contains no certificate, or a malformed one.
    #[error("`{}` of `sslrootcert` does not contain PEM certificates", .0.display())]
    NoCertificate(PathBuf),
    /// The private key can be read by others.
    #[error("`{path}` is accessible to group or others; run `chmod go= {path}`", path = .0.display())]
    KeyOpenToOthers(PathBuf),
}

/// A checked URL.
pub(super) struct PostgresUrl {
    /// The server, without user and password.
    pub(super) server: String,
    /// The URL for the driver.
    pub(super) url: String,
}

impl PostgresUrl {
    /// Checks a URL and the files that it names. Relative paths are relative to `folder`.
    pub(super) fn parse(text: &str, folder: &Path) -> Result<Self, PostgresUrlError> {
        let mut url = Url::parse(text).map_err(|_| PostgresUrlError::Malformed)?;
        let mut parameters = Parameters::of(&url)?;
        parameters.tls_mode()?;
        let options = PgConnectOptions::from_str(text).map_err(|_| PostgresUrlError::Malformed)?;
        // A password with an unescaped `/` is parsed as port and database.
        if options.get_database().is_some_and(|database| database.contains('@')) {
            return Err(PostgresUrlError::Malformed);
        }
        parameters.check_tls(folder, options.get_socket().is_some())?;
        if let Some(Host::Ipv6(address)) = url.host()
            && parameters.get("host").is_none()
        {
            // The driver does not remove the brackets.
            parameters.set("host", address.to_string());
        }
        if parameters.get("application_name").is_none() {
            parameters.set("application_name", APPLICATION_NAME.to_owned());
        }
        url.query_pairs_mut().clear().extend_pairs(parameters.0);
        let server = match options.get_socket() {
            Some(folder) => folder.display().to_string(),
            None => format!("{}:{}", options.get_host(), options.get_port()),
        };
        Ok(Self { server, url: url.into() })
    }
}

/// The parameters of a URL, each with one of the known names.
struct Parameters(Vec<(&'static str, String)>);

impl Parameters {
    fn of(url: &Url) -> Result<Self, PostgresUrlError> {
        let mut parameters = Self(Vec::new());
        for (name, value) in url.query_pairs() {
            let Some(known) = PARAMETERS.into_iter().find(|known| *known == name) else {
                // What follows an unescaped `&` or `?` in a password is parsed as a parameter.
                let is_password = url.query_pairs().any(|(name, _)| name == "password")
                    || !name.bytes().all(|byte| byte.is_ascii_lowercase() || matches!(byte, b'_' | b'-'));
                return Err(match is_password {
                    true => PostgresUrlError::UnprintableParameter,
                    false => PostgresUrlError::UnknownParameter {
                        nearest: most_similar(&name, PARAMETERS.into_iter()),
                        name: name.into_owned(),
                    },
                });
            };
            if parameters.get(known).is_some() {
                return Err(PostgresUrlError::Repeated(known));
            }
            parameters.0.push((known, value.into_owned()));
        }
        Ok(parameters)
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    fn set(&mut self, name: &'static str, value: String) {
        self.0.retain(|(known, _)| *known != name);
        self.0.push((name, value));
    }

    /// Returns the mode of the URL, or of the environment variable that the driver reads.
    fn tls_mode(&self) -> Result<Option<TlsMode>, PostgresUrlError> {
        let name = self.get("sslmode").map(str::to_owned).or_else(|| env::var("PGSSLMODE").ok());
        let Some(name) = name else { return Ok(None) };
        TlsMode::ALL.into_iter().find(|mode| mode.name() == name).map(Some).ok_or(PostgresUrlError::Mode)
    }

    /// Checks the parameters of TLS, and makes them explicit.
    fn check_tls(&mut self, folder: &Path, is_socket: bool) -> Result<(), PostgresUrlError> {
        let mode = match (self.tls_mode()?, is_socket) {
            (Some(TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull), true) => {
                return Err(PostgresUrlError::TlsOverSocket);
            }
            (_, true) => TlsMode::Disable,
            (mode, false) => mode.unwrap_or(TlsMode::Prefer),
        };
        self.set("sslmode", mode.name().to_owned());
        let authorities = self.open_file("sslrootcert", folder)?.map(read_authorities).transpose()?;
        match &authorities {
            Some(_) if !mode.verifies() => return Err(PostgresUrlError::UnusedAuthority),
            Some(trusted) if mode == TlsMode::VerifyCa && !trusts_only(trusted) => {
                return Err(PostgresUrlError::SystemAuthorities);
            }
            None if mode == TlsMode::VerifyCa => return Err(PostgresUrlError::NoAuthority),
            _ => {}
        }
        let certificate = self.open_file("sslcert", folder)?;
        let key = self.open_file("sslkey", folder)?;
        if certificate.is_some() != key.is_some() {
            return Err(PostgresUrlError::IncompleteClientCertificate);
        }
        match key {
            Some(path) if data_dir::group_or_world_mode_bits(&path).unwrap_or_default() != 0 => {
                Err(PostgresUrlError::KeyOpenToOthers(path))
            }
            _ => Ok(()),
        }
    }

    /// Makes the path of a file absolute, and checks that it can be read.
    fn open_file(
        &mut self,
        parameter: &'static str,
        folder: &Path,
    ) -> Result<Option<PathBuf>, PostgresUrlError> {
        let Some(path) = self.get(parameter) else { return Ok(None) };
        // The driver accepts the content too. A private key would appear in messages.
        if path.starts_with("-----") || path.contains('\n') {
            return Err(PostgresUrlError::NotAFileName(parameter));
        }
        let path = folder.join(path);
        let path = std::path::absolute(&path)
            .and_then(|path| File::open(&path).map(|_| path))
            .map_err(|source| PostgresUrlError::File { parameter, path, source })?;
        self.set(parameter, path.to_string_lossy().into_owned());
        Ok(Some(path))
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.server)
    }
}

/// Reads the certificates of authorities. The driver would accept a file without any.
fn read_authorities(path: PathBuf) -> Result<Vec<CertificateDer<'static>>, PostgresUrlError> {
    let certificates = CertificateDer::pem_file_iter(&path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(PostgresUrlError::NoCertificate(path)),
    }
}

/// Returns whether the driver, which trusts the authorities of the system too, trusts no others than these.
fn trusts_only(authorities: &[CertificateDer<'_>]) -> bool {
    rustls_native_certs::load_native_certs().certs.iter().all(|certificate| authorities.contains(certificate))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(url: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("empty.pem"), "").unwrap();
        let text = PostgresUrl::parse(url, folder.path()).expect_err(url).to_string();
        assert!(!text.contains("hunter2"), "{text}");
        text.replace(folder.path().to_str().unwrap(), "FOLDER")
    }

    #[test]
    fn url_that_the_driver_would_misread_is_refused() {
        let refused = [
            ("sslmod=verify-full", "unknown parameter `sslmod`; did you mean `sslmode`?"),
            ("ssl-mode=require", "unknown parameter `ssl-mode`; did you mean `sslmode`?"),
            ("hostaddr=10.0.0.1", "unknown parameter `hostaddr`; did you mean `host`?"),
            ("connect_timeout=3", "unknown parameter `connect_timeout`"),
            ("password=a&hunter2", "unknown parameter: the known ones are"),
            ("a@hunter2", "unknown parameter: the known ones are"),
            ("sslmode=require&sslmode=disable", "`sslmode` is given twice"),
            ("sslmode=allow", "`sslmode` is not disable, prefer"),
            ("sslmode=hunter2", "`sslmode` is not disable, prefer"),
            ("sslmode=VERIFY-FULL", "`sslmode` is not disable, prefer"),
            ("sslmode=verify-ca", "`sslmode=verify-ca` requires `sslrootcert`"),
            ("sslmode=verify-full&sslrootcert=no.pem", "cannot read `FOLDER/no.pem` of `sslrootcert`"),
            (
                "sslmode=verify-full&sslrootcert=empty.pem",
                "`FOLDER/empty.pem` of `sslrootcert` does not contain",
            ),
            ("sslkey=-----BEGIN%20hunter2", "`sslkey` must be the name of a file"),
            ("sslmode=require&sslcert=empty.pem", "`sslcert` and `sslkey` must be given together"),
            ("host=/run&sslmode=verify-full", "connections to a socket do not use TLS"),
        ];
        for (query, text) in refused {
            let url = format!("postgres://user@host/database?{query}");
            let found = error(&url);
            assert!(found.starts_with(text), "{query}: {found}");
        }
        for url in ["postgres://user:9/hunter2@host/database", "postgres://user:hunter2?a@host/database"] {
            assert!(error(url).starts_with("it is not"), "{}", error(url));
        }
    }

    #[test]
    fn driver_gets_explicit_parameters() {
        let folder = Path::new("/folder");
        let expected = [
            (
                "postgres://u@host/d",
                ("host:5432", "postgres://u@host/d?sslmode=prefer&application_name=keystile"),
            ),
            (
                "postgres://u@[::1]:1/d?application_name=a",
                ("[::1]:1", "postgres://u@[::1]:1/d?application_name=a&sslmode=prefer&host=%3A%3A1"),
            ),
            (
                "postgres://u@localhost/d?host=/run/postgresql",
                (
                    "/run/postgresql",
                    "postgres://u@localhost/d?host=%2Frun%2Fpostgresql&sslmode=disable&application_name=keystile",
                ),
            ),
        ];
        for (url, (server, driver)) in expected {
            let parsed = PostgresUrl::parse(url, folder).unwrap();
            assert_eq!((parsed.server.as_str(), parsed.url.as_str()), (server, driver));
        }
    }
}
