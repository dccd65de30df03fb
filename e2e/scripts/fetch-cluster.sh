#!/usr/bin/env bash
# Builds the control plane of the cluster tests (e2e/cluster: etcd, Kubernetes API server, scheduler, controller manager
# and kubectl in one program) into .cache/cluster/HASH/kube, where HASH is that of its sources; does nothing when it is
# there. Needs Go and, once, its module proxy; the first build takes some 20 minutes of CPU time and 4 GiB of memory, and
# leaves 5 GB in Go's own caches, which make the next quick. Helm is fetch-helm.sh's.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

kubernetes=1.37.2 # as in e2e/cluster/go.mod, which is checked below
source_folder="$repository/e2e/cluster"
folder="$cache/cluster"

need_go() {
    command -v go >/dev/null ||
        fail "no Go found, which builds the control plane: install Go 1.26 or newer (https://go.dev/dl/)"
}

hash=$(cd "$source_folder" && cat go.mod go.sum ./*.go | sha256sum | cut -c1-16)
program="$folder/$hash/kube"

build_kube() {
    need_go
    grep -q "k8s.io/kubernetes v$kubernetes\$" "$source_folder/go.mod" ||
        fail "e2e/cluster/go.mod does not require Kubernetes $kubernetes, the version of $0"
    say "cluster: building Kubernetes $kubernetes and etcd with $(go env GOVERSION); the first time takes 10 minutes or more"
    mkdir -p "$folder/$hash"
    # Without a version the API server calls itself v0.0.0-master, which clients cannot parse.
    local version=k8s.io/component-base/version flags
    local major=${kubernetes%%.*} minor=${kubernetes#*.}
    flags="-s -w -X $version.gitVersion=v$kubernetes -X $version.gitMajor=$major -X $version.gitMinor=${minor%%.*}"
    flags+=" -X $version.gitTreeState=clean -X $version.buildDate=1970-01-01T00:00:00Z"
    # Always the same flags: a build without -trimpath, and go vet, compile everything once more.
    (cd "$source_folder" && CGO_ENABLED=0 go build -trimpath -ldflags "$flags" -o "$program.part" .) ||
        fail "the control plane does not build; is the module proxy reachable ($(go env GOPROXY))?"
    mv "$program.part" "$program"
    # Earlier versions: 190 MB each.
    find "$folder" -mindepth 1 -maxdepth 1 -type d ! -name "$hash" ! -name bin -exec rm -rf {} +
    say "cluster: built in $SECONDS s"
}

if [[ -x $program ]]; then
    say "cluster: control plane present in .cache/cluster/$hash (Kubernetes $kubernetes)"
else
    build_kube
fi
# A fixed name for people and scripts; tests follow it.
ln -sfn "$hash/kube" "$folder/kube"
