//! Subjects, sessions, tokens and clients of other issuers, and whole issuers: revocations, grants and roles.

use std::sync::Arc;

use bundle::Scope;
use control_plane::publishing::{self, Publication};
use serde_json::{Value, json};

use crate::{
    for_each_backend,
    permissions::{allow, allowed_operations},
    test_env::{TestEnv, json_text},
};

const ISSUER: &str = "https://idp.example";

/// What the commands say of a scope: option, name, kind, the text in the audit log.
const SCOPES: [(&str, &str, &str, &str); 5] = [
    ("--subject", "https://idp.example#u-1", "user", "https://idp.example#u-1"),
    ("--session", "https://idp.example#s-1", "issuer_session", "session https://idp.example#s-1"),
    ("--token-id", "https://idp.example#j-1", "token_id", "token https://idp.example#j-1"),
    ("--client", "https://idp.example#c-1", "client", "client https://idp.example#c-1"),
    ("--issuer", ISSUER, "issuer", "issuer https://idp.example"),
];

for_each_backend! {
    async fn a1_a2_revocations_of_other_issuers_are_published_and_audited(env: TestEnv) {
        let now = control_plane::platform::clock::now().seconds().get();
        for (number, (option, name, kind, target)) in SCOPES.into_iter().enumerate() {
            let is_one = matches!(option, "--session" | "--token-id");
            if !is_one {
                let hesitant = env.stderr_of_failure(&["revoke", option, name]);
                assert!(hesitant.contains(&format!("all tokens of {target} issued up to now; add --yes")), "{hesitant}");
            }
            let done = env.json(&["revoke", option, name, "--yes", "--reason", "test"]);
            assert_eq!((json_text(&done["scope"]), json_text(&done["kind"])), (name.to_owned(), kind.to_owned()));
            let published = watermarks(&env).await;
            for (other, instant) in published.iter().enumerate() {
                assert_eq!(instant.is_some(), other <= number, "{option}: {published:?}");
            }
            let instant = published[number].unwrap();
            match is_one {
                true => assert_eq!((instant, &done["instant"]), (i64::MAX.cast_unsigned(), &Value::Null)),
                false => assert!((now..now + 60).contains(&instant) && done["instant"] == json!(instant)),
            }
            let line = &env.json(&["audit", "--limit", "1"])[0];
            assert_eq!([&line["action"], &line["target"]].map(json_text), ["revoke", target]);
            assert_eq!((&line["detail"]["scope"], &line["detail"]["reason"]), (&json!([kind, name]), &json!("test")));
            // A second call changes nothing that refuses less.
            env.json(&["revoke", option, name, "--yes"]);
            assert!(watermarks(&env).await[number] >= Some(instant));
        }
        // Up to a time, and never back.
        let before = env.json(&["revoke", "--client", "https://idp.example#old", "--at", "5", "--yes"]);
        assert_eq!(before["instant"], json!(5));
        let future = env.stderr_of_failure(&["revoke", "--issuer", ISSUER, "--at", "99999999999", "--yes"]);
        assert!(future.contains("in the future"), "{future}");
        assert_eq!(env.run(&["revoke", "--session", "https://idp.example#s", "--at", "5"]).status.code(), Some(2));
    }

    async fn a2_only_one_session_or_token_is_taken_back(env: TestEnv) {
        for (number, (option, name, kind, target)) in SCOPES.into_iter().enumerate() {
            env.json(&["revoke", option, name, "--yes"]);
            if !matches!(option, "--session" | "--token-id") {
                assert_eq!(env.run(&["unrevoke", option, name, "--yes"]).status.code(), Some(2), "{option}");
                continue;
            }
            assert!(env.stderr_of_failure(&["unrevoke", option, name]).contains("add --yes"));
            for _ in 0..2 {
                env.json(&["revoke", option, name]);
                assert!(watermarks(&env).await[number].is_some());
                let back = env.json(&["unrevoke", option, name, "--yes"]);
                assert_eq!((json_text(&back["scope"]), json_text(&back["kind"])), (name.to_owned(), kind.to_owned()));
                assert_eq!(watermarks(&env).await[number], None);
            }
            let line = &env.json(&["audit", "--limit", "1"])[0];
            assert_eq!([&line["action"], &line["target"]].map(json_text), ["unrevoke", target]);
            let refused = env.stderr_of_failure(&["unrevoke", option, name, "--yes"]);
            assert!(refused.contains("no revocation of this"), "{refused}");
        }
    }

    /// A running publisher gets the first such watermark, which an older edge could not apply, and its removal.
    async fn a2_a_running_server_publishes_what_edges_must_check(env: TestEnv) {
        let server = env.serve();
        let credential = env.enroll_edge("one");
        let have = crate::test_env::entity_tag_version(server.manifest(&credential, 0, 0).send().await.unwrap().headers());
        let mut last = have;
        for arguments in [
            &["revoke", "--session", "https://idp.example#s-1"][..],
            &["revoke", "--token-id", "https://idp.example#j-1"],
            &["unrevoke", "--session", "https://idp.example#s-1", "--yes"],
            &["unrevoke", "--token-id", "https://idp.example#j-1", "--yes"],
        ] {
            let done = env.json(arguments);
            assert_eq!(done["published"], json!(true), "{done}");
            let answer = server.manifest(&credential, last, 5).send().await.unwrap();
            let version = crate::test_env::entity_tag_version(answer.headers());
            assert!(version >= done["version"].as_u64().unwrap() && version > last);
            last = version;
        }
    }

    async fn a3_subjects_of_other_issuers_have_permissions_and_roles(env: TestEnv) {
        let (operator, subject) = (env.operator.as_str(), "https://idp.example#u-1");
        let none: [&str; 0] = [];
        // The default permissions of an operator are for its own users.
        let default = env.write_document("default", &allow(&["*"]));
        env.json(&["operator", "permission", "set", operator, &default]);
        assert_eq!(allowed_operations(&env, subject).await, none);
        assert!(env.stderr_of_failure(&["user", "show", subject]).contains("no permissions and no roles"));
        assert!(env.stderr_of_failure(&["user", "permission", "clear", subject, "--yes"]).contains("no permissions"));
        assert_eq!(env.json(&["user", "list", "--foreign"]), json!([]));

        let own = env.write_document("own", &allow(&["Sim:getSim"]));
        let set = env.json(&["user", "permission", "set", subject, &own]);
        assert_eq!(set["subject"], json!(subject));
        assert_eq!(allowed_operations(&env, subject).await, ["Sim:getSim"]);
        let line = &env.json(&["audit", "--limit", "1"])[0];
        assert_eq!([&line["action"], &line["target"]].map(json_text), ["user.permission.set", subject]);

        let role = env.write_document("role", &allow(&["Group:*"]));
        env.json(&["role", "create", operator, "groups", &role]);
        assert!(env.stderr_of_failure(&["role", "attach", subject, "groups"]).contains("--operator"));
        let attach = ["role", "attach", subject, "groups", "--operator", operator];
        env.json(&attach);
        env.json(&attach);
        assert_eq!(allowed_operations(&env, subject).await, ["Group:getGroup", "Group:listGroups", "Sim:getSim"]);
        assert_eq!(env.json(&["role", "show", operator, "groups"])["foreign_subjects"], json!([subject]));
        let expected = json!({
            "subject": subject, "issuer": ISSUER, "permission": allow(&["Sim:getSim"]),
            "roles": [format!("{operator}:groups")],
        });
        assert_eq!(env.json(&["user", "show", subject]), expected);
        assert_eq!(env.json(&["user", "list", "--foreign"]), json!([expected]));
        assert_eq!(env.json(&["user", "list"]), json!([]));

        // A changed role changes the grant; a deleted role or operator ends it.
        let denied = env.write_document("role", &json!({ "statements": [{ "effect": "deny", "api": "Sim:*" }] }));
        env.json(&["role", "update", operator, "groups", &denied]);
        assert_eq!(allowed_operations(&env, subject).await, none);
        env.json(&["role", "delete", operator, "groups", "--yes"]);
        assert_eq!(allowed_operations(&env, subject).await, ["Sim:getSim"]);
        let (other, _) = env.other_tenant().await;
        let other = other.to_string();
        env.json(&["role", "create", &other, "groups", &role]);
        let others = ["role", "attach", subject, "groups", "--operator", &other];
        assert!(env.stderr_of_failure(&attach).contains("there is no role"));
        env.json(&others);
        env.json(&["role", "update", &other, "groups", &own]);
        env.json(&["user", "permission", "clear", subject, "--yes"]);
        assert_eq!(allowed_operations(&env, subject).await, ["Sim:getSim"]);
        env.json(&["operator", "delete", &other, "--yes"]);
        assert_eq!(allowed_operations(&env, subject).await, none);
        assert_eq!(env.json(&["user", "list", "--foreign"]), json!([]));
        // No other subject has got anything by it.
        for stranger in ["u-1", "https://idp.example", "https://idp.example#u-2", "https://other.example#u-1"] {
            assert_eq!(allowed_operations(&env, stranger).await, none, "{stranger}");
        }
    }

    /// A tenant has no power over the tokens of other issuers, which are no tenant's.
    async fn a2_tenants_neither_revoke_nor_grant_for_other_issuers(env: TestEnv) {
        let server = env.serve();
        let token = env.issue_root_token();
        for body in [
            json!({ "subject": "https://idp.example#u-1" }),
            json!({ "keyId": "https://idp.example#s-1" }),
            json!({ "issuer": ISSUER }),
        ] {
            assert_eq!(server.revoke(&token, body.clone()).await.status(), 400, "{body}");
        }
        let lines = env.json(&["audit"]);
        assert!(lines.as_array().unwrap().iter().all(|line| line["action"] != "revoke"), "{lines}");
    }
}

