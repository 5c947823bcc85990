//! Fetches JSON Web Key Sets, from a server, a file or the settings.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
    time::Duration,
};

use reqwest::{Certificate, Client, ClientBuilder, Response, StatusCode, header, redirect};
use token::Fingerprint;

use super::document::{DocumentKind, Json};
use crate::config::{Issuer, KeySource, is_allowed_url};

/// The limit of a request. No request of a client waits for it, as edges continue with the keys they have.
pub const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

/// The limit of a response. The largest sets of well-known providers, with certificates, are below 30 KiB.
const MAX_BODY_BYTES: usize = 256 * 1024;

/// The limit of an entity tag.
const MAX_ETAG_BYTES: usize = 256;

/// The number of characters of another issuer's name in an error.
const MAX_SHOWN_CHARS: usize = 200;

/// How many redirects are followed.
const MAX_REDIRECTS: usize = 3;

/// The refresh interval for a response without cache directives, like the default of native filters.
const DEFAULT_REFRESH_INTERVAL: Duration = Duration::from_secs(300);

/// Fetches key sets with a time limit and a size limit, and follows redirects on the same host only.
#[derive(Debug, Clone)]
pub struct Fetcher {
    client: Client,
    timeout: Duration,
}

/// The result of a fetch.
#[derive(Debug, PartialEq, Eq)]
pub enum FetchOutcome {
    /// The set has not changed.
    NotModified { fresh_for: Duration },
    /// A key set.
    Keys { body: Vec<u8>, tag: Option<String>, fresh_for: Duration },
}

impl Fetcher {
    /// Returns a fetcher with a time limit for each request.
    pub fn new(timeout: Duration) -> Result<Self, FetchError> {
        // The call fails if a provider was installed before, which is sufficient.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Ok(Self { client: builder(timeout).build().map_err(FetchError::Request)?, timeout })
    }

    /// Fetches the key set of an issuer. `etag` is the tag of the set that is known. Relative paths start in `folder`.
    pub async fn fetch(
        &self,
        issuer: &Issuer,
        folder: &Path,
        etag: Option<&str>,
    ) -> Result<FetchOutcome, FetchError> {
        let local = |body: Vec<u8>| {
            let tag = Fingerprint::digest(&body).to_string();
            let fresh_for = issuer.max_age.get();
            match etag == Some(&tag) {
                true => FetchOutcome::NotModified { fresh_for },
                false => FetchOutcome::Keys { body, tag: Some(tag), fresh_for },
            }
        };
        let client = self.client_for(issuer, folder)?;
        let url = match issuer.key_source() {
            KeySource::Settings(text) => return Ok(local(text.as_bytes().to_vec())),
            KeySource::File(path) => return read_file(&folder.join(path)).map(local),
            KeySource::Url(url) => url.to_owned(),
            KeySource::Discovery(url) => discover(&client, issuer, &url).await?,
        };
        if !is_allowed_url(&url, issuer.allow_http) {
            return Err(FetchError::InvalidUrl);
        }
        let mut request =
            client.get(&url).header(header::ACCEPT, "application/jwk-set+json, application/json");
        // A stored tag is preceded by its URL, as it is only valid there.
        let etag = etag.and_then(|etag| etag.strip_prefix(&format!("{url} ")));
        if let Some(etag) = etag {
            request = request.header(header::IF_NONE_MATCH, etag);
        }
        let response = request.send().await.map_err(FetchError::Request)?;
        let fresh_for = cache_lifetime(&response, issuer);
        if etag.is_some() && response.status() == StatusCode::NOT_MODIFIED {
            return Ok(FetchOutcome::NotModified { fresh_for });
        }
        let tag = response.headers().get(header::ETAG).and_then(|tag| tag.to_str().ok());
        let tag = tag.filter(|tag| tag.len() <= MAX_ETAG_BYTES).map(|tag| format!("{url} {tag}"));
        Ok(FetchOutcome::Keys { body: read_body(response).await?, tag, fresh_for })
    }

