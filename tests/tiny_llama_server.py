"""Real llama.cpp over a tiny random model, in a child process, on loopback.

`async with open_tiny_llama_server(folder) as url` gives a llama-server; as a program
(`python -m tests.tiny_llama_server GGUF SLOTS`) it is the child.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import trio

from tests.tiny_gguf import CONTEXT_TOKENS, make_tiny_gguf

ROOT = Path(__file__).resolve().parents[1]
MODEL = "tiny-random"
START_TIMEOUT_S = 30


@contextlib.asynccontextmanager
async def open_tiny_llama_server(folder: Path, *, slots: int = 2) -> AsyncIterator[str]:
    """Make the model in `folder`, serve it, and give the address until the block ends."""
    model = folder / "tiny.gguf"
    await trio.to_thread.run_sync(make_tiny_gguf, model)
    command = [sys.executable, "-m", "tests.tiny_llama_server", str(model), str(slots)]
    with (folder / "llama.log").open("wb") as log:
        process = await trio.lowlevel.open_process(
            command, cwd=ROOT, stdin=-1, stdout=-1, stderr=log
        )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        with trio.fail_after(START_TIMEOUT_S):
            line = b""
            while not line.endswith(b"\n"):
                piece = await process.stdout.receive_some()
                assert piece, (folder / "llama.log").read_text(errors="replace")
                line += piece
        yield line.decode().strip()
    finally:
        with trio.CancelScope(shield=True):
            process.kill()
            await process.wait()
            await process.stdin.aclose()
            await process.stdout.aclose()


def serve(model: str, slots: int) -> None:
    """Serve until stdin ends."""
    import xllamacpp  # noqa: PLC0415

    # llama.cpp logs to stdout too.
    out = os.dup(1)
    os.dup2(2, 1)
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.model_alias = {MODEL}
    params.n_ctx = CONTEXT_TOKENS * slots
    params.n_parallel = slots
    params.n_gpu_layers = 0
    params.warmup = False
    params.cpuparams.n_threads = 1
    params.cpuparams_batch.n_threads = 1
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    server = xllamacpp.Server(params)
    os.write(out, f"{server.listening_address}\n".encode())
    sys.stdin.read()
    # The server's threads have nothing to save.
    os._exit(0)


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
