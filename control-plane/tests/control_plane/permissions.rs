//! Operators, users, roles, and the grants that edges get.

use std::sync::Arc;

use control_plane::publishing::{self, Publication};
use serde_json::{Value, json};
use verdict::permission::{AccessDecision, AccessRequest, Permissions};

use crate::{
    for_each_backend,
    test_env::{TestEnv, json_text},
};

for_each_backend! {
    async fn grant_combines_all_sources_and_deny_wins(env: TestEnv) {
        let (operator, alice) = (&env.operator, format!("{}/alice", env.operator));
        let bob = format!("{operator}/bob");
        let none: [&str; 0] = [];
        env.json(&["user", "create", &alice, "--description", "first"]);
        assert_eq!(allowed_operations(&env, &alice).await, none);

        let default = env.write_document("default", &allow(&["Sim:list*"]));
        env.json(&["operator", "permission", "set", operator, &default]);
        assert_eq!(allowed_operations(&env, &alice).await, ["Sim:listSims"]);
        // Users that are created later have it too, by a command or on first use.
        env.json(&["user", "create", &bob]);
        env.json(&["token", "issue", "--operator", operator, "--user", "carol"]);
        assert_eq!(allowed_operations(&env, &bob).await, ["Sim:listSims"]);
        assert_eq!(allowed_operations(&env, &format!("{operator}/carol")).await, ["Sim:listSims"]);

        let role = env.write_document("role", &allow(&["Sim:*"]));
        env.json(&["role", "create", operator, "sims", &role]);
        assert_eq!(allowed_operations(&env, &alice).await, ["Sim:listSims"]);
        env.json(&["role", "attach", &alice, "sims"]);
        env.json(&["role", "attach", &alice, "sims"]);
        assert_eq!(allowed_operations(&env, &alice).await, ["Sim:deleteSim", "Sim:getSim", "Sim:listSims"]);

        let own = env.write_document("own", &json!({ "statements": [
            { "effect": "deny", "api": "Sim:deleteSim" }, { "effect": "allow", "api": "Group:getGroup" },
        ] }));
        env.json(&["user", "permission", "set", &alice, &own]);
        assert_eq!(allowed_operations(&env, &alice).await, ["Group:getGroup", "Sim:getSim", "Sim:listSims"]);
        assert_eq!(allowed_operations(&env, &bob).await, ["Sim:listSims"]);

        let role = env.write_document("role", &allow(&["Group:*"]));
        env.json(&["role", "update", operator, "sims", &role]);
        assert_eq!(allowed_operations(&env, &alice).await, ["Group:getGroup", "Group:listGroups", "Sim:listSims"]);
        let shown = env.json(&["role", "show", operator, "sims"]);
        assert_eq!((shown["users"].clone(), shown["permission"].clone()), (json!(["alice"]), allow(&["Group:*"])));
        let shown = env.json(&["user", "show", &alice]);
        assert_eq!((shown["roles"].clone(), shown["description"].clone()), (json!(["sims"]), json!("first")));
        env.json(&["role", "detach", &alice, "sims"]);
        assert_eq!(allowed_operations(&env, &alice).await, ["Group:getGroup", "Sim:listSims"]);

        env.json(&["role", "attach", &bob, "sims"]);
        env.json(&["role", "delete", operator, "sims", "--yes"]);
        assert_eq!(allowed_operations(&env, &bob).await, ["Sim:listSims"]);
        env.json(&["operator", "permission", "clear", operator, "--yes"]);
        assert_eq!(allowed_operations(&env, &bob).await, none);
        assert_eq!(allowed_operations(&env, &alice).await, ["Group:getGroup"]);
        env.json(&["user", "permission", "clear", &alice, "--yes"]);
        assert_eq!(allowed_operations(&env, &alice).await, none);
    }

    async fn deleting_user_revokes_all_access(env: TestEnv) {
        let (operator, alice) = (&env.operator, format!("{}/alice", env.operator));
        let document = env.write_document("all", &allow(&["*"]));
        env.json(&["user", "create", &alice]);
        env.json(&["user", "permission", "set", &alice, &document]);
        env.json(&["role", "create", operator, "all", &document]);
        env.json(&["role", "attach", &alice, "all"]);
        let key = env.json(&["authkey", "create", "--operator", operator, "--user", "alice"]);
        let server = env.serve();
        let (id, secret) = (json_text(&key["auth_key_id"]), json_text(&key["auth_key"]));
        let token = json_text(&server.exchange(&id, &secret).await["token"]);
        assert_ne!(server.own_api_decision(&env, &token).await.0, 401);

        env.json(&["user", "delete", &alice, "--yes"]);
        crate::test_env::eventually("the refusal", async || {
            (server.own_api_decision(&env, &token).await == (401, "watermark".to_owned())).then_some(())
        })
        .await;
        let refused = server.post("/v1/auth", &json!({ "authKeyId": id, "authKey": secret })).send().await.unwrap();
        assert_eq!(refused.status(), 401);
        assert!(env.stderr_of_failure(&["user", "show", &alice]).contains("there is no user"));
        let none: [&str; 0] = [];
        assert_eq!(allowed_operations(&env, &alice).await, none);
        // A later user of the same name inherits nothing.
        env.json(&["user", "create", &alice]);
        assert_eq!(allowed_operations(&env, &alice).await, none);
        assert_eq!(env.json(&["user", "show", &alice])["roles"], json!([]));
    }

    async fn deleting_operator_deletes_its_content(env: TestEnv) {
        let (subject, key) = env.other_tenant().await;
        let (operator, user) = (subject.to_string(), format!("{subject}/alice"));
        let document = env.write_document("all", &allow(&["*"]));
        env.json(&["user", "create", &user]);
        env.json(&["role", "create", &operator, "all", &document]);
        env.json(&["role", "attach", &user, "all"]);
        let token = env.json(&["token", "issue", "--operator", &operator, "--user", "alice"]);
        assert_eq!(allowed_operations(&env, &user).await.len(), 5);
        env.json(&["operator", "delete", &operator, "--yes"]);
        assert_eq!(json_text(&env.json(&["token", "inspect", &json_text(&token["token"])])["standing"]), "watermark");
        let none: [&str; 0] = [];
        assert_eq!(allowed_operations(&env, &user).await, none);
        assert!(env.stderr_of_failure(&["operator", "show", &operator]).contains("there is no such operator"));
        assert!(env.stderr_of_failure(&["token", "issue", "--auth-key-id", key.id.as_str()]).contains("unknown AuthKey"));
        let left = env.json(&["operator", "list"]);
        assert_eq!((left.as_array().unwrap().len(), json_text(&left[0]["operator_id"])), (1, env.operator.clone()));
        let lines = env.json(&["audit", "--limit", "1"]);
        assert_eq!((json_text(&lines[0]["action"]), json_text(&lines[0]["target"])), ("operator.delete".to_owned(), operator));
    }

    async fn invalid_permission_document_is_rejected_by_position(env: TestEnv) {
        let (operator, alice) = (&env.operator, format!("{}/alice", env.operator));
        env.json(&["user", "create", &alice]);
        let good = env.write_document("good", &allow(&["Sim:getSim"]));
        env.json(&["user", "permission", "set", &alice, &good]);
        let before = env.json(&["audit"]);
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
            let file = env.write_document("bad", &document);
            for command in [
                vec!["user", "permission", "set", &alice, &file],
                vec!["operator", "permission", "set", operator, &file],
                vec!["role", "create", operator, "bad", &file],
            ] {
                let stderr = env.stderr_of_failure(&command);
                assert!(stderr.contains(expected), "{command:?}: {stderr}");
            }
        }
        // Each of the two is within the limit, but their sum is not.
        let half: Vec<String> = (0..100).map(|n| format!("Sim:{}{n}", "x".repeat(95))).collect();
        let half = env.write_document("half", &json!({ "statements": [{ "effect": "allow", "api": half }] }));
        env.json(&["operator", "permission", "set", operator, &half]);
        let stderr = env.stderr_of_failure(&["user", "permission", "set", &alice, &half]);
        assert!(stderr.contains(&format!("the compiled permissions of `{alice}`")), "{stderr}");
        env.json(&["operator", "permission", "clear", operator, "--yes"]);
        assert_eq!(env.json(&["audit"]).as_array().unwrap().len(), before.as_array().unwrap().len() + 2);
        assert_eq!(allowed_operations(&env, &alice).await, ["Sim:getSim"]);
    }
}

#[tokio::test]
async fn invalid_account_commands_name_the_mistake() {
    let env = TestEnv::on_sqlite().await;
    let operator = env.operator.as_str();
    let alice = format!("{operator}/alice");
    let file = env.write_document("good", &allow(&["*"]));
    env.json(&["user", "create", &alice]);
    env.json(&["role", "create", operator, "all", &file]);
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
        let stderr = env.stderr_of_failure(&command);
        assert!(stderr.contains(expected), "{command:?}: {stderr}");
    }
}

pub(crate) fn allow(api: &[&str]) -> Value {
    json!({ "statements": [{ "effect": "allow", "api": api }] })
}

/// Returns the operations that an edge with the current bundle allows.
pub(crate) async fn allowed_operations(env: &TestEnv, subject: &str) -> Vec<&'static str> {
    let publication: Arc<Publication> = publishing::preview(&env.service().await).await.unwrap();
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
