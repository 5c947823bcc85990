use std::{error::Error, io, net::SocketAddr, time::Duration};

use serde::Serialize;
use serde_json::Value;
use token::api_key::Kind;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{CliError, Global, hint, output};
use crate::{
    authority::{Authority, REMINDER, examine as examine_keys},
    clock::{self, Time},
    config::Config,
    home::{self, Home},
    model::Generation,
    operations::{self, EdgeState, Load, Member, OpenError, Publication, Publishing, Service, StoreError},
    publisher,
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
    let home = global.home();
    let advice_on_folder = match home.exists() {
        true => "repair the data folder; restore lost keys from their backup, because edges trust no others",
        false => "create or repair the data folder: `keystile init` creates one",
    };
    if !check(findings, "folder", folder(&home), advice_on_folder) {
        return;
    }
    let settings = global.settings();
    let config = settings.as_ref().ok().cloned();
    let loaded = settings.map(|_| "valid".to_owned()).map_err(|error| chain(&error));
    check(findings, "settings", loaded, "correct the setting");
    let Some(config) = config else { return };
    // Report every missing key file, not only the first one that a command needs.
    let opened = match examine_keys(&home) {
        Ok(_) => Service::attach_unmerged(home.clone(), config.clone()).await,
        Err(error) => Err(OpenError::Keys(error)),
    };
    let service = match opened {
        Ok(service) => service,
        Err(error) => {
            check(findings, "store", Err(chain(&error)), advice(&error, &home));
            return;
        }
    };
    let written =
        service.writable().await.map_err(|error| format!("cannot write to the database: {}", chain(&error)));
    let written = written.map(|()| {
        format!("{:?}, schema is current, database is writable, keys are readable", service.store_engine())
    });
    check(findings, "store", written, "free disk space, and check that the database is writable");
    findings.push(journal(&service).await);
    let signed = publisher::preview(&service).await.map_err(|error| chain(&error));
    let signed = signed.map(|publication| format!("version {} signed and verified", publication.version));
    check(findings, "publisher", signed, "restore the keys and the database from the same backup");
    findings.push(authority(&home, &config));
    findings.push(api_keys(&service).await);
    findings.push(limits(&service, &config).await);
    findings.push(clock(&service).await);
    let round = operations::rehearse(&service).map(|()| "a token was signed and verified".to_owned());
    check(findings, "tokens", round.map_err(|error| chain(&error)), "restore the signing key");
    findings.push(edges(&service).await);
    let held = operations::symmetric_keys(&service).await.map(|keys| match keys.as_slice() {
        [] => "edges hold no key that can create credentials".to_owned(),
        keys => format!(
            "edges hold keys that can create credentials for any user: {}; if an edge is stolen, run `keystile edge \
             remove` for it and `keystile key retire` for each key",
            keys.join(", ")
        ),
    });
    check(findings, "edge keys", held.map_err(|error| chain(&error)), "check that the database is readable");
    findings.push(check_server_responds(&service, &config).await);
}

/// Reports edges that do not receive or do not accept new bundles.
async fn edges(service: &Service) -> Finding {
    let what = "edges";
    let fleet = match operations::list_all_edges(service).await {
        Ok(fleet) => fleet,
        Err(error) => return Finding { what, state: State::Bad, detail: chain(&error), advice: None },
    };
    let names = |of: &dyn Fn(&Member) -> bool| {
        let names = fleet.members.iter().filter(|member| of(member)).map(|member| member.edge.id.as_str());
        names.collect::<Vec<_>>().join(", ")
    };
    let stale = names(&|member| member.state == EdgeState::Stale);
    let overdue = names(&|member| member.state == EdgeState::Live && fleet.is_overdue(member));
    let mut detail = Vec::new();
    if !stale.is_empty() {
        detail.push(format!("stale, because they receive no newer bundle: {stale}"));
    }
    if !overdue.is_empty() {
        detail.push(format!("behind for longer than the lifetime of a manifest: {overdue}"));
    }
    if detail.is_empty() {
        let live = fleet.members.iter().filter(|member| member.state == EdgeState::Live).count();
        let detail = format!("{} enrolled, {live} live", fleet.members.len());
        return Finding { what, state: State::Good, detail, advice: None };
    }
    let advice = "read the logs of these edges: possible causes are a proxy in front of the control plane with a timeout \
                  below `wait_seconds`, other `root_keys`, or a wrong clock";
    Finding { what, state: State::Note, detail: detail.join("; "), advice: Some(advice.to_owned()) }
}

/// Checks that the database contains all revocations and deletions of the journal.
async fn journal(service: &Service) -> Finding {
    let what = "journal";
    let bad = |detail: String, advice: &str| Finding {
        what,
        state: State::Bad,
        detail,
        advice: Some(advice.to_owned()),
    };
    match operations::standing(service).await {
        Err(error) => bad(chain(&error), JOURNAL_ADVICE),
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
            Some(missing) if !missing.refuses_nothing() => bad(
                "the journal has entries that the database lacks".to_owned(),
                "start `keystile serve` or run `keystile restore --repair`: both merge the journal",
            ),
            Some(_) => match service.journal().writable() {
                Ok(()) => Finding {
                    what,
                    state: State::Good,
                    detail: "the database contains all entries of the journal".to_owned(),
                    advice: None,
                },
                Err(error) => bad(chain(&error), "check that the file is writable"),
            },
        },
    }
}

/// Checks whether the root key has to sign a new delegation soon.
fn authority(home: &Home, config: &Config) -> Finding {
    let what = "authority";
    match examine_keys(home).and_then(|_| Authority::open(home, &config.publisher.audience)) {
        Ok(authority) => {
            let delegation = &authority.delegation;
            let ends = Time::from_millis(delegation.expires_at());
            let soon = clock::now().plus(REMINDER) >= ends;
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
            detail: chain(&error),
            advice: Some(
                "restore the keys from their backup, or create new ones with `keystile authority`".to_owned(),
            ),
        },
    }
}

