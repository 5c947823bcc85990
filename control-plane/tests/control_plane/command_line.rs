//! The commands: what they print, refuse and advise.

use std::os::unix::fs::PermissionsExt as _;

use control_plane::platform::clock;
use serde_json::Value;

use crate::{
    edges::root_key,
    for_each_backend,
    test_env::{TestEnv, eventually, json_text, stdin_line},
};

for_each_backend! {
async fn second_init_changes_nothing(env: TestEnv) {
assert!(env.stderr_of_failure(&["init"]).contains("the database already has an operator"));
env.enroll_edge("one");
assert!(env.stderr_of_failure(&["edge", "enroll", "one"]).contains("the edge name is already in use"));
}

async fn token_inspect_shows_status(env: TestEnv) {
let token = env.issue_root_token();
let inspect = |token: &str| {
let mut command = env.command(&["token", "inspect", "--json"]);
command.stdin(stdin_line(token)).output().unwrap()
};
let status = || {
let output = inspect(&token);
let inspected: Value = serde_json::from_slice(&output.stdout).unwrap();
json_text(&inspected["standing"])
};
assert_eq!(status(), "good");
env.json(&["revoke", "--key-id", &env.auth_key_id]);
assert_eq!(status(), "watermark");
env.json(&["revoke", "--token", &token]);
assert_eq!(status(), "revoked");
let stderr = String::from_utf8(inspect("a.b").stderr).unwrap();
assert!(stderr.contains("the token is malformed"), "{stderr}");
}

async fn doctor_finds_no_problem_after_init(env: TestEnv) {
let findings = env.json(&["doctor"]);
let states: Vec<_> = findings.as_array().unwrap().iter().map(|finding| json_text(&finding["state"])).collect();
let (server, others) = states.split_last().unwrap();
assert!(others.len() == 13 && others.iter().all(|state| state == "good") && server == "note", "{findings}");
}
}

