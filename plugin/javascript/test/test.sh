#!/usr/bin/env bash
# Tests target/npm/ as a user gets it: packed, installed into empty projects, type-checked, and run in every JavaScript
# runtime. `test.sh FILE...` runs only these files, `test.sh bench.mjs ARGUMENT...` the benchmark.
set -euo pipefail
cd "$(dirname "$0")/../../.."

export KEYSTILE_ROOT=$PWD
readonly TOOLS=$PWD/target/tools/npm-test
readonly WORK=$TOOLS/work TESTS=$PWD/plugin/javascript/test

./setup.sh npm_test
[[ -f target/npm/package.json ]] || { echo "target/npm is missing; run \`make npm\`" >&2; exit 1; }
[[ -x target/debug/forge ]] || { echo "target/debug/forge is missing; run \`cargo build --workspace --bins\`" >&2; exit 1; }

rm -rf "$WORK"
mkdir -p "$WORK"
(cd target/npm && npm pack --silent --pack-destination "$WORK" >/dev/null)

# Installs the package into an empty project. The frameworks are in the folder above.
install() {
    mkdir -p "$1"
    echo '{ "private": true, "type": "module" }' >"$1/package.json"
    (cd "$1" && npm install --silent --offline --no-audit --no-fund "$WORK"/keystile-*.tgz)
}

install "$WORK"
cp -r "$TESTS"/{*.mjs,serve,*.txt} "$WORK/"
for project in "$TESTS"/projects/*/; do
    install "$WORK/projects/$(basename "$project")"
    cp "$project"/* "$WORK/projects/$(basename "$project")/"
done

cd "$WORK"
if [[ ${1:-} == bench.mjs ]]; then
    exec node "$@"
fi
files=("$@")
((${#files[@]})) || files=(package.test.mjs gate.test.mjs runtimes.test.mjs)
node --test --test-reporter=spec --test-concurrency=1 "${files[@]}"
