//! An open stream ends within a second when its credential would be refused: a WebSocket, server-sent events, a gRPC
//! stream, an upload, a download, a long poll. Every other stream lives on.

use std::time::{Duration, Instant};

use bundle::Scope;
use harness::envoy::Settings;
use harness::fake_control_plane::{TestSigner, now_ms, plugin_configuration};
use harness::streams::{BEAT, Client, End, Kind, OpenStream, StreamUpstream, Version};
use harness::{Deployment, FakeControlPlane, Options, Scratch, eventually, tools};
use serde_json::{Value, json};
use token::mint::SigningKey;
use token::{Algorithm, Claims, Fingerprint, VerifyingKey};
use verdict::permission::Permissions;

use crate::filter_crash::{trap, trapping};

/// The promise is one second; a busy machine gets more time. `make bench ONLY=streams` prints the delays.
const DEADLINE: Duration = Duration::from_secs(10);

const HTTP1: [Kind; 5] = [Kind::WebSocket, Kind::Events, Kind::Download, Kind::Upload, Kind::Poll];

/// Every kind that an upstream with HTTP/1.1 serves.
fn kinds() -> Vec<(Kind, Version)> {
    let over = |version| HTTP1.into_iter().map(move |kind| (kind, version));
    over(Version::Http1).chain(over(Version::Http2)).collect()
}

/// An edge in front of an upstream with streams.
struct Edge {
    control_plane: FakeControlPlane,
    client: Client,
    upstream: StreamUpstream,
    /// The start, in seconds since the Unix epoch.
    began: u64,
}

impl Edge {
    async fn start(members: Value, prepare: impl FnOnce(&mut Settings)) -> Self {
        Self::start_with_beat(BEAT, members, prepare).await
    }

    async fn start_with_beat(beat: Duration, members: Value, prepare: impl FnOnce(&mut Settings)) -> Self {
        let scratch = Scratch::new().unwrap();
        let mut configuration = plugin_configuration(&TestSigner::new(1));
        configuration.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        let mut settings = Settings::for_scratch(&scratch, configuration).unwrap();
        settings.upgrades = true;
        settings.route_timeout_seconds = 0;
        settings.max_upstream_streams = 20_000;
        prepare(&mut settings);
        let upstream = StreamUpstream::start(settings.upstream, beat).await.unwrap();
        let control_plane = FakeControlPlane::start_before_upstream(scratch, settings).await;
        let client = Client::new(control_plane.envoy.address(), beat);
        Self { control_plane, client, upstream, began: now_ms() / 1000 }
    }

    /// Opens `count` streams of each kind.
    async fn open(
        &self,
        kinds: &[(Kind, Version)],
        prefix: &str,
        token: &str,
        count: usize,
    ) -> Vec<OpenStream> {
        let mut streams = Vec::new();
        for (kind, version) in kinds {
            for _ in 0..count {
                streams.push(self.client.open(*kind, *version, prefix, token).await.unwrap());
            }
        }
        streams
    }

    /// Waits until the upstream has this many streams.
    async fn at_upstream(&self, streams: usize) {
        let expected = u64::try_from(streams).unwrap();
        eventually("the upstream has the open streams", async || {
            let open = self.upstream.open();
            anyhow::ensure!(open == expected, "{open} instead of {expected}");
            Ok(())
        })
        .await;
    }

    /// A token with these changes, issued some seconds before the start.
    fn token(&self, age: u64, change: impl FnOnce(&mut Claims)) -> String {
        let mut claims = self.control_plane.claims();
        claims.iat = self.began - age;
        change(&mut claims);
        self.control_plane.mint(&claims)
    }

    fn grant(&mut self, subject: &str) {
        let statements = r#"{"statements":[{"effect":"allow","api":"Stream:open"}]}"#;
        let permissions = Permissions::from_json(statements.as_bytes()).unwrap();
        self.control_plane.content.set_grant(subject, permissions.as_bytes()).unwrap();
    }

    /// The counter of ended streams. The filter passes it to Envoy in its next tick.
    async fn counted(&self, code: &str, expected: usize) {
        eventually("the streams are counted", async || {
            let counted = self.control_plane.envoy.metric(&format!("keystile_ended_{code}")).await?;
            anyhow::ensure!(counted == expected as u64, "{code}: {counted} instead of {expected}");
            Ok(())
        })
        .await;
    }
}

