//! Operators, users, roles, and what follows from them for the edges.

use std::sync::Arc;

use control_plane::publisher::{self, Publication};
use serde_json::{Value, json};
use verdict::permission::{AccessDecision, AccessRequest, Permissions};

use crate::{
    on_both,
    world::{World, text},
};

on_both! {
    async fn a_grant_is_the_sum_of_its_sources_and_deny_wins(world: World) {
        let (operator, alice) = (&world.operator, format!("{}/alice", world.operator));
        let bob = format!("{operator}/bob");
        let none: [&str; 0] = [];
        world.json(&["user", "create", &alice, "--description", "first"]);
        assert_eq!(ruled(&world, &alice).await, none);

        let default = world.document("default", &allow(&["Sim:list*"]));
        world.json(&["operator", "permission", "set", operator, &default]);
        assert_eq!(ruled(&world, &alice).await, ["Sim:listSims"]);
        // Who is made later has it too, by name or on first use.
        world.json(&["user", "create", &bob]);
        world.json(&["token", "issue", "--operator", operator, "--user", "carol"]);
        assert_eq!(ruled(&world, &bob).await, ["Sim:listSims"]);
        assert_eq!(ruled(&world, &format!("{operator}/carol")).await, ["Sim:listSims"]);

        let role = world.document("role", &allow(&["Sim:*"]));
        world.json(&["role", "create", operator, "sims", &role]);
        assert_eq!(ruled(&world, &alice).await, ["Sim:listSims"]);
        world.json(&["role", "attach", &alice, "sims"]);
        world.json(&["role", "attach", &alice, "sims"]);
        assert_eq!(ruled(&world, &alice).await, ["Sim:deleteSim", "Sim:getSim", "Sim:listSims"]);

        let own = world.document("own", &json!({ "statements": [
            { "effect": "deny", "api": "Sim:deleteSim" }, { "effect": "allow", "api": "Group:getGroup" },
        ] }));
        world.json(&["user", "permission", "set", &alice, &own]);
        assert_eq!(ruled(&world, &alice).await, ["Group:getGroup", "Sim:getSim", "Sim:listSims"]);
        assert_eq!(ruled(&world, &bob).await, ["Sim:listSims"]);

        let role = world.document("role", &allow(&["Group:*"]));
        world.json(&["role", "update", operator, "sims", &role]);
        assert_eq!(ruled(&world, &alice).await, ["Group:getGroup", "Group:listGroups", "Sim:listSims"]);
        let shown = world.json(&["role", "show", operator, "sims"]);
        assert_eq!((shown["users"].clone(), shown["permission"].clone()), (json!(["alice"]), allow(&["Group:*"])));
        let shown = world.json(&["user", "show", &alice]);
        assert_eq!((shown["roles"].clone(), shown["description"].clone()), (json!(["sims"]), json!("first")));
        world.json(&["role", "detach", &alice, "sims"]);
        assert_eq!(ruled(&world, &alice).await, ["Group:getGroup", "Sim:listSims"]);

        world.json(&["role", "attach", &bob, "sims"]);
        world.json(&["role", "delete", operator, "sims", "--yes"]);
        assert_eq!(ruled(&world, &bob).await, ["Sim:listSims"]);
        world.json(&["operator", "permission", "clear", operator, "--yes"]);
        assert_eq!(ruled(&world, &bob).await, none);
        assert_eq!(ruled(&world, &alice).await, ["Group:getGroup"]);
        world.json(&["user", "permission", "clear", &alice, "--yes"]);
        assert_eq!(ruled(&world, &alice).await, none);
    }

    async fn who_is_deleted_leaves_nothing_behind(world: World) {
        let (operator, alice) = (&world.operator, format!("{}/alice", world.operator));
        let document = world.document("all", &allow(&["*"]));
        world.json(&["user", "create", &alice]);
        world.json(&["user", "permission", "set", &alice, &document]);
        world.json(&["role", "create", operator, "all", &document]);
        world.json(&["role", "attach", &alice, "all"]);
        let key = world.json(&["authkey", "create", "--operator", operator, "--user", "alice"]);
        let server = world.serve();
        let (id, secret) = (text(&key["auth_key_id"]), text(&key["auth_key"]));
        let token = text(&server.exchange(&id, &secret).await["token"]);
        assert_ne!(server.verdict(&world, &token).await.0, 401);

        world.json(&["user", "delete", &alice, "--yes"]);
        crate::world::eventually("the refusal", async || {
            (server.verdict(&world, &token).await == (401, "watermark".to_owned())).then_some(())
        })
        .await;
        let refused = server.post("/v1/auth", &json!({ "authKeyId": id, "authKey": secret })).send().await.unwrap();
        assert_eq!(refused.status(), 401);
        assert!(world.complaint(&["user", "show", &alice]).contains("there is no user"));
        let none: [&str; 0] = [];
        assert_eq!(ruled(&world, &alice).await, none);
        // Who has the name later inherits nothing.
        world.json(&["user", "create", &alice]);
        assert_eq!(ruled(&world, &alice).await, none);
        assert_eq!(world.json(&["user", "show", &alice])["roles"], json!([]));
    }

    async fn an_operator_goes_with_all_that_is_in_it(world: World) {
        let (subject, key) = world.foreigner().await;
        let (operator, user) = (subject.to_string(), format!("{subject}/alice"));
        let document = world.document("all", &allow(&["*"]));
        world.json(&["user", "create", &user]);
        world.json(&["role", "create", &operator, "all", &document]);
        world.json(&["role", "attach", &user, "all"]);
        let token = world.json(&["token", "issue", "--operator", &operator, "--user", "alice"]);
        assert_eq!(ruled(&world, &user).await.len(), 5);
        world.json(&["operator", "delete", &operator, "--yes"]);
        assert_eq!(text(&world.json(&["token", "inspect", &text(&token["token"])])["standing"]), "watermark");
        let none: [&str; 0] = [];
        assert_eq!(ruled(&world, &user).await, none);
        assert!(world.complaint(&["operator", "show", &operator]).contains("there is no such operator"));
        assert!(world.complaint(&["token", "issue", "--auth-key-id", key.id.as_str()]).contains("unknown AuthKey"));
        let left = world.json(&["operator", "list"]);
        assert_eq!((left.as_array().unwrap().len(), text(&left[0]["operator_id"])), (1, world.operator.clone()));
        let lines = world.json(&["audit", "--limit", "1"]);
        assert_eq!((text(&lines[0]["action"]), text(&lines[0]["target"])), ("operator.delete".to_owned(), operator));
    }

    async fn a_bad_document_changes_nothing_and_names_its_fault(world: World) {
        let (operator, alice) = (&world.operator, format!("{}/alice", world.operator));
        world.json(&["user", "create", &alice]);
        let good = world.document("good", &allow(&["Sim:getSim"]));
        world.json(&["user", "permission", "set", &alice, &good]);
        let before = world.json(&["audit"]);
        let many: Vec<String> = (0..200).map(|n| format!("Sim:{}{n}", "x".repeat(100))).collect();
        for (document, expected) in [
            (json!({ "statements": [{ "effect": "allow", "api": "Sim" }] }), "statement 1, api: `Sim` is not"),
            (
                json!({ "statements": [{ "effect": "allow", "api": "*" }, { "effect": "allow", "api": "*", "condition": "now == 1" }] }),
                "statement 2, condition, column 1",
            ),
            (json!({ "statements": [{ "effect": "permit", "api": "*" }] }), "statement 1, effect"),
            (json!({ "statement": [] }), "the permission document: "),
            (json!({ "statements": [{ "effect": "allow", "api": many }] }), "longer than"),
        ] {
            let file = world.document("bad", &document);
            for command in [
                vec!["user", "permission", "set", &alice, &file],
                vec!["operator", "permission", "set", operator, &file],
                vec!["role", "create", operator, "bad", &file],
            ] {
                let complaint = world.complaint(&command);
                assert!(complaint.contains(expected), "{command:?}: {complaint}");
            }
        }
        // Two that fit, and do not fit together.
        let half: Vec<String> = (0..100).map(|n| format!("Sim:{}{n}", "x".repeat(95))).collect();
        let half = world.document("half", &json!({ "statements": [{ "effect": "allow", "api": half }] }));
        world.json(&["operator", "permission", "set", operator, &half]);
        let complaint = world.complaint(&["user", "permission", "set", &alice, &half]);
        assert!(complaint.contains(&format!("the compiled permissions of `{alice}`")), "{complaint}");
        world.json(&["operator", "permission", "clear", operator, "--yes"]);
        assert_eq!(world.json(&["audit"]).as_array().unwrap().len(), before.as_array().unwrap().len() + 2);
        assert_eq!(ruled(&world, &alice).await, ["Sim:getSim"]);
    }
}

