use std::str::FromStr;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use token::api_key::{Kind, Prefix};

use super::{
    Failure, Global, confirmed, hint,
    paging::{Paging, more},
    show,
};
use crate::{
    clock::{self, Time},
    config::Period,
    model::{Actor, ApiKey, ApiKeyId, OperatorId, Paged, Subject},
    operations::{self, ApiKeyOrder, ApiKeyStanding, Authority, CreatedApiKey},
};

#[derive(Debug, Subcommand)]
pub(super) enum Key {
    /// Create an API key, which is shown once
    Create(Create),
    /// List the API keys
    List {
        /// Those of this operator only, or of this user: OPERATOR or OPERATOR/NAME
        #[arg(long, value_name = "SUBJECT")]
        of: Option<Subject>,
        #[command(flatten)]
        paging: Paging,
    },
    /// Show an API key, without the key itself
    Show { key: ApiKeyId },
    /// Refuse an API key until it is enabled again
    Disable {
        key: ApiKeyId,
        /// Disable without asking back
        #[arg(long)]
        yes: bool,
    },
    /// Admit a disabled API key again
    Enable { key: ApiKeyId },
    /// Refuse an API key for ever
    Delete {
        key: ApiKeyId,
        /// Delete without asking back
        #[arg(long)]
        yes: bool,
    },
    /// Replace an API key by one like it, which is shown once; or what keys are made with
    Rotate {
        /// key-NUMBER; `tag`: what new API keys are made with; `signing`: what tokens are signed with
        what: Rotated,
        /// Of key-NUMBER: what the client must send in `X-Username` with the new key; as before without it
        #[arg(long)]
        username: Option<String>,
        /// Of `tag`: new API keys are of the short form, some 70 characters instead of 140. Every edge then holds the
        /// secret that makes them, so whoever steals one edge can make the API key of any user, until
        /// `keystile key retire tag-NUMBER`. None is made for a root user
        #[arg(long)]
        short: bool,
        /// How long the old API key is still good, though never longer than it would have been
        #[arg(long, default_value = "24h", value_name = "PERIOD")]
        grace: Period,
        /// With --grace 0: refuse the old API key at once without asking back
        #[arg(long)]
        yes: bool,
    },
    /// Take a stolen key away at once, and refuse all that was made with it
    Retire {
        /// tag-NUMBER, or the `kid` of a signing key
        kid: String,
        /// Retire without asking back
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// Whose key it is: OPERATOR/NAME, or OPERATOR for its root user
    #[arg(long, value_name = "SUBJECT")]
    user: Subject,
    /// What the client must send in `X-Username`: the subject itself without it. For a user also NAME alone; for a root
    /// user '' (nothing) or another name, which no user may have: edges take the key for OPERATOR/NAME then
    #[arg(long)]
    username: Option<String>,
    /// What the key starts with
    #[arg(long, default_value = "ks_live_")]
    prefix: Prefix,
    /// A name for whoever reads the list
    #[arg(long)]
    name: Option<String>,
    /// A JSON object that is kept with the key
    #[arg(long, value_name = "JSON", value_parser = object)]
    metadata: Option<Value>,
    /// When it ends, from now, such as 90d; never without it
    #[arg(long, value_name = "PERIOD")]
    expires: Option<Period>,
}

/// What can be rotated.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rotated {
    ApiKey(ApiKeyId),
    Tag,
    Signing,
}

impl FromStr for Rotated {
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
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        match self {
            Self::Create(create) => create.run(global).await,
            Self::List { of, paging } => list(global, of, paging).await,
            Self::Show { key } => {
                let (key, standing) = operations::find_api_key(&global.service().await?, key).await?;
                global.print(&json(&key, standing), || text(&key, standing))
            }
            Self::Disable { key, yes } => {
                confirmed(yes, format_args!("refuse {key} until it is enabled again"))?;
                let service = global.service().await?;
                let version =
                    operations::disable_api_key(&service, &Actor::Admin, &Authority::Everything, key).await?;
                done(global, key, version, "disabled")
            }
            Self::Enable { key } => {
                let service = global.service().await?;
                let version =
                    operations::enable_api_key(&service, &Actor::Admin, &Authority::Everything, key).await?;
                done(global, key, version, "enabled")
            }
            Self::Delete { key, yes } => {
                confirmed(yes, format_args!("refuse {key} for ever"))?;
                let service = global.service().await?;
                let version =
                    operations::delete_api_key(&service, &Actor::Admin, &Authority::Everything, key).await?;
                done(global, key, version, "deleted")
            }
            Self::Rotate { what: Rotated::ApiKey(_) | Rotated::Signing, short: true, .. } => {
                Err(Failure::Because("--short is for `keystile key rotate tag`".to_owned()))
            }
            Self::Rotate { what: Rotated::Tag | Rotated::Signing, username: Some(_), .. } => {
                Err(Failure::Because("--username is for `keystile key rotate key-NUMBER`".to_owned()))
            }
            Self::Rotate { what: Rotated::ApiKey(key), username, grace, yes, .. } => {
                let grace = grace.get().as_secs();
                if grace == 0 {
                    confirmed(yes, format_args!("refuse {key} at once"))?;
                }
                let service = global.service().await?;
                let authority = Authority::Everything;
                let username = username.as_deref();
                let created =
                    operations::rotate_api_key(&service, &Actor::Admin, &authority, key, username, grace)
                        .await?;
                shown(global, &created)
            }
            Self::Rotate { what: Rotated::Tag, short, .. } => {
                let service = global.service().await?;
                let kind = if short { Kind::Short } else { Kind::Signed };
                let generation = operations::rotate_tag_key(&service, &Actor::Admin, kind).await?;
                let data = json!({ "generation": generation.number, "format": kind.name() });
                let kid = generation.kid();
                global.print(&data, || {
                    let what = if short { "of the short form" } else { "of format 2" };
                    format!("new API keys are {what}, made with {kid}; those there are stay good")
                })?;
                if short {
                    hint(format_args!(
                        "Every edge holds the secret of {kid}: whoever steals one can make the API key of any user, \
                         until `keystile key retire {kid}`. `keystile key rotate tag` goes back to format 2."
                    ));
                }
                Ok(())
            }
            Self::Rotate { what: Rotated::Signing, .. } => {
                let kid = operations::rotate_signing_key(&global.service().await?, &Actor::Admin).await?;
                global.print(&json!({ "kid": kid }), || {
                    format!("{kid} signs when every live edge knows it; tokens there are stay good until they expire")
                })?;
                hint(
                    "A server must run for that. Servers with key folders of their own need the new file there first.",
                );
                Ok(())
            }
            Self::Retire { kid, yes } => {
                confirmed(yes, format_args!("refuse all that was made with {kid}"))?;
                let service = global.service().await?;
                let version = operations::retire_key(&service, &Actor::Admin, &kid).await?;
                global.print(&json!({ "kid": kid, "version": version }), || format!("retired {kid}"))?;
                if let Some(file) = operations::retired_key_file(&service, &kid) {
                    hint(format_args!(
                        "The file of the key could not be deleted: delete `{}`. A server tries again once a minute.",
                        file.display()
                    ));
                }
                Ok(())
            }
        }
    }
}

