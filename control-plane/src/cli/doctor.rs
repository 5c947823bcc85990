use std::{net::SocketAddr, time::Duration};

use reqwest::{Client, redirect};
use serde::Serialize;
use serde_json::Value;
use token::api_key::Kind;

use super::{CliError, Global, error::describe, hint, output};
use crate::{
    config::{Config, Issuer},
    credentials::api_keys,
    db::StoreError,
    domain::{Generation, UnixMillis, UnixSeconds},
    edges::{self, EdgeState, EdgeStatus},
    issuers::{
        self, IssuerRecord,
        jwks::{IssuerKey, is_for_another_purpose},
    },
    keys::{
        self,
        publisher_keys::{PublisherKeys, RENEWAL_REMINDER, examine as examine_keys},
    },
    limits::{self, InstallationSize},
    maintenance,
    platform::{
        clock,
        data_dir::{self, DataDir},
    },
    publishing::{self, PublicationStatus, RecordedPublications},
    restore,
    service::{OpenError, Service},
};

/// The advice for an unreadable journal. An older copy would lack the revocations since.
const JOURNAL_ADVICE: &str = "check that keys/journal is readable, and never restore it from a backup. If a line \
    is damaged and the database was not restored since, move the file away; a server creates a new one. Otherwise \
    inspect and remove the line and revoke what it named, or move the file away and run `keystile restore --repair \
    --everything`";

const MAX_LISTED: usize = 5;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// Checks what the server needs, in the order of dependencies.
pub(super) async fn run(global: &Global) -> Result<(), CliError> {
    let mut findings = Vec::new();
    examine(global, &mut findings).await;
    global.print(&findings, || {
        findings
            .iter()
            .map(|finding| format!("{:5} {:10} {}\n", finding.state.name(), finding.what, finding.detail))
            .collect()
    })?;
    let failed = findings.iter().find(|finding| finding.state == State::Bad);
    let advice = failed.or(findings.iter().find(|finding| finding.state == State::Note));
    match advice.and_then(|finding| finding.advice.as_ref()) {
        Some(advice) => hint(format_args!("Next: {advice}")),
        None => hint("All checks passed."),
    }
    if failed.is_some() { Err(CliError::AlreadyReported) } else { Ok(()) }
}

#[derive(Debug, Serialize)]
struct Finding {
    what: &'static str,
    state: State,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Good,
    /// Nothing is broken, but an action is recommended.
    Note,
    Bad,
}

impl State {
    const fn name(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Note => "note",
            Self::Bad => "BAD",
        }
    }
}

/// Runs the checks. Stops at the first failure that makes the following checks meaningless.
async fn examine(global: &Global, findings: &mut Vec<Finding>) {
    let data_dir = global.data_dir();
    let advice_on_folder = match data_dir.exists() {
        true => "repair the data folder; restore lost keys from their backup, because edges trust no others",
        false => "create or repair the data folder: `keystile init` creates one",
    };
    if !add_finding(findings, "folder", check_data_dir(&data_dir), advice_on_folder) {
        return;
    }
    let settings = global.settings();
    let config = settings.as_ref().ok().cloned();
    let loaded = settings.map(|_| "valid".to_owned()).map_err(|error| describe(&error));
    add_finding(findings, "settings", loaded, "correct the setting");
    let Some(config) = config else { return };
    // Report every missing key file, not only the first one that a command needs.
    let opened = match examine_keys(&data_dir) {
        Ok(_) => Service::attach_unmerged(data_dir.clone(), config.clone()).await,
        Err(error) => Err(OpenError::Keys(error)),
    };
    let service = match opened {
        Ok(service) => service,
        Err(error) => {
            add_finding(findings, "store", Err(describe(&error)), advice_on_open_error(&error, &data_dir));
            return;
        }
    };
    let written = service
        .check_writable()
        .await
        .map_err(|error| format!("cannot write to the database: {}", describe(&error)));
    let written = written.map(|()| {
        format!("{:?}, schema is current, database is writable, keys are readable", service.store_engine())
    });
    add_finding(findings, "store", written, "free disk space, and check that the database is writable");
    findings.push(check_journal(&service).await);
    let signed = publishing::preview(&service).await.map_err(|error| describe(&error));
    let signed = signed.map(|publication| format!("version {} signed and verified", publication.version));
    add_finding(findings, "publisher", signed, "restore the keys and the database from the same backup");
    findings.push(check_publisher_keys(&data_dir, &config));
    findings.push(check_api_keys(&service).await);
    findings.push(check_limits(&service, &config).await);
    findings.push(check_clock(&service).await);
    let round = keys::self_test_signing_key(&service).map(|()| "a token was signed and verified".to_owned());
    add_finding(findings, "tokens", round.map_err(|error| describe(&error)), "restore the signing key");
    findings.push(check_edges(&service).await);
    findings.extend(check_issuers(&service).await);
    let held = keys::symmetric_keys(&service).await.map(|keys| match keys.as_slice() {
        [] => "edges hold no key that can create credentials".to_owned(),
        keys => format!(
            "edges hold keys that can create credentials for any user: {}; if an edge is stolen, run `keystile edge \
             remove` for it and `keystile key retire` for each key",
            keys.join(", ")
        ),
    });
    add_finding(
        findings,
        "edge keys",
        held.map_err(|error| describe(&error)),
        "check that the database is readable",
    );
    let connections = service
        .check_connections()
        .await
        .map(|number| format!("{number} connections to the database at once, as a server opens them"));
    add_finding(
        findings,
        "sessions",
        connections.map_err(|error| describe(&error)),
        "raise the limit of connections of the database or of its role; each server opens as many",
    );
    findings.push(check_server_responds(&service, &config).await);
}

