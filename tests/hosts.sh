#!/usr/bin/env bash
# Runs the promise tests with the filter as a native module, except those in tests/tests/promises/hosts.txt.
set -euo pipefail
cd "$(dirname "$0")/.."

skip=()
while read -r name _; do
    [[ $name == \#* ]] || skip+=(--skip "$name")
done <tests/tests/promises/hosts.txt
KEYSTILE_FILTER_HOST=module cargo test --locked --workspace --test promises -- "${skip[@]}" "$@"
