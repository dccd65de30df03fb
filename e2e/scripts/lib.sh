# shellcheck shell=bash disable=SC2034
# What the scripts share: words to the user, free ports, and a Python that can install packages.
# Sourced, never run. Not a place for anything only one script needs.

repository="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
cache="$repository/.cache"

say() { printf '%s\n' "$@"; } # one line per argument
fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# Free loopback port. Another process may take it before its user binds it; the user then says so and ends.
# Bash's own /dev/tcp answers "is anyone there", so no Python is needed.
free_port() {
    local port tries=0
    while ((tries++ < 200)); do
        port=$((20000 + RANDOM % 12000)) # below Linux's ephemeral range, so no client holds it
        [[ " ${taken_ports:-} " == *" $port "* ]] && continue
        if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            printf '%s' "$port"
            return
        fi
    done
    fail "no free port found between 20000 and 32000"
}

# wait_for URL SECONDS PID NAME: until URL answers 200; fails early when PID has ended.
wait_for() {
    local url=$1 seconds=$2 pid=$3 name=$4 end=$((SECONDS + $2))
    until curl --silent --fail --max-time 2 --output /dev/null "$url"; do
        kill -0 "$pid" 2>/dev/null || fail "$name ended before it was ready"
        ((SECONDS < end)) || fail "$name was not ready after $seconds s ($url)"
        sleep 0.1
    done
}

# The CPython to build environments from. SLUICE_PYTHON overrides.
base_python() {
    local python
    for python in "${SLUICE_PYTHON:-}" python3 python3.11 python3.12 python3.13; do
        if [[ -n $python ]] && "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            command -v "$python"
            return
        fi
    done
    fail "no Python 3.10 or newer found: install one (Debian: apt-get install python3 python3-venv)"
}

# python_packages FOLDER REQUIREMENT...: installs wheels (never builds) so that FOLDER/bin/python imports them.
# Debian's python3 has neither pip nor ensurepip, hence three ways; FOLDER/bin/python is the same in all of them.
python_packages() {
    local folder=$1 base
    shift
    base=$(base_python)
    rm -rf "$folder/environment" "$folder/packages"
    mkdir -p "$folder/bin"
    if "$base" -c 'import ensurepip, venv' 2>/dev/null; then
        "$base" -m venv "$folder/environment"
    elif "$base" -m virtualenv --version >/dev/null 2>&1; then
        "$base" -m virtualenv --quiet "$folder/environment"
    elif ! "$base" -m pip --version >/dev/null 2>&1; then
        fail "$base can install no packages: apt-get install python3-venv (or python3-pip, or virtualenv)"
    fi
    if [[ -x $folder/environment/bin/python ]]; then
        "$folder/environment/bin/python" -m pip install "${pip_options[@]}" "$@" || fail "$(pip_hint)"
        printf '#!/bin/sh\nexec "%s" "$@"\n' "$folder/environment/bin/python" >"$folder/bin/python"
    else
        "$base" -m pip install "${pip_options[@]}" --target "$folder/packages" "$@" || fail "$(pip_hint)"
        printf '#!/bin/sh\nPYTHONPATH="%s" exec "%s" "$@"\n' "$folder/packages" "$base" >"$folder/bin/python"
    fi
    chmod +x "$folder/bin/python"
}

pip_options=(--quiet --disable-pip-version-check --no-input --only-binary :all:)
export PIP_ROOT_USER_ACTION=ignore # everything goes into folders of our own
pip_hint() {
    printf 'pip could not install the packages above; is PyPI reachable (https://pypi.org/simple/, or PIP_INDEX_URL)?'
}
