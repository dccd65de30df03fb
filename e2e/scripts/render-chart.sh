#!/usr/bin/env bash
# render-chart.sh [helm template's options]: the whole chart, definitions first, as a release `sluice` in the namespace
# `sluice-system` (NAMESPACE=...), on standard output: for an API server to judge or to run.
#   e2e/scripts/render-chart.sh | kubectl apply --server-side --dry-run=server -f -
set -euo pipefail
source "$(dirname "$0")/lib.sh"

"$repository/e2e/scripts/fetch-helm.sh" >&2
exec "$cache/cluster/bin/helm" template sluice "$repository/helm/sluice" \
    --namespace "${NAMESPACE:-sluice-system}" --include-crds "$@"
