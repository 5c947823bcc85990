//! The settings of the control plane, from `keystile.toml` and the environment (`KEYSTILE_SECTION__NAME`).
//! `reference.toml` documents each setting.

mod duration;
mod issuers;
mod load;
mod networks;

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

pub use duration::ConfigDuration;
pub use issuers::{Issuer, KeySource, SignatureAlgorithm, is_allowed_url};
pub use load::{ConfigError, load, validate};
pub use networks::Networks;

/// The commented settings file that `keystile init` writes into the data folder.
pub const REFERENCE: &str = include_str!("reference.toml");

/// All settings.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub server: Server,
    pub store: Store,
    pub publisher: Publisher,
    pub tokens: Tokens,
    pub limits: Limits,
    pub audit: Audit,
    pub log: Log,
    pub issuers: Vec<Issuer>,
}

/// The listener and its limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    pub listen: SocketAddr,
    pub request_timeout: ConfigDuration,
    pub stop_timeout: ConfigDuration,
    pub head_timeout: ConfigDuration,
    pub idle_timeout: ConfigDuration,
    pub write_timeout: ConfigDuration,
    pub max_connections: u32,
    pub anonymous_connections: u32,
    pub connections_per_address: u32,
    pub requests_per_connection: u32,
    pub requests_per_second: u32,
    pub trusted_proxies: Networks,
}

/// The location of the database.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    pub url: String,
}

/// The bundle: its audience, lifetimes and compaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Publisher {
    pub audience: String,
    pub lifetime: ConfigDuration,
    pub resign: ConfigDuration,
    pub outage_grace: ConfigDuration,
    pub compact_after: u64,
}

/// The tokens that are issued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tokens {
    pub issuer: String,
    pub audience: String,
    pub algorithm: Algorithm,
    /// Allows tokens without an expiry, which are valid until they are revoked.
    pub allow_never: bool,
}

/// The limits of one operator; 0 means no limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    pub tokens_per_minute: u32,
    pub revocations_per_minute: u32,
    pub revocations: u64,
    pub auth_keys: u64,
    pub api_keys: u64,
    pub users: u64,
    pub roles: u64,
}

/// The audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Audit {
    pub retention: ConfigDuration,
}

/// The log on stderr.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    pub level: Level,
    pub format: Format,
}

/// The algorithm of new signing keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub enum Algorithm {
    #[serde(rename = "EdDSA")]
    #[value(name = "EdDSA")]
    EdDsa,
    #[serde(rename = "HS256")]
    #[value(name = "HS256")]
    Hs256,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    Text,
    Json,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8780)),
            request_timeout: ConfigDuration::from_secs(10),
            stop_timeout: ConfigDuration::from_secs(10),
            head_timeout: ConfigDuration::from_secs(10),
            idle_timeout: ConfigDuration::from_secs(60),
            write_timeout: ConfigDuration::from_secs(10),
            // 10,000 waiting edges, and their other requests.
            max_connections: 16_384,
            anonymous_connections: 4096,
            connections_per_address: 1024,
            requests_per_connection: 1000,
            requests_per_second: 200,
            trusted_proxies: Networks::default(),
        }
    }
}

impl Default for Store {
    fn default() -> Self {
        Self { url: "sqlite:keystile.db".to_owned() }
    }
}

/// Omits the URL, which may contain a password.
impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Store(..)")
    }
}

impl Default for Publisher {
    fn default() -> Self {
        Self {
            audience: "default".to_owned(),
            lifetime: ConfigDuration::from_secs(60),
            resign: ConfigDuration::from_secs(5),
            outage_grace: ConfigDuration::from_secs(900),
            compact_after: 20_000,
        }
    }
}

impl Default for Tokens {
    fn default() -> Self {
        Self {
            issuer: "https://keystile.local".to_owned(),
            audience: "api".to_owned(),
            algorithm: Algorithm::EdDsa,
            allow_never: false,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            tokens_per_minute: 1000,
            revocations_per_minute: 600,
            // About 700 KB in each worker of each edge.
            revocations: 100_000,
            auth_keys: 100,
            api_keys: 100_000,
            users: 100_000,
            roles: 1000,
        }
    }
}

impl Default for Audit {
    fn default() -> Self {
        Self { retention: ConfigDuration::from_secs(400 * 24 * 3600) }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: Level::Info, format: Format::Text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reference contains every setting, commented out, with its default.
    #[test]
    fn reference_matches_defaults() {
        let uncommented: String = REFERENCE
            .lines()
            .map(|line| match line.strip_prefix("# ") {
                Some(setting) if setting.split_once(" = ").is_some_and(|(key, _)| !key.contains(' ')) => {
                    setting
                }
                _ => line,
            })
            .map(|line| line.to_owned() + "\n")
            .collect();
        let stated: toml::Table = uncommented.parse().unwrap();
        let keys = |table: &toml::Table| -> Vec<(String, Vec<String>)> {
            let names = |section: &toml::Value| section.as_table().unwrap().keys().cloned().collect();
            // Lists are empty by default.
            let sections = table.iter().filter(|(_, content)| content.is_table());
            sections.map(|(section, content)| (section.clone(), names(content))).collect()
        };
        assert_eq!(keys(&stated), keys(&toml::Table::try_from(Config::default()).unwrap()));
        assert_eq!(stated.try_into::<Config>().unwrap(), Config::default());
    }
}
