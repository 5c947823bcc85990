use std::{error::Error, time::Duration};

use serde::Serialize;
use token::api_key::Kind;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{Failure, Global, hint, show};
use crate::{
    authority::{Authority, REMINDER},
    clock::{self, Time},
    config::Config,
    home::{self, Home},
    model::Generation,
    operations::{self, OpenError, Service, StoreError},
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
    if !check(findings, "folder", folder(&home), "make or mend the data folder: `keystile init` makes one") {
        return;
    }
    let settings = global.settings();
    let config = settings.as_ref().ok().cloned();
    let loaded = settings.map(|_| "all known".to_owned()).map_err(|error| chain(&error));
    check(findings, "settings", loaded, "correct the setting");
    let Some(config) = config else { return };
    let opened = Service::attach(home.clone(), config.clone()).await;
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
    let signed = publisher::preview(&service).await.map_err(|error| chain(&error));
    let signed = signed.map(|publication| format!("version {} signed and read back", publication.version));
    check(findings, "publisher", signed, "restore the keys and the database from the same backup");
    findings.push(authority(&home, &config));
    findings.push(api_keys(&service).await);
    findings.push(clock(&service).await);
    let round = operations::rehearse(&service).map(|()| "a token signed and verified".to_owned());
    check(findings, "tokens", round.map_err(|error| chain(&error)), "restore the signing key");
    answers(findings, &config).await;
}

/// Whether the root has to sign again soon.
fn authority(home: &Home, config: &Config) -> Finding {
    let what = "authority";
    match Authority::open(home, &config.publisher.audience) {
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
            "see that the keys are those `keystile init` made; lost ones are restored from the backup"
        }
    }
}

fn folder(home: &Home) -> Result<String, String> {
    if !home.exists() {
        return Err(format!("`{}` is not there", home.folder().display()));
    }
    let mut private = vec![home.folder().to_owned(), home.keys()];
    let files = std::fs::read_dir(home.keys()).map_err(|error| chain(&error))?;
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

/// A server that does not answer is no fault of the installation.
async fn answers(findings: &mut Vec<Finding>, config: &Config) {
    let address = config.server.listen;
    let asked = timeout(PATIENCE, async {
        let mut stream = TcpStream::connect(address).await?;
        stream
            .write_all(
                format!("GET /readyz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").as_bytes(),
            )
            .await?;
        let mut answer = String::new();
        stream.take(4096).read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    });
    let (state, detail, advice) = match asked.await {
        Ok(Ok(answer)) if answer.starts_with("HTTP/1.1 200") && answer.ends_with("ready\n") => {
            (State::Good, format!("ready on {address}"), None)
        }
        Ok(Ok(_)) => (
            State::Bad,
            format!("what listens on {address} is not ready"),
            Some("read the server's log".to_owned()),
        ),
        Ok(Err(_)) | Err(_) => (
            State::Note,
            format!("nothing answers on {address}"),
            Some("start it: `keystile serve`".to_owned()),
        ),
    };
    findings.push(Finding { what: "server", state, detail, advice });
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

const MOST_TOLD: usize = 5;
const PATIENCE: Duration = Duration::from_secs(2);
