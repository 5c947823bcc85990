//! The test vectors of tests/data/vectors.json: requests, and what every host of Keystile has to do with them.
//!
//! A vector names a policy, which names a bundle. A runner configures a host once for each policy with
//! [`Vectors::configuration`], sends the requests, and compares the result with [`Expected`].

pub mod envoy;

use crate::tools;
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// The version of the format. It changes if a runner for an older version would misread the file.
pub const FORMAT: u32 = 1;

/// The content of the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vectors {
    pub format: u32,
    /// The time at which hosts are configured, and of vectors without their own, in milliseconds since the Unix epoch.
    pub clock_ms: u64,
    /// Bundles as the plugin configuration contains them.
    pub bundles: BTreeMap<String, String>,
    pub policies: BTreeMap<String, Policy>,
    pub vectors: Vec<Vector>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// The name of its bundle. `None`: the host must not have a bundle.
    pub bundle: Option<String>,
    /// The plugin configuration without the bundle.
    pub configuration: Value,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vector {
    pub name: String,
    pub policy: String,
    /// Whether the vector is valid only at its time. Without it, the vector is valid at any time until 2100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<Clock>,
    /// The time of the request in milliseconds since the Unix epoch, if it is not that of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_ms: Option<u64>,
    /// Whether an API that normalizes requests, such as that of Fetch, cannot carry the request as it is.
    #[serde(default, skip_serializing_if = "is_false")]
    pub raw: bool,
    pub request: Request,
    pub expected: Expected,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Clock {
    Injected,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    pub method: String,
    /// The path with the query.
    pub path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
    /// Lines `name: value` in the order in which they are sent.
    pub headers: Vec<Line>,
    /// The address of the client, as the host knows it. `None`: the vector does not depend on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_address: Option<String>,
}

/// A header, written as `name: value`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Line {
    pub name: String,
    pub value: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    pub decision: Decision,
    /// The code of a refusal, or of what report mode reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The response to a refused request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<Response>,
    /// What the upstream receives of a request that is not refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forwarded: Option<Forwarded>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    Admitted,
    Refused,
    /// Without an admitted credential: the rule is public or optional, the request is a preflight, or the mode is report.
    Passed,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<Line>,
    pub body: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Forwarded {
    pub path: String,
    pub headers: Vec<Line>,
}

impl Vectors {
    /// Reads the committed file.
    pub fn load() -> Result<Self> {
        let file = file();
        let text = std::fs::read_to_string(&file).with_context(|| format!("{}", file.display()))?;
        let vectors: Self = serde_json::from_str(&text).with_context(|| format!("{}", file.display()))?;
        ensure!(vectors.format == FORMAT, "{} has format {}", file.display(), vectors.format);
        Ok(vectors)
    }

    /// Returns the text of the file, which ends with a line feed.
    pub fn to_text(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// Returns the plugin configuration of a policy, with its bundle.
    pub fn configuration(&self, policy: &str) -> Result<Value> {
        let Policy { bundle, configuration } = self.policies.get(policy).context("an unknown policy")?;
        let mut configuration = configuration.clone();
        if let Some(bundle) = bundle {
            let bundle = self.bundles.get(bundle).with_context(|| format!("no bundle {bundle}"))?;
            configuration["bundle"] = bundle.as_str().into();
        }
        Ok(configuration)
    }

    /// Returns the time of a vector, in milliseconds since the Unix epoch.
    pub fn time_of(&self, vector: &Vector) -> u64 {
        vector.clock_ms.unwrap_or(self.clock_ms)
    }

    /// Returns the vectors of each policy, in the order of the file.
    pub fn by_policy(&self) -> BTreeMap<&str, Vec<&Vector>> {
        let mut groups: BTreeMap<&str, Vec<&Vector>> = BTreeMap::new();
        for vector in &self.vectors {
            groups.entry(&vector.policy).or_default().push(vector);
        }
        groups
    }
}

impl Request {
    /// Returns the headers as a filter receives them, beginning with the pseudo-headers.
    pub fn to_pairs(&self) -> Vec<(&str, &[u8])> {
        let pseudo = [
            (":method", Some(self.method.as_str())),
            (":path", Some(self.path.as_str())),
            (":authority", self.authority.as_deref()),
        ];
        let pseudo = pseudo.into_iter().filter_map(|(name, value)| Some((name, value?.as_bytes())));
        let headers = self.headers.iter().map(|Line { name, value }| (name.as_str(), value.as_bytes()));
        pseudo.chain(headers).collect()
    }

    /// Returns whether an API that normalizes requests would change this one: it joins headers of one name, writes methods
    /// in upper case, and parses the path as a URL.
    pub fn is_raw(&self) -> bool {
        let names: BTreeSet<&str> = self.headers.iter().map(|line| line.name.as_str()).collect();
        let (path, query) = self.path.split_once('?').unwrap_or((&self.path, ""));
        let is_changed =
            |segment: &str| matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..");
        let is_kept = |byte: u8| byte.is_ascii_graphic() && !b"\"<>\\^`{}|".contains(&byte);
        names.len() < self.headers.len()
            || self.authority.as_deref().is_none_or(|host| host.contains(['@', ' ']) || host.ends_with('.'))
            || self.method.bytes().any(|byte| !byte.is_ascii_uppercase())
            || self.method == "CONNECT"
            || path.split('/').any(is_changed)
            || !path.bytes().all(is_kept)
            || query.contains(['\'', '"', '<', '>', '#'])
            || path.contains('#')
            || !path.starts_with('/')
    }
}

impl Line {
    pub fn new(name: &str, value: impl Into<String>) -> Self {
        Self { name: name.into(), value: value.into() }
    }
}

impl TryFrom<String> for Line {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let (name, value) = text.split_once(": ").ok_or("a header has the form `name: value`")?;
        Ok(Self::new(name, value))
    }
}

impl From<Line> for String {
    fn from(Line { name, value }: Line) -> Self {
        format!("{name}: {value}")
    }
}

/// Returns the path of the file.
pub fn file() -> PathBuf {
    tools::root().join("tests/data/vectors.json")
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_false(value: &bool) -> bool {
    !*value
}
