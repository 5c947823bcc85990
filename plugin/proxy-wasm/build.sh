#!/usr/bin/env bash
# Builds the filter: target/wasm/keystile.wasm, without local paths in it and under the size budget.
set -euo pipefail
cd "$(dirname "$0")/../.."

readonly BUDGET=700000 # bytes
readonly BUILD=$PWD/target/wasm-build OUT=target/wasm/keystile.wasm
# What the host may call. The SDK exports all callbacks of the ABI, and a host calls each exported one for every
# request or every chunk of a body, which costs 0.2 to 2 microseconds (Envoy 1.40) and does nothing here.
readonly EXPORTS=(
    memory malloc _initialize proxy_abi_version_0_2_1
    proxy_on_context_create proxy_on_configure proxy_on_tick proxy_on_queue_ready proxy_on_http_call_response
    proxy_on_delete
    proxy_on_request_headers proxy_on_request_trailers
)
readonly CARGO_SOURCES=${CARGO_HOME:-$HOME/.cargo}

./setup.sh rust wasm binaryen

cargo=(cargo)
# The separate folder prevents this build and those for the host from invalidating each other.
build=(build --locked --profile wasm --target wasm32-unknown-unknown --target-dir "$BUILD" --package keystile-proxy-wasm)
# Panic messages contain paths. These flags make them the same on every machine.
flags=(--remap-path-prefix="$PWD"=keystile --remap-path-prefix="$CARGO_SOURCES"=cargo)

if [[ $(<target/tools/wasm-toolchain) == debian ]]; then
    export PATH=/usr/bin:$PATH RUSTC_BOOTSTRAP=1 CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=wasm-ld-19
    cargo=(/usr/bin/cargo)
    build+=(-Zbuild-std=std,panic_abort)
    flags+=(--remap-path-prefix=/usr=rust)
fi

separator=$'\x1f'
encoded=$(printf "%s$separator" "${flags[@]}")
CARGO_ENCODED_RUSTFLAGS=${encoded%"$separator"} "${cargo[@]}" "${build[@]}"

mkdir -p "$(dirname "$OUT")"
built=$BUILD/wasm32-unknown-unknown/wasm/keystile.wasm
# Removes all other exports, and the code that only they use.
nodes=$(for name in "${EXPORTS[@]}"; do printf '{"name": "%s", "export": "%s", "root": true},' "$name" "$name"; done)
echo "[${nodes%,}]" >"$BUILD/exports.json"
wasm-metadce "$built" --graph-file "$BUILD/exports.json" -o "$BUILD/pruned.wasm" >"$BUILD/pruned.log"
# wasm-opt reads the permitted features from the module. With all features it would make a module that Envoy refuses.
wasm-opt -O3 --strip-debug --strip-producers "$BUILD/pruned.wasm" -o "$BUILD/keystile.wasm"
cmp -s "$BUILD/keystile.wasm" "$OUT" || cp "$BUILD/keystile.wasm" "$OUT"

size=$(stat -c %s "$OUT")
echo "$OUT: $size bytes of $BUDGET"
# The hash is the same on every machine with the same toolchain, in any folder: reproduce.sh verifies it. The cost of
# requests is the same too, so costs.txt names the toolchain, and its test reads which one built this filter.
toolchain="$("${cargo[@]}" rustc --version 2>/dev/null || rustc --version), $(wasm-opt --version)"
echo "$toolchain" >"$(dirname "$OUT")/toolchain"
echo "$OUT: sha256 $(sha256sum "$OUT" | cut -d' ' -f1), by $toolchain"
if ((size > BUDGET)); then
    echo "$OUT is over its budget" >&2
    exit 1
fi
if grep -aqF -e "$PWD/" -e "$CARGO_SOURCES/" "$OUT"; then
    echo "$OUT names paths of this machine" >&2
    exit 1
fi
