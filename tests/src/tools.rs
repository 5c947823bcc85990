//! The paths of the programs that `make` builds and installs.

use anyhow::{Result, ensure};
use std::path::{Path, PathBuf};

/// Returns the binary of the profile in which the harness was built.
pub fn keystile() -> Result<PathBuf> {
    if cfg!(debug_assertions) {
        built("target/debug/keystile", "make run")
    } else {
        built("target/release/keystile", "cargo build --release --package keystile")
    }
}

pub fn wasm() -> Result<PathBuf> {
    built("target/wasm/keystile.wasm", "make wasm")
}

pub fn module() -> Result<PathBuf> {
    built("target/module/libkeystile.so", "make module")
}

/// Returns the native module with a hook that a request can make panic.
pub fn panicking_module() -> Result<PathBuf> {
    built("target/debug/libkeystile_panicking_module.so", "cargo build --package keystile-panicking-module")
}

pub fn envoy() -> Result<PathBuf> {
    built("target/tools/envoy", "./setup.sh envoy")
}

/// Returns the path of a PostgreSQL program (`initdb`, `postgres`): on the PATH, or where Debian installs it.
pub fn postgres(program: &str) -> Result<PathBuf> {
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let found = std::env::split_paths(&on_path)
        .chain(debian.map(|version| version.path().join("bin")))
        .map(|folder| folder.join(program))
        .find(|path| path.is_file());
    found.ok_or_else(|| anyhow::anyhow!("{program} not found; run ./setup.sh postgres"))
}

/// Returns the folder of the workspace.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the workspace")
}

fn built(path: &str, by: &str) -> Result<PathBuf> {
    let path = root().join(path);
    ensure!(path.exists(), "{} is missing; `{by}` makes it", path.display());
    Ok(path)
}
