"""Folding as the client asks for it: shorten a text, have it again, find it by a question."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import anyio

from kowalski.contexts import spooled
from kowalski.errors import (
    ConfigError,
    ContextFoldingError,
    DeviceFailed,
    ExecutionError,
    NoDevicesAvailable,
)
from kowalski.results import FoldResult, FoundFold

Json = Mapping[str, Any]
Ask = Callable[[str, Json], Awaitable[Json]]
"""One request to the node, by its verb; raises the errors of the client."""

NAME_CHARS_MAX = 200


async def fold(ask: Ask, text: str | Path, request: Json) -> FoldResult:
    if not isinstance(text, Path):
        request = {**request, "name": text[:NAME_CHARS_MAX] or "text"}
    with spooled(text) as files:
        try:
            done = await ask("fold", {**request, "path": files[0]["path"]})
        except (ConfigError, NoDevicesAvailable):
            raise
        except (DeviceFailed, ExecutionError) as error:
            raise ContextFoldingError(str(error), code=error.code) from error
    return FoldResult(
        text=done["text"],
        source_tokens=done["source_tokens"],
        tokens=done["tokens"],
        algorithm=done["algorithm"],
        peer=done["peer"],
        name=done["name"],
        handle=done.get("handle"),
    )


async def unfold(ask: Ask, request: Json) -> str:
    try:
        done = await ask("unfold", request)
    except (DeviceFailed, ExecutionError) as error:
        raise ContextFoldingError(str(error), code=error.code) from error
    if "text" in done:
        return str(done["text"])
    data = await anyio.Path(done["files"][0]["path"]).read_bytes()
    return data.decode(errors="replace")


async def nearest(ask: Ask, request: Json) -> tuple[FoundFold, ...]:
    done = await ask("folds", request)
    return tuple(
        FoundFold(
            handle=row["handle"],
            name=row["name"],
            bytes=row["bytes"],
            score=row["score"],
            text=row["text"],
        )
        for row in done["folds"]
    )
