"""The child process in which llama.cpp runs: `python -m kowalski.node.backends.llama_program`.

A process of its own, because llama.cpp ends the process it is in where it meets a bad model or runs
out of memory, and holds the GIL while it loads. Its one argument is the JSON of a `Settings`, less
the key, which comes as the first line of stdin: the arguments of a process can be read by anybody.
It says one line of JSON, `{"url": ...}` or `{"error": ...}`, and ends when its stdin does: with the
node, however that dies.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from importlib import import_module


@dataclass(frozen=True, slots=True)
class Settings:
    """`context_tokens` is of each slot. `threads` and `gpu_layers` of -1 leave it to llama.cpp.

    `batch_tokens` are read at a time; a text to embed may not be longer.
    """

    path: str
    alias: str
    slots: int
    context_tokens: int
    batch_tokens: int
    threads: int
    gpu_layers: int
    sets_pooling: bool

    def argument(self) -> str:
        return json.dumps(asdict(self))


def main(arguments: list[str]) -> int:
    # llama.cpp logs to stdout as well.
    out = os.dup(1)
    os.dup2(2, 1)

    def say(**words: str) -> None:
        os.write(out, json.dumps(words).encode() + b"\n")

    settings = Settings(**json.loads(arguments[0]))
    key = sys.stdin.readline().strip()
    try:
        xllamacpp = import_module("xllamacpp")
    except ImportError:
        say(error="llama.cpp is not installed; install it with: pip install 'kowalski-node[llama]'")
        return 1
    params = xllamacpp.CommonParams()
    params.model.path = settings.path
    params.model_alias = {settings.alias}
    params.n_parallel = settings.slots
    params.n_ctx = settings.context_tokens * settings.slots
    params.n_gpu_layers = settings.gpu_layers
    if settings.threads > 0:
        params.cpuparams.n_threads = settings.threads
        params.cpuparams_batch.n_threads = settings.threads
    params.warmup = False
    params.embedding = True
    # Of as many tokens for each slot: else its graph for pooling has shapes that do not fit.
    batch = max(1, settings.batch_tokens // settings.slots) * settings.slots
    params.n_ubatch = params.n_batch = batch
    if settings.sets_pooling:
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    # It answers any page that a browser of this device shows: only with the key.
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [key]
    params.ui = False
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        say(error=str(error))
        return 1
    say(url=str(server.listening_address))
    sys.stdin.read()
    # The threads of the server have nothing to save, and would be waited for.
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
