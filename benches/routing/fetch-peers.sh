#!/usr/bin/env bash
# Puts the routers that `make bench-routing` compares with into .cache/peers: sglang-router and vllm-router from PyPI, as
# released, at the versions below. They are wheels with a Rust binary inside; neither needs torch. Runs again only when a
# version changes. nginx comes from the system.
set -euo pipefail
source "$(dirname "$0")/../../e2e/scripts/lib.sh"

requirements=(sglang-router==0.3.2 vllm-router==0.1.17)
peers="$cache/peers"
stamp="$peers/stamp"

if [[ -f $stamp && $(<"$stamp") == "${requirements[*]}" ]] &&
    "$peers/bin/python" -c 'import sglang_router, vllm_router' 2>/dev/null; then
    say "peers: present in .cache/peers (${requirements[*]})"
    exit 0
fi

mkdir -p "$peers"
rm -f "$stamp"
say "peers: installing ${requirements[*]} from PyPI"
python_packages "$peers" "${requirements[@]}"
"$peers/bin/python" -c 'import sglang_router, vllm_router' || fail "the routers do not start with this Python"
printf '%s' "${requirements[*]}" >"$stamp"
say "peers: ready in .cache/peers"
