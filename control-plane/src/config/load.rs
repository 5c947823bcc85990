use std::{fs, io, path::Path, path::PathBuf};

use toml::{Table, Value};

use super::{Config, ConfigDuration};
use crate::platform::{
    redact,
    suggestion::{self, did_you_mean},
};

/// The prefix of the environment variables that override settings.
const ENV_PREFIX: &str = "KEYSTILE_";

/// Former names of settings, which are still accepted: section, former name, name.
const FORMER_NAMES: [(&str, &str, &str); 1] = [("publisher", "rebase_after", "compact_after")];

/// The maximum of `publisher.lifetime`, which bounds the delay of a revocation.
const MAX_LIFETIME: ConfigDuration = ConfigDuration::from_secs(3600);

/// Loads the settings: the defaults, overridden by the file, overridden by the environment.
///
/// # Errors
///
/// If the file cannot be read or parsed, or if a setting is unknown or invalid.
pub fn load(
    file: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<Config, ConfigError> {
    let defaults = Table::try_from(Config::default()).unwrap_or_default();
    let mut settings = match file {
        None => Table::new(),
        Some(path) => read_file(path, &defaults)?,
    };
    for (name, text) in environment {
        apply_env_var(&mut settings, &defaults, &name, text)?;
    }
    let config: Config = serde_path_to_error::deserialize(Value::Table(settings)).map_err(|error| {
        let message = redact::redact_value(error.inner().message(), "a table");
        ConfigError::Value { key: error.path().to_string(), message }
    })?;
    validate(&config)?;
    Ok(config)
}

/// The reason why the settings are invalid. Errors never quote values: one may be a password.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the settings file `{}`", .path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("`{}` line {line}: {message}", .path.display())]
    Syntax { path: PathBuf, line: usize, message: String },
    #[error("unknown setting `{key}`{}", did_you_mean(.nearest.as_deref()))]
    UnknownKey { key: String, nearest: Option<String> },
    #[error("setting `{key}`: {message}")]
    Value { key: String, message: String },
}

fn read_file(path: &Path, defaults: &Table) -> Result<Table, ConfigError> {
    let text = fs::read_to_string(path)
        .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    let mut settings: Table = text.parse().map_err(|error: toml::de::Error| ConfigError::Syntax {
        path: path.to_owned(),
        line: error.span().map_or(1, |span| text[..span.start].lines().count().max(1)),
        message: error.message().to_owned(),
    })?;
    for (section, former, name) in FORMER_NAMES {
        if let Some(Value::Table(content)) = settings.get_mut(section)
            && let Some(value) = content.remove(former)
            && content.insert(name.to_owned(), value).is_some()
        {
            return Err(ConfigError::Value {
                key: format!("{section}.{former}"),
                message: format!("is the former name of `{section}.{name}`, which is set too"),
            });
        }
    }
    for (section, content) in &settings {
        let known = match defaults.get(section) {
            Some(Value::Table(known)) => known,
            // A list: its items are checked when they are deserialized.
            Some(_) => continue,
            None => return Err(unknown_key(section.clone(), defaults.keys().cloned())),
        };
        if let Value::Table(content) = content
            && let Some(name) = content.keys().find(|name| !known.contains_key(*name))
        {
            return Err(unknown_key(format!("{section}.{name}"), setting_names(defaults)));
        }
    }
    Ok(settings)
}

