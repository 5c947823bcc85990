#!/usr/bin/env bash
# Builds the revocation sets for V8 into target/wasm/sets.wasm, with the toolchain and the profile of the filter.
set -euo pipefail
cd "$(dirname "$0")/../.."

./setup.sh rust wasm

cargo=(cargo)
build=(build --quiet --locked --profile wasm --target wasm32-unknown-unknown --target-dir "$PWD/target/wasm-build" --package keystile-sets)
if [[ $(<target/tools/wasm-toolchain) == debian ]]; then
    export PATH=/usr/bin:$PATH RUSTC_BOOTSTRAP=1 CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=wasm-ld-19
    cargo=(/usr/bin/cargo)
    build+=(-Zbuild-std=std,panic_abort)
fi
"${cargo[@]}" "${build[@]}"
mkdir -p target/wasm
cp target/wasm-build/wasm32-unknown-unknown/wasm/sets.wasm target/wasm/sets.wasm
