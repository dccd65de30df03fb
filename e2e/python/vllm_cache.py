#!/usr/bin/env python3
"""Are our predictions of cache hits true? Two vLLM engines behind the gateway, 200 requests of conversations a mode.

Just before a request is sent, /debug/explain is asked with the same body how many prompt tokens each endpoint holds
(`cachedTokens`, h). The endpoint that then serves (access log) says how many it took from its cache
(`usage.prompt_tokens_details.cached_tokens`), which is the truth.

    mode    the gateway knows                    a prediction is right when it is off by at most
    bytes   the text of prompts it has sent      one engine block (32 tokens) or 5 % of the prompt, the larger
    events  tokens, and the engines' KV events   one engine block

`exact` is the share of predictions that, rounded down to whole blocks, are the engine's number; `hit` the share of all
prompt tokens that engines took from their caches. 25 conversations of 8 turns, five of them to a system prompt, one
request at a time, and the conversations in another order each turn: an answer goes into the next turn as it came.

`make e2e-vllm` runs it: fails below 95 % in either mode, writes target/bench/e2e-vllm.json. By hand:
vllm_cache.py --vllm .cache/vllm --gateway target/debug/sluice-proxy --json FILE [--seed 2 --engines HOST:PORT,HOST:PORT].
"""

import argparse
import inspect
import json
import os
import platform
import random
import signal
import sys
import tempfile
import time
from collections import namedtuple

from vllm_setting import BLOCK, MODEL, Gateway, Processes, start_engines

SESSIONS, TURNS, SYSTEM_PROMPTS = 25, 8, 5
ANSWER_TOKENS = 16
WANTED = 0.95
# Of a bytes-mode prediction: the ratio of bytes to tokens is a mean over prompts.
TOLERATED = 0.05

PARTS = {"min": 0, "p5": 5, "p50": 50, "p95": 95, "max": 100}

Sample = namedtuple("Sample", "turn prompt predicted_prompt predicted cached endpoint")


class Conversations:
    """The requests of one mode, turn by turn; those of other modes and seeds share nothing with them."""

    def __init__(self, mode, seed):
        self.random = random.Random(f"{seed} {mode}")
        self.text = inspect.getsource(argparse) + inspect.getsource(inspect)
        prompts = [f"{seed} {mode} {number}: {self.passage(900)}" for number in range(SYSTEM_PROMPTS)]
        self.messages = [
            [{"role": "system", "content": prompts[session % SYSTEM_PROMPTS]}] for session in range(SESSIONS)
        ]

    def passage(self, length):
        start = self.random.randrange(len(self.text) - length)
        return self.text[start : start + length]

    def questions(self):
        """(session, turn) of every request, in order, with the question put."""
        for turn in range(TURNS):
            for session in self.random.sample(range(SESSIONS), SESSIONS):
                question = self.passage(self.random.randrange(150, 400))
                self.messages[session].append({"role": "user", "content": question})
                yield session, turn

    def body(self, session):
        request = {"model": MODEL, "messages": self.messages[session], "max_tokens": ANSWER_TOKENS, "temperature": 0}
        return json.dumps(request, ensure_ascii=False).encode()

    def answered(self, session, text):
        self.messages[session].append({"role": "assistant", "content": text})


def converse(gateway, mode, seed):
    """Every request of a mode with what was predicted and what was true."""
    conversations, asked = Conversations(mode, seed), []
    for session, turn in conversations.questions():
        body, name = conversations.body(session), f"{mode}-{session}-{turn}"
        rows = {row["address"]: row for row in gateway.explain(body)}
        answer = gateway.chat(body, name)
        conversations.answered(session, answer["choices"][0]["message"]["content"] or "")
        asked.append((name, turn, rows, answer["usage"]))
    lines = gateway.served(len(asked))
    return [sample(turn, rows, usage, lines[name]["endpoint"]) for name, turn, rows, usage in asked]


