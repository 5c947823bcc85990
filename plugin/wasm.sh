# Sourced by the build scripts of the WebAssembly modules, in the folder of the workspace. `build_wasm PACKAGE` compiles one
# and sets $compiled to the folder of the module and $toolchain to the versions of what built it.

readonly WASM_BUILD=$PWD/target/wasm-build
readonly CARGO_SOURCES=${CARGO_HOME:-$HOME/.cargo}

./setup.sh rust wasm binaryen

build_wasm() {
    local cargo=(cargo) separator=$'\x1f' encoded
    # The separate folder prevents this build and those for the host from invalidating each other.
    local build=(build --locked --profile wasm --target wasm32-unknown-unknown --target-dir "$WASM_BUILD" --package "$1")
    # Panic messages contain paths. These flags make them the same on every machine.
    local flags=(--remap-path-prefix="$PWD"=keystile --remap-path-prefix="$CARGO_SOURCES"=cargo)
    if [[ $(<target/tools/wasm-toolchain) == debian ]]; then
        export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=wasm-ld-19
        cargo=(env RUSTC_BOOTSTRAP=1 PATH="/usr/bin:$PATH" /usr/bin/cargo)
        build+=(-Zbuild-std=std,panic_abort)
        flags+=(--remap-path-prefix=/usr=rust)
    fi
    encoded=$(printf "%s$separator" "${flags[@]}")
    CARGO_ENCODED_RUSTFLAGS=${encoded%"$separator"} "${cargo[@]}" "${build[@]}"
    compiled=$WASM_BUILD/wasm32-unknown-unknown/wasm
    # The hash of a module is the same on every machine with the same toolchain, in any folder: reproduce.sh verifies it.
    toolchain="$("${cargo[@]}" rustc --version 2>/dev/null || rustc --version), $(wasm-opt --version)"
}

# Prints one SHA-256 for the names and contents of all files in a folder.
hash_folder() {
    (cd "$1" && find . -type f | LC_ALL=C sort | xargs sha256sum) | sha256sum | cut -d' ' -f1
}

# Fails if the file or folder $1 contains paths of this machine.
refuse_local_paths() {
    if grep -raqF -e "$PWD/" -e "$CARGO_SOURCES/" "$1"; then
        echo "$1 names paths of this machine" >&2
        exit 1
    fi
}
