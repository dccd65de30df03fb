"""What the truth test stands on: vLLM engines, the gateway before them, and plain HTTP to both. All on loopback.

Not for what is asked and compared: vllm_cache.py.
"""

import http.client
import json
import os
import socket
import subprocess
import sys
import time

BLOCK = 32  # the CPU's attention takes multiples of 32 only
MODEL = "tiny"
# Two that start at the same time took 150 s on two cores, 280 s where the cores had other work.
ENGINE_READY_SECONDS = 420
GATEWAY_READY_SECONDS = 60
# More than all conversations together fill, so that nothing is evicted: 131,072 tokens, 64 MiB.
KV_BLOCKS = 4096


def free_ports(count):
    """Ports that nobody listens on now, each another."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def ask(address, method, path, body=None, headers=(), timeout=120):
    """(status, body) of one request, on a connection of its own."""
    connection = http.client.HTTPConnection(address, timeout=timeout)
    try:
        connection.request(method, path, body, dict(headers) | {"content-type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def until(what, seconds, condition, processes=()):
    """Polls until `condition` gives something true, and gives it back."""
    end = time.monotonic() + seconds
    while True:
        try:
            if found := condition():
                return found
        except (OSError, http.client.HTTPException):
            pass  # not up yet
        for process in processes:
            if process.poll() is not None:
                sys.exit(f"error: {process.args[0]} ended with {process.returncode} while waiting until {what}")
        if time.monotonic() > end:
            sys.exit(f"error: waited {seconds} s in vain until {what}")
        time.sleep(0.2)


class Processes:
    """Children with their logs in a folder; leaving the `with` ends them, and shows the logs of a failure."""

    def __init__(self, folder):
        self.folder = folder
        self.children = []

    def start(self, name, command, environment=None):
        with open(os.path.join(self.folder, f"{name}.log"), "wb") as log:
            # A session of its own: vLLM's workers are to be ended with it.
            child = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, cwd=self.folder, env=environment, start_new_session=True
            )
        self.children.append((name, child))
        return child

    def __enter__(self):
        return self

    def __exit__(self, kind, error, _trace):
        for _, child in self.children:
            signal_group(child, 15)
        for name, child in self.children:
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                print(f"{name} had to be killed", file=sys.stderr)
            signal_group(child, 9)
            child.wait()
        if error is not None:
            self.show_logs()

    def show_logs(self):
        for name, _ in self.children:
            with open(os.path.join(self.folder, f"{name}.log"), encoding="utf-8", errors="replace") as log:
                print(f"--- end of {name}.log", *log.readlines()[-15:], sep="\n", file=sys.stderr)


def signal_group(child, number):
    """The child leads its group, whose other members may outlive it."""
    try:
        os.killpg(child.pid, number)
    except ProcessLookupError:
        pass


def start_engines(processes, folder, count):
    """Starts `count` engines at once from fetch-vllm.sh's folder, and waits for all. Their addresses."""
    environment = os.environ | {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    started = []
    for number in range(count):
        port, publisher, replay = free_ports(3)
        child = processes.start(f"engine-{number + 1}", engine_command(folder, port, publisher, replay), environment)
        started.append((f"127.0.0.1:{port}", child))
    children = [child for _, child in started]
    for address, _ in started:
        healthy = lambda address=address: ask(address, "GET", "/health", timeout=2)[0] == 200
        until(f"{address} is healthy", ENGINE_READY_SECONDS, healthy, children)
    return [address for address, _ in started]


def engine_command(folder, port, publisher, replay):
    events = {
        "enable_kv_cache_events": True,
        "publisher": "zmq",
        # The socket binds where it reads `::` and connects elsewhere; mapped, it stays on loopback.
        "endpoint": f"tcp://[::ffff:127.0.0.1]:{publisher}",
        "replay_endpoint": f"tcp://127.0.0.1:{replay}",
        "topic": "",
    }
    command = f"""{folder}/venv/bin/vllm serve {folder}/model --served-model-name {MODEL} --host 127.0.0.1
        --port {port} --enforce-eager --dtype bfloat16 --max-model-len 2048 --max-num-seqs 4 --block-size {BLOCK}
        --num-gpu-blocks-override {KV_BLOCKS} --enable-prefix-caching --enable-prompt-tokens-details"""
    return [*command.split(), "--kv-events-config", json.dumps(events)]


class Gateway:
    """`sluice-proxy` before `engines`, with or without KV events and a tokenizer."""

    def __init__(self, processes, binary, engines, tokenizer):
        name = "gateway-events" if tokenizer else "gateway-bytes"
        listen, admin, metrics = (f"127.0.0.1:{port}" for port in free_ports(3))
        self.address, self.admin = listen, admin
        self.access_log = os.path.join(processes.folder, f"{name}.access.jsonl")
        server = {
            "inferenceEngine": "vLLM",
            "endpoints": [{"address": engine} for engine in engines],
        }
        server |= {"tokenizer": {"path": tokenizer}} if tokenizer else {"kvEvents": {"enabled": False}}
        routes = os.path.join(processes.folder, f"{name}.routes.yaml")
        # JSON is YAML.
        with open(routes, "w", encoding="utf-8") as file:
            file.write(json.dumps(resource("ModelServer", server)) + "\n---\n")
            target = {"targetModels": [{"modelServerName": MODEL}]}
            file.write(json.dumps(resource("ModelRoute", {"modelName": MODEL, "rules": [target]})))
        bootstrap = {
            "listeners": [{"address": listen}],
            "admin": {"address": admin},
            "metrics": {"address": metrics},
            "source": {"routes": routes},
            "engines": {"kvEvents": True},
            # The question is what is predicted from tokens, not how fast two shared cores bring them.
            "tokenizers": {"deadline": "250ms"},
            "accessLog": {"output": self.access_log},
        }
        config = os.path.join(processes.folder, f"{name}.yaml")
        with open(config, "w", encoding="utf-8") as file:
            json.dump(bootstrap, file)
        self.process = processes.start(name, [binary, "--config", config])
        ready = lambda: ask(metrics, "GET", "/readyz", timeout=2)[0] == 200
        until("the gateway is ready", GATEWAY_READY_SECONDS, ready, [self.process])
        if tokenizer:
            self.until_events_are_followed(len(engines))

    def until_events_are_followed(self, count):
        body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "hello"}]})

        def followed():
            rows = self.explain(body)
            return len(rows) == count and all(row["kvEvents"] for row in rows)

        until("KV events of all engines are followed", GATEWAY_READY_SECONDS, followed, [self.process])

    def explain(self, body):
        """The rows of /debug/explain, one an endpoint."""
        status, answer = ask(self.admin, "POST", "/debug/explain", body)
        if status != 200:
            sys.exit(f"error: /debug/explain answered {status}: {answer[:300]!r}")
        return json.loads(answer).get("candidates", [])

    def chat(self, body, request_id):
        status, answer = ask(self.address, "POST", "/v1/chat/completions", body, {"x-request-id": request_id})
        if status != 200:
            sys.exit(f"error: the gateway answered {status}: {answer[:300]!r}")
        return json.loads(answer)

    def served(self, count):
        """Access lines by request id, once all `count` are written."""

        def lines():
            with open(self.access_log, encoding="utf-8") as log:
                found = [json.loads(line) for line in log if line.endswith("\n")]
            return found if len(found) >= count else None

        return {line["request_id"]: line for line in until("all access lines are written", 10, lines)}


def resource(kind, spec):
    version = "networking.serving.volcano.sh/v1alpha1"
    return {"apiVersion": version, "kind": kind, "metadata": {"name": MODEL, "namespace": "default"}, "spec": spec}
