#!/usr/bin/env python3
"""Resident memory that 10,000 open, silent event streams cost the gateway.

`make bench-memory` runs it. Each stream has its own client connection, has received its first event and waits for the
next. Counted is VmRSS of the process, before, during and after; socket buffers live in the kernel and are not in it.
Settings from the environment: STREAMS=10000 BODY=1024 PEERS=sluice (also haproxy,nginx) THREADS=2 GATEWAY=path
MAX_KIB= (fails above that many KiB a stream).
"""

import os
import selectors
import socket
import sys
import time

import peers

BATCH = 256  # connections dialled at a time: below any listener's backlog
DEADLINE_SECONDS = 120


def open_streams(port, count, body):
    """Opens `count` streams and returns their sockets once each has had its first event."""
    request = (b"POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
               b"content-length: %d\r\n\r\n%s" % (len(body), body))
    deadline = time.monotonic() + DEADLINE_SECONDS
    streams = []
    while len(streams) < count:
        batch = [socket.create_connection(("127.0.0.1", port), 10) for _ in range(min(BATCH, count - len(streams)))]
        for stream in batch:
            stream.sendall(request)
        first_events(batch, deadline)
        streams += batch
    return streams


def first_events(batch, deadline):
    received = dict.fromkeys(batch, b"")
    with selectors.DefaultSelector() as selector:
        for stream in batch:
            stream.setblocking(False)
            selector.register(stream, selectors.EVENT_READ)
        while selector.get_map():
            if time.monotonic() > deadline:
                sys.exit(f"error: {len(selector.get_map())} of {len(batch)} streams have no event in time")
            for key, _ in selector.select(1):
                data = key.fileobj.recv(65536)
                received[key.fileobj] += data
                if not data or not received[key.fileobj].startswith(b"HTTP/1.1 200"):
                    sys.exit(f"error: a stream was refused: {received[key.fileobj][:300]!r}")
                if b"data: " in received[key.fileobj]:
                    selector.unregister(key.fileobj)


def lost(streams):
    """Streams that ended though nobody ended them."""
    count = 0
    for stream in streams:
        try:
            count += stream.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            pass
        except OSError:
            count += 1
    return count


def measure(name, work, streams, body_bytes, threads):
    stubs, _ = peers.start_stubs(work, ["idle"])
    peer = peers.start_peer(name, work, stubs, threads, os.environ.get("GATEWAY"))
    body = peers.chat_body("idle", body_bytes, 0)
    # Start-up costs (pools, thread stacks, first pages) belong to the process, not to a stream.
    for warm in open_streams(peer.ports["idle"], 64, body):
        warm.close()
    time.sleep(1)
    before = peer.memory_kib()
    start = time.monotonic()
    opened = open_streams(peer.ports["idle"], streams, body)
    seconds = time.monotonic() - start
    time.sleep(1)
    during, gone = peer.memory_kib(), lost(opened)
    cpu = peer.cpu_seconds()
    time.sleep(2)
    idle_cpu = (peer.cpu_seconds() - cpu) / 2
    for stream in opened:
        stream.close()
    time.sleep(2)
    after = peer.memory_kib()
    peer.child.terminate()
    return {
        "streams": streams, "lost": gone, "open_seconds": seconds,
        "before_mib": before / 1024, "during_mib": during / 1024, "after_mib": after / 1024,
        "kib_per_stream": (during - before) / streams, "idle_cores": idle_cpu,
    }


def main():
    work = peers.prepare()
    wanted = int(os.environ.get("STREAMS", 10_000))
    # Two files a stream in a proxy, and some for itself. (nginx has that many for each worker, haproxy in all.)
    possible = (peers.raise_file_limit() - 400) // 2
    streams = min(wanted, possible)
    if streams < wanted:
        print(f"only {streams} of {wanted} streams: the limit of open files allows no more (ulimit -Hn)")
    names = os.environ.get("PEERS", "sluice").split(",")
    body_bytes, threads = int(os.environ.get("BODY", 1024)), int(os.environ.get("THREADS", 2))
    results = {}
    for name in names:
        result = results[name] = measure(name, work, streams, body_bytes, threads)
        print(f"{name}: {streams} streams: {result['before_mib']:.1f} -> {result['during_mib']:.1f} MiB, "
              f"{result['kib_per_stream']:.1f} KiB a stream; after closing {result['after_mib']:.1f} MiB; "
              f"{result['lost']} lost; idle CPU {result['idle_cores']:.3f} cores; opened in {result['open_seconds']:.1f} s")
    target = peers.write_report("memory.json", {
        "settings": {"streams": streams, "wanted": wanted, "body_bytes": body_bytes, "threads": threads},
        "peers": results,
    })
    print(f"written to {target}")
    bound = float(os.environ.get("MAX_KIB") or "inf")
    for name, result in results.items():
        if result["lost"]:
            sys.exit(f"bench-memory: {name} lost {result['lost']} streams")
        if name == "sluice" and result["kib_per_stream"] > bound:
            sys.exit(f"bench-memory: {result['kib_per_stream']:.1f} KiB a stream is above the bound of {bound}")


if __name__ == "__main__":
    main()
