//! Measures what it costs to compact the base over millions of issued tokens, and how long issuing and revoking take
//! meanwhile.

use crate::machine::Usage;
use crate::plot::{Bar, Kind, Plot};
use crate::report::{Budget, Section, Table};
use crate::statistics::Quantiles;
use crate::{Scale, block_on, progress};
use anyhow::{Context, Result};
use bundle::{
    Coverage, ExpiryRange,
    builder::{BlockBuilder, BlockError},
};
use harness::client::{Connection, bearer};
use harness::postgres::Postgres;
use harness::{ControlPlane, Scratch, Store};
use hyper::{Method, Request};
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, Row as _, sqlite::SqliteConnectOptions};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use token::Fingerprint;
use tokio::time::{MissedTickBehavior, interval, sleep};

pub(crate) fn measure(scale: Scale) -> Result<Section> {
    let extent = Extent { issued: scale.of(10_000_000, 20_000), usual: Duration::from_secs(scale.of(20, 1)) };
    let peer = build_alone(extent.issued)?;
    progress(&format!("compaction: building the set alone takes {peer:.2} s"));
    block_on(async {
        let mut runs = Vec::new();
        for store in [Store::Sqlite, Store::Postgres] {
            runs.extend(measured(store, extent).await.with_context(|| format!("{store:?}"))?);
        }
        section(extent, peer, &runs)
    })
}

#[derive(Debug, Clone, Copy)]
struct Extent {
    issued: usize,
    /// How long the usual delays are measured.
    usual: Duration,
}

/// One compaction.
#[derive(Debug, Serialize)]
struct Run {
    store: String,
    what: &'static str,
    seconds: f64,
    /// Of the process that compacts.
    cpu_seconds: f64,
    /// Of the server, which publishes the new base, without what the requests take.
    server_cpu_seconds: f64,
    /// Of PostgreSQL, likewise.
    database_cpu_seconds: f64,
    peak_mb: f64,
    new_revocations: u64,
    issue_ms: [Quantiles; 2],
    revoke_ms: [Quantiles; 2],
}

impl Run {
    fn total_cpu(&self) -> f64 {
        self.cpu_seconds + self.server_cpu_seconds + self.database_cpu_seconds
    }
}

/// The delays of requests, and the CPU that was used meanwhile.
struct Delays {
    seconds: f64,
    issue_ms: Vec<f64>,
    revoke_ms: Vec<f64>,
    server_cpu: f64,
    database_cpu: f64,
}

async fn measured(store: Store, extent: Extent) -> Result<Vec<Run>> {
    let scratch = Scratch::new()?;
    let mut subject = Subject::start(&scratch, store).await?;
    progress(&format!("compaction: {store:?}: writing {} tokens", extent.issued));
    subject.database.seed(extent.issued).await?;
    subject.control_plane.serve().await?;
    let mut runs = Vec::new();
    for (what, until) in [("first", FIRST), ("20,000 more", MORE)] {
        let new_revocations = match what {
            // Everything that was revoked before the server started.
            "first" => extent.issued as u64 / 10,
            _ => subject.database.revoke(until).await?,
        };
        subject.settle().await?;
        let usual = subject.load(|| false, extent.usual).await?;
        let run = subject.compact(what, new_revocations, &usual).await?;
        progress(&format!("compaction: {store:?}: {what}: {:.1} s of CPU", run.total_cpu()));
        runs.push(run);
    }
    Ok(runs)
}

/// A server with its database.
struct Subject {
    control_plane: ControlPlane,
    database: Database,
}

