#!/usr/bin/env bash
# Builds the filter for both hosts and the JavaScript package from a copy of the sources in another folder, and compares them
# with target/wasm/keystile.wasm, target/module/libkeystile.so and target/npm/.
# The repository contains no hash to compare with: each change would have to replace it, so it would only describe the last
# build. To verify from which sources something was built, build it again.
set -euo pipefail
cd "$(dirname "$0")/.."

copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
# Copies tracked and new files in their current state.
git ls-files -z --cached --others --exclude-standard | xargs -0 -I{} sh -c 'test ! -e "$1" || cp --parents -- "$1" "$2"' - {} "$copy"
mkdir -p "$copy/target/tools"
cp target/tools/wasm-toolchain "$copy/target/tools/"
ln -s "$PWD/target/tools/npm-build" "$copy/target/tools/"
"$copy/plugin/proxy-wasm/build.sh"
"$copy/plugin/envoy-module/build.sh"
# The tool that writes the glue comes from the same sources and takes longest.
cargo build --quiet --locked --package keystile-bindgen
BINDGEN=$PWD/target/debug/keystile-bindgen "$copy/plugin/javascript/build.sh"
for built in target/wasm/keystile.wasm target/module/libkeystile.so target/npm; do
    if ! diff -r "$built" "$copy/$built"; then
        echo "$built depends on the folder it is built in" >&2
        exit 1
    fi
    echo "$built: identical when built in another folder"
done
