//! The commands: what they print, refuse and advise.

use std::os::unix::fs::PermissionsExt as _;

use control_plane::clock;
use serde_json::Value;

use crate::{
    edges::root_key,
    on_both,
    world::{World, eventually, text, with_line},
};

on_both! {
    async fn nothing_is_made_twice(world: World) {
        assert!(world.complaint(&["init"]).contains("the database already has an operator"));
        world.edge("one");
        assert!(world.complaint(&["edge", "enroll", "one"]).contains("the edge name is already in use"));
    }

    async fn a_token_is_inspected(world: World) {
        let token = world.token();
        let inspect = |token: &str| {
            let mut command = world.command(&["token", "inspect", "--json"]);
            command.stdin(with_line(token)).output().unwrap()
        };
        let standing = || {
            let output = inspect(&token);
            let inspected: Value = serde_json::from_slice(&output.stdout).unwrap();
            text(&inspected["standing"])
        };
        assert_eq!(standing(), "good");
        world.json(&["revoke", "--key-id", &world.auth_key_id]);
        assert_eq!(standing(), "watermark");
        world.json(&["revoke", "--token", &token]);
        assert_eq!(standing(), "revoked");
        let complaint = String::from_utf8(inspect("a.b").stderr).unwrap();
        assert!(complaint.contains("the token is malformed"), "{complaint}");
    }

    async fn the_doctor_is_content_with_what_init_made(world: World) {
        let findings = world.json(&["doctor"]);
        let states: Vec<_> = findings.as_array().unwrap().iter().map(|finding| text(&finding["state"])).collect();
        assert_eq!(states, ["good", "good", "good", "good", "good", "good", "good", "good", "good", "good", "good", "good", "note"]);
    }
}