#[tokio::test]
async fn credential_as_argument_is_rejected() {
    let env = TestEnv::on_sqlite().await;
    let token = env.issue_root_token();
    let fingerprint = token::Fingerprint::digest(token.as_bytes()).to_string();
    let equals = format!("--token={token}");
    // Past the help of this test's `TestEnv`, which would write them to stdin.
    for arguments in
        [vec!["token", "inspect", &token], vec!["revoke", &equals], vec!["revoke", "--token", &token]]
    {
        let output = env.command(&[]).args(&arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(output.stdout.is_empty());
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains("a credential must not be an argument"), "{stderr}");
        assert!(stderr.contains("stdin") && stderr.contains("--token-file"), "{stderr}");
        assert!(stderr.contains(&format!("--fingerprint {fingerprint}")), "{stderr}");
        assert!(!stderr.contains(&token), "{stderr}");
    }
    assert!(env.json(&["audit"]).as_array().unwrap().iter().all(|line| line["action"] != "revoke"));

    let file = env.folder().join("token");
    std::fs::write(&file, format!("{token}\n")).unwrap();
    let file = file.to_str().unwrap();
    let inspected = env.json(&["token", "inspect", "--token-file", file]);
    assert_eq!(json_text(&inspected["fingerprint"]), fingerprint);
    for (arguments, stdin) in [
        (vec!["revoke", "--token-file", file], None),
        (vec!["revoke", "--token"], Some(&token)),
        (vec!["revoke", "--token", "-"], Some(&token)),
        (vec!["token", "inspect", "-"], Some(&token)),
    ] {
        let mut command = env.command(&[&arguments[..], &["--json"]].concat());
        if let Some(line) = stdin {
            command.stdin(stdin_line(line));
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(json_text(&answer["fingerprint"]), fingerprint, "{arguments:?}");
    }
    assert!(env.stderr_of_failure(&["revoke", "--token"]).contains("no credential given"));
    assert_eq!(env.run(&["revoke", "--token", "-", "--everything"]).status.code(), Some(2));
}

#[tokio::test]
async fn f1_a_header_name_and_bearer_in_front_of_a_token_are_left_out() {
    let env = TestEnv::on_sqlite().await;
    let token = env.issue_root_token();
    let fingerprint = token::Fingerprint::digest(token.as_bytes()).to_string();
    for line in [
        format!("Bearer {token}"),
        format!("bearer\t{token}  "),
        format!("Authorization: Bearer {token}\r\n"),
        format!("  authorization:{token}"),
    ] {
        for arguments in [&["revoke", "--token", "--json"][..], &["token", "inspect", "-", "--json"]] {
            let output = env.command(arguments).stdin(stdin_line(&line)).output().unwrap();
            let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(json_text(&answer["fingerprint"]), fingerprint, "{arguments:?} {line}");
        }
    }
    // A token of another issuer is not verified here, but can be revoked.
    let key = token::mint::SigningKey::ed25519("theirs", &[7; 32]).unwrap();
    let theirs = key.sign(r#"{"alg":"EdDSA","kid":"theirs"}"#, br#"{"iss":"https://idp.example","sub":"a"}"#);
    let theirs = theirs.expose();
    let output =
        env.command(&["revoke", "--token"]).stdin(stdin_line(&format!("Bearer {theirs}"))).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    let theirs = token::Fingerprint::digest(theirs.as_bytes()).to_string();
    assert!(stderr.contains(&format!("--fingerprint {theirs}")), "{stderr}");
    env.json(&["revoke", "--fingerprint", &theirs]);
    for line in [format!("\"{token}\""), format!("token {token}"), format!("Bearer {token} x")] {
        let output = env.command(&["revoke", "--token"]).stdin(stdin_line(&line)).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains("leave out quotes, other words, and other lines"), "{stderr}");
        assert!(!stderr.contains(&token), "{stderr}");
    }
}

/// A prompt without echo. `script` of util-linux gives the command a terminal.
#[tokio::test]
async fn credential_is_prompted_for_on_a_terminal() {
    let env = TestEnv::on_sqlite().await;
    let token = env.issue_root_token();
    let data = env.data();
    let line = format!("{} --data {} revoke --token", env!("CARGO_BIN_EXE_keystile"), data.display());
    let mut command = std::process::Command::new("script");
    command.args(["--quiet", "--return", "--echo", "never", "--command", &line, "/dev/null"]);
    for (name, value) in env.command(&[]).get_envs() {
        command.env(name, value.unwrap());
    }
    let output = command.stdin(stdin_line(&token)).output().unwrap();
    let message = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{message}");
    assert!(message.contains("(not shown)") && message.contains("revoked "), "{message}");
    assert!(!message.contains(&token), "{message}");
}

/// The AuthKey can be exchanged for the next token at once.
#[tokio::test]
async fn revoke_by_auth_key_reports_remaining_access() {
    let env = TestEnv::on_sqlite().await;
    let server = env.serve();
    server.exchange(&env.auth_key_id, &env.auth_key).await;
    eventually("the use", async || {
        let keys = env.json(&["authkey", "list"]);
        keys[0]["last_used_at"].is_u64().then_some(())
    })
    .await;
    let output = env.run(&["revoke", "--key-id", &env.auth_key_id]);
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(
        message.contains(&format!("`keystile authkey delete {}` prevents that", env.auth_key_id)),
        "{message}"
    );
    assert!(message.contains("(last used: 2"), "{message}");
    let answer = env.json(&["revoke", "--key-id", &env.auth_key_id]);
    assert_eq!(answer["auth_key"]["still_issues"], true);
}

#[tokio::test]
async fn help_names_the_exit_codes() {
    let env = TestEnv::on_sqlite().await;
    let help = String::from_utf8(env.run(&["--help"]).stdout).unwrap();
    for code in ["  0  success", "  3  the change is durable", "  4  --wait"] {
        assert!(help.contains(code), "{help}");
    }
}

#[tokio::test]
async fn irreversible_commands_require_yes() {
    let env = TestEnv::on_sqlite().await;
    env.enroll_edge("one");
    for (command, expected) in [
        (vec!["revoke", "--subject", &env.operator], "and all its users issued up to now; add --yes"),
        (
            vec!["authkey", "delete", &env.auth_key_id],
            "revoke all credentials it was exchanged for; add --yes",
        ),
        (vec!["edge", "remove", "one"], "this would remove edge one"),
    ] {
        let stderr = env.stderr_of_failure(&command);
        assert!(stderr.contains(expected), "{stderr}");
    }
}

#[tokio::test]
async fn invalid_arguments_name_valid_ones() {
    let mut env = TestEnv::on_sqlite().await;
    for (arguments, code) in [
        (vec!["revoke"], 2),
        (vec!["revoke", "--subject", "OP1"], 2),
        (vec!["revoke", "--fingerprint", "x"], 2),
        (vec!["token", "issue"], 2),
        (vec!["token", "issue", "--operator", &env.operator, "--ttl", "3d"], 2),
        (vec!["token", "issue", "--operator", "OP0000000000"], 1),
        (vec!["revoke", "--key-id", "keyId-nobody"], 1),
    ] {
        let output = env.run(&arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        assert!(!output.stderr.is_empty() && output.stdout.is_empty(), "{arguments:?}");
    }
    let issue = String::from_utf8(env.run(&["token", "issue"]).stderr).unwrap();
    assert!(issue.contains("--auth-key-id") && issue.contains("--operator"), "{issue}");
    let long = "x".repeat(501);
    let stderr = env.stderr_of_failure(&["revoke", "--fingerprint", &"1".repeat(64), "--reason", &long]);
    assert!(stderr.contains("expected at most 500 bytes"), "{stderr}");
    for (arguments, expected) in [
        (["verify", "missing/file"].as_slice(), "cannot read `missing/file`"),
        (&["show", "--manifest", "missing/file"], "cannot write `missing/file`"),
    ] {
        let stderr = env.stderr_of_failure(&[&["bundle"], arguments].concat());
        assert!(stderr.contains(expected), "{stderr}");
    }
    env.set_setting("KEYSTILE_SERVER__LISEN", "x");
    assert!(env.stderr_of_failure(&["audit"]).contains("did you mean `KEYSTILE_SERVER__LISTEN`?"));
}

#[tokio::test]
async fn bundle_verify_checks_like_an_edge() {
    let env = TestEnv::on_sqlite().await;
    let file = env.folder().join("manifest");
    let name = file.to_str().unwrap();
    let shown = env.json(&["bundle", "show", "--manifest", name]);
    assert_eq!(env.json(&["bundle", "verify", name]), shown);
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    assert!(
        env.stderr_of_failure(&["bundle", "verify", name])
            .contains("the signature of the manifest is invalid")
    );
}

#[tokio::test]
async fn bundle_export_is_complete() {
    let env = TestEnv::on_sqlite().await;
    let token = env.issue_root_token();
    let fingerprint = token::Fingerprint::digest(token.as_bytes());
    env.json(&["revoke", "--token", &token]);
    let output = env.run(&["bundle", "export", "--lifetime", "30m"]);
    let exported = String::from_utf8(output.stdout).unwrap();
    let carried = bundle::InlineBundle::decode(exported.trim_end()).unwrap();
    let manifest = bundle::Manifest::open(carried.manifest(), &[root_key(&env)], "default").unwrap();
    let (mut objects, now) = (bundle::Objects::default(), clock::now().millis());
    loop {
        let missing = objects.missing(&manifest, now);
        if missing.is_empty() {
            break;
        }
        for entry in missing {
            let bytes = carried.object(&entry).expect("an object is missing").to_vec();
            objects.open(&manifest, entry, bytes).unwrap();
        }
    }
    let snapshot = bundle::Snapshot::assemble(manifest, &objects, now).unwrap();
    let file = env.folder().join("manifest");
    std::fs::write(&file, carried.manifest()).unwrap();
    let shown = env.json(&["bundle", "verify", file.to_str().unwrap()]);
    let [issued, expires] = ["issued_at", "expires_at"].map(|member| shown[member].as_u64().unwrap());
    assert_eq!((expires - issued, &shown["fresh"]), (30 * 60 * 1000, &serde_json::json!(true)));
    assert_eq!(snapshot.revocation_status(&fingerprint, "", 0, None), bundle::RevocationStatus::Revoked);
    assert!(env.stderr_of_failure(&["bundle", "export", "--lifetime", "2h"]).contains("at most `1h`"));
}

#[tokio::test]
async fn doctor_advises_on_each_problem() {
    let env = TestEnv::on_sqlite().await;
    let advice = |env: &TestEnv| {
        let output = env.run(&["doctor"]);
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
    };
    let key = env.data().join("keys/tail.jwk");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(advice(&env).contains("is accessible to group or others; run `chmod go= "));
    assert!(env.stderr_of_failure(&["serve"]).contains("is open to others"));
    let settings = env.data().join("keystile.toml");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::set_permissions(&settings, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(advice(&env).contains("keystile.toml` is accessible to group or others"));
    std::fs::set_permissions(&settings, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::remove_file(&key).unwrap();
    let message = advice(&env);
    assert!(message.contains("tail.jwk` is missing; restore it"), "{message}");
    env.json(&["authority", "rotate", "tail"]);
    let output = env.run(&["doctor"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    std::fs::remove_dir_all(env.data()).unwrap();
    assert!(advice(&env).contains("`keystile init` creates one"));
    assert!(env.stderr_of_failure(&["audit"]).contains("init`, or give another with --data"));
}

/// An old journal would hide the revocations since.
#[tokio::test]
async fn doctor_does_not_advise_restoring_a_damaged_journal() {
    let env = TestEnv::on_sqlite().await;
    let revoked = ["a", "b"].map(|digit| digit.repeat(64));
    for fingerprint in &revoked {
        env.json(&["revoke", "--fingerprint", fingerprint]);
    }
    let journal = env.data().join("keys/journal");
    let text = std::fs::read_to_string(&journal).unwrap();
    std::fs::write(&journal, text.replacen("revoked_at", "revokad_at", 1)).unwrap();
    let output = env.run(&["doctor"]);
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8(output.stderr).unwrap();
    let advice = message.lines().find_map(|line| line.strip_prefix("Next: ")).unwrap();
    assert!(
        advice.contains("never restore it from a backup") && advice.contains("move the file away"),
        "{message}"
    );
    assert!(env.stderr_of_failure(&["serve"]).contains("line 1 of the journal"));
    // As the advice states, the database contains all of it.
    std::fs::rename(&journal, env.data().join("journal.damaged")).unwrap();
    let server = env.serve();
    eventually("a new journal", async || {
        let text = std::fs::read_to_string(&journal).unwrap_or_default();
        revoked.iter().all(|fingerprint| text.contains(fingerprint)).then_some(())
    })
    .await;
    drop(server);
    assert!(env.run(&["doctor"]).status.success());
}

#[tokio::test]
async fn data_folder_is_private() {
    let env = TestEnv::on_sqlite().await;
    let server = env.serve();
    server.exchange(&env.auth_key_id, &env.auth_key).await;
    let mut files = vec![env.data(), env.data().join("keys")];
    for folder in files.clone() {
        files.extend(std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()));
    }
    assert!(files.len() > 6);
    for file in files {
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o077, 0, "{}", file.display());
    }
}