/// Reports edges that do not receive or do not accept new bundles.
async fn check_edges(service: &Service) -> Finding {
    let what = "edges";
    let list = match edges::list_all_edges(service).await {
        Ok(list) => list,
        Err(error) => return Finding { what, state: State::Bad, detail: describe(&error), advice: None },
    };
    let names = |of: &dyn Fn(&EdgeStatus) -> bool| {
        let names = list.edges.iter().filter(|status| of(status)).map(|status| status.edge.id.as_str());
        names.collect::<Vec<_>>().join(", ")
    };
    let stale = names(&|status| status.state == EdgeState::Stale);
    let overdue = names(&|status| status.state == EdgeState::Live && list.is_overdue(status));
    let mut detail = Vec::new();
    if !stale.is_empty() {
        detail.push(format!("stale, because they receive no newer bundle: {stale}"));
    }
    if !overdue.is_empty() {
        detail.push(format!("behind for longer than the lifetime of a manifest: {overdue}"));
    }
    if detail.is_empty() {
        let live = list.edges.iter().filter(|status| status.state == EdgeState::Live).count();
        let detail = format!("{} enrolled, {live} live", list.edges.len());
        return Finding { what, state: State::Good, detail, advice: None };
    }
    let advice = "read the logs of these edges: possible causes are a proxy in front of the control plane with a timeout \
                  below `wait_seconds`, other `root_keys`, or a wrong clock";
    Finding { what, state: State::Note, detail: detail.join("; "), advice: Some(advice.to_owned()) }
}

/// Reports what is wrong with the keys of each issuer.
async fn check_issuers(service: &Service) -> Vec<Finding> {
    let what = "issuer";
    match issuers::list_issuers(service).await {
        Ok(issuers) => issuers.iter().map(|(issuer, record)| check_issuer(issuer, record.as_ref())).collect(),
        Err(error) => {
            let advice = Some("check that the database is readable".to_owned());
            vec![Finding { what, state: State::Bad, detail: describe(&error), advice }]
        }
    }
}

fn check_issuer(issuer: &Issuer, record: Option<&IssuerRecord>) -> Finding {
    let what = "issuer";
    let name = &issuer.issuer;
    let refresh = format!("`keystile issuer refresh {name}` tries again");
    let Some(record) = record.filter(|record| record.tried_at.is_some()) else {
        return Finding {
            what,
            state: State::Note,
            detail: format!("{name}: its keys have not been fetched yet"),
            advice: Some("start the server, which fetches the keys of issuers: `keystile serve`".to_owned()),
        };
    };
    let error = record.error.as_ref();
    if record.keys.is_empty() {
        let error = error.map_or("they have not been fetched yet", String::as_str);
        let detail = format!("{name}: no keys, so all of its tokens are refused: {error}");
        let advice = format!("correct the server of the issuer or its section [[issuers]]; {refresh}");
        return Finding { what, state: State::Bad, detail: output::printable(&detail), advice: Some(advice) };
    }
    let keys: Vec<String> = record.keys.iter().map(IssuerKey::name).collect();
    let mut detail = format!("{name}: {} usable keys: {}", keys.len(), keys.join(", "));
    let mut advice = None;
    if !record.skipped.is_empty() {
        detail.push_str(&format!("; left out: {}", record.skipped.join("; ")));
        if !record.skipped.iter().all(|key| is_for_another_purpose(key)) {
            advice =
                Some(format!("tokens of the keys of {name} that are left out are refused: see the reasons"));
        }
    }
    for cost in record.keys.iter().filter_map(IssuerKey::cost) {
        detail.push_str(&format!("; {cost}"));
    }
    if issuer.allow_http {
        detail.push_str("; fetched without TLS (`allow_http`)");
        advice = Some(format!(
            "use https for {name}, with `ca_file` if its certificate is of a private authority: an attacker who \
             controls the network can have any token of the issuer accepted"
        ));
    }
    if let Some(error) = error {
        let fetched = output::format_optional_seconds(record.fetched_at);
        detail.push_str(&format!("; the last fetch failed, the keys are those of {fetched}: {error}"));
        advice = Some(format!("correct the server of the issuer or its section [[issuers]]; {refresh}"));
    }
    let state = if advice.is_some() { State::Note } else { State::Good };
    Finding { what, state, detail: output::printable(&detail), advice }
}

