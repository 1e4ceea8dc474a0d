"""Server-sent events (WHATWG HTML, section 9.2): a stream of named events, kept alive."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio

from kowalski.mesh.plain_nursery import open_plain_nursery
from kowalski.node.http.exchange import Exchange, Headers, dump

EVENT_STREAM = "text/event-stream; charset=utf-8"

KEEP_ALIVE_S = 10.0

HEADERS: Headers = (
    ("content-type", EVENT_STREAM),
    ("cache-control", "no-store"),
    # Proxies that hold back what they have would hold back all of it.
    ("x-accel-buffering", "no"),
)

SendEvent = Callable[[str, object], Awaitable[None]]
"""Sends one event: its name, empty for none, and its data, which becomes JSON."""


def event(name: str, data: object) -> bytes:
    """One event. JSON has no newlines, so the data is one line."""
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + dump(data) + b"\n\n"


@asynccontextmanager
async def open_events(exchange: Exchange, headers: Headers = ()) -> AsyncIterator[SendEvent]:
    """Answer with events for the length of the block; a comment goes out where nothing else does.

    Errors of the block come out plain.
    """
    await exchange.begin(200, (*HEADERS, *headers))
    await exchange.send(b"")
    said_at = trio.current_time()
    turn = trio.Lock()

    async def send(name: str, data: object) -> None:
        nonlocal said_at
        async with turn:
            await exchange.send(event(name, data))
            said_at = trio.current_time()

    async def keep_alive() -> None:
        nonlocal said_at
        while True:
            await trio.sleep_until(said_at + KEEP_ALIVE_S)
            if trio.current_time() >= said_at + KEEP_ALIVE_S:
                async with turn:
                    await exchange.send(b": still here\n\n")
                    said_at = trio.current_time()

    async with open_plain_nursery() as nursery:
        nursery.start_soon(keep_alive)
        yield send
        async with turn:  # no comment is on its way
            nursery.cancel_scope.cancel()
    await exchange.end()
