#!/usr/bin/env bash
# test.sh all|unit|e2e|real: which of the tests run. Tests on real engines carry #[ignore] and are run here by name
# of that mark, so a machine without engines shows them as ignored, never as passed.
set -euo pipefail
source "$(dirname "$0")/lib.sh"
cd "$repository"

# The whole-product tests start the binaries as users do, so these are built first.
build_binaries() { cargo build --locked --workspace --bins; }

# Those need a control plane and a network of their own: e2e-cluster.sh.
without_cluster=(--skip on_cluster::)

# `--no-fail-fast`: one run shows every failure.
case ${1:-} in
all)
    [[ -x ${SLUICE_ENGINES:-}/bin/python ]] || fail "SLUICE_ENGINES holds no engines: make engines"
    build_binaries
    cargo test --locked --workspace --no-fail-fast -- --include-ignored "${without_cluster[@]}"
    ;;
unit) cargo test --locked --workspace --exclude sluice-e2e --no-fail-fast ;;
e2e)
    build_binaries
    cargo test --locked --package sluice-e2e --no-fail-fast
    ;;
real)
    [[ -x ${SLUICE_ENGINES:-}/bin/python ]] || fail "SLUICE_ENGINES holds no engines: make engines"
    build_binaries
    cargo test --locked --package sluice-e2e --no-fail-fast -- --ignored "${without_cluster[@]}"
    ;;
*) fail "usage: test.sh all|unit|e2e|real" ;;
esac
