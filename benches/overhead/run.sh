#!/usr/bin/env bash
# run.sh overhead|memory|syscalls: installs the peers, builds the gateway as it ships, runs the bench of that name.
# PEERS=haproxy,nginx,direct leaves the gateway out, and then nothing is built. PROFILE=release builds faster.
set -euo pipefail
source "$(dirname "$0")/../../e2e/scripts/lib.sh"
source "$(dirname "$0")/../install.sh"
cd "$repository"
bench=$1
shift

export PATH="$cache/tools/bin:$PATH:/usr/sbin"
case $bench in
overhead) install haproxy:haproxy nginx:nginx-light wrk:wrk ;;
memory) install haproxy:haproxy nginx:nginx-light ;;
syscalls) install haproxy:haproxy nginx:nginx-light strace:strace ;;
*) fail "usage: run.sh overhead|memory|syscalls" ;;
esac

profile=${PROFILE:-dist}
if [[ ,${PEERS:-sluice}, == *,sluice,* && -z ${GATEWAY:-} ]]; then
    say "bench: building the gateway with profile $profile (takes minutes; GATEWAY=path uses one built before)"
    cargo build --quiet --locked --package sluice-proxy --bin sluice-proxy --profile "$profile"
    [[ $profile == dev ]] && profile=debug
    GATEWAY=${CARGO_TARGET_DIR:-target}/$profile/sluice-proxy
fi
export GATEWAY=${GATEWAY:-}
exec "$(base_python)" "benches/overhead/$bench.py" "$@"
