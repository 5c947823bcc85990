use std::{error::Error, io, net::SocketAddr, time::Duration};

use serde::Serialize;
use serde_json::Value;
use token::api_key::Kind;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{Failure, Global, hint, show};
use crate::{
    authority::{Authority, REMINDER, examine as examine_keys},
    clock::{self, Time},
    config::Config,
    home::{self, Home},
    model::Generation,
    operations::{self, EdgeState, Load, Member, OpenError, Publication, Publishing, Service, StoreError},
    publisher,
};

/// Checks what the server needs, in the order in which one thing needs the other.
pub(super) async fn run(global: &Global) -> Result<(), Failure> {
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
        None => hint("All is well."),
    }
    if failed.is_some() { Err(Failure::Said) } else { Ok(()) }
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
    /// Nothing is broken, but something is left to do.
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

/// Stops at the first thing that makes the rest pointless.
async fn examine(global: &Global, findings: &mut Vec<Finding>) {
    let home = global.home();
    let advice_on_folder = match home.exists() {
        true => "mend the data folder; lost keys are restored from their backup, for edges believe no others",
        false => "make or mend the data folder: `keystile init` makes one",
    };
    if !check(findings, "folder", folder(&home), advice_on_folder) {
        return;
    }
    let settings = global.settings();
    let config = settings.as_ref().ok().cloned();
    let loaded = settings.map(|_| "all known".to_owned()).map_err(|error| chain(&error));
    check(findings, "settings", loaded, "correct the setting");
    let Some(config) = config else { return };
    // Every file that is missing, not only the first that a command needs.
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
        service.writable().await.map_err(|error| format!("no change can be written: {}", chain(&error)));
    let written =
        written.map(|()| format!("{:?}, schema current, takes changes, keys open", service.store_engine()));
    check(findings, "store", written, "make room on the disk, and see that the database may be written to");
    findings.push(journal(&service).await);
    let signed = publisher::preview(&service).await.map_err(|error| chain(&error));
    let signed = signed.map(|publication| format!("version {} signed and read back", publication.version));
    check(findings, "publisher", signed, "restore the keys and the database from the same backup");
    findings.push(authority(&home, &config));
    findings.push(api_keys(&service).await);
    findings.push(limits(&service, &config).await);
    findings.push(clock(&service).await);
    let round = operations::rehearse(&service).map(|()| "a token signed and verified".to_owned());
    check(findings, "tokens", round.map_err(|error| chain(&error)), "restore the signing key");
    findings.push(edges(&service).await);
    let held = operations::symmetric_keys(&service).await.map(|keys| match keys.as_slice() {
        [] => "edges hold nothing that can make a credential".to_owned(),
        keys => format!(
            "edges hold keys that can make credentials for anybody: {}; if an edge is stolen, `keystile edge remove` it \
             and `keystile key retire` each",
            keys.join(", ")
        ),
    });
    check(findings, "edge keys", held.map_err(|error| chain(&error)), "see that the database can be read");
    findings.push(answers(&service, &config).await);
}

/// Edges that do not get, or do not take, what is published.
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
        detail.push(format!("stale, as nothing newer reaches them: {stale}"));
    }
    if !overdue.is_empty() {
        detail.push(format!("behind for longer than a manifest lives: {overdue}"));
    }
    if detail.is_empty() {
        let live = fleet.members.iter().filter(|member| member.state == EdgeState::Live).count();
        let detail = format!("{} enrolled, {live} live", fleet.members.len());
        return Finding { what, state: State::Good, detail, advice: None };
    }
    let advice = "read the log of these edges: a proxy before the control plane that is less patient than \
                  `wait_seconds`, other `root_keys`, or a clock that is off keep them from what is published";
    Finding { what, state: State::Note, detail: detail.join("; "), advice: Some(advice.to_owned()) }
}

/// Whether the database knows all that was taken back.
async fn journal(service: &Service) -> Finding {
    let what = "journal";
    let bad = |detail: String, advice: &str| Finding {
        what,
        state: State::Bad,
        detail,
        advice: Some(advice.to_owned()),
    };
    match operations::standing(service).await {
        Err(error) => bad(chain(&error), UNREADABLE_JOURNAL),
        Ok(examined) if examined.needs_repair() => bad(
            "the database is older than the journal: it was restored from a backup".to_owned(),
            "`keystile restore --repair`",
        ),
        Ok(examined) => match examined.missing {
            None => Finding {
                what,
                state: State::Good,
                detail: "none yet: a running server keeps it".to_owned(),
                advice: None,
            },
            Some(missing) if !missing.refuses_nothing() => bad(
                "it says more than the database knows".to_owned(),
                "start `keystile serve`, or run `keystile restore --repair`: either takes that up",
            ),
            Some(_) => match service.journal().writable() {
                Ok(()) => Finding {
                    what,
                    state: State::Good,
                    detail: "the database knows all that was taken back".to_owned(),
                    advice: None,
                },
                Err(error) => bad(chain(&error), "see that the file can be written"),
            },
        },
    }
}

