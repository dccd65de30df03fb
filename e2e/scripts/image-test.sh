#!/usr/bin/env bash
# Builds the images and starts each once, as a cluster would: nobody, on a root it cannot write, as process 1; it must
# answer its probe and end on SIGTERM. What an image holds besides its program and the authorities is an error.
#   PROFILE=dev|release|dist  how the programs are built (default dev)     CPU=x86-64-v3  the variant for newer processors
# The programs are built here and not in a container, which would need a base image and so a registry; the rest is done by
# the Dockerfiles themselves. Needs root, buildah and musl-tools (apt-get install buildah musl-tools), util-linux and
# rustup; images and containers live in a folder of their own, gone at the end. Not in CI.
set -euo pipefail
source "$(dirname "$0")/lib.sh"
cd "$repository"

profile=${PROFILE:-dev}
target="$(uname -m)-unknown-linux-musl"
((EUID == 0)) || fail "not root: images are unpacked with their owners"
for tool in buildah musl-gcc unshare setpriv readelf rustup; do
    command -v "$tool" >/dev/null || fail "no $tool found: apt-get install buildah musl-tools util-linux binutils, and rustup"
done

work=$(mktemp -d "${TMPDIR:-/tmp}/sluice-images.XXXXXX")
# vfs: plain folders, on any file system. chroot: no container runtime is asked for.
image() {
    local command=$1
    shift
    buildah --root "$work/store" --runroot "$work/run" --storage-driver vfs "$command" "$@"
}
started=
cleanup() {
    local status=$?
    [[ -z $started ]] || kill -KILL "$started" 2>/dev/null || true
    ((status == 0)) || tail -n 30 "$work"/*.log 2>/dev/null || true
    image rm --all >/dev/null 2>&1 || true
    rm -rf "$work"
}
trap cleanup EXIT

# In the order of the pieces: program, its Dockerfile.
build() {
    local program=$1 package=$1
    rustup target list --installed | grep -qx "$target" || rustup target add "$target"
    # Of a development build only what runs: with all that debuggers want it is 3 GB.
    if [[ $profile == dev ]]; then export CARGO_PROFILE_DEV_DEBUG=false CARGO_INCREMENTAL=0; fi
    say "image-test: building $program for $target, profile $profile${CPU:+, $CPU}"
    CC_x86_64_unknown_linux_musl=musl-gcc CC_aarch64_unknown_linux_musl=musl-gcc \
        RUSTFLAGS="${CPU:+-C target-cpu=$CPU}" \
        cargo build --quiet --locked --profile "$profile" --target "$target" --package "$package" --bin "$program"
    local folder=${profile/#dev/debug}
    local built="${CARGO_TARGET_DIR:-target}/$target/$folder/$program"
    # A debug build is large, and nothing here reads its symbols.
    install -D -m 755 "$built" "$work/build-$program/$program"
    if [[ $profile == dev ]]; then strip "$work/build-$program/$program"; fi
    ! readelf --program-headers "$work/build-$program/$program" | grep -q INTERP ||
        fail "$program asks for a dynamic linker, which an empty image has not"
    install -D -m 644 /etc/ssl/certs/ca-certificates.crt "$work/build-$program/etc/ssl/certs/ca-certificates.crt"
    # The Dockerfile's last stage takes its files from a stage `build`: here from this folder.
    mkdir -p "$work/empty"
    image build --quiet --isolation chroot --build-context "build=$work/build-$program" --tag "$program" \
        --file "docker/Dockerfile.${program#sluice-}" "$work/empty" >/dev/null
}

# Sets `root` to the unpacked image, after a look at all that it holds.
unpack() {
    local program=$1 container files
    container=$(image from "$program")
    root=$(image mount "$container")
    files=$(cd "$root" && find . ! -type d | sort | paste -sd ' ')
    [[ $files == "./etc/ssl/certs/ca-certificates.crt ./$program" ]] || fail "the image of $program holds $files"
    local words
    words=$(image inspect --format '{{.OCIv1.Config.User}} {{.OCIv1.Config.Entrypoint}}' --type image "$program")
    [[ $words == "65532:65532 [/$program]" ]] || fail "the image of $program runs as: $words"
    say "image-test: $program: $(du -sh --apparent-size "$root" | cut -f1), $words"
}

# run PROGRAM PORT ARGUMENT...: in namespaces of its own, except the network's, whose loopback is asked below.
run() {
    local program=$1 port=$2 status=0
    shift 2
    # Where a cluster mounts volumes. /etc/sluice is given, /var/lib/sluice is empty and writable.
    mkdir -p "$root/etc/sluice" "$root/var/lib/sluice" "$root/proc"
    cp -r "$work/etc-$program/." "$root/etc/sluice/"
    chmod -R a+rX "$root/etc/sluice"
    # shellcheck disable=SC2016
    unshare --mount --pid --ipc --uts --fork --kill-child bash -euc '
        root=$1 program=$2
        shift 2
        mount --bind "$root" "$root"
        mount -t proc proc "$root/proc"
        mount -t tmpfs -o size=16m,mode=0700,uid=65532,gid=65532 tmpfs "$root/var/lib/sluice"
        mount -o remount,bind,ro "$root"
        exec setpriv --no-new-privs chroot --userspec=65532:65532 --groups= "$root" "/$program" "$@"
    ' run "$root" "$program" "$@" >"$work/$program.log" 2>&1 &
    started=$!
    wait_for "http://127.0.0.1:$port/healthz" 20 "$started" "$program"
    local inside
    inside=$(pgrep --parent "$started")
    grep -q '^Uid:\s65532\s65532\s65532\s65532$' "/proc/$inside/status" || fail "$program does not run as nobody"
    grep -q '^CapEff:\s0000000000000000$' "/proc/$inside/status" || fail "$program has capabilities"
    grep -q '^NSpid:.*\s1$' "/proc/$inside/status" || fail "$program is not process 1 of its namespace"
    kill -TERM "$inside"
    local end=$((SECONDS + 20))
    while kill -0 "$inside" 2>/dev/null; do
        ((SECONDS < end)) || fail "$program goes on 20 s after SIGTERM"
        sleep 0.1
    done
    wait "$started" || status=$?
    started=
    ((status == 0)) || fail "$program ended with status $status after SIGTERM"
    say "image-test: $program answers /healthz and ends on SIGTERM"
}

mkdir -p "$work/etc-sluice-proxy" "$work/etc-sluice-control"
build sluice-proxy
unpack sluice-proxy
clients=$(free_port) taken_ports="$clients"
metrics=$(free_port) taken_ports+=" $metrics"
admin=$(free_port) taken_ports+=" $admin"
cat >"$work/etc-sluice-proxy/sluice.yaml" <<YAML
listeners: [{address: "127.0.0.1:$clients"}]
metrics: {address: "127.0.0.1:$metrics"}
admin: {address: "127.0.0.1:$admin"}
cache: {file: /var/lib/sluice/cache}
source: {routes: /etc/sluice/routes.yaml}
drain: {delay: 0s, timeout: 5s}
YAML
cp config/examples/quickstart.yaml "$work/etc-sluice-proxy/routes.yaml"
run sluice-proxy "$metrics" --config /etc/sluice/sluice.yaml

build sluice-control
unpack sluice-control
operations=$(free_port) taken_ports+=" $operations"
push=$(free_port) taken_ports+=" $push"
debug=$(free_port) taken_ports+=" $debug"
# No API server is there: it must say that it lives all the same, and wait.
cat >"$work/etc-sluice-control/kubeconfig" <<YAML
apiVersion: v1
kind: Config
clusters: [{name: none, cluster: {server: "http://127.0.0.1:9"}}]
users: [{name: none, user: {token: none}}]
contexts: [{name: none, context: {cluster: none, user: none}}]
current-context: none
YAML
run sluice-control "$operations" --kubeconfig=/etc/sluice/kubeconfig --leader-elect=false --webhook=false \
    "--push-address=127.0.0.1:$push" "--operations-address=127.0.0.1:$operations" "--debug-address=127.0.0.1:$debug"
