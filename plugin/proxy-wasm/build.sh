#!/usr/bin/env bash
# Builds the filter: target/wasm/keystile.wasm, without local paths in it and under the size budget.
set -euo pipefail
cd "$(dirname "$0")/../.."

readonly BUDGET=700000 # bytes
readonly OUT=target/wasm/keystile.wasm
# What the host may call. The SDK exports all callbacks of the ABI, and a host calls each exported one for every
# request or every chunk of a body, which costs 0.2 to 2 microseconds (Envoy 1.40) and does nothing here.
readonly EXPORTS=(
    memory malloc _initialize proxy_abi_version_0_2_1
    proxy_on_context_create proxy_on_configure proxy_on_tick proxy_on_queue_ready proxy_on_http_call_response
    proxy_on_delete
    proxy_on_request_headers proxy_on_request_trailers
)

# shellcheck source=../wasm.sh
. plugin/wasm.sh

build_wasm keystile-proxy-wasm

mkdir -p "$(dirname "$OUT")"
# Removes all other exports, and the code that only they use.
nodes=$(for name in "${EXPORTS[@]}"; do printf '{"name": "%s", "export": "%s", "root": true},' "$name" "$name"; done)
echo "[${nodes%,}]" >"$WASM_BUILD/exports.json"
wasm-metadce "$compiled/keystile.wasm" --graph-file "$WASM_BUILD/exports.json" -o "$WASM_BUILD/pruned.wasm" >"$WASM_BUILD/pruned.log"
# wasm-opt reads the permitted features from the module. With all features it would make a module that Envoy refuses.
wasm-opt -O3 --strip-debug --strip-producers "$WASM_BUILD/pruned.wasm" -o "$WASM_BUILD/keystile.wasm"
cmp -s "$WASM_BUILD/keystile.wasm" "$OUT" || cp "$WASM_BUILD/keystile.wasm" "$OUT"

size=$(stat -c %s "$OUT")
echo "$OUT: $size bytes of $BUDGET"
# The cost of requests depends only on the toolchain too, so costs.txt names it, and its test reads which one built this
# filter.
echo "$toolchain" >"$(dirname "$OUT")/toolchain"
echo "$OUT: sha256 $(sha256sum "$OUT" | cut -d' ' -f1), by $toolchain"
if ((size > BUDGET)); then
    echo "$OUT is over its budget" >&2
    exit 1
fi
refuse_local_paths "$OUT"