impl Create {
    async fn run(self, global: &Global) -> Result<(), Failure> {
        let Self { user: owner, username, prefix, name, metadata, expires } = self;
        let expires_at = expires.map(|period| clock::now().plus(period.get()).seconds());
        let order = ApiKeyOrder { owner, username, prefix, name, metadata, expires_at };
        let created = operations::create_api_key(&global.service().await?, &Actor::Admin, order).await?;
        shown(global, &created)
    }
}

async fn list(global: &Global, of: Option<Subject>, paging: Paging) -> Result<(), Failure> {
    let (operator, user): (Option<OperatorId>, _) =
        of.map_or((None, None), |Subject { operator, user }| (Some(operator), user));
    let page = paging.page()?;
    let service = global.service().await?;
    let Paged { items: keys, next } =
        operations::list_api_keys(&service, operator.as_ref(), user.as_ref(), &page).await?;
    let data: Vec<Value> = keys.iter().map(|(key, standing)| json(key, *standing)).collect();
    global.print(&data, || {
        let rows = keys.iter().map(|(key, standing)| {
            [
                key.id.to_string(),
                standing.name().to_owned(),
                key.owner.to_string(),
                key.username.as_str().to_owned(),
                key.kind.name().to_owned(),
                show::time(Time::from_seconds(key.issued_at)),
                show::optional_seconds(key.expires_at),
                show::optional_seconds(key.last_used_at),
                key.name.clone().unwrap_or_default(),
            ]
        });
        show::table(
            ["KEY", "STANDING", "OWNER", "USERNAME", "FORMAT", "ISSUED", "EXPIRES", "LAST USED", "NAME"],
            rows.collect(),
        )
    })?;
    more(next.as_deref());
    Ok(())
}

fn shown(global: &Global, created: &CreatedApiKey) -> Result<(), Failure> {
    let CreatedApiKey { key, secret } = created;
    let mut data = json(key, ApiKeyStanding::Active);
    data["api_key"] = json!(secret.expose());
    global.print(&data, || {
        format!("{}\n\nAPI key      {}", text(key, ApiKeyStanding::Active), secret.expose())
    })?;
    hint("The API key is shown this once: keep it.");
    Ok(())
}

fn done(global: &Global, key: ApiKeyId, version: u64, what: &str) -> Result<(), Failure> {
    global.print(&json!({ "key_id": key.to_string(), "version": version }), || format!("{what} {key}"))
}

fn json(key: &ApiKey, standing: ApiKeyStanding) -> Value {
    json!({
        "key_id": key.id.to_string(),
        "standing": standing.name(),
        "owner": key.owner.to_string(),
        "username": key.username.as_str(),
        "subject": subject(key),
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

fn text(key: &ApiKey, standing: ApiKeyStanding) -> String {
    format!(
        "key          {}\nstanding     {}\nowner        {}\nusername     {}\nsubject      {}\nformat       {}, made with {}\nname         {}\nmetadata     {}\nissued       {}\nexpires      {}\nlast used    {}\nfingerprint  {}",
        key.id,
        standing.name(),
        key.owner,
        key.username.as_str(),
        subject(key),
        key.kind.name(),
        key.kid(),
        key.name.as_deref().unwrap_or_default(),
        key.metadata.as_ref().map(Value::to_string).unwrap_or_default(),
        show::time(Time::from_seconds(key.issued_at)),
        show::optional_seconds(key.expires_at),
        show::optional_seconds(key.last_used_at),
        key.fingerprint,
    )
}

/// What edges take it for.
fn subject(key: &ApiKey) -> String {
    match (key.kind, key.username.as_str()) {
        (Kind::Format1, "") => key.id.to_string(),
        (Kind::Format1, username) => username.to_owned(),
        _ => key.username.subject(&key.owner).to_string(),
    }
}

fn object(text: &str) -> Result<Value, String> {
    match serde_json::from_str(text) {
        Ok(value @ Value::Object(_)) => Ok(value),
        _ => Err("expected a JSON object".to_owned()),
    }
}
