#!/usr/bin/env bash
# `make mutants`: cargo-mutants changes one function at a time, and a test of its crate must fail each time. The functions
# and the exclusions are in .cargo/mutants.toml. Fails if a change survives, and if the configuration names a function that
# does not exist. `./mutants.sh FILE...` changes only functions of these files.
set -euo pipefail
cd "$(dirname "$0")"

readonly CONFIG=.cargo/mutants.toml
readonly RESULTS=target/mutants.out
mkdir -p target
SCRATCH=$(mktemp -d "$PWD/target/mutants.XXXXXX")
trap 'rm -rf "$SCRATCH"' EXIT
# The version that is pinned.
PATH=$PWD/target/tools/bin:$PATH
# Each job builds in a folder of its own: Cargo cannot distinguish the copies of a workspace, and would mix them.
unset CARGO_TARGET_DIR
# Otherwise each fuzz target runs for a second, and each property is tried with 256 values.
export BOLERO_RANDOM_ITERATIONS=20 PROPTEST_CASES=64

main() {
    local config=$CONFIG excluded status=0 killed survived timeouts
    check_names >"$SCRATCH/excluded"
    excluded=$(<"$SCRATCH/excluded")
    if [[ $# -gt 0 ]]; then
        config=$SCRATCH/part.toml
        { printf 'examine_globs = ['; printf '"%s", ' "$@"; echo ']'; without examine_globs; } >"$config"
    fi
    rm -rf "$RESULTS"
    cargo mutants --jobs 2 --caught --config "$config" --output target || status=$?
    [[ -f $RESULTS/missed.txt && $status -ne 4 ]] || exit "$status"
    killed=$(count caught) survived=$(count missed) timeouts=$(count timeout)
    # 3: a changed function does not return. A test has noticed that.
    [[ $status -eq 3 && $survived -eq 0 ]] && status=0
    echo "mutants: $killed killed, $survived survived, $excluded excluded, $timeouts timeouts"
    exit "$status"
}

# Fails if a name or a pattern matches no change. Prints how many changes are excluded.
check_names() {
    without exclude_re >"$SCRATCH/all.toml"
    cargo mutants --list --config "$SCRATCH/all.toml" >"$SCRATCH/all"
    python3 - "$CONFIG" "$SCRATCH/all" <<'PY'
import re, sys, tomllib
config = tomllib.load(open(sys.argv[1], "rb"))
changes = open(sys.argv[2]).read().splitlines()
def each_name(pattern):
    """The pattern, once with each name of its group."""
    group = re.search(r"\((\w+(?:\|\w+)+)\)", pattern)
    return [pattern.replace(group[0], name) for name in group[1].split("|")] if group else [pattern]
for pattern in config["examine_re"] + config["exclude_re"]:
    for name in each_name(pattern):
        if not any(re.search(name, change) for change in changes):
            sys.exit(f"mutants: {sys.argv[1]}: `{name}` matches nothing")
print(sum(any(re.search(pattern, change) for pattern in config["exclude_re"]) for change in changes))
PY
}

# The configuration without a list.
without() { sed "/^$1 = \[/,/^\]/d" "$CONFIG"; }
count() { wc -l <"$RESULTS/$1.txt"; }

main "$@"