/// Whether the root has to sign again soon.
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
                detail: format!("epoch {}, delegated until {}", delegation.epoch(), show::time(ends)),
                advice: soon.then(|| {
                    "`keystile authority renew`: past its end edges believe nothing any more".to_owned()
                }),
            }
        }
        Err(error) => Finding {
            what,
            state: State::Bad,
            detail: chain(&error),
            advice: Some(
                "restore the keys from their backup, or make new ones: `keystile authority`".to_owned(),
            ),
        },
    }
}

/// What whoever steals an edge can make.
async fn api_keys(service: &Service) -> Finding {
    let what = "API keys";
    let remaining = match operations::remaining_api_keys(service).await {
        Ok(remaining) => remaining,
        Err(error) => {
            let advice = Some("see that the database is whole".to_owned());
            return Finding { what, state: State::Bad, detail: chain(&error), advice };
        }
    };
    let [signed, short, format1] = Kind::ALL.map(|kind| remaining.of(kind));
    let symmetric: Vec<String> = remaining.symmetric().map(Generation::kid).collect();
    let mut detail = format!("{signed} of format 2, {short} of the short form, {format1} of format 1");
    let mut advice = None;
    if remaining.made_here == Some(false) {
        detail.push_str("; the key file that new ones are made with is not here");
        advice = Some(
            "make API keys where it is, or begin a generation here: `keystile key rotate tag`".to_owned(),
        );
    }
    if !symmetric.is_empty() {
        let kids = symmetric.join(", ");
        detail.push_str(&format!("; every edge holds the secret of {kids}, which makes API keys"));
        advice = Some(format!(
            "replace those that `keystile key list` shows as of format 1 or short: `keystile key rotate tag` for new \
             ones, `keystile key rotate key-NUMBER` for each, then `keystile key retire` for {kids}"
        ));
    }
    let state = if advice.is_some() { State::Note } else { State::Good };
    Finding { what, state, detail, advice }
}

/// What edges hold, and whether one operator has used up its share of it.
async fn limits(service: &Service, config: &Config) -> Finding {
    let what = "limits";
    let share = config.limits.revocations;
    match operations::load(service).await {
        Ok(Load { operators, revocations, largest }) => {
            let most = largest.as_ref().map_or(String::new(), |(operator, held)| {
                let of = if share == 0 { String::new() } else { format!(" of {share}") };
                format!("; {operator} has most, {held}{of} by the API")
            });
            let much = largest.filter(|(_, held)| share > 0 && *held >= share - share / 5);
            Finding {
                what,
                state: if much.is_some() { State::Note } else { State::Good },
                detail: format!("{revocations} revocations of {operators} operators{most}"),
                advice: much.map(|(operator, _)| {
                    format!(
                        "see in `keystile audit` who revokes so much of {operator}; past limits.revocations a \
                         revocation of a token refuses all that its AuthKey was exchanged for until then"
                    )
                }),
            }
        }
        Err(error) => Finding { what, state: State::Bad, detail: chain(&error), advice: None },
    }
}

/// Whether another clock says that this one is wrong, and whether one was that has left instants in the future.
async fn clock(service: &Service) -> Finding {
    let what = "clock";
    let bad =
        |detail, advice: &str| Finding { what, state: State::Bad, detail, advice: Some(advice.to_owned()) };
    let confirmed = match operations::check_clock(service).await {
        Ok(confirmed) => confirmed,
        Err(error) => return bad(chain(&error), "set the clock of this machine, or the other one"),
    };
    match operations::instants_ahead(service).await {
        Ok(ahead) if ahead.is_empty() => {
            let by = match confirmed {
                operations::Confirmed::Yes => "agrees with another",
                operations::Confirmed::Nobody => "no other to compare it with",
            };
            let detail = format!("{by}; nothing lies in the future");
            Finding { what, state: State::Good, detail, advice: None }
        }
        Ok(ahead) => {
            let told = |(what, second): &(String, u64)| {
                format!("{what} until {}", show::time(Time::from_seconds(*second)))
            };
            let mut list: Vec<String> = ahead.iter().take(MOST_TOLD).map(told).collect();
            if ahead.len() > MOST_TOLD {
                list.push(format!("and {} more", ahead.len() - MOST_TOLD));
            }
            let detail = format!("was ahead, or is behind now: {}", list.join(", "));
            bad(detail, "compare it with another clock, then `keystile clock repair`")
        }
        Err(error) => bad(chain(&error), "see that the database is whole"),
    }
}