impl Subject {
    async fn start(scratch: &Scratch, store: Store) -> Result<Self> {
        let folder = scratch.folder();
        let mut control_plane =
            ControlPlane::open(folder.join("data"), folder.join("control-plane.log"), scratch.address(8780));
        control_plane.set_setting("KEYSTILE_LOG__LEVEL", "warn");
        for limit in [
            "SERVER__REQUESTS_PER_SECOND",
            "SERVER__REQUESTS_PER_CONNECTION",
            "LIMITS__TOKENS_PER_MINUTE",
            "LIMITS__REVOCATIONS_PER_MINUTE",
            "PUBLISHER__COMPACT_AFTER",
        ] {
            control_plane.set_setting(&format!("KEYSTILE_{limit}"), 0);
        }
        let database = match store {
            Store::Sqlite => Database::Sqlite(control_plane.data().join("keystile.db")),
            Store::Postgres => {
                let server = Postgres::start(scratch).await?;
                control_plane.set_setting("KEYSTILE_STORE__URL", server.url());
                Database::Postgres(server)
            }
        };
        control_plane.init()?;
        Ok(Self { control_plane, database })
    }

    /// Waits until the server has published everything.
    async fn settle(&self) -> Result<()> {
        let mut before = Usage::of(self.control_plane.id()?)?.cpu_seconds;
        loop {
            sleep(Duration::from_secs(1)).await;
            let now = Usage::of(self.control_plane.id()?)?.cpu_seconds;
            if now - before < 0.05 {
                return Ok(());
            }
            before = now;
        }
    }

    /// Issues and revokes a token at regular intervals for a while, or until `is_done`.
    async fn load(&self, is_done: impl Fn() -> bool, duration: Duration) -> Result<Delays> {
        let root = self.control_plane.root();
        let body = json!({ "authKeyId": root.auth_key_id, "authKey": root.auth_key }).to_string();
        let operator = self.control_plane.token().await?;
        let mut connection = Connection::open(self.control_plane.address()).await?;
        let (mut issue_ms, mut revoke_ms) = (Vec::new(), Vec::new());
        let mut ticks = interval(Duration::from_millis(50));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let [server, database] =
            [Usage::of(self.control_plane.id()?)?.cpu_seconds, self.database.cpu_seconds()?];
        let began = Instant::now();
        while began.elapsed() < duration && !is_done() {
            ticks.tick().await;
            let clock = Instant::now();
            let request = Request::post("/v1/auth").body(body.clone())?;
            let session = connection.send(request).await?.expect(200)?.json()?;
            issue_ms.push(clock.elapsed().as_secs_f64() * 1e3);
            let clock = Instant::now();
            let mut request = bearer(&operator);
            *request.method_mut() = Method::POST;
            *request.uri_mut() = "/revocations".parse()?;
            *request.body_mut() = json!({ "token": session["token"] }).to_string();
            connection.send(request).await?.expect(200)?;
            revoke_ms.push(clock.elapsed().as_secs_f64() * 1e3);
        }
        Ok(Delays {
            seconds: began.elapsed().as_secs_f64(),
            issue_ms,
            revoke_ms,
            server_cpu: Usage::of(self.control_plane.id()?)?.cpu_seconds - server,
            database_cpu: self.database.cpu_seconds()? - database,
        })
    }

