use clap::Subcommand;
use serde_json::{Value, json};

use super::{CliError, Global, output};
use crate::{
    config,
    domain::Actor,
    issuers::IssuerRecord,
    issuers::{
        self, RefreshMode, RefreshOutcome,
        jwks::{FETCH_TIMEOUT, Fetcher, IssuerKey},
    },
};

#[derive(Debug, Subcommand)]
pub(super) enum Issuer {
    /// List the configured issuers with their keys and the result of the last fetch
    List,
    /// Fetch the keys of an issuer immediately
    Refresh {
        /// The issuer as in the settings
        issuer: String,
    },
}

impl Issuer {
    pub(super) async fn run(self, global: &Global) -> Result<(), CliError> {
        match self {
            Self::List => list(global).await,
            Self::Refresh { issuer } => refresh(global, &issuer).await,
        }
    }
}

async fn list(global: &Global) -> Result<(), CliError> {
    let issuers = issuers::list_issuers(&global.service().await?).await?;
    let data: Vec<Value> =
        issuers.iter().map(|(issuer, record)| issuer_json(issuer, record.as_ref())).collect();
    global.print(&data, || {
        let rows = issuers.iter().map(|(issuer, record)| {
            let record = record.as_ref();
            let keys = record.map(|record| record.keys.iter().map(IssuerKey::name).collect::<Vec<_>>());
            let keys = keys.filter(|keys| !keys.is_empty()).map_or("none".to_owned(), |keys| keys.join(", "));
            [
                issuer.issuer.clone(),
                output::format_optional_seconds(record.and_then(|record| record.fetched_at)),
                keys,
                record.map(|record| record.skipped.join("; ")).unwrap_or_default(),
                record.and_then(|record| record.error.clone()).unwrap_or_default(),
            ]
        });
        output::table(["ISSUER", "FETCHED", "KEYS", "LEFT OUT", "ERROR"], rows.collect())
    })
}

fn issuer_json(issuer: &config::Issuer, record: Option<&IssuerRecord>) -> Value {
    let keys = record.map(|record| &record.keys[..]).unwrap_or_default();
    let keys: Vec<Value> = keys.iter().map(|key| json!({ "kid": key.kid, "alg": key.alg })).collect();
    json!({
        "issuer": issuer.issuer,
        "from": issuer.key_source().to_string(),
        "keys": keys,
        "skipped": record.map(|record| &record.skipped[..]).unwrap_or_default(),
        "fetched_at": record.and_then(|record| record.fetched_at),
        "tried_at": record.and_then(|record| record.tried_at),
        "due_at": record.map(|record| record.due_at),
        "failures": record.map_or(0, |record| record.failures),
        "error": record.and_then(|record| record.error.as_deref()),
    })
}

async fn refresh(global: &Global, issuer: &str) -> Result<(), CliError> {
    let service = global.service().await?;
    let fetcher = Fetcher::new(FETCH_TIMEOUT)?;
    let done =
        issuers::refresh_issuer(&service, &fetcher, &Actor::Admin, issuer, RefreshMode::Immediately).await?;
    let (version, mut text) = match done {
        RefreshOutcome::Changed(version) => {
            (Some(version), format!("{issuer}: keys changed, published from version {version} on\n"))
        }
        RefreshOutcome::Same | RefreshOutcome::NotDue => (None, format!("{issuer}: keys unchanged\n")),
    };
    let issuers = issuers::list_issuers(&service).await?;
    let record = issuers.into_iter().find(|(known, _)| known.issuer == issuer).and_then(|(_, record)| record);
    let skipped = record.as_ref().map(|record| &record.skipped[..]).unwrap_or_default();
    for key in skipped {
        text += &format!("left out: {}\n", output::printable(key));
    }
    for cost in record.iter().flat_map(|record| &record.keys).filter_map(IssuerKey::cost) {
        text += &format!("note: {}\n", output::printable(&cost));
    }
    global.print(&json!({ "issuer": issuer, "version": version, "skipped": skipped }), || text)
}
