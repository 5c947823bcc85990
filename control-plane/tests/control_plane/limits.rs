//! What one address and one operator may do, and what is never refused.

use std::collections::BTreeSet;

use reqwest::Response;
use serde_json::{Value, json};

use crate::{
    on_both,
    world::{Server, World, eventually, text},
};

#[tokio::test]
async fn an_address_has_a_rate_that_edges_are_exempt_from() {
    let mut world = World::on_sqlite().await;
    world.set("KEYSTILE_SERVER__REQUESTS_PER_SECOND", "1");
    let credential = world.edge("one");
    let server = world.serve();
    let mut refused = 0;
    for _ in 0..30 {
        let response = server.get("/healthz").send().await.unwrap();
        if response.status() != 200 {
            limited(response, "address_rate_exceeded").await;
            refused += 1;
        }
    }
    assert!(refused > 5, "{refused} of 30");
    let unknown = server.get("/edge/v1/manifest").bearer_auth("ks_edge_nobody").send().await.unwrap();
    assert_eq!(unknown.status(), 429);
    // What has been seen good once is known.
    let manifest = async || server.manifest(&credential, 0, 0).send().await.unwrap().status();
    eventually("the edge's first request", async || (manifest().await == 200).then_some(())).await;
    for _ in 0..30 {
        assert_eq!(manifest().await, 200);
    }
    world.json(&["edge", "remove", "one", "--yes"]);
    assert_eq!(server.manifest(&credential, 0, 0).send().await.unwrap().status(), 401);
}

#[tokio::test]
async fn behind_a_trusted_proxy_every_client_has_its_own_rate() {
    let mut world = World::on_sqlite().await;
    world.set("KEYSTILE_SERVER__REQUESTS_PER_SECOND", "1");
    world.set("KEYSTILE_SERVER__TRUSTED_PROXIES", "127.0.0.0/8, 10.0.0.1");
    let server = world.serve();
    let ask = async |forwarded: &str| {
        let response = server.get("/healthz").header("x-forwarded-for", forwarded).send().await.unwrap();
        response.status().as_u16()
    };
    let used_up = async |client: &str| {
        eventually("the end of a rate", async || (ask(client).await == 429).then_some(())).await;
    };
    used_up("198.51.100.1").await;
    assert_eq!(ask("198.51.100.2").await, 200);
    // What stands further left the client has written itself.
    used_up("203.0.113.77, 198.51.100.3, 10.0.0.1").await;
    let mut answers = BTreeSet::new();
    for last in 0..10 {
        answers.insert(ask(&format!("203.0.113.{last}, 198.51.100.3, 10.0.0.1")).await);
    }
    assert!(answers.contains(&429), "{answers:?}");
    // A network of 64 bits is one client.
    used_up("2001:db8:1:2::1").await;
    let mut answers = BTreeSet::new();
    for last in 2..12 {
        answers.insert(ask(&format!("2001:db8:1:2:{last}::1")).await);
    }
    assert!(answers.contains(&429), "{answers:?}");
    assert_eq!(ask("2001:db8:1:3::1").await, 200);
}

#[tokio::test]
async fn a_wrong_auth_key_costs_more_and_keeps_no_owner_out() {
    let mut world = World::on_sqlite().await;
    world.set("KEYSTILE_SERVER__REQUESTS_PER_SECOND", "2");
    world.set("KEYSTILE_SERVER__TRUSTED_PROXIES", "127.0.0.1");
    let server = world.serve();
    let sign_in = async |from: &str, secret: &str| {
        let body = json!({ "authKeyId": world.auth_key_id, "authKey": secret });
        let request = server.post("/v1/auth", &body).header("x-forwarded-for", from);
        request.send().await.unwrap()
    };
    let mut looked_at = 0;
    loop {
        let response = sign_in("198.51.100.1", "secret-wrong").await;
        if response.status() == 429 {
            limited(response, "address_rate_exceeded").await;
            break;
        }
        assert_eq!(response.status(), 401);
        looked_at += 1;
        assert!(looked_at < 20, "as many as requests");
    }
    assert_eq!(sign_in("198.51.100.2", &world.auth_key).await.status(), 200, "the owner, from elsewhere");
}