    /// Compacts the base while tokens are issued and revoked.
    async fn compact(&self, what: &'static str, new_revocations: u64, usual: &Delays) -> Result<Run> {
        let mut command = self.control_plane.spawn_cli(["bundle", "compact"])?;
        let id = command.id();
        let is_done = AtomicBool::new(false);
        let watch = async {
            let mut peak = 0.0_f64;
            let clock = Instant::now();
            // A process that has ended keeps its CPU time until it is waited for, but has no memory.
            while let Ok(usage) = Usage::of(id) {
                peak = peak.max(usage.peak_bytes);
                sleep(Duration::from_millis(5)).await;
            }
            is_done.store(true, Ordering::Relaxed);
            anyhow::Ok((clock.elapsed().as_secs_f64(), Usage::cpu_seconds_of(id)?, peak))
        };
        // The server loads the new base after the end of the command.
        let load = async {
            let mut delays = self.load(|| is_done.load(Ordering::Relaxed), LIMIT).await?;
            let [server, database] =
                [Usage::of(self.control_plane.id()?)?.cpu_seconds, self.database.cpu_seconds()?];
            self.settle().await?;
            delays.server_cpu += Usage::of(self.control_plane.id()?)?.cpu_seconds - server;
            delays.database_cpu += self.database.cpu_seconds()? - database;
            anyhow::Ok(delays)
        };
        let ((seconds, cpu_seconds, peak), meanwhile) = tokio::try_join!(watch, load)?;
        let status = command.wait(LIMIT)?;
        anyhow::ensure!(status.success(), "{status}: {}", command.log());
        let beyond =
            |total: f64, usual_cpu: f64| (total - usual_cpu / usual.seconds * meanwhile.seconds).max(0.0);
        let pair = |usual: &[f64], meanwhile: &[f64]| {
            anyhow::Ok([
                Quantiles::of(usual).context("no requests")?,
                Quantiles::of(meanwhile).context("no requests")?,
            ])
        };
        Ok(Run {
            store: self.database.name().to_owned(),
            what,
            seconds,
            cpu_seconds,
            server_cpu_seconds: beyond(meanwhile.server_cpu, usual.server_cpu),
            database_cpu_seconds: beyond(meanwhile.database_cpu, usual.database_cpu),
            peak_mb: peak / 1e6,
            new_revocations,
            issue_ms: pair(&usual.issue_ms, &meanwhile.issue_ms)?,
            revoke_ms: pair(&usual.revoke_ms, &meanwhile.revoke_ms)?,
        })
    }
}

enum Database {
    Sqlite(std::path::PathBuf),
    Postgres(Postgres),
}

impl Database {
    const fn name(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "SQLite",
            Self::Postgres(_) => "PostgreSQL",
        }
    }

    /// Returns the CPU time of the database server so far.
    fn cpu_seconds(&self) -> Result<f64> {
        match self {
            Self::Sqlite(_) => Ok(0.0),
            Self::Postgres(server) => Usage::cpu_seconds_of_tree(server.id()),
        }
    }

    /// Runs statements, and returns the first column of what the last one returns.
    async fn run(&self, statements: &[&str]) -> Result<String> {
        match self {
            Self::Postgres(server) => server.run(&statements.join(";")),
            Self::Sqlite(path) => {
                let options =
                    SqliteConnectOptions::new().filename(path).busy_timeout(Duration::from_secs(60));
                let mut connection = sqlx::SqliteConnection::connect_with(&options).await?;
                // Keeps the indexes in memory.
                connection.execute("PRAGMA cache_size = -3000000").await?;
                let mut said = String::new();
                for statement in statements {
                    let row = connection.fetch_optional(AssertSqlSafe(*statement)).await?;
                    said = row.map_or_else(|| Ok(String::new()), |row| row.try_get(0))?;
                }
                connection.close().await?;
                Ok(said)
            }
        }
    }

    /// Writes issued tokens, of which a tenth is revoked, in the order of issue.
    async fn seed(&self, issued: usize) -> Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let (first, last) = (now - ISSUE_SECS, now - 10);
        let columns = "prefix, fingerprint, kid, operator_id, session_id, issued_at, expires_at";
        let rows = |prefix: &str, rest: &str, session: &str| {
            format!(
                "SELECT {prefix}, {rest}, (SELECT kid FROM signing_keys), (SELECT operator_id FROM operators), \
                 'api-' || {session}, {first} + i * {} / {issued}, {first} + i * {} / {issued} + {LIFETIME_SECS}",
                last - first,
                last - first
            )
        };
        let [drop, insert, index] = match self {
            Self::Sqlite(_) => [
                "DROP INDEX issued_by_session; DROP INDEX issued_by_issue; DROP INDEX issued_by_expiry"
                    .to_owned(),
                format!(
                    "WITH RECURSIVE numbers (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM numbers WHERE i < {issued} - 1), \
                     tokens AS MATERIALIZED (SELECT i, random() AS p FROM numbers) INSERT INTO issued ({columns}) {} \
                     FROM tokens WHERE true ON CONFLICT DO NOTHING",
                    rows(
                        "p",
                        "printf('%016x', p) || lower(hex(randomblob(24)))",
                        "lower(hex(randomblob(16)))"
                    )
                ),
                "SELECT '1'".to_owned(),
            ],
            Self::Postgres(_) => [
                "ALTER TABLE issued DROP CONSTRAINT issued_pkey; DROP INDEX issued_by_session; \
                 DROP INDEX issued_by_issue; DROP INDEX issued_by_expiry"
                    .to_owned(),
                format!(
                    "WITH tokens AS MATERIALIZED (SELECT i, md5(i || 'a') || md5(i || 'b') AS f \
                     FROM generate_series(0::bigint, {issued} - 1) i) INSERT INTO issued ({columns}) {} FROM tokens",
                    rows("('x' || substr(f, 1, 16))::bit(64)::bigint", "f", "md5(i || 'c')")
                ),
                "ALTER TABLE issued ADD PRIMARY KEY (prefix)".to_owned(),
            ],
        };
        self.run(&[
            &drop,
            &insert,
            &index,
            "CREATE INDEX issued_by_session ON issued (session_id)",
            "CREATE INDEX issued_by_issue ON issued (issued_at)",
            "CREATE INDEX issued_by_expiry ON issued (expires_at)",
            // Of as many versions as revocations usually have.
            &insert_revocations(FIRST, "version - (prefix & 1048575)"),
            "ANALYZE",
        ])
        .await?;
        Ok(())
    }

    /// Revokes tokens like another server, and returns their number.
    async fn revoke(&self, digits: Digits) -> Result<u64> {
        let count = "SELECT CAST(COUNT(*) AS TEXT) FROM revocations";
        let before: u64 = self.run(&[count]).await?.trim().parse()?;
        let last = match self {
            Self::Sqlite(_) => "COMMIT",
            Self::Postgres(_) => "NOTIFY keystile; COMMIT",
        };
        self.run(&[
            "BEGIN",
            "UPDATE bundle_state SET version = version + 1, mark = 1",
            "INSERT INTO version_log (version, mark) SELECT version, mark FROM bundle_state",
            &insert_revocations(digits, "version"),
            last,
        ])
        .await?;
        let after: u64 = self.run(&[count]).await?.trim().parse()?;
        Ok(after - before)
    }
}

