//! Interfaces never touch the store: whatever they can do, an operation does.

use std::{fs, path::Path};

#[test]
fn interfaces_use_operations_and_nothing_below() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut read = 0;
    for room in ["api", "cli"] {
        each_file(&source.join(room), &mut |path, text| {
            read += 1;
            for (line, text) in (1..).zip(text.lines()) {
                let touches = FORBIDDEN.iter().find(|word| text.contains(*word));
                assert_eq!(touches, None, "{}:{line}: {text}", path.display());
            }
        });
    }
    assert!(read > 15, "only {read} files were read");
}

#[test]
fn the_model_knows_nobody() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    each_file(&source.join("model"), &mut |path, text| {
        for upward in ["crate::store", "crate::operations", "crate::api", "crate::cli", "crate::publisher"] {
            assert!(!text.contains(upward), "{}: {upward}", path.display());
        }
    });
    each_file(&source.join("store"), &mut |path, text| {
        for upward in ["crate::operations", "crate::api", "crate::cli", "crate::publisher"] {
            assert!(!text.contains(upward), "{}: {upward}", path.display());
        }
    });
}

fn each_file(folder: &Path, visit: &mut impl FnMut(&Path, &str)) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            each_file(&path, visit);
        } else {
            visit(&path, &fs::read_to_string(&path).unwrap());
        }
    }
}

/// As `use crate::store`, in a list of names, or in full.
const FORBIDDEN: [&str; 5] = ["store::", ".store()", "sqlx", " store,", "{store,"];
