#!/usr/bin/env python3
"""Streaming stub engines for the overhead benches: one process, several ports, bytes prepared before they are asked for.

Answers every POST with a chunked server-sent-event stream of EVENTS events: all at once (`burst`), one each
millisecond (`paced`), or the first one and then silence (`idle`). JSON answers come from nginx instead
(stubs.nginx.conf), which costs less. Not an engine: no model, no validation; for that there is e2e's sluice-engine.
"""

import asyncio
import json
import sys

EVENTS = 128
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


def event(choices, **extra):
    body = {"id": "chatcmpl-stub", "object": "chat.completion.chunk", "created": 1700000000, "model": "bench",
            "choices": choices, **extra}
    return chunk(b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n")


def events(with_usage):
    """The chunks of one answer, as a vLLM server writes them: role, tokens, finish, [usage,] [DONE]."""
    def choice(delta, reason=None):
        return [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}]

    tokens = EVENTS - 3
    result = [event(choice({"role": "assistant", "content": ""}))]
    result += [event(choice({"content": f" token{number % 10}"})) for number in range(tokens)]
    result.append(event(choice({}, "stop")))
    if with_usage:
        result.append(event([], usage={"prompt_tokens": 64, "completion_tokens": tokens, "total_tokens": 64 + tokens}))
    return result + [chunk(b"data: [DONE]\n\n")]


STREAMS = {asked: events(asked) for asked in (False, True)}
BURSTS = {asked: HEAD + b"".join(chunks) + END for asked, chunks in STREAMS.items()}


class Engine(asyncio.Protocol):
    """One connection; requests one after the other, as proxies send them."""

    mode = "burst"

    def connection_made(self, transport):
        self.transport, self.received, self.task = transport, b"", None

    def connection_lost(self, _error):
        if self.task:
            self.task.cancel()

    def data_received(self, data):
        self.received = self.received + data if self.received else data
        head = self.received.find(b"\r\n\r\n")
        if head < 0:
            return
        fields = self.received[:head].lower()
        start = fields.find(b"\r\ncontent-length:")
        length = int(fields[start + 17:].split(b"\r\n", 1)[0]) if start >= 0 else 0
        if len(self.received) < head + 4 + length:
            return
        request, self.received = self.received, self.received[head + 4 + length:]
        self.answer(request)

    def answer(self, request):
        if not request.startswith(b"POST"):
            status = b"200 OK" if request.startswith(b"GET /health") else b"404 Not Found"
            self.transport.write(b"HTTP/1.1 %s\r\ncontent-length: 0\r\n\r\n" % status)
            return
        # Only a gateway asks for this on the client's behalf; a real engine then sends one event more.
        asked = b'"include_usage":true' in request or b'"include_usage": true' in request
        if self.mode == "burst":
            self.transport.write(BURSTS[asked])
        elif self.mode == "idle":
            self.transport.write(HEAD + STREAMS[asked][0])
        else:
            self.task = asyncio.get_running_loop().create_task(self.pace(STREAMS[asked]))

    async def pace(self, chunks):
        """One event a millisecond against the clock, so that a late one does not move the others."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        self.transport.write(HEAD)
        for data in chunks:
            self.transport.write(data)
            due += 0.001
            await asyncio.sleep(max(0, due - loop.time()))
        self.transport.write(END)


async def main():
    """Arguments: MODE:PORT..."""
    loop = asyncio.get_running_loop()
    for argument in sys.argv[1:]:
        mode, port = argument.split(":")
        engine = type("Engine", (Engine,), {"mode": mode})
        await loop.create_server(engine, "127.0.0.1", int(port), backlog=4096)
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        pass