/// Checks that the database contains all revocations and deletions of the journal.
async fn check_journal(service: &Service) -> Finding {
    let what = "journal";
    let bad = |detail: String, advice: &str| Finding {
        what,
        state: State::Bad,
        detail,
        advice: Some(advice.to_owned()),
    };
    match restore::examine_service(service).await {
        Err(error) => bad(describe(&error), JOURNAL_ADVICE),
        Ok(examined) if examined.needs_repair() => bad(
            "the database is older than the journal, so it was restored from a backup".to_owned(),
            "`keystile restore --repair`",
        ),
        Ok(examined) => match examined.missing {
            None => Finding {
                what,
                state: State::Good,
                detail: "no journal yet; a running server creates it".to_owned(),
                advice: None,
            },
            Some(missing) if !missing.has_no_refusals() => bad(
                "the journal has entries that the database lacks".to_owned(),
                "start `keystile serve` or run `keystile restore --repair`: both merge the journal",
            ),
            Some(_) => match service.journal().check_writable() {
                Ok(()) => Finding {
                    what,
                    state: State::Good,
                    detail: "the database contains all entries of the journal".to_owned(),
                    advice: None,
                },
                Err(error) => bad(describe(&error), "check that the file is writable"),
            },
        },
    }
}

/// Checks whether the root key has to sign a new delegation soon.
fn check_publisher_keys(data_dir: &DataDir, config: &Config) -> Finding {
    let what = "authority";
    match examine_keys(data_dir).and_then(|_| PublisherKeys::open(data_dir, &config.publisher.audience)) {
        Ok(authority) => {
            let delegation = &authority.delegation;
            let ends = UnixMillis::from_millis(delegation.expires_at());
            let soon = clock::now().plus(RENEWAL_REMINDER) >= ends;
            Finding {
                what,
                state: if soon { State::Note } else { State::Good },
                detail: format!("epoch {}, delegated until {}", delegation.epoch(), output::format_time(ends)),
                advice: soon.then(|| {
                    "run `keystile authority renew`: edges reject all manifests after the delegation expires".to_owned()
                }),
            }
        }
        Err(error) => Finding {
            what,
            state: State::Bad,
            detail: describe(&error),
            advice: Some(
                "restore the keys from their backup, or create new ones with `keystile authority`".to_owned(),
            ),
        },
    }
}

/// Reports which API keys the thief of an edge could create.
async fn check_api_keys(service: &Service) -> Finding {
    let what = "API keys";
    let remaining = match api_keys::remaining_api_keys(service).await {
        Ok(remaining) => remaining,
        Err(error) => {
            let advice = Some("check that the database is not damaged".to_owned());
            return Finding { what, state: State::Bad, detail: describe(&error), advice };
        }
    };
    let [signed, short, format1] = Kind::ALL.map(|kind| remaining.count_of_kind(kind));
    let symmetric: Vec<String> = remaining.symmetric().map(Generation::kid).collect();
    let mut detail = format!("{signed} of format 2, {short} of the short form, {format1} of format 1");
    let mut advice = None;
    if remaining.made_here == Some(false) {
        detail.push_str("; the key file for new ones is missing here");
        advice = Some(
            "create API keys where the file is, or start a new generation here: `keystile key rotate tag`"
                .to_owned(),
        );
    }
    if !symmetric.is_empty() {
        let kids = symmetric.join(", ");
        detail.push_str(&format!("; every edge has the secret of {kids}, which can create API keys"));
        advice = Some(format!(
            "replace the keys that `keystile key list` shows with format 1 or short: run `keystile key rotate tag` for \
             new keys, `keystile key rotate key-NUMBER` for each, then `keystile key retire` for {kids}"
        ));
    }
    let state = if advice.is_some() { State::Note } else { State::Good };
    Finding { what, state, detail, advice }
}