#[tokio::test]
async fn no_credential_is_an_argument() {
    let world = World::on_sqlite().await;
    let token = world.token();
    let fingerprint = token::Fingerprint::digest(token.as_bytes()).to_string();
    let equals = format!("--token={token}");
    // Past the help of this test's `World`, which would write them to stdin.
    for arguments in
        [vec!["token", "inspect", &token], vec!["revoke", &equals], vec!["revoke", "--token", &token]]
    {
        let output = world.command(&[]).args(&arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(output.stdout.is_empty());
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert!(complaint.contains("a credential must not be an argument"), "{complaint}");
        assert!(complaint.contains("stdin") && complaint.contains("--token-file"), "{complaint}");
        assert!(complaint.contains(&format!("--fingerprint {fingerprint}")), "{complaint}");
        assert!(!complaint.contains(&token), "{complaint}");
    }
    assert!(world.json(&["audit"]).as_array().unwrap().iter().all(|line| line["action"] != "revoke"));

    let file = world.folder().join("token");
    std::fs::write(&file, format!("{token}\n")).unwrap();
    let file = file.to_str().unwrap();
    let inspected = world.json(&["token", "inspect", "--token-file", file]);
    assert_eq!(text(&inspected["fingerprint"]), fingerprint);
    for (arguments, stdin) in [
        (vec!["revoke", "--token-file", file], None),
        (vec!["revoke", "--token"], Some(&token)),
        (vec!["revoke", "--token", "-"], Some(&token)),
        (vec!["token", "inspect", "-"], Some(&token)),
    ] {
        let mut command = world.command(&[&arguments[..], &["--json"]].concat());
        if let Some(line) = stdin {
            command.stdin(with_line(line));
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(text(&answer["fingerprint"]), fingerprint, "{arguments:?}");
    }
    assert!(world.complaint(&["revoke", "--token"]).contains("no credential given"));
    assert_eq!(world.run(&["revoke", "--token", "-", "--everything"]).status.code(), Some(2));
}

/// What a terminal would show without an echo: `script` of util-linux gives the command one.
#[tokio::test]
async fn on_a_terminal_the_credential_is_asked_for() {
    let world = World::on_sqlite().await;
    let token = world.token();
    let data = world.data();
    let line = format!("{} --data {} revoke --token", env!("CARGO_BIN_EXE_keystile"), data.display());
    let mut command = std::process::Command::new("script");
    command.args(["--quiet", "--return", "--echo", "never", "--command", &line, "/dev/null"]);
    for (name, value) in world.command(&[]).get_envs() {
        command.env(name, value.unwrap());
    }
    let output = command.stdin(with_line(&token)).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}");
    assert!(told.contains("(not shown)") && told.contains("revoked "), "{told}");
    assert!(!told.contains(&token), "{told}");
}

/// The AuthKey buys the next token at once.
#[tokio::test]
async fn revoking_what_an_auth_key_bought_says_what_it_leaves() {
    let world = World::on_sqlite().await;
    let server = world.serve();
    server.exchange(&world.auth_key_id, &world.auth_key).await;
    eventually("the use", async || {
        let keys = world.json(&["authkey", "list"]);
        keys[0]["last_used_at"].is_u64().then_some(())
    })
    .await;
    let output = world.run(&["revoke", "--key-id", &world.auth_key_id]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        told.contains(&format!("`keystile authkey delete {}` prevents that", world.auth_key_id)),
        "{told}"
    );
    assert!(told.contains("(last used: 2"), "{told}");
    let answer = world.json(&["revoke", "--key-id", &world.auth_key_id]);
    assert_eq!(answer["auth_key"]["still_issues"], true);
}

#[tokio::test]
async fn help_names_the_exit_codes() {
    let world = World::on_sqlite().await;
    let help = String::from_utf8(world.run(&["--help"]).stdout).unwrap();
    for code in ["  0  success", "  3  the change is durable", "  4  --wait"] {
        assert!(help.contains(code), "{help}");
    }
}

#[tokio::test]
async fn what_cannot_be_undone_asks_first() {
    let world = World::on_sqlite().await;
    world.edge("one");
    for (command, expected) in [
        (vec!["revoke", "--subject", &world.operator], "and all its users issued up to now; add --yes"),
        (
            vec!["authkey", "delete", &world.auth_key_id],
            "revoke all credentials it was exchanged for; add --yes",
        ),
        (vec!["edge", "remove", "one"], "this would remove edge one"),
    ] {
        let complaint = world.complaint(&command);
        assert!(complaint.contains(expected), "{complaint}");
    }
}

#[tokio::test]
async fn mistakes_are_answered_with_what_is_right() {
    let mut world = World::on_sqlite().await;
    for (arguments, code) in [
        (vec!["revoke"], 2),
        (vec!["revoke", "--subject", "OP1"], 2),
        (vec!["revoke", "--fingerprint", "x"], 2),
        (vec!["token", "issue"], 2),
        (vec!["token", "issue", "--operator", &world.operator, "--ttl", "3d"], 2),
        (vec!["token", "issue", "--operator", "OP0000000000"], 1),
        (vec!["revoke", "--key-id", "keyId-nobody"], 1),
    ] {
        let output = world.run(&arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        assert!(!output.stderr.is_empty() && output.stdout.is_empty(), "{arguments:?}");
    }
    let issue = String::from_utf8(world.run(&["token", "issue"]).stderr).unwrap();
    assert!(issue.contains("--auth-key-id") && issue.contains("--operator"), "{issue}");
    let long = "x".repeat(501);
    let complaint = world.complaint(&["revoke", "--fingerprint", &"1".repeat(64), "--reason", &long]);
    assert!(complaint.contains("expected at most 500 bytes"), "{complaint}");
    for (arguments, expected) in [
        (["verify", "missing/file"].as_slice(), "cannot read `missing/file`"),
        (&["show", "--manifest", "missing/file"], "cannot write `missing/file`"),
    ] {
        let complaint = world.complaint(&[&["bundle"], arguments].concat());
        assert!(complaint.contains(expected), "{complaint}");
    }
    world.set("KEYSTILE_SERVER__LISEN", "x");
    assert!(world.complaint(&["audit"]).contains("did you mean `KEYSTILE_SERVER__LISTEN`?"));
}

#[tokio::test]
async fn a_manifest_is_verified_as_an_edge_would() {
    let world = World::on_sqlite().await;
    let file = world.folder().join("manifest");
    let name = file.to_str().unwrap();
    let shown = world.json(&["bundle", "show", "--manifest", name]);
    assert_eq!(world.json(&["bundle", "verify", name]), shown);
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    assert!(
        world.complaint(&["bundle", "verify", name]).contains("the signature of the manifest is invalid")
    );
}

#[tokio::test]
async fn an_exported_bundle_is_whole() {
    let world = World::on_sqlite().await;
    let token = world.token();
    let fingerprint = token::Fingerprint::digest(token.as_bytes());
    world.json(&["revoke", "--token", &token]);
    let output = world.run(&["bundle", "export", "--lifetime", "30m"]);
    let exported = String::from_utf8(output.stdout).unwrap();
    let carried = bundle::InlineBundle::decode(exported.trim_end()).unwrap();
    let manifest = bundle::Manifest::open(carried.manifest(), &[root_key(&world)], "default").unwrap();
    let (mut objects, now) = (bundle::Objects::default(), clock::now().millis());
    loop {
        let missing = objects.missing(&manifest, now);
        if missing.is_empty() {
            break;
        }
        for entry in missing {
            let bytes = carried.object(&entry).expect("an object is lacking").to_vec();
            objects.open(&manifest, entry, bytes).unwrap();
        }
    }
    let snapshot = bundle::Snapshot::assemble(manifest, &objects, now).unwrap();
    let file = world.folder().join("manifest");
    std::fs::write(&file, carried.manifest()).unwrap();
    let shown = world.json(&["bundle", "verify", file.to_str().unwrap()]);
    let [issued, expires] = ["issued_at", "expires_at"].map(|member| shown[member].as_u64().unwrap());
    assert_eq!((expires - issued, &shown["fresh"]), (30 * 60 * 1000, &serde_json::json!(true)));
    assert_eq!(snapshot.revocation_status(&fingerprint, "", 0, None), bundle::RevocationStatus::Revoked);
    assert!(world.complaint(&["bundle", "export", "--lifetime", "2h"]).contains("at most `1h`"));
}

#[tokio::test]
async fn the_doctor_says_what_to_do() {
    let world = World::on_sqlite().await;
    let advice = |world: &World| {
        let output = world.run(&["doctor"]);
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
    };
    let key = world.data().join("keys/tail.jwk");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(advice(&world).contains("is accessible to group or others; run `chmod go= "));
    assert!(world.complaint(&["serve"]).contains("is open to others"));
    let settings = world.data().join("keystile.toml");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::set_permissions(&settings, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(advice(&world).contains("keystile.toml` is accessible to group or others"));
    std::fs::set_permissions(&settings, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::remove_file(&key).unwrap();
    let told = advice(&world);
    assert!(told.contains("tail.jwk` is missing; restore it"), "{told}");
    world.json(&["authority", "rotate", "tail"]);
    let output = world.run(&["doctor"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    std::fs::remove_dir_all(world.data()).unwrap();
    assert!(advice(&world).contains("`keystile init` creates one"));
    assert!(world.complaint(&["audit"]).contains("init`, or give another with --data"));
}

/// An old journal in its place would hide what was revoked since.
#[tokio::test]
async fn a_damaged_journal_is_not_restored_from_a_backup() {
    let world = World::on_sqlite().await;
    let revoked = ["a", "b"].map(|digit| digit.repeat(64));
    for fingerprint in &revoked {
        world.json(&["revoke", "--fingerprint", fingerprint]);
    }
    let journal = world.data().join("keys/journal");
    let text = std::fs::read_to_string(&journal).unwrap();
    std::fs::write(&journal, text.replacen("revoked_at", "revokad_at", 1)).unwrap();
    let output = world.run(&["doctor"]);
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    let advice = told.lines().find_map(|line| line.strip_prefix("Next: ")).unwrap();
    assert!(
        advice.contains("never restore it from a backup") && advice.contains("move the file away"),
        "{told}"
    );
    assert!(world.complaint(&["serve"]).contains("line 1 of the journal"));
    // As it says: the database knows all of it.
    std::fs::rename(&journal, world.data().join("journal.damaged")).unwrap();
    let server = world.serve();
    eventually("a new journal", async || {
        let text = std::fs::read_to_string(&journal).unwrap_or_default();
        revoked.iter().all(|fingerprint| text.contains(fingerprint)).then_some(())
    })
    .await;
    drop(server);
    assert!(world.run(&["doctor"]).status.success());
}

#[tokio::test]
async fn the_data_folder_is_private() {
    let world = World::on_sqlite().await;
    let server = world.serve();
    server.exchange(&world.auth_key_id, &world.auth_key).await;
    let mut files = vec![world.data(), world.data().join("keys")];
    for folder in files.clone() {
        files.extend(std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()));
    }
    assert!(files.len() > 6);
    for file in files {
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o077, 0, "{}", file.display());
    }
}
