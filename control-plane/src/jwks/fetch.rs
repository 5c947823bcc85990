use std::{fmt, net::IpAddr, time::Duration};

use reqwest::{Client, Response, StatusCode, Url, header, redirect};
use serde::Deserialize;

use crate::config::Issuer;

/// Gets key sets: with a time limit, a size limit, and never from a host that was not asked.
#[derive(Debug, Clone)]
pub struct Fetcher {
    client: Client,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Fetched {
    /// It is the one that is known.
    NotModified {
        fresh_for: Duration,
    },
    Keys {
        body: Vec<u8>,
        tag: Option<String>,
        fresh_for: Duration,
    },
}

impl Fetcher {
    /// `patience` is for a whole answer.
    pub fn new(patience: Duration) -> Result<Self, FetchError> {
        // Fails when another was installed before, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .user_agent(concat!("keystile/", env!("CARGO_PKG_VERSION")))
            .timeout(patience)
            .redirect(redirect::Policy::custom(on_the_same_host))
            .build()
            .map_err(FetchError::Request)?;
        Ok(Self { client })
    }

    /// `known` is the tag of the set that is held.
    pub async fn fetch(&self, issuer: &Issuer, known: Option<&str>) -> Result<Fetched, FetchError> {
        let url = match &issuer.jwks_url {
            Some(url) => url.clone(),
            None => self.discover(issuer).await?,
        };
        if !is_allowed(&url) {
            return Err(FetchError::Place);
        }
        let mut request =
            self.client.get(&url).header(header::ACCEPT, "application/jwk-set+json, application/json");
        // A tag belongs to its URL.
        let known = known.and_then(|known| known.strip_prefix(&format!("{url} ")));
        if let Some(known) = known {
            request = request.header(header::IF_NONE_MATCH, known);
        }
        let response = request.send().await.map_err(FetchError::Request)?;
        let fresh_for = fresh_for(&response);
        if known.is_some() && response.status() == StatusCode::NOT_MODIFIED {
            return Ok(Fetched::NotModified { fresh_for });
        }
        let tag = response.headers().get(header::ETAG).and_then(|tag| tag.to_str().ok());
        let tag = tag.filter(|tag| tag.len() <= LONGEST_TAG).map(|tag| format!("{url} {tag}"));
        Ok(Fetched::Keys { body: whole(response).await?, tag, fresh_for })
    }

    /// OpenID Connect Discovery 1.0 section 4.3: the document must be of the issuer that was asked.
    async fn discover(&self, issuer: &Issuer) -> Result<String, FetchError> {
        #[derive(Deserialize)]
        struct Discovery {
            issuer: String,
            jwks_uri: String,
        }

        let response = self.client.get(issuer.start()).send().await.map_err(FetchError::Request)?;
        let found: Discovery =
            serde_json::from_slice(&whole(response).await?).map_err(|_| FetchError::Discovery)?;
        if found.issuer != issuer.issuer {
            return Err(FetchError::OtherIssuer);
        }
        // Who is reached through TLS must not lead to what is reached without.
        if issuer.issuer.starts_with("https:") && !found.jwks_uri.starts_with("https:") {
            return Err(FetchError::Place);
        }
        Ok(found.jwks_uri)
    }
}

/// https; http where nobody is in between.
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

/// Why there are no keys. The last good ones hold.
#[derive(Debug)]
pub enum FetchError {
    Request(reqwest::Error),
    Status(StatusCode),
    TooLarge,
    Discovery,
    OtherIssuer,
    Place,
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Without the URL: it is in the settings, and may have a query that is nobody's business.
            Self::Request(error) if error.is_timeout() => f.write_str("no answer in time"),
            Self::Request(error) if error.is_connect() => f.write_str("no connection"),
            Self::Request(error) if error.is_redirect() => {
                f.write_str("a redirect to another host, or too many")
            }
            Self::Request(_) => f.write_str("the answer broke off"),
            Self::Status(status) => write!(f, "status {}", status.as_u16()),
            Self::TooLarge => write!(f, "more than {LARGEST} bytes"),
            Self::Discovery => {
                f.write_str("the discovery document lacks `issuer` or `jwks_uri`, or is no JSON")
            }
            Self::OtherIssuer => f.write_str("the discovery document is of another `issuer`"),
            Self::Place => f.write_str("`jwks_uri` is no https URL"),
        }
    }
}

impl std::error::Error for FetchError {}

fn on_the_same_host(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let from = attempt.previous().last();
    let same = from.is_some_and(|from| from.origin() == attempt.url().origin());
    if same && attempt.previous().len() <= MOST_REDIRECTS {
        attempt.follow()
    } else {
        attempt.error("not followed")
    }
}

async fn whole(mut response: Response) -> Result<Vec<u8>, FetchError> {
    if response.status() != StatusCode::OK {
        return Err(FetchError::Status(response.status()));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(FetchError::Request)? {
        if body.len() + chunk.len() > LARGEST {
            return Err(FetchError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// What the issuer asks for, within reason (RFC 9111 section 5.2.2).
fn fresh_for(response: &Response) -> Duration {
    let directives = response.headers().get_all(header::CACHE_CONTROL).into_iter();
    let directives: Vec<String> =
        directives.filter_map(|value| Some(value.to_str().ok()?.to_ascii_lowercase())).collect();
    let mut directives = directives.iter().flat_map(|value| value.split(',')).map(str::trim);
    let asked = directives.find_map(|directive| match directive {
        "no-cache" | "no-store" => Some(Duration::ZERO),
        _ => directive.strip_prefix("max-age=")?.trim_matches('"').parse().ok().map(Duration::from_secs),
    });
    asked.unwrap_or(USUAL).clamp(SHORTEST, LONGEST)
}

/// Nobody waits for it: edges go on with the keys they have.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// The largest sets of known providers, with certificates in them, are below 30 KiB.
const LARGEST: usize = 256 * 1024;

const LONGEST_TAG: usize = 256;
const MOST_REDIRECTS: usize = 3;

/// Without a word from the issuer: a new key is found in as long as native filters take by default.
const USUAL: Duration = Duration::from_secs(300);
const SHORTEST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_and_loopback() {
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
