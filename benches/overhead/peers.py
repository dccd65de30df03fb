"""What the overhead benches share: stub engines, the gateway and its peers as child processes on loopback, and reading
their cost from /proc. Not a load generator: overhead.py, memory.py and syscalls.py are.
"""

import atexit
import ctypes
import json
import os
import pathlib
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
KINDS = ("json", "burst", "paced", "idle")
ENGINES = 3
FILES = 65536
TICKS = os.sysconf("SC_CLK_TCK")
ANSWER = json.dumps({
    "id": "chatcmpl-stub", "object": "chat.completion", "created": 1700000000, "model": "bench",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {
        "role": "assistant", "content": "The sea is wide and the day is long; " * 8}}],
    "usage": {"prompt_tokens": 64, "completion_tokens": 80, "total_tokens": 144},
})

_children = []


def _die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


@atexit.register
def _end_children():
    for child in _children:
        if child.poll() is None:
            child.terminate()
    deadline = time.monotonic() + 2
    for child in _children:
        try:
            child.wait(max(0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def prepare():
    """Call first: SIGTERM ends the children too, and files enough for 10,000 streams. Returns a folder for the run."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    raise_file_limit()
    work = pathlib.Path(tempfile.mkdtemp(prefix="sluice-bench."))
    atexit.register(shutil.rmtree, work, True)
    return work


def raise_file_limit():
    """A proxy needs two files a stream. Raising the hard limit takes root; returns what was reached."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard < FILES:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES))
            return FILES
        except (ValueError, OSError):
            pass
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(FILES, hard), hard))
    return min(FILES, hard)


def start(command, ready_ports, log):
    """Starts a child that ends with us; returns once it listens."""
    with open(log, "ab") as errors:
        child = subprocess.Popen([str(part) for part in command], stdin=subprocess.DEVNULL,
                                 stdout=subprocess.DEVNULL, stderr=errors, preexec_fn=_die_with_parent)
    _children.append(child)
    deadline = time.monotonic() + 30
    for port in ready_ports:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if child.poll() is not None or time.monotonic() > deadline:
                    sys.exit(f"error: {command[0]} does not listen on {port}; its log ends:\n{tail(log)}")
                time.sleep(0.05)
    return child


def stop(child):
    """Ends one child before the rest, and waits for it."""
    _children.remove(child)
    child.terminate()
    try:
        child.wait(5)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def tail(log):
    return "\n".join(pathlib.Path(log).read_text(errors="replace").splitlines()[-15:])


def free_ports(count):
    """All held at once, so they differ; let go just before their users bind them."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def fill(template, target, **values):
    text = (HERE / template).read_text()
    for name, value in values.items():
        text = text.replace(f"@{name}@", str(value))
    target.write_text(text)
    return target


def start_stubs(work, kinds):
    """Three engines per kind; returns ({kind: [port]}, [child])."""
    ports = {kind: free_ports(ENGINES) for kind in kinds}
    children = []
    if "json" in kinds:
        listen = "\n        ".join(f"listen 127.0.0.1:{port} backlog=4096;" for port in ports["json"])
        config = fill("stubs.nginx.conf", work / "stubs.conf", WORK=work, LISTEN=listen, ANSWER=ANSWER)
        children.append(start(["nginx", "-p", work, "-c", config], ports["json"], work / "stubs.log"))
    streams = [f"{kind}:{port}" for kind in kinds if kind != "json" for port in ports[kind]]
    if streams:
        listening = [int(name.split(":")[1]) for name in streams]
        children.append(start([sys.executable, HERE / "stubs.py", *streams], listening, work / "stubs.log"))
    return ports, children


class Peer:
    """One way to the engines: `ports[kind]` is where to send requests of that kind."""

    def __init__(self, name, ports, child=None):
        self.name, self.ports, self.child = name, ports, child

    def processes(self):
        """The child and its children (nginx has workers)."""
        if self.child is None:
            return []
        found = [self.child.pid]
        for pid in found:
            for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
        return found

    def cpu_seconds(self):
        return sum(cpu_seconds(pid) for pid in self.processes())

    def memory_kib(self):
        """Resident memory, shared pages counted once for each process (VmRSS)."""
        total = 0
        for pid in self.processes():
            status = pathlib.Path(f"/proc/{pid}/status").read_text()
            total += int(status.split("VmRSS:")[1].split()[0])
        return total


def cpu_seconds(pid):
    """User and system time of all its threads, dead ones included."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def machine_busy_seconds():
    """CPU time of everything on the machine, idle and waiting excluded."""
    user, nice, system, _idle, _wait, irq, softirq, steal, *_ = \
        map(int, pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:])
    return (user + nice + system + irq + softirq + steal) / TICKS


