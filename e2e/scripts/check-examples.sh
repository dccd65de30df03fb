#!/usr/bin/env bash
# Every entry of config/examples is accepted by the gateway that people will give it to. A file is one example; the
# files of a folder are one example together, as with --routes FOLDER.
set -euo pipefail
source "$(dirname "$0")/lib.sh"
cd "$repository"

shopt -s nullglob
examples=(config/examples/*.yaml config/examples/*/)
((${#examples[@]} > 0)) || fail "config/examples holds no YAML file: nothing was checked"
cargo build --quiet --locked --workspace --bin sluice-proxy
refused=0
for example in "${examples[@]}"; do
    say "$example"
    "${CARGO_TARGET_DIR:-target}/debug/sluice-proxy" check "$example" || refused=$((refused + 1))
done
((refused == 0)) || fail "$refused of ${#examples[@]} examples are refused"
say "${#examples[@]} examples are accepted"
