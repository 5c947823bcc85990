//! Who enforces which version, and waiting for all of them to.

use serde_json::{Value, json};

use crate::{
    on_both,
    world::{Server, World, eventually, tag, text, version},
};

on_both! {
    async fn the_list_tells_who_enforces_what(world: World) {
        let credentials = ["one", "two", "three"].map(|name| world.edge(name));
        let server = world.serve();
        let first = server.manifest(&credentials[0], 0, 0).send().await.unwrap();
        let (have, known) = (version(first.headers()), tag(first.headers()));
        let status = format!("version={have}; workers=4; oldest={have}; lagging=0");
        tell(&server, &credentials[0], have, &known, &status).await;
        tell(&server, &credentials[1], have, &known, &format!("version={have}; workers=4; oldest=7; lagging=3")).await;
        let fleet = listed(&world, |fleet| fleet[0]["enforces"] == json!(have) && fleet[2]["enforces"] == json!(7)).await;
        for (name, expected) in [
            ("state", ["live", "unseen", "live"].map(Value::from)),
            ("version", [json!(have), Value::Null, json!(have)]),
            ("enforces", [json!(have), Value::Null, json!(7)]),
            ("current", [json!(true), json!(false), json!(false)]),
            ("behind", [json!(0), Value::Null, json!(0)]),
            ("workers", [json!(4), Value::Null, json!(4)]),
            ("workers_lagging", [json!(0), Value::Null, json!(3)]),
        ] {
            // By name: one, three, two.
            assert_eq!([0, 1, 2].map(|at| fleet[at][name].clone()), expected, "{name}: {fleet:#}");
        }
        assert!(fleet[0]["age_seconds"].as_u64().unwrap() < 60);

        world.json(&["revoke", "--token", &world.token()]);
        let fleet = world.json(&["edge", "list"]);
        assert_eq!((&fleet[0]["current"], &fleet[0]["behind"]), (&json!(false), &json!(1)));
    }

    /// What an edge says of itself is bounded and strict; whatever it says, it gets its manifest.
    async fn what_an_edge_says_is_read_strictly(world: World) {
        let credential = world.edge("one");
        let server = world.serve();
        let first = server.manifest(&credential, 0, 0).send().await.unwrap();
        let (have, known) = (version(first.headers()), tag(first.headers()));
        let long = format!("version=1;{} workers=1; oldest=1; lagging=0", " ".repeat(300));
        for status in [
            "", "version=1", "version=1; workers=2; oldest=1", "version=1; workers=2; oldest=1; lagging=3",
            "workers=2; version=1; oldest=1; lagging=0", "version=1; workers=0; oldest=1; lagging=0",
            "version=1; workers=-2; oldest=1; lagging=0", "version=1; workers=2; oldest=x; lagging=0",
            "version=1; workers=2; oldest=1; lagging=0; more=1", "version=1; workers=+2; oldest=1; lagging=0",
            "version=1; workers=99999999; oldest=1; lagging=0", "version=18446744073709551616; workers=1; oldest=1; lagging=0",
            &long,
        ] {
            let request = server.manifest(&credential, have, 0).header("x-keystile-edge-status", status);
            assert_eq!(request.send().await.unwrap().status(), 200, "{status}");
        }
        let fleet = listed(&world, |fleet| fleet[0]["version"] == json!(have)).await;
        assert_eq!(fleet[0]["workers"], Value::Null);
        tell(&server, &credential, have, &known, "version=1; workers=2; oldest=1; lagging=1").await;
        listed(&world, |fleet| fleet[0]["workers"] == json!(2)).await;
    }

    /// Over two servers on PostgreSQL; over the only one on SQLite.
    async fn waiting_ends_when_every_live_edge_enforces_it(world: World) {
        let credentials = ["one", "two"].map(|name| world.edge(name));
        world.edge("never-started");
        let here = world.serve();
        let there = world.url.starts_with("postgres").then(|| world.serve());
        let there = there.as_ref().unwrap_or(&here);
        let victims = [world.token(), world.token()];
        // Edges that take every version as soon as there is one, and say so.
        let edges = [(&here, &credentials[0]), (there, &credentials[1])].map(|(server, credential)| {
            let follow = |have: u64, known: String| {
                let status = format!("version={have}; workers=2; oldest={have}; lagging=0");
                let request = server.manifest(credential, have, 5).header("x-keystile-edge-status", status);
                request.header("if-none-match", known).send()
            };
            async move {
                let mut held = (0, String::new());
                loop {
                    let response = follow(held.0, held.1.clone()).await.unwrap();
                    if response.status() == 200 {
                        held = (version(response.headers()), tag(response.headers()));
                    }
                }
            }
        });
        let [first, second] = edges;
        let follow = async { tokio::join!(first, second) };
        let root = text(&here.exchange(&world.auth_key_id, &world.auth_key).await["token"]);
        let revoke = async {
            listed(&world, |fleet| [1, 2].iter().all(|at| fleet[*at]["current"] == json!(true))).await;
            let path = "/revocations?wait=8";
            let response = here.post(path, &json!({ "token": victims[0] })).bearer_auth(&root).send().await.unwrap();
            assert_eq!(response.status(), 200);
            let answer: Value = response.json().await.unwrap();
            assert_eq!(answer["edges"], json!({ "enforcing": 2, "lagging": 0, "silent": 0, "unseen": 1 }), "{answer}");
            let command = world.command(&["revoke", "--wait", "--json", "--token", &victims[1]]);
            let output = tokio::process::Command::from(command).output().await.unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(answer["edges"], json!({ "enforcing": ["one", "two"], "lagging": [], "silent": [], "may_admit": [], "unseen": ["never-started"] }));
        };
        tokio::select! {
            _ = follow => unreachable!("edges follow for ever"),
            () = revoke => {}
        }
    }

    async fn waiting_names_those_that_do_not_enforce_it(world: World) {
        let credentials = ["behind", "split"].map(|name| world.edge(name));
        let server = world.serve();
        let first = server.manifest(&credentials[0], 0, 0).send().await.unwrap();
        let (have, known) = (version(first.headers()), tag(first.headers()));
        tell(&server, &credentials[0], have, &known, &format!("version={have}; workers=1; oldest={have}; lagging=0")).await;
        listed(&world, |fleet| fleet[0]["version"] == json!(have)).await;
        // One whose leader is far ahead, but whose workers are not.
        let far = have + 1_000_000;
        tell(&server, &credentials[1], far, &known, &format!("version={far}; workers=2; oldest={have}; lagging=1")).await;
        listed(&world, |fleet| fleet[1]["version"] == json!(far)).await;
        let output = world.run(&["revoke", "--wait", "--timeout", "300ms", "--json", "--token", &world.token()]);
        assert_eq!(output.status.code(), Some(4));
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(answer["edges"]["lagging"], json!(["behind", "split"]));
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert!(complaint.contains("after 300ms these live edges do not enforce version"), "{complaint}");
        assert!(complaint.contains("behind, split"), "{complaint}");
    }

    /// What it holds is not ours: a thief of the tail key ran its version up, or a backup was restored.
    async fn an_edge_above_every_version_is_lagging(world: World) {
        let credential = world.edge("beyond");
        let server = world.serve();
        let have = version(server.manifest(&credential, 0, 0).send().await.unwrap().headers()) + 10_000_000;
        tell(&server, &credential, have, "", &format!("version={have}; workers=1; oldest={have}; lagging=0")).await;
        let fleet = listed(&world, |fleet| fleet[0]["version"] == json!(have)).await;
        assert_eq!((&fleet[0]["current"], &fleet[0]["behind"]), (&json!(false), &Value::Null));
        let output = world.run(&["revoke", "--wait", "--timeout", "300ms", "--json", "--token", &world.token()]);
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(answer["edges"], json!({ "enforcing": [], "lagging": ["beyond"], "silent": [], "may_admit": [], "unseen": [] }));
    }

    /// One that was heard of within the grace may still admit, whether it answers or not.
    async fn a_silent_edge_is_no_success(world: World) {
        let mut world = world;
        world.set("KEYSTILE_PUBLISHER__LIFETIME", "1s");
        world.set("KEYSTILE_PUBLISHER__RESIGN", "500ms");
        let credentials = ["gone", "here"].map(|name| world.edge(name));
        let server = world.serve();
        let wait = |world: &World| {
            let fingerprint = token::Fingerprint::digest(world.token().as_bytes()).to_string();
            world.run(&["revoke", "--wait", "--timeout", "300ms", "--json", "--fingerprint", &fingerprint])
        };
        // Nobody has ever asked.
        let output = wait(&world);
        assert_eq!(output.status.code(), Some(4), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("no live edge enforces version"), "{output:?}");

        server.manifest(&credentials[0], 0, 0).send().await.unwrap();
        listed(&world, |fleet| fleet[0]["state"] == "silent").await;
        let output = wait(&world);
        assert_eq!(output.status.code(), Some(4), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("may still admit it: gone"), "{output:?}");
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(answer["edges"], json!({ "enforcing": [], "lagging": [], "silent": ["gone"], "may_admit": ["gone"], "unseen": ["here"] }));

        // Past its grace it refuses by itself.
        world.set("KEYSTILE_PUBLISHER__OUTAGE_GRACE", "0s");
        let followed = async {
            loop {
                follow(&server, &credentials[1]).await;
            }
        };
        let done = async {
            listed(&world, |fleet| fleet[1]["state"] == "live" && fleet[1]["current"] == true).await;
            let fingerprint = token::Fingerprint::digest(world.token().as_bytes()).to_string();
            let command = world.command(&["revoke", "--wait", "--json", "--fingerprint", &fingerprint]);
            let output = tokio::process::Command::from(command).output().await.unwrap();
            assert!(output.status.success(), "{output:?}");
            let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(answer["edges"]["enforcing"], json!(["here"]));
            assert_eq!(answer["edges"]["silent"], json!(["gone"]));
            assert_eq!(answer["edges"]["may_admit"], json!([]));
        };
        tokio::select! {
            () = followed => unreachable!("it follows for ever"),
            () = done => {}
        }
    }

    /// It asks and asks, and nothing newer reaches it: a proxy before the control plane has less patience.
    async fn an_edge_that_nothing_newer_reaches_is_stale(world: World) {
        let mut world = world;
        world.set("KEYSTILE_PUBLISHER__LIFETIME", "2s");
        world.set("KEYSTILE_PUBLISHER__RESIGN", "500ms");
        let credentials = ["empty", "good", "stale"].map(|name| world.edge(name));
        let server = world.serve();
        let first = server.manifest(&credentials[2], 0, 0).send().await.unwrap();
        let (have, known) = (version(first.headers()), tag(first.headers()));
        let tell_all = async || {
            server.manifest(&credentials[0], 0, 0).header("if-none-match", "\"0-0\"").send().await.unwrap();
            follow(&server, &credentials[1]).await;
            tell(&server, &credentials[2], have, &known, &format!("version={have}; workers=1; oldest={have}; lagging=0")).await;
        };
        let fleet = eventually("the state", async || {
            tell_all().await;
            let fleet = world.json(&["edge", "list"]);
            // The machine may be too busy for the others now and then.
            let states = [0, 1, 2].map(|at| fleet[at]["state"].clone());
            (states == ["live", "live", "stale"]).then_some(fleet)
        })
        .await;
        for member in ["enforces", "version", "behind", "age_seconds"] {
            assert_eq!(fleet[0][member], Value::Null, "{member}: {fleet:#}");
        }
        let table = String::from_utf8(world.run(&["edge", "list"]).stdout).unwrap();
        let row: Vec<&str> = table.lines().find(|line| line.starts_with("empty")).unwrap().split_whitespace().collect();
        assert_eq!(row[..5], ["empty", "live", "-", "-", "-"], "{table}");
        eventually("the doctor's word", async || {
            tell_all().await;
            let findings = world.json(&["doctor"]);
            let found = findings.as_array().unwrap().iter().find(|finding| finding["what"] == "edges").unwrap();
            let detail = found["detail"].as_str().unwrap().split(';').next().unwrap();
            (found["state"] == "note" && detail == "stale, because they receive no newer bundle: stale").then_some(())
        })
        .await;
    }
}

/// Takes what is published, and says so.
async fn follow(server: &Server, credential: &str) {
    let response = server.manifest(credential, 0, 0).send().await.unwrap();
    let (have, known) = (version(response.headers()), tag(response.headers()));
    tell(server, credential, have, &known, &format!("version={have}; workers=1; oldest={have}; lagging=0"))
        .await;
}

async fn tell(server: &Server, credential: &str, have: u64, known: &str, status: &str) {
    let request = server.manifest(credential, have, 0).header("x-keystile-edge-status", status);
    let response = request.header("if-none-match", known).send().await.unwrap();
    assert!([200, 304].contains(&response.status().as_u16()));
}

/// The list, once it is as it is to be.
async fn listed(world: &World, probe: impl Fn(&Value) -> bool) -> Value {
    eventually("the list of edges", async || {
        let fleet = world.json(&["edge", "list"]);
        probe(&fleet).then_some(fleet)
    })
    .await
}