/// Applies an environment variable: `KEYSTILE_SECTION__NAME` sets `section.name`. Ignores variables of other programs.
fn apply_env_var(
    settings: &mut Table,
    defaults: &Table,
    name: &str,
    text: String,
) -> Result<(), ConfigError> {
    let Some(key) = name.strip_prefix(ENV_PREFIX) else { return Ok(()) };
    let known = || setting_names(defaults).map(|key| env_var_name(&key));
    let Some((section, setting)) = key.split_once("__") else {
        // Other programs may use this prefix. Report only a setting that is written with one underscore too few.
        let intended = known().find(|known| known.replace("__", "_") == name);
        return intended.map_or(Ok(()), |intended| {
            Err(ConfigError::UnknownKey { key: name.to_owned(), nearest: Some(intended) })
        });
    };
    let (section, setting) = (section.to_ascii_lowercase(), setting.to_ascii_lowercase());
    let is_upper_case = env_var_name(&format!("{section}.{setting}")) == name;
    let former =
        FORMER_NAMES.iter().find(|(of, former, _)| (*of, *former) == (section.as_str(), setting.as_str()));
    let setting = former.map_or(setting, |(.., name)| (*name).to_owned());
    let exists =
        matches!(defaults.get(&section), Some(Value::Table(content)) if content.contains_key(&setting));
    if !exists || !is_upper_case {
        return Err(unknown_key(name.to_owned(), known()));
    }
    let wrong = |message: &str| ConfigError::Value {
        key: format!("{section}.{setting}"),
        message: message.to_owned(),
    };
    let value = match defaults.get(&section).and_then(|content| content.get(&setting)) {
        Some(Value::Integer(_)) => {
            text.trim().parse().map(Value::Integer).map_err(|_| wrong("expected a whole number"))?
        }
        Some(Value::Boolean(_)) => {
            text.trim().parse().map(Value::Boolean).map_err(|_| wrong("expected `true` or `false`"))?
        }
        Some(Value::Array(_)) => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Value::Array(items.map(|item| Value::String(item.to_owned())).collect())
        }
        // All other settings are strings in TOML.
        _ => Value::String(text),
    };
    let entry = settings.entry(section).or_insert_with(|| Value::Table(Table::new()));
    if let Value::Table(content) = entry {
        content.insert(setting, value);
    }
    Ok(())
}

/// Checks the ranges of the settings and their consistency.
///
/// # Errors
///
/// The first invalid setting.
pub fn validate(config: &Config) -> Result<(), ConfigError> {
    let refuse = |key: &str, message: &str| {
        Err(ConfigError::Value { key: key.to_owned(), message: message.to_owned() })
    };
    let Config { publisher, tokens, server, issuers, .. } = config;
    if publisher.audience.is_empty() || publisher.audience.len() > 64 {
        return refuse("publisher.audience", "expected 1 to 64 characters");
    }
    if publisher.resign.get().is_zero() {
        return refuse("publisher.resign", "must be greater than zero");
    }
    if publisher.lifetime <= publisher.resign {
        return refuse(
            "publisher.lifetime",
            "must be greater than publisher.resign; otherwise manifests expire before they are signed again",
        );
    }
    if publisher.lifetime > MAX_LIFETIME {
        return refuse(
            "publisher.lifetime",
            "must be at most `1h`: it bounds how long a disconnected edge misses a revocation",
        );
    }
    if tokens.issuer.is_empty() {
        return refuse("tokens.issuer", "expected a name, usually an https URL");
    }
    if tokens.audience.is_empty() {
        return refuse("tokens.audience", "expected a name");
    }
    if server.request_timeout.get().is_zero() {
        return refuse("server.request_timeout", "must be greater than zero");
    }
    for (key, period) in [
        ("server.head_timeout", server.head_timeout),
        ("server.idle_timeout", server.idle_timeout),
        ("server.write_timeout", server.write_timeout),
    ] {
        if period.get().is_zero() {
            return refuse(key, "must be greater than zero");
        }
    }
    for (key, connections) in [
        ("server.max_connections", server.max_connections),
        ("server.anonymous_connections", server.anonymous_connections),
        ("server.connections_per_address", server.connections_per_address),
    ] {
        if connections == 0 {
            return refuse(key, "expected at least 1");
        }
    }
    if server.anonymous_connections >= server.max_connections {
        return refuse(
            "server.anonymous_connections",
            "must be less than server.max_connections; the difference is reserved for edges",
        );
    }
    for (at, issuer) in issuers.iter().enumerate() {
        issuer.validate(&tokens.issuer, &issuers[..at]).map_err(|(member, message)| ConfigError::Value {
            key: format!("issuers[{at}].{member}"),
            message: message.to_owned(),
        })?;
    }
    Ok(())
}

