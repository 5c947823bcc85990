#!/usr/bin/env bash
# Builds the npm package: target/npm/, without local paths in it and under the size budget.
set -euo pipefail
cd "$(dirname "$0")/../.."

readonly BUDGET=300000 # bytes of the package, gzipped
readonly OUT=target/npm SOURCE=plugin/javascript/npm TOOLS=target/tools/npm-build
# shellcheck source=../wasm.sh
. plugin/wasm.sh
./setup.sh npm_build
build_wasm keystile-javascript

glue=$WASM_BUILD/glue
rm -rf "$glue" "$OUT"
mkdir -p "$glue" "$OUT/core"
bindgen=(cargo run --quiet --locked --package keystile-bindgen --)
[[ -z ${BINDGEN:-} ]] || bindgen=("$BINDGEN")
"${bindgen[@]}" "$compiled/keystile_core.wasm" "$glue"
# Debian's version of binaryen mixes up the tables of a module that has two.
"$TOOLS/node_modules/.bin/wasm-opt" -O3 --strip-debug --strip-producers "$glue/core_bg.wasm" -o "$OUT/core/core_bg.wasm"
cp "$glue/core.js" "$glue/core.d.ts" "$OUT/core/"

# The compiler finds the glue beside the sources, and the frameworks in the folder of the tools.
sources=$WASM_BUILD/npm-sources
rm -rf "$sources"
cp -r "$SOURCE" "$sources"
cp -r "$OUT/core" "$sources/src/"
rm "$sources/src/core/core_bg.wasm"
ln -s "$PWD/$TOOLS/node_modules" "$sources/node_modules"
"$TOOLS/node_modules/.bin/tsc" --project "$sources" --outDir "$PWD/$OUT"
cp "$SOURCE/package.json" "$SOURCE/README.md" LICENSE "$OUT/"

# As the archive of `npm pack`, but with sorted files.
size=$(tar --create --sort=name --mtime=@0 --owner=0 --group=0 --directory "$OUT" . | gzip -9 | wc -c)
echo "$OUT: $size bytes of $BUDGET, gzipped; core/core_bg.wasm $(stat -c %s "$OUT/core/core_bg.wasm"), $(gzip -9 -c "$OUT/core/core_bg.wasm" | wc -c) gzipped"
echo "$OUT: sha256 $(hash_folder "$OUT"), by ${toolchain%,*}, $("$TOOLS/node_modules/.bin/wasm-opt" --version)"
if ((size > BUDGET)); then
    echo "$OUT is over its budget" >&2
    exit 1
fi
refuse_local_paths "$OUT"