/// Reports which API keys the thief of an edge could create.
async fn api_keys(service: &Service) -> Finding {
    let what = "API keys";
    let remaining = match operations::remaining_api_keys(service).await {
        Ok(remaining) => remaining,
        Err(error) => {
            let advice = Some("check that the database is not damaged".to_owned());
            return Finding { what, state: State::Bad, detail: chain(&error), advice };
        }
    };
    let [signed, short, format1] = Kind::ALL.map(|kind| remaining.of(kind));
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
async fn limits(service: &Service, config: &Config) -> Finding {
    let what = "limits";
    let share = config.limits.revocations;
    match operations::load(service).await {
        Ok(Load { operators, revocations, largest }) => {
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
        Err(error) => Finding { what, state: State::Bad, detail: chain(&error), advice: None },
    }
}

/// Compares the clock with other clocks, and reports watermarks and base coverage in the future.
async fn clock(service: &Service) -> Finding {
    let what = "clock";
    let bad =
        |detail, advice: &str| Finding { what, state: State::Bad, detail, advice: Some(advice.to_owned()) };
    let confirmed = match operations::check_clock(service).await {
        Ok(confirmed) => confirmed,
        Err(error) => return bad(chain(&error), "correct the clock of this machine or the other one"),
    };
    match operations::instants_ahead(service).await {
        Ok(ahead) if ahead.is_empty() => {
            let by = match confirmed {
                operations::Confirmed::Yes => "agrees with another clock",
                operations::Confirmed::Nobody => "no other clock to compare with",
            };
            let detail = format!("{by}; no watermark or base coverage is in the future");
            Finding { what, state: State::Good, detail, advice: None }
        }
        Ok(ahead) => {
            let describe = |(what, second): &(String, u64)| {
                format!("{what} until {}", output::format_time(Time::from_seconds(*second)))
            };
            let mut list: Vec<String> = ahead.iter().take(MAX_LISTED).map(describe).collect();
            if ahead.len() > MAX_LISTED {
                list.push(format!("and {} more", ahead.len() - MAX_LISTED));
            }
            let detail = format!("the clock was ahead earlier or is behind now: {}", list.join(", "));
            bad(detail, "compare the clock with another one, then run `keystile clock repair`")
        }
        Err(error) => bad(chain(&error), "check that the database is not damaged"),
    }
}

/// Returns the advice for an error on opening. If keys exist, a database existed too, and a new one would lack its
/// revocations.
fn advice(error: &OpenError, home: &Home) -> &'static str {
    match error {
        OpenError::Store(StoreError::Missing { .. }) if home.has_keys() => {
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
        OpenError::NoHome { .. } | OpenError::Keys(_) => {
            "restore the keys of this database from their backup, because edges trust no others. If the database was \
             restored, run `keystile restore --repair`"
        }
        OpenError::Journal(_) => JOURNAL_ADVICE,
        OpenError::Restored => "start `keystile serve`, or run `keystile restore --repair`",
        OpenError::Merge { .. } => "`keystile serve` retries",
    }
}

fn folder(home: &Home) -> Result<String, String> {
    if !home.exists() {
        return Err(format!("`{}` does not exist", home.folder().display()));
    }
    let mut private = vec![home.folder().to_owned(), home.keys()];
    let keys = home.keys();
    let files =
        std::fs::read_dir(&keys).map_err(|error| format!("`{}`: {}", keys.display(), chain(&error)))?;
    private.extend(files.filter_map(|file| Some(file.ok()?.path())));
    let others = [home.folder().join("keystile.db"), home.config_file()];
    private.extend(others.into_iter().filter(|file| file.exists()));
    for path in private {
        if home::open_to_others(&path).map_err(|error| format!("`{}`: {}", path.display(), chain(&error)))?
            != 0
        {
            return Err(format!(
                "`{0}` is accessible to group or others; run `chmod go= {0}`",
                path.display()
            ));
        }
    }
    Ok(format!("`{}` and its keys are private", home.folder().display()))
}

/// Checks the server at `server.listen`. A server that does not run is a note; one of another installation is a
/// failure.
async fn check_server_responds(service: &Service, config: &Config) -> Finding {
    let address = config.server.listen;
    let what = "server";
    let (ready, health) = match (ask(address, "/readyz").await, ask(address, "/healthz").await) {
        (Ok(ready), Ok(health)) => (ready, health),
        _ => {
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
    let publishing = Publishing::of(service);
    let latest = publishing.latest().await.unwrap_or_default();
    match publishing.reached(latest).await {
        Ok(Publication::Published)
            if health.body["version"].as_u64().is_some_and(|version| version > latest) =>
        {
            let version = &health.body["version"];
            return bad(
                format!(
                    "the server on {address} has published version {version}, but the database has only version {latest}"
                ),
                "the database was replaced while the server ran, or was rolled back: restart the server and read its log",
            );
        }
        Ok(Publication::Published) => {}
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

async fn ask(address: SocketAddr, path: &str) -> io::Result<Answer> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    let answer = timeout(REQUEST_TIMEOUT, async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.take(16 * 1024).read_to_string(&mut answer).await?;
        Ok::<_, io::Error>(answer)
    });
    let answer = answer.await??;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    Ok(Answer { status, body: serde_json::from_str(body).unwrap_or_default() })
}

fn check(
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

/// Returns the error message with its causes.
fn chain(error: &dyn Error) -> String {
    match error.source() {
        None => error.to_string(),
        Some(source) => format!("{error}: {}", chain(source)),
    }
}