/// All streams have ended: those without a response are answered, the others are cut off.
async fn all_ended(streams: Vec<OpenStream>, status: u16, code: &str) {
    for stream in streams {
        let (kind, version) = (stream.kind, stream.version);
        let End { status: got, body, is_cut_off, .. } = stream.ended_within(DEADLINE).await.unwrap();
        let what = format!("{kind:?} over {version:?}, {code}: {got} {body}");
        if kind.has_response() {
            assert!(is_cut_off, "{what}");
        } else {
            assert!(!is_cut_off, "{what}");
            assert_eq!(got, status, "{what}");
            let body: Value = serde_json::from_str(&body).unwrap_or_else(|_| panic!("{what}"));
            assert_eq!(body["code"], code, "{what}");
        }
    }
}

/// All streams are open, and data continues to arrive where the upstream sends any.
async fn all_alive(streams: &[OpenStream], when: &str) {
    let before: Vec<u64> = streams.iter().map(OpenStream::received).collect();
    for (stream, before) in streams.iter().zip(before) {
        let what = format!("{when}: {:?} over {:?}", stream.kind, stream.version);
        assert!(stream.is_open(), "{what} has ended");
        if stream.kind.has_response() {
            eventually(&what, async || if stream.received() > before { Ok(()) } else { Err("no data") })
                .await;
        }
        assert!(stream.is_open(), "{what} has ended");
    }
}

/// Changes what the edge knows, so that a token of `victim` is refused.
type Change = fn(&mut Edge, &Claims, &str);

/// Refuses credentials that were issued 30 seconds before the start or earlier.
fn raise(edge: &mut Edge, scope: Scope<'_>) {
    raise_to(edge, scope, 30);
}

fn raise_to(edge: &mut Edge, scope: Scope<'_>, age: u64) {
    let instant = edge.began - age;
    assert!(edge.control_plane.content.raise_watermark(edge.control_plane.version, scope, instant));
}

