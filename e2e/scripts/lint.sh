#!/usr/bin/env bash
# Clippy with warnings as errors, the arrows between rooms, and that shell and Python files parse.
set -euo pipefail
source "$(dirname "$0")/lib.sh"
cd "$repository"

# Not git ls-files: a tree unpacked from an archive is linted too.
files() { find . -path ./target -prune -o -path './.cache' -prune -o -path ./.git -prune -o -name "$1" -type f -print0; }

while IFS= read -r -d '' script; do
    if head -n 1 "$script" | grep -q bash; then bash -n "$script"; fi
done < <(files '*.sh'; find .ci -type f -print0)
if python=$(base_python 2>/dev/null); then
    files '*.py' | xargs -0 --no-run-if-empty "$python" -c \
        'import ast, sys; [ast.parse(open(path).read(), path) for path in sys.argv[1:]]'
else
    say "lint: no Python, its files are not parsed"
fi
e2e/scripts/check-arrows.sh
cargo clippy --locked --workspace --all-targets -- -D warnings
