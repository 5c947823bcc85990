use std::str::FromStr;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use token::api_key::{Kind, Prefix};

use super::{
    CliError, Global, hint, output,
    paging::{Paging, print_next_page_hint},
    require_yes,
};
use crate::{
    config::ConfigDuration,
    credentials::api_keys::{self, ApiKeyStatus, CreateApiKey, CreatedApiKey},
    domain::UnixMillis,
    domain::{Actor, ApiKey, ApiKeyId, OperatorId, Page, Subject, Version},
    keys,
    platform::clock,
    revocation::AccessScope,
};

#[derive(Debug, Subcommand)]
pub(super) enum Key {
    /// Create an API key, which is shown once
    Create(Create),
    /// List the API keys
    List {
        /// List the keys of this operator or user only: OPERATOR or OPERATOR/NAME
        #[arg(long, value_name = "SUBJECT")]
        of: Option<Subject>,
        #[command(flatten)]
        paging: Paging,
    },
    /// Show the properties of an API key, not the key itself
    Show { key: ApiKeyId },
    /// Disable an API key until it is enabled again
    Disable {
        key: ApiKeyId,
        /// Confirm the command
        #[arg(long)]
        yes: bool,
    },
    /// Enable a disabled API key
    Enable { key: ApiKeyId },
    /// Delete an API key permanently
    Delete {
        key: ApiKeyId,
        /// Confirm the deletion
        #[arg(long)]
        yes: bool,
    },
    /// Replace an API key, the key that API keys are made with, or the key that signs tokens
    ///
    /// A new API key has the same properties and is shown once.
    Rotate {
        /// key-NUMBER (an API key), `tag` (the key that new API keys are made with), or `signing` (the key that signs
        /// tokens)
        what: KeyToRotate,
        /// For key-NUMBER: the `X-Username` that clients must send with the new key; by default as before
        #[arg(long)]
        username: Option<String>,
        /// For `tag`: make new API keys of the short form, about 70 characters instead of 140. Every edge then has
        /// the secret that makes them, so the thief of one edge can make an API key of any user, until `keystile key
        /// retire tag-NUMBER`. Root users get no keys of the short form
        #[arg(long)]
        short: bool,
        /// How long the old API key stays valid, at most until its own expiry
        #[arg(long, default_value = "24h", value_name = "PERIOD")]
        grace: ConfigDuration,
        /// With --grace 0: confirm that the old API key is revoked at once
        #[arg(long)]
        yes: bool,
    },
    /// Remove a stolen key at once and revoke all credentials made with it
    Retire {
        /// tag-NUMBER, or the `kid` of a signing key
        kid: String,
        /// Confirm the removal
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// The owner: OPERATOR/NAME, or OPERATOR for its root user
    #[arg(long, value_name = "SUBJECT")]
    user: Subject,
    /// The `X-Username` that clients must send; by default the subject. For a user, NAME alone is possible too. For a
    /// root user: use '' to create a key that needs no X-Username, or a name that no user has; the subject at the edge
    /// is then OPERATOR/NAME
    #[arg(long)]
    username: Option<String>,
    /// The prefix of the key
    #[arg(long, default_value = "ks_live_")]
    prefix: Prefix,
    /// A display name
    #[arg(long)]
    name: Option<String>,
    /// A JSON object that is stored with the key
    #[arg(long, value_name = "JSON", value_parser = parse_object)]
    metadata: Option<Value>,
    /// The time until the key expires, such as 90d; by default it does not expire
    #[arg(long, value_name = "PERIOD")]
    expires: Option<ConfigDuration>,
}

/// A key that can be rotated.
#[derive(Debug, Clone, Copy)]
pub(super) enum KeyToRotate {
    ApiKey(ApiKeyId),
    Tag,
    Signing,
}

impl FromStr for KeyToRotate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "tag" => Ok(Self::Tag),
            "signing" => Ok(Self::Signing),
            _ => text.parse().map(Self::ApiKey).map_err(|error| format!("{error}; or `tag` or `signing`")),
        }
    }
}