const CAUSES: [(&str, Change, u16, &str); 8] = [
    (
        "fingerprint",
        |edge, _, token| {
            let fingerprint = Fingerprint::digest(token.as_bytes());
            assert!(edge.control_plane.content.revoke(edge.control_plane.version, fingerprint).unwrap());
        },
        401,
        "revoked",
    ),
    ("user", |edge, claims, _| raise(edge, Scope::User(&claims.sub)), 401, "watermark"),
    (
        "AuthKey",
        |edge, claims, _| raise(edge, Scope::AuthKey(claims.akid.as_ref().unwrap())),
        401,
        "watermark",
    ),
    (
        "session",
        |edge, claims, _| raise(edge, Scope::Session(claims.sid.as_ref().unwrap())),
        401,
        "watermark",
    ),
    (
        "operator",
        |edge, claims, _| raise(edge, Scope::Operator(&claims.operator.operator_id)),
        401,
        "watermark",
    ),
    (
        "permission",
        |edge, claims, _| assert!(edge.control_plane.content.remove_grant(&claims.sub)),
        403,
        "permission_denied",
    ),
    ("signing key", |edge, _, _| raise(edge, Scope::SigningKey("key-1")), 401, "watermark"),
    ("all", |edge, _, _| raise_to(edge, Scope::Global, 10), 401, "watermark"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_refuses_a_credential_ends_its_streams_and_no_others() {
    let rules = json!({
        "rules": [
            { "path": "/keep/**", "permission": "Stream:open", "open_streams": "keep" },
            { "path": "/public/**", "access": "public" },
            { "path": "/", "methods": ["GET"] },
            { "path": "/**", "permission": "Stream:open" },
        ],
    });
    let mut edge = Edge::start(rules, |_| ()).await;
    let bob = "OP0000000002/bob";
    edge.grant(bob);
    // Of another holder, and issued after every watermark.
    let survivor = edge.token(1, |claims| {
        claims.sub = bob.into();
        claims.operator.operator_id = "OP0000000002".into();
    });
    let mut workers = edge.control_plane.workers().await;
    let kinds = kinds();
    let mut survivors = Vec::new();
    let mut ended = [("revoked", 0), ("watermark", 0), ("permission_denied", 0)];
    for (cause, change, status, code) in CAUSES {
        let name = cause.to_lowercase().replace(' ', "-");
        let alice = format!("OP0000000001/{name}");
        let mut claims = edge.control_plane.claims();
        // The watermark of the signing key must not refuse the last victim.
        claims.iat = edge.began - if cause == "all" { 20 } else { 60 };
        claims.sub.clone_from(&alice);
        claims.akid = Some(format!("keyId-{name}"));
        claims.sid = Some(format!("api-{name}"));
        // The operator's watermark would also refuse those that come after it.
        if matches!(cause, "permission" | "signing key" | "all") {
            claims.operator.operator_id = "OP0000000003".into();
            claims.sub = alice.replace("OP0000000001", "OP0000000003");
        }
        let victim = edge.control_plane.mint(&claims);
        edge.grant(&claims.sub);
        edge.control_plane.publish();
        for worker in &mut workers {
            eventually("both are granted", async || {
                for token in [&victim, &survivor] {
                    let mut request = harness::client::bearer(token);
                    *request.uri_mut() = "/granted".parse()?;
                    worker.send(request).await?.expect(200)?;
                }
                anyhow::Ok(())
            })
            .await;
        }
        let victims = edge.open(&kinds, "", &victim, 1).await;
        let kept = edge.open(&kinds[..2], "/keep", &victim, 1).await;
        survivors.extend(edge.open(&kinds, "", &survivor, 1).await);
        survivors.extend(edge.open(&kinds[..1], "/public", "no token", 1).await);
        all_alive(&victims, cause).await;

        change(&mut edge, &claims, &victim);
        edge.control_plane.publish();
        ended
            .iter_mut()
            .filter(|(counted, _)| *counted == code)
            .for_each(|(_, count)| *count += victims.len());
        all_ended(victims, status, code).await;
        all_alive(&kept, cause).await;
        all_alive(&survivors, cause).await;
        drop(kept);
        edge.at_upstream(survivors.len()).await;
    }
    for (code, count) in ended {
        edge.counted(code, count).await;
    }
    // Nothing is left behind in the table: those that the clients close are forgotten.
    drop(survivors);
    edge.at_upstream(0).await;
    assert_eq!(edge.control_plane.envoy.metric("keystile_end_failed").await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a2_watermarks_of_holders_of_another_issuer_end_their_streams_and_no_others() {
    const IDP: &str = "https://idp.example";
    let policy = json!({ "issuers": [{ "issuer": IDP, "audiences": ["api"] }] });
    let mut edge = Edge::start(policy, |_| ()).await;
    let [own, theirs] =
        [("key-1", 2), ("theirs", 7)].map(|(kid, seed)| SigningKey::ed25519(kid, &[seed; 32]).unwrap());
    let public = theirs.verifying_key().public_bytes().unwrap();
    let key = VerifyingKey::foreign(IDP, "theirs", Algorithm::EdDsa, public).unwrap();
    edge.control_plane.content.set_verifying_keys([own.verifying_key(), &key]).unwrap();
    edge.control_plane.publish();
    let token = |claims: Value| {
        let mut payload =
            json!({ "iss": IDP, "sub": "u", "aud": "api", "iat": edge.began - 60, "exp": edge.began + 3600 });
        payload.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        theirs.sign(r#"{"alg":"EdDSA","kid":"theirs"}"#, payload.to_string().as_bytes()).expose().to_owned()
    };
    let names = ["sub", "sid", "jti", "azp"].map(|claim| (token(json!({ claim: "x" })), claim));
    let survivor = token(json!({}));
    for (victim, _) in &names {
        edge.control_plane.envoy.wait_admitting(victim).await.unwrap();
    }
    let kinds =
        [(Kind::WebSocket, Version::Http1), (Kind::Events, Version::Http2), (Kind::Poll, Version::Http1)];
    let survivors = edge.open(&kinds, "", &survivor, 1).await;
    for (victim, claim) in &names {
        let victims = edge.open(&kinds, "", victim, 1).await;
        all_alive(&victims, claim).await;
        let name = bundle::foreign_name(IDP, "x");
        let scope = match *claim {
            "sub" => Scope::User(&name),
            "sid" => Scope::IssuerSession(&name),
            "jti" => Scope::TokenId(&name),
            _ => Scope::Client(&name),
        };
        raise(&mut edge, scope);
        edge.control_plane.publish();
        all_ended(victims, 401, "watermark").await;
        all_alive(&survivors, claim).await;
    }
    raise(&mut edge, Scope::Issuer(IDP));
    edge.control_plane.publish();
    all_ended(survivors, 401, "watermark").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_streams_end_with_their_credential() {
    let mut edge = Edge::start(json!({}), |settings| settings.http2_upstream = true).await;
    let kinds = [Kind::Grpc, Kind::Events, Kind::Upload].map(|kind| (kind, Version::Http2));
    let [victim, survivor] = [60, 1].map(|age| edge.token(age, |_| ()));
    let victims = edge.open(&kinds, "", &victim, 5).await;
    let survivors = edge.open(&kinds, "", &survivor, 5).await;
    all_alive(&victims, "before").await;
    raise(&mut edge, Scope::Global);
    edge.control_plane.publish();
    all_ended(victims, 401, "watermark").await;
    all_alive(&survivors, "after").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_when_its_credential_expires() {
    let edge = Edge::start(json!({}), |_| ()).await;
    let now = now_ms() / 1000;
    let expiring = edge.token(60, |claims| claims.exp = Some(now));
    let lasting = edge.token(60, |_| ());
    let kinds = kinds();
    // The leeway is five seconds.
    let victims = edge.open(&kinds, "", &expiring, 2).await;
    let survivors = edge.open(&kinds, "", &lasting, 2).await;
    all_ended(victims, 401, "token_expired").await;
    assert!(now_ms() / 1000 >= now + 5, "not before the end of the leeway");
    all_alive(&survivors, "after the expiry").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_end_when_the_control_plane_is_silent_for_longer_than_the_grace() {
    let members = json!({
        "max_manifest_lifetime_seconds": 4,
        "outage_grace_seconds": 3,
        "rules": [{ "path": "/patient/**", "stale": { "outage_grace_seconds": 3600 } }, { "path": "/**" }],
    });
    let edge = Edge::start(members, |_| ()).await;
    let token = edge.token(10, |_| ());
    edge.control_plane.stop_responding();
    let kinds = kinds();
    let victims = edge.open(&kinds, "", &token, 1).await;
    let survivors = edge.open(&kinds, "/patient", &token, 1).await;
    all_ended(victims, 503, "bundle_stale").await;
    all_alive(&survivors, "after the grace").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_streams_of_each_kind_end_or_live_on() {
    const OF_EACH: usize = 1000;
    let mut edge = Edge::start_with_beat(Duration::from_secs(5), json!({}), |_| ()).await;
    let kinds: Vec<_> = kinds().into_iter().filter(|(kind, _)| *kind != Kind::Poll).collect();
    let [victim, survivor] = [60, 1].map(|age| edge.token(age, |_| ()));
    let victims = edge.open(&kinds, "", &victim, OF_EACH / 2).await;
    let survivors = edge.open(&kinds, "", &survivor, OF_EACH / 2).await;
    edge.at_upstream(victims.len() + survivors.len()).await;
    raise(&mut edge, Scope::Global);
    edge.control_plane.publish();
    let count = victims.len();
    all_ended(victims, 401, "watermark").await;
    all_alive(&survivors, "afterwards").await;
    edge.at_upstream(survivors.len()).await;
    edge.counted("watermark", count).await;
    assert_eq!(edge.control_plane.envoy.metric("keystile_end_failed").await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_access_log_has_the_reason_and_the_holder() {
    let mut edge = Edge::start(json!({}), |_| ()).await;
    let victim = edge.token(60, |claims| claims.sub = "OP0000000001/alice".into());
    let victims =
        edge.open(&[(Kind::WebSocket, Version::Http1), (Kind::Poll, Version::Http2)], "", &victim, 1).await;
    raise(&mut edge, Scope::Global);
    edge.control_plane.publish();
    all_ended(victims, 401, "watermark").await;
    for status in ["101", "401"] {
        let line = format!("{status} keystile_ended_watermark subject=OP0000000001/alice reason=watermark");
        eventually("the access log", async || {
            let log = edge.control_plane.envoy.log();
            if log.contains(&line) { Ok(()) } else { Err(line.clone()) }
        })
        .await;
    }
}

/// The table of streams is lost with the VM. Envoy lets nothing more pass on them, and ends each at its next event.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_passes_on_a_stream_after_its_vm_has_crashed() {
    let folder = tempfile::TempDir::new().unwrap();
    let wasm = trapping(&tools::wasm().unwrap(), folder.path());
    let mut edge = Edge::start(json!({}), |settings| {
        settings.wasm = wasm;
        settings.workers = 1;
    })
    .await;
    let token = edge.token(60, |_| ());
    // Both ends of these send something five times a second.
    let kinds: Vec<_> = kinds().into_iter().filter(|(kind, _)| *kind != Kind::Poll).collect();
    let streams = edge.open(&kinds, "", &token, 5).await;
    all_alive(&streams, "before the crash").await;
    let mut late = harness::client::bearer(&token);
    *late.uri_mut() = "/late".parse().unwrap();
    let late = tokio::spawn(harness::client::send(edge.control_plane.envoy.address(), late));
    edge.at_upstream(streams.len() + 1).await;
    let crashed = harness::client::send(edge.control_plane.envoy.address(), trap(&token)).await.unwrap();
    assert_eq!(crashed.status, 503);
    for stream in streams {
        stream.ended_within(DEADLINE).await.unwrap();
    }
    edge.at_upstream(0).await;
    let late = late.await.unwrap();
    assert!(late.as_ref().is_ok_and(|late| late.status == 503) || late.is_err(), "{late:?}");
    // The next VM watches streams again.
    eventually("the VM is back", async || {
        harness::get(edge.control_plane.envoy.address(), &token).await?.expect(200)
    })
    .await;
    let streams = edge.open(&kinds, "", &token, 1).await;
    raise(&mut edge, Scope::Global);
    edge.control_plane.publish();
    all_ended(streams, 401, "watermark").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_live_through_a_new_configuration_and_still_end_with_their_credential() {
    let scratch_free = |settings: &mut Settings| {
        settings.has_listener_file = true;
        settings.drain_seconds = 600;
    };
    let mut edge = Edge::start(json!({}), scratch_free).await;
    let [victim, survivor] = [60, 1].map(|age| edge.token(age, |_| ()));
    let kinds = kinds();
    let before = edge.open(&kinds, "", &victim, 2).await;
    let mut survivors = edge.open(&kinds, "", &survivor, 2).await;
    all_alive(&before, "before the update").await;

    let mut configuration = edge.control_plane.envoy.settings().plugin_configuration.clone();
    configuration["realm"] = json!("pushed");
    let folder = edge.control_plane.folder().to_owned();
    edge.control_plane.envoy.push_plugin_configuration(configuration, &folder).unwrap();
    eventually("the new configuration is in use", async || {
        let response = harness::client::send(
            edge.control_plane.envoy.address(),
            harness::client::request_without_credential(),
        )
        .await?;
        let challenge = format!("{:?}", response.headers);
        anyhow::ensure!(challenge.contains("pushed"), "{challenge}");
        anyhow::Ok(())
    })
    .await;
    all_alive(&before, "after the update").await;
    all_alive(&survivors, "after the update").await;
    let after = edge.open(&kinds, "", &victim, 2).await;
    survivors.extend(edge.open(&kinds, "", &survivor, 2).await);

    let began = Instant::now();
    raise(&mut edge, Scope::Global);
    edge.control_plane.publish();
    all_ended(before, 401, "watermark").await;
    all_ended(after, 401, "watermark").await;
    assert!(
        began.elapsed() < Duration::from_secs(300),
        "they ended because of the credential, not of the drain"
    );
    all_alive(&survivors, "after the revocation").await;
}

/// A command blocks its thread, and the client must continue.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoke_wait_waits_for_open_streams_and_counts_those_that_a_rule_keeps() {
    let options = Options {
        plugin: |plugin| {
            plugin["rules"] = json!([{ "path": "/keep/**", "open_streams": "keep" }, { "path": "/**" }]);
        },
        envoy: |settings| {
            settings.upgrades = true;
            settings.route_timeout_seconds = 0;
            settings.upstream.set_port(8083);
        },
        ..Options::default()
    };
    let deployment = Deployment::start(options).await.unwrap();
    let _upstream = StreamUpstream::start(deployment.envoy.settings().upstream, BEAT).await.unwrap();
    let (survivor, _) = deployment.admitted_token().await.unwrap();
    let victim = deployment.control_plane.token().await.unwrap();
    let client = Client::new(deployment.envoy.address(), BEAT);
    let (mut victims, mut others) = (Vec::new(), Vec::new());
    for (kind, version) in kinds().into_iter().filter(|(kind, _)| kind.has_response()) {
        victims.push(client.open(kind, version, "", &victim).await.unwrap());
        others.push(client.open(kind, version, "/keep", &victim).await.unwrap());
        others.push(client.open(kind, version, "", &survivor).await.unwrap());
    }
    let done = deployment.control_plane.cli(["revoke", "--wait", "--token", &victim]).unwrap();
    assert_eq!(done["edges"]["enforcing"], json!(["edge"]), "{done}");
    assert_eq!(done["edges"]["kept_streams"], json!(victims.len()), "{done}");
    let listed = deployment.control_plane.cli(["edge", "list"]).unwrap();
    assert_eq!(listed[0]["kept_streams"], json!(victims.len()), "{listed}");
    all_ended(victims, 401, "revoked").await;
    all_alive(&others, "after the revocation").await;
}
