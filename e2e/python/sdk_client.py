#!/usr/bin/env python3
"""What an application sees through the OpenAI Python SDK: every call it commonly makes, checked, against a base URL.

Prints one JSON line, `{"ok": true, "checks": {...}}` or `{"ok": false, "check": ..., "reason": ...}`, and exits 1 on the
first mismatch. It checks the shape of answers and the mapping of errors, never what a model says. Python for it and
the SDK: e2e/scripts/fetch-engines.sh, .cache/engines/bin/python.
"""

import argparse
import json
import sys
import time

MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]
UNKNOWN_MODEL = "no-such-model-here"


def need(condition, reason):
    """Like assert, but not lost under python -O."""
    if not condition:
        raise AssertionError(reason)


def check_models(client, model):
    """The list names the model. (A gateway may list more than one.)"""
    names = [entry.id for entry in client.models.list()]
    need(model in names, f"{model!r} is not in the list of models {names}")
    return names


def check_chat(client, model):
    answer = client.chat.completions.create(model=model, messages=MESSAGES, max_tokens=8, temperature=0)
    choice = answer.choices[0]
    need(choice.message.role == "assistant" and choice.message.content, "no assistant text in the answer")
    need(choice.finish_reason in ("stop", "length"), f"finish_reason is {choice.finish_reason!r}")
    check_usage(answer.usage, 8)
    return {"completion_tokens": answer.usage.completion_tokens}


def check_usage(usage, limit):
    need(usage is not None, "no usage")
    need(usage.prompt_tokens > 0 and 0 < usage.completion_tokens <= limit, f"odd usage {usage}")
    need(usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, f"usage does not add up: {usage}")


def stream_chat(client, model, **extra):
    """Reads one stream to its end: (text, finish reasons, chunks that carry usage, chunks)."""
    text, reasons, usages, chunks = "", [], [], 0
    stream = client.chat.completions.create(
        model=model, messages=MESSAGES, max_tokens=12, temperature=0, stream=True, **extra
    )
    for chunk in stream:
        chunks += 1
        if chunk.usage is not None:
            need(not chunk.choices, "usage came in a chunk that has choices")
            usages.append(chunk.usage)
        for choice in chunk.choices:
            text += choice.delta.content or ""
            if choice.finish_reason:
                reasons.append(choice.finish_reason)
    need(text, "the stream held no text")
    need(len(reasons) == 1, f"a stream has one finish_reason, this one has {reasons}")
    return text, usages, chunks


def check_stream(client, model):
    """Not asked for usage: none arrives, even if a gateway asked the engine for its own books."""
    text, usages, chunks = stream_chat(client, model)
    need(not usages, f"{len(usages)} usage chunks arrived though the client did not ask")
    need(chunks > 2, f"{chunks} chunks for {len(text)} characters is not a stream")
    return {"chunks": chunks}


def check_stream_usage(client, model):
    """Asked for usage: exactly one chunk has it."""
    _, usages, chunks = stream_chat(client, model, stream_options={"include_usage": True})
    need(len(usages) == 1, f"{len(usages)} usage chunks, expected 1")
    check_usage(usages[0], 12)
    return {"chunks": chunks}


def check_stream_is_live(client, model):
    """The first token comes well before the last: nothing on the way collects the answer."""
    start = time.monotonic()
    first = None
    stream = client.chat.completions.create(
        model=model, messages=MESSAGES, max_tokens=48, temperature=0, stream=True
    )
    for chunk in stream:
        if first is None and chunk.choices and chunk.choices[0].delta.content:
            first = time.monotonic() - start
    total = time.monotonic() - start
    need(first is not None and first < 0.9 * total, f"first token after {first} s of {total} s")
    return {"first_token_s": round(first, 3), "total_s": round(total, 3)}


def check_completions(client, model):
    answer = client.completions.create(model=model, prompt="The sky is", max_tokens=6, temperature=0)
    need(answer.choices[0].text, "no text in the completion")
    check_usage(answer.usage, 6)
    return {"completion_tokens": answer.usage.completion_tokens}


def check_embeddings(client, model):
    """Runs where the server has embeddings; answers 404, 405 or 501 mean it has not."""
    import openai

    try:
        answer = client.embeddings.create(model=model, input=["one", "two"])
    except openai.APIStatusError as error:
        need(error.status_code in (404, 405, 501), f"embeddings failed with {error.status_code}: {error}")
        return "not supported"
    need(len(answer.data) == 2, f"{len(answer.data)} embeddings for 2 inputs")
    need(len(answer.data[0].embedding) == len(answer.data[1].embedding) > 0, "embeddings differ in length")
    return {"dimensions": len(answer.data[0].embedding)}


def check_unknown_model(client, _model):
    import openai

    for stream in (False, True):
        try:
            client.chat.completions.create(model=UNKNOWN_MODEL, messages=MESSAGES, max_tokens=4, stream=stream)
        except openai.NotFoundError as error:
            need(error.code == "model_not_found", f"code is {error.code!r}, expected 'model_not_found'")
            need(error.body and error.body.get("message"), f"no message in the error object {error.body}")
        else:
            raise AssertionError(f"an unknown model was answered (stream={stream})")
    return "NotFoundError, model_not_found"


def check_bad_request(client, model):
    """A request no engine accepts is BadRequestError, and not retried into something else."""
    import openai

    try:
        client.chat.completions.create(model=model, messages="not a list", max_tokens=4)
    except openai.BadRequestError:
        return "BadRequestError"
    raise AssertionError("messages that are not a list were accepted")


CHECKS = {
    "models": check_models,
    "chat": check_chat,
    "stream": check_stream,
    "stream_usage": check_stream_usage,
    "stream_is_live": check_stream_is_live,
    "completions": check_completions,
    "embeddings": check_embeddings,
    "unknown_model": check_unknown_model,
    "bad_request": check_bad_request,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base_url", help="such as http://127.0.0.1:8080/v1")
    parser.add_argument("--model", required=True)
    parser.add_argument("--key", default="none", help="API key")
    parser.add_argument("--only", nargs="+", choices=CHECKS, metavar="CHECK", help=f"of {', '.join(CHECKS)}")
    parser.add_argument("--skip", nargs="+", choices=CHECKS, metavar="CHECK", default=[])
    options = parser.parse_args()

    import openai

    client = openai.OpenAI(base_url=options.base_url, api_key=options.key, max_retries=0, timeout=60)
    results = {}
    for name in options.only or CHECKS:
        if name in options.skip:
            results[name] = "skipped"
            continue
        try:
            results[name] = CHECKS[name](client, options.model)
        except (AssertionError, openai.OpenAIError) as error:
            reason = f"{type(error).__name__}: {error}"
            print(json.dumps({"ok": False, "check": name, "reason": reason, "checks": results}))
            sys.exit(1)
    print(json.dumps({"ok": True, "sdk": openai.__version__, "checks": results}))


if __name__ == "__main__":
    main()
