#!/usr/bin/env python3
"""A real inference engine on loopback: llama.cpp's own HTTP server, run in this process by xllamacpp.

For the tests and the demo; the model comes from e2e/scripts/fetch-engines.sh. Prints `listening on http://...` once it
answers (GET /health is 200 from then on), ends on SIGTERM or SIGINT, and by itself when the process that started it is
gone. Not a way to serve models in production.

llama.cpp's habits a test must know: an unknown model is answered, not refused; without max_tokens a small model may
run to the end of the context.
"""

import argparse
import os
import signal
import sys

PARENT_CHECK_SECONDS = 0.5


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one, printed at start")
    parser.add_argument("--model", required=True, help="path of a GGUF file")
    parser.add_argument("--alias", default="smollm2", help="model name in answers and in /v1/models")
    parser.add_argument("--threads", type=int, default=1, help="threads that compute")
    parser.add_argument("--ctx", type=int, default=4096, help="context in tokens, shared by the slots")
    parser.add_argument("--slots", type=int, default=2, help="requests generated at the same time")
    parser.add_argument("--embeddings", action="store_true", help="serve /v1/embeddings too (mean pooling)")
    parser.add_argument("--verbose", action="store_true", help="llama.cpp's log on stderr")
    return parser.parse_args()


def serve(options):
    """Starts the server; its threads run until the process ends."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = options.model
    params.model_alias = [options.alias]  # a plain string would be taken letter by letter
    params.hostnames = ["127.0.0.1"]
    params.port = options.port
    params.n_ctx = options.ctx
    params.n_parallel = options.slots
    params.cpuparams.n_threads = options.threads
    params.cpuparams_batch.n_threads = options.threads
    params.warmup = False
    params.use_jinja = True
    params.endpoint_metrics = True
    params.endpoint_slots = True
    params.verbosity = 3 if options.verbose else -1
    if options.embeddings:
        params.embedding = True
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    return xllamacpp.Server(params)


def main():
    options = arguments()
    if not os.path.isfile(options.model):
        sys.exit(f"error: no model at {options.model}: run e2e/scripts/fetch-engines.sh")
    parent = os.getppid()
    ending = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ending)  # before any thread starts, so that sigtimedwait gets them
    try:
        server = serve(options)
    except ImportError as error:
        sys.exit(f"error: {error}: run e2e/scripts/fetch-engines.sh and use .cache/engines/bin/python")
    print(f"listening on {server.listening_address}", flush=True)
    while os.getppid() == parent:
        if signal.sigtimedwait(ending, PARENT_CHECK_SECONDS):
            break
    # The server's own shutdown waits for running generations; nothing here is worth the wait.
    os._exit(0)


if __name__ == "__main__":
    main()
