#!/usr/bin/env bash
# step.sh NAME COMMAND...: runs COMMAND and closes with one line: `NAME: ok (12 s)` or `NAME: FAILED (exit 1, 12 s)`.
set -uo pipefail
name=$1
shift
"$@"
status=$?
if ((status == 0)); then
    printf '%s: ok (%d s)\n' "$name" "$SECONDS"
else
    printf '%s: FAILED (exit %d, %d s)\n' "$name" "$status" "$SECONDS"
fi
exit "$status"
