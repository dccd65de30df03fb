"""The routers that bench-routing compares, each started in front of the same engines and ready when its function returns.

Everything is as shipped, but for addresses, quiet logs where there is a switch, and timers: the engines' clock runs
`speed` times as fast as the wall's, so what a router does every minute it must do every minute of that clock.
"""

import json
import os
import pathlib
import sys

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(REPOSITORY / "benches" / "overhead"))
import peers as processes  # noqa: E402

# What its policy is called in the results.
DEFAULT_POLICY = "default"


def start(name, work, engines, speed):
    """`sluice`, `sluice:POLICY`, `sglang`, `vllm`, `nginx-least` or `nginx-random`, in front of the engines' ports."""
    program, _, option = name.partition(":")
    return STARTERS[program](work, engines, speed, option or DEFAULT_POLICY)


def scheduling(policy):
    """The part of a ModelServer's spec that names the policy; the default's is none."""
    return {} if policy == DEFAULT_POLICY else {"scheduling": {"policy": policy}}


def _sluice(work, engines, speed, policy):
    listen, admin, metrics = processes.free_ports(3)
    header = {"apiVersion": "networking.serving.volcano.sh/v1alpha1", "metadata": {"name": "tiny", "namespace": "bench"}}
    server = {"inferenceEngine": "vLLM", "endpoints": [{"address": f"127.0.0.1:{port}"} for port in engines],
              **scheduling(policy)}
    route = {"modelName": "tiny", "rules": [{"targetModels": [{"modelServerName": "tiny"}]}]}
    documents = [{**header, "kind": "ModelServer", "spec": server}, {**header, "kind": "ModelRoute", "spec": route}]
    # JSON is YAML.
    (work / "routes.yaml").write_text("\n---\n".join(json.dumps(document) for document in documents))
    (work / "bootstrap.yaml").write_text(json.dumps({"threads": 2}))
    log = work / "sluice.log"
    child = processes.start(
        [os.environ["GATEWAY"], "--config", work / "bootstrap.yaml", "--routes", work / "routes.yaml",
         "--listen", f"127.0.0.1:{listen}", "--admin", f"127.0.0.1:{admin}", "--metrics", f"127.0.0.1:{metrics}"],
        [listen, metrics], log)
    processes.wait_ready(f"http://127.0.0.1:{metrics}/readyz", log)
    return processes.Peer("sluice", listen, child)


def _python_router(module, work, engines, *flags):
    """Both routers from PyPI have the same launcher and flags; they listen only when their workers are registered."""
    listen, metrics = processes.free_ports(2)
    python = os.environ.get("PEERS_PYTHON") or REPOSITORY / ".cache" / "peers" / "bin" / "python"
    log = work / f"{module}.log"
    child = processes.start(
        [python, "-m", f"{module}.launch_router", "--host", "127.0.0.1", "--port", listen,
         "--prometheus-host", "127.0.0.1", "--prometheus-port", metrics, *flags,
         "--worker-urls", *[f"http://127.0.0.1:{port}" for port in engines]], [listen], log)
    return listen, child, log


def _sglang(work, engines, speed, _policy):
    """Its default, cache_aware: matched text above 0.3, else the shortest queue, beyond 64 and 1.5 times in difference."""
    listen, child, log = _python_router(
        "sglang_router", work, engines, "--log-level", "warn", "--policy", "cache_aware",
        "--eviction-interval-secs", round(60 / speed), "--health-check-interval-secs", round(60 / speed))
    processes.wait_ready(f"http://127.0.0.1:{listen}/readiness", log,
                         lambda answer: json.loads(answer).get("healthy_workers") == len(engines))
    return processes.Peer("sglang", listen, child)


def _vllm(work, engines, speed, _policy):
    """Its default, cache_aware, with the same thresholds as sglang's."""
    listen, child, log = _python_router(
        "vllm_router", work, engines, "--log-level", "warning", "--policy", "cache_aware",
        "--eviction-interval-secs", round(120 / speed), "--health-check-interval-secs", round(60 / speed))
    processes.wait_ready(f"http://127.0.0.1:{listen}/health", log)
    return processes.Peer("vllm", listen, child)


def _nginx(method):
    def start_nginx(work, engines, _speed, _policy):
        (listen,) = processes.free_ports(1)
        text = (pathlib.Path(__file__).parent / "nginx.conf").read_text()
        servers = "\n        ".join(f"server 127.0.0.1:{port};" for port in engines)
        for name, value in {"METHOD": method, "SERVERS": servers, "WORK": work, "PORT": listen}.items():
            text = text.replace(f"@{name}@", str(value))
        config = work / f"nginx-{method}.conf"
        config.write_text(text)
        child = processes.start(["nginx", "-p", work, "-c", config], [listen], work / "nginx.log")
        return processes.Peer(f"nginx-{method}", listen, child)
    return start_nginx


STARTERS = {
    "sluice": _sluice,
    "sglang": _sglang,
    "vllm": _vllm,
    "nginx-least": _nginx("least_conn"),
    "nginx-random": _nginx("random"),
}


def start_engines(count, profile, speed, work):
    """Engines with cold caches; returns (ports, children). ENGINE_FLAGS are more flags for each of them."""
    flags = os.environ.get("ENGINE_FLAGS", "").split()
    ports = processes.free_ports(count)
    children = [
        processes.start([os.environ["ENGINE"], "--listen", f"127.0.0.1:{port}", "--profile", profile.name,
                         "--block-tokens", profile.block_tokens, "--speed", speed, *flags], [port], work / "engines.log")
        for port in ports
    ]
    return ports, children