/// Reports the revocations that edges hold, and whether an operator has nearly used up its share.
async fn check_limits(service: &Service, config: &Config) -> Finding {
    let what = "limits";
    let share = config.limits.revocations;
    match limits::count_installation(service).await {
        Ok(InstallationSize { operators, revocations, largest }) => {
            let most = largest.as_ref().map_or(String::new(), |(operator, held)| {
                let of = if share == 0 { String::new() } else { format!(" of {share}") };
                format!("; {operator} has the most: {held}{of} through the API")
            });
            let much = largest.filter(|(_, held)| share > 0 && *held >= share - share / 5);
            Finding {
                what,
                state: if much.is_some() { State::Note } else { State::Good },
                detail: format!("{revocations} revocations of {operators} operators{most}"),
                advice: much.map(|(operator, _)| {
                    format!(
                        "check in `keystile audit` which callers revoke credentials of {operator}; above limits.revocations, \
                         revoking a token revokes everything its AuthKey was exchanged for until then"
                    )
                }),
            }
        }
        Err(error) => Finding { what, state: State::Bad, detail: describe(&error), advice: None },
    }
}

/// Compares the clock with another clock, and reports watermarks, base coverage and gaps in the future.
async fn check_clock(service: &Service) -> Finding {
    let what = "clock";
    let bad =
        |detail, advice: &str| Finding { what, state: State::Bad, detail, advice: Some(advice.to_owned()) };
    let confirmed = match maintenance::check_clock(service).await {
        Ok(confirmed) => confirmed,
        Err(error @ maintenance::ClockError::Store(_)) => {
            return bad(describe(&error), "check that the database is not damaged");
        }
        Err(error) => return bad(describe(&error), "correct the clock of this machine or the other one"),
    };
    match maintenance::instants_ahead(service).await {
        Ok(ahead) if ahead.is_empty() => {
            let by = match confirmed {
                maintenance::ClockConfirmation::Confirmed => "no other clock disagrees",
                maintenance::ClockConfirmation::NoOtherClock => "no other clock to compare with",
            };
            let detail = format!("{by}; no watermark, base coverage or gap is in the future");
            Finding { what, state: State::Good, detail, advice: None }
        }
        Ok(ahead) => {
            let describe = |(what, second): &(String, UnixSeconds)| {
                format!("{what} until {}", output::format_time(UnixMillis::from_seconds(*second)))
            };
            let mut list: Vec<String> = ahead.iter().take(MAX_LISTED).map(describe).collect();
            if ahead.len() > MAX_LISTED {
                list.push(format!("and {} more", ahead.len() - MAX_LISTED));
            }
            let detail = format!("the clock was ahead earlier or is behind now: {}", list.join(", "));
            bad(detail, "compare the clock with another one, then run `keystile clock repair`")
        }
        Err(error) => bad(describe(&error), "check that the database is not damaged"),
    }
}

/// Returns the advice for an error on opening. If keys exist, a database existed too, and a new one would lack its
/// revocations.
fn advice_on_open_error(error: &OpenError, data_dir: &DataDir) -> &'static str {
    match error {
        OpenError::Store(StoreError::Missing { .. }) if data_dir.has_keys() => {
            "restore the database from its backup; a new one contains neither the revocations nor any AuthKey"
        }
        OpenError::Store(StoreError::Missing { .. }) => "`keystile init` creates the database",
        OpenError::Store(StoreError::SchemaOlder) => "back up the database, then start `keystile serve`",
        OpenError::Store(StoreError::SchemaNewer) => {
            "run the version of Keystile that last served it, or a later one"
        }
        OpenError::Store(_) => {
            "check that the database is reachable and not damaged; restore a damaged one from its backup"
        }
        OpenError::NoDataDir { .. } | OpenError::Keys(_) => {
            "restore the keys of this database from their backup, because edges trust no others. If the database was \
             restored, run `keystile restore --repair`"
        }
        OpenError::Journal(_) => JOURNAL_ADVICE,
        OpenError::JournalNotMerged => "start `keystile serve`, or run `keystile restore --repair`",
        OpenError::Merge { .. } => "`keystile serve` retries",
    }
}

