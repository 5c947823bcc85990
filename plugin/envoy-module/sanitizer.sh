#!/usr/bin/env bash
# Runs the tests of the border to Envoy (plugin/envoy-module/tests/border) with an address sanitizer, which also finds leaks.
# The crates of the workspace are instrumented. The crates that they depend on are those of the other tests: an access
# of theirs beyond an allocation of ours is found only where it goes through an allocator or a function of the C library.
#
# The sanitizer is a feature of nightly compilers. RUSTC_BOOTSTRAP permits it here, for this build only.
set -euo pipefail
cd "$(dirname "$0")/../.."

if [[ ${1:-} == --rustc ]]; then
    shift
    RUSTC_BOOTSTRAP=1 exec "$@" -Zsanitizer=address -Cforce-frame-pointers=yes
fi

./setup.sh rust
wrapper=$PWD/target/tools/rustc-sanitizer
printf '#!/bin/sh\nexec "%s" --rustc "$@"\n' "$PWD/plugin/envoy-module/sanitizer.sh" >"$wrapper"
chmod +x "$wrapper"
RUSTC_WORKSPACE_WRAPPER=$wrapper ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=1 \
    cargo test --locked --workspace --test border -- "$@"
