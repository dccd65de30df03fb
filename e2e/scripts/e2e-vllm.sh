#!/usr/bin/env bash
# The truth test of cache predictions: fetches vLLM for CPUs and a tiny model into .cache/vllm (6 GiB, once), builds the
# gateway, runs e2e/python/vllm_cache.py (its head says what is compared). Figures: target/bench/e2e-vllm.json.
# GATEWAY names a binary built before; further arguments go to vllm_cache.py.
set -euo pipefail
source "$(dirname "$0")/lib.sh"
cd "$repository"

e2e/scripts/fetch-vllm.sh
gateway=${GATEWAY:-}
if [[ -z $gateway ]]; then
    say "e2e-vllm: building the gateway"
    cargo build --quiet --locked --package sluice-proxy --bin sluice-proxy
    gateway=${CARGO_TARGET_DIR:-target}/debug/sluice-proxy
fi
exec "$cache/vllm/venv/bin/python" e2e/python/vllm_cache.py \
    --vllm "$cache/vllm" --gateway "$gateway" --json target/bench/e2e-vllm.json "$@"
