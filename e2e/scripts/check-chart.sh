#!/usr/bin/env bash
# Everything that can be said of the chart without a cluster: helm's own lint, what is rendered from many values
# (e2e/chart: permissions, pods, wiring, refusals), and what the programs say to their flags and files.
# With a cluster: render-chart.sh.
set -euo pipefail
source "$(dirname "$0")/lib.sh"
cd "$repository"

yaml_wheel=PyYAML==6.0.3

e2e/scripts/fetch-helm.sh
python="$cache/tools/chart/bin/python"
stamp="$cache/tools/chart.stamp"
if [[ ! -f $stamp || $(<"$stamp") != "$yaml_wheel" ]] || ! "$python" -c 'import yaml' 2>/dev/null; then
    say "check-chart: installing $yaml_wheel from PyPI"
    python_packages "$cache/tools/chart" "$yaml_wheel"
    printf '%s' "$yaml_wheel" >"$stamp"
fi

# What people install is not what the tests find in their own configuration.
HELM="$cache/cluster/bin/helm"
HELM_CONFIG_HOME=$(mktemp -d)
trap 'rm -rf "$HELM_CONFIG_HOME"' EXIT
export HELM HELM_CONFIG_HOME HELM_CACHE_HOME="$HELM_CONFIG_HOME" HELM_DATA_HOME="$HELM_CONFIG_HOME" KUBECONFIG=/dev/null
export PYTHONDONTWRITEBYTECODE=1

binaries=${CARGO_TARGET_DIR:-$repository/target}/debug
cargo build --quiet --locked --workspace --bin sluice-proxy
cargo build --quiet --locked --workspace --bin sluice-control
export SLUICE_PROXY="$binaries/sluice-proxy" SLUICE_CONTROL="$binaries/sluice-control"

"$python" -m unittest discover --start-directory e2e/chart --top-level-directory e2e/chart "$@"
