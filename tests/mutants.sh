#!/usr/bin/env bash
# `make mutants`: takes one check after another out of a copy of the sources, and shows that a promise breaks each time.
# `tests/mutants.sh NAME...` takes out only those. Slow: the filter is built anew for each.
set -euo pipefail
cd "$(dirname "$0")/.."

# The check's name, its file, the promise that must break, and the sed expression that takes the check out.
readonly MUTANTS='
signature              token/src/ed25519.rs           refuses           s/!expected_r\.is_small_order() && expected_r\.compress()\.as_bytes() == r$/!expected_r.is_small_order()/
algorithm              token/src/jwt.rs               refuses           s/if alg != key\.algorithm()\.name() {/if alg.is_empty() {/
stray-bits             token/src/base64url.rs         refuses           s/URL_SAFE_NO_PAD\.decode(text)/base64::engine::GeneralPurpose::new(\&base64::alphabet::URL_SAFE, base64::engine::general_purpose::NO_PAD.with_decode_allow_trailing_bits(true)).decode(text)/
alphabet               token/src/base64url.rs         refuses           s/URL_SAFE_NO_PAD\.decode(text)/URL_SAFE_NO_PAD.decode(text.iter().map(|byte| if *byte == b"+"[0] { b"-"[0] } else { *byte }).collect::<Vec<u8>>())/
expiry                 verdict/src/gate.rs            refuses           s/now >= expires_at\.saturating_add(leeway)/now >= expires_at.saturating_mul(2)/
audience               verdict/src/gate.rs            refuses           s/if !authentic\.audiences()\.any(.*) {/if ours.is_empty() {/
ambiguity              verdict/src/credential/mod.rs  refuses           s/before\.map_or(Ok(()), |_| Err(Reason::CredentialAmbiguous))/before.map_or(Ok(()), |_| Ok(()))/
header-clearing        verdict/src/upstream.rs        forged_identity   s/(name_has_prefix(name, identity_prefix) || is_other())/is_other()/
underscore-spelling    verdict/src/credential/mod.rs  forged_identity   s/if byte\.is_ascii_alphanumeric() { byte\.to_ascii_lowercase() } else { b.-. }/byte.to_ascii_lowercase()/
host-errors            plugin/proxy-wasm/src/filter.rs never_down       s/if is_done { Action::Continue } else { fail_closed() }/{ let _ = is_done; Action::Continue }/
credential-stripping   verdict/src/upstream.rs        other_configured  s/if strip_credential { credential::strip(credentials, name, value) } else { Stripped::Unchanged }/Stripped::Unchanged/
signature-of-a-bundle  bundle/src/key.rs              forged_manifest   s/if key\.0\.verify(&\[context, body\], signature) {/if key.0.verify(\&[context, body], signature) || !body.is_empty() {/
manifest-version       bundle/src/manifest.rs         forged_manifest   s/Ordering::Equal if order(self) > order(held) =>/Ordering::Equal if order(self) != order(held) =>/
bundle-audience        bundle/src/delegation.rs       forged_manifest   s/if delegation\.audience != audience {/if audience.is_empty() {/
bundle-expiry          verdict/src/refresh.rs         forged_manifest   s/if now < expires_at { Ok(()) }/if now < expires_at.saturating_mul(2) { Ok(()) }/
object-hash            bundle/src/object.rs           forged_manifest   s/if <\[u8; 32\]>::from(Sha256::digest(&bytes)) != self\.sha256 {/if bytes.is_empty() {/
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
