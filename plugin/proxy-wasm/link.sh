#!/usr/bin/env bash
# The linker of the filter, called by rustc: the real one ($KEYSTILE_WASM_LD) without the SDK's entry points that the
# filter has no use for. A host calls every entry point there is, once or more per request, and each keeps its code.
set -euo pipefail

used() {
    case $1 in
        proxy_on_memory_allocate | proxy_on_context_create | proxy_on_delete) ;; # every context, its beginning and end
        proxy_on_vm_start | proxy_on_configure | proxy_on_tick | proxy_on_http_call_response) ;;
        proxy_on_request_headers | proxy_on_request_trailers) ;;
        proxy_on_*) return 1 ;;
    esac
}

arguments=()
while (($#)); do
    if [[ $1 == --export ]]; then
        used "$2" && arguments+=(--export "$2")
        shift 2
    else
        [[ $1 == --export=* ]] && ! used "${1#--export=}" || arguments+=("$1")
        shift
    fi
done
exec "$KEYSTILE_WASM_LD" "${arguments[@]}"