def sample(turn, rows, usage, endpoint):
    row, details = rows[endpoint], usage["prompt_tokens_details"] or {}
    predicted = (row["promptTokens"], row["cachedTokens"])
    return Sample(turn, usage["prompt_tokens"], *predicted, details.get("cached_tokens") or 0, endpoint)


def is_right(mode, one):
    off = abs(one.predicted - one.cached)
    return off <= (max(BLOCK, TOLERATED * one.prompt) if mode == "bytes" else BLOCK)


def summary(mode, samples):
    count = len(samples)
    off = sorted(one.predicted - one.cached for one in samples)
    return {
        "requests": count,
        "right": sum(is_right(mode, one) for one in samples) / count,
        "exact": sum(one.predicted // BLOCK * BLOCK == one.cached for one in samples) / count,
        "hit": sum(one.cached for one in samples) / sum(one.prompt for one in samples),
        "off_tokens": {name: off[min(count * part // 100, count - 1)] for name, part in PARTS.items()},
        "prompt_counted": sum(one.predicted_prompt == one.prompt for one in samples) / count,
        "endpoints": sorted(sum(one.endpoint == name for one in samples) for name in {one.endpoint for one in samples}),
    }


def show(mode, figures, samples):
    off = figures["off_tokens"]
    print(
        f"{mode:7} right {figures['right']:6.1%}  exact {figures['exact']:6.1%}  hit {figures['hit']:6.1%}"
        f"  off by {off['min']} to {off['max']} tokens, median {off['p50']}"
        f"  prompts of {min(one.prompt for one in samples)} to {max(one.prompt for one in samples)} tokens",
        flush=True,
    )
    wrong = [one for one in samples if not is_right(mode, one)]
    for one in wrong[:10]:
        print(f"  wrong: turn {one.turn}, {one.predicted} of {one.predicted_prompt} predicted,"
              f" {one.cached} of {one.prompt} true")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vllm", required=True, help="folder that fetch-vllm.sh fills")
    parser.add_argument("--gateway", required=True, help="the sluice-proxy binary")
    parser.add_argument("--json", required=True, help="file for the figures")
    parser.add_argument("--modes", default="bytes,events")
    parser.add_argument("--seed", default="1", help="other conversations")
    parser.add_argument("--engines", help="HOST:PORT,... of engines that run already and hold none of these prompts")
    return parser.parse_args()


def main():
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as any other end: with the children
    vllm, binary = os.path.abspath(options.vllm), os.path.abspath(options.gateway)
    result = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "cpus": os.cpu_count()}
    result |= {"kernel": platform.release(), "seed": options.seed, "block": BLOCK, "wanted": WANTED, "modes": {}}
    with tempfile.TemporaryDirectory(prefix="sluice-vllm.") as folder, Processes(folder) as processes:
        started = time.monotonic()
        engines = options.engines.split(",") if options.engines else start_engines(processes, vllm, 2)
        print(f"engines ready after {time.monotonic() - started:.0f} s: {', '.join(engines)}", flush=True)
        for mode in options.modes.split(","):
            started = time.monotonic()
            gateway = Gateway(processes, binary, engines, os.path.join(vllm, "model") if mode == "events" else None)
            samples = converse(gateway, mode, options.seed)
            figures = summary(mode, samples)
            result["modes"][mode] = figures | {"seconds": round(time.monotonic() - started, 1)}
            result["modes"][mode]["samples"] = [one._asdict() for one in samples]
            show(mode, figures, samples)
    os.makedirs(os.path.dirname(os.path.abspath(options.json)), exist_ok=True)
    with open(options.json, "w", encoding="utf-8") as file:
        json.dump(result, file, indent=1)
    if missed := [mode for mode, figures in result["modes"].items() if figures["right"] < WANTED]:
        sys.exit(f"error: fewer than {WANTED:.0%} of the predictions are right: {', '.join(missed)}")


if __name__ == "__main__":
    main()
