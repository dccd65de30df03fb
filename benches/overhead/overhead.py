#!/usr/bin/env python3
"""CPU time per request of the gateway beside haproxy, nginx and no proxy at all, in one run, in turns.

`make bench-overhead` runs it; benches/README.md says how to read the table and documents target/bench/overhead.json.
Closed-loop load by wrk on one thread: it measures cost per request, not behaviour at a fixed rate. Settings come from
the environment: ROUNDS=3 SECS=2 PEERS=sluice,haproxy,nginx,direct CELLS=json-1k-16,... THREADS=2 GATEWAY=path.
"""

import http.client
import json
import os
import platform
import statistics
import subprocess
import sys
import time

import peers

BASE = "haproxy"
DEFAULT_CELLS = "json-1k-16,json-16k-16,json-128k-16,burst-1k-16,paced-1k-16"
UNITS = {"json": "request", "burst": "stream of 128 events", "paced": "stream of 128 events, one a millisecond"}


class Cell:
    """What is sent: KIND-SIZE-CONNECTIONS, such as json-16k-64."""

    def __init__(self, name):
        try:
            kind, size, connections = name.split("-")
            self.size = int(size[:-1]) * 1024 if size.endswith("k") else int(size)
            self.name, self.kind, self.connections = name, kind, int(connections)
        except ValueError:
            sys.exit(f"error: cell {name!r} is not KIND-SIZE-CONNECTIONS, such as json-16k-64")
        if kind not in UNITS or self.size < 256 or not 1 <= self.connections <= 1024:
            sys.exit(f"error: cell {name!r}: kinds are {', '.join(UNITS)}, sizes from 256 bytes, connections 1 to 1024")

    def bodies(self, work):
        """Writes the 16 bodies once; returns their names' common part."""
        prefix = work / f"{self.kind}-{self.size}-body-"
        for number in range(16):
            path = prefix.with_name(prefix.name + str(number))
            if not path.exists():
                path.write_bytes(peers.chat_body(self.kind, self.size, number))
        return prefix


def verify(peer, cell, expected):
    """One answer is complete and is the engine's, before anything is timed. Returns the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", peer.ports[cell.kind], timeout=10)
    try:
        connection.request("POST", "/v1/chat/completions", peers.chat_body(cell.kind, cell.size, 0),
                           {"content-type": "application/json"})
        response = connection.getresponse()
        answer = response.read()
    except (OSError, http.client.HTTPException) as error:
        sys.exit(f"error: {peer.name} does not answer {cell.name}: {error!r}")
    finally:
        connection.close()
    if response.status != 200 or (expected is not None and answer != expected):
        sys.exit(f"error: {peer.name} answers {cell.name} with {response.status}, {len(answer)} bytes, "
                 f"not as the engine does ({len(expected or b'')} bytes): {answer[:200]!r}")
    return answer


def measure(peer, cell, prefix, seconds, stubs):
    """One wrk run. CPU is the peer's own; loopback's soft interrupts are charged to nobody, alike for all."""
    command = ["wrk", "-t", "1", "-c", str(cell.connections), "-d", f"{seconds}s", "--timeout", "10s",
               "-s", peers.HERE / "bodies.lua", f"http://127.0.0.1:{peer.ports[cell.kind]}", "--", prefix]
    stub_pids = [pid for stub in stubs for pid in peers.Peer("stub", {}, stub).processes()]
    machine, before = peers.machine_busy_seconds(), peer.cpu_seconds()
    ours = sum(map(peers.cpu_seconds, stub_pids)) + _finished_children_seconds()
    start = time.monotonic()
    run = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=seconds + 30)
    wall = time.monotonic() - start
    cpu = peer.cpu_seconds() - before
    ours = sum(map(peers.cpu_seconds, stub_pids)) + _finished_children_seconds() - ours
    other = peers.machine_busy_seconds() - machine - ours - cpu
    line = next((text for text in run.stdout.splitlines() if text.startswith("RESULT ")), None)
    if line is None:
        sys.exit(f"error: wrk against {peer.name}, {cell.name}: {run.stdout}{run.stderr}")
    result = json.loads(line.removeprefix("RESULT "))
    answered = result["requests"] - result["failed"]
    return {
        "cpu_us": cpu / answered * 1e6 if peer.child and answered > 0 else None,
        "per_second": result["requests"] / result["microseconds"] * 1e6,
        "p50_ms": result["p50_us"] / 1e3, "p99_ms": result["p99_us"] / 1e3,
        "requests": result["requests"], "failed": result["failed"],
        "other_cores": max(0.0, other / wall),
    }


def _finished_children_seconds():
    times = os.times()
    return times.children_user + times.children_system


def median(samples, key):
    values = [sample[key] for sample in samples if sample[key] is not None]
    return statistics.median(values) if values else None


def summarise(samples, base):
    """Medians over the rounds. The ratio is the median of each round's own ratio, so a slow round counts alike for both."""
    ratios = [mine["cpu_us"] / theirs["cpu_us"] for mine, theirs in zip(samples, base)
              if mine["cpu_us"] and theirs["cpu_us"]]
    return {
        **{key: median(samples, key) for key in ("cpu_us", "per_second", "p50_ms", "p99_ms", "other_cores")},
        "ratio": statistics.median(ratios) if ratios else None,
        "ratio_low": min(ratios, default=None), "ratio_high": max(ratios, default=None),
        "requests": sum(sample["requests"] for sample in samples),
        "failed": sum(sample["failed"] for sample in samples),
    }


