#!/usr/bin/env bash
# `make mutants`: takes one check after another out of a copy of the sources, and shows that a promise breaks each time.
# `tests/mutants.sh NAME...` takes out only those. Slow: the filter is built anew for each.
set -euo pipefail
cd "$(dirname "$0")/.."

# The check's name, its file, the promise that must break, and the sed expression that takes the check out.
readonly MUTANTS='
signature             token/src/key.rs           refuses           s/\.is_ok_and(|signature| key\.verify_strict(message, &signature)\.is_ok())/.is_ok()/
algorithm             token/src/jwt.rs           refuses           s/if alg != key\.algorithm()\.name() {/if alg.is_empty() {/
stray-bits            token/src/base64url.rs     refuses           s/with_decode_allow_trailing_bits(false)/with_decode_allow_trailing_bits(true)/
padding               token/src/base64url.rs     refuses           s/DecodePaddingMode::RequireNone/DecodePaddingMode::Indifferent/
expiry                verdict/src/gate.rs        refuses           s/if now >= claims\.exp\.saturating_add(\*leeway) {/if claims.exp == 0 {/
audience              verdict/src/gate.rs        refuses           s/if !claims\.aud\.iter()\.any(.*) {/if audiences.is_empty() {/
ambiguity             verdict/src/credential.rs  refuses           s/if found\.replace(credential)\.is_some() ||/if found.replace(credential).is_some_and(<[u8]>::is_empty) ||/
header-clearing       verdict/src/gate.rs        forged_identity   s/!starts_like(name, identity_prefix) && !stripped(name)/!stripped(name)/
underscore-spelling   verdict/src/gate.rs        forged_identity   s/if byte\.is_ascii_alphanumeric() { byte\.to_ascii_lowercase() } else { b.-. }/byte.to_ascii_lowercase()/
credential-stripping  verdict/src/gate.rs        other_configured  s/ && !stripped(name))/)/
manifest-signature    bundle/src/manifest.rs     forged_manifest   s/if !key\.accepts(body, signature) {/if !key.accepts(body, signature) \&\& body.is_empty() {/
manifest-version      bundle/src/manifest.rs     forged_manifest   s/(self\.version, self\.issued_at) > (other\.version, other\.issued_at)/self.bytes != other.bytes/
manifest-audience     bundle/src/manifest.rs     forged_manifest   s/if manifest\.audience != audience {/if audience.is_empty() {/
manifest-expiry       verdict/src/refresh.rs     forged_manifest   s/if now >= manifest\.expires_at() {/if manifest.expires_at() == 0 {/
object-hash           bundle/src/object.rs       forged_manifest   s/if <\[u8; 32\]>::from(Sha256::digest(&bytes)) != self\.sha256 {/if bytes.is_empty() {/
'

readonly COPY=$PWD/target/mutants/tree
export CARGO_TARGET_DIR=$COPY/target

main() {
    local wanted=("$@") survivors=() name file change promise
    fresh_copy
    echo "without a change: every promise must hold"
    promise_holds refuses && promise_holds forged && promise_holds other_configured ||
        { tail -n 40 "$COPY/../log"; exit 1; }
    while read -r -u 3 name file promise change; do
        [[ -n $name ]] || continue
        [[ ${#wanted[@]} -eq 0 || " ${wanted[*]} " == *" $name "* ]] || continue
        sed -i "$change" "$COPY/$file"
        if cmp -s "$file" "$COPY/$file"; then
            echo "$name: $file has no such check any more; mend this script" >&2
            exit 1
        fi
        if promise_holds "$promise"; then
            echo "$name: SURVIVES, \`$promise\` does not notice"
            survivors+=("$name")
        elif grep -q '^test .* FAILED$' "$COPY/../log"; then
            echo "$name: caught by $(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$COPY/../log" | xargs)"
        else
            tail -n 40 "$COPY/../log"
            echo "$name: does not build" >&2
            exit 1
        fi
        cp "$file" "$COPY/$file"
    done 3<<<"$MUTANTS"
    [[ ${#survivors[@]} -eq 0 ]]
}

# The sources as they are, committed or not; what an earlier run built from them stays.
fresh_copy() {
    local file
    while read -r file; do
        mkdir -p "$COPY/$(dirname "$file")"
        cmp -s "$file" "$COPY/$file" || cp "$file" "$COPY/$file"
    done < <(git ls-files --cached --others --exclude-standard)
    mkdir -p "$COPY/target/tools"
    ln -sfn "$PWD"/target/tools/* "$COPY/target/tools/"
}

promise_holds() {
    (cd "$COPY" && plugin/proxy-wasm/build.sh && cargo test --package keystile-tests --test promises "$1") \
        >"$COPY/../log" 2>&1
}

main "$@"
