#!/usr/bin/env bash
# Fetches the peers, builds gateway, engine and load generator, runs bench-routing. PROFILE=release by default: routing is
# judged by times of seconds, not by microseconds. GATEWAY, ENGINE and REPLAY name binaries built before; then nothing is.
set -euo pipefail
source "$(dirname "$0")/../../e2e/scripts/lib.sh"
source "$(dirname "$0")/../install.sh"
cd "$repository"

export PATH="$cache/tools/bin:$PATH:/usr/sbin"
peers=${PEERS:-sluice,sglang,vllm,nginx-least,nginx-random}
[[ $peers != *nginx* ]] || install nginx:nginx-light
[[ $peers != *sglang* && $peers != *vllm* ]] || benches/routing/fetch-peers.sh

profile=${PROFILE:-release}
if [[ -z ${GATEWAY:-} || -z ${ENGINE:-} || -z ${REPLAY:-} ]]; then
    say "bench: building with profile $profile (takes minutes; GATEWAY, ENGINE and REPLAY name binaries built before)"
    cargo build --quiet --locked --profile "$profile" --package sluice-proxy --package sluice-e2e --package sluice-benches \
        --bin sluice-proxy --bin sluice-engine --bin replay
    [[ $profile == dev ]] && profile=debug
    folder=${CARGO_TARGET_DIR:-target}/$profile
fi
export GATEWAY=${GATEWAY:-$folder/sluice-proxy} ENGINE=${ENGINE:-$folder/sluice-engine} REPLAY=${REPLAY:-$folder/replay}
exec "$(base_python)" benches/routing/routing.py
