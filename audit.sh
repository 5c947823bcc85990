#!/usr/bin/env bash
# `make audit`: checks licenses, banned and duplicate dependencies, sources, and known vulnerabilities. The last line
# reports the date of the advisory database, or that advisories were not checked. ADVISORY_DB=DIR is a clone of the
# RustSec advisory database, for machines that cannot fetch it.
set -euo pipefail
cd "$(dirname "$0")"

readonly TOOLS=$PWD/target/tools
# The name that this version of cargo-deny gives to the folder of the database.
readonly DATABASE=advisory-db-3157b0e258782691
readonly FETCHED=$TOOLS/advisories/$DATABASE
# Finds the pinned version of cargo-deny first.
PATH=$TOOLS/bin:$PATH
deny=(cargo deny --locked --offline)

main() {
    reasons
    cargo fetch --quiet --locked
    "${deny[@]}" check --hide-inclusion-graph licenses bans sources
    if [[ -n ${ADVISORY_DB:-} ]]; then
        local folder
        folder=$(realpath -e "$ADVISORY_DB") || fail "ADVISORY_DB=$ADVISORY_DB: there is no such folder"
        [[ -d $folder/crates ]] || fail "ADVISORY_DB=$ADVISORY_DB is not an advisory database: it has no folder crates/"
        advisories "$folder"
    elif fetched; then
        advisories "$FETCHED"
    else
        say "ADVISORIES WERE NOT CHECKED: their database cannot be fetched here (target/tools/advisories.log); name a clone of it: ADVISORY_DB=DIR make audit"
    fi
}

# Fails if an exemption has no reason.
reasons() {
    python3 - <<'PY' || fail "deny.toml: every entry of advisories.ignore is a table with an \`id\` and a \`reason\`"
import sys, tomllib
ignored = tomllib.load(open("deny.toml", "rb")).get("advisories", {}).get("ignore", [])
sys.exit(not all(isinstance(entry, dict) and entry.get("reason", "").strip() for entry in ignored))
PY
}

fetched() {
    mkdir -p "$TOOLS/advisories"
    settings "$TOOLS/advisories"
    timeout 120 cargo deny --locked --config "$TOOLS/deny.toml" fetch db >"$TOOLS/advisories.log" 2>&1
}

# Checks advisories against the database in a folder.
advisories() {
    local folder=$1 as_of
    place=$(mktemp -d "$TOOLS/advisories.XXXXXX")
    trap 'rm -rf "$place"' EXIT
    ln -s "$folder" "$place/$DATABASE"
    settings "$place"
    "${deny[@]}" --config "$TOOLS/deny.toml" check --hide-inclusion-graph advisories
    as_of=$(git -C "$folder" show -s --format=%cI HEAD)
    say "advisories checked against the database of $as_of"
}

# Writes the settings of cargo-deny, with a folder for the databases.
settings() {
    sed "s|^\[advisories\]\$|&\ndb-path = \"$1\"|" deny.toml >"$TOOLS/deny.toml"
}

say() { echo "audit: $*"; }
fail() {
    echo "audit: $*" >&2
    exit 1
}

main
