//! Fetches JSON Web Key Sets.

use std::{net::IpAddr, time::Duration};

use reqwest::{Client, Response, StatusCode, Url, header, redirect};
use serde::Deserialize;

use crate::config::Issuer;

/// The limit of a request. No request of a client waits for it, as edges continue with the keys they have.
pub const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

/// The limit of a response. The largest sets of well-known providers, with certificates, are below 30 KiB.
const MAX_BODY_BYTES: usize = 256 * 1024;

/// The limit of an entity tag.
const MAX_ETAG_BYTES: usize = 256;

/// How many redirects are followed.
const MAX_REDIRECTS: usize = 3;

/// The refresh interval for a response without cache directives, like the default of native filters.
const DEFAULT_REFRESH_INTERVAL: Duration = Duration::from_secs(300);

/// The limits of the refresh interval.
const MIN_REFRESH_INTERVAL: Duration = Duration::from_secs(60);
const MAX_REFRESH_INTERVAL: Duration = Duration::from_secs(24 * 3600);

/// Fetches key sets with a time limit and a size limit, and follows redirects on the same host only.
#[derive(Debug, Clone)]
pub struct Fetcher {
    client: Client,
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
        let client = Client::builder()
            .user_agent(concat!("keystile/", env!("CARGO_PKG_VERSION")))
            .timeout(timeout)
            .redirect(redirect::Policy::custom(same_host_redirect))
            .build()
            .map_err(FetchError::Request)?;
        Ok(Self { client })
    }

    /// Fetches the key set of an issuer. `etag` is the tag of the set that is known.
    pub async fn fetch(&self, issuer: &Issuer, etag: Option<&str>) -> Result<FetchOutcome, FetchError> {
        let url = match &issuer.jwks_url {
            Some(url) => url.clone(),
            None => self.discover(issuer).await?,
        };
        if !is_allowed(&url) {
            return Err(FetchError::InvalidUrl);
        }
        let mut request =
            self.client.get(&url).header(header::ACCEPT, "application/jwk-set+json, application/json");
        // A stored tag is preceded by its URL, as it is only valid there.
        let etag = etag.and_then(|etag| etag.strip_prefix(&format!("{url} ")));
        if let Some(etag) = etag {
            request = request.header(header::IF_NONE_MATCH, etag);
        }
        let response = request.send().await.map_err(FetchError::Request)?;
        let fresh_for = cache_lifetime(&response);
        if etag.is_some() && response.status() == StatusCode::NOT_MODIFIED {
            return Ok(FetchOutcome::NotModified { fresh_for });
        }
        let tag = response.headers().get(header::ETAG).and_then(|tag| tag.to_str().ok());
        let tag = tag.filter(|tag| tag.len() <= MAX_ETAG_BYTES).map(|tag| format!("{url} {tag}"));
        Ok(FetchOutcome::Keys { body: read_body(response).await?, tag, fresh_for })
    }

    /// Fetches the URL of the key set by discovery. The document must name the same issuer: OpenID Connect Discovery 1.0
    /// section 4.3.
    async fn discover(&self, issuer: &Issuer) -> Result<String, FetchError> {
        #[derive(Deserialize)]
        struct Discovery {
            issuer: String,
            jwks_uri: String,
        }

        let response =
            self.client.get(issuer.keys_or_discovery_url()).send().await.map_err(FetchError::Request)?;
        let found: Discovery =
            serde_json::from_slice(&read_body(response).await?).map_err(|_| FetchError::Discovery)?;
        if found.issuer != issuer.issuer {
            return Err(FetchError::OtherIssuer);
        }
        // An issuer with TLS must not refer to a URL without TLS.
        if issuer.issuer.starts_with("https:") && !found.jwks_uri.starts_with("https:") {
            return Err(FetchError::InvalidUrl);
        }
        Ok(found.jwks_uri)
    }
}

/// Returns whether keys may be fetched from a URL: with https, or with http from the loopback interface.
pub fn is_allowed(url: &str) -> bool {
    let Ok(url) = Url::parse(url) else { return false };
    let loopback = || {
        let host = url.host_str().unwrap_or_default();
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    };
    let plain = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    plain && url.host_str().is_some() && (url.scheme() == "https" || url.scheme() == "http" && loopback())
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
    #[error("the discovery document lacks `issuer` or `jwks_uri`, or is invalid JSON")]
    Discovery,
    /// The discovery document names another issuer.
    #[error("the discovery document has another `issuer`")]
    OtherIssuer,
    /// The URL of the key set is not allowed.
    #[error("`jwks_uri` is not an https URL")]
    InvalidUrl,
}

/// Returns the text of [`FetchError::Request`]. It omits the URL, which may have a confidential query.
fn request_failure(error: &reqwest::Error) -> &'static str {
    if error.is_timeout() {
        "no answer in time"
    } else if error.is_connect() {
        "no connection"
    } else if error.is_redirect() {
        "a redirect to another host, or too many"
    } else {
        "the response was cut off"
    }
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

/// Returns how long the issuer allows to cache the response (RFC 9111 section 5.2.2), within limits.
fn cache_lifetime(response: &Response) -> Duration {
    let directives = response.headers().get_all(header::CACHE_CONTROL).into_iter();
    let directives: Vec<String> =
        directives.filter_map(|value| Some(value.to_str().ok()?.to_ascii_lowercase())).collect();
    let mut directives = directives.iter().flat_map(|value| value.split(',')).map(str::trim);
    let asked = directives.find_map(|directive| match directive {
        "no-cache" | "no-store" => Some(Duration::ZERO),
        _ => directive.strip_prefix("max-age=")?.trim_matches('"').parse().ok().map(Duration::from_secs),
    });
    asked.unwrap_or(DEFAULT_REFRESH_INTERVAL).clamp(MIN_REFRESH_INTERVAL, MAX_REFRESH_INTERVAL)
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
            assert_eq!(is_allowed(url), allowed, "{url}");
        }
    }
}