/// The tokens whose fingerprints have at this position digits below these: a share of all, with any expiry.
type Digits = (usize, &'static str);

/// 410 of 4,096, a tenth.
const FIRST: Digits = (60, "19a");

/// 9 of 4,096; nine tenths of them are not revoked yet. 19,800 of 10 million.
const MORE: Digits = (57, "009");

fn insert_revocations((position, below): Digits, version: &str) -> String {
    format!(
        "INSERT INTO revocations (prefix, fingerprint, expires_at, version, revoked_at) \
         SELECT prefix, fingerprint, expires_at, (SELECT {version} FROM bundle_state), issued_at FROM issued \
         WHERE substr(fingerprint, {position}, 3) < '{below}' ON CONFLICT DO NOTHING"
    )
}

/// Returns the CPU time for building the blocks of as many tokens, which are in memory in the right order.
fn build_alone(issued: usize) -> Result<f64> {
    let now = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
    };
    let blocks = usize::try_from(ISSUE_SECS / BUCKET_SECS)? + 1;
    let count = issued / blocks;
    let mut seconds = 0.0;
    for number in 0..blocks {
        let digest = |at: usize| Fingerprint::digest(format!("{number}-{at}").as_bytes());
        let mut tokens: Vec<Fingerprint> = (0..count).map(digest).collect();
        tokens.sort_unstable();
        let before = now();
        let build = || {
            let range = ExpiryRange { expires_from: 0, expires_before: 1 };
            let coverage = vec![Coverage { kid: "kid".to_owned(), iat_low: 0, iat_high: 1 }];
            let mut builder = BlockBuilder::new(range, coverage, count / 10, count - count / 10, &[])?;
            for token in &tokens {
                builder.add(*token, token.as_bytes()[31] < 26)?;
            }
            builder.finish()
        };
        build().map_err(|error: BlockError| anyhow::anyhow!("{error}"))?;
        seconds += now() - before;
    }
    Ok(seconds)
}

