//! The program finds planted words, and nothing in plain text.

use std::{fs, path::Path, process::Command};

use tempfile::TempDir;

/// Runs the program over a folder. Returns its exit code and its output.
fn check(folder: &Path) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_keystile-words")).arg(folder).output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = TempDir::with_prefix("keystile-words-").unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

/// Checks one file, and returns the lines and phrases that the program finds.
fn found(name: &str, text: &str) -> Vec<(usize, String)> {
    let folder = folder(&[(name, text)]);
    let (code, output) = check(folder.path());
    let found: Vec<_> = output
        .lines()
        .map(|line| {
            let (line, message) = line.strip_prefix(&format!("{name}:")).unwrap().split_once(": ").unwrap();
            (line.parse().unwrap(), message.split('"').nth(1).unwrap_or(message).to_owned())
        })
        .collect();
    assert_eq!(code, Some(i32::from(!found.is_empty())), "{name}: {text}");
    found
}

/// Removes the tildes, which keep this file itself free of the words.
macro_rules! planted {
    ($text:literal) => {
        $text.replace('~', "")
    };
}

#[test]
fn planted_words_fail_the_check() {
    let good = "/// Returns the colors of the whole number.\nfn colors() {}\n";
    let comment = planted!("fn f() {}\n// The col~our of a value.\n");
    let page = planted!("# Title\n\nBuilt an~ew.\n");
    let literal = planted!("const TEXT: &str = \"ask who~ever is there\";\n");
    let folder = folder(&[
        ("src/good.rs", good),
        ("src/comment.rs", &comment),
        ("docs/page.md", &page),
        ("src/literal.rs", &literal),
        ("target/built.rs", &comment),
    ]);
    let (code, output) = check(folder.path());
    assert_eq!(code, Some(1));
    let lines: Vec<_> = output.lines().map(|line| line.split('"').next().unwrap()).collect();
    assert_eq!(lines, ["docs/page.md:3: ", "src/comment.rs:2: ", "src/literal.rs:1: "]);
    assert!(output.contains(": write color"), "{output}");
}

#[test]
fn plain_text_passes() {
    for (name, text) in [
        (
            "a.rs",
            planted!("/// Names in backticks: `who~ever`, and identifiers: who~ever_asks.\nfn an~ew() {}\n"),
        ),
        ("b.rs", planted!("fn f(an~ew: u8) { println!(\"{an~ew:?} {}\", 1) }\n")),
        ("c.md", planted!("Code: `who~ever`.\n\n```rust\n// who~ever\n```\n")),
        ("d.rs", "// Another process holds the lock of the file.\n".to_owned()),
    ] {
        assert_eq!(found(name, &text), [], "{name}");
    }
}

#[test]
fn phrases_continue_on_the_next_line() {
    let text = planted!("/// There are so\n/// ma~ny of them.\nfn f() {}\n");
    assert_eq!(found("a.rs", &text), [(1, planted!("so ma~ny"))]);
    let text = planted!("const A: &str = \"so \\\n    ma~ny\";\n");
    assert_eq!(found("b.rs", &text), [(1, planted!("so ma~ny"))]);
    let text = planted!("# There are so\n# ma~ny of them.\n");
    assert_eq!(found("c.toml", &text), [(1, planted!("so ma~ny"))]);
    // Code is between the two words.
    assert_eq!(found("d.rs", &planted!("// so\nfn f() {}\n// ma~ny\n")), []);
}

#[test]
fn comments_of_shell_in_markdown_are_checked() {
    let text = planted!("```sh\nrun who~ever # built an~ew\n```\n");
    assert_eq!(found("a.md", &text), [(2, planted!("an~ew"))]);
}

#[test]
fn constants_have_standard_prefixes() {
    assert_eq!(found("a.rs", "const MOST_FILES: u8 = 1;\n"), [(1, "MOST_FILES".to_owned())]);
    assert_eq!(found("b.rs", "const MAX_FILES: u8 = 1;\n"), []);
}

#[test]
fn marks_allow_a_phrase_and_must_be_used() {
    let allow = "words: allow ";
    let same_line = planted!("let a = \"an~ew\"; // ") + allow + &planted!("an~ew\n");
    assert_eq!(found("a.rs", &same_line), []);
    let line_before = "# ".to_owned() + allow + &planted!("an~ew\necho an~ew\n");
    assert_eq!(found("b.sh", &line_before), []);
    let page = "<!-- ".to_owned() + allow + &planted!("an~ew -->\nBuilt an~ew.\n");
    assert_eq!(found("c.md", &page), []);
    let unused = "// ".to_owned() + allow + &planted!("an~ew\nfn f() {}\n");
    assert_eq!(found("d.rs", &unused).len(), 1);
}

#[test]
fn an_empty_folder_is_an_error() {
    let folder = folder(&[]);
    let (code, output) = check(folder.path());
    assert_eq!((code, output.as_str()), (Some(1), ""));
}