#[tokio::test]
async fn a1_names_of_other_issuers_have_one_spelling_and_are_never_own_names() {
    let env = TestEnv::on_sqlite().await;
    let document = env.write_document("own", &allow(&["*"]));
    for name in ["https://idp.example#", "#u-1", "u-1", "https://idp.example#a\nb", "https://a%2523", ""] {
        for option in ["--subject", "--session", "--token-id", "--client"] {
            let output = env.run(&["revoke", option, name, "--yes"]);
            assert_eq!(output.status.code(), Some(2), "{option} {name:?}");
        }
        assert_eq!(
            env.run(&["user", "permission", "set", name, &document]).status.code(),
            Some(2),
            "{name:?}"
        );
    }
    // A subject that only looks like an own one, or like one of another issuer.
    for subject in
        ["OP0123456789", "OP0123456789/alice", "https://other.example#u-1", "Jane Doe", "J\u{fc}rgen"]
    {
        let name = format!("https://idp.example#{subject}");
        env.json(&["user", "permission", "set", &name, &document]);
        assert_eq!(allowed_operations(&env, &name).await.len(), 5, "{name}");
        assert!(allowed_operations(&env, subject).await.is_empty(), "{subject}");
    }
    // Users of this installation are not named by its issuer.
    let own = format!("https://keystile.local#{}", env.operator);
    for arguments in [
        &["revoke", "--subject", &own, "--yes"][..],
        &["revoke", "--issuer", "https://keystile.local", "--yes"],
        &["revoke", "--session", &own],
    ] {
        let refused = env.stderr_of_failure(arguments);
        assert!(refused.contains("this is the issuer of this installation"), "{refused}");
    }
    let refused = env.stderr_of_failure(&["user", "permission", "set", &own, &document]);
    assert!(refused.contains("write its subjects as OPERATOR or OPERATOR/NAME"), "{refused}");
    // A misspelled issuer is pointed out.
    let output = env.run(&["revoke", "--issuer", ISSUER, "--yes"]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("`https://idp.example` is not configured here"), "{stderr}");
}

/// Returns the watermarks of `SCOPES` in the current bundle.
async fn watermarks(env: &TestEnv) -> Vec<Option<u64>> {
    let publication: Arc<Publication> = publishing::preview(&env.service().await).await.unwrap();
    let scopes = SCOPES.map(|(option, name, ..)| match option {
        "--subject" => Scope::User(name),
        "--session" => Scope::IssuerSession(name),
        "--token-id" => Scope::TokenId(name),
        "--client" => Scope::Client(name),
        _ => Scope::Issuer(name),
    });
    let snapshot = &publication.snapshot;
    let applied = |scope| if snapshot.has_holders() { snapshot.watermark([scope]) } else { None };
    scopes
        .into_iter()
        .map(|scope| match scope {
            Scope::User(_) => snapshot.watermark([scope]),
            scope => applied(scope),
        })
        .collect()
}
