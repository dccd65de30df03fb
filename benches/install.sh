# shellcheck shell=bash
# What bench scripts share beside lib.sh: putting Debian's packages on the machine. Sourced, never run.

# install PROGRAM PACKAGE...: by apt, without starting the services that the packages bring along.
install() {
    local missing=() program
    for program in "$@"; do command -v "${program%%:*}" >/dev/null || missing+=("${program##*:}"); done
    ((${#missing[@]} == 0)) && return
    command -v apt-get >/dev/null || fail "missing: ${missing[*]}; install them"
    ((EUID == 0)) ||
        fail "missing: ${missing[*]}; install them (Debian, as root: apt-get install ${missing[*]})"
    say "bench: apt-get install ${missing[*]}"
    local policy=/usr/sbin/policy-rc.d ours=no failed=no
    if [[ ! -e $policy ]]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
        ours=yes
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null || failed=yes
    [[ $ours == no ]] || rm -f "$policy"
    [[ $failed == no ]] || fail "apt-get could not install ${missing[*]}"
}
