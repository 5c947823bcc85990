#!/usr/bin/env bash
# Builds the native module from a copy of the sources in another folder, and compares it with target/module/libkeystile.so.
set -euo pipefail
cd "$(dirname "$0")/../.."

copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
# Copies tracked and new files in their current state.
git ls-files -z --cached --others --exclude-standard | xargs -0 -I{} sh -c 'test ! -e "$1" || cp --parents -- "$1" "$2"' - {} "$copy"
"$copy/plugin/envoy-module/build.sh"
if ! cmp target/module/libkeystile.so "$copy/target/module/libkeystile.so"; then
    echo "the module depends on the folder it is built in" >&2
    exit 1
fi
echo "target/module/libkeystile.so: identical when built in another folder"
