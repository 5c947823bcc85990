//! `keystile-words FOLDER`: finds words of `words.txt` in the comments, string literals and Markdown of a folder.
//!
//! Prints `file:line: "phrase": write ...` for each, and exits with 1 if there is any. A rightful use is marked by
//! `words: allow PHRASE` in a comment on its line or on the line before.

mod prose;
mod words;

use std::{
    env, fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use walkdir::{DirEntry, WalkDir};

use crate::{
    prose::{Kind, Prose},
    words::WordList,
};

const LIST: &str = include_str!("../words.txt");

/// The list itself quotes every phrase.
const LIST_FILE: &str = "tests/words/words.txt";

/// Names of folders without sources of the project.
const SKIPPED: [&str; 4] = [".git", ".keystile", "target", "node_modules"];

/// Databases store the checksums of applied migrations, so their comments cannot change. Later ones are checked.
const MIGRATIONS: &str = "control-plane/migrations";
const FIRST_CHECKED_MIGRATION: &str = "0012";

fn main() -> anyhow::Result<ExitCode> {
    let [folder] = env::args_os().skip(1).collect::<Vec<_>>().try_into().unwrap_or_default();
    let folder = PathBuf::from(folder);
    if !folder.is_dir() {
        bail!("usage: keystile-words FOLDER");
    }
    let list = WordList::parse(LIST)?;
    let mut out = io::stdout().lock();
    let (mut files, mut found) = (0, 0);
    for (path, kind) in sources(&folder)? {
        let source = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        files += 1;
        for finding in list.check(&Prose::of(kind, &source), &source) {
            found += 1;
            let name = path.strip_prefix(&folder).unwrap_or(&path).display();
            writeln!(out, "{name}:{}: {}", finding.line, finding.message)?;
        }
    }
    if files == 0 {
        bail!("no source files in {}", folder.display());
    }
    if found > 0 {
        eprintln!("{found} findings; see {LIST_FILE}");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the files to check, in the order of their names.
fn sources(folder: &Path) -> anyhow::Result<Vec<(PathBuf, Kind)>> {
    let skipped = |entry: &DirEntry| {
        let name = entry.file_name().to_string_lossy();
        let is_frozen = || entry.path().parent().is_some_and(|parent| parent.ends_with(MIGRATIONS));
        entry.path().ends_with(LIST_FILE)
            || SKIPPED.contains(&name.as_ref())
            || (*name < *FIRST_CHECKED_MIGRATION && is_frozen())
    };
    let mut sources = Vec::new();
    for entry in WalkDir::new(folder).sort_by_file_name().into_iter().filter_entry(|entry| !skipped(entry)) {
        let entry = entry?;
        let kind = Kind::of(entry.path()).filter(|_| entry.file_type().is_file());
        sources.extend(kind.map(|kind| (entry.into_path(), kind)));
    }
    Ok(sources)
}
