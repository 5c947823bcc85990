#!/usr/bin/env bash
# Tests `make audit`: an advisory for a dependency fails it, and so does an exemption without a reason. The last line
# reports whether advisories were checked.
set -euo pipefail
cd "$(dirname "$0")/.."

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# Creates a database with one advisory, for the crate $1, and prints its folder.
database() {
    local folder=$scratch/$1
    mkdir -p "$folder/crates/$1"
    printf '```toml\n[advisory]\nid = "RUSTSEC-2026-9999"\npackage = "%s"\ndate = "2026-11-01"\n\n[versions]\npatched = []\n```\n\n# Planted\n\nFor this test.\n' \
        "$1" >"$folder/crates/$1/RUSTSEC-2026-9999.md"
    git -C "$folder" init --quiet
    git -C "$folder" add --all
    git -C "$folder" -c user.name=test -c user.email=test@example.com commit --quiet --message=planted
    echo "$folder"
}

# $1: whether audit.sh must succeed, $2: a text it must print, $3: a text its last line must contain; the rest is the
# environment.
expect() {
    local success=$1 somewhere=$2 last=$3 output done=no
    shift 3
    output=$(env "$@" ./audit.sh 2>&1) && done=yes
    if [[ $done != "$success" || $output != *"$somewhere"* || $(tail -n 1 <<<"$output") != *"$last"* ]]; then
        echo "$output" >&2
        echo "audit: expected success=$success, \`$somewhere\`, and \`$last\` as the last line" >&2
        exit 1
    fi
}

expect no RUSTSEC-2026-9999 "advisories FAILED" ADVISORY_DB="$(database serde)"
expect yes "advisories ok" "audit: advisories checked against the database of" ADVISORY_DB="$(database not-a-dependency)"
expect no "" "there is no such folder" ADVISORY_DB="$scratch/missing"
expect no "" "is not an advisory database" ADVISORY_DB="$scratch"
# No server listens there.
expect yes "" "ADVISORIES WERE NOT CHECKED" ADVISORY_DB= https_proxy=http://127.0.0.1:1 HTTPS_PROXY=http://127.0.0.1:1

mkdir "$scratch/tree"
cp audit.sh deny.toml "$scratch/tree"
sed -i 's|^ignore = \[|&\n    "RUSTSEC-2026-9999",|' "$scratch/tree/deny.toml"
if "$scratch/tree/audit.sh" >"$scratch/output" 2>&1 || ! grep -q "a \`reason\`" "$scratch/output"; then
    cat "$scratch/output" >&2
    echo "audit: an exemption without a reason was accepted" >&2
    exit 1
fi
echo "audit: fails on a finding, and reports when advisories were not checked"
