#!/usr/bin/env bash
# `make mutants`: cargo-mutants changes one function at a time, and a test of its crate must fail each time. The functions
# and the exclusions are in .cargo/mutants.toml. Fails if a change survives, and if a pattern of the configuration matches
# nothing. `./mutants.sh --file token/src/jwt.rs` tries a part: arguments are those of `cargo mutants`.
set -euo pipefail
cd "$(dirname "$0")"

readonly RESULTS=target/mutants.out
mkdir -p target
SCRATCH=$(mktemp -d "$PWD/target/mutants.XXXXXX")
trap 'rm -rf "$SCRATCH"' EXIT
PATH=$PWD/target/tools/bin:$PATH
# Both jobs use one folder, so that dependencies are built once.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$SCRATCH/target}
# The targets for fuzzing run for a second each otherwise.
export BOLERO_RANDOM_ITERATIONS=20

main() {
    local excluded status=0 killed survived timeouts
    check_patterns >"$SCRATCH/excluded"
    excluded=$(<"$SCRATCH/excluded")
    rm -rf "$RESULTS"
    cargo mutants --jobs 2 --output target "$@" || status=$?
    [[ -f $RESULTS/outcomes.json ]] || exit "$status"
    killed=$(count caught) survived=$(count missed) timeouts=$(count timeout)
    # 3: a test did not end, because the changed function loops. The change is noticed.
    [[ $status -eq 3 && $survived -eq 0 ]] && status=0
    echo "mutants: $killed killed, $survived survived, $excluded excluded, $timeouts timeouts"
    exit "$status"
}

count() { wc -l <"$RESULTS/$1.txt"; }

# Fails if a name or a pattern matches nothing, as after a rename. Prints how many changes the exclusions exclude.
check_patterns() {
    sed '/^exclude_re = \[/,/^\]/d' .cargo/mutants.toml >"$SCRATCH/examined.toml"
    cargo mutants --list --config "$SCRATCH/examined.toml" >"$SCRATCH/examined"
    python3 - "$SCRATCH/examined" <<'PY'
import re, sys, tomllib
config = tomllib.load(open(".cargo/mutants.toml", "rb"))
mutants = open(sys.argv[1]).read().splitlines()
def names(pattern):
    """The pattern once with each name of its group."""
    group = re.search(r"\((\w+(?:\|\w+)+)\)", pattern)
    return [pattern.replace(group[0], name) for name in group[1].split("|")] if group else [pattern]
for pattern in config["examine_re"] + config["exclude_re"]:
    for name in names(pattern):
        if not any(re.search(name, mutant) for mutant in mutants):
            sys.exit(f"mutants: .cargo/mutants.toml: `{name}` matches no function")
print(sum(any(re.search(pattern, mutant) for pattern in config["exclude_re"]) for mutant in mutants))
PY
}

main "$@"
