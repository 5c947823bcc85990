#!/usr/bin/env bash
# Builds the native module: target/module/libkeystile.so, without local paths in it.
# With a target as argument, such as aarch64-unknown-linux-gnu, it builds target/module/TARGET/libkeystile.so.
set -euo pipefail
cd "$(dirname "$0")/../.."

# The newest version of the GNU C library that the module may need. Envoy's own images have 2.35 and newer.
readonly MAX_GLIBC=2.34
readonly BUILD=$PWD/target/module-build
readonly TARGET=${1:-x86_64-unknown-linux-gnu}
readonly CARGO_SOURCES=${CARGO_HOME:-$HOME/.cargo}
OUT=target/module/libkeystile.so
[[ $# == 0 ]] || OUT=target/module/$TARGET/libkeystile.so
readonly OUT

./setup.sh rust

# Panic messages contain paths. These flags make them the same on every machine. The standard library has its own.
flags=(--remap-path-prefix="$PWD"=keystile --remap-path-prefix="$CARGO_SOURCES"=cargo)
# Envoy defines the callbacks. All other symbols must be resolved now and not when a request needs them.
flags+=(-Clink-arg=-Wl,-z,relro,-z,now -Clink-arg=-Wl,--build-id=none)
separator=$'\x1f'
encoded=$(printf "%s$separator" "${flags[@]}")
# C code of dependencies contains paths too.
export CFLAGS="-ffile-prefix-map=$PWD=keystile -ffile-prefix-map=$CARGO_SOURCES=cargo"
CARGO_ENCODED_RUSTFLAGS=${encoded%"$separator"} cargo rustc --locked --profile module --target "$TARGET" \
    --target-dir "$BUILD" --package keystile-envoy-module --lib --crate-type cdylib

mkdir -p "$(dirname "$OUT")"
built=$BUILD/$TARGET/module/libkeystile_envoy_module.so
cmp -s "$built" "$OUT" || cp "$built" "$OUT"

echo "$OUT: $(stat -c %s "$OUT") bytes, sha256 $(sha256sum "$OUT" | cut -d' ' -f1), by $(rustc --version)"
symbols=$(objdump -T "$OUT")
glibc=$(grep -o 'GLIBC_[0-9.]*' <<<"$symbols" | sort -Vu | tail -1)
echo "$OUT: needs ${glibc/_/ }"
if [[ $(printf '%s\n' "GLIBC_$MAX_GLIBC" "$glibc" | sort -V | tail -1) != "GLIBC_$MAX_GLIBC" ]]; then
    echo "$OUT needs a newer GNU C library than $MAX_GLIBC" >&2
    exit 1
fi
# What else the module takes from the process is listed here, so that an Envoy that lacks it is not found out at run time.
needed=$(readelf -d "$OUT" | sed -n 's/.*NEEDED.*\[\(.*\)\]/\1/p' | grep -vxE 'libc\.so\.6|libgcc_s\.so\.1|ld-linux-.*' || true)
if [[ -n $needed ]]; then
    echo "$OUT needs other libraries: $needed" >&2
    exit 1
fi
if grep -aqF -e "$PWD/" -e "$CARGO_SOURCES/" "$OUT"; then
    echo "$OUT names paths of this machine" >&2
    exit 1
fi