#[tokio::test]
async fn mistakes_about_accounts_are_named() {
    let world = World::on_sqlite().await;
    let operator = world.operator.as_str();
    let alice = format!("{operator}/alice");
    let file = world.document("good", &allow(&["*"]));
    world.json(&["user", "create", &alice]);
    world.json(&["role", "create", operator, "all", &file]);
    for (command, expected) in [
        (vec!["user", "create", &alice], "already"),
        (vec!["user", "create", operator], "is the root user"),
        (vec!["user", "create", "OP0000000000/alice"], "there is no such operator"),
        (vec!["user", "delete", &alice], "add --yes"),
        (vec!["user", "delete", operator, "--yes"], "is the root user"),
        (vec!["user", "permission", "set", operator, &file], "keystile operator permission"),
        (vec!["user", "permission", "set", &alice, "missing/file"], "cannot read `missing/file`"),
        (vec!["operator", "permission", "set", &alice, &file], "keystile user permission"),
        (vec!["operator", "delete", operator], "add --yes"),
        (vec!["role", "create", operator, "all", &file], "the role `all` already exists"),
        (vec!["role", "update", operator, "none", &file], "there is no role `none`"),
        (vec!["role", "attach", &alice, "none"], "there is no role `none`"),
        (vec!["role", "attach", &format!("{operator}/bob"), "all"], "there is no user"),
        (vec!["role", "detach", &alice, "all"], "does not have this role"),
        (vec!["role", "delete", operator, "all"], "add --yes"),
        (vec!["user", "create", &alice, "--description", &"x".repeat(501)], "at most 500 bytes"),
    ] {
        let complaint = world.complaint(&command);
        assert!(complaint.contains(expected), "{command:?}: {complaint}");
    }
}

fn allow(api: &[&str]) -> Value {
    json!({ "statements": [{ "effect": "allow", "api": api }] })
}

/// Which of the operations an edge with the bundle of this moment allows.
async fn ruled(world: &World, subject: &str) -> Vec<&'static str> {
    let publication: Arc<Publication> = publisher::preview(&world.service().await).await.unwrap();
    let Some(grant) = publication.snapshot.grant(subject) else { return Vec::new() };
    let grant = Permissions::from_bytes(grant.to_vec()).unwrap();
    let allowed = |api: &&str| {
        let question = AccessRequest { api, user_name: Some("alice"), client: None, now: 0, variables: &[] };
        grant.decide(&question) == AccessDecision::Allowed
    };
    ["Group:getGroup", "Group:listGroups", "Sim:deleteSim", "Sim:getSim", "Sim:listSims"]
        .into_iter()
        .filter(allowed)
        .collect()
}
