#!/usr/bin/env bash
# run.sh overhead|memory|syscalls: installs the peers, builds the gateway as it ships, runs the bench of that name.
# PEERS=haproxy,nginx,direct leaves the gateway out, and then nothing is built. PROFILE=release builds faster.
set -euo pipefail
source "$(dirname "$0")/../../e2e/scripts/lib.sh"
cd "$repository"
bench=$1
shift

# install PROGRAM PACKAGE...: by apt, without starting the services that the packages bring along.
install() {
    local missing=() program
    for program in "$@"; do command -v "${program%%:*}" >/dev/null || missing+=("${program##*:}"); done
    ((${#missing[@]} == 0)) && return
    command -v apt-get >/dev/null || fail "missing: ${missing[*]}; install them"
    ((EUID == 0)) ||
        fail "missing: ${missing[*]}; install them (Debian, as root: apt-get install ${missing[*]})"
    say "bench: apt-get install ${missing[*]}"
    local policy=/usr/sbin/policy-rc.d ours=no failed=no
    if [[ ! -e $policy ]]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
        ours=yes
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null || failed=yes
    [[ $ours == no ]] || rm -f "$policy"
    [[ $failed == no ]] || fail "apt-get could not install ${missing[*]}"
}

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