fn unknown_key(key: String, known: impl Iterator<Item = String>) -> ConfigError {
    let nearest = suggestion::most_similar(&key, known);
    ConfigError::UnknownKey { key, nearest }
}

fn setting_names(defaults: &Table) -> impl Iterator<Item = String> {
    defaults.iter().flat_map(|(section, content)| {
        let names = content.as_table().into_iter().flat_map(Table::keys);
        names.map(move |name| format!("{section}.{name}"))
    })
}

fn env_var_name(key: &str) -> String {
    ENV_PREFIX.to_owned() + &key.to_ascii_uppercase().replace('.', "__")
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn loaded(toml: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(toml.as_bytes()).unwrap();
        let environment = environment.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        load(Some(file.path()), environment)
            .map_err(|error| error.to_string().replace(&*file.path().to_string_lossy(), "FILE"))
    }

    #[test]
    fn environment_overrides_file_and_file_overrides_defaults() {
        let file = "[server]\nlisten = '0.0.0.0:1'\n[publisher]\nlifetime = 30";
        let config =
            loaded(file, &[("KEYSTILE_SERVER__LISTEN", "127.0.0.1:0"), ("KEYSTILE_LOG__FORMAT", "json")])
                .unwrap();
        assert_eq!(config.server.listen.to_string(), "127.0.0.1:0");
        assert_eq!(config.publisher.lifetime, super::super::ConfigDuration::from_secs(30));
        assert_eq!(config.publisher.resign, Config::default().publisher.resign);
        assert_eq!(config.log.format, super::super::Format::Json);
    }

    #[test]
    fn numbers_and_lists_may_come_from_the_environment() {
        let config = loaded(
            "",
            &[
                ("KEYSTILE_PUBLISHER__COMPACT_AFTER", "0"),
                ("KEYSTILE_LIMITS__TOKENS_PER_MINUTE", "7"),
                ("KEYSTILE_SERVER__TRUSTED_PROXIES", "10.0.0.0/8, ::1"),
            ],
        )
        .unwrap();
        assert_eq!((config.publisher.compact_after, config.limits.tokens_per_minute), (0, 7));
        let trusted = |address: &str| config.server.trusted_proxies.contains(address.parse().unwrap());
        assert_eq!(["10.1.2.3", "::1", "11.0.0.1", "::2"].map(trusted), [true, true, false, false]);
    }

    #[test]
    fn former_names_are_accepted() {
        let file = "[publisher]\nrebase_after = 1";
        assert_eq!(loaded(file, &[]).unwrap().publisher.compact_after, 1);
        let variable = [("KEYSTILE_PUBLISHER__REBASE_AFTER", "2")];
        assert_eq!(loaded(file, &variable).unwrap().publisher.compact_after, 2);
        assert_eq!(
            loaded("[publisher]\nrebase_after = 1\ncompact_after = 1", &[]),
            Err("setting `publisher.rebase_after`: is the former name of `publisher.compact_after`, which is set too"
                .to_owned())
        );
    }

    #[test]
    fn every_setting_but_issuers_may_come_from_the_environment() {
        for (section, content) in Table::try_from(Config::default()).unwrap() {
            let Value::Table(content) = content else {
                assert_eq!(section, "issuers");
                continue;
            };
            for (name, default) in content {
                let variable = env_var_name(&format!("{section}.{name}"));
                let text = match default {
                    Value::String(text) => text,
                    Value::Array(items) if items.is_empty() => String::new(),
                    plain => plain.to_string(),
                };
                assert_eq!(loaded("", &[(&variable, &text)]).as_ref(), Ok(&Config::default()), "{variable}");
            }
        }
        let allowed = |text| loaded("", &[("KEYSTILE_TOKENS__ALLOW_NEVER", text)]);
        assert_eq!(allowed("true").map(|config| config.tokens.allow_never), Ok(true));
        assert_eq!(
            allowed("yes"),
            Err("setting `tokens.allow_never`: expected `true` or `false`".to_owned())
        );
    }

    /// A value must not be quoted even if it is in the wrong place or of the wrong type.
    #[test]
    fn errors_quote_no_value() {
        const URL: &str = "postgres://keystile:hunter2, expected u8@db/ks";
        let defaults = Table::try_from(Config::default()).unwrap();
        let mut refused = 0;
        let mut check = |file: &str, environment: &[(&str, &str)]| {
            // Many settings accept any string.
            if let Err(error) = loaded(file, environment) {
                refused += 1;
                assert!(!error.contains("hunter2") && !error.contains("struct "), "{file}: {error}");
            }
        };
        for (section, content) in &defaults {
            for value in [format!("'{URL}'"), format!("['{URL}']"), format!("{{ url = '{URL}' }}")] {
                check(&format!("{section} = {value}"), &[]);
                check(&format!("[[{section}]]\nissuer = {value}"), &[]);
                check(&format!("[[{section}]]\nissuer = 'https://a'\nalgorithms = {value}"), &[]);
                check(&format!("[[{section}]]\nissuer = 'https://a'\njwks_url = {value}"), &[]);
            }
            for name in content.as_table().into_iter().flat_map(Table::keys) {
                for value in [
                    format!("'{URL}'"),
                    format!("['{URL}']"),
                    format!("{{ a = '{URL}' }}"),
                    // Not valid TOML.
                    URL.to_owned(),
                    format!("'{URL}"),
                    format!("\"{URL}"),
                    format!("'x' {URL}"),
                    format!("\"\\{URL}\""),
                    format!("'''{URL}"),
                    format!("1 # {URL}\n{URL}"),
                    format!("[1, '{URL}'"),
                    format!("{{ '{URL}'"),
                    "-1".to_owned(),
                    "1.5".to_owned(),
                    "1979-05-27".to_owned(),
                ] {
                    check(&format!("[{section}]\n{name} = {value}"), &[]);
                }
                check("", &[(&env_var_name(&format!("{section}.{name}")), URL)]);
            }
        }
        assert!(refused > 400, "{refused}");
    }

    #[test]
    fn issuers_have_defaults() {
        let config = loaded(
            "[[issuers]]\nissuer = 'https://a.example/'\n[[issuers]]\nissuer = 'b'\njwks_url = 'http://[::1]/k'\nalgorithms = ['RS256']",
            &[],
        );
        let [a, b] = <[_; 2]>::try_from(config.unwrap().issuers).unwrap();
        assert_eq!(a.key_source().to_string(), "https://a.example/.well-known/openid-configuration");
        assert_eq!(
            (b.key_source().to_string().as_str(), b.algorithms.len(), a.algorithms.len()),
            ("http://[::1]/k", 1, 10)
        );
    }

    #[test]
    fn c6_key_sources_of_issuers_are_accepted() {
        for (issuer, source) in [
            (
                "issuer = 'http://a.example'\nallow_http = true",
                "http://a.example/.well-known/openid-configuration",
            ),
            ("issuer = 'b'\njwks_url = 'http://b.svc/keys'\nallow_http = true", "http://b.svc/keys"),
            ("issuer = 'c'\njwks_file = '/etc/keys.json'", "/etc/keys.json"),
            ("issuer = 'https://d/{tenant}'\njwks = '{}'", "`jwks` in the settings"),
            (
                "issuer = 'https://e/{tenant}'\njwks_url = 'https://e/keys'\nca_file = 'ca.pem'",
                "https://e/keys",
            ),
        ] {
            let config = loaded(&format!("[[issuers]]\n{issuer}"), &[]).unwrap();
            assert_eq!(config.issuers[0].key_source().to_string(), source);
        }
    }

    #[test]
    fn unrelated_variables_are_ignored() {
        assert_eq!(
            loaded("", &[("KEYSTILE_DATA", "x"), ("KEYSTILE_WASM", "y"), ("PATH", "z")]).unwrap(),
            Config::default()
        );
    }
}
