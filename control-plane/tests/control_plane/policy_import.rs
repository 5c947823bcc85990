//! `keystile policy import`: its outputs, exit codes and errors. The policies themselves are compared with Envoy's filters in
//! tests/tests/promises/policy_import.rs.

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Output, Stdio},
};

use control_plane::config;
use serde_json::{Value, json};

const SOURCE: &str = "
providers:
  main:
    issuer: https://a.example
    audiences: [a]
    clock_skew_seconds: 30
    remote_jwks: { http_uri: { uri: 'https://a.example/keys', cluster: a, timeout: 1s } }
  internal:
    issuer: https://b.example
    audiences: [b]
    remote_jwks: { http_uri: { uri: 'http://b.example/keys', cluster: b, timeout: 1s } }
  inline:
    issuer: https://c.example
    audiences: [c]
    local_jwks: { inline_string: '{\"keys\": []}' }
rules:
  - match: { prefix: / }
    requires: { requires_any: { requirements: [{ provider_name: main }, { provider_name: internal }, { provider_name: inline }] } }
";

fn import(folder: &Path, arguments: &[&str], source: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keystile"))
        .args(["policy", "import"])
        .args(arguments)
        .arg("-")
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    command.stdin.take().unwrap().write_all(source.as_bytes()).unwrap();
    command.wait_with_output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn import_prints_policy_remarks_and_sections() {
    let folder = tempfile::tempdir().unwrap();
    let output = import(folder.path(), &[], SOURCE);
    let policy: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        policy["rules"],
        json!([{ "path": "/**", "issuers": ["https://a.example", "https://b.example", "https://c.example"] }])
    );
    let text = stderr(&output);
    assert!(
        text.contains("[[issuers]]\nissuer = \"https://a.example\"\njwks_url = \"https://a.example/keys\"\n"),
        "{text}"
    );
    assert!(text.contains("`tokens.leeway_seconds` must be 30"), "{text}");
    assert_eq!(output.status.code(), Some(5), "{text}");
    assert!(text.contains("# [[issuers]]\n# issuer = \"https://b.example\"\n"), "{text}");
    assert!(text.contains("not carried over: https://b.example: its keys are not at an https URL"), "{text}");
    assert_eq!(import(folder.path(), &["--allow-partial"], SOURCE).status.code(), Some(0));
    let output = import(folder.path(), &["--json"], SOURCE);
    assert_eq!(output.status.code(), Some(5));
    let data: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(data["policy"], policy);
    let kinds: Vec<&Value> =
        data["remarks"].as_array().unwrap().iter().map(|remark| &remark["kind"]).collect();
    assert_eq!(kinds, ["not_carried_over", "note"]);
}

#[test]
fn import_writes_files_and_completes_a_plugin_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().join("filter.json");
    let plugin = json!({ "audience": "default", "tokens": { "issuer": "i", "audiences": ["x"], "leeway_seconds": 5 } });
    fs::write(&base, plugin.to_string()).unwrap();
    let arguments = ["--base", "filter.json", "--output", "policy.json", "--issuers", "issuers.toml"];
    let source = SOURCE.replace("http://b.example", "https://b.example");
    let output = import(folder.path(), &arguments, &source);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(output.stdout.is_empty() && output.stderr.is_empty(), "{}", stderr(&output));
    let policy: Value =
        serde_json::from_slice(&fs::read(folder.path().join("policy.json")).unwrap()).unwrap();
    assert_eq!((&policy["audience"], &policy["tokens"]["leeway_seconds"]), (&json!("default"), &json!(30)));
    assert_eq!(policy["issuers"].as_array().unwrap().len(), 3);
    let settings = fs::read_to_string(folder.path().join("issuers.toml")).unwrap();
    let (inline, others): (Vec<&str>, Vec<&str>) =
        settings.split("\n\n").partition(|section| section.contains("c.example"));
    assert!(inline[0].contains("jwks = '{\"keys\": []}'"), "{settings}");
    let file = folder.path().join("keystile.toml");
    fs::write(&file, others.join("\n\n")).unwrap();
    let issuers = config::load(Some(&file), std::iter::empty()).unwrap().issuers;
    let urls: Vec<_> =
        issuers.iter().map(|issuer| (&*issuer.issuer, issuer.jwks_url.as_deref().unwrap())).collect();
    assert!(urls.contains(&("https://a.example", "https://a.example/keys")), "{urls:?}");
    assert_eq!(urls.len(), 2);

    // What is there already is not replaced.
    let output = import(folder.path(), &["--base", "policy.json"], &SOURCE.replace("prefix: /", "path: /a"));
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("has the member `rules` already"), "{}", stderr(&output));
}

/// The policy refuses other spellings of a path only under `path_case: "fold"`.
#[test]
fn import_needs_path_case_fold_if_source_ignores_case() {
    let folder = tempfile::tempdir().unwrap();
    let ignores_case = SOURCE.replace("prefix: /", "prefix: /, case_sensitive: false");
    for (members, source, code) in [
        (json!({}), &*ignores_case, 5),
        (json!({ "path_case": "fold" }), &ignores_case, 5),
        (json!({ "path_case": "exact" }), &ignores_case, 1),
        (json!({ "path_case": "exact" }), SOURCE, 5),
    ] {
        fs::write(folder.path().join("filter.json"), members.to_string()).unwrap();
        let output = import(folder.path(), &["--base", "filter.json"], source);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{members} {text}");
        assert_eq!(text.contains("has `path_case: \"exact\"`, but the source compares"), code == 1, "{text}");
    }
}

#[test]
fn import_reports_what_is_wrong_with_the_source() {
    let folder = tempfile::tempdir().unwrap();
    for (source, message) in [
        ("a: 1", "neither a `jwt_authn` filter nor"),
        ("a: [", "is not valid YAML"),
        (
            "providers: { p: { issuer: s3cret, local_jwks: s3cret } }",
            "`providers.p.local_jwks`: must be an object",
        ),
        ("apiVersion: v1\nkind: Pod\n---\na: 1", "both Kubernetes objects and other documents"),
    ] {
        let output = import(folder.path(), &[], source);
        assert_eq!(output.status.code(), Some(1), "{source}");
        assert!(output.stdout.is_empty());
        let text = stderr(&output);
        assert!(text.contains(message) && !text.contains("s3cret"), "{text}");
    }
    let output = import(folder.path(), &["--label", "app"], SOURCE);
    assert_eq!(output.status.code(), Some(2));
    // A name in the source cannot write to the terminal.
    let output = import(
        folder.path(),
        &[],
        &SOURCE.replace("main:\n", "\"a\\e[31m\":\n    extra: 1\n").replace("main", "\"a\\e[31m\""),
    );
    assert!(!stderr(&output).contains('\u{1b}'), "{:?}", stderr(&output));
    assert!(stderr(&output).contains("extra"), "{:?}", stderr(&output));
}