fn check_data_dir(data_dir: &DataDir) -> Result<String, String> {
    if !data_dir.exists() {
        return Err(format!("`{}` does not exist", data_dir.path().display()));
    }
    let mut private = vec![data_dir.path().to_owned(), data_dir.keys()];
    let keys = data_dir.keys();
    let files =
        std::fs::read_dir(&keys).map_err(|error| format!("`{}`: {}", keys.display(), describe(&error)))?;
    private.extend(files.filter_map(|file| Some(file.ok()?.path())));
    let others = [data_dir.path().join("keystile.db"), data_dir.config_file()];
    private.extend(others.into_iter().filter(|file| file.exists()));
    for path in private {
        if data_dir::group_or_world_mode_bits(&path)
            .map_err(|error| format!("`{}`: {}", path.display(), describe(&error)))?
            != 0
        {
            return Err(format!(
                "`{0}` is accessible to group or others; run `chmod go= {0}`",
                path.display()
            ));
        }
    }
    Ok(format!("`{}` and its keys are private", data_dir.path().display()))
}

/// Checks the server at `server.listen`. A server that does not run is a note; one of another installation is a
/// failure.
async fn check_server_responds(service: &Service, config: &Config) -> Finding {
    let address = config.server.listen;
    let what = "server";
    let answers = async {
        // The client needs a provider although it uses no TLS. The call fails if one was installed before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .timeout(REQUEST_TIMEOUT)
            .no_proxy()
            .redirect(redirect::Policy::none())
            .build()?;
        reqwest::Result::Ok((
            get_from_server(&client, address, "/readyz").await?,
            get_from_server(&client, address, "/healthz").await?,
        ))
    };
    let (ready, health) = match answers.await {
        Ok(answers) => answers,
        Err(_) => {
            let advice = Some("start the server: `keystile serve`".to_owned());
            return Finding {
                what,
                state: State::Note,
                detail: format!("no server responds on {address}"),
                advice,
            };
        }
    };
    let bad = |detail: String, advice: &str| Finding {
        what,
        state: State::Bad,
        detail,
        advice: Some(advice.to_owned()),
    };
    let own = service.installation();
    match health.body["installation"].as_str() {
        Some(found) if Some(found) == own => {}
        found => {
            let (found, own) = (found.unwrap_or("unknown"), own.unwrap_or("unknown"));
            return bad(
                format!(
                    "the server on {address} belongs to another installation ({found}; this one is {own})"
                ),
                "check the data folder and store.url of that server, or correct server.listen here",
            );
        }
    }
    if ready.status != 200 {
        let code = ready.body["code"].as_str().unwrap_or("no reason given");
        return bad(format!("the server on {address} is not ready: {code}"), "read the server's log");
    }
    // A recent commit may not be published yet: wait for it.
    let publishing = RecordedPublications::new(service);
    let latest = publishing.latest_version().await.unwrap_or_default();
    match publishing.wait_for_version(latest).await {
        Ok(PublicationStatus::Published)
            if health.body["version"].as_u64().is_some_and(|version| version > latest.get()) =>
        {
            let version = &health.body["version"];
            return bad(
                format!(
                    "the server on {address} has published version {version}, but the database has only version {latest}"
                ),
                "the database was replaced while the server ran, or was rolled back: restart the server and read its log",
            );
        }
        Ok(PublicationStatus::Published) => {}
        _ => {
            let version = &health.body["version"];
            return bad(
                format!(
                    "the database has version {latest}, but the server on {address} has published only version {version}"
                ),
                "read the server's log; restart the server if its database was replaced",
            );
        }
    }
    Finding {
        what,
        state: State::Good,
        detail: format!("ready on {address}, publishing version {latest}"),
        advice: None,
    }
}

struct Answer {
    status: u16,
    /// Null if the body is not JSON.
    body: Value,
}

async fn get_from_server(client: &Client, address: SocketAddr, path: &str) -> reqwest::Result<Answer> {
    let response = client.get(format!("http://{address}{path}")).send().await?;
    let status = response.status().as_u16();
    Ok(Answer { status, body: serde_json::from_slice(&response.bytes().await?).unwrap_or_default() })
}

fn add_finding(
    findings: &mut Vec<Finding>,
    what: &'static str,
    outcome: Result<String, String>,
    advice: &str,
) -> bool {
    let good = outcome.is_ok();
    let (state, detail, advice) = match outcome {
        Ok(detail) => (State::Good, detail, None),
        Err(detail) => (State::Bad, detail, Some(advice.to_owned())),
    };
    findings.push(Finding { what, state, detail, advice });
    good
}