fn section(Extent { issued, .. }: Extent, peer: f64, runs: &[Run]) -> Result<Section> {
    let method = [format!(
        "{issued} issued tokens that expire over {} hours, a tenth of them revoked. `keystile bundle compact` beside a server that does \
         not compact by itself, while one client issues a token and revokes it, 20 times a second. Then about one in 500 of the others is \
         revoked, at random, so that every shard changes, and the base is compacted again. CPU is that of the command, and what the server, which \
         publishes the new base, and PostgreSQL take in addition to what they take for the client alone. The peer is building \
         the same number of blocks from fingerprints that are in memory, in order.",
        ISSUE_SECS / 3600
    )];
    let figures = json!({ "build_alone_cpu_seconds": peer, "compactions": runs });
    let mut section = Section::new("Compaction", method, figures);
    let delay = |[usual, meanwhile]: [Quantiles; 2]| {
        format!("{:.1} / {:.1}; {:.1} / {:.1}", usual.p50, usual.p99, meanwhile.p50, meanwhile.p99)
    };
    let mut rows = vec![vec!["building alone".to_owned(), String::new(), format!("{peer:.1}")]];
    rows[0].resize(6, String::new());
    rows.extend(runs.iter().map(|run| {
        vec![
            format!("{}, {} ({} revoked)", run.store, run.what, run.new_revocations),
            format!("{:.1}", run.seconds),
            format!(
                "{:.1} = {:.1} + {:.1} + {:.1}",
                run.total_cpu(),
                run.cpu_seconds,
                run.server_cpu_seconds,
                run.database_cpu_seconds
            ),
            format!("{:.0}", run.peak_mb),
            delay(run.issue_ms),
            delay(run.revoke_ms),
        ]
    }));
    section.tables.push(Table {
        caption: String::new(),
        columns: vec![
            "compaction",
            "seconds",
            "CPU, s: total = command + server + PostgreSQL",
            "peak memory, MB",
            "issuing, ms: usual p50 / p99; meanwhile",
            "revoking, ms: likewise",
        ],
        rows,
    });
    for run in runs {
        let what = |what: &str| format!("{}, {}, {what}", run.store, run.what);
        let cpu = if run.what == "first" { 20.0 } else { 2.0 };
        section.budgets.push(Budget::at_most(what("CPU"), run.total_cpu(), cpu, "s"));
        section.budgets.push(Budget::at_most(what("peak memory"), run.peak_mb, 1_000.0, "MB"));
        for (name, [usual, meanwhile]) in [("issuing", run.issue_ms), ("revoking", run.revoke_ms)] {
            let what = what(&format!("{name} meanwhile, p50"));
            section.budgets.push(Budget::at_most(what, meanwhile.p50 / usual.p50, 2.0, "times the usual"));
        }
    }
    let bar = |label: String, value: f64, ours: bool| Bar { label, value, ours };
    let bars = runs.iter().map(|run| bar(format!("{}, {}", run.store, run.what), run.total_cpu(), true));
    section.plots.push(Plot {
        name: "compaction".into(),
        title: "CPU of a compaction".into(),
        unit: "s",
        kind: Kind::Bars(bars.chain([bar("building alone".into(), peer, false)]).collect()),
    });
    Ok(section)
}

/// The tokens were issued in this time, and live as long as a token can.
const ISSUE_SECS: u64 = 40 * 3600;
const LIFETIME_SECS: u64 = 48 * 3600;

/// The expiry of the tokens of a block.
const BUCKET_SECS: u64 = 6 * 3600;

/// The longest compaction.
const LIMIT: Duration = Duration::from_secs(300);