    /// Returns the client for an issuer. The file with its certificate authorities is read for each fetch, so that it can
    /// be replaced.
    fn client_for(&self, issuer: &Issuer, folder: &Path) -> Result<Client, FetchError> {
        let Some(path) = &issuer.ca_file else { return Ok(self.client.clone()) };
        let text = read_file(&folder.join(path)).map_err(|error| match error {
            FetchError::File(source) => FetchError::CaFile(source),
            other => other,
        })?;
        let certificates = Certificate::from_pem_bundle(&text).map_err(|_| FetchError::InvalidCaFile)?;
        if certificates.is_empty() {
            return Err(FetchError::InvalidCaFile);
        }
        builder(self.timeout).tls_certs_only(certificates).build().map_err(|_| FetchError::InvalidCaFile)
    }
}

fn builder(timeout: Duration) -> ClientBuilder {
    Client::builder()
        .user_agent(concat!("keystile/", env!("CARGO_PKG_VERSION")))
        .timeout(timeout)
        .redirect(redirect::Policy::custom(same_host_redirect))
}

/// Fetches the URL of the key set by discovery. The document must name the same issuer: OpenID Connect Discovery 1.0
/// section 4.3.
async fn discover(client: &Client, issuer: &Issuer, url: &str) -> Result<String, FetchError> {
    let response = client.get(url).send().await.map_err(FetchError::Request)?;
    let body = read_body(response).await?;
    let unexpected = |_| FetchError::Discovery(DocumentKind::of_text(&body));
    let json = Json::parse(&body).map_err(unexpected)?;
    let member = |name| json.text(name).filter(|_| !json.has_twice(name));
    let (Some(found), Some(url)) = (member("issuer"), member("jwks_uri")) else {
        return Err(FetchError::Discovery(DocumentKind::of_json(&json)));
    };
    if found != issuer.issuer {
        return Err(FetchError::OtherIssuer(found.chars().take(MAX_SHOWN_CHARS).collect()));
    }
    // An issuer with TLS must not refer to a URL without TLS, unless the settings permit it.
    if issuer.issuer.starts_with("https:") && !issuer.allow_http && !url.starts_with("https:") {
        return Err(FetchError::InvalidUrl);
    }
    Ok(url.to_owned())
}

/// Reads the file with the keys of an issuer, if it has any, to notice that it has changed. A file that cannot be read has
/// changed, too.
pub fn read_key_file(issuer: &Issuer, folder: &Path) -> Option<Vec<u8>> {
    match issuer.key_source() {
        KeySource::File(path) => Some(read_file(&folder.join(path)).unwrap_or_default()),
        _ => None,
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, FetchError> {
    let mut body = Vec::new();
    // A pipe would block.
    if !path.metadata().map_err(FetchError::File)?.is_file() {
        return Err(FetchError::File(io::Error::other("it is not a file")));
    }
    let max = u64::try_from(MAX_BODY_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    File::open(path).and_then(|file| file.take(max).read_to_end(&mut body)).map_err(FetchError::File)?;
    if body.len() > MAX_BODY_BYTES { Err(FetchError::TooLarge) } else { Ok(body) }
}

/// Why a key set could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The request failed.
    #[error("{}", request_failure(.0))]
    Request(reqwest::Error),
    /// The response has a status other than 200.
    #[error("status {}", .0.as_u16())]
    Status(StatusCode),
    /// The response exceeds the limit.
    #[error("more than {max} bytes", max = MAX_BODY_BYTES)]
    TooLarge,
    /// The discovery document is invalid.
    #[error("expected a discovery document with `issuer` and `jwks_uri`, got {}; {}", .0, .0.advice_for_discovery())]
    Discovery(DocumentKind),
    /// The discovery document names another issuer.
    #[error(
        "the discovery document has another `issuer`, `{}`; if its tokens have it as `iss`, set it as the `issuer`, \
         otherwise set `jwks_url`",
        .0.escape_debug()
    )]
    OtherIssuer(String),
    /// The URL of the key set is not allowed.
    #[error("`jwks_uri` is not an https URL; `allow_http = true` permits http")]
    InvalidUrl,
    /// The file with the keys cannot be read.
    #[error("cannot read `jwks_file`: {0}")]
    File(io::Error),
    /// The file with the certificate authorities cannot be read.
    #[error("cannot read `ca_file`: {0}")]
    CaFile(io::Error),
    /// The file has no certificate, or one that is invalid.
    #[error("`ca_file` has no valid certificate in PEM")]
    InvalidCaFile,
}

