"""A GGUF file that the owner named, served by llama.cpp in a child process.

Starts the child, tells the catalogue where it listens, and starts it again when it dies, as
`core.restarts` says. The child is an ordinary llama-server to everything else.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Final

import structlog
import trio

from kowalski.node.backends import llama_program
from kowalski.node.backends.gguf_metadata import GgufMetadata, read_metadata
from kowalski.node.backends.llama_program import Settings
from kowalski.node.backends.model_files import ModelFile, parse_model_file
from kowalski.node.backends.probing import Candidate, Finding
from kowalski.node.core.restarts import Restarts

if TYPE_CHECKING:
    from kowalski.node.backends.catalogue import Catalogue

log = structlog.get_logger(__name__)

SLOTS: Final = 2
CONTEXT_TOKENS: Final = 8192
BATCH_TOKENS: Final = 512
"""llama.cpp's default."""

START_TIMEOUT_S: Final = 600.0
"""A large model on a slow disk takes minutes."""

STOP_TIMEOUT_S: Final = 2.0
WORDS_BYTES: Final = 16 * 1024
_MOMENT: Final = re.compile(r"^[\d.]+ [A-Z] ")
_TELLING: Final = re.compile(r"assert|error|fail|unable|out of memory", re.IGNORECASE)


def settings_for(file: ModelFile, metadata: GgufMetadata) -> Settings:
    trained = metadata.context_tokens or CONTEXT_TOKENS
    context_tokens = min(trained, file.options.get("context", CONTEXT_TOKENS))
    return Settings(
        path=str(file.path.absolute()),
        alias=file.name,
        slots=file.options.get("slots", SLOTS),
        context_tokens=context_tokens,
        batch_tokens=context_tokens if metadata.only_embeds else BATCH_TOKENS,
        threads=file.options.get("threads", -1),
        gpu_layers=file.options.get("gpu_layers", -1),
        # Where the model does not say how to pool, the mean serves; else it knows better.
        sets_pooling=not metadata.pools,
    )


@contextlib.asynccontextmanager
async def open_model_files(
    texts: tuple[str, ...], catalogue: Catalogue
) -> AsyncIterator[tuple[ModelFile, ...]]:
    """Serve all these files until the block ends. They are loaded while the node goes on.

    Raises:
        ConfigError: a file that is none.
    """
    files = tuple(map(parse_model_file, texts))
    heads = [await trio.to_thread.run_sync(read_metadata, file.path) for file in files]
    async with trio.open_nursery() as nursery:
        for file, head in zip(files, heads, strict=True):
            nursery.start_soon(_keep_serving, file, settings_for(file, head), catalogue)
        yield files
        nursery.cancel_scope.cancel()


async def _keep_serving(file: ModelFile, settings: Settings, catalogue: Catalogue) -> None:
    restarts = Restarts()
    where = str(file.path)
    delay_s: float | None = 0.0
    while delay_s is not None:
        await trio.sleep(delay_s)
        catalogue.report(Finding(where, is_explicit=True, why_not="llama.cpp is loading it"))
        started_at = trio.current_time()
        ready_at, why = await _serve_once(file, settings, catalogue)
        ran_s = trio.current_time() - ready_at if ready_at is not None else 0.0
        restarts, delay_s = restarts.ended(ran_s)
        log.warning(
            "llama-ended",
            file=where,
            after_s=round(trio.current_time() - started_at, 1),
            again_in_s=delay_s,
            why=why,
        )
        words = "starts again" if delay_s is not None else "given up"
        catalogue.report(Finding(where, is_explicit=True, why_not=f"{why} ({words})"))


async def _serve_once(
    file: ModelFile, settings: Settings, catalogue: Catalogue
) -> tuple[float | None, str]:
    """Run one child until it ends: when it was ready, and why it ended."""
    key = secrets.token_hex(16)
    async with _open_child(settings, key) as child:
        said = await child.first_line()
        url, error = said.get("url"), said.get("error")
        if not isinstance(url, str):
            return None, ": ".join(filter(None, [str(error or ""), await child.epitaph()]))
        ready_at = trio.current_time()
        log.info("llama-ready", file=str(file.path), url=url)
        place = Candidate(url, f"{url}/v1", key, is_explicit=True)
        async with catalogue.with_place(place, instead_of=str(file.path)):
            code = await child.wait()
        return ready_at, f"llama.cpp ended with {code}: {child.last_words()}"


class _Child:
    def __init__(self, process: trio.Process, nursery: trio.Nursery) -> None:
        self._process = process
        self._words = bytearray()
        self._heard_all = trio.Event()
        nursery.start_soon(self._listen)

    async def first_line(self) -> Mapping[str, object]:
        """What it says once it is ready, or that it cannot be; empty if it ended."""
        assert self._process.stdout is not None
        line = b""
        with trio.move_on_after(START_TIMEOUT_S):
            while not line.endswith(b"\n"):
                piece = await self._process.stdout.receive_some(4096)
                if not piece:
                    return {}
                line += piece
            said = json.loads(line)
            return said if isinstance(said, dict) else {}
        return {"error": f"not loaded within {START_TIMEOUT_S:.0f} s"}

    async def wait(self) -> int:
        return await self._process.wait()

    async def epitaph(self) -> str:
        """Of one that never was ready: the first thing that went wrong, once it has said all."""
        with trio.move_on_after(STOP_TIMEOUT_S):
            await self._process.wait()
            await self._heard_all.wait()
        return self._words_at(0) or "it ended without a word"

    def last_words(self) -> str:
        """The last line of its log that sounds like what went wrong."""
        return self._words_at(-1)

    def _words_at(self, place: int) -> str:
        lines = self._words.decode(errors="replace").strip().splitlines()
        telling = [line for line in lines if _TELLING.search(line)]
        return _MOMENT.sub("", (telling or lines or [""])[place]).strip()[:300]

    async def _listen(self) -> None:
        assert self._process.stderr is not None
        async for data in self._process.stderr:
            self._words += data
            del self._words[:-WORDS_BYTES]
        self._heard_all.set()


@contextlib.asynccontextmanager
async def _open_child(settings: Settings, key: str) -> AsyncIterator[_Child]:
    command = [sys.executable, "-m", llama_program.__name__, settings.argument()]
    process = await trio.lowlevel.open_process(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # Else it starts a debugger on itself when it aborts.
        env={**os.environ, "GGML_NO_BACKTRACE": "1"},
        # A signal of the terminal is for the node, which then ends the child.
        start_new_session=os.name == "posix",
    )
    assert process.stdin is not None
    try:
        with contextlib.suppress(trio.BrokenResourceError):
            await process.stdin.send_all(key.encode() + b"\n")
        async with trio.open_nursery() as nursery:
            yield _Child(process, nursery)
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            await process.stdin.aclose()
            with trio.move_on_after(STOP_TIMEOUT_S):
                await process.wait()
            if process.returncode is None:
                process.kill()
                await process.wait()
            for pipe in (process.stdout, process.stderr):
                if pipe is not None:
                    await pipe.aclose()
