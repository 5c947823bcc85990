#!/usr/bin/env bash
# Builds the filter from a copy of the sources in another folder, and compares it with target/wasm/keystile.wasm.
# The repository contains no hash to compare with: each change of the filter would have to replace it, so it would only
# describe the last build. To verify from which sources a filter was built, build it again.
set -euo pipefail
cd "$(dirname "$0")/../.."

copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
# Copies tracked and new files in their current state.
git ls-files -z --cached --others --exclude-standard | xargs -0 -I{} sh -c 'test ! -e "$1" || cp --parents -- "$1" "$2"' - {} "$copy"
mkdir -p "$copy/target/tools"
cp target/tools/wasm-toolchain "$copy/target/tools/"
"$copy/plugin/proxy-wasm/build.sh"
if ! cmp target/wasm/keystile.wasm "$copy/target/wasm/keystile.wasm"; then
    echo "the filter depends on the folder it is built in" >&2
    exit 1
fi
echo "target/wasm/keystile.wasm: identical when built in another folder"
