#!/usr/bin/env python3
"""The simulator's figures beside those of real time, for our gateway: `make sim-vs-real`.

Reads target/bench/routing.json and lets the simulator (its command in SIM; without one, target/bench/sim.json as it is) run
the same requests. Rows are paired by workload, engines, requests and policy; it fails when a mean time, the throughput or the
hit rate of a pair differs by more than TOLERANCE (0.10), or when no pair is found.
"""

import json
import os
import pathlib
import shlex
import subprocess
import sys
import tempfile

FOLDER = pathlib.Path(__file__).resolve().parent.parent.parent / "target" / "bench"
KEYS = ("req_per_s", "e2e_mean_s", "ttft_mean_s", "hit_rate")
# A time to first token of some ten milliseconds is made of step times and the network: its relative error says nothing.
TTFT_FLOOR_S = 0.1
# Our default policy has a name of its own in the simulator.
DEFAULT_POLICY = os.environ.get("DEFAULT_POLICY", "mtl")


# Engines of the open workloads, whose rate follows their number.
OPEN = {"C": 8, "C-light": 8, "D": 8, "E": 8}


def read(path):
    try:
        return json.loads(pathlib.Path(path).read_text())
    except OSError as error:
        sys.exit(f"error: {error}; run the bench that writes it first")


def rows(report):
    """Result rows by workload, engines, requests and policy; what a row does not say stands at the top of its run."""
    found = {}
    for run in report.get("runs", [report]):
        if run.get("replicas", 1) != 1:
            continue
        common = {key: value for key, value in run.items() if not isinstance(value, (dict, list))}
        for row in run["results"]:
            row = {**common, **row}
            requests = row["requests"] // row.get("rounds", 1)
            found[row["workload"], row["engines"], requests, policy(row["policy"])] = row
    return found


def simulate(command, seed, cell, policies):
    """The simulator's report on the requests of one cell."""
    workload, engines, requests = cell
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        flags = ["--workload", workload, "--engines", engines, "--limit", requests, "--seed", seed,
                 "--policies", ",".join(sorted(policies)), "--json", file.name]
        flags += ["--speed", engines / OPEN[workload]] if workload in OPEN else []
        run = subprocess.run([*shlex.split(command), *map(str, flags)], stdout=subprocess.DEVNULL)
        if run.returncode:
            sys.exit(f"error: the simulator failed on {workload} with {', '.join(policies)}")
        return read(file.name)


def simulated_rows(report, real):
    command = os.environ.get("SIM")
    if not command:
        return rows(read(FOLDER / "sim.json"))
    cells = {}
    for *cell, name in (key for key, row in real.items() if row["policy"].startswith("sluice")):
        cells.setdefault(tuple(cell), set()).add(name)
    seed = report["settings"]["seed"]
    return rows({"runs": [simulate(command, seed, cell, policies) for cell, policies in cells.items()]})


def policy(name):
    """`sluice:mtl` and `mtl` are the same code; `sluice` alone is the default."""
    program, _, option = name.partition(":")
    return (option or DEFAULT_POLICY) if program == "sluice" else name


def difference(key, simulated, real):
    floor = TTFT_FLOOR_S if key == "ttft_mean_s" else 1e-9
    return (real - simulated) / max(simulated, floor)


def main():
    tolerance = float(os.environ.get("TOLERANCE", 0.10))
    report = read(FOLDER / "routing.json")
    real = rows(report)
    simulated = simulated_rows(report, real)
    pairs = sorted(simulated.keys() & real.keys())
    if not pairs:
        sys.exit("error: nothing to compare: no row has the same workload, engines, number of requests and policy in both")
    line = "{:<10} {:>3} {:>8} {:<20} {:<12} {:>9} {:>9} {:>7}".format
    print(line("workload", "eng", "requests", "policy", "", "simulated", "real", "diff."))
    worst = 0.0
    for pair in pairs:
        for key in KEYS:
            one, other = simulated[pair][key], real[pair][key]
            relative = difference(key, one, other)
            worst = max(worst, abs(relative))
            print(line(*pair, key, f"{one:.3f}", f"{other:.3f}", f"{relative:+.1%}"))
    verdict = f"simulator and real time differ by {worst:.1%} at most, {tolerance:.0%} allowed"
    if worst > tolerance:
        sys.exit(verdict)
    print(verdict)


if __name__ == "__main__":
    main()