/// Returns the text of [`FetchError::Request`]. It omits the URL, which may have a confidential query.
fn request_failure(error: &reqwest::Error) -> &'static str {
    if is_about_certificate(error) {
        "the certificate of the server is not trusted, or is for another name; `ca_file` sets the certificate authorities"
    } else if error.is_timeout() {
        "no answer in time"
    } else if error.is_connect() {
        "no connection"
    } else if error.is_redirect() {
        "a redirect to another host, or too many"
    } else {
        "the response was cut off"
    }
}

fn is_about_certificate(error: &reqwest::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        // Libraries in between wrap the error of the TLS library, but keep its text.
        if error.to_string().contains("certificate") {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Follows redirects within an origin.
fn same_host_redirect(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let from = attempt.previous().last();
    let same = from.is_some_and(|from| from.origin() == attempt.url().origin());
    if same && attempt.previous().len() <= MAX_REDIRECTS {
        attempt.follow()
    } else {
        attempt.error("not followed")
    }
}

/// Reads a response with status 200.
async fn read_body(mut response: Response) -> Result<Vec<u8>, FetchError> {
    if response.status() != StatusCode::OK {
        return Err(FetchError::Status(response.status()));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(FetchError::Request)? {
        if body.len() + chunk.len() > MAX_BODY_BYTES {
            return Err(FetchError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Returns how long the issuer allows to cache the response (RFC 9111 section 5.2.2), within the limits of the settings.
fn cache_lifetime(response: &Response, issuer: &Issuer) -> Duration {
    let directives = response.headers().get_all(header::CACHE_CONTROL).into_iter();
    let directives: Vec<String> =
        directives.filter_map(|value| Some(value.to_str().ok()?.to_ascii_lowercase())).collect();
    let mut directives = directives.iter().flat_map(|value| value.split(',')).map(str::trim);
    let asked = directives.find_map(|directive| match directive {
        "no-cache" | "no-store" => Some(Duration::ZERO),
        _ => directive.strip_prefix("max-age=")?.trim_matches('"').parse().ok().map(Duration::from_secs),
    });
    let (min, max) = (issuer.min_age.get(), issuer.max_age.get());
    asked.unwrap_or(DEFAULT_REFRESH_INTERVAL).max(min).min(max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_and_loopback_urls_are_allowed() {
        for (url, allowed) in [
            ("https://idp.example/keys", true),
            ("http://127.0.0.1:8080/keys", true),
            ("http://[::1]:1/", true),
            ("http://localhost/", true),
            ("http://idp.example/keys", false),
            ("http://localhost.example/", false),
            ("http://127.0.0.1.example/", false),
            ("https://user@idp.example/", false),
            ("https://user:word@idp.example/", false),
            ("https://idp.example/#keys", false),
            ("file:///etc/passwd", false),
            ("idp.example", false),
            ("", false),
        ] {
            assert_eq!(is_allowed_url(url, false), allowed, "{url}");
        }
        for (url, allowed) in [
            ("http://idp.example/keys", true),
            ("http://user@idp.example/", false),
            ("ftp://idp.example/", false),
            ("file:///etc/passwd", false),
        ] {
            assert_eq!(is_allowed_url(url, true), allowed, "{url}");
        }
    }
}