def number(value, form="{:,.0f}"):
    return "-" if value is None else form.format(value)


def table(cells, names, results):
    row = "{:<14} {:<9} {:>10} {:>7} {:>13} {:>10} {:>9} {:>9} {:>7} {:>7}".format
    print(row("cell", "peer", "CPU us", "x hap.", "(rounds)", "req/s", "p50 ms", "p99 ms", "failed", "others"))
    for cell in cells:
        for name in names:
            result = results[cell.name][name]
            spread = "-" if result["ratio"] is None else f"{result['ratio_low']:.2f}-{result['ratio_high']:.2f}"
            print(row(cell.name, name, number(result["cpu_us"], "{:,.1f}"), number(result["ratio"], "{:.2f}"), spread,
                      number(result["per_second"]), number(result["p50_ms"], "{:.2f}"),
                      number(result["p99_ms"], "{:.2f}"), result["failed"], number(result["other_cores"], "{:.1f}")))


def run(cells, names, rounds, seconds, threads, work):
    """Every cell with every peer, in each round; the order of the peers turns. Returns ({cell: {peer: summary}}, RSS)."""
    kinds = [kind for kind in peers.KINDS if any(cell.kind == kind for cell in cells)]
    stubs, stub_children = peers.start_stubs(work, kinds)
    direct = peers.start_peer("direct", work, stubs, threads, None)
    gateway = os.environ.get("GATEWAY")
    started = {name: peers.start_peer(name, work, stubs, threads, gateway) for name in names}
    prefixes = {cell.name: cell.bodies(work) for cell in cells}
    samples = {cell.name: {name: [] for name in names} for cell in cells}
    for cell in cells:
        expected = verify(direct, cell, None)
        for peer in started.values():
            verify(peer, cell, expected)
    for turn in range(rounds):
        for index, cell in enumerate(cells):
            shift = (turn + index) % len(names)
            for name in names[shift:] + names[:shift]:
                samples[cell.name][name].append(
                    measure(started[name], cell, prefixes[cell.name], seconds, stub_children))
        print(f"round {turn + 1} of {rounds} done", file=sys.stderr)
    results = {
        cell: {name: summarise(by_peer[name], by_peer.get(BASE, [])) for name in names}
        for cell, by_peer in samples.items()
    }
    memory = {name: peer.memory_kib() / 1024 for name, peer in started.items() if peer.child}
    return results, memory


def main():
    names = os.environ.get("PEERS", "sluice,haproxy,nginx,direct").split(",")
    cells = [Cell(name) for name in os.environ.get("CELLS", DEFAULT_CELLS).split(",")]
    rounds, seconds = int(os.environ.get("ROUNDS", 3)), int(os.environ.get("SECS", 2))
    threads = int(os.environ.get("THREADS", 2))
    estimate = len(cells) * len(names) * rounds * (seconds + 0.3)
    if estimate > 1800:
        sys.exit(f"error: this would take {estimate / 60:.0f} minutes; fewer CELLS, ROUNDS or SECS, please")
    print(f"{len(cells)} cells, {len(names)} peers, {rounds} rounds of {seconds} s: about {estimate:.0f} s")
    if "sluice" in names and "/debug/" in os.environ.get("GATEWAY", ""):
        print("the gateway is a debug build: its CPU and latency mean nothing")
    work = peers.prepare()
    results, memory = run(cells, names, rounds, seconds, threads, work)
    table(cells, names, results)
    print("memory after it, MiB:", ", ".join(f"{name} {size:.0f}" for name, size in memory.items()))
    failed = sum(result["failed"] for by_peer in results.values() for result in by_peer.values())
    target = peers.write_report("overhead.json", {
        "machine": {"cpus": os.cpu_count(), "kernel": platform.release()},
        "settings": {"rounds": rounds, "seconds": seconds, "threads": threads, "base": BASE},
        "cells": results, "memory_mib": memory,
    })
    if failed:
        sys.exit(f"bench-overhead: {failed} requests failed, so no figure above counts")
    print(f"no request failed; written to {target}")


if __name__ == "__main__":
    main()