impl Key {
    pub(super) async fn run(self, global: &Global) -> Result<(), CliError> {
        match self {
            Self::Create(create) => create.run(global).await,
            Self::List { of, paging } => list(global, of, paging).await,
            Self::Show { key } => {
                let (key, status) = api_keys::find_api_key(&global.service().await?, key).await?;
                global.print(&key_json(&key, status), || key_text(&key, status))
            }
            Self::Disable { key, yes } => {
                require_yes(yes, format_args!("disable {key} until it is enabled again"))?;
                let service = global.service().await?;
                let version =
                    api_keys::disable_api_key(&service, &Actor::Admin, &AccessScope::Everything, key).await?;
                print_change(global, key, version, "disabled")
            }
            Self::Enable { key } => {
                let service = global.service().await?;
                let version =
                    api_keys::enable_api_key(&service, &Actor::Admin, &AccessScope::Everything, key).await?;
                print_change(global, key, version, "enabled")
            }
            Self::Delete { key, yes } => {
                require_yes(yes, format_args!("delete {key} permanently"))?;
                let service = global.service().await?;
                let version =
                    api_keys::delete_api_key(&service, &Actor::Admin, &AccessScope::Everything, key).await?;
                print_change(global, key, version, "deleted")
            }
            Self::Rotate { what: KeyToRotate::ApiKey(_) | KeyToRotate::Signing, short: true, .. } => {
                Err(CliError::Message("--short is for `keystile key rotate tag`".to_owned()))
            }
            Self::Rotate { what: KeyToRotate::Tag | KeyToRotate::Signing, username: Some(_), .. } => {
                Err(CliError::Message("--username is for `keystile key rotate key-NUMBER`".to_owned()))
            }
            Self::Rotate { what: KeyToRotate::ApiKey(key), username, grace, yes, .. } => {
                let grace = grace.get().as_secs();
                if grace == 0 {
                    require_yes(yes, format_args!("revoke {key} at once"))?;
                }
                let service = global.service().await?;
                let authority = AccessScope::Everything;
                let username = username.as_deref();
                let created =
                    api_keys::rotate_api_key(&service, &Actor::Admin, &authority, key, username, grace)
                        .await?;
                print_created_key(global, &created)
            }
            Self::Rotate { what: KeyToRotate::Tag, short, .. } => {
                let service = global.service().await?;
                let kind = if short { Kind::Short } else { Kind::Signed };
                let generation = api_keys::rotate_tag_key(&service, &Actor::Admin, kind).await?;
                let data = json!({ "generation": generation.number, "format": kind.name() });
                let kid = generation.kid();
                global.print(&data, || {
                    let what = if short { "of the short form" } else { "of format 2" };
                    format!("new API keys are {what}, made with {kid}; existing keys stay valid")
                })?;
                if short {
                    hint(format_args!(
                        "Every edge has the secret of {kid}: the thief of an edge can make an API key of any user, until \
                         `keystile key retire {kid}`. `keystile key rotate tag` returns to format 2."
                    ));
                }
                Ok(())
            }
            Self::Rotate { what: KeyToRotate::Signing, .. } => {
                let kid = keys::rotate_signing_key(&global.service().await?, &Actor::Admin).await?;
                global.print(&json!({ "kid": kid }), || {
                    format!("{kid} signs tokens once every live edge has it; existing tokens stay valid until they expire")
                })?;
                hint(
                    "This requires a running server. Servers with key folders of their own need the new key file first.",
                );
                Ok(())
            }
            Self::Retire { kid, yes } => {
                require_yes(yes, format_args!("revoke all credentials made with {kid}"))?;
                let service = global.service().await?;
                let version = keys::retire_key(&service, &Actor::Admin, &kid).await?;
                global.print(&json!({ "kid": kid, "version": version }), || format!("retired {kid}"))?;
                if let Some(file) = keys::retired_key_file(&service, &kid) {
                    hint(format_args!(
                        "The key file cannot be deleted: delete `{}`. A server retries once a minute.",
                        file.display()
                    ));
                }
                Ok(())
            }
        }
    }
}

impl Create {
    async fn run(self, global: &Global) -> Result<(), CliError> {
        let Self { user: owner, username, prefix, name, metadata, expires } = self;
        let expires_at = expires.map(|period| clock::now().plus(period.get()).seconds());
        let order = CreateApiKey { owner, username, prefix, name, metadata, expires_at };
        let created = api_keys::create_api_key(&global.service().await?, &Actor::Admin, order).await?;
        print_created_key(global, &created)
    }
}

