"""The scripted model server beside a test that does not run an event loop: in a thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from tests.scripted_model_server import Script, ScriptedModelServer, open_scripted_server

START_S = 30.0


@contextmanager
def serve_in_thread(script: Script) -> Iterator[ScriptedModelServer]:
    """Its `calls` and `stats` may be read at any time; nothing else of it is for other threads."""
    servers: list[ScriptedModelServer] = []
    is_up, stops = threading.Event(), threading.Event()

    async def serve() -> None:
        async with open_scripted_server(script) as server:
            servers.append(server)
            is_up.set()
            await trio.to_thread.run_sync(stops.wait)

    thread = threading.Thread(target=trio.run, args=(serve,))
    thread.start()
    try:
        assert is_up.wait(START_S)
        yield servers[0]
    finally:
        stops.set()
        thread.join(START_S)
