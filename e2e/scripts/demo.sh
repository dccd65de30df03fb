#!/usr/bin/env bash
# Two engines, a route file, the gateway, one streamed chat, and where it went. Then it serves until Ctrl-C.
#   ENGINE=llama  real llama.cpp engines with SmolLM2-135M (default; needs Python, fetches 150 MB once)
#   ENGINE=sim    the engine simulator; no Python
#   ONCE=1        ends after the chat.   PROMPT=...  what is asked.
# Everything listens on loopback, on free ports, and ends with this script.
set -euo pipefail
source "$(dirname "$0")/lib.sh"
cd "$repository"

engine=${ENGINE:-llama}
prompt=${PROMPT:-What is the capital of France?}
model=smollm2
targets=${CARGO_TARGET_DIR:-target}/debug
work=$(mktemp -d "${TMPDIR:-/tmp}/sluice-demo.XXXXXX")
children=()

# Every way out passes here: children by pid, TERM first, KILL after two seconds.
cleanup() {
    local status=$? pid end
    trap '' INT TERM
    ((${#children[@]} == 0)) || kill "${children[@]}" 2>/dev/null || true
    end=$((SECONDS + 2))
    for pid in "${children[@]}"; do
        while kill -0 "$pid" 2>/dev/null && ((SECONDS < end)); do sleep 0.1; done
        kill -KILL "$pid" 2>/dev/null || true
    done
    wait 2>/dev/null || true
    if ((status != 0)); then
        for log in "$work"/*.log; do
            [[ -s $log ]] && say "--- end of ${log##*/}" && tail -n 15 "$log"
        done >&2
        say "demo: FAILED (exit $status)"
    else
        say "demo: ok"
    fi
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# start NAME COMMAND...: in the background, both outputs in a log of its own.
start() {
    local name=$1
    shift
    "$@" >"$work/$name.log" 2>"$work/$name.err.log" &
    children+=($!)
}

build() {
    say "demo: building (the first time takes some minutes)"
    local packages=(--package sluice-proxy --bin sluice-proxy)
    [[ $engine == sim ]] && packages+=(--package sluice-e2e --bin sluice-engine)
    cargo build --quiet --locked "${packages[@]}"
}

start_engines() {
    local port
    for name in engine-1 engine-2; do
        port=$(free_port)
        taken_ports="${taken_ports:-} $port"
        if [[ $engine == sim ]]; then
            start "$name" "$targets/sluice-engine" --listen "127.0.0.1:$port" --model "$model" --profile instant --speed 1
        else
            start "$name" "$cache/engines/bin/python" e2e/python/llama_engine.py \
                --port "$port" --model "$cache/engines/model.gguf" --alias "$model"
        fi
        wait_for "http://127.0.0.1:$port/health" 60 "${children[-1]}" "$name"
        engines+=("127.0.0.1:$port")
        say "demo: $name serves $model on 127.0.0.1:$port"
    done
}

write_routes() {
    cat >"$work/routes.yaml" <<YAML
apiVersion: networking.serving.volcano.sh/v1alpha1
kind: ModelServer
metadata: { name: demo-engines, namespace: default }
spec:
  inferenceEngine: $([[ $engine == sim ]] && printf vLLM || printf llama.cpp)
  endpoints:
    - address: ${engines[0]}
    - address: ${engines[1]}
---
apiVersion: networking.serving.volcano.sh/v1alpha1
kind: ModelRoute
metadata: { name: demo, namespace: default }
spec:
  modelName: $model
  rules:
    - name: everything
      targetModels:
        - modelServerName: demo-engines
YAML
}

start_gateway() {
    local ports=() port
    for _ in 1 2 3; do
        port=$(free_port)
        taken_ports="$taken_ports $port"
        ports+=("127.0.0.1:$port")
    done
    listen=${ports[0]} admin=${ports[1]}
    start gateway "$targets/sluice-proxy" --routes "$work/routes.yaml" \
        --listen "$listen" --admin "$admin" --metrics "${ports[2]}"
    gateway=${children[-1]}
    wait_for "http://${ports[2]}/readyz" 30 "$gateway" sluice-proxy
    say "demo: the gateway listens on $listen, debug endpoints on $admin, metrics on ${ports[2]}"
}

# The text of a stream as it comes; printf %b turns JSON's \n and \" into what they mean.
show_stream() {
    local text
    sed -unE 's/^data: .*"delta":\{[^}]*"content":"(([^"\\]|\\.)*)".*/\1/p' | while IFS= read -r text; do
        printf '%b' "${text//\\\"/\"}"
    done
    printf '\n'
}

chat() {
    local body
    body=$(printf '{"model":"%s","stream":true,"max_tokens":48,"temperature":0,"messages":[{"role":"user","content":"%s"}]}' \
        "$model" "$(sed 's/[\\"]/\\&/g' <<<"$prompt")")
    say "" "asked:    $prompt"
    printf 'answered: '
    curl --silent --show-error --no-buffer --fail-with-body --max-time 120 "http://$listen/v1/chat/completions" \
        -H 'content-type: application/json' -d "$body" | tee "$work/stream.txt" | show_stream
    grep -q '^data: \[DONE\]' "$work/stream.txt" || fail "the stream did not end with [DONE]"

    say "" "where such a request goes (POST http://$admin/debug/explain):"
    curl --silent --show-error --fail-with-body --max-time 10 "http://$admin/debug/explain" \
        -H 'content-type: application/json' -d "$body"
    say "" "" "the access log's line for it:"
    local tries=0
    until grep -q '^{' "$work/gateway.log"; do # written by a thread of its own, a moment later
        ((tries++ < 50)) || fail "the access log has no line"
        sleep 0.1
    done
    grep '^{' "$work/gateway.log" | tail -n 1
}

engines=()
case $engine in
llama) e2e/scripts/fetch-engines.sh ;;
sim) ;;
*) fail "ENGINE is llama or sim, not $engine" ;;
esac
build
start_engines
write_routes
start_gateway
chat

if [[ -z ${ONCE:-} ]]; then
    say "" "Try it yourself, Ctrl-C ends it:" "" \
        "  curl -N http://$listen/v1/chat/completions -H 'content-type: application/json' \\" \
        "    -d '{\"model\":\"$model\",\"stream\":true,\"max_tokens\":64,\"messages\":[{\"role\":\"user\",\"content\":\"Tell me about the sea.\"}]}'" ""
    trap 'say ""; exit 0' INT TERM
    wait "$gateway" || fail "the gateway ended with exit status $?"
fi
