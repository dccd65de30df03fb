#!/usr/bin/env bash
# Every file below config/examples is accepted by the gateway that people will give it to.
set -euo pipefail
source "$(dirname "$0")/lib.sh"
cd "$repository"

shopt -s nullglob globstar
examples=(config/examples/**/*.yaml)
((${#examples[@]} > 0)) || fail "config/examples holds no YAML file: nothing was checked"
cargo run --quiet --locked --package sluice-proxy --bin sluice-proxy -- check "${examples[@]}"
say "${#examples[@]} example files are accepted"
