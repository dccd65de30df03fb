#!/usr/bin/env python3
"""System calls per request, counted by strace: a figure that does not move with the neighbours of the machine.

`make bench-syscalls` runs it. 16 keep-alive connections in step. Counted is all that the process calls in that time; the
bound is for those of them that move requests and answers. The rest (log writer, allocator, waking of threads) depends on
how fast the requests come, and strace slows them. Settings from the environment: BOUNDS="1024:4.5 16384:4.5 225280:6.5" (body bytes and
the most such calls a request, `:` and number left out to only look), REQUESTS=1600 PEERS=sluice THREADS=2 GATEWAY=path.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import time

import peers

CONNECTIONS = 16
WARM_UP_ROUNDS = 4
# `write`: sockets are written by send or writev in all peers, log lines by write.
NOT_TRANSPORT = {"write", "futex", "madvise", "mmap", "munmap", "mprotect", "mremap", "brk", "statx", "sched_yield",
                 "clock_gettime", "clock_nanosleep", "nanosleep", "getrandom", "rt_sigprocmask", "restart_syscall"}


def receive(connection):
    """One JSON answer with a content-length, or a failure in words."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65536)
        if not part:
            sys.exit(f"error: the connection was closed before an answer: {data!r}")
        data += part
    head, body = data.split(b"\r\n\r\n", 1)
    if not head.startswith(b"HTTP/1.1 200"):
        sys.exit(f"error: not a 200: {data[:300]!r}")
    length = int(re.search(rb"(?i)\r\ncontent-length: *(\d+)", head).group(1))
    while len(body) < length:
        body += connection.recv(65536)


def rounds(connections, requests, count):
    """`count` times: a request on every connection, then the answers."""
    for turn in range(count):
        for connection in connections:
            connection.sendall(requests[turn % len(requests)])
        for connection in connections:
            receive(connection)


def request(size, number):
    body = peers.chat_body("json", size, number)
    return (b"POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n\r\n%s" % (len(body), body))


def trace(peer, work, size, count):
    """Returns {system call: calls} of `count` requests."""
    connections = [socket.create_connection(("127.0.0.1", peer.ports["json"]), 30) for _ in range(CONNECTIONS)]
    requests = [request(size, number) for number in range(16)]
    rounds(connections, requests, WARM_UP_ROUNDS)
    report = work / f"strace-{size}"
    pids = [part for pid in peer.processes() for part in ("-p", str(pid))]
    strace = subprocess.Popen(["strace", "-c", "-f", "-U", "name,calls", "-o", report, *pids],
                              stderr=subprocess.PIPE, text=True)
    attached = strace.stderr.readline()
    if "attached" not in attached:
        sys.exit(f"error: strace cannot attach: {attached}")
    time.sleep(0.3)  # the other threads are attached after the first, unannounced in order
    rounds(connections, requests, count // CONNECTIONS)
    strace.send_signal(signal.SIGINT)
    strace.wait(10)
    for connection in connections:
        connection.close()
    calls = dict(re.findall(r"^(\w+)\s+(\d+)\s*$", report.read_text(), re.MULTILINE))
    calls.pop("total", None)
    return {name: int(number) for name, number in calls.items()}


def main():
    work = peers.prepare()
    bounds = os.environ.get("BOUNDS", "1024:4.5 16384:4.5 225280:6.5").split()
    count = int(os.environ.get("REQUESTS", 1600)) // CONNECTIONS * CONNECTIONS
    stubs, _ = peers.start_stubs(work, ["json"])
    report, broken = {}, []
    for name in os.environ.get("PEERS", "sluice").split(","):
        peer = peers.start_peer(name, work, stubs, int(os.environ.get("THREADS", 2)), os.environ.get("GATEWAY"))
        for entry in bounds:
            size, _, bound = entry.partition(":")
            calls = trace(peer, work, int(size), count)
            per_request = sum(calls.values()) / count
            transport = sum(number for call, number in calls.items() if call not in NOT_TRANSPORT) / count
            parts = ", ".join(f"{call} {number / count:.2f}"
                              for call, number in sorted(calls.items(), key=lambda item: -item[1]) if number > count / 50)
            print(f"{name}: {size} bytes: {transport:.2f} transport calls a request, bound {bound or 'none'}; "
                  f"{per_request:.2f} in all ({parts})")
            report.setdefault(name, {})[size] = {
                "transport": transport, "per_request": per_request, "calls": calls, "bound": bound or None}
            if not calls or (bound and name == "sluice" and transport > float(bound)):
                broken.append(f"{name} at {size} bytes")
    print("written to", peers.write_report("syscalls.json", {"settings": {"requests": count}, "peers": report}))
    if broken:
        sys.exit(f"bench-syscalls: above the bound: {', '.join(broken)}")


if __name__ == "__main__":
    main()
