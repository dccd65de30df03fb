#!/usr/bin/env python3
"""Routing in real time: the same conversations through our gateway and its peers, in front of the same simulated engines.

`make bench-routing` runs it; benches/README.md says how to read the table and documents target/bench/routing.json.
Every run starts its own engines, so all find the same cold caches. Settings come from the environment:
WORKLOADS=A-long,... PEERS=sluice,sluice:POLICY,sglang,vllm,nginx-least,nginx-random ENGINES=3,8 SPEED=4 REQUESTS=2048
ROUNDS=1 CALLERS=300 SEED=1 MINUTES=45.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections import namedtuple

import routers
from routers import processes

Profile = namedtuple("Profile", "name block_tokens")
# As in the simulator: engines of 16-token blocks are run with blocks of 64, a quarter of the book-keeping.
K7B, H8B = Profile("k7b", 128), Profile("h8b", 64)
# Engines behind the router and what they are, where the settings name no other number.
WORKLOADS = {"A-long": (3, K7B), "A-long-2k": (3, K7B), "A-8k-2k": (3, K7B), "C": (8, H8B)}
DEFAULT_PEERS = "sluice,sglang,vllm,nginx-least,nginx-random"
# Above this part of the machine's time, taken by what is measured, the figures are the machine's, not the routers'.
MAX_BUSY = 0.6
# The same of how late the generator's own timers fire, 99 in 100 of them, in milliseconds of the wall clock.
MAX_LAG_MS = 20
RUN_SECONDS = 900

Cell = namedtuple("Cell", "workload engines profile speed")


class Settings:
    """What the environment says."""

    def __init__(self, environment):
        if not {"GATEWAY", "ENGINE", "REPLAY"} <= environment.keys():
            sys.exit("error: start this by run.sh, which builds and names the binaries")
        self.peers = environment.get("PEERS", DEFAULT_PEERS).split(",")
        self.rounds = int(environment.get("ROUNDS", 1))
        self.requests = int(environment.get("REQUESTS", 2048))
        self.seed = int(environment.get("SEED", 1))
        self.callers = environment.get("CALLERS")
        self.minutes = float(environment.get("MINUTES", 45))
        speed = float(environment.get("SPEED", 4))
        if not 0 < speed <= 4:
            sys.exit("error: SPEED is above 0 and at most 4: faster engines measure this machine, not the routers")
        unknown = [name for name in self.peers if name.partition(":")[0] not in routers.STARTERS]
        if unknown:
            sys.exit(f"error: no peer {', '.join(unknown)}; there are {', '.join(routers.STARTERS)} and sluice:POLICY")
        self.cells = [
            Cell(name, engines, WORKLOADS[name][1], speed)
            for name in self._workloads(environment)
            for engines in map(int, environment.get("ENGINES", str(WORKLOADS[name][0])).split(","))
        ]

    @staticmethod
    def _workloads(environment):
        names = environment.get("WORKLOADS", ",".join(WORKLOADS)).split(",")
        unknown = [name for name in names if name not in WORKLOADS]
        if unknown:
            sys.exit(f"error: no workload {', '.join(unknown)}; there are {', '.join(WORKLOADS)}")
        return names


def run_once(cell, name, settings, work):
    """One workload through one router, everything cold. Returns the generator's figures and what the processes took."""
    ports, engines = routers.start_engines(cell.engines, cell.profile, cell.speed, work)
    router = routers.start(name, work, ports, cell.speed)
    command = [os.environ["REPLAY"], "--router", f"127.0.0.1:{router.ports}", "--workload", cell.workload,
               "--speed", str(cell.speed), "--block-tokens", str(cell.profile.block_tokens),
               "--seed", str(settings.seed), "--requests", str(settings.requests)]
    command += [part for port in ports for part in ("--engine", f"127.0.0.1:{port}")]
    command += ["--callers", settings.callers] if settings.callers else []
    pids = [child.pid for child in engines]
    before = (router.cpu_seconds(), sum(map(processes.cpu_seconds, pids)), processes.machine_busy_seconds())
    start = time.monotonic()
    run = subprocess.run(command, capture_output=True, text=True, timeout=RUN_SECONDS)
    wall = time.monotonic() - start
    after = (router.cpu_seconds(), sum(map(processes.cpu_seconds, pids)), processes.machine_busy_seconds())
    for child in (router.child, *engines):
        processes.stop(child)
    if run.returncode != 0:
        sys.exit(f"error: {cell.workload} through {name}: {run.stderr.strip()}")
    router_cpu, engine_cpu, machine = (late - early for late, early in zip(after, before))
    figures = json.loads(run.stdout)
    client = figures.pop("client")
    cores = {"router": router_cpu / wall, "engines": engine_cpu / wall, "client": client["cpu_s"] / wall}
    return {
        **figures,
        "router_cpu_us_per_request": router_cpu / max(1, figures["requests"]) * 1e6,
        "wall_s": client["wall_s"],
        "busy": sum(cores.values()) / os.cpu_count(),
        "lag_p99_ms": client["lag_p99_ms"],
        "cores": {**cores, "others": max(0.0, machine / wall - sum(cores.values()))},
    }


