#!/usr/bin/env bash
# e2e-cluster.sh [FILTER...]: the tests that need a Kubernetes control plane, those whose names contain a FILTER.
# Everything is built first; then the tests run in a network, a mount and a process namespace of their own: pods have
# addresses that are this machine's alone, nothing can leave, and nothing outlives the run. Needs root, and Go once.
# Logs of every process: target/e2e-cluster/.
set -euo pipefail
source "$(dirname "$0")/lib.sh"
cd "$repository"

# Inside: the network is empty, so that all of pods' and Services' ranges can be this machine's own.
if [[ ${1:-} == --inside ]]; then
    shift
    ip link set lo up
    # With 127.0.0.1 alone, resolvers that ask for usable families (AI_ADDRCONFIG) find none.
    ip address add 10.244.0.1/32 dev lo
    ip route add local 10.244.0.0/16 dev lo
    ip route add local 10.0.0.0/16 dev lo
    # Pods with a network of their own are on this bridge; the files that stand for networks go with this run.
    ip link add sluice0 type bridge
    ip address add 10.245.0.1/16 dev sluice0
    ip link set sluice0 up
    mkdir -p /run/netns
    mount -t tmpfs sluice /run/netns
    # Names of what tests start beside the cluster.
    mount --bind "$SLUICE_CLUSTER_FOLDER/hosts" /etc/hosts
    # Not exec: this shell is the first process here, and collects whoever is left behind.
    status=0
    "$@" || status=$?
    exit "$status"
fi

((EUID == 0)) || fail "not root: the tests make namespaces and mounts of their own (run as root, or in a container)"
for program in unshare nsenter setpriv mount ip chroot; do
    command -v "$program" >/dev/null || fail "no $program found (Debian: apt-get install util-linux iproute2)"
done
unshare -n -m -p --fork true || fail "namespaces cannot be made here (a container needs to be privileged)"

"$(dirname "$0")/fetch-cluster.sh"
"$(dirname "$0")/fetch-helm.sh"
say "e2e-cluster: building the binaries and the tests"
cargo build --locked --workspace --bins
# The whole workspace, as test.sh does: for one package alone cargo would build its dependencies once more.
tests=$(cargo test --locked --workspace --test cluster --no-run --message-format=json 2>/dev/null |
    sed -n 's/.*"executable":"\([^"]*\/cluster-[^"]*\)".*/\1/p' | tail -n 1)
[[ -x $tests ]] || fail "the tests do not build: cargo test --workspace --test cluster --no-run"

folder=${CARGO_TARGET_DIR:-$repository/target}/e2e-cluster
rm -rf "$folder"
mkdir -p "$folder"
printf '127.0.0.1 localhost\n::1 localhost\n' >"$folder/hosts"
export SLUICE_KUBE="$cache/cluster/kube" SLUICE_HELM="$cache/cluster/bin/helm" SLUICE_CLUSTER_FOLDER="$folder"
# Tests spend their time waiting, so more of them than processors run at once.
unshare -n -m -p --fork --kill-child --mount-proc "$0" --inside \
    "$tests" --ignored --test-threads "${TEST_THREADS:-4}" "$@"