/// Beside keys there was a database: a new one has forgotten what was revoked.
fn advice(error: &OpenError, home: &Home) -> &'static str {
    match error {
        OpenError::Store(StoreError::Missing { .. }) if home.has_keys() => {
            "restore the database from its backup; a new one knows neither what was revoked nor any AuthKey"
        }
        OpenError::Store(StoreError::Missing { .. }) => "`keystile init` makes the database",
        OpenError::Store(StoreError::SchemaOlder) => "make a backup, then start `keystile serve`",
        OpenError::Store(StoreError::SchemaNewer) => "run the version that last served it, or a later one",
        OpenError::Store(_) => {
            "see that the database is whole and can be reached; a damaged one is restored from its backup"
        }
        OpenError::NoHome { .. } | OpenError::Keys(_) => {
            "restore the keys that belong to this database from their backup: edges believe no others. If it is the \
             database that was restored, `keystile restore --repair`"
        }
        OpenError::Journal(_) => UNREADABLE_JOURNAL,
        OpenError::Restored => "start `keystile serve`, or run `keystile restore --repair`",
        OpenError::Merge { .. } => "`keystile serve` tries again",
    }
}

fn folder(home: &Home) -> Result<String, String> {
    if !home.exists() {
        return Err(format!("`{}` is not there", home.folder().display()));
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
            return Err(format!("`{0}` is open to others; `chmod go= {0}`", path.display()));
        }
    }
    Ok(format!("`{}` and its keys are private", home.folder().display()))
}

/// A server that does not answer is no fault of the installation; one that is another's is.
async fn answers(service: &Service, config: &Config) -> Finding {
    let address = config.server.listen;
    let what = "server";
    let (ready, health) = match (ask(address, "/readyz").await, ask(address, "/healthz").await) {
        (Ok(ready), Ok(health)) => (ready, health),
        _ => {
            let advice = Some("start it: `keystile serve`".to_owned());
            return Finding {
                what,
                state: State::Note,
                detail: format!("nothing answers on {address}"),
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
                format!("what listens on {address} is another installation's ({found}; this one is {own})"),
                "see which data folder and store.url that server was started with, or correct server.listen here",
            );
        }
    }
    if ready.status != 200 {
        let code = ready.body["code"].as_str().unwrap_or("no reason given");
        return bad(format!("the server on {address} is not ready: {code}"), "read the server's log");
    }
    // What was committed a moment ago is published in a moment.
    let publishing = Publishing::of(service);
    let latest = publishing.latest().await.unwrap_or_default();
    match publishing.reached(latest).await {
        Ok(Publication::Published)
            if health.body["version"].as_u64().is_some_and(|version| version > latest) =>
        {
            let version = &health.body["version"];
            return bad(
                format!(
                    "the server on {address} has published {version}, and the database knows {latest} only"
                ),
                "the database was replaced under the server, or went back: restart it, and read its log",
            );
        }
        Ok(Publication::Published) => {}
        _ => {
            let version = &health.body["version"];
            return bad(
                format!(
                    "the database has version {latest}, and the server on {address} has published {version} only"
                ),
                "read the server's log; if the database was replaced under it, restart it",
            );
        }
    }
    Finding {
        what,
        state: State::Good,
        detail: format!("ready on {address}, publishes version {latest}"),
        advice: None,
    }
}

struct Answer {
    status: u16,
    /// Null if it is no JSON.
    body: Value,
}

async fn ask(address: SocketAddr, path: &str) -> io::Result<Answer> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    let answer = timeout(PATIENCE, async {
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

fn chain(error: &dyn Error) -> String {
    match error.source() {
        None => error.to_string(),
        Some(source) => format!("{error}: {}", chain(source)),
    }
}

/// An old journal would hide what was revoked since.
const UNREADABLE_JOURNAL: &str = "see that keys/journal can be read, and never restore it from a backup. If a line of \
    it is damaged: where the database was not restored since, move the file away, and a server makes a new one; else \
    remove the line after looking at it and refuse what it named, or move the file away and run `keystile restore \
    --repair --everything`";

const MOST_TOLD: usize = 5;
const PATIENCE: Duration = Duration::from_secs(2);
