#!/usr/bin/env bash
# The arrows between rooms, as dependencies: the proxy never compiles a Kubernetes client, the control loop never
# compiles pingora, and neither compiles the test rooms.
set -euo pipefail
source "$(dirname "$0")/lib.sh"
cd "$repository"

# forbid PACKAGE CRATE: CRATE must not be reachable from PACKAGE by normal or build dependencies.
broken=0
forbid() {
    local tree
    tree=$(cargo tree --locked --package "$1" --edges normal,build --target all --all-features --prefix none --format '{p}')
    if grep -q "^$2 v" <<<"$tree"; then
        say "$1 must not depend on $2:"
        cargo tree --locked --package "$1" --edges normal,build --target all --all-features --invert "$2"
        broken=1
    fi
}

for package in sluice-crds sluice-config sluice-proxy; do
    forbid "$package" kube-client
done
for package in sluice-crds sluice-config sluice-control; do
    forbid "$package" pingora-core
done
for package in sluice-crds sluice-config sluice-proxy sluice-control; do
    forbid "$package" sluice-e2e
    forbid "$package" sluice-benches
done
((broken == 0)) || fail "the arrows between rooms are broken (see above)"
say "arrows: kept"