def summarise(cell, name, samples):
    """Medians over the rounds; failures add up."""
    first = samples[0]
    row = {"workload": cell.workload, "engines": cell.engines, "policy": name, "speed": cell.speed,
           "profile": cell.profile.name, "rounds": len(samples)}
    for key, value in first.items():
        if isinstance(value, dict):
            keys = sorted({part for sample in samples for part in sample[key]})
            row[key] = {part: statistics.median(sample[key].get(part, 0) for sample in samples) for part in keys}
        else:
            row[key] = statistics.median(sample[key] for sample in samples)
    for key in ("requests", "failed", "skipped"):
        row[key] = sum(sample[key] for sample in samples)
    row["e2e_mean_s_rounds"] = [sample["e2e_mean_s"] for sample in samples]
    return row


def table(rows):
    line = "{:<10} {:>3} {:<22} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7} {:>6} {:>6} {:>7} {:>7} {:>5} {:>6} {:>6}".format
    print(line("workload", "eng", "policy", "req/s", "E2E s", "p50", "p90", "p99", "TTFT s", "p50", "p99", "hit", "/ideal",
               "imbal.", "CPU us", "busy", "lag ms", "failed"))
    previous = None
    for row in rows:
        cell = (row["workload"], row["engines"])
        if previous not in (None, cell):
            print()
        previous = cell
        print(line(*cell, row["policy"], f"{row['req_per_s']:.2f}", f"{row['e2e_mean_s']:.2f}", f"{row['e2e_p50_s']:.2f}",
                   f"{row['e2e_p90_s']:.2f}", f"{row['e2e_p99_s']:.2f}", f"{row['ttft_mean_s']:.3f}",
                   f"{row['ttft_p50_s']:.3f}", f"{row['ttft_p99_s']:.2f}", f"{row['hit_rate']:.3f}",
                   f"{row['hit_rate'] / max(row['ideal_hit_rate'], 1e-9):.3f}", f"{row['imbalance']:.2f}",
                   f"{row['router_cpu_us_per_request']:,.0f}", f"{row['busy']:.0%}", f"{row['lag_p99_ms']:.0f}",
                   row["failed"] + row["skipped"]))


def run(settings, work):
    """Every cell through every peer, in each round; the order of the peers turns. Returns rows; stops when time is up."""
    end = time.monotonic() + settings.minutes * 60
    samples = {(cell, name): [] for cell in settings.cells for name in settings.peers}
    for turn in range(settings.rounds):
        for index, cell in enumerate(settings.cells):
            shift = (turn + index) % len(settings.peers)
            for name in settings.peers[shift:] + settings.peers[:shift]:
                if time.monotonic() > end:
                    sys.exit(f"error: not done after MINUTES={settings.minutes:g}; fewer REQUESTS, PEERS or WORKLOADS, "
                             "or more MINUTES, please")
                sample = run_once(cell, name, settings, work)
                samples[cell, name].append(sample)
                print(f"{cell.workload} on {cell.engines} through {name}: {sample['wall_s']:.0f} s, {sample['busy']:.0%} of "
                      f"the machine, others {sample['cores']['others']:.1f} cores", file=sys.stderr, flush=True)
    return [summarise(cell, name, found) for (cell, name), found in samples.items()]


def go_first():
    """Where we may (as root): all that is measured runs before the machine's other work, and alike. With neighbours on the
    cores, timers then fire within a millisecond, else tens of them late. It takes under 60 % of the machine, checked below."""
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except PermissionError:
        print("not allowed to run first: figures hold on an idle machine only", file=sys.stderr)


def main():
    settings = Settings(os.environ)
    go_first()
    work = processes.prepare()
    rows = run(settings, work)
    table(rows)
    target = processes.write_report("routing.json", {
        "machine": {"cpus": os.cpu_count(), "kernel": platform.release()},
        "settings": {"rounds": settings.rounds, "requests": settings.requests, "seed": settings.seed},
        "results": rows,
    })
    for row in rows:
        if row["busy"] > MAX_BUSY or row["lag_p99_ms"] > MAX_LAG_MS:
            print(f"{row['workload']} through {row['policy']}: {row['busy']:.0%} of the machine taken, timers late by "
                  f"{row['lag_p99_ms']:.0f} ms; its times are the machine's, run it again at a lower SPEED or on an idle one")
    ours = [row for row in rows if row["policy"].startswith("sluice")]
    failed = sum(row["failed"] + row["skipped"] for row in ours)
    if failed:
        sys.exit(f"{failed} requests through our gateway failed; written to {target}")
    print(f"no request through our gateway failed; written to {target}")


if __name__ == "__main__":
    main()
