"""What a kernel is told of one cell: its scene, and what was compiled of the same source before."""

from __future__ import annotations

import contextlib

import trio

from kowalski.node.repl.cell_run import CellOrder
from kowalski.node.repl.compile_cache import LIBRARY, PROGRAM_BYTES_MAX, CompileCache
from kowalski.node.repl.kernel import Kernel
from kowalski.node.repl.languages import Language
from kowalski.node.repl.seam import Scene

_EXECUTABLE = 0o555


async def order_of(
    code: str,
    number: int,
    *,
    kernel: Kernel,
    language: Language,
    scene: Scene | None,
    clock: tuple[int, ...],
    cache: CompileCache | None,
) -> CellOrder:
    """`number`: of the session's cells, from 1. Raises OSError: the scene cannot be shown."""
    further: dict[str, object] = {"clock": clock} if clock else {}
    if scene is not None:
        further |= {"name": scene.name, "arguments": scene.arguments}
        if scene.stdin is not None:
            further["stdin"] = await kernel.show(scene.stdin, f".stdin-{number}")
    if cache is None or not language.is_compiled:
        return CellOrder(code, further)
    return await _compiled(code, number, further, kernel=kernel, language=language, cache=cache)


async def _compiled(
    code: str,
    number: int,
    further: dict[str, object],
    *,
    kernel: Kernel,
    language: Language,
    cache: CompileCache,
) -> CellOrder:
    source = (language.name, kernel.version, code)
    if built := await trio.to_thread.run_sync(cache.find, *source):
        with contextlib.suppress(OSError):
            shown = await kernel.show(built, f".built-{number}", mode=_EXECUTABLE)
            return CellOrder(code, {**further, "built": shown})
    if number > 1:
        # What ran here before could have a hand in what is built now: it is not kept.
        return CellOrder(code, further)
    if language.library is not None:
        library = await trio.to_thread.run_sync(cache.find, *source[:2], LIBRARY)
        with contextlib.suppress(OSError):
            further["library"] = library and await kernel.show(library, ".library")

    def keep(path: str) -> None:
        if program := kernel.read(path, bytes_max=PROGRAM_BYTES_MAX):
            cache.keep(*source, program)

    async def on_built(path: str) -> None:
        await trio.to_thread.run_sync(keep, path)

    return CellOrder(code, further, on_built)