async fn list(global: &Global, of: Option<Subject>, paging: Paging) -> Result<(), CliError> {
    let (operator, user): (Option<OperatorId>, _) =
        of.map_or((None, None), |Subject { operator, user }| (Some(operator), user));
    let page = paging.page()?;
    let service = global.service().await?;
    let Page { items: keys, next } =
        api_keys::list_api_keys(&service, operator.as_ref(), user.as_ref(), &page).await?;
    let data: Vec<Value> = keys.iter().map(|(key, status)| key_json(key, *status)).collect();
    global.print(&data, || {
        let rows = keys.iter().map(|(key, status)| {
            [
                key.id.to_string(),
                status.name().to_owned(),
                key.owner.to_string(),
                key.username.as_str().to_owned(),
                key.kind.name().to_owned(),
                output::format_time(UnixMillis::from_seconds(key.issued_at)),
                output::format_optional_seconds(key.expires_at),
                output::format_optional_seconds(key.last_used_at),
                key.name.clone().unwrap_or_default(),
            ]
        });
        output::table(
            ["KEY", "STANDING", "OWNER", "USERNAME", "FORMAT", "ISSUED", "EXPIRES", "LAST USED", "NAME"],
            rows.collect(),
        )
    })?;
    print_next_page_hint(next.as_deref());
    Ok(())
}

fn print_created_key(global: &Global, created: &CreatedApiKey) -> Result<(), CliError> {
    let CreatedApiKey { key, secret } = created;
    let mut data = key_json(key, ApiKeyStatus::Active);
    data["api_key"] = json!(secret.expose());
    global.print(&data, || {
        format!("{}\n\nAPI key      {}", key_text(key, ApiKeyStatus::Active), secret.expose())
    })?;
    hint("The API key is shown only once: store it.");
    Ok(())
}

fn print_change(global: &Global, key: ApiKeyId, version: Version, what: &str) -> Result<(), CliError> {
    global.print(&json!({ "key_id": key.to_string(), "version": version }), || format!("{what} {key}"))
}

fn key_json(key: &ApiKey, status: ApiKeyStatus) -> Value {
    json!({
        "key_id": key.id.to_string(),
        "standing": status.name(),
        "owner": key.owner.to_string(),
        "username": key.username.as_str(),
        "subject": key_subject(key),
        "prefix": key.prefix.as_str(),
        "name": key.name,
        "metadata": key.metadata,
        "fingerprint": key.fingerprint.to_string(),
        "format": key.kind.name(),
        "tag_generation": key.generation,
        "issued_at": key.issued_at,
        "expires_at": key.expires_at,
        "last_used_at": key.last_used_at,
    })
}

fn key_text(key: &ApiKey, status: ApiKeyStatus) -> String {
    format!(
        "key          {}\nstanding     {}\nowner        {}\nusername     {}\nsubject      {}\nformat       {}, made with {}\nname         {}\nmetadata     {}\nissued       {}\nexpires      {}\nlast used    {}\nfingerprint  {}",
        key.id,
        status.name(),
        key.owner,
        key.username.as_str(),
        key_subject(key),
        key.kind.name(),
        key.kid(),
        key.name.as_deref().unwrap_or_default(),
        key.metadata.as_ref().map(Value::to_string).unwrap_or_default(),
        output::format_time(UnixMillis::from_seconds(key.issued_at)),
        output::format_optional_seconds(key.expires_at),
        output::format_optional_seconds(key.last_used_at),
        key.fingerprint,
    )
}

/// Returns the subject that edges assign to the key.
fn key_subject(key: &ApiKey) -> String {
    match (key.kind, key.username.as_str()) {
        (Kind::Format1, "") => key.id.to_string(),
        (Kind::Format1, username) => username.to_owned(),
        _ => key.username.subject(&key.owner).to_string(),
    }
}

fn parse_object(text: &str) -> Result<Value, String> {
    match serde_json::from_str(text) {
        Ok(value @ Value::Object(_)) => Ok(value),
        _ => Err("expected a JSON object".to_owned()),
    }
}
