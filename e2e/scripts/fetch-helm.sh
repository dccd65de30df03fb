#!/usr/bin/env bash
# Builds helm, with which the chart is checked and installed, into .cache/cluster/bin; does nothing when it is there.
# Needs Go and, once, its module proxy. The first build takes 5 minutes of CPU time and leaves 1 GB in Go's own caches.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

helm=4.3.1
bin="$cache/cluster/bin"

if [[ $("$bin/helm" version --short 2>/dev/null) == "v$helm"* ]]; then
    say "helm: $helm present in .cache/cluster/bin"
    exit
fi
command -v go >/dev/null || fail "no Go found, which builds helm: install Go 1.26 or newer (https://go.dev/dl/)"
say "helm: building $helm with $(go env GOVERSION); the first time takes some minutes"
# Without its version, helm calls itself v4 and no more.
flags="-s -w -X helm.sh/helm/v4/internal/version.version=v$helm"
mkdir -p "$bin"
# Seldom built, and never in a hurry: what else the machine does goes first.
GOBIN="$bin" CGO_ENABLED=0 nice -n 10 go install -p "${HELM_JOBS:-2}" -trimpath -ldflags "$flags" \
    "helm.sh/helm/v4/cmd/helm@v$helm" ||
    fail "helm does not build; is the module proxy reachable ($(go env GOPROXY))?"
say "helm: built in $SECONDS s"