def start_peer(name, work, stubs, threads, gateway):
    """direct, haproxy, nginx or sluice, in front of the stubs."""
    if name == "direct":
        return Peer(name, {kind: ports[0] for kind, ports in stubs.items()})
    return {"haproxy": _haproxy, "nginx": _nginx, "sluice": _sluice}[name](work, stubs, threads, gateway)


def _haproxy(work, stubs, threads, _gateway):
    ports = dict(zip(stubs, free_ports(len(stubs))))
    text = ""
    for kind, engines in stubs.items():
        text += f"frontend {kind}\n    bind 127.0.0.1:{ports[kind]}\n    default_backend {kind}\nbackend {kind}\n"
        text += "".join(f"    server engine{number} 127.0.0.1:{port}\n" for number, port in enumerate(engines))
    config = fill("haproxy.cfg", work / "haproxy.cfg", THREADS=threads, FRONTENDS=text,
                  STREAMS=(resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 200) // 2)
    return Peer("haproxy", ports, start(["haproxy", "-db", "-f", config], ports.values(), work / "haproxy.log"))


def _nginx(work, stubs, threads, _gateway):
    ports = dict(zip(stubs, free_ports(len(stubs))))
    text = ""
    for kind, engines in stubs.items():
        servers = " ".join(f"server 127.0.0.1:{port};" for port in engines)
        text += f"    upstream {kind} {{ {servers} keepalive 256; keepalive_requests 100000000; }}\n"
        text += f"    server {{ listen 127.0.0.1:{ports[kind]}; location / {{ proxy_pass http://{kind}; }} }}\n"
    config = fill("nginx.conf", work / "nginx.conf", THREADS=threads, WORK=work, SERVERS=text)
    return Peer("nginx", ports, start(["nginx", "-p", work, "-c", config], ports.values(), work / "nginx.log"))


def _sluice(work, stubs, threads, gateway):
    """All kinds behind one port; the model name in the body picks the pool. Everything but `threads` is default."""
    listen, admin, metrics = free_ports(3)
    documents = []
    for kind, engines in stubs.items():
        header = {"apiVersion": "networking.serving.volcano.sh/v1alpha1"}
        documents += [
            {**header, "kind": "ModelServer", "metadata": {"name": kind, "namespace": "bench"}, "spec": {
                "inferenceEngine": "vLLM", "endpoints": [{"address": f"127.0.0.1:{port}"} for port in engines]}},
            {**header, "kind": "ModelRoute", "metadata": {"name": kind, "namespace": "bench"}, "spec": {
                "modelName": f"bench-{kind}", "rules": [{"targetModels": [{"modelServerName": kind}]}]}},
        ]
    # JSON is YAML.
    (work / "routes.yaml").write_text("\n---\n".join(json.dumps(document) for document in documents))
    (work / "bootstrap.yaml").write_text(json.dumps({"threads": threads}))
    child = start([gateway, "--config", work / "bootstrap.yaml", "--routes", work / "routes.yaml",
                   "--listen", f"127.0.0.1:{listen}", "--admin", f"127.0.0.1:{admin}",
                   "--metrics", f"127.0.0.1:{metrics}"], [listen, metrics], work / "sluice.log")
    wait_ready(f"http://127.0.0.1:{metrics}/readyz", work / "sluice.log")
    return Peer("sluice", {kind: listen for kind in stubs}, child)


def wait_ready(url, log, ready=lambda answer: True):
    """Until `url` answers 200 and its body is what `ready` wants."""
    deadline = time.monotonic() + 20
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                if ready(answer.read()):
                    return
        except OSError:
            pass
        if time.monotonic() > deadline:
            sys.exit(f"error: {url} does not get ready; its log ends:\n{tail(log)}")
        time.sleep(0.05)


def chat_body(kind, size, number):
    """A chat of `size` bytes, `model` last. Prompts differ from their first bytes on, and hold an escape about every 80
    bytes, as prose does: scanners pay for those."""
    head = f'{{"messages":[{{"role":"system","content":"You are assistant {number}. Be brief."}},' \
           f'{{"role":"user","content":"Text {number}: '
    foot = f'"}}],"max_tokens":64,{"" if kind == "json" else chr(34) + "stream" + chr(34) + ":true,"}"model":"bench-{kind}"}}'
    line = "It was a bright cold day in April, and the clocks were all striking thirteen.\\n"
    room = size - len(head) - len(foot)
    text = (line * (room // len(line) + 1))[:max(0, room)]
    return (head + text.rstrip("\\").ljust(max(0, room), ".") + foot).encode()


def write_report(name, report):
    """Below target/bench, beside what Cargo builds there or not."""
    folder = REPOSITORY / "target" / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    report = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **report}
    (folder / name).write_text(json.dumps(report, indent=1) + "\n")
    return f"target/bench/{name}"
