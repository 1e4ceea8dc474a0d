"""A node that says what a test wrote down, behind the real control socket and the real messages."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from kowalski.node import places
from kowalski.node.control import Emit, Verb, serve_control
from kowalski.node.control_messages import REQUESTS, parse_request


@dataclass(frozen=True)
class Script:
    """The answer to one verb; `hangs`: after the events comes nothing, ever."""

    done: Mapping[str, object] = field(default_factory=dict)
    events: tuple[Mapping[str, object], ...] = ()
    error: Exception | None = None
    hangs: bool = False


@dataclass(frozen=True)
class ScriptedNode:
    data_dir: Path
    heard: list[tuple[str, dict[str, object]]]
    contents: list[bytes]
    """What the files held that requests named, at the time."""
    has_hung: threading.Event
    was_cancelled: threading.Event


@contextmanager
def scripted_node(data_dir: Path, scripts: Mapping[str, Script]) -> Iterator[ScriptedNode]:
    node = ScriptedNode(data_dir, [], [], threading.Event(), threading.Event())
    ready = threading.Event()
    stop: list[trio.CancelScope] = []
    tokens: list[trio.lowlevel.TrioToken] = []

    async def live() -> None:
        verbs = {name: _verb(node, name, script) for name, script in scripts.items()}
        tokens.append(trio.lowlevel.current_trio_token())
        async with trio.open_nursery() as nursery:
            stop.append(nursery.cancel_scope)
            await nursery.start(serve_control, places.control_path(data_dir), verbs)
            ready.set()

    thread = threading.Thread(target=trio.run, args=(live,), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield node
    finally:
        tokens[0].run_sync_soon(stop[0].cancel)
        thread.join(10)


def _verb(node: ScriptedNode, name: str, script: Script) -> Verb:
    assert name in REQUESTS

    async def answer(request: dict[str, object], emit: Emit) -> dict[str, object]:
        parse_request(name, request)
        node.heard.append((name, request))
        for name_of_path in ("path", "stdin"):
            if isinstance(path := request.get(name_of_path), str):
                node.contents.append(await trio.Path(path).read_bytes())
        for event in script.events:
            await emit(dict(event))
        if script.error is not None:
            raise script.error
        if script.hangs:
            node.has_hung.set()
            try:
                await trio.sleep_forever()
            finally:
                node.was_cancelled.set()
        return dict(script.done)

    return answer