#[tokio::test]
async fn an_operator_has_so_many_tokens_in_a_minute() {
    let mut world = World::on_sqlite().await;
    world.set("KEYSTILE_LIMITS__TOKENS_PER_MINUTE", "3");
    let (_, foreigner) = world.foreigner().await;
    let server = world.serve();
    for _ in 0..3 {
        server.exchange(&world.auth_key_id, &world.auth_key).await;
    }
    let body = json!({ "authKeyId": world.auth_key_id, "authKey": world.auth_key });
    limited(server.post("/v1/auth", &body).send().await.unwrap(), "operator_tokens_exceeded").await;
    server.exchange(foreigner.id.as_str(), foreigner.secret.expose()).await;
    // An admin is not counted.
    let token = world.token();
    assert_eq!(server.verdict(&world, &token).await.0, 200);
    let limited = server.metric(r#"keystile_requests_limited_total{code="operator_tokens_exceeded"}"#);
    assert_eq!(limited.await.unwrap(), "1");
}

#[tokio::test]
async fn users_that_revoke_without_end_keep_the_root_user_from_nothing() {
    let mut world = World::on_sqlite().await;
    world.set("KEYSTILE_LIMITS__REVOCATIONS_PER_MINUTE", "2");
    let alice = format!("{}/alice", world.operator);
    let document = json!({ "statements": [{ "effect": "allow", "api": ["Revocation:*"] }] });
    let document = world.document("all", &document);
    world.json(&["user", "create", &alice]);
    world.json(&["user", "permission", "set", &alice, &document]);
    let of_alice = || {
        let issued = world.json(&["token", "issue", "--operator", &world.operator, "--user", "alice"]);
        text(&issued["token"])
    };
    let (root, token, victim) = (world.token(), of_alice(), of_alice());
    let server = world.serve();
    let revoke = async |by: &str| server.revoke(by, json!({ "token": victim })).await;
    assert_eq!(revoke(&token).await.status(), 200);
    assert_eq!(revoke(&token).await.status(), 200);
    limited(revoke(&token).await, "operator_revocations_exceeded").await;
    assert_eq!(revoke(&root).await.status(), 200);
    assert_eq!(revoke(&root).await.status(), 200);
    limited(revoke(&root).await, "operator_revocations_exceeded").await;
    // Neither logging out nor a command is ever refused.
    assert_eq!(
        server.post("/v1/auth/logout", &json!({})).bearer_auth(&token).send().await.unwrap().status(),
        204
    );
    let another = of_alice();
    world.json(&["revoke", "--token", &another]);
    server.eventually(&world, &another, 401, "revoked").await;
}

on_both! {
    /// However much it has revoked: what it asks for holds, and its edges hold no more of it.
    async fn past_its_share_a_revocation_of_an_operator_is_merged_and_never_lost(world: World) {
        let mut world = world;
        world.set("KEYSTILE_LIMITS__REVOCATIONS", "3");
        let server = world.serve();
        let session = async || server.exchange(&world.auth_key_id, &world.auth_key).await;
        let log_out = async |token: &str| {
            let request = server.post("/v1/auth/logout", &json!({})).bearer_auth(token);
            assert_eq!(request.send().await.unwrap().status(), 204);
        };
        let others = world.token_of_another_auth_key();
        for _ in 0..3 {
            log_out(&text(&session().await["token"])).await;
        }
        let held = revocations(&server).await;
        // Logging out, a token, its fingerprint, its session.
        let (one, two, three, four) = (session().await, session().await, session().await, session().await);
        log_out(&text(&one["token"])).await;
        assert_eq!(server.verdict(&world, &text(&one["token"])).await, (401, "watermark".to_owned()));
        for (session, what) in [
            (&two, json!({ "token": two["token"] })),
            (&three, json!({ "fingerprint": fingerprint(&three) })),
            (&four, json!({ "keyId": four["apiKey"] })),
        ] {
            let answer: Value = server.revoke(&others, what).await.json().await.unwrap();
            assert_eq!(answer["scope"], world.auth_key_id, "{answer}");
            assert!(answer["instant"].is_u64() && answer["fingerprint"].is_null(), "{answer}");
            let verdict = server.verdict(&world, &text(&session["token"])).await;
            assert_eq!(verdict, (401, "watermark".to_owned()));
        }
        assert_eq!(revocations(&server).await, held);
        // What comes afterwards is good, and so is what comes of another AuthKey.
        assert_eq!(server.verdict(&world, &text(&session().await["token"])).await.0, 200);
        assert_eq!(server.verdict(&world, &others).await.0, 200);
        // An AuthKey that is deleted would add to it: none is made.
        let path = format!("/v1/operators/{}/auth_keys", world.operator);
        let made = server.post(&path, &json!({})).bearer_auth(&others).send().await.unwrap();
        limited(made, "operator_limit_reached").await;
        // An admin revokes what it names and no more, and sees whose share is used up.
        let single = session().await;
        world.json(&["revoke", "--fingerprint", &fingerprint(&single)]);
        server.eventually(&world, &text(&single["token"]), 401, "revoked").await;
        let findings = world.json(&["doctor"]);
        let limits = findings.as_array().unwrap().iter().find(|finding| finding["what"] == "limits").unwrap();
        assert_eq!(limits["state"], "note", "{limits}");
        assert!(text(&limits["detail"]).contains(&format!("{} has the most: 3 of 3", world.operator)), "{limits}");
    }

    /// At two servers at once, of which each counts what the other adds.
    async fn a_user_has_so_many_auth_keys(world: World) {
        let mut world = world;
        world.set("KEYSTILE_LIMITS__AUTH_KEYS", "10");
        let servers = [world.serve(), world.serve()];
        let token = world.token();
        let path = format!("/v1/operators/{}/auth_keys", world.operator);
        let requests = (0..24).map(|number| {
            let request = servers[number % 2].post(&path, &json!({})).bearer_auth(&token);
            tokio::spawn(async move { request.send().await.unwrap() })
        });
        let requests: Vec<_> = requests.collect();
        let mut made = 0;
        for request in requests {
            let response = request.await.unwrap();
            if response.status() == 201 {
                made += 1;
            } else {
                limited(response, "operator_limit_reached").await;
            }
        }
        assert_eq!(made, 9, "beside the one from the beginning");
        // Of each user.
        world.json(&["authkey", "create", "--operator", &world.operator, "--user", "alice"]);
        let complaint = world.complaint(&["authkey", "create", "--operator", &world.operator]);
        assert!(complaint.contains("`limits.auth_keys`"), "{complaint}");
        // One that is deleted makes room.
        let listed: Value = servers[0].get(&path).bearer_auth(&token).send().await.unwrap().json().await.unwrap();
        let last = text(&listed.as_array().unwrap().last().unwrap()["authKeyId"]);
        world.json(&["authkey", "delete", &last, "--yes"]);
        world.json(&["authkey", "create", "--operator", &world.operator]);
    }

    async fn an_operator_has_so_many_users_roles_and_api_keys(world: World) {
        let mut world = world;
        for limit in ["USERS", "ROLES", "API_KEYS"] {
            world.set(
                match limit {
                    "USERS" => "KEYSTILE_LIMITS__USERS",
                    "ROLES" => "KEYSTILE_LIMITS__ROLES",
                    _ => "KEYSTILE_LIMITS__API_KEYS",
                },
                "2",
            );
        }
        let document = world.document("none", &json!({ "statements": [] }));
        let user = |number: u32| format!("{}/user-{number}", world.operator);
        let mut keys = Vec::new();
        for number in 0..2 {
            world.json(&["user", "create", &user(number)]);
            world.json(&["role", "create", &world.operator, &format!("role-{number}"), &document]);
            keys.push(text(&world.json(&["key", "create", "--user", &user(0)])["key_id"]));
        }
        for (command, setting) in [
            (vec!["user", "create", &user(2)], "limits.users"),
            (vec!["key", "create", "--user", &user(2)], "limits.users"),
            (vec!["role", "create", &world.operator, "role-2", &document], "limits.roles"),
            (vec!["key", "create", "--user", &world.operator], "limits.api_keys"),
        ] {
            let complaint = world.complaint(&command);
            assert!(complaint.contains(setting), "{command:?}: {complaint}");
        }
        // A leaked key is replaced at any time.
        world.json(&["key", "rotate", &keys[0], "--grace", "0", "--yes"]);
        let (other, _) = world.foreigner().await;
        world.json(&["key", "create", "--user", other.operator.as_str()]);
    }

    async fn lists_have_pages(world: World) {
        let mut world = world;
        world.set("KEYSTILE_LIMITS__AUTH_KEYS", "0");
        let (token, server) = (world.token(), world.serve());
        let path = format!("/v1/operators/{}/auth_keys", world.operator);
        let mut made = BTreeSet::from([world.auth_key_id.clone()]);
        for _ in 0..104 {
            let response = server.post(&path, &json!({})).bearer_auth(&token).send().await.unwrap();
            made.insert(text(&response.json::<Value>().await.unwrap()["authKeyId"]));
        }
        let ask = async |query: &str| {
            let response = server.get(&format!("{path}{query}")).bearer_auth(&token).send().await.unwrap();
            assert_eq!(response.status(), 200);
            let next = response.headers().get("x-soracom-next-key").map(|next| next.to_str().unwrap().to_owned());
            let listed: Vec<Value> = response.json().await.unwrap();
            (listed.iter().map(|key| text(&key["authKeyId"])).collect::<Vec<_>>(), next)
        };
        let (first, next) = ask("").await;
        assert_eq!(first.len(), 100);
        let (last, end) = ask(&format!("?limit=5&last_evaluated_key={}", next.unwrap())).await;
        assert_eq!((last.len(), end), (5, None));
        assert_eq!(first.into_iter().chain(last).collect::<BTreeSet<_>>(), made);
        for query in ["?limit=0", "?limit=1001", "?limit=x", "?last_evaluated_key=x", "?page=1"] {
            let response = server.get(&format!("{path}{query}")).bearer_auth(&token).send().await.unwrap();
            assert_eq!(response.status(), 400, "{query}");
        }

        for name in ["b", "a", "c"] {
            world.edge(name);
            world.json(&["operator", "create"]);
            world.json(&["user", "create", &format!("{}/{name}", world.operator)]);
            let document = world.document("none", &json!({ "statements": [] }));
            world.json(&["role", "create", &world.operator, name, &document]);
            world.json(&["key", "create", "--user", &world.operator]);
        }
        let operator = world.operator.clone();
        for list in [
            vec!["edge", "list"],
            vec!["operator", "list"],
            vec!["user", "list"],
            vec!["role", "list", &operator],
            vec!["key", "list"],
        ] {
            let all = world.json(&list);
            let (mut walked, mut after) = (Vec::new(), None);
            loop {
                let mut command = list.clone();
                command.extend(["--limit", "2", "--json"]);
                command.extend(after.as_deref().map_or(vec![], |after| vec!["--after", after]));
                let output = world.run(&command);
                assert!(output.status.success(), "{command:?}");
                let page: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
                assert!(page.len() <= 2);
                walked.extend(page);
                let hint = String::from_utf8(output.stderr).unwrap();
                let next = hint.lines().find_map(|line| line.strip_prefix("More items: --after "));
                match next {
                    Some(next) => after = Some(next.to_owned()),
                    None => break,
                }
            }
            assert_eq!(Value::Array(walked), all, "{list:?}");
            assert!(all.as_array().unwrap().len() >= 3);
        }
    }

    /// Only its word: no alarm about stolen keys, and no number that nobody published.
    async fn what_an_edge_says_of_itself_is_its_own_claim(world: World) {
        let (liar, honest) = (world.edge("liar"), world.edge("honest"));
        let server = world.serve();
        let max = u64::MAX;
        let path = format!("/edge/v1/manifest?have={max}&epoch={max}");
        let status = format!("version={max}; workers=4; oldest={max}; lagging=0");
        for _ in 0..3 {
            let request = server.get(&path).bearer_auth(&liar).header("x-keystile-edge-status", &status);
            let request = request.header("if-none-match", format!("\"{max}-{max}\""));
            assert_eq!(request.send().await.unwrap().status(), 304);
        }
        let first = server.manifest(&honest, 0, 0).send().await.unwrap();
        let version = crate::world::version(first.headers());
        server.manifest(&honest, version, 0).send().await.unwrap();
        let log = world.log();
        let lines: Vec<&str> = log.lines().filter(|line| line.contains("an edge reports a version above the latest")).collect();
        assert_eq!(lines.len(), 1, "{log}");
        assert!(lines[0].contains("WARN") && lines[0].contains("liar"), "{lines:?}");
        assert!(!log.contains("may be stolen"), "{log}");
        let listed = eventually("both edges", async || {
            let listed = world.json(&["edge", "list"]);
            let edges = listed.as_array().unwrap();
            let seen = edges.iter().all(|edge| !edge["last_seen_at"].is_null())
                && edges.iter().any(|edge| !edge["version"].is_null());
            seen.then_some(listed)
        })
        .await;
        let of = |name: &str| listed.as_array().unwrap().iter().find(|edge| edge["id"] == name).unwrap().clone();
        let liar = of("liar");
        assert_eq!(json!([liar["version"], liar["enforces"], liar["workers"], liar["age_seconds"]]), json!([null, null, null, null]));
        assert_eq!(liar["current"], false);
        assert_eq!(of("honest")["version"], version);
    }
}

/// A problem with its code, and when to try again.
async fn limited(response: Response, code: &str) {
    assert_eq!(response.status(), 429);
    let retry: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&retry), "{retry}");
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let problem: Value = response.json().await.unwrap();
    assert_eq!(problem["code"], code);
    assert_eq!(problem["message"], problem["detail"]);
}

async fn revocations(server: &Server) -> String {
    let metrics = server.get("/metrics").send().await.unwrap().text().await.unwrap();
    metrics.lines().find(|line| line.starts_with("keystile_bundle_revocations ")).unwrap().to_owned()
}

fn fingerprint(session: &Value) -> String {
    token::Fingerprint::digest(text(&session["token"]).as_bytes()).to_string()
}

impl World {
    fn token_of_another_auth_key(&self) -> String {
        let made = self.json(&["authkey", "create", "--operator", &self.operator]);
        let id = text(&made["auth_key_id"]);
        text(&self.json(&["token", "issue", "--auth-key-id", &id])["token"])
    }
}
