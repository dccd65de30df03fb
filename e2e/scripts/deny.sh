#!/usr/bin/env bash
# cargo-deny over the lock file: bans, licences and sources always; advisories only when the advisory database can be
# fetched (it is a git repository, which a closed network may not reach), and it says which of the two it was.
set -euo pipefail
source "$(dirname "$0")/lib.sh"
cd "$repository"
export PATH="$cache/tools/bin:$PATH"
database=https://github.com/rustsec/advisory-db

cargo deny --locked check bans licenses sources
if ! command -v git >/dev/null ||
    ! GIT_TERMINAL_PROMPT=0 timeout 20 git ls-remote --exit-code "$database" HEAD >/dev/null 2>&1; then
    say "advisories: NOT CHECKED, $database cannot be reached"
    exit 0
fi
cargo deny --locked check advisories
